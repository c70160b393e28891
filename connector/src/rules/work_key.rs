//! What names a claim.

use bmdb_entity::{Fence, MachineId, WorkId};

use crate::error::Error;

/// What names one claim in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkKey {
    pub(crate) machine: MachineId,
    pub(crate) slot: &'static str,
    pub(crate) process: &'static str,
    pub(crate) work: WorkId,
    pub(crate) fence: Fence,
}

impl WorkKey {
    pub(crate) fn lost(&self) -> Error {
        Error::WorkLost {
            machine: self.machine,
            slot: self.slot.to_owned(),
            fence: self.fence,
        }
    }
}
