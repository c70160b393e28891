//! Whether a page is well-formed, and holds nothing that its policy forbids.

const VOID: [&str; 5] = ["meta", "link", "input", "br", "!doctype"];

/// Reads every tag: each is closed in its order, and none has a script or a style of its own.
pub(crate) fn check(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut ids = std::collections::HashSet::new();
    let mut rest = page;
    while let Some(begin) = rest.find('<') {
        assert!(!rest[..begin].contains('>'), "a bare > in {:?}", &rest[..begin]);
        let (tag, after) = tag(&rest[begin + 1..]);
        rest = after;
        let name = tag.split([' ', '/', '\n']).next().unwrap_or_default();
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(
                open.pop(),
                Some(name),
                "closed out of order, near {:?}",
                &rest[..rest.len().min(200)]
            );
            continue;
        }
        let name_lower = name.to_lowercase();
        for attribute in attributes(tag) {
            let (name, value) = attribute;
            assert!(!name.starts_with("on") && name != "style", "{tag}");
            if name == "id" {
                assert!(ids.insert(value), "two elements are called {value}");
            }
            if name == "href" || name == "src" || name == "action" {
                let is_ours = value.starts_with('/') || value.starts_with('#') || value.starts_with("https://");
                assert!(is_ours, "{tag}");
            }
        }
        if name_lower == "script" {
            assert!(tag.contains("src=\"/assets/"), "{tag}");
        }
        // A browser would end the paragraph before these.
        let is_block = ["details", "div", "p", "ul", "dl", "table", "section"].contains(&name);
        assert!(
            !(is_block && open.contains(&"p")),
            "a {name} in a p, before {:?}",
            &rest[..rest.len().min(200)]
        );
        if !VOID.contains(&name_lower.as_str()) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?} are not closed");
}

/// The inside of a tag, up to its `>`, which may also stand in a value.
fn tag(text: &str) -> (&str, &str) {
    let mut is_quoted = false;
    for (place, letter) in text.char_indices() {
        match letter {
            '"' => is_quoted = !is_quoted,
            '>' if !is_quoted => return (&text[..place], &text[place + 1..]),
            '<' => panic!("a < in a tag: {:?}", &text[..place.min(200)]),
            _ => {}
        }
    }
    panic!("a tag does not end: {:?}", &text[..text.len().min(200)]);
}

/// Names and values.
fn attributes(tag: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = tag;
    while let Some(equals) = rest.find("=\"") {
        let name = rest[..equals].rsplit(' ').next().unwrap_or_default();
        let value = &rest[equals + 2..];
        let end = value.find('"').expect("it ends");
        found.push((name, &value[..end]));
        rest = &value[end + 1..];
    }
    found
}
