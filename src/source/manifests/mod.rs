//! A directory of manifests as a source: read it, read it again after a change, and tell what differs.
//!
//! [`Manifests::load`] is one reading. It reads and parses only files that changed, turns each into objects
//! and problems (`parse`), and merges them with what was in force (`merge`). [`Watch`] tells when
//! to read again; it is the only part that needs tokio.

mod contents;
mod documents;
mod files;
mod kinds;
mod merge;
mod parallel;
mod parse;
mod shape;
mod trail;
mod watch;

pub use files::FileId;
pub use watch::Watch;

use super::convert::{Context, Rules};
use crate::state::{Change, Origin, Problem};
use contents::{Entry, File};
use files::Stamp;
use merge::{Merged, merge};
use parse::{Source, parse};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What becomes of what was read before when the directory cannot be.
const STAYS: &str = "what it said before stays in force";

/// A directory of manifests, and what it last said.
#[derive(Debug)]
pub struct Manifests {
    directory: PathBuf,
    context: Context,
    /// The directory that was read last, if that was believed.
    place: Option<FileId>,
    /// The files of the last reading, by name. Replaced whole by each reading.
    files: HashMap<OsString, Known>,
    /// What is in force since the last reading.
    merged: Merged,
}

/// A file that was read.
#[derive(Clone, Debug)]
struct Known {
    /// None where the file is to be read again in any case.
    stamp: Option<Stamp>,
    file: Arc<File>,
}

impl Known {
    fn unseen(path: Arc<str>) -> Self {
        Self { stamp: None, file: Arc::new(File { path, entries: vec![Entry::Unseen] }) }
    }
}

/// A file at the time of a reading.
enum Found {
    /// As it was, or to be taken so.
    Unchanged(Known),
    /// With a text that is still to be parsed, and what is to be its stamp.
    Read(Option<Stamp>),
}

/// What a reading brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// What differs from the last reading.
    pub changes: Vec<Change>,
    /// Everything that is wrong now, old and new, in the order of files and documents.
    pub problems: Vec<Problem>,
}

/// Why a directory could not be read. Nothing changes then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there, is no directory, or may not be read.
    #[error("the manifests in {} cannot be read", directory.display())]
    Directory {
        /// As the user named it.
        directory: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is another one than before, and has no manifest: nothing is mounted there any more, or it was made anew and is
    /// still to be filled.
    #[error("{} is another directory than before and has no manifest", directory.display())]
    Emptied {
        /// As the user named it.
        directory: PathBuf,
    },
}

impl Manifests {
    /// The manifests of `directory`, none of them read yet, for the node of this name.
    pub fn new(directory: impl Into<PathBuf>, node_name: &str) -> Self {
        let context = Context::new(Rules::Manifest, node_name);
        let directory = directory.into();
        Self { directory, context, place: None, files: HashMap::new(), merged: Merged::default() }
    }

    /// Reads the directory and tells what differs from the last reading.
    ///
    /// # Errors
    /// When the directory cannot be listed, or is [another one that has nothing](Error::Emptied). What was in force stays
    /// so, and the next reading compares to it.
    pub fn load(&mut self) -> Result<Update, Error> {
        self.load_unless(|_| false)
    }

    /// The same, while files are written: of a file that `is_being_written` when it was read nothing is believed, and what it
    /// said before stays.
    ///
    /// # Errors
    /// As [`Manifests::load`].
    pub fn load_unless(&mut self, is_being_written: impl FnMut(FileId) -> bool) -> Result<Update, Error> {
        // Of what is mounted anew the numbers may be the same, so one reading that failed makes it another directory.
        let (place, before) = (FileId::at(&self.directory), self.place.take());
        let names = files::list(&self.directory)
            .map_err(|source| Error::Directory { directory: self.directory.clone(), source })?;
        if names.is_empty() && place != before && !self.files.is_empty() {
            return Err(Error::Emptied { directory: self.directory.clone() });
        }
        let known = self.files(names, is_being_written);
        let merged = merge(&self.merged, known.iter().map(|(_, known)| &*known.file));
        let changes = self.merged.changes_to(&merged);
        self.place = place;
        self.files = known.into_iter().collect();
        self.merged = merged;
        Ok(Update { changes, problems: self.merged.problems.clone() })
    }

    /// What stands when a reading failed: what was wrong before, and that.
    pub fn problems_with(&self, error: &Error) -> Vec<Problem> {
        let file = self.directory.to_string_lossy().into();
        let message = match error {
            Error::Directory { source, .. } => format!("the directory of manifests cannot be read, {STAYS}: {source}"),
            Error::Emptied { .. } => {
                format!("the directory of manifests is another one than before and has none, {STAYS} until it has")
            }
        };
        let problem =
            Problem { origin: Origin::Manifest { file, document: 0 }, object: None, field: String::new(), message };
        [problem].into_iter().chain(self.merged.problems.iter().cloned()).collect()
    }

    /// The files as they are now; only those that changed are read and parsed. A file that went since it was
    /// listed is left out.
    fn files(&self, names: Vec<OsString>, mut is_being_written: impl FnMut(FileId) -> bool) -> Vec<(OsString, Known)> {
        let mut found = Vec::with_capacity(names.len());
        let mut sources = Vec::new();
        for name in names {
            let path = self.directory.join(&name);
            if let Some(known) = self.unchanged(&name, &path) {
                found.push((name, Found::Unchanged(known)));
            } else if let Some(reading) = files::read(&path) {
                let path: Arc<str> = path.to_string_lossy().into();
                if reading.file.is_some_and(&mut is_being_written) {
                    let before = self.files.get(&name).cloned();
                    found.push((name, Found::Unchanged(before.unwrap_or_else(|| Known::unseen(path)))));
                } else {
                    found.push((name, Found::Read(reading.stamp)));
                    sources.push(Source { path, text: reading.text });
                }
            }
        }
        let mut parsed = parse(&sources, &self.context).into_iter();
        let mut known = |found| match found {
            Found::Unchanged(known) => Some(known),
            Found::Read(stamp) => parsed.next().map(|file| Known { stamp, file: Arc::new(file) }),
        };
        found.into_iter().filter_map(|(name, found)| known(found).map(|known| (name, known))).collect()
    }

    fn unchanged(&self, name: &OsStr, path: &Path) -> Option<Known> {
        let known = self.files.get(name)?;
        (known.stamp.is_some() && known.stamp == Stamp::at(path)).then(|| known.clone())
    }
}

#[cfg(test)]
mod tests;
