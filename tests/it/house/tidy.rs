//! Rules of the house that no lint knows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package is in the workspace")
        .to_owned()
}

/// Every Rust file of the workspace, with its text.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = [
        "address",
        "entity",
        "migration",
        "connector",
        "operator",
        "examples",
        "tests",
    ]
    .map(|name| root().join(name))
    .into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder is there") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("it is text");
                found.push((
                    path.strip_prefix(root()).expect("it is inside").display().to_string(),
                    text,
                ));
            }
        }
    }
    assert!(found.len() > 50, "only {} files were found", found.len());
    found
}

/// The packages of this workspace that a package depends on, tests aside.
fn arrows_from(package: &str) -> BTreeSet<String> {
    let manifest = std::fs::read_to_string(root().join(package).join("Cargo.toml")).expect("there is a manifest");
    let dependencies = manifest
        .split("\n[dependencies]\n")
        .nth(1)
        .expect("it has dependencies");
    let dependencies = dependencies.split("\n[").next().unwrap_or_default();
    let name = |line: &str| line.split(['.', ' ', '=']).next().unwrap_or_default().to_owned();
    dependencies
        .lines()
        .map(name)
        .filter(|name| name.starts_with("bmdb"))
        .collect()
}

#[test]
fn arrows_point_one_way() {
    let arrows = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(arrows_from("address"), arrows(&[]));
    assert_eq!(arrows_from("entity"), arrows(&[]));
    assert_eq!(
        arrows_from("migration"),
        arrows(&["bmdb-address"]),
        "history does not follow today's entities"
    );
    assert_eq!(
        arrows_from("connector"),
        arrows(&["bmdb-address", "bmdb-entity"]),
        "opening must not alter a fleet's schema"
    );
    assert_eq!(arrows_from("operator"), arrows(&["bmdb", "bmdb-migration"]));
    assert_eq!(arrows_from("examples"), arrows(&["bmdb", "bmdb-migration"]));
}

#[test]
fn one_place_begins_transactions() {
    let begins =
        |text: &str| text.contains(".begin_with") || text.contains(".begin()") || text.contains(".transaction(");
    let places: BTreeSet<_> = sources()
        .into_iter()
        .filter(|(path, text)| path.starts_with("connector/src") && begins(text))
        .map(|(path, _)| path)
        .collect();
    // server.rs has the driver look whether a connection is inside one, and rolls that back; savepoint.rs and tx.rs begin savepoints inside of one.
    let expected = ["savepoint", "server", "transaction", "tx"].map(|name| format!("connector/src/db/{name}.rs"));
    assert_eq!(places, BTreeSet::from(expected));
}

#[test]
fn nothing_is_left_undone() {
    for (path, text) in sources() {
        if path == "tests/it/house/tidy.rs" {
            continue;
        }
        for word in ["todo!(", "unimplemented!(", "TODO", "FIXME", "#[ignore", "dbg!("] {
            assert!(!text.contains(word), "{path} has {word}");
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{path} does not begin with what it is");
    }
}

#[test]
fn no_room_is_a_hall() {
    for (path, text) in sources() {
        let code = text.split("\n#[cfg(test)]\n").next().unwrap_or_default();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//")).count();
        assert!(lines <= 450, "{path} has {lines} lines of code");
    }
}

#[test]
fn the_tests_that_documents_name_exist() {
    // Not a test, but it has the form of one's name.
    const OTHERS: [&str; 1] = ["inject_retry_errors_enabled"];
    let all: String = sources().into_iter().map(|(_, text)| text).collect();
    let sentence = regex::Regex::new(r"`([a-z]+(?:_[a-z]+){3,})`").expect("is a pattern");
    for (document, at_least) in [
        ("ARCHITECTURE.md", 40),
        ("docs/original.md", 30),
        ("docs/differences.md", 4),
        ("tests/README.md", 40),
        ("tests/model/README.md", 4),
    ] {
        let text = std::fs::read_to_string(root().join(document)).expect("it is there");
        let names: Vec<_> = sentence.captures_iter(&text).map(|found| found[1].to_owned()).collect();
        for name in &names {
            assert!(
                all.contains(&format!("fn {name}(")) || OTHERS.contains(&name.as_str()),
                "{document} names {name}, which is no test"
            );
        }
        assert!(names.len() >= at_least, "{document} names only {} tests", names.len());
    }
}
