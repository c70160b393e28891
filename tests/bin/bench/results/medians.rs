//! Turns of a few ways of doing the same things, and a table of their medians.

use std::fmt;

use crate::results::report::median;

/// All turns. The first column is a rate.
pub(crate) struct Turns<const N: usize> {
    columns: [&'static str; N],
    turns: Vec<Turn<N>>,
}

struct Turn<const N: usize> {
    what: String,
    way: &'static str,
    values: [f64; N],
}

/// The way that others are compared with.
pub(crate) const LIMIT: &str = "limit";

impl<const N: usize> Turns<N> {
    pub(crate) fn new(columns: [&'static str; N]) -> Self {
        let turns = Vec::new();
        Self { columns, turns }
    }

    /// Adds a turn, and shows it to whoever looks on.
    pub(crate) fn add(&mut self, what: &str, way: &'static str, values: [f64; N]) {
        let named: Vec<String> = std::iter::zip(self.columns, values)
            .map(|(column, value)| format!("{column} {}", Shown(value)))
            .collect();
        eprintln!("{what}  {way:<12} {}", named.join("  "));
        let what = what.to_owned();
        self.turns.push(Turn { what, way, values });
    }

    fn medians(&self, what: &str, way: &str) -> [f64; N] {
        let turns = self.turns.iter().filter(|turn| turn.what == what && turn.way == way);
        let turns: Vec<[f64; N]> = turns.map(|turn| turn.values).collect();
        std::array::from_fn(|nth| median(turns.iter().map(|values| values[nth]).collect()))
    }
}

/// In Markdown, with each rate in parts of the limit's.
impl<const N: usize> fmt::Display for Turns<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rate, others @ ..] = self.columns.as_slice() else {
            return Ok(());
        };
        writeln!(f, "| what | way | {rate} | of limit | {} |", others.join(" | "))?;
        writeln!(f, "|---|---|---:|---:|{}", "---:|".repeat(others.len()))?;
        let mut shown: Vec<(&str, &str)> = Vec::new();
        for Turn { what, way, .. } in &self.turns {
            if shown.contains(&(what, way)) {
                continue;
            }
            shown.push((what, way));
            let medians = self.medians(what, way);
            let of_limit = medians[0] / self.medians(what, LIMIT)[0];
            write!(f, "| {what} | {way} | {} | {of_limit:.2} |", Shown(medians[0]))?;
            for value in &medians[1..] {
                write!(f, " {} |", Shown(*value))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// A number with as many digits as mean something.
struct Shown(f64);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            value if value.fract() == 0.0 || value >= 100.0 => write!(f, "{value:.0}"),
            value => write!(f, "{value:.2}"),
        }
    }
}
