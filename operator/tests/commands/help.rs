//! The help, and what is made of the same tree.

use bmdb_operator::cli::reference::{leaves, reference};

use crate::rig::bare;

/// `BMDB_TEST_UPDATE=1` writes it anew.
#[test]
fn the_guides_reference_is_the_help() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/bmdb.md");
    let made = reference();
    if std::env::var_os("BMDB_TEST_UPDATE").is_some() {
        std::fs::write(file, &made).expect("it can be written");
    }
    let kept = std::fs::read_to_string(file).expect("it is there");
    assert!(
        kept == made,
        "docs/bmdb.md is not what the help says: run this test with BMDB_TEST_UPDATE=1 and look at what has changed"
    );
}

#[test]
fn each_command_has_an_example_that_it_takes() {
    let leaves = leaves();
    assert!(leaves.len() > 25, "{}", leaves.len());
    for (name, command) in leaves {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let examples: Vec<_> = help
            .lines()
            .filter(|line| line.trim_start().starts_with("bmdb "))
            .collect();
        assert!(!examples.is_empty(), "{name} has no example");
        for example in examples {
            let words = words(example.trim());
            assert!(
                words.join(" ").starts_with(&name),
                "{name} shows another command: {example}"
            );
            let parsed = <bmdb_operator::cli::Cli as clap::Parser>::try_parse_from(&words);
            assert!(parsed.is_ok(), "{example}: {}", parsed.expect_err("it is not taken"));
        }
    }
}

/// The words of a shell's line, up to what the shell itself does.
fn words(line: &str) -> Vec<String> {
    let line = line.split([';', '|', '>']).next().unwrap_or_default();
    let mut words = vec![String::new()];
    let mut quoted = false;
    for letter in line.trim().chars() {
        match letter {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            letter => words.last_mut().expect("there is one").push(letter),
        }
    }
    words
}

#[test]
fn completions_and_man_pages_are_made_of_it() {
    for shell in ["bash", "zsh", "fish"] {
        let said = bare(&["completions", shell]);
        assert!(said.status == 0 && said.out.contains("release-hold"), "{said:?}");
    }
    let folder = std::env::temp_dir().join(format!("bmdb-man-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("it can be made");
    let said = bare(&["man", folder.to_str().expect("it is UTF-8")]);
    assert_eq!(said.status, 0, "{said:?}");
    let page = std::fs::read_to_string(folder.join("bmdb-machine-why.1")).expect("there is a page for each");
    assert!(page.contains("bmdb machine why OAK\\-4177 install"), "{page}");
    std::fs::remove_dir_all(&folder).expect("it is ours");
}
