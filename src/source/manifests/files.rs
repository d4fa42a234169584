//! The directory's files: which of them are manifests, their text, and whether they changed since they were read.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The largest file that is read, in bytes: some 200,000 Services. What a file holds in memory is bounded by it.
pub const FILE_SIZE_MAX: u64 = 64 << 20;

/// How long a file must have been left alone for its times to tell its versions apart: the kernel's clock for them
/// ticks every 10 ms at the slowest (`CONFIG_HZ` 100).
const SETTLED: Duration = Duration::from_millis(100);
/// The same on file systems that count whole seconds, or pairs of them.
const SETTLED_COARSE: Duration = Duration::from_secs(3);

/// Whether a file of this name is read. Names with a dot in front are not, which spares editors' swap files and
/// the inner directories of mounted ConfigMaps; editors' backups (`web.yaml~`, `web.yaml.bak`) end otherwise.
pub(super) fn is_manifest(name: &OsStr) -> bool {
    let name = name.as_bytes();
    !name.starts_with(b".") && [&b".yaml"[..], b".yml", b".json"].iter().any(|ending| name.ends_with(ending))
}

/// The names of the manifests in a directory, sorted.
///
/// # Errors
/// When the directory cannot be read to its end: part of a listing would look like removed files.
pub(super) fn list(directory: &Path) -> io::Result<Vec<OsString>> {
    let names = fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names: Vec<OsString> =
        names.filter(|name| name.as_ref().map_or(true, |n| is_manifest(n))).collect::<Result<_, _>>()?;
    names.sort_unstable();
    Ok(names)
}

/// What tells one file or directory from another, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    /// What `path` leads to, if it leads anywhere.
    pub(super) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    file: FileId,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            file: FileId::of(metadata),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The stamp of the file that `path` leads to, if it leads anywhere.
    pub(super) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}

/// The text of a file, or why there is none.
#[derive(Debug)]
pub(super) struct Reading {
    /// Which file it was, if it could be opened.
    pub file: Option<FileId>,
    /// Set if an equal stamp later means that the file is still the same.
    pub stamp: Option<Stamp>,
    /// The message is for the user.
    pub text: Result<String, String>,
}

/// Reads a file; nothing if it is gone by now.
pub(super) fn read(path: &Path) -> Option<Reading> {
    match open(path) {
        Ok((file, metadata)) => {
            let text = text(file, metadata.size());
            let stamp = settled(&metadata).then(|| Stamp::of(&metadata));
            Some(Reading { file: Some(FileId::of(&metadata)), stamp, text })
        }
        // A link that leads nowhere is there and cannot be read; a file that went since the listing is not there.
        Err(_) if fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) => None,
        Err(error) => Some(Reading { file: None, stamp: None, text: Err(format!("cannot be read: {error}")) }),
    }
}

/// `O_NONBLOCK`, because opening a FIFO would wait for a writer.
fn open(path: &Path) -> io::Result<(fs::File, Metadata)> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        return Ok((file, metadata));
    }
    Err(io::Error::other(if metadata.is_dir() { "it is a directory" } else { "it is not a regular file" }))
}

fn text(file: fs::File, size: u64) -> Result<String, String> {
    let too_large = || format!("larger than {} MiB, the most that is read", FILE_SIZE_MAX >> 20);
    if size > FILE_SIZE_MAX {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    // The file may grow while it is read.
    file.take(FILE_SIZE_MAX + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > FILE_SIZE_MAX {
        return Err(too_large());
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("not UTF-8 text at line {line}, byte {} of the file", good.len())
    })
}

/// A file written just now may be written again without its times showing it.
fn settled(metadata: &Metadata) -> bool {
    let (Ok(seconds), Ok(nanoseconds)) = (metadata.ctime().try_into(), metadata.ctime_nsec().try_into()) else {
        return false;
    };
    let needed = if nanoseconds == 0 { SETTLED_COARSE } else { SETTLED };
    let changed = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds));
    changed.is_some_and(|changed| SystemTime::now().duration_since(changed).is_ok_and(|age| age > needed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_known_by_their_names() {
        for (name, wanted) in [
            ("web.yaml", true),
            ("web.yml", true),
            ("web.json", true),
            (".web.yaml", false),
            (".#web.yaml", false),
            (".web.yaml.swp", false),
            ("web.yaml~", false),
            ("#web.yaml#", false),
            ("web.yaml.bak", false),
            ("web.YAML", false),
            ("yaml", false),
            ("..data", false),
        ] {
            assert_eq!(is_manifest(OsStr::new(name)), wanted, "{name}");
        }
    }
}
