//! The destination of a content: `-o PATH` means the same as for cp.

use std::{
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use crate::exit::{Exit, Failure};

/// The destination that `-o` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// An existing directory: the content is put into it, under its own name.
    Into(PathBuf),
    /// The path of the content itself.
    As(PathBuf),
}

impl Destination {
    /// Checks what exists at the path. It is made absolute, so that it does not depend on the
    /// working directory later.
    pub(crate) fn new(path: &Path) -> anyhow::Result<Self> {
        let absolute = std::path::absolute(path)?;
        if absolute.is_dir() {
            return Ok(Self::Into(absolute));
        }
        let shown = path.display();
        if ends_with_separator(path) {
            return Err(missing(format!("the directory {shown} does not exist; create it")).into());
        }
        match absolute.parent() {
            Some(parent) if parent.is_dir() => Ok(Self::As(absolute)),
            Some(parent) => Err(missing(format!(
                "cannot create {shown}: the directory {} does not exist; create it",
                parent.display()
            ))
            .into()),
            // Only the root has no parent, and it is a directory.
            None => Err(io::Error::from(io::ErrorKind::NotFound).into()),
        }
    }

    /// The path that `-o` named.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Into(path) | Self::As(path) => path.clone(),
        }
    }

    /// The path of a content with this name. A descriptor's name is one component, so the path stays
    /// within the directory.
    pub(crate) fn of(&self, name: &[u8]) -> PathBuf {
        match self {
            Self::Into(directory) => directory.join(OsStr::from_bytes(name)),
            Self::As(path) => path.clone(),
        }
    }
}

fn missing(message: String) -> Failure {
    Failure::new(Exit::NotFound, message)
}

/// `dir/` cannot be the path of a new file. `Path::components` ignores the separator.
fn ends_with_separator(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn into_a_directory_else_to_that_name() {
        let here = tempfile::tempdir().unwrap();
        let to = |path: &str| Destination::new(&here.path().join(path)).unwrap().of(b"model");
        assert_eq!(to(""), here.path().join("model"));
        assert_eq!(to("new"), here.path().join("new"));
        std::fs::create_dir(here.path().join("dir")).unwrap();
        assert_eq!(to("dir"), here.path().join("dir/model"));
        assert_eq!(to("dir/"), here.path().join("dir/model"));
        assert_eq!(to("dir/new"), here.path().join("dir/new"));
        std::fs::write(here.path().join("file"), "x").unwrap();
        assert_eq!(to("file"), here.path().join("file"));
    }

    #[test]
    fn a_missing_directory_is_not_created() {
        let here = tempfile::tempdir().unwrap();
        for path in ["new/", "new/file"] {
            let error = Destination::new(&here.path().join(path)).unwrap_err().to_string();
            assert!(error.contains("does not exist; create it"), "{error}");
        }
    }
}
