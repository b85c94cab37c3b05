//! Settings: defaults, then a TOML file, then `SHOAL__SECTION__KEY` in the environment, then flags.
//!
//! All that is wrong is told at once: each setting given is first tried alone, upon the defaults.

use std::{
    collections::HashMap,
    env,
    error::Error,
    fmt::{self, Display},
    path::Path,
    process::ExitCode,
};

use config::{Config, Environment, File, FileFormat, Source, Value, ValueKind};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value as Json;

/// How a process ends that was started wrongly (`EX_USAGE` of BSD's sysexits).
const EXIT_USAGE: u8 = 64;

/// Everything that is wrong with the settings given.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError(Vec<Problem>);

/// One setting that is wrong.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    origin: String,
    reason: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the settings cannot be used:")?;
        self.0.iter().try_for_each(|Problem { origin, reason }| write!(f, "\n  {origin}: {reason}"))
    }
}

impl Error for ConfigError {}

/// A setting that somebody gave.
struct Given {
    /// Where it stands, as people would look for it.
    origin: String,
    /// Its path, joined by dots.
    key: String,
    value: Value,
}

/// The settings of a service.
///
/// `T` and each section in it must be `#[serde(default)]`. `flags` is a structure of the same
/// shape, whose fields are `None` unless given; a flag is named like its field. A list is written
/// with commas in the environment and in flags.
pub fn load<T>(file: Option<&Path>, flags: &impl Serialize) -> Result<T, ConfigError>
where
    T: Default + Serialize + DeserializeOwned,
{
    load_from(file, env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))), flags)
}

/// The settings as TOML, for `--check-config`.
pub fn render(settings: &impl Serialize) -> String {
    toml::to_string_pretty(settings).expect("settings are tables of plain values")
}

/// How a `main` that failed should end: 64 if the settings were wrong, else 1.
pub fn exit_code(error: &(dyn Error + 'static)) -> ExitCode {
    if error.is::<ConfigError>() { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
}

fn load_from<T>(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    flags: &impl Serialize,
) -> Result<T, ConfigError>
where
    T: Default + Serialize + DeserializeOwned,
{
    let known = to_json(&T::default());
    let mut problems = Vec::new();
    let mut given = file.map_or_else(Vec::new, |path| {
        from_file(path).unwrap_or_else(|problem| {
            problems.push(problem);
            Vec::new()
        })
    });
    given.extend(from_environment(environment));
    given.extend(from_flags(&to_json(flags)));
    for setting in &mut given {
        if let Err(reason) = setting.check::<T>(&known) {
            problems.push(Problem { origin: setting.origin.clone(), reason });
        }
    }
    if !problems.is_empty() {
        return Err(ConfigError(problems));
    }
    deserialize(&given).map_err(|reason| {
        ConfigError(vec![Problem { origin: "all settings together".to_owned(), reason }])
    })
}

impl Given {
    /// Looks whether the key exists and the value is good for it.
    fn check<T: DeserializeOwned>(&mut self, known: &Json) -> Result<(), String> {
        let pointer = format!("/{}", self.key.replace('.', "/"));
        match known.pointer(&pointer) {
            None => return Err("there is no such setting".to_owned()),
            Some(Json::Object(_)) => return Err("this is a section, not a setting".to_owned()),
            Some(Json::Array(_)) => self.split_list(),
            Some(_) => {}
        }
        deserialize::<T>(std::slice::from_ref(self)).map(drop)
    }

    /// What has no lists, an environment and flags, separates their items by commas.
    fn split_list(&mut self) {
        if let ValueKind::String(text) = &self.value.kind {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            self.value = items.map(Value::from).collect::<Vec<_>>().into();
        }
    }
}

fn deserialize<T: DeserializeOwned>(given: &[Given]) -> Result<T, String> {
    given
        .iter()
        .try_fold(Config::builder(), |builder, setting| {
            builder.set_override(&setting.key, setting.value.clone())
        })
        .and_then(|builder| builder.build()?.try_deserialize())
        .map_err(reason)
}

/// What is wrong, without the key and the origin, which are told anyway.
fn reason(error: config::ConfigError) -> String {
    match error {
        config::ConfigError::At { error, .. } => reason(*error),
        config::ConfigError::Type { unexpected, expected, .. } => {
            format!("{unexpected} is not {expected}")
        }
        other => other.to_string(),
    }
}

fn from_file(path: &Path) -> Result<Vec<Given>, Problem> {
    let file = path.display();
    let table = File::from(path).format(FileFormat::Toml).collect().map_err(|error| Problem {
        origin: file.to_string(),
        reason: reason(error).trim_end().to_owned(),
    })?;
    let mut given = Vec::new();
    flatten("", table, &mut |key, value| {
        given.push(Given { origin: format!("{file}: {key}"), key, value });
    });
    Ok(given)
}
