//! The rooms of `connector/src`, and that imports between them point one way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;

/// From the ground up: a file may import from its own room and from those before it. What stands together in one line does not know the others there.
const ROOMS: [&[&str]; 12] = [
    &["metrics"],
    &["runtime"],
    &["error"],
    &["db"],
    &["rules"],
    &["store"],
    &["bmdb"],
    &["session"],
    &["admin", "collector"],
    &["claim"],
    &["end"],
    &["runner"],
];

/// Which file imports from which, both by their paths as modules.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// Files by their paths as modules, `db::file`, with their texts.
type Files = BTreeMap<String, String>;

/// Reads every `crate::` outside of comments and tests; `$crate::` in a macro is a name for those who use it.
fn imports(files: &Files) -> Imports {
    static NAMED: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?:^|[^$])\bcrate::((?:\w+::)*)(\w+|\{[^}]*\})").expect("is a pattern"));
    let of = |(name, text): (&String, &String)| {
        let code = text.split("\n#[cfg(test)]\n").next().unwrap_or_default();
        let code: Vec<&str> = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        let mut found = BTreeSet::new();
        for named in NAMED.captures_iter(&code.join("\n")) {
            for item in named[2].trim_matches(['{', '}']).split(',') {
                let path = format!("{}{}", &named[1], item.trim());
                found.insert(file_of(path.trim_end_matches("::"), files));
            }
        }
        found.remove(name);
        (name.clone(), found)
    };
    files.iter().map(of).collect()
}

/// The file that a path leads into: the longest part of it that is one. What is none is a name that `lib.rs` gives.
fn file_of(path: &str, files: &Files) -> String {
    let mut rest = path;
    loop {
        if files.contains_key(rest) {
            return rest.to_owned();
        }
        match rest.rsplit_once("::") {
            Some((before, _)) => rest = before,
            None => return "lib".to_owned(),
        }
    }
}

fn floor_of(file: &str) -> usize {
    let room = file.split("::").next().unwrap_or_default();
    // `lib.rs` is above all.
    ROOMS
        .iter()
        .position(|floor| floor.contains(&room))
        .unwrap_or(ROOMS.len())
}

/// Imports that point upwards, or from one room to another of its floor.
fn wrong_arrows(imports: &Imports) -> Vec<String> {
    let room = |file: &str| file.split("::").next().unwrap_or_default().to_owned();
    let is_wrong = |from: &str, to: &str| {
        let (from_floor, to_floor) = (floor_of(from), floor_of(to));
        to_floor > from_floor || (to_floor == from_floor && room(from) != room(to))
    };
    let all = imports
        .iter()
        .flat_map(|(from, all)| all.iter().map(move |to| (from, to)));
    all.filter(|(from, to)| is_wrong(from, to))
        .map(|(from, to)| format!("{from} imports from {to}"))
        .collect()
}

/// Files that import from each other, if only round several corners: takes away, again and again, those that import from none that is left.
fn circles(imports: &Imports) -> Vec<String> {
    let mut left = imports.clone();
    loop {
        let leaves: Vec<String> = left
            .iter()
            .filter(|(_, all)| all.iter().all(|to| !left.contains_key(to)))
            .map(|(file, _)| file.clone())
            .collect();
        if leaves.is_empty() {
            return left.into_keys().collect();
        }
        left.retain(|file, _| !leaves.contains(file));
    }
}

fn read(root: &Path, folder: &Path, files: &mut Files) {
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            read(root, &path, files);
        } else if let Some(name) = path.strip_prefix(root).expect("it is inside").to_str()
            && let Some(name) = name.strip_suffix(".rs")
        {
            let text = std::fs::read_to_string(&path).expect("it is text");
            files.insert(name.replace('/', "::"), text);
        }
    }
}

fn files_of(package: &str) -> Files {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it has a parent");
    let root = workspace.join(package).join("src");
    let mut files = Files::new();
    read(&root, &root, &mut files);
    // It imports from all, to give their names away.
    files.remove("lib");
    files
}

#[test]
fn imports_between_rooms_point_one_way_and_no_files_go_round_in_a_circle() {
    let files = files_of("connector");
    let imports = imports(&files);
    assert!(
        imports.values().map(BTreeSet::len).sum::<usize>() > 300,
        "they are read"
    );
    assert_eq!(wrong_arrows(&imports), Vec::<String>::new());
    assert_eq!(circles(&imports), Vec::<String>::new());
    let rooms: BTreeSet<&str> = files.keys().filter_map(|file| file.split("::").next()).collect();
    let known: BTreeSet<&str> = ROOMS.into_iter().flatten().copied().collect();
    assert_eq!(rooms, known, "every room has its floor");
    for package in ["address", "entity"] {
        assert_eq!(
            circles(&self::imports(&files_of(package))),
            Vec::<String>::new(),
            "{package}"
        );
    }
}

#[test]
fn an_arrow_upwards_and_a_circle_are_seen() {
    let of = |files: &[(&str, &str)]| {
        let file = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        imports(&files.iter().map(file).collect())
    };
    let good = [
        (
            "db::sql",
            "use crate::runtime::lock::locked;\n//! crate::claim::Claim\n",
        ),
        ("runtime::lock", "\n#[cfg(test)]\nmod tests { use crate::x; }"),
        (
            "claim",
            "use crate::db::sql::{self, SqlBuilder};\n#[cfg(test)]\nmod tests { use crate::end::End; }",
        ),
        ("end", "use crate::{claim::Claim, db::sql};"),
    ];
    let all = of(&good);
    assert_eq!((wrong_arrows(&all), circles(&all)), (Vec::new(), Vec::new()));
    assert_eq!(all["end"], BTreeSet::from(["claim", "db::sql"].map(str::to_owned)));

    let upwards = of(&[("db::sql", "fn f() -> crate::claim::Claim {}"), ("claim", "")]);
    assert_eq!(wrong_arrows(&upwards), ["db::sql imports from claim"]);
    let by_lib = of(&[("runner", "use crate::Tx;")]);
    assert_eq!(wrong_arrows(&by_lib), ["runner imports from lib"]);
    let across = of(&[("admin::hold", "use crate::collector::Sweep;"), ("collector", "")]);
    assert_eq!(wrong_arrows(&across), ["admin::hold imports from collector"]);
    let round = of(&[
        ("db::a", "use crate::db::b::B;"),
        ("db::b", "use crate::db::{c::C};"),
        ("db::c", "use crate::db::a;"),
        ("db::d", "use crate::db::a;"),
        ("db::e", ""),
    ]);
    assert_eq!(
        circles(&round),
        ["db::a", "db::b", "db::c", "db::d"],
        "and who leads into it"
    );
    assert_eq!(wrong_arrows(&round), Vec::<String>::new());
}
