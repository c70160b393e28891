//! What names a claim, and the rule that it was made by.

use std::fmt;

use bmdb_entity::{Fence, MachineId, WorkId};
use sea_orm::Value;

use crate::error::Error;

/// What names a rule: the process, and a digest of the predicate with its values. Hints are a rule's, for what one rule finds another may refuse. Written
/// `agent-start@0123456789abcdef`: `@` is in no process's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RuleKey {
    pub(crate) process: &'static str,
    pub(crate) digest: u64,
}

impl fmt::Display for RuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.process, self.digest())
    }
}

impl RuleKey {
    /// As it is stored: 16 hexadecimal digits.
    pub(crate) fn digest(&self) -> String {
        format!("{:016x}", self.digest)
    }
}

impl From<RuleKey> for Value {
    fn from(key: RuleKey) -> Self {
        key.to_string().into()
    }
}

/// What names one claim in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkKey {
    pub(crate) machine: MachineId,
    pub(crate) slot: &'static str,
    pub(crate) rule: RuleKey,
    pub(crate) work: WorkId,
    pub(crate) fence: Fence,
}

impl WorkKey {
    pub(crate) fn process(&self) -> &'static str {
        self.rule.process
    }

    pub(crate) fn lost(&self) -> Error {
        Error::WorkLost {
            machine: self.machine,
            slot: self.slot.to_owned(),
            fence: self.fence,
        }
    }
}
