//! `reader.py`, which follows `docs/FORMAT.md` and has no code of shoal, finds the same ids as `shoal
//! hash`: those of the page's test vectors, and of other trees.

mod python;
mod tree;

use std::{
    env, fs,
    path::Path,
    process::{Command, Output},
};

use shoal_testkit::process::binary;

use self::{
    python::python,
    tree::{Tree, bytes},
};

const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/format/reader.py");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/FORMAT.md");

/// Bytes of the pieces of small contents.
const PIECE: usize = 65_536;

/// What begins the last line of the commands of a test vector.
const HASH: &str = "shoal hash ";

/// The output of a command that succeeds.
fn output_of(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// The id, which is the first line of the output.
fn id_of(command: &mut Command) -> String {
    let output = output_of(command).expect("the id is computed");
    String::from_utf8_lossy(&output.stdout).lines().next().expect("it prints an id").to_owned()
}

fn shoal_hash() -> Command {
    let mut command = Command::new(binary("shoal"));
    command.arg("hash");
    command
}

fn reader(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.arg(READER);
    command
}

/// The commands of each test vector on the page, and its id.
fn vectors(page: &str) -> Vec<(String, String)> {
    let blocks: Vec<_> = page.split("```").skip(1).step_by(2).collect();
    let pairs = blocks.iter().zip(blocks.iter().skip(1));
    let vectors = pairs.filter_map(|(commands, expected)| {
        let commands = commands.strip_prefix("sh\n")?;
        commands.lines().last()?.starts_with(HASH).then_some(())?;
        let (_, id) = expected.split_once("\nid ")?;
        Some((commands.to_owned(), id.trim().to_owned()))
    });
    vectors.collect()
}

#[test]
fn the_commands_of_the_test_vectors_make_contents_with_these_ids() {
    let page = fs::read_to_string(PAGE).expect("the page is there");
    let vectors = vectors(&page);
    assert!(vectors.len() >= 4, "{}", vectors.len());
    for (commands, id) in vectors {
        let run = |program: &Command| {
            let folder = tempfile::tempdir().expect("a temporary directory");
            let words = [program.get_program()].into_iter().chain(program.get_args());
            let mut shell = Command::new("bash");
            shell.args(["-euc", r#"run=("${@:2}"); shoal() { "${run[@]}" "${@:2}"; }; eval "$1""#]);
            id_of(shell.arg("vector").arg(&commands).args(words).current_dir(folder.path()))
        };
        assert_eq!(run(&shoal_hash()), id, "{commands}");
        if let Some(python) = python() {
            assert_eq!(run(&reader(python)), id, "{commands}");
        }
    }
}

/// Checks that both find the same id, and returns it.
fn assert_same(python: &Path, path: &Path, options: &[&str]) -> String {
    let ids = [shoal_hash(), reader(python)].map(|mut command| {
        let id = id_of(command.args(options).arg(path));
        (id, command)
    });
    let [(ours, command), (theirs, other)] = ids;
    assert_eq!(ours, theirs, "{command:?}, {other:?}");
    ours
}

#[test]
fn random_trees_have_the_same_ids() {
    let Some(python) = python() else { return };
    for seed in 0..6 {
        let tree = Tree::random(seed);
        let ids = [&[][..], &["--preserve"], &["--piece-length", "131072"]]
            .map(|options| assert_same(python, tree.path(), options));
        assert!(ids[0] != ids[1] && ids[0] != ids[2], "{ids:?}");
    }
}

#[test]
fn holes_and_equal_files_have_the_same_ids() {
    let Some(python) = python() else { return };
    let tree = Tree::new();
    let (some, zeros) = (bytes(1, PIECE), vec![0; PIECE]);
    tree.sparse("sparse", &[(PIECE as u64, b"data"), (3 * PIECE as u64, b"")]);
    tree.file("holes", &[&some[..], &zeros, &zeros, &some, &zeros[..5]].concat(), 0o644);
    tree.file("zeros", &zeros, 0o644);
    tree.file("almost", &[&zeros[..PIECE - 1], b"1"].concat(), 0o644);
    tree.file("equal", &some, 0o644);
    tree.file("below/equal", &some, 0o755);
    // Short files: a pack with a piece of zeros.
    tree.file("pack-1", &zeros[..40_000], 0o644);
    tree.file("pack-2", &zeros[..30_000], 0o644);
    tree.file("pack-3", &some[..10], 0o644);
    tree.file("pack-4", &some[..10], 0o644);
    assert_same(python, tree.path(), &[]);
    assert_same(python, &tree.path().join("sparse"), &[]);
    assert_same(python, &tree.path().join("pack-2"), &["--name", "another"]);
}

#[test]
fn links_are_kept_followed_or_left_out_alike() {
    let Some(python) = python() else { return };
    let (tree, outside) = (Tree::new(), Tree::new());
    outside.file("file", b"outside", 0o644);
    outside.file("folder/file", b"inside of it", 0o755);
    outside.file("beside", b"beside", 0o644);
    outside.link("folder/inner", "file");
    outside.link("folder/self", ".");
    outside.link("folder/up", "../beside");
    tree.file("a", b"a", 0o644);
    tree.file("b/c/d", b"d", 0o600);
    tree.link("b/c/inner", "../.././a");
    tree.link("b/c/through", "../../b//c/d");
    tree.link("b/c/dangling", "nowhere");
    tree.link("b/c/up", "../../..b");
    tree.link("b/root", "..");
    tree.link("after-name", "b/../a");
    tree.link("file", outside.path().join("file"));
    tree.link("b/folder", outside.path().join("folder"));
    tree.link("absolute", tree.path().join("a"));
    let followed = assert_same(python, tree.path(), &[]);
    let skipped = assert_same(python, tree.path(), &["--links", "skip"]);
    assert_ne!(followed, skipped);
    // A link to the content itself has its own name.
    let link = outside.path().join("link");
    outside.link("link", tree.path());
    assert_same(python, &link, &["--preserve", "--links", "skip"]);
}
