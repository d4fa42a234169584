//! Tells when the directory may say something new: after a change that could matter, once it has been quiet.
//!
//! inotify watches inodes, and manifests are often symbolic links: a mounted ConfigMap is a directory of links to
//! `..data/NAME`, where `..data` itself is a link that is swapped. So what is watched is every directory in which
//! a name on the way to the directory, or from it to the files, can be swapped. What gets past that (file systems
//! of the network have no notification) is found by looking again every 30 seconds.

use super::files::is_manifest;
use super::trail::{Step, trail};
use futures_util::StreamExt;
use inotify::{Event, EventMask, EventStream, Inotify, WatchDescriptor, WatchMask};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long it must be quiet: an editor's steps and a copy of many files are one change.
const QUIET: Duration = Duration::from_millis(20);
/// How long to wait for quiet at most.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often to look again without having been told.
const RESCAN: Duration = Duration::from_secs(30);

/// Watches a directory of manifests. It lives in a tokio runtime with I/O and time.
#[derive(Debug)]
pub struct Watch {
    directory: PathBuf,
    /// None where the system has no inotify to give; then there is only the rescan.
    events: Option<EventStream<Vec<u8>>>,
    /// What is watched, and what matters there. Renewed by [`Watch::renew`].
    interests: HashMap<WatchDescriptor, Interest>,
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
    /// Whether manifests do: it is the directory itself.
    manifests: bool,
    /// The names on the way to something.
    names: HashSet<OsString>,
}

impl Watch {
    /// Begins to watch. A change after this is told by [`Watch::changed`], so read the directory after it.
    pub fn new(directory: &Path) -> Self {
        let events = Inotify::init().and_then(|inotify| inotify.into_event_stream(vec![0; 64 << 10]));
        let events = events.inspect_err(|error| warn_of("cannot be watched", directory, error)).ok();
        let mut watch = Self {
            directory: directory.to_owned(),
            events,
            interests: HashMap::new(),
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
        self.renew();
        self.since = None;
        self.rescan = Instant::now() + RESCAN;
    }

    /// Waits for an event that matters.
    async fn relevant(&mut self) {
        loop {
            let Some(events) = &mut self.events else { return future::pending().await };
            match events.next().await {
                Some(Ok(event)) if is_relevant(&self.interests, &event) => return,
                Some(Ok(_)) => {}
                Some(Err(error)) => self.fail(&error),
                None => self.fail(&io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    fn fail(&mut self, error: &io::Error) {
        warn_of("can no longer be watched", &self.directory, error);
        self.events = None;
    }

    /// Watches what leads to the directory and its files now, and nothing else. Watching an inode again that is
    /// watched already changes nothing.
    fn renew(&mut self) {
        let Some(events) = &self.events else { return };
        let mut watches = events.watches();
        let mut interests: HashMap<WatchDescriptor, Interest> = HashMap::new();
        for (directory, interest) in wanted(&self.directory) {
            match watches.add(&directory, mask()) {
                Ok(watch) => {
                    let known = interests.entry(watch).or_default();
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

fn warn_of(what: &str, path: &Path, error: &io::Error) {
    tracing::warn!("{} {what}, its changes are noticed every {} s only: {error}", path.display(), RESCAN.as_secs());
}

/// Not `MODIFY`: a file that is being written has changed when it is closed. `CREATE` is for links, which are
/// never written; `ATTRIB` for what becomes readable.
fn mask() -> WatchMask {
    WatchMask::CLOSE_WRITE
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVE
        | WatchMask::ATTRIB
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR
}

fn is_relevant(interests: &HashMap<WatchDescriptor, Interest>, event: &Event<OsString>) -> bool {
    if event.mask.contains(EventMask::Q_OVERFLOW) {
        return true;
    }
    // Events of a directory that is no longer watched may still be in the queue.
    let Some(interest) = interests.get(&event.wd) else { return false };
    match &event.name {
        Some(name) => interest.names.contains(name) || (interest.manifests && is_manifest(name)),
        None => interest.manifests || !event.mask.contains(EventMask::ATTRIB),
    }
}

/// The directories to watch for the manifests in `directory`, and what matters in each.
fn wanted(directory: &Path) -> BTreeMap<PathBuf, Interest> {
    let mut wanted: BTreeMap<PathBuf, Interest> = BTreeMap::new();
    wanted.entry(directory.to_owned()).or_default().manifests = true;
    let links = links(directory);
    let trails = std::iter::once(trail(directory)).chain(links.iter().map(|link| trail(link)));
    for Step { directory, name } in trails.flatten() {
        wanted.entry(directory).or_default().names.insert(name);
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
