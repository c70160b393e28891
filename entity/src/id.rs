//! The typed ids: a session's id cannot be passed where a machine's is due.

use sea_orm::DeriveValueType;
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, DeriveValueType)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new random id (UUID version 4: ids that rise with time would make one hot range on CockroachDB).
            #[must_use]
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        // SeaORM asks this of every primary key; no database hands out UUIDs as numbers.
        impl sea_orm::TryFromU64 for $name {
            fn try_from_u64(_: u64) -> Result<Self, sea_orm::DbErr> {
                Err(sea_orm::DbErr::ConvertFromU64(stringify!($name)))
            }
        }
    };
}

uuid_id! {
    /// Names a machine, for ever: history keeps it after the machine is gone.
    MachineId
}
uuid_id! {
    /// Names one incarnation of a component. A restart is another session.
    SessionId
}
uuid_id! {
    /// Names one claim. The client makes it before its first attempt, so that a claim with an unknown outcome can be asked for again.
    WorkId
}

/// The number of a claim on a machine: it rises strictly, whatever the slot, and never falls. It is the time of the claim in milliseconds by the
/// database's clock, or more if that would not be above the fence before it; so it also rises above those of a history that a restored backup or a
/// fail-over has lost, as long as the clock did not go back meanwhile.
///
/// Send it along with every effect outside the database: a resource that remembers the highest fence it has seen can refuse a holder whose
/// lock has passed to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, DeriveValueType)]
pub struct Fence(pub i64);

impl std::fmt::Display for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
