//! What `bmdb serve` is told by flags, variables and a file.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rig::{Said, run};

/// A file of this folder.
fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("it can be written");
    path
}

fn serve(file: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bmdb"));
    command
        .args(["serve", "-o", "json", "--print-settings", "--settings"])
        .arg(file)
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied());
    run(command)
}

/// The value of a setting, and where it comes from.
fn setting(said: &Said, name: &str) -> (String, String) {
    let json = said.json();
    let settings = json["answer"]["settings"].as_array().expect("they are told").clone();
    let found = settings.into_iter().find(|setting| setting["name"] == name);
    let found = found.unwrap_or_else(|| panic!("{name} is not told: {json}"));
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (text("value"), text("from"))
}

#[test]
fn a_flag_goes_before_a_variable_and_a_variable_before_the_file() {
    let folder = tempfile::tempdir().expect("there is room");
    let text = "database = \"sqlite://kept.sqlite\"\nlisten = \"127.0.0.1:1\"\nportal = [\"a.example.com\", \"b.example.com\"]\n\
        metrics = true\nread-only = true\nby = \"kept\"\n";
    let file = write(folder.path(), "serve.toml", text);
    let path = file.display().to_string();
    let is = |said: &Said, name: &str, value: &str, from: &str| {
        assert_eq!(setting(said, name), (value.to_owned(), from.to_owned()), "{said:?}");
    };

    let said = serve(&file, &[], &[]);
    is(&said, "database", "sqlite://kept.sqlite", &path);
    is(&said, "listen", "127.0.0.1:1", &path);
    is(&said, "portal", "a.example.com,b.example.com", &path);
    is(&said, "metrics", "true", &path);
    is(&said, "no-collector", "false", "default");
    is(&said, "read-database", "", "default");

    let variables = [
        ("BMDB_LISTEN", "127.0.0.1:2"),
        ("BMDB_READ_ONLY", "false"),
        ("BMDB_DATABASE_URL", "sqlite://varied.sqlite"),
    ];
    let said = serve(&file, &variables, &["--by", "flagged"]);
    is(&said, "listen", "127.0.0.1:2", "BMDB_LISTEN");
    is(&said, "read-only", "false", "BMDB_READ_ONLY");
    is(&said, "by", "flagged", "--by");
    is(&said, "database", "sqlite://varied.sqlite", "BMDB_DATABASE_URL");
    let said = serve(
        &file,
        &variables,
        &["--listen", "127.0.0.1:3", "--database", "sqlite://flagged.sqlite"],
    );
    is(&said, "listen", "127.0.0.1:3", "--listen");
    is(&said, "database", "sqlite://flagged.sqlite", "--database");
}

#[test]
fn what_a_file_says_wrongly_is_told_by_its_line_and_no_secret_with_it() {
    let folder = tempfile::tempdir().expect("there is room");
    for (text, line, expected) in [
        (
            "listen = \"127.0.0.1:1\"\n\npasswort = \"geheim\"\n",
            3,
            "unknown field `passwort`, expected one of `database`",
        ),
        ("\nlisten = \"geheim\"\n", 2, "invalid socket address"),
        ("by = \"ada\"\nby = \"geheim\"\n", 2, "duplicate key"),
        ("# a remark\nmetrics = geheim\n", 2, ""),
    ] {
        let file = write(folder.path(), "serve.toml", text);
        let said = serve(&file, &[], &[]);
        let place = format!("serve.toml, line {line}: ");
        assert!(
            said.status == 2 && said.out.contains(&place) && said.out.contains(expected),
            "{text}: {said:?}"
        );
        assert!(!said.out.contains("geheim") && !said.err.contains("geheim"), "{said:?}");
    }
    for (text, expected) in [
        (
            "database = \"postgres://bmdb:geheim@h/fleet\"\n",
            "database in the file of settings has a password in it",
        ),
        (
            "read-database = \"postgres://h/fleet?password=geheim\"\n",
            "read-database in the file of settings has a password",
        ),
        (
            "database = \"sqlite://a\"\ndatabase-file = \"b\"\n",
            "both database and database-file were given",
        ),
        ("database-file = \"/nowhere/url\"\n", "cannot be read from /nowhere/url"),
        (
            "public-host = [\"bmdb.example.com\"]\n",
            "--public-host needs --token-file",
        ),
    ] {
        let file = write(folder.path(), "serve.toml", text);
        let said = serve(&file, &[], &[]);
        assert!(said.status == 2 && said.out.contains(expected), "{text}: {said:?}");
        assert!(!said.out.contains("geheim") && !said.err.contains("geheim"), "{said:?}");
    }
    let said = serve(&folder.path().join("none.toml"), &[], &[]);
    assert!(
        said.status == 2 && said.out.contains("none.toml cannot be read"),
        "{said:?}"
    );
}

#[test]
fn a_url_with_a_password_is_read_from_a_file_and_never_told() {
    let folder = tempfile::tempdir().expect("there is room");
    let url = write(folder.path(), "url", "postgres://bmdb:geheim@127.0.0.1:1/fleet\n");
    let text = format!("database-file = {:?}\n", url.display().to_string());
    let file = write(folder.path(), "serve.toml", &text);
    let said = serve(&file, &[], &[]);
    assert_eq!(
        setting(&said, "database-file"),
        (url.display().to_string(), file.display().to_string())
    );
    assert_eq!(setting(&said, "database").0, "", "{said:?}");
    let said = serve(&file, &[("BMDB_DATABASE_URL", "postgres://bmdb:geheim@h/other")], &[]);
    assert_eq!(
        setting(&said, "database"),
        ("postgres://bmdb@h/other".to_owned(), "BMDB_DATABASE_URL".to_owned())
    );
    assert_eq!(setting(&said, "database-file").0, "", "{said:?}");
    assert!(!said.out.contains("geheim"), "{said:?}");

    // It is what is connected to: nobody listens there.
    let mut command = Command::new(env!("CARGO_BIN_EXE_bmdb"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--by", "ada", "--database-file"]);
    let said = run({
        command.arg(&url).env_clear();
        command
    });
    assert!(said.status == 6 && said.err.contains("127.0.0.1:1"), "{said:?}");
    assert!(!said.err.contains("geheim"), "{said:?}");
}

#[test]
fn the_example_that_people_copy_is_understood() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/serve.toml");
    let said = serve(&example, &[], &[]);
    assert_eq!(said.status, 0, "{said:?}");
    let json = said.json();
    for setting in json["answer"]["settings"].as_array().expect("they are told") {
        let name = setting["name"].as_str().expect("it has a name");
        let text = std::fs::read_to_string(&example).expect("it is there");
        assert!(text.contains(&format!("{name} = ")), "{name} is not in the example");
    }
}
