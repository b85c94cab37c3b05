//! Files and connections that this process may have open at once.

use std::{io, thread, time::Duration};

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// How long an open waits for a file descriptor, in attempts and the pause between them.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// Raises the limit to what the system allows this process. A lower one is the usual default only
/// because of programs that call `select(2)`.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // Then the lower limit remains.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// The limit now.
pub fn limit() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize)
}

/// Calls `open`, again after a pause while this process or the system has too many files open, for up
/// to 10 s. To be called where blocking is allowed.
pub fn open_patiently<T>(mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..ATTEMPTS {
        match open() {
            Err(error) if is_exhausted(&error) => thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
    open()
}

fn is_exhausted(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_waits_for_a_file_descriptor() {
        let mut failures = vec![Errno::MFILE, Errno::NFILE];
        let opened = open_patiently(|| match failures.pop() {
            Some(errno) => Err(errno.into()),
            None => Ok(()),
        });
        assert!(opened.is_ok() && failures.is_empty());
        let mut calls = 0;
        let refused: io::Result<()> = open_patiently(|| {
            calls += 1;
            Err(Errno::ACCESS.into())
        });
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(calls, 1, "other errors are not retried");
    }
}
