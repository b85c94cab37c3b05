//! What the command lines of all binaries share: their version and their manual pages.

use std::{
    env,
    fs::File,
    io::{self, Write as _},
    path::Path,
    process,
};

use clap::{Command, Parser};
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

/// What `--version` prints: the version, and the commit and its date in release builds.
pub const VERSION: &str = env!("SHOAL_VERSION");

/// Parses the command line, and exits if it is wrong.
///
/// `NAME man-pages DIRECTORY` instead writes the manual pages of the binary and its subcommands,
/// for packages. The help does not mention it.
pub fn parse<T: Parser>() -> T {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    if let [word, directory] = &*arguments
        && word == "man-pages"
    {
        if let Err(error) = write_man_pages(T::command(), Path::new(directory)) {
            eprintln!("cannot write manual pages to {}: {error}", directory.display());
            process::exit(1);
        }
        process::exit(0);
    }
    T::parse()
}

fn write_man_pages(command: Command, directory: &Path) -> io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    write_man_page(&command, directory)
}

fn write_man_page(command: &Command, directory: &Path) -> io::Result<()> {
    for subcommand in command.get_subcommands() {
        write_man_page(subcommand, directory)?;
    }
    // Subcommands have no version of their own.
    let man = Man::new(command.clone()).source(format!("shoal {VERSION}"));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(notes) = command.get_after_help() {
        sections(&notes.to_string()).to_writer(&mut page)?;
    }
    File::create(directory.join(man.get_filename()))?.write_all(&page)
}

/// The text below the options of `--help`. A line such as `Examples:` begins a section whose lines
/// are kept as they are; paragraphs that are not indented are notes.
fn sections(text: &str) -> Roff {
    let mut roff = Roff::new();
    let mut in_notes = false;
    for line in text.lines() {
        let indented = line.is_empty() || line.starts_with(' ');
        let section = match line.strip_suffix(':') {
            _ if indented => None,
            Some(heading) => Some((heading.to_uppercase(), "nf")),
            None if in_notes => None,
            None => Some(("NOTES".to_owned(), "fi")),
        };
        match section {
            Some((heading, fill)) => {
                roff.control("SH", [&*heading]).control(fill, []);
                in_notes = fill == "fi";
                if in_notes {
                    roff.text([roman(line)]);
                }
            }
            None => drop(roff.text([roman(line)])),
        }
    }
    roff
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Pages of the command `demo`.
    #[derive(Debug, Parser)]
    #[command(version = VERSION, after_help = "Examples:\n  demo go   goes\n\n  demo -n 1\n\nA note.\nA line.")]
    struct Demo {
        #[command(subcommand)]
        _command: Subcommand,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Subcommand {
        /// Goes there
        Go {
            /// Where
            #[arg(long, env = "DEMO_TO")]
            _to: Option<String>,
        },
    }

    #[test]
    fn each_command_has_a_manual_page() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        write_man_pages(Demo::command().name("demo"), directory.path()).expect("it is writable");
        let page = |name| std::fs::read_to_string(directory.path().join(name)).expect("a page");
        let main = page("demo.1");
        assert!(main.contains(VERSION), "{main}");
        assert!(main.contains("demo\\-go(1)"), "{main}");
        let examples = ".SH EXAMPLES\n.nf\n  demo go   goes\n\n  demo \\-n 1\n\n.SH NOTES\n.fi\nA note.\nA line.\n";
        assert!(main.contains(examples), "{main}");
        let go = page("demo-go.1");
        assert!(go.contains("DEMO_TO") && go.contains(VERSION), "{go}");
    }
}
