//! How the server carried out statements, read from its own log.

use std::collections::BTreeMap;

use serde_json::Value;

/// One statement as the server carried it out, with the statements that its foreign keys needed.
#[derive(Clone, Debug)]
pub(crate) struct Execution {
    /// The server's process, which is the connection.
    pub(crate) connection: u32,
    pub(crate) text: String,
    plan: Value,
    keys: Vec<Execution>,
}

/// Every statement that a log has an account of, in the order in which they ended.
pub(crate) fn executions(log: &str) -> Vec<Execution> {
    let mut found = Vec::new();
    // A statement's foreign keys are looked at before it ends.
    let mut keys: BTreeMap<u32, Vec<Execution>> = BTreeMap::new();
    for entry in entries(log) {
        let Some(execution) = read(&entry) else { continue };
        let pending = keys.entry(execution.connection).or_default();
        if execution.text.contains(" ONLY \"public\".") {
            pending.push(execution);
        } else {
            let keys = std::mem::take(pending);
            found.push(Execution { keys, ..execution });
        }
    }
    found
}

/// The lines of an entry after its first begin with a tab. The last one may still be being written.
fn entries(log: &str) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    for line in log.split_inclusive('\n') {
        match (line.strip_prefix('\t'), entries.last_mut()) {
            (Some(more), Some(entry)) => entry.push_str(more),
            _ => entries.push(line.to_owned()),
        }
    }
    entries
}

fn read(entry: &str) -> Option<Execution> {
    let (head, json) = entry.split_once("plan:\n")?;
    let mut parts = head.splitn(3, '|');
    let connection = parts.nth(1)?.parse().ok()?;
    parts.next()?.starts_with("LOG:  duration: ").then_some(())?;
    let mut account: Value = serde_json::from_str(json).ok()?;
    Some(Execution {
        connection,
        text: account["Query Text"].as_str()?.to_owned(),
        plan: account["Plan"].take(),
        keys: Vec::new(),
    })
}

impl Execution {
    /// The pages that it touched, in memory or on disk, foreign keys and temporary files included.
    pub(crate) fn buffers(&self) -> u64 {
        let own: u64 = [
            "Shared Hit Blocks",
            "Shared Read Blocks",
            "Temp Read Blocks",
            "Temp Written Blocks",
        ]
        .iter()
        .map(|counted| self.plan[*counted].as_u64().expect("the server counts buffers"))
        .sum();
        own + self.keys.iter().map(Self::buffers).sum::<u64>()
    }

    /// The tables that it read from one end to the other, or would have.
    pub(crate) fn scanned(&self) -> Vec<&str> {
        let mut scanned = Vec::new();
        for execution in self.keys.iter().chain([self]) {
            visit(&execution.plan, &mut |node| {
                let kind = node["Node Type"].as_str().unwrap_or_default();
                if kind == "Seq Scan" {
                    scanned.extend(node["Relation Name"].as_str());
                }
            });
        }
        scanned
    }

    /// How many rows it read only to find that they were not asked for.
    pub(crate) fn rejected(&self) -> u64 {
        let mut rejected = 0;
        visit(&self.plan, &mut |node| {
            let of_each = |kind: &str| node[kind].as_u64().unwrap_or_default();
            let loops = node["Actual Loops"].as_u64().expect("the server counts loops");
            rejected += loops * (of_each("Rows Removed by Filter") + of_each("Rows Removed by Index Recheck"));
        });
        rejected
    }

    /// Whether the server planned it for these very values, and not once for all: then they stand in the plan.
    pub(crate) fn is_custom(&self) -> bool {
        let mut is_custom = false;
        visit(&self.plan, &mut |node| {
            let mut texts = node
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(_, text)| text.as_str());
            is_custom |= texts.any(|text| text.contains("'::uuid") || text.contains("'::text"));
        });
        is_custom
    }

    /// Its plan, for people.
    pub(crate) fn tree(&self) -> String {
        let mut lines = String::new();
        draw(&self.plan, 0, &mut lines);
        for key in &self.keys {
            lines.push_str(&format!("  for a foreign key: {}\n", key.text));
            draw(&key.plan, 1, &mut lines);
        }
        lines
    }
}

fn children(node: &Value) -> &[Value] {
    node["Plans"].as_array().map_or(&[], Vec::as_slice)
}

fn visit<'v>(node: &'v Value, look: &mut impl FnMut(&'v Value)) {
    look(node);
    for child in children(node) {
        visit(child, look);
    }
}

fn draw(node: &Value, depth: usize, lines: &mut String) {
    let word = |name: &str| node[name].as_str().unwrap_or_default();
    let number = |name: &str| node[name].as_u64().unwrap_or_default();
    lines.push_str(&format!(
        "{}{} {} {} {} {} {} rows {} of {} planned, {} loops, {} buffers, {} heap fetches\n",
        "  ".repeat(depth + 1),
        word("Subplan Name"),
        word("Node Type"),
        word("Join Type"),
        word("Relation Name"),
        word("Index Name"),
        word("Index Cond"),
        number("Actual Rows"),
        number("Plan Rows"),
        number("Actual Loops"),
        number("Shared Hit Blocks") + number("Shared Read Blocks"),
        number("Heap Fetches"),
    ));
    for child in children(node) {
        draw(child, depth + 1, lines);
    }
}
