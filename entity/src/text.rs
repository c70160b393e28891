//! Closed sets of words that are stored as text and survive words of a newer component.

/// Declares an enum that is stored as text. A word that this build does not know is read as `Unknown` and written back unchanged, so one new
/// word does not make every older reader fail.
macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, sea_orm::DeriveValueType)]
        #[sea_orm(value_type = "String", column_type = "Text")]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
            /// A word that a newer component wrote.
            Unknown(String),
        }

        impl $name {
            /// The word as stored.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Unknown(word) => word,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = std::convert::Infallible;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                Ok(match word {
                    $($word => Self::$variant,)+
                    other => Self::Unknown(other.to_owned()),
                })
            }
        }

        // SeaORM asks this of every column of a primary key.
        impl sea_orm::TryFromU64 for $name {
            fn try_from_u64(_: u64) -> Result<Self, sea_orm::DbErr> {
                Err(sea_orm::DbErr::ConvertFromU64(stringify!($name)))
            }
        }
    };
}

pub(crate) use text_enum;

#[cfg(test)]
mod tests {
    use crate::work_history::Event;

    #[test]
    fn an_unknown_word_is_kept_as_it_was() {
        let event: Event = "paused".parse().expect("parsing cannot fail");
        assert_eq!(event, Event::Unknown("paused".to_owned()));
        assert_eq!(event.to_string(), "paused");
        assert_eq!("finished".parse(), Ok(Event::Finished));
    }
}
