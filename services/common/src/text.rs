//! Text from other parties, made safe for a terminal or a log.
//!
//! A name, a message or a version can contain terminal commands, start a line of its own, or
//! reverse the text after it. Such characters are escaped as `\u{1b}`.

use std::{
    borrow::Cow,
    ffi::OsStr,
    fmt::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
};

/// Whether a terminal or a reader could take the character for something else than a glyph: control
/// characters (C0, DEL, C1), line and paragraph separators, and what changes the direction of text
/// (Unicode TR 9; "Trojan Source", 2021).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

/// The text as part of a line: it cannot start another line, or be more than glyphs.
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, is_unsafe, |c, out| write!(out, "\\u{{{:x}}}", u32::from(c)))
}

/// Writes text as [`printable`] returns it, without a copy of what is safe already.
#[derive(Debug)]
pub struct Printable<W>(pub W);

impl<W: fmt::Write> fmt::Write for Printable<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_str(&printable(text))
    }
}

/// The same for lines of our own: line breaks stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| is_unsafe(c) && c != '\n', |c, out| write!(out, "\\u{{{:x}}}", u32::from(c)))
}

/// JSON on one line, with unsafe characters in its strings escaped as JSON allows. Its meaning does
/// not change.
pub fn json(text: &str) -> Cow<'_, str> {
    // All unsafe characters are below U+10000.
    escape(text, is_unsafe, |c, out| write!(out, "\\u{:04x}", u32::from(c)))
}

/// Writes an argument of a command as a shell reads it, for messages that name a command to run. It
/// has only printable ASCII characters: others, such as a line break, become `$'\\012'`, which bash,
/// zsh and ksh read, and POSIX since 2024.
#[derive(Clone, Copy, Debug)]
pub struct ShellWord<'a>(pub &'a OsStr);

impl fmt::Display for ShellWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.as_bytes();
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+:@%=,".contains(byte);
        let is_shown = |byte: &u8| (b' '..=b'~').contains(byte);
        if !bytes.is_empty() && bytes.iter().all(is_plain) {
            return bytes.iter().try_for_each(|byte| f.write_char(char::from(*byte)));
        }
        let is_simple = bytes.iter().all(is_shown);
        f.write_str(if is_simple { "'" } else { "$'" })?;
        for byte in bytes {
            match byte {
                b'\'' if is_simple => f.write_str(r"'\''")?,
                b'\'' | b'\\' if !is_simple => write!(f, "\\{}", char::from(*byte))?,
                byte if is_shown(byte) => f.write_char(char::from(*byte))?,
                byte => write!(f, "\\{byte:03o}")?,
            }
        }
        f.write_char('\'')
    }
}

fn escape(
    text: &str,
    is_unsafe: impl Fn(char) -> bool,
    write: impl Fn(char, &mut String) -> std::fmt::Result,
) -> Cow<'_, str> {
    if !text.contains(&is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) {
            write(c, &mut escaped).expect("a String takes all that is written");
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands_for_a_terminal_new_lines_and_changes_of_direction_are_written_out() {
        let text = "gone\u{1b}[2J\r\n\u{7f}\u{9b}1m\u{202e}txt\u{2066}\u{200f}\u{61c}\u{2028}";
        assert_eq!(
            printable(text),
            "gone\\u{1b}[2J\\u{d}\\u{a}\\u{7f}\\u{9b}1m\\u{202e}txt\\u{2066}\\u{200f}\\u{61c}\\u{2028}"
        );
        assert_eq!(lines("a\nb\u{1b}"), "a\nb\\u{1b}");
        assert_eq!(printable("Größe: 5 µs, 日本語, עברית"), "Größe: 5 µs, 日本語, עברית");
    }

    #[test]
    fn a_shell_reads_an_argument_as_it_was() {
        let arguments: [&[u8]; 8] = [
            b"/srv/models/a-1.0_b",
            b"/srv/my models/$HOME",
            b"it's",
            b"",
            br"a\b",
            b"it's new\nline\\012",
            b"\xff\xfe not UTF-8",
            "Gr\u{f6}\u{df}e".as_bytes(),
        ];
        for argument in arguments {
            let word = ShellWord(OsStr::from_bytes(argument)).to_string();
            assert!(word.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{word}");
            let script = format!("printf %s {word}");
            let read = Command::new("bash").arg("-c").arg(&script).output().expect("bash runs");
            assert_eq!(read.stdout, argument, "{word}");
        }
        assert_eq!(ShellWord("/srv/models".as_ref()).to_string(), "/srv/models");
        assert_eq!(ShellWord("a b".as_ref()).to_string(), "'a b'");
    }

    proptest! {
        #[test]
        fn nothing_unsafe_is_left_and_json_means_the_same(text: String) {
            let printed = printable(&text);
            prop_assert!(!printed.contains(is_unsafe));
            prop_assert_eq!(printable(&printed), &*printed);
            let mut written = String::new();
            for part in text.split_inclusive(char::is_uppercase) {
                Printable(&mut written).write_str(part).expect("a String takes all that is written");
            }
            prop_assert_eq!(&printed, &written);
            let encoded = serde_json::to_string(&text).expect("a string");
            let safe = json(&encoded);
            prop_assert!(!safe.contains(is_unsafe));
            prop_assert_eq!(serde_json::from_str::<String>(&safe).expect("it is JSON"), text);
        }
    }
}
