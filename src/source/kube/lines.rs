//! A stream of bytes as lines: a watch sends one event in each.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes that came and were not taken yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    bytes: BytesMut,
    /// This many from the start hold no end of line, so that a long line is not searched again and again.
    searched: usize,
}

impl Lines {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line, without its end. What a stream that ends leaves behind is not a line.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let new = self.bytes.get(self.searched..).unwrap_or_default();
        let Some(at) = new.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.bytes.len();
            return None;
        };
        let line = self.bytes.split_to(self.searched + at).freeze();
        self.bytes.advance(1);
        self.searched = 0;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that come out when `text` comes in pieces of `size` bytes.
    fn lines(text: &str, size: usize) -> Vec<String> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            lines.push(piece);
            out.extend(std::iter::from_fn(|| lines.next()).map(|line| String::from_utf8(line.to_vec()).unwrap()));
        }
        out
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_come() {
        for size in 1..12 {
            assert_eq!(lines("one\n\ntwo and more\nthr", size), ["one", "", "two and more"], "{size}");
        }
    }
}
