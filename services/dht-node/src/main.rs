//! The ring node's process.

mod args;

use std::process::ExitCode;

use shoal_common::{command_line, process};
use tokio::runtime::Builder;

use crate::args::Args;

fn main() -> ExitCode {
    let args: Args = command_line::parse();
    let runtime = Builder::new_multi_thread();
    process::run(
        "shoal-dht-node",
        runtime,
        &args.line,
        &args.flags,
        async |settings, listener, end| Ok(shoal_dht_node::run(settings, listener, end).await?),
    )
}
