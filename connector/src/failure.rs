//! How a transaction failed: surely, or perhaps not.

use sea_orm::DbErr;

use crate::error::Error;

/// How a transaction failed.
pub(crate) enum Failure<T, E> {
    /// Nothing of it is in the database.
    NotCommitted(E),
    /// COMMIT was sent and not answered. The body's value is kept for the case that it did take effect.
    Unknown { value: T, source: Option<DbErr> },
}

impl<T, E> Failure<T, E> {
    /// For transactions whose value says nothing when their outcome is not known.
    pub(crate) fn without_value(self) -> Failure<(), E> {
        match self {
            Self::NotCommitted(error) => Failure::NotCommitted(error),
            Self::Unknown { source, .. } => Failure::Unknown { value: (), source },
        }
    }
}

impl Failure<(), Error> {
    pub(crate) const UNKNOWN: Self = Self::Unknown {
        value: (),
        source: None,
    };

    /// The failure of one statement, for each of those whom it was to serve.
    pub(crate) fn of_each(self, many: usize) -> impl Iterator<Item = Self> {
        let mut source = None;
        let error = match self {
            Self::NotCommitted(error) => Some(error),
            Self::Unknown { source: known, .. } => {
                source = known;
                None
            }
        };
        std::iter::repeat_with(move || match &error {
            Some(error) => Self::NotCommitted(error.clone()),
            None => Self::Unknown {
                value: (),
                source: source.take(),
            },
        })
        .take(many)
    }
}

impl<T, E: From<Error>> Failure<T, E> {
    /// For transactions that cannot be asked for again.
    pub(crate) fn into_error(self, doing: &'static str) -> E {
        match self {
            Self::NotCommitted(error) => error,
            Self::Unknown { source, .. } => Error::CommitUnknown { doing, source }.into(),
        }
    }
}
