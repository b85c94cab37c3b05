//! Statements of `docs/ARCHITECTURE.md` that can be checked in the code.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The crates of the workspace, each with its dependencies outside of tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo runs tests"));
    let output = cargo.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let output = output.current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    let packages = list(&metadata["packages"]);
    let of = |package: &Value| {
        let all = list(&package["dependencies"]);
        all.iter().filter(|one| one["kind"].is_null()).map(name).collect()
    };
    packages.iter().map(|package| (name(package), of(package))).collect()
}

#[test]
fn dependencies_point_one_way() {
    let allowed = BTreeMap::from([
        ("shoal-core", vec![]),
        ("shoal-chart", vec![]),
        ("shoal-proto", vec![]),
        ("shoal-common", vec!["shoal-core", "shoal-proto"]),
        ("shoal-tracker", vec!["shoal-core", "shoal-proto", "shoal-common"]),
        ("shoal-peer", vec!["shoal-core", "shoal-proto", "shoal-common"]),
        ("shoal-dht-node", vec!["shoal-core", "shoal-proto", "shoal-common"]),
        ("shoal-loadgen", vec!["shoal-core", "shoal-proto", "shoal-common", "shoal-chart"]),
        (
            "shoal-cli",
            vec!["shoal-core", "shoal-proto", "shoal-common", "shoal-chart", "shoal-peer"],
        ),
    ]);
    for (package, on) in dependencies() {
        let ours = on.iter().filter(|name| name.starts_with("shoal-"));
        match allowed.get(&*package) {
            Some(allowed) => {
                let more: Vec<_> = ours.filter(|name| !allowed.contains(&name.as_str())).collect();
                assert!(more.is_empty(), "{package} depends on {more:?}");
            }
            None => assert_eq!(package, "shoal-testkit", "a crate that this test does not list"),
        }
    }
}

#[test]
fn the_state_machines_have_no_io_and_no_async_dependencies() {
    let on = dependencies().remove("shoal-core").expect("a crate of the workspace");
    let forbidden = ["bytes", "tokio", "rustix", "tonic", "hyper", "futures-util", "async-trait"];
    let used: Vec<_> = forbidden.into_iter().filter(|name| on.contains(*name)).collect();
    assert!(used.is_empty(), "core depends on {used:?}");
}

#[test]
fn each_invariant_names_tests_that_exist() {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("it exists");
    let invariants: Vec<_> =
        text.split("\n\n").filter(|text| text.starts_with("Architecture invariant:")).collect();
    assert!(invariants.len() > 10, "{}", invariants.len());
    for invariant in invariants {
        let paths = invariant.split('`').skip(1).step_by(2).filter(|word| {
            let is_test = word.contains("tests/") || word.ends_with("clippy.toml");
            is_test || word.starts_with("make ")
        });
        let mut tests = 0;
        for path in paths {
            let exists = path.starts_with("make ")
                || root().join(path).exists()
                || root().join("services").join(path).exists();
            assert!(exists, "{path} does not exist: {invariant}");
            tests += 1;
        }
        assert!(tests > 0, "it names no test: {invariant}");
    }
}
