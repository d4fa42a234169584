//! Tells when the directory may say something new: after a change that could matter, once it has been quiet.
//!
//! inotify watches inodes, and manifests are often symbolic links: a mounted ConfigMap is a directory of links to
//! `..data/NAME`, where `..data` itself is a link that is swapped. So what is watched is every directory in which
//! a name on the way to the directory, or from it to the files, can be swapped. What gets past that (file systems
//! of the network have no notification) is found by looking again every 30 seconds.
//!
//! It also knows who is not done: a file that was written to and is not closed yet would be read as a shorter one.

use super::files::{FileId, is_manifest};
use super::trail::{Step, trail};
use inotify::{Event, EventMask, Inotify, WatchDescriptor, WatchMask};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::Interest as Readiness;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

/// How long it must be quiet: an editor's steps and a copy of many files are one change.
const QUIET: Duration = Duration::from_millis(20);
/// How long to wait for quiet at most.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often to look again without having been told; and for how long a file that somebody began to write and does not
/// go on with is waited for.
const RESCAN: Duration = Duration::from_secs(30);

/// Watches a directory of manifests. It lives in a tokio runtime with I/O and time.
#[derive(Debug)]
pub struct Watch {
    directory: PathBuf,
    /// None where the system has no inotify to give; then there is only the rescan.
    events: Option<AsyncFd<Inotify>>,
    /// Room for what the system tells at a time.
    buffer: Vec<u8>,
    /// What is watched, and what matters there. Renewed by [`Watch::renew`].
    interests: HashMap<WatchDescriptor, Interest>,
    /// Files that were written to and are not closed, or were closed since [`Watch::changed`] last returned.
    writes: HashMap<FileId, Write>,
    /// Directories that could not be watched, so that each is told of once.
    refused: HashSet<PathBuf>,
    /// When the first change came that [`Watch::changed`] has not told of yet.
    since: Option<Instant>,
    /// When to look again in any case.
    rescan: Instant,
}

/// What matters in a directory.
#[derive(Debug, Default)]
struct Interest {
    /// A path of the directory.
    directory: PathBuf,
    /// Whether manifests do: it is the directory itself.
    manifests: bool,
    /// The names on the way to something.
    names: HashSet<OsString>,
    /// Whether files are written here, and not only names swapped.
    is_written: bool,
}

impl Interest {
    fn is_in(&self, name: &OsStr) -> bool {
        self.names.contains(name) || (self.manifests && is_manifest(name))
    }
}

/// What was seen of writing to a file.
#[derive(Clone, Copy, Debug)]
struct Write {
    last: Instant,
    is_done: bool,
}

impl Watch {
    /// Begins to watch. A change after this is told by [`Watch::changed`], so read the directory after it.
    pub fn new(directory: &Path) -> Self {
        let events = Inotify::init().and_then(listening);
        let events = events.inspect_err(|error| warn_of("cannot be watched", directory, error)).ok();
        let mut watch = Self {
            directory: directory.to_owned(),
            events,
            buffer: vec![0; 64 << 10],
            interests: HashMap::new(),
            writes: HashMap::new(),
            refused: HashSet::new(),
            since: None,
            rescan: Instant::now() + RESCAN,
        };
        watch.renew();
        watch
    }

    /// Returns after something changed that could matter, or when it is time to look again. No change is lost if
    /// this is dropped before it returns.
    pub async fn changed(&mut self) {
        let first = match self.since {
            Some(first) => first,
            None => {
                let rescan = self.rescan;
                // At the time of a rescan there is nothing to wait for.
                _ = timeout_at(rescan, self.relevant()).await;
                *self.since.insert(Instant::now())
            }
        };
        let latest = first + PATIENCE;
        while Instant::now() < latest && timeout_at(latest.min(Instant::now() + QUIET), self.relevant()).await.is_ok() {
        }
        // Before the caller reads: what changes from here on is either seen by that reading or told again.
        self.writes.retain(|_, write| !write.is_done && write.last.elapsed() < RESCAN);
        self.renew();
        self.since = None;
        self.rescan = Instant::now() + RESCAN;
    }

    /// Whether what was read of a file just now may be half of what somebody is writing there. If so, the end of that is a
    /// change, unless nothing is written for 30 seconds.
    pub fn is_being_written(&mut self, file: FileId) -> bool {
        if self.take_in() {
            self.since.get_or_insert_with(Instant::now);
        }
        self.writes.get(&file).is_some_and(|write| write.last.elapsed() < RESCAN)
    }

    /// Waits for an event that matters.
    async fn relevant(&mut self) {
        loop {
            let Some(events) = &self.events else { return future::pending().await };
            match events.readable().await {
                // Before the reading, which goes on until there is no more: what comes after is told again.
                Ok(mut ready) => ready.clear_ready(),
                Err(error) => self.fail(&error),
            }
            if self.take_in() {
                return;
            }
        }
    }

    /// Takes in all that the system has to tell by now; whether any of it matters.
    fn take_in(&mut self) -> bool {
        let mut matters = false;
        while let Some(events) = &mut self.events {
            match events.get_mut().read_events(&mut self.buffer) {
                Ok(events) => events.for_each(|event| matters |= note(&self.interests, &mut self.writes, &event)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => self.fail(&error),
            }
        }
        matters
    }

    fn fail(&mut self, error: &io::Error) {
        warn_of("can no longer be watched", &self.directory, error);
        self.events = None;
        self.writes.clear();
    }

    /// Watches what leads to the directory and its files now, and nothing else. Watching an inode again that is
    /// watched already changes nothing.
    fn renew(&mut self) {
        let Some(events) = &self.events else { return };
        let mut watches = events.get_ref().watches();
        let mut interests: HashMap<WatchDescriptor, Interest> = HashMap::new();
        for (directory, interest) in wanted(&self.directory) {
            match watches.add(&directory, mask(interest.is_written)) {
                Ok(watch) => {
                    let known = interests.entry(watch).or_default();
                    known.directory = directory;
                    known.manifests |= interest.manifests;
                    known.names.extend(interest.names);
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => {
                    if self.refused.insert(directory.clone()) {
                        warn_of("cannot be watched", &directory, &error);
                    }
                }
            }
        }
        for (watch, _) in self.interests.drain().filter(|(watch, _)| !interests.contains_key(watch)) {
            // The kernel has dropped it already if its directory is gone.
            _ = watches.remove(watch);
        }
        self.interests = interests;
    }
}

/// Its events as something to wait for.
fn listening(inotify: Inotify) -> io::Result<AsyncFd<Inotify>> {
    // SAFETY: an Inotify owns its file descriptor, and keeps the same one for as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(inotify, Readiness::READABLE) }?)
}

fn warn_of(what: &str, path: &Path, error: &io::Error) {
    tracing::warn!("{} {what}, its changes are noticed every {} s only: {error}", path.display(), RESCAN.as_secs());
}

/// A file that is being written has changed when it is closed; `MODIFY` only says that this is still to come, so it is
/// for directories where files are written. `CREATE` is for links, which are never written; `ATTRIB` for what becomes
/// readable. A directory may have several paths, each with a mask of its own: `MASK_ADD`.
fn mask(is_written: bool) -> WatchMask {
    let names = WatchMask::CLOSE_WRITE
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVE
        | WatchMask::ATTRIB
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::MASK_ADD
        | WatchMask::ONLYDIR;
    if is_written { names | WatchMask::MODIFY } else { names }
}

/// Takes in an event; whether it may be that something new can be read.
fn note(
    interests: &HashMap<WatchDescriptor, Interest>,
    writes: &mut HashMap<FileId, Write>,
    event: &Event<&OsStr>,
) -> bool {
    if event.mask.contains(EventMask::Q_OVERFLOW) {
        writes.clear();
        return true;
    }
    // Events of a directory that is no longer watched may still be in the queue.
    let Some(interest) = interests.get(&event.wd) else { return false };
    let Some(name) = event.name else { return interest.manifests || !event.mask.contains(EventMask::ATTRIB) };
    if !interest.is_in(name) {
        return false;
    }
    let is_written = event.mask.contains(EventMask::MODIFY);
    if let Some(file) = FileId::at(&interest.directory.join(name)) {
        if is_written {
            writes.insert(file, Write { last: Instant::now(), is_done: false });
        } else if let Some(write) = writes.get_mut(&file).filter(|_| !event.mask.contains(EventMask::ATTRIB)) {
            write.is_done = true;
        }
    }
    !is_written
}

/// The directories to watch for the manifests in `directory`, and what matters in each.
fn wanted(directory: &Path) -> BTreeMap<PathBuf, Interest> {
    let mut wanted: BTreeMap<PathBuf, Interest> = BTreeMap::new();
    let itself = wanted.entry(directory.to_owned()).or_default();
    (itself.manifests, itself.is_written) = (true, true);
    let links = links(directory);
    let trails = links.iter().map(|link| trail(link));
    // Where a link leads in the end a file is written.
    let files = trails.clone().filter_map(|mut trail| trail.pop()).map(|step| step.directory).collect::<Vec<_>>();
    for Step { directory, name } in std::iter::once(trail(directory)).chain(trails).flatten() {
        wanted.entry(directory).or_default().names.insert(name);
    }
    for directory in files {
        wanted.entry(directory).or_default().is_written = true;
    }
    wanted
}

/// The manifests that are links.
fn links(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let entries = entries.filter_map(Result::ok).filter(|entry| is_manifest(&entry.file_name()));
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink())).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests;
