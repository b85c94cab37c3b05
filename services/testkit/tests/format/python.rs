//! A Python with the package `blake3`.

use std::{
    env,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use crate::output_of;

/// By default, pip tries for minutes if there is no network.
const INSTALL: [&str; 7] =
    ["-m", "pip", "install", "--quiet", "--timeout=20", "--retries=1", "blake3>=1,<2"];

static PYTHON: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    find().inspect_err(|why| {
        // Unlike `eprintln!`, this is shown for tests that pass.
        let _ = writeln!(io::stderr(), "not compared with reader.py, as it does not run: {why}");
    })
});

/// That of the system, or one of our own below `target`.
fn find() -> Result<PathBuf, String> {
    let system = PathBuf::from("python3");
    if imports_blake3(&system).is_ok() {
        return Ok(system);
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-blake3");
    let own = folder.join("bin/python");
    if imports_blake3(&own).is_err() {
        output_of(Command::new(system).args(["-m", "venv", "--clear"]).arg(folder))?;
        output_of(Command::new(&own).args(INSTALL))?;
        imports_blake3(&own)?;
    }
    Ok(own)
}

fn imports_blake3(python: &Path) -> Result<(), String> {
    output_of(Command::new(python).args(["-c", "import blake3"])).map(drop)
}

/// Its path. Without one nothing is compared, which is an error in CI only.
pub(crate) fn python() -> Option<&'static Path> {
    let is_required = env::var_os("CI").is_some_and(|value| value == "true");
    match &*PYTHON {
        Ok(path) => Some(path),
        Err(why) if is_required => panic!("reader.py does not run: {why}"),
        Err(_) => None,
    }
}
