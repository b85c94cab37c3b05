//! The command `docker`.

use std::{
    ffi::OsStr,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, bail};

/// Runs `docker`. Returns its stdout, or an error with its stderr.
pub(super) fn docker(
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> anyhow::Result<String> {
    let mut command = Command::new("docker");
    command.args(arguments);
    stdout_of(&mut command)
}

/// Runs a command. Returns its stdout, or an error with its stderr.
pub(super) fn stdout_of(command: &mut Command) -> anyhow::Result<String> {
    let Output { status, stdout, stderr } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !status.success() {
        let stderr = String::from_utf8_lossy(&stderr);
        bail!("{}: {status}: {}", describe(command), stderr.trim_end());
    }
    let stdout = String::from_utf8(stdout).context("the output is not UTF-8")?;
    Ok(stdout.trim_end().to_owned())
}

/// The command as typed in a shell.
fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_command_has_the_command_and_its_stderr() {
        let mut command = Command::new("sh");
        let error = stdout_of(command.args(["-c", "echo no such thing >&2; exit 3"])).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("sh -c echo"), "{message}");
        assert!(message.ends_with("exit status: 3: no such thing"), "{message}");
        assert_eq!(stdout_of(Command::new("echo").arg("fine")).unwrap(), "fine");
    }
}
