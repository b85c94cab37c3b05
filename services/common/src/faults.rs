//! Faults on request, for tests of whole processes: a task panics once a file of its name is in the
//! directory that `SHOAL_FAULTS` names. Only built with the feature `faults`.

use std::{env, path::PathBuf, time::Duration};

use tokio::time::sleep;

/// How often it is looked for the file.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A task that panics when it is wanted to.
pub(crate) async fn struck(name: &'static str, task: impl Future<Output = ()>) {
    match env::var_os("SHOAL_FAULTS") {
        None => task.await,
        Some(directory) => {
            let file = PathBuf::from(directory).join(name);
            tokio::select! {
                () = task => {}
                () = sought(file) => panic!("a test wanted it"),
            }
        }
    }
}

async fn sought(file: PathBuf) {
    while !file.exists() {
        sleep(LOOK_EVERY).await;
    }
}
