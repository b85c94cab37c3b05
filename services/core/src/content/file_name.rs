//! Names of files and directories: bytes, as Linux has them.

use std::fmt::{self, Write as _};

/// Bytes of a name: NAME_MAX of Linux.
const MAX_NAME_BYTES: usize = 255;

/// Bytes of a path or of a link's target: Linux's PATH_MAX, which counts a final NUL.
pub(super) const MAX_PATH_BYTES: usize = 4095;

/// Checks one component of a path.
pub(super) fn check_name(name: &[u8]) -> Result<(), &'static str> {
    match name {
        b"" => Err("it is empty"),
        b"." | b".." => Err("it is . or .."),
        _ if name.len() > MAX_NAME_BYTES => Err("it is longer than 255 bytes"),
        _ if name.contains(&b'/') => Err("it has a slash"),
        _ if name.contains(&0) => Err("it has a NUL"),
        _ => Ok(()),
    }
}

/// Checks the target of a symbolic link with this many directories above it, including that of the
/// content: it is relative, and stays in the content.
///
/// Each `..` leads from a directory that is not a link to the one above it, because all of them are
/// at the start and the link itself lies in such a directory.
pub(super) fn check_target(target: &[u8], directories: usize) -> Result<(), &'static str> {
    match target {
        b"" => return Err("it is empty"),
        [b'/', ..] => return Err("it is absolute"),
        _ if target.len() > MAX_PATH_BYTES => return Err("it is longer than 4095 bytes"),
        _ if target.contains(&0) => return Err("it has a NUL"),
        _ => {}
    }
    let mut names = target.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    let ups = names.by_ref().take_while(|name| *name == b"..").count();
    if ups >= directories {
        return Err("it leads out of the content");
    }
    if names.any(|name| name == b"..") {
        return Err("it has .. after a name");
    }
    Ok(())
}

/// Whether a content can keep a symbolic link with this target and this many directories above it,
/// including that of the content: it is relative and stays in the content.
pub fn is_inner_target(target: &[u8], directories: usize) -> bool {
    check_target(target, directories).is_ok()
}

/// Shows a name or path on one line: what is not printable is escaped, as is a backslash.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '"' | '\'' => f.write_char(c)?,
                    _ => c.escape_debug().try_for_each(|c| f.write_char(c))?,
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_that_linux_allows_are_allowed() {
        for name in [&b"systemd\\x2dcryptsetup.slice"[..], b"a\nb", b"\xff", b"...", &[b'n'; 255]] {
            assert_eq!(check_name(name), Ok(()), "{}", Escaped(name));
        }
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'n'; 256]] {
            assert!(check_name(name).is_err(), "{}", Escaped(name));
        }
    }

    #[test]
    fn a_target_stays_in_the_content() {
        for (target, directories) in
            [(&b"a"[..], 1), (b"../a/b", 2), (b"../../a", 3), (b"./.././a", 2), (b"..a/b..", 1)]
        {
            assert_eq!(check_target(target, directories), Ok(()), "{}", Escaped(target));
        }
        for (target, directories) in [
            (&b""[..], 9),
            (b"/etc/passwd", 9),
            (b"..", 1),
            (b"../a", 1),
            (b"../../a", 2),
            // If `a` were a link to `..`, this would lead out.
            (b"a/..", 9),
            (b"../a/../b", 9),
            (b"a\0", 9),
        ] {
            assert!(check_target(target, directories).is_err(), "{}", Escaped(target));
        }
    }

    #[test]
    fn a_shown_name_is_printable() {
        let shown = |name: &[u8]| Escaped(name).to_string();
        assert_eq!(shown("caf\u{e9} \"x\"".as_bytes()), "caf\u{e9} \"x\"");
        assert_eq!(shown(b"a\\b\nc\x1b[31m\xff"), "a\\\\b\\nc\\u{1b}[31m\\xff");
        // The right-to-left override would show another name.
        assert_eq!(shown("a\u{202e}b".as_bytes()), "a\\u{202e}b");
    }
}
