//! What is measured, as Prometheus reads it: components on real databases, the real server, the real rules.
//!
//! A target of its own: the recorder is one for the whole process, and here nothing else records.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod files;
mod fleet;
mod prometheus;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bmdb::metrics::{Kind, METRICS, Metric};
use bmdb_operator::metrics::Exporter;
use harness::{PATIENCE, until};

/// What the text says of one metric: its kind, and each line as labels and value.
#[derive(Default)]
struct Told {
    kind: String,
    lines: Vec<(BTreeMap<String, String>, f64)>,
}

fn read(text: &str) -> BTreeMap<String, Told> {
    let mut all: BTreeMap<String, Told> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            all.entry(name.to_owned()).or_default().kind = kind.to_owned();
        }
        if line.starts_with('#') {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels
            .trim_end_matches('}')
            .split(',')
            .filter(|label| !label.is_empty());
        let labels = labels.map(|label| {
            let (name, value) = label.split_once('=').unwrap();
            (name.to_owned(), value.trim_matches('"').to_owned())
        });
        let parts = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|part| name.strip_suffix(part));
        let name = parts.filter(|name| all.contains_key(*name)).unwrap_or(name);
        let told = all.entry(name.to_owned()).or_default();
        told.lines.push((labels.collect(), value.parse().unwrap()));
    }
    all
}

/// What is wrong with what is told of a metric.
fn wrong(metric: &Metric, told: Option<&Told>) -> Option<String> {
    let Some(told) = told else {
        return Some(format!("{} was recorded by nobody", metric.name));
    };
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    };
    let of = |label: &str| -> Vec<&str> {
        told.lines
            .iter()
            .filter_map(|(labels, _)| Some(labels.get(label)?.as_str()))
            .collect()
    };
    let labels = |labels: &BTreeMap<String, String>| {
        let names: Vec<&str> = labels.keys().map(String::as_str).filter(|name| *name != "le").collect();
        let mut allowed = metric.labels.to_vec();
        allowed.sort_unstable();
        names == allowed
    };
    // On SQLite one writes at a time, and nobody loses a race; nor is an answer lost on the way.
    let of_servers = [bmdb::metrics::RACES_LOST.name, bmdb::metrics::CLAIMS_UNKNOWN.name];
    let processes: &[&str] = if of_servers.contains(&metric.name) {
        &["install-postgres"]
    } else {
        &["install-postgres", "install-sqlite"]
    };
    let is_counted = |(_, value): &(_, f64)| *value > 0.0;
    if told.kind != kind {
        Some(format!("{} is a {} and no {kind}", metric.name, told.kind))
    } else if !told.lines.iter().all(|(line, _)| labels(line)) {
        Some(format!("{} has labels beside {:?}", metric.name, metric.labels))
    } else if metric.labels.contains(&"process") && !processes.iter().all(|process| of("process").contains(process)) {
        Some(format!("{} is told of {:?} only", metric.name, of("process")))
    } else if metric.kind == Kind::Counter && !told.lines.iter().any(is_counted) {
        Some(format!("{} stays at nought", metric.name))
    } else {
        None
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_fleet_does_is_scraped_as_the_table_says_and_seen_on_every_panel() {
    let exporter = Exporter::install().expect("nothing else records here");
    assert!(Exporter::install().is_err(), "a process has one");
    let fleets = (fleet::on_postgres(&exporter).await, fleet::on_sqlite(&exporter).await);

    let mut left = Vec::new();
    until("every metric is recorded", PATIENCE, async || {
        let told = read(&exporter.render());
        left = METRICS
            .iter()
            .filter_map(|metric| wrong(metric, told.get(metric.name)))
            .collect();
        if !left.is_empty() {
            eprintln!("{left:?}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        left.is_empty()
    })
    .await;
    for (name, told) in read(&exporter.render()) {
        assert!(
            METRICS.iter().any(|metric| metric.name == name),
            "{name} is not in the table: {}",
            told.kind
        );
    }
    for (metric, label, words) in [
        (bmdb::metrics::LOOP_SUCCESS, "loop", &bmdb::metrics::LOOPS[..]),
        (
            bmdb::metrics::STATEMENT_SECONDS,
            "kind",
            &bmdb::metrics::STATEMENT_KINDS[..],
        ),
    ] {
        let lines = read(&exporter.render()).remove(metric.name).unwrap().lines;
        let told: BTreeSet<_> = lines.iter().map(|(labels, _)| labels[label].clone()).collect();
        let words: BTreeSet<_> = words.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(told, words, "{}", metric.name);
    }
    let value = |text: &str, name: &str, label: &str, word: &str| {
        let lines = read(text).remove(name).unwrap().lines;
        let line = lines
            .into_iter()
            .find(|(labels, _)| labels.get(label).is_some_and(|is| is == word));
        line.map(|(_, value)| value)
    };
    let (paused, oldest) = (bmdb::metrics::PAUSED.name, bmdb::metrics::ELIGIBLE_OLDEST_SECONDS.name);
    fleets.1.pause().await;
    let process = |text: &str, name| value(text, name, "process", "install-sqlite");
    until("a pause, and machines that wait, are told of", PATIENCE, async || {
        let text = exporter.render();
        process(&text, paused) == Some(1.0) && process(&text, oldest) > Some(10.0)
    })
    .await;
    let text = exporter.render();
    assert_eq!(value(&text, paused, "process", "install-postgres"), Some(0.0));
    let failed = value(&text, bmdb::metrics::ATTENTION.name, "what", "silent session");
    assert_eq!(failed, Some(0.0), "{text}");

    prometheus::check_metrics(&exporter.render());
    let server = prometheus::Server::scraping(&exporter);
    for (panel, query) in files::queries_of_the_dashboard() {
        until(&format!("{panel} has data: {query}"), PATIENCE, async || {
            !server.ask(&query).is_empty()
        })
        .await;
    }
    let rules = files::alerts().len();
    until("every rule was evaluated", PATIENCE, async || {
        server.rules().len() == rules
    })
    .await;
    for (name, health, error) in server.rules() {
        assert_eq!((health.as_str(), error.as_str()), ("ok", ""), "{name}");
    }
}
