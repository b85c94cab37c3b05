//! Removal of what a killed lab left behind: its namespaces, the processes in them, and its folder.

use std::{fs, path::Path, process::Command};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use super::{PREFIX, run::MEMORY};
use crate::network::ip;

/// This program's name in `/proc`.
const PROGRAM: &str = "shoal-lab";

/// Removes the leftovers of labs that no longer run, and prints a line for each.
pub fn remove() -> anyhow::Result<()> {
    let output = Command::new("ip").args(["netns", "list"]).output().context("cannot run ip")?;
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in names.lines().filter_map(|line| line.split_whitespace().next()) {
        if is_left_over(name) {
            eprintln!("removing the namespace {name}, left by a lab that was killed");
            end_processes(name)?;
            ip(&["netns", "del", name])?;
        }
    }
    let Ok(folders) = fs::read_dir(MEMORY) else { return Ok(()) };
    for folder in folders.filter_map(Result::ok) {
        if folder.file_name().to_str().is_some_and(is_left_over) {
            eprintln!("removing {}, left by a lab that was killed", folder.path().display());
            fs::remove_dir_all(folder.path())?;
        }
    }
    Ok(())
}

/// Kills the processes in a namespace, each by its id.
fn end_processes(namespace: &str) -> anyhow::Result<()> {
    let output = Command::new("ip").args(["netns", "pids", namespace]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    for pid in text.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)) {
        // It may have ended already.
        let _ = kill_process(pid, Signal::KILL);
    }
    Ok(())
}

fn is_left_over(name: &str) -> bool {
    owner(name).is_some_and(|pid| !is_lab(pid))
}

/// The id of the lab process that made the namespace or folder of this name, if a lab did.
fn owner(name: &str) -> Option<u32> {
    let (pid, _part) = name.strip_prefix(PREFIX)?.split_once('-')?;
    pid.parse().ok()
}

fn is_lab(pid: u32) -> bool {
    let path = Path::new("/proc").join(pid.to_string()).join("comm");
    fs::read_to_string(path).is_ok_and(|name| name.trim_end() == PROGRAM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_a_lab_have_an_owner() {
        assert_eq!(owner("shoal-lab-4711-switch"), Some(4711));
        assert_eq!(owner("shoal-lab-4711-12"), Some(4711));
        for name in ["shoal-lab-4711", "shoal-lab-x-1", "other-4711-1", ""] {
            assert_eq!(owner(name), None, "{name}");
        }
    }

    #[test]
    fn names_of_a_dead_process_are_left_over() {
        // Above the largest process id of Linux.
        assert!(is_left_over("shoal-lab-4194305-1"));
        assert!(!is_left_over("somebody-elses-4194305-1"));
    }
}
