//! The tracker's process.

mod args;

use std::process::ExitCode;

use clap::Parser as _;
use shoal_common::{
    config, health, server, shutdown,
    telemetry::{self, LevelFilter},
};
use shoal_tracker::Settings;

use crate::args::{Args, Command};

fn main() -> ExitCode {
    match start(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shoal-tracker: {error:#}");
            config::exit_code(error.as_ref())
        }
    }
}

#[tokio::main]
async fn start(args: &Args) -> anyhow::Result<()> {
    let settings: Settings = config::load(args.config.as_deref(), &args.flags)?;
    if args.check_config {
        print!("{}", config::render(&settings));
        return Ok(());
    }
    if let Some(Command::Health) = args.command {
        return Ok(health::check(&settings.listen.or_loopback()).await?);
    }
    let _telemetry = telemetry::init("shoal-tracker", &settings.log, LevelFilter::INFO)?;
    let shutdown = shutdown::on_signal()?;
    let listener = server::bind(&settings.listen).await?;
    Ok(shoal_tracker::run(settings, listener, shutdown).await?)
}
