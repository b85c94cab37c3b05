//! `docs/settings.md` has all settings and flags of the services, with their defaults.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use shoal_testkit::process::{binary, run};

use crate::read;

const SERVICES: [&str; 3] = ["shoal-tracker", "shoal-dht-node", "shoal-peer"];
/// Flags that set nothing.
const OTHER_FLAGS: [&str; 4] = ["--config", "--check-config", "--help", "--version"];

/// A row of a service's table.
struct Row {
    setting: String,
    flag: Option<String>,
    default: String,
}

/// The rows of the table below the line that names the service.
fn table(page: &str, service: &str) -> Vec<Row> {
    let heading = format!("`{service}`:\n\n");
    let (_, table) = page.split_once(&heading).expect("the page has a table of each service");
    let (table, _) = table.split_once("\n\n").expect("text follows");
    let rows = table.lines().skip(2).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [setting, flag, default, _] = cells[..] else { panic!("{line} has not four cells") };
        let code = |cell: &str| cell.split('`').nth(1).map(ToOwned::to_owned);
        Row {
            setting: code(setting).unwrap_or_else(|| panic!("{line} names no setting")),
            flag: code(flag),
            default: default.to_owned(),
        }
    });
    rows.collect()
}

/// The flags that `--help` explains.
fn flags(service: &str) -> BTreeSet<String> {
    let output = run(service, &["--help"], b"");
    let help = String::from_utf8(output.stdout).expect("help is text");
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let words = lines.flat_map(|line| line.split([' ', ','])).filter(|word| word.starts_with("--"));
    words.filter(|flag| !OTHER_FLAGS.contains(flag)).map(ToOwned::to_owned).collect()
}

/// The settings that `--check-config` prints, with their values. Those without a value are missing.
fn defaults(service: &str) -> BTreeMap<String, String> {
    let output = run(service, &["--check-config"], b"");
    assert!(output.status.success(), "{service}: {}", String::from_utf8_lossy(&output.stderr));
    let toml = String::from_utf8(output.stdout).expect("TOML is text");
    let mut section = String::new();
    let mut settings = BTreeMap::new();
    for line in toml.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((key, value)) = line.split_once(" = ") {
            settings.insert(format!("{section}{key}"), value.trim_matches('"').to_owned());
        }
    }
    settings
}

#[test]
fn every_flag_is_in_the_settings_tables_and_no_other() {
    let page = read("docs/settings.md");
    for service in SERVICES {
        let documented: BTreeSet<_> =
            table(&page, service).into_iter().filter_map(|row| row.flag).collect();
        assert_eq!(documented, flags(service), "{service}: the page, and --help");
    }
}

#[test]
fn every_setting_is_in_the_settings_tables_with_its_default() {
    let page = read("docs/settings.md");
    for service in SERVICES {
        let rows = table(&page, service);
        let documented: BTreeSet<_> = rows.iter().map(|row| row.setting.as_str()).collect();
        assert_eq!(documented.len(), rows.len(), "{service} has a setting twice");
        let defaults = defaults(service);
        for setting in defaults.keys() {
            assert!(documented.contains(setting.as_str()), "{service}: {setting} is missing");
        }
        for Row { setting, default, .. } in &rows {
            let (Some(value), Some(literal)) = (defaults.get(setting), literal(default)) else {
                continue;
            };
            assert_eq!(literal, value, "{service}: the default of {setting}");
        }
    }
}

/// What `--check-config` prints for a default on the page, if it is a value.
fn literal(default: &str) -> Option<&str> {
    match default {
        "none" => Some("[]"),
        "empty" => Some(""),
        _ => default.strip_prefix('`')?.strip_suffix('`'),
    }
}

#[test]
fn every_setting_in_the_tables_exists() {
    const UNKNOWN: &str = "there is no such setting";
    let page = read("docs/settings.md");
    let variable = |key: &str| format!("SHOAL__{}", key.to_uppercase().replace('.', "__"));
    for service in SERVICES {
        let mut command = Command::new(binary(service));
        command.arg("--check-config").env(variable("none_of_ours"), "?");
        for row in table(&page, service) {
            command.env(variable(&row.setting), "?");
        }
        let output = command.output().expect("the binary runs");
        let errors = String::from_utf8(output.stderr).expect("errors are text");
        let unknown: Vec<_> = errors.lines().filter(|line| line.contains(UNKNOWN)).collect();
        assert_eq!(unknown.len(), 1, "{service} knows all settings but one: {unknown:?}");
        assert!(unknown[0].contains("NONE_OF_OURS"), "{service}: {unknown:?}");
    }
}
