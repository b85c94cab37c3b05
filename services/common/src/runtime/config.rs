//! Settings: defaults, then a TOML file, then `SHOAL__SECTION__KEY` in the environment, then flags.
//!
//! All errors are reported at once: each given setting is first tried alone, on top of the
//! defaults; then the valid ones are checked together.

use std::{
    collections::{BTreeSet, HashMap},
    env,
    error::Error,
    fmt,
    path::Path,
    process::ExitCode,
};

use config::{Config, Environment, File, FileFormat, Source, Value, ValueKind};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value as Json;

/// The exit status of a process that was started wrongly (`EX_USAGE` of BSD's sysexits).
const EXIT_USAGE: u8 = 64;

/// The prefix of our environment variables.
const PREFIX: &str = "SHOAL";
/// The separator in a variable's name, because a key may contain a single underscore.
const SEPARATOR: &str = "__";

/// All errors in the given settings.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError(Vec<Problem>);

/// One wrong setting.
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

/// Settings that are valid alone and conflict with each other.
#[derive(Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Their keys. The conflict is not reported if one of them is wrong by itself.
    pub keys: &'static [&'static str],
    /// What is wrong, and what to do.
    pub reason: String,
}

/// A given setting.
struct Given {
    /// Where it is given, as people would look for it.
    origin: String,
    /// Its path, joined by dots.
    key: String,
    value: Value,
}

/// The settings of a service.
///
/// `T` and each section in it must be `#[serde(default)]`. `flags` is a structure of the same
/// shape, whose fields are `None` unless given; the flag for `log.format` is `--log-format`. A list
/// is written with commas in the environment and in flags.
pub fn load<T>(
    file: Option<&Path>,
    flags: &impl Serialize,
    conflicts: impl Fn(&T) -> Vec<Conflict>,
) -> Result<T, ConfigError>
where
    T: Default + Serialize + DeserializeOwned,
{
    let variables = env::vars_os().filter_map(|(name, value)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    });
    load_from(file, variables.collect(), flags, conflicts)
}

/// The settings as TOML, for `--check-config`.
pub fn render(settings: &impl Serialize) -> String {
    toml::to_string_pretty(settings).expect("settings are tables of plain values")
}

/// The exit status of a `main` that failed: 64 if the settings were wrong, else 1.
pub fn exit_code(error: &(dyn Error + 'static)) -> ExitCode {
    if error.is::<ConfigError>() { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
}

fn load_from<T>(
    file: Option<&Path>,
    environment: HashMap<String, String>,
    flags: &impl Serialize,
    conflicts: impl Fn(&T) -> Vec<Conflict>,
) -> Result<T, ConfigError>
where
    T: Default + Serialize + DeserializeOwned,
{
    let known = serde_json::to_value(T::default()).expect("settings are tables of plain values");
    let mut problems = Vec::new();
    let mut given = file.map_or_else(Vec::new, |path| {
        from_file(path).unwrap_or_else(|problem| {
            problems.push(problem);
            Vec::new()
        })
    });
    given.extend(from_environment(environment));
    given.extend(from_flags(flags));
    let mut bad = BTreeSet::new();
    for setting in &mut given {
        if let Err(reason) = setting.check::<T>(&known) {
            problems.push(Problem { origin: setting.origin.clone(), reason });
            bad.insert(setting.key.clone());
        }
    }
    given.retain(|setting| !bad.contains(&setting.key));
    match deserialize::<T>(&given) {
        Ok(settings) => {
            let told = conflicts(&settings).into_iter();
            let told = told.filter(|conflict| conflict.keys.iter().all(|key| !bad.contains(*key)));
            problems.extend(
                told.map(|Conflict { keys, reason }| Problem { origin: keys.join(", "), reason }),
            );
            if problems.is_empty() {
                return Ok(settings);
            }
        }
        Err(reason) => {
            problems.push(Problem { origin: "all settings together".to_owned(), reason });
        }
    }
    Err(ConfigError(problems))
}

impl Given {
    /// Checks that the key exists and accepts the value.
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

    /// The environment and flags have no lists, and separate items by commas.
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

/// The error, without the key and the origin, which are reported separately.
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
    let settings = File::from(path).format(FileFormat::Toml).collect().map_err(|error| {
        Problem { origin: file.to_string(), reason: reason(error).trim_end().to_owned() }
    })?;
    Ok(flatten(settings, |key| format!("{file}: {key}")))
}

fn from_environment(variables: HashMap<String, String>) -> Vec<Given> {
    let settings = Environment::with_prefix(PREFIX)
        .separator(SEPARATOR)
        .source(Some(variables))
        .collect()
        .expect("a map of strings is read without an error");
    flatten(settings, |key| {
        format!("{PREFIX}{SEPARATOR}{}", key.to_uppercase().replace('.', SEPARATOR))
    })
}

fn from_flags(flags: &impl Serialize) -> Vec<Given> {
    let settings = Config::try_from(flags)
        .and_then(|flags| flags.collect())
        .expect("flags are structures of plain values");
    flatten(settings, |key| format!("--{}", key.replace(['.', '_'], "-")))
}

/// The settings in a table and its subtables, in the order of their keys.
fn flatten(table: HashMap<String, Value>, origin: impl Fn(&str) -> String) -> Vec<Given> {
    let mut given = Vec::new();
    let mut tables = vec![(String::new(), table)];
    while let Some((prefix, table)) = tables.pop() {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            match value.kind {
                ValueKind::Table(inner) => tables.push((format!("{key}."), inner)),
                ValueKind::Nil => {}
                _ => given.push(Given { origin: origin(&key), key, value }),
            }
        }
    }
    given.sort_by(|a, b| a.key.cmp(&b.key));
    given
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, time::Duration};

    use serde::Deserialize;
    use shoal_core::Address;

    use super::*;
    use crate::units::ByteSize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Settings {
        listen: Address,
        verbose: bool,
        trackers: Vec<Address>,
        swarm: Swarm,
    }

    impl Default for Settings {
        fn default() -> Self {
            Self {
                listen: "0.0.0.0:7070".parse().expect("an address"),
                verbose: false,
                trackers: Vec::new(),
                swarm: Swarm::default(),
            }
        }
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Swarm {
        #[serde(with = "crate::units::duration")]
        interval: Duration,
        max_peers: u32,
        memory: Option<ByteSize>,
    }

    impl Default for Swarm {
        fn default() -> Self {
            Self { interval: Duration::from_secs(30), max_peers: 50, memory: None }
        }
    }

    #[derive(Default, Serialize)]
    struct Flags {
        listen: Option<String>,
        swarm: SwarmFlags,
    }

    #[derive(Default, Serialize)]
    struct SwarmFlags {
        max_peers: Option<String>,
    }

    fn file(toml: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(toml.as_bytes()).expect("it takes the text");
        file
    }

    fn conflicts(settings: &Settings) -> Vec<Conflict> {
        let lonely = settings.verbose && settings.trackers.is_empty();
        let conflict = Conflict { keys: &["verbose", "trackers"], reason: "name one".to_owned() };
        if lonely { vec![conflict] } else { Vec::new() }
    }

    fn load_with(toml: &str, env: &[(&str, &str)], flags: &Flags) -> Result<Settings, ConfigError> {
        let file = file(toml);
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        load_from(Some(file.path()), env, flags, conflicts)
    }

    #[test]
    fn without_anything_given_the_defaults_hold() {
        let env = HashMap::from([("SHOAL_PORT".to_owned(), "tcp://10.0.0.1:7070".to_owned())]);
        let settings = load_from(None, env, &Flags::default(), conflicts);
        assert_eq!(settings, Ok(Settings::default()));
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_file() {
        let settings = load_with(
            "listen = \":1\"\nverbose = true\ntrackers = [\"a:1\"]\n[swarm]\nmax_peers = 1\ninterval = \"1s\"\nmemory = \"1MiB\"",
            &[("SHOAL__LISTEN", ":2"), ("SHOAL__SWARM__MAX_PEERS", "2"), ("SHOAL__SWARM__MEMORY", "2MiB")],
            &Flags { listen: Some(":3".to_owned()), ..Flags::default() },
        )
        .expect("all are good");
        assert_eq!(settings.listen.port(), 3);
        assert_eq!(settings.swarm.max_peers, 2);
        assert_eq!(settings.swarm.memory, Some(ByteSize::new(2 << 20)));
        assert_eq!(settings.swarm.interval, Duration::from_secs(1));
        assert!(settings.verbose);
    }

    #[test]
    fn a_list_is_written_with_commas_in_the_environment() {
        let settings = load_with("", &[("SHOAL__TRACKERS", "a:1, b:2,")], &Flags::default());
        let trackers: Vec<_> =
            settings.expect("all are good").trackers.iter().map(ToString::to_string).collect();
        assert_eq!(trackers, ["a:1", "b:2"]);
    }

    #[test]
    fn everything_wrong_is_told_at_once_with_its_place() {
        let toml = "listen = \"nowhere\"\nlisten_on = 1\n[swarm]\ninterval = 30\n[swarms]\na = 1";
        let flags =
            Flags { swarm: SwarmFlags { max_peers: Some("many".to_owned()) }, ..Flags::default() };
        let error =
            load_with(toml, &[("SHOAL__SWARM__MEMMORY", "1"), ("SHOAL__SWARM", "x")], &flags)
                .expect_err("seven mistakes")
                .to_string();
        for part in [
            ": listen: \"nowhere\" has no port",
            ": listen_on: there is no such setting",
            ": swarm.interval: \"30\" is not a duration",
            ": swarms.a: there is no such setting",
            "SHOAL__SWARM__MEMMORY: there is no such setting",
            "SHOAL__SWARM: this is a section, not a setting",
            "--swarm-max-peers: string \"many\" is not",
        ] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_told_with_the_rest() {
        let told = |toml: &str| {
            let error = load_with(toml, &[], &Flags::default()).expect_err("it is wrong");
            error.0.into_iter().map(|problem| problem.reason).collect::<Vec<_>>()
        };
        assert_eq!(told("verbose = true"), ["name one"]);
        let both = told("verbose = true\nnonsense = 1");
        assert_eq!(both, ["there is no such setting", "name one"]);
        // If it has an error, conflicts with others are unknown.
        assert_eq!(told("verbose = true\ntrackers = [\"a\"]").len(), 1);
    }

    #[test]
    fn an_unreadable_file_is_told_by_name() {
        let missing = load_from::<Settings>(
            Some(Path::new("/nowhere/shoal.toml")),
            HashMap::new(),
            &Flags::default(),
            conflicts,
        );
        assert!(missing.expect_err("it is missing").to_string().contains("/nowhere/shoal.toml: "));
        let broken = load_with("listen =", &[], &Flags::default()).expect_err("it is broken");
        assert!(broken.to_string().contains("line 1"), "{broken}");
    }

    #[test]
    fn what_is_rendered_loads_again() {
        let settings = load_with(&render(&Settings::default()), &[], &Flags::default());
        assert_eq!(settings, Ok(Settings::default()));
    }
}
