//! Who has the inspection socket's name, which stands for the place of the one ipvsd in a network namespace: the kernel
//! gives it to one process alone, and takes it back from the dead.

use super::client::{AskError, ask, daemon_process};
use super::inspection::bind;
use super::log::Told;
use super::questions::LOG;
use std::io;
use std::os::unix::net::UnixListener;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// Between two looks at who has a name and does not answer.
const PAUSE: Duration = Duration::from_millis(500);

/// An ipvsd that has the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another ipvsd runs in this network namespace ({})", match .process {
    Some(process) => format!("process {process}"),
    None => "its process is not seen from here".to_owned(),
})]
pub struct OtherDaemon {
    /// Its process, as this process sees it; none where it cannot.
    pub process: Option<u32>,
}

/// Why a name cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// It is where it belongs.
    #[error(transparent)]
    OtherDaemon(#[from] OtherDaemon),
    /// Somebody has it who is not believed to be an ipvsd: the user.
    #[error("a process of user {0} has the socket's name")]
    Stranger(u32),
    /// Somebody has it who is trusted and does not answer as an ipvsd does.
    #[error("a process that does not answer as ipvsd does has the socket's name")]
    Silent,
    /// There can be no socket.
    #[error("there is no socket: {0}")]
    Io(#[from] io::Error),
}

/// Has an abstract name, or says who does. Whoever has it is given `patience` to answer as an ipvsd does: one that starts
/// at the same moment may not listen yet, and one that ends leaves the name.
///
/// # Errors
/// It cannot be had.
pub async fn claim(name: &str, patience: Duration) -> Result<UnixListener, ClaimError> {
    let end = Instant::now() + patience;
    loop {
        match bind(name) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return Ok(bound?),
        }
        // The log's filter is told at once, whatever the reconciler is at.
        match timeout_at(end, ask::<Told>(name, LOG)).await {
            // It answers root and its own user: to others it says just that.
            Ok(Ok(_) | Err(AskError::Refused(..))) => {
                return Err(OtherDaemon { process: daemon_process(name).await }.into());
            }
            Ok(Err(AskError::Stranger(user))) => return Err(ClaimError::Stranger(user)),
            Ok(Err(_)) if Instant::now() < end => sleep(PAUSE).await,
            Ok(Err(_)) | Err(_) => return Err(ClaimError::Silent),
        }
    }
}
