//! The reference of the guide: each page of the help, from the tree that makes it.

use clap::{Command, CommandFactory};

use crate::cli::Cli;

/// The commands that do something, each with the words that name it: `machine why`.
#[must_use]
pub fn leaves() -> Vec<(String, Command)> {
    let mut root = Cli::command().term_width(100);
    root.build();
    let mut leaves = Vec::new();
    gather(&root, "bmdb", &mut leaves);
    leaves
}

fn gather(command: &Command, name: &str, leaves: &mut Vec<(String, Command)>) {
    let below: Vec<_> = command
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
        .collect();
    if below.is_empty() {
        leaves.push((name.to_owned(), command.clone()));
    }
    for command in below {
        gather(command, &format!("{name} {}", command.get_name()), leaves);
    }
}

/// The names of what every command takes.
const EVERYWHERE: [&str; 4] = ["database", "read_database", "output", "ascii"];

/// All of it, as `docs/bmdb.md` has it.
#[must_use]
pub fn reference() -> String {
    let mut text = "# `bmdb`, command by command\n\n\
        Made from the command's own help; `bmdb man FOLDER` writes the same as man pages. How to use it: [operating a fleet](operating.md).\n"
        .to_owned();
    let mut root = Cli::command().term_width(100);
    text.push_str(&page("bmdb", &root.render_long_help().to_string()));
    for (name, command) in leaves() {
        // What every command takes stands on the first page.
        let hidden = EVERYWHERE
            .iter()
            .fold(command, |command, name| command.mut_arg(name, |arg| arg.hide(true)));
        text.push_str(&page(
            &name,
            &hidden.disable_help_flag(true).render_long_help().to_string(),
        ));
    }
    text
}

fn page(name: &str, help: &str) -> String {
    let lines: Vec<_> = help.lines().map(str::trim_end).collect();
    format!("\n## {name}\n\n```text\n{}\n```\n", lines.join("\n").trim_end())
}
