//! The peer's process.

mod args;

use std::process::ExitCode;

use shoal_common::{command_line, process};
use tokio::runtime::Builder;

use crate::args::Args;

fn main() -> ExitCode {
    let args: Args = command_line::parse();
    // One thread: the data plane has threads of its own.
    let runtime = Builder::new_current_thread();
    process::run("shoal-peer", runtime, &args.line, &args.flags, async |settings, listener, end| {
        Ok(shoal_peer::run(settings, listener, end).await?)
    })
}
