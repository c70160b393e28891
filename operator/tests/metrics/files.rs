//! What people get to install and to read: rules, dashboard, pages.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use bmdb::metrics::{By, Kind, METRICS, Unit};
use serde_json::Value;

use crate::prometheus::promtool;

/// The workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("it is in a workspace")
        .to_owned()
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of the alerts.
pub(crate) fn alerts() -> Vec<String> {
    let rules = text("operator/deploy/prometheus/alerts.yml");
    let names = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: ").map(str::to_owned));
    names.collect()
}

/// Each query of the dashboard, with the title of its panel.
pub(crate) fn queries_of_the_dashboard() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&text("operator/deploy/grafana/dashboard.json")).expect("it is JSON");
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().expect("it has panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            // Grafana puts four scrapes there at least.
            let query = target["expr"]
                .as_str()
                .expect("it asks something")
                .replace("$__rate_interval", "4s");
            queries.push((panel["title"].as_str().unwrap_or_default().to_owned(), query));
        }
    }
    assert!(queries.len() > 20, "{queries:?}");
    queries
}

#[test]
fn alerts_say_yes_and_no_where_they_should() {
    let folder = root().join("operator/deploy/prometheus");
    promtool(&["check", "rules", "alerts.yml"], &folder, "");
    promtool(&["test", "rules", "alerts.test.yml"], &folder, "");
    let tests = text("operator/deploy/prometheus/alerts.test.yml");
    for alert in alerts() {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} has no test");
    }
}

#[test]
fn each_alert_leads_to_its_page_and_each_page_has_its_alert() {
    let (rules, pages) = (text("operator/deploy/prometheus/alerts.yml"), text("docs/runbook.md"));
    let sections: Vec<_> = pages
        .lines()
        .filter_map(|line| line.strip_prefix("## ").map(str::to_owned))
        .collect();
    assert_eq!(alerts(), sections);
    for alert in alerts() {
        let link = format!("docs/runbook.md#{}\"", alert.to_lowercase());
        assert_eq!(rules.matches(&link).count(), 1, "{link}");
    }
}

#[test]
fn rules_and_panels_name_only_what_is_recorded() {
    let names = |text: &str| -> Vec<String> {
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        words
            .filter(|word| word.starts_with("bmdb_"))
            .map(str::to_owned)
            .collect()
    };
    let files = [
        "operator/deploy/prometheus/alerts.yml",
        "operator/deploy/grafana/dashboard.json",
        "docs/runbook.md",
    ];
    for file in files {
        for name in names(&text(file)) {
            let is = |known: &str| {
                name == known
                    || ["_bucket", "_sum", "_count"]
                        .iter()
                        .any(|part| name == format!("{known}{part}"))
            };
            assert!(METRICS.iter().any(|metric| is(metric.name)), "{file} asks for {name}");
        }
    }
}

/// The table as people read it.
fn table() -> String {
    let mut table = String::from("| metric | kind | unit | labels | by | says |\n|---|---|---|---|---|---|\n");
    for metric in METRICS {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let unit = match metric.unit {
            Unit::Count => "",
            Unit::Seconds => "seconds",
            Unit::Timestamp => "seconds since 1970",
        };
        let by = match metric.by {
            By::Component => "components",
            By::Exporter => "exporter",
        };
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(
            table,
            "| `{}` | {kind} | {unit} | {} | {by} | {} |",
            metric.name,
            labels.join(" "),
            metric.help
        )
        .unwrap();
    }
    table.push_str("\n| histogram | buckets |\n|---|---|\n");
    for metric in METRICS {
        if let Kind::Histogram(buckets) = metric.kind {
            let bounds: Vec<_> = buckets.iter().map(f64::to_string).collect();
            writeln!(table, "| `{}` | {} |", metric.name, bounds.join(" ")).unwrap();
        }
    }
    table
}

#[test]
fn the_table_for_people_is_the_one_that_is_recorded_by() {
    const BEGIN: &str = "<!-- From connector/src/metrics.rs: BMDB_TEST_UPDATE=1 cargo test -p bmdb-operator --test metrics files:: -->\n";
    const END: &str = "<!-- So far. -->\n";
    let path = "docs/metrics.md";
    let page = text(path);
    let (before, rest) = page.split_once(BEGIN).expect("it begins somewhere");
    let (kept, after) = rest.split_once(END).expect("it ends somewhere");
    if std::env::var_os("BMDB_TEST_UPDATE").is_some() {
        std::fs::write(root().join(path), format!("{before}{BEGIN}{}{END}{after}", table()))
            .expect("it can be written");
        return;
    }
    assert_eq!(kept, table(), "BMDB_TEST_UPDATE=1 writes it anew");
}
