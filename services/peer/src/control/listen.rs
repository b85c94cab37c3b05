//! The listener of the local API: a Unix socket of this user alone, or a TCP port.

use std::{
    fs::{self, Metadata},
    io,
    os::{
        fd::AsFd as _,
        unix::{
            ffi::OsStrExt as _,
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _};
use rustix::fs::{Mode, fchmod};
use shoal_common::{
    durable_files,
    health::{self, Health},
    server::{self, BindError, Budget, Limits},
};
use shoal_proto::control::v1::{
    control_service_server::ControlServiceServer, observe_service_server::ObserveServiceServer,
};
use tokio::{
    net::{TcpListener, UnixListener, UnixSocket, UnixStream},
    time::sleep,
};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::api::LocalApi;
use crate::settings::Control;

/// Bytes that messages of the local API may use at a time.
const CONTROL_BYTES: usize = 16 << 20;
/// Linux has 108 bytes for a socket's path (`sun_path`, unix(7)), including a final zero.
const MAX_PATH_BYTES: usize = 107;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;
/// Out of file descriptors: accepting again at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The permissions of a socket that others than the owner must not have.
const OTHERS: u32 = 0o077;
/// Others may write to a directory.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// In such a directory they must not rename or delete other users' files.
const STICKY: u32 = 0o1000;

/// The local API has no socket.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on the control socket {}: {reason}", .path.display())]
pub struct SocketError {
    path: PathBuf,
    reason: Reason,
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error(
        "its path has {0} bytes, and the system takes {MAX_PATH_BYTES}; choose a shorter path with --control unix:PATH, or a shorter --data-dir"
    )]
    TooLong(usize),
    #[error("another process listens there; stop it, or choose another path")]
    InUse,
    #[error("another file is there; move it away, or choose another path")]
    Occupied,
    #[error(
        "the file system gave it the mode {0:o}, which lets other users in; choose a path on another file system with --control unix:PATH"
    )]
    Open(u32),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The listener of the local API.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, Socket),
}

/// A socket in the file system, to be removed when nothing listens there any more.
pub(crate) struct Socket {
    path: PathBuf,
    /// Device and inode: by now it may be another process's.
    identity: (u64, u64),
}

impl Listener {
    pub(crate) async fn bind(at: &Control) -> Result<Self, ListenError> {
        match at {
            Control::Tcp(address) => {
                let listener = server::bind(address).await?;
                warn!(
                    addr = %address,
                    "the control API is open to every process that reaches this TCP port, and there \
                     it rules this peer; without --control it is a socket for this user alone"
                );
                Ok(Self::Tcp(listener))
            }
            Control::Unix(path) => {
                let refuse = |reason| SocketError { path: path.clone(), reason };
                let (listener, socket) = bind_socket(path).await.map_err(refuse)?;
                info!(path = %path.display(), "the control API listens");
                Ok(Self::Unix(listener, socket))
            }
        }
    }

    /// Serves until `shutdown`.
    pub(crate) async fn serve(self, api: LocalApi, shutdown: CancellationToken) {
        let health = Health::new(&[
            health::name_of::<ControlServiceServer<LocalApi>>(),
            health::name_of::<ObserveServiceServer<LocalApi>>(),
        ])
        .await;
        health.ready().await;
        let routes = server::routes(&health)
            .add_service(ControlServiceServer::new(api.clone()))
            .add_service(ObserveServiceServer::new(api));
        // An upload or a watch has no time limit.
        let limits = Limits {
            request_timeout: None,
            // Strangers that use up the process's budget do not affect this one.
            budget: Budget::new(CONTROL_BYTES),
            ..Limits::default()
        };
        match self {
            Self::Tcp(listener) => server::serve(listener, routes, &limits, shutdown).await,
            Self::Unix(listener, socket) => {
                server::serve_incoming(accept(listener), routes, &limits, shutdown).await;
                socket.remove();
            }
        }
    }
}

/// The local API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// It has no port.
    #[error(transparent)]
    Tcp(#[from] BindError),
    /// It has no socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
}

impl Socket {
    fn at(path: &Path) -> io::Result<(Self, Metadata)> {
        let metadata = fs::symlink_metadata(path)?;
        let identity = (metadata.dev(), metadata.ino());
        Ok((Self { path: path.to_owned(), identity }, metadata))
    }

    /// Removes it, unless it was replaced. If this fails, the next process removes it.
    fn remove(&self) {
        if Self::at(&self.path).is_ok_and(|(now, _)| now.identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on a socket that only this user can connect to, from the moment it exists.
async fn bind_socket(path: &Path) -> Result<(UnixListener, Socket), Reason> {
    let bytes = path.as_os_str().as_bytes().len();
    if bytes > MAX_PATH_BYTES {
        return Err(Reason::TooLong(bytes));
    }
    remove_stale(path).await?;
    let socket = UnixSocket::new_stream()?;
    // Linux gives the file the mode of the socket, less the umask. A chmod after bind would be too
    // late for a client that connects in between, and the umask belongs to the whole process.
    fchmod(socket.as_fd(), Mode::RUSR | Mode::WUSR).map_err(io::Error::from)?;
    socket.bind(path)?;
    let (placed, metadata) = Socket::at(path)?;
    if metadata.mode() & OTHERS != 0 {
        placed.remove();
        return Err(Reason::Open(metadata.mode() & 0o777));
    }
    warn_of_open_directory(path);
    Ok((socket.listen(BACKLOG)?, placed))
}

/// Removes the socket that a killed process left behind.
async fn remove_stale(path: &Path) -> Result<(), Reason> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(Reason::Occupied),
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(Reason::from)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Its queue of connections is full.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Reason::InUse),
        Err(error) => Err(error.into()),
        Ok(_) => Err(Reason::InUse),
    }
}

/// Users who may write to the directory may replace our socket by theirs.
fn warn_of_open_directory(path: &Path) {
    let directory = durable_files::parent(path);
    let mode = fs::metadata(directory).map_or(0, |metadata| metadata.permissions().mode());
    if mode & WRITABLE_BY_OTHERS != 0 && mode & STICKY == 0 {
        warn!(
            path = %directory.display(),
            mode = %format_args!("{:o}", mode & 0o7777),
            "other users may write to the directory of the control socket, and replace it"
        );
    }
}

/// The connections that arrive at `listener`.
fn accept(listener: UnixListener) -> impl Stream<Item = UnixStream> {
    let accepted = UnixListenerStream::new(listener).then(|accepted| async {
        if let Err(error) = &accepted {
            warn!(%error, "cannot accept a connection");
            sleep(ACCEPT_PAUSE).await;
        }
        accepted
    });
    accepted.filter_map(|accepted| async { accepted.ok() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::symlink, net};

    use super::*;

    async fn refusal(path: &Path) -> String {
        let outcome = Listener::bind(&Control::Unix(path.to_owned())).await;
        outcome.err().expect("it is refused").to_string()
    }

    #[tokio::test]
    async fn only_its_owner_may_connect_to_the_socket() {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("control.sock");
        let _listener = bind_socket(&path).await.unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("control.sock");
        drop(net::UnixListener::bind(&path).unwrap());
        let (_listener, socket) = bind_socket(&path).await.unwrap();
        assert!(refusal(&path).await.contains("another process listens there"));
        fs::remove_file(&path).unwrap();
        let _other = bind_socket(&path).await.unwrap();
        socket.remove();
        assert!(path.exists(), "the socket of another process is left alone");
    }

    #[tokio::test]
    async fn a_process_that_accepts_no_connection_is_alive() {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("control.sock");
        let socket = UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let _busy = socket.listen(1).unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path).await {
            waiting.push(stream);
            assert!(waiting.len() < 16, "the queue is full at some time");
        }
        assert!(refusal(&path).await.contains("another process listens there"));
    }

    #[tokio::test]
    async fn a_file_that_is_not_a_socket_stays() {
        let here = tempfile::tempdir().unwrap();
        let (file, link) = (here.path().join("file"), here.path().join("link"));
        fs::write(&file, "precious").unwrap();
        symlink(&file, &link).unwrap();
        for path in [&file, &link] {
            assert!(refusal(path).await.contains("another file is there"));
        }
        assert_eq!(fs::read(&file).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_refused_with_advice() {
        let here = tempfile::tempdir().unwrap();
        let longest = MAX_PATH_BYTES - here.path().as_os_str().len() - 1;
        bind_socket(&here.path().join("s".repeat(longest))).await.unwrap();
        let error = refusal(&here.path().join("s".repeat(longest + 1))).await;
        assert!(error.contains("has 108 bytes, and the system takes 107; choose a"), "{error}");
    }
}
