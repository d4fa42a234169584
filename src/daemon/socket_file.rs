//! The inspection socket's file: the same answers, for programs that know sockets by a path, and from any network namespace
//! that has its directory.
//!
//! The place of the daemon is in the abstract name alone. A file is in one file system for all network namespaces, so it goes
//! to whoever comes first, and it outlives whoever listened there: the next one replaces it.

use std::fs::{DirBuilder, Permissions, remove_file, set_permissions, symlink_metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use tokio::net::UnixStream;

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum SocketFileError {
    /// Another process listens there: a daemon of another network namespace, most likely.
    #[error("another process listens there")]
    Taken,
    /// Something is there that is no socket, and nobody asked to remove it.
    #[error("what is there is no socket")]
    NoSocket,
    /// The file system does not let us.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Listens at a path, for its owner and root alone (mode 0600). What a daemon left that is gone is replaced; the last
/// directory of the path is made where it is missing (mode 0700).
///
/// # Errors
/// See [`SocketFileError`].
pub async fn listen_at(path: &Path) -> Result<UnixListener, SocketFileError> {
    make_room(path).await?;
    let listener = UnixListener::bind(path)?;
    set_permissions(path, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn make_room(path: &Path) -> Result<(), SocketFileError> {
    match symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(SocketFileError::NoSocket),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(make_directory(path)?),
        Err(error) => return Err(error.into()),
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(remove_file(path)?),
        // A line that is full is somebody's too.
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error.into()),
        _ => Err(SocketFileError::Taken),
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    let Some(directory) = path.parent() else { return Ok(()) };
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn a_file_is_the_first_ones_who_listens_and_what_the_dead_left_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made").join("socket");
        let first = listen_at(&path).await.unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        // Nobody accepts, but somebody listens.
        assert!(matches!(listen_at(&path).await, Err(SocketFileError::Taken)));
        drop(first);
        drop(listen_at(&path).await.unwrap());
        remove_file(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        assert!(matches!(listen_at(&path).await, Err(SocketFileError::NoSocket)));
        assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
        assert!(matches!(listen_at(&path.join("below")).await, Err(SocketFileError::Io(_))));
    }
}
