//! Cuts a YAML text into its documents, so that a syntax error in one costs no other.
//!
//! A YAML parser stops for good at the first error, because it cannot know where sense begins again. But a line
//! that begins with `---` or `...` is a marker wherever it stands, in block scalars and quotes too (YAML 1.2.2,
//! rule `c-forbidden`), so documents can be told apart without parsing them.

use std::mem;

/// One document of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    /// Its text with its markers and directives, fit to be parsed alone.
    pub text: &'a str,
    /// How many bytes of the file come before it.
    pub offset: usize,
}

/// The documents of a text, empty ones too. What holds only comments and is not introduced by `---` is none.
pub(super) fn documents(text: &str) -> Vec<Document<'_>> {
    let mut cutter = Cutter { text, start: 0, stage: Stage::Before, documents: Vec::new() };
    let mut offset = 0;
    for line in text.split_inclusive(['\n', '\r']) {
        let next = offset + line.len();
        match line {
            _ if is_marker(line, "---") => cutter.begin(offset),
            _ if is_marker(line, "...") => cutter.end(next),
            _ if cutter.stage == Stage::Before && !is_prefix(line) => cutter.stage = Stage::Within,
            _ => {}
        }
        offset = next;
    }
    cutter.end(offset);
    cutter.documents
}

/// How many lines come before `offset`.
pub(super) fn lines_before(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or_default().replace("\r\n", "\n");
    before.bytes().filter(|b| matches!(b, b'\n' | b'\r')).count()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing but comments, blank lines and directives so far: a `---` still belongs to the same document.
    Before,
    /// The document has begun, and the next `---` begins another.
    Within,
}

struct Cutter<'a> {
    text: &'a str,
    start: usize,
    stage: Stage,
    documents: Vec<Document<'a>>,
}

impl Cutter<'_> {
    /// A document's first marker is at `offset`.
    fn begin(&mut self, offset: usize) {
        if self.stage == Stage::Within {
            self.end(offset);
        }
        self.stage = Stage::Within;
    }

    /// Whatever document there is ends before `offset`.
    fn end(&mut self, offset: usize) {
        let start = mem::replace(&mut self.start, offset);
        if mem::replace(&mut self.stage, Stage::Before) == Stage::Within {
            let text = self.text.get(start..offset).unwrap_or_default();
            self.documents.push(Document { text, offset: start });
        }
    }
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r']))
}

fn is_prefix(line: &str) -> bool {
    let content = line.trim_start();
    content.is_empty() || content.starts_with('#') || line.starts_with('%')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn documents_are_cut_at_markers() {
        for (text, wanted) in [
            ("", vec![]),
            ("# nothing\n\n", vec![]),
            ("a: 1\n", vec!["a: 1\n"]),
            ("---\na: 1\n---\nb: 2", vec!["---\na: 1\n", "---\nb: 2"]),
            ("a: 1\n--- # second\nb: 2\n", vec!["a: 1\n", "--- # second\nb: 2\n"]),
            ("--- {a: 1}\n---\t{b: 2}\n", vec!["--- {a: 1}\n", "---\t{b: 2}\n"]),
            ("# licence\n\n---\na: 1\n", vec!["# licence\n\n---\na: 1\n"]),
            (
                "%YAML 1.2\n---\na: 1\n...\n%YAML 1.2\n---\nb: 2\n",
                vec!["%YAML 1.2\n---\na: 1\n...\n", "%YAML 1.2\n---\nb: 2\n"],
            ),
            ("a: 1\n...\n# end\n", vec!["a: 1\n...\n"]),
            ("a: 1\n...\nb: 2\n", vec!["a: 1\n...\n", "b: 2\n"]),
            ("---\n---\na: 1\n---\n", vec!["---\n", "---\na: 1\n", "---\n"]),
            ("a: 1\r\n---\r\nb: 2\r\n", vec!["a: 1\r\n", "---\r\nb: 2\r\n"]),
            ("a: 1\r---\rb: 2", vec!["a: 1\r", "---\rb: 2"]),
            ("a: |\n  text\n---\nb: 2\n", vec!["a: |\n  text\n", "---\nb: 2\n"]),
            ("a: |\n  ---\n  text\n", vec!["a: |\n  ---\n  text\n"]),
            ("---a: 1\n----\n....\n", vec!["---a: 1\n----\n....\n"]),
            ("a: 'x\n%y'\n", vec!["a: 'x\n%y'\n"]),
        ] {
            assert_eq!(documents(text).iter().map(|d| d.text).collect::<Vec<_>>(), wanted, "{text:?}");
        }
    }

    #[test]
    fn lines_are_counted_whatever_ends_them() {
        assert_eq!(["a\nb\n", "a\r\nb\r\n", "a\rb\r"].map(|text| lines_before(text, text.len())), [2, 2, 2]);
    }

    proptest! {
        #[test]
        fn documents_are_pieces_of_the_text_in_order(text in "([-.%# a:\r\n]|---|\\.\\.\\.|\n){0,60}") {
            let mut end = 0;
            for document in documents(&text) {
                prop_assert!(document.offset >= end);
                end = document.offset + document.text.len();
                prop_assert_eq!(text.get(document.offset..end), Some(document.text));
            }
        }
    }
}
