//! The paths that a client may name.

use std::{
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use rustix::process::geteuid;
use tonic::{
    Request, Status,
    transport::server::{TcpConnectInfo, UdsConnectInfo},
};
use tracing::{info, warn};

use crate::{
    settings::{Root, Settings},
    store::RootedPath,
};

/// The directories in which clients may name paths.
pub(crate) struct Roots {
    publish: Vec<PathBuf>,
    export: Vec<PathBuf>,
}

/// The purpose of a path.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Publish,
    Export,
}

/// The caller.
pub(super) enum Caller {
    /// A process on this machine, by the socket's credentials (SO_PEERCRED).
    Local { uid: u32, pid: Option<i32> },
    /// Anyone who can connect to the port.
    Remote(Option<SocketAddr>),
}

impl Roots {
    pub(crate) fn new(settings: &Settings) -> Self {
        let paths = |roots: &[Root]| roots.iter().map(|root| root.path().to_owned()).collect();
        Self { publish: paths(&settings.publish_roots), export: paths(&settings.export_roots) }
    }

    /// Creates missing directories for exports. Blocks on the disk.
    pub(crate) fn prepare(&self) {
        for root in &self.export {
            if let Err(error) = fs::create_dir_all(root) {
                warn!(path = %root.display(), %error, "cannot create a directory of export_roots");
            }
        }
    }

    /// A client's path with its root, if it is allowed.
    pub(super) fn allow(
        &self,
        purpose: Purpose,
        path: &Path,
        caller: &Caller,
    ) -> Result<RootedPath, Status> {
        let roots = match purpose {
            Purpose::Publish => &self.publish,
            Purpose::Export => &self.export,
        };
        let rooted = match roots.as_slice() {
            [] if caller.has_our_rights() => Some(RootedPath::anywhere(path)),
            some => RootedPath::beneath(some, path),
        };
        let Some(rooted) = rooted else {
            warn!(operation = purpose.verb(), path = %path.display(), %caller, "a path is refused");
            return Err(refused(purpose, path, roots, caller));
        };
        info!(operation = purpose.verb(), path = %path.display(), %caller, "a path is allowed");
        Ok(rooted)
    }

    /// The path of a copy that was requested, and allowed, before the peer was restarted; none if
    /// the roots no longer allow it.
    pub(crate) fn allow_export(&self, path: &Path) -> Option<RootedPath> {
        match self.export.as_slice() {
            [] => Some(RootedPath::anywhere(path)),
            some => RootedPath::beneath(some, path),
        }
    }
}

fn refused(purpose: Purpose, path: &Path, roots: &[PathBuf], caller: &Caller) -> Status {
    let (verb, setting, path) = (purpose.verb(), purpose.setting(), path.display());
    let otherwise = purpose.otherwise();
    let reason = if roots.is_empty() {
        format!(
            "{setting} names no directory, and {caller} may name none of its own; add one to \
             {setting} of the peer, {otherwise}, or call as the peer's own user over its Unix socket"
        )
    } else {
        let roots: Vec<_> = roots.iter().map(|root| root.display().to_string()).collect();
        let roots = roots.join(", ");
        format!(
            "it lies in no directory of {setting} ({roots}); choose a path there, or add its directory to {setting} of the peer"
        )
    };
    Status::permission_denied(format!("{verb} {path} is refused: {reason}"))
}

impl Purpose {
    const fn verb(self) -> &'static str {
        match self {
            Self::Publish => "publish in place",
            Self::Export => "export to",
        }
    }

    const fn setting(self) -> &'static str {
        match self {
            Self::Publish => "publish_roots",
            Self::Export => "export_roots",
        }
    }

    const fn otherwise(self) -> &'static str {
        match self {
            Self::Publish => "publish a copy without --in-place",
            Self::Export => "fetch into the peer's store without --to",
        }
    }
}

impl Caller {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        let extensions = request.extensions();
        let credentials = extensions.get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
        match credentials {
            Some(credentials) => Self::Local { uid: credentials.uid(), pid: credentials.pid() },
            None => Self::Remote(
                extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr),
            ),
        }
    }

    /// A caller that has this process's rights anyway needs no permission. In another user
    /// namespace our user may have another id, and is then not recognised.
    fn has_our_rights(&self) -> bool {
        match self {
            Self::Local { uid, .. } => *uid == 0 || *uid == geteuid().as_raw(),
            Self::Remote(_) => false,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid, pid: Some(pid) } => write!(f, "user {uid} (process {pid})"),
            Self::Local { uid, pid: None } => write!(f, "user {uid}"),
            Self::Remote(Some(address)) => write!(f, "a caller over TCP ({address})"),
            Self::Remote(None) => write!(f, "a caller over TCP"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn roots(publish: &[&str], export: &[&str]) -> Roots {
        let paths = |texts: &[&str]| texts.iter().map(PathBuf::from).collect();
        Roots { publish: paths(publish), export: paths(export) }
    }

    #[test]
    fn without_roots_only_callers_with_our_rights_may_name_paths() {
        let ours = Caller::Local { uid: geteuid().as_raw(), pid: None };
        let other = Caller::Local { uid: 54_321, pid: Some(7) };
        let remote = Caller::Remote(None);
        let unset = roots(&[], &[]);
        let path = Path::new("/etc/shadow");
        for purpose in [Purpose::Publish, Purpose::Export] {
            assert_eq!(unset.allow(purpose, path, &ours).unwrap(), RootedPath::anywhere(path));
            for caller in [&other, &remote] {
                let refused = unset.allow(purpose, path, caller).unwrap_err();
                assert_eq!(refused.code(), Code::PermissionDenied);
                assert!(refused.message().contains(purpose.setting()), "{refused}");
                assert!(refused.message().contains("/etc/shadow"), "{refused}");
            }
        }
    }

    #[test]
    fn roots_hold_for_every_caller_each_for_its_purpose() {
        let set = roots(&["/models"], &["/export"]);
        let ours = Caller::Local { uid: geteuid().as_raw(), pid: None };
        for caller in [&ours, &Caller::Remote(None)] {
            set.allow(Purpose::Publish, "/models/a".as_ref(), caller).unwrap();
            set.allow(Purpose::Export, "/export/a".as_ref(), caller).unwrap();
            let refused = set.allow(Purpose::Export, "/models/a".as_ref(), caller).unwrap_err();
            let said = refused.message();
            assert!(said.contains("/models/a is refused"), "{said}");
            assert!(said.contains("in no directory of export_roots (/export)"), "{said}");
            set.allow(Purpose::Publish, "/export/a".as_ref(), caller).unwrap_err();
        }
    }
}
