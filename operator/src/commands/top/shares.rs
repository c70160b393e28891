//! Where the machines of a process stand, as a bar of letters.

use crate::facts::process::Row;

/// Eligible, in work, backing off, parked, held: as the columns beside it.
const FILLS: [&str; 5] = ["░", "▓", ":", "■", "/"];
const PLAIN: [&str; 5] = ["o", ">", "~", "#", "/"];

/// A bar so wide. It is as long as the machines that stand to the process at all, never as the fleet; what is there is seen, however small its share.
pub(super) fn shares(row: &Row, wide: usize, ascii: bool) -> String {
    let status = &row.status;
    let numbers = [
        row.eligible().unwrap_or_default(),
        status.in_work,
        status.backing_off,
        status.parked,
        status.held,
    ];
    let fills = if ascii { PLAIN } else { FILLS };
    let letters = std::iter::zip(fills, widths(numbers, wide));
    letters.map(|(fill, wide)| fill.repeat(wide)).collect()
}

fn widths(numbers: [u64; 5], wide: usize) -> [usize; 5] {
    let all: u64 = numbers.iter().sum();
    if all == 0 || wide < numbers.len() {
        return [0; 5];
    }
    let share = |number: u64| (u128::from(number) * wide as u128 / u128::from(all)) as usize;
    let mut widths = numbers.map(|number| share(number).max(usize::from(number > 0)));
    // Rounding leaves some, and the smallest have taken some: the widest part has the difference.
    let widest = (0..5).max_by_key(|place| widths[*place]).unwrap_or_default();
    let others: usize = widths.iter().sum::<usize>() - widths[widest];
    widths[widest] = wide - others;
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_and_hides_nothing() {
        assert_eq!(widths([0; 5], 20), [0; 5]);
        assert_eq!(widths([1, 0, 0, 0, 0], 20), [20, 0, 0, 0, 0]);
        assert_eq!(widths([1_000_000, 1, 1, 1, 1], 20), [16, 1, 1, 1, 1]);
        assert_eq!(widths([1, 1, 1, 1, 1], 8), [1, 1, 1, 1, 4]);
        assert_eq!(widths([u64::MAX / 8, u64::MAX / 8, 0, 0, 0], 10), [5, 5, 0, 0, 0]);
    }
}
