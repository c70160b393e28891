//! What was measured, as lines, as a table of medians and ratios, and as CSV.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::contender::Kind;
use crate::fleet::Size;
use crate::run::Outcome;

/// One turn.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) size: Size,
    pub(crate) workers: usize,
    pub(crate) kind: Kind,
    turn: usize,
    outcome: Outcome,
}

impl Line {
    pub(crate) fn new(size: Size, workers: usize, kind: Kind, turn: usize, outcome: Outcome) -> Self {
        Self {
            size,
            workers,
            kind,
            turn,
            outcome,
        }
    }

    fn rate(&self) -> f64 {
        self.outcome.cycles as f64 / self.outcome.took.as_secs_f64()
    }

    fn per_cycle(&self, amount: f64) -> f64 {
        amount / (self.outcome.cycles.max(1) as f64)
    }

    /// The claim's latency in milliseconds that a share of the claims did not exceed; NaN if it could not be measured.
    fn claim_ms(&self, share: f64) -> f64 {
        quantile_ms(&self.outcome.claims, share)
    }

    /// The same from the claim's begin to the end of its last finish.
    fn whole_ms(&self, share: f64) -> f64 {
        quantile_ms(&self.outcome.whole, share)
    }
}

fn quantile_ms(sorted: &[Duration], share: f64) -> f64 {
    let nth = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(nth).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu_us = |time: Duration| self.per_cycle(time.as_secs_f64() * 1e6);
        write!(
            f,
            "{:>9} machines  {:>3} workers  {:<28} turn {}  {:>9.1} cycles/s  claim p50 {:>8.2} ms  p99 {:>9.2} ms  whole p50 {:>8.2} ms  server {:>7.0} us  client {:>6.0} us  WAL {:>6.0} B  retries {:.2}",
            self.size.machines,
            self.workers,
            self.kind.name(),
            self.turn,
            self.rate(),
            self.claim_ms(0.5),
            self.claim_ms(0.99),
            self.whole_ms(0.5),
            cpu_us(self.outcome.server_cpu),
            cpu_us(self.outcome.client_cpu),
            self.per_cycle(self.outcome.wal as f64),
            self.per_cycle(self.outcome.retries as f64),
        )?;
        if self.outcome.held_twice + self.outcome.done_again > 0 {
            let Outcome {
                held_twice, done_again, ..
            } = self.outcome;
            write!(f, "  WRONG: {held_twice} held twice, {done_again} done again")?;
        }
        Ok(())
    }
}

/// All turns.
#[derive(Default)]
pub(crate) struct Report(Vec<Line>);

/// The medians of one contender's turns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Medians {
    pub(crate) rate: f64,
    pub(crate) claim_p50: f64,
    pub(crate) claim_p99: f64,
    pub(crate) whole_p50: f64,
    pub(crate) whole_p99: f64,
    pub(crate) server_us: f64,
    pub(crate) client_us: f64,
    pub(crate) wal: f64,
    pub(crate) retries: f64,
}

impl Report {
    pub(crate) fn add(&mut self, line: Line) {
        self.0.push(line);
    }

    /// Whether no machine was held twice and nothing was done again.
    pub(crate) fn is_clean(&self) -> bool {
        self.0
            .iter()
            .all(|line| line.outcome.held_twice + line.outcome.done_again == 0)
    }

    /// Fleet, workers and contender, with the medians of the turns.
    pub(crate) fn medians(&self) -> Vec<(Size, usize, Kind, Medians)> {
        let mut groups: BTreeMap<(u32, usize, usize), Vec<&Line>> = BTreeMap::new();
        for line in &self.0 {
            let kind = Kind::all().position(|kind| kind == line.kind).unwrap_or_default();
            groups
                .entry((line.size.machines, line.workers, kind))
                .or_default()
                .push(line);
        }
        let of_group = |lines: Vec<&Line>| {
            let of = |value: &dyn Fn(&Line) -> f64| median(lines.iter().map(|line| value(line)).collect());
            let medians = Medians {
                rate: of(&Line::rate),
                claim_p50: of(&|line| line.claim_ms(0.5)),
                claim_p99: of(&|line| line.claim_ms(0.99)),
                whole_p50: of(&|line| line.whole_ms(0.5)),
                whole_p99: of(&|line| line.whole_ms(0.99)),
                server_us: of(&|line| line.per_cycle(line.outcome.server_cpu.as_secs_f64() * 1e6)),
                client_us: of(&|line| line.per_cycle(line.outcome.client_cpu.as_secs_f64() * 1e6)),
                wal: of(&|line| line.per_cycle(line.outcome.wal as f64)),
                retries: of(&|line| line.per_cycle(line.outcome.retries as f64)),
            };
            (lines[0].size, lines[0].workers, lines[0].kind, medians)
        };
        groups.into_values().map(of_group).collect()
    }

    pub(crate) fn csv(&self) -> String {
        let mut text =
            "machines,share,workers,contender,turn,cycles_per_s,claim_p50_ms,claim_p99_ms,whole_p50_ms,whole_p99_ms,server_us,client_us,\
                        wal_bytes,retries,held_twice,done_again\n"
                .to_owned();
        for line in &self.0 {
            let outcome = &line.outcome;
            text.push_str(&format!(
                "{},{},{},{},{},{:.1},{:.3},{:.3},{:.3},{:.3},{:.0},{:.0},{:.0},{:.3},{},{}\n",
                line.size.machines,
                line.size.share,
                line.workers,
                line.kind.name().replace(',', ""),
                line.turn,
                line.rate(),
                line.claim_ms(0.5),
                line.claim_ms(0.99),
                line.whole_ms(0.5),
                line.whole_ms(0.99),
                line.per_cycle(outcome.server_cpu.as_secs_f64() * 1e6),
                line.per_cycle(outcome.client_cpu.as_secs_f64() * 1e6),
                line.per_cycle(outcome.wal as f64),
                line.per_cycle(outcome.retries as f64),
                outcome.held_twice,
                outcome.done_again,
            ));
        }
        text
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What others of the same run did on the same fleet with as many workers.
struct Beside<'a>(Vec<&'a (Size, usize, Kind, Medians)>);

impl Beside<'_> {
    /// NaN if it did not take part.
    fn of(&self, wanted: Kind, value: fn(&Medians) -> f64) -> f64 {
        let wanted = self.0.iter().find(|(_, _, kind, _)| *kind == wanted);
        wanted.map_or(f64::NAN, |(_, _, _, medians)| value(medians))
    }
}

struct Column {
    name: &'static str,
    digits: usize,
    value: fn(&Medians, &Beside<'_>) -> f64,
}

const fn column(name: &'static str, digits: usize, value: fn(&Medians, &Beside<'_>) -> f64) -> Column {
    Column { name, digits, value }
}

/// Each rate also in parts of the limit's and as a multiple of the original's way, and the client's CPU as a multiple of the loop's.
const COLUMNS: [Column; 13] = [
    column("cycles/s", 0, |medians, _| medians.rate),
    column("of limit", 2, |medians, beside| {
        medians.rate / beside.of(Kind::Limit, |limit| limit.rate)
    }),
    column("over steps", 1, |medians, beside| {
        medians.rate / beside.of(Kind::Steps, |steps| steps.rate)
    }),
    column("claim p50 ms", 2, |medians, _| medians.claim_p50),
    column("p99 ms", 2, |medians, _| medians.claim_p99),
    column("whole p50 ms", 2, |medians, _| medians.whole_p50),
    column("p99 ms", 2, |medians, _| medians.whole_p99),
    column("server us", 0, |medians, _| medians.server_us),
    column("of limit's", 2, |medians, beside| {
        medians.server_us / beside.of(Kind::Limit, |limit| limit.server_us)
    }),
    column("client us", 0, |medians, _| medians.client_us),
    column("of loop's", 2, |medians, beside| {
        medians.client_us / beside.of(Kind::Loop, |by_hand| by_hand.client_us)
    }),
    column("WAL B", 0, |medians, _| medians.wal),
    column("retries", 2, |medians, _| medians.retries),
];

/// A table in Markdown, less the columns of which nothing was measured.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.medians();
        let values = |(size, workers, _, medians): &(Size, usize, Kind, Medians)| {
            let others = all.iter().filter(|line| line.0 == *size && line.1 == *workers);
            let beside = Beside(others.collect());
            COLUMNS.map(|column| (column.value)(medians, &beside))
        };
        let rows: Vec<_> = all.iter().map(values).collect();
        let is_measured = |nth: &usize| rows.iter().any(|row| row[*nth].is_finite() && row[*nth] != 0.0);
        let measured: Vec<usize> = (0..COLUMNS.len()).filter(is_measured).collect();
        write!(f, "| machines | workers | way |")?;
        for nth in &measured {
            write!(f, " {} |", COLUMNS[*nth].name)?;
        }
        writeln!(f, "\n|---:|---:|---|{}", "---:|".repeat(measured.len()))?;
        for ((size, workers, kind, _), row) in all.iter().zip(&rows) {
            write!(f, "| {} | {workers} | {} |", size.machines, kind.name())?;
            for nth in &measured {
                match row[*nth] {
                    value if value.is_finite() => write!(f, " {value:.digits$} |", digits = COLUMNS[*nth].digits)?,
                    _ => write!(f, " |")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
