//! How a transaction failed: surely, or perhaps not.

use sea_orm::DbErr;

use crate::error::Error;

/// How a transaction failed.
pub(crate) enum TxError<T, E> {
    /// Nothing of it is in the database.
    NotCommitted(E),
    /// COMMIT was sent and not answered. The body's value is kept for the case that it did take effect.
    Unknown { value: T, source: Option<DbErr> },
}

impl<T, E> TxError<T, E> {
    /// For transactions whose value says nothing when their outcome is not known.
    pub(crate) fn without_value(self) -> TxError<(), E> {
        match self {
            Self::NotCommitted(error) => TxError::NotCommitted(error),
            Self::Unknown { source, .. } => TxError::Unknown { value: (), source },
        }
    }

    /// For transactions that read: what was read is true whether or not the one that read it committed.
    pub(crate) fn or_read(self) -> Result<T, E> {
        match self {
            Self::NotCommitted(error) => Err(error),
            Self::Unknown { value, .. } => Ok(value),
        }
    }
}

impl TxError<(), Error> {
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

impl<T, E: From<Error>> TxError<T, E> {
    /// For transactions that cannot be asked for again.
    pub(crate) fn into_error(self, doing: &'static str) -> E {
        match self {
            Self::NotCommitted(error) => error,
            Self::Unknown { source, .. } => Error::CommitUnknown { doing, source }.into(),
        }
    }
}
