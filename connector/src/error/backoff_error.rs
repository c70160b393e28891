//! What is wrong with a rule of backing off.

use std::time::Duration;

/// What is wrong with a [`Backoff`](crate::Backoff).
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BackoffError {
    /// The first interval is zero.
    #[error("its initial interval is zero; expected at least one second")]
    ZeroInitial,
    /// The exponent would shrink intervals, or is not a number.
    #[error("its exponent is {0}; expected a finite number of at least 1")]
    Exponent(f64),
    /// The cap lies below the first interval.
    #[error("its maximum {maximum:?} is below its initial interval {initial:?}")]
    MaximumBelowInitial {
        /// The cap.
        maximum: Duration,
        /// The first interval.
        initial: Duration,
    },
    /// The jitter is not a share.
    #[error("its jitter is {0}; expected a number from 0 to 1")]
    Jitter(f64),
    /// No attempt would be allowed.
    #[error("it allows zero attempts; expected at least one")]
    ZeroAttempts,
}
