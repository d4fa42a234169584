//! A network namespace that lives as long as a value: nothing in `/run/netns`, nothing in the machine's own tables.

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::Handle;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;
use tokio::time::timeout;

/// The kernel answers at once, but rtnetlink waits for ever for an answer that was lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// A network namespace. It goes when this value and all processes and sockets inside are gone.
#[derive(Debug)]
pub struct Namespace {
    /// Keeps it alive.
    file: File,
}

impl Namespace {
    /// A new one, with `lo` up.
    ///
    /// # Errors
    /// Without the right to make one (root has it, except in some containers).
    pub fn new() -> Result<Self> {
        let file = on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace (is this root?)")?;
            current()
        })?;
        let namespace = Self { file };
        namespace.configure(async |netlink| {
            let lo = index_of(&netlink, "lo").await?;
            netlink.link().set(rtnetlink::LinkUnspec::new_with_index(lo).up().build()).execute().await?;
            Ok(())
        })?;
        Ok(namespace)
    }

    /// The namespace of this thread.
    ///
    /// # Errors
    /// If `/proc` does not tell.
    pub fn here() -> Result<Self> {
        Ok(Self { file: current()? })
    }

    /// Runs `work` on a thread inside. Its sockets stay in the namespace wherever they are used later.
    ///
    /// `/proc/sys/net` is then the namespace's, but `/proc/net` still that of the process's first thread: read
    /// `/proc/thread-self/net`.
    ///
    /// # Errors
    /// If the namespace cannot be entered, or `work` fails.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_a_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET).context("cannot enter a network namespace")?;
            work()
        })
    }

    /// Starts a program inside.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let name = command.get_program().to_owned();
        self.run(|| command.spawn().with_context(|| format!("cannot start {}", name.display())))
    }

    /// Changes links, addresses and routes inside.
    ///
    /// # Errors
    /// If the kernel gives no netlink socket, does not answer, or `work` fails.
    pub fn configure<T: Send>(&self, work: impl AsyncFnOnce(Handle) -> Result<T> + Send) -> Result<T> {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let (connection, handle, _unsolicited) = rtnetlink::new_connection()?;
                tokio::spawn(connection);
                timeout(PATIENCE, work(handle)).await.context("no answer from rtnetlink")?
            })
        })
    }

    /// Sets kernel parameters inside, each by its path under `/proc/sys`.
    ///
    /// # Errors
    /// If one does not exist or may not be written.
    pub fn set(&self, parameters: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (name, value) in parameters {
                let path = format!("/proc/sys/{name}");
                fs::write(&path, value).with_context(|| format!("cannot write {value} to {path}"))?;
            }
            Ok(())
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The number of the link with this name.
///
/// # Errors
/// If there is none.
pub async fn index_of(netlink: &Handle, name: &str) -> Result<u32> {
    use futures_util::TryStreamExt;
    let mut links = std::pin::pin!(netlink.link().get().match_name(name.to_owned()).execute());
    let link = links.try_next().await?.ok_or_else(|| anyhow!("there is no link {name}"))?;
    Ok(link.header.index)
}

fn current() -> Result<File> {
    File::open("/proc/thread-self/ns/net").context("cannot open this thread's network namespace")
}

/// A thread's namespace is its own: when it ends, nothing of the process has changed.
fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|reason| panic::resume_unwind(reason)))
}
