//! Where the machines of a process stand, as a bar and as numbers.

use maud::{Markup, html};

use crate::answer::words::grouped;
use crate::facts::process::Row;
use crate::serve::parts::chip::icon;

/// A part that is smaller is drawn so wide, or nobody would see it.
const LEAST: f64 = 1.6;

/// How many machines stand how to a process.
pub(in crate::serve) struct Shares {
    /// `None`: nobody could ask the rule.
    pub(in crate::serve) eligible: Option<u64>,
    pub(in crate::serve) in_work: u64,
    pub(in crate::serve) backing_off: u64,
    pub(in crate::serve) parked: u64,
    pub(in crate::serve) held: u64,
}

/// A state that is counted: its shape, and its word.
pub(in crate::serve) const STATES: [(&str, &str); 5] = [
    ("ready", "eligible"),
    ("work", "in work"),
    ("waits", "backing off"),
    ("parked", "parked"),
    ("held", "held"),
];

impl Shares {
    pub(in crate::serve) fn of(row: &Row) -> Self {
        let status = &row.status;
        Self {
            eligible: row.eligible(),
            in_work: status.in_work,
            backing_off: status.backing_off,
            parked: status.parked,
            held: status.held,
        }
    }

    /// In the order of [`STATES`].
    pub(in crate::serve) fn numbers(&self) -> [Option<u64>; 5] {
        let known = [self.in_work, self.backing_off, self.parked, self.held].map(Some);
        [self.eligible, known[0], known[1], known[2], known[3]]
    }

    /// All of them are the bar's length, never the fleet.
    pub(in crate::serve) fn bar(&self) -> Markup {
        let numbers = self.numbers().map(Option::unwrap_or_default);
        let all: u64 = numbers.iter().sum();
        let said = STATES.iter().zip(self.numbers());
        let said = said.map(|((_, word), number)| match number {
            Some(number) => format!("{} {word}", grouped(number)),
            None => format!("{word} not known"),
        });
        let said = said.collect::<Vec<_>>().join(", ");
        let mut x = 0.0;
        let widths = widths(numbers);
        let pieces = STATES
            .iter()
            .zip(widths)
            .filter(|(_, width)| *width > 0.0)
            .map(|((shape, _), width)| {
                let piece = (shape, x, width);
                x += width;
                piece
            });
        let pieces: Vec<_> = pieces.collect();
        html! {
            svg.bar role="img" aria-label=(said) {
                @if all == 0 { rect.fill-none x="0" y="1" width="100%" height="12" rx="2" {} }
                @for (shape, x, width) in &pieces {
                    rect.(format!("fill-{shape}")) x=(format!("{x:.2}%")) y="1" width=(format!("{:.2}%", (width - 0.4).max(0.6))) height="12" rx="1.5" {}
                }
            }
        }
    }

    /// The numbers, each with its shape and its word.
    pub(in crate::serve) fn legend(&self) -> Markup {
        html! {
            ul.legend {
                @for ((shape, word), number) in STATES.iter().zip(self.numbers()) {
                    li.none[number == Some(0)] { span.(format!("tint-{shape}")) { (icon(shape)) } b { (shown(number)) } " " (word) }
                }
            }
        }
    }
}

/// A count, or that it is not known.
pub(in crate::serve) fn shown(number: Option<u64>) -> String {
    number.map_or_else(|| "?".to_owned(), grouped)
}

/// Percents that are together a hundred, and none too small to be seen.
#[expect(clippy::cast_precision_loss, reason = "a width in pixels needs no more than 52 bits")]
fn widths(numbers: [u64; 5]) -> [f64; 5] {
    let all = numbers.iter().sum::<u64>() as f64;
    if all == 0.0 {
        return [0.0; 5];
    }
    let raised = numbers.map(|number| match number {
        0 => 0.0,
        number => (number as f64 * 100.0 / all).max(LEAST),
    });
    let sum: f64 = raised.iter().sum();
    raised.map(|width| width * 100.0 / sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_part_is_seen_and_the_bar_stays_whole() {
        let widths = widths([1_000_000, 1, 0, 0, 0]);
        assert!(widths[1] > 1.5 && widths[2] == 0.0, "{widths:?}");
        assert!((widths.iter().sum::<f64>() - 100.0).abs() < 0.001, "{widths:?}");
        assert_eq!(super::widths([0; 5]), [0.0; 5]);
    }
}
