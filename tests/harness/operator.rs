//! The person of the tests who acts on machines, works and sessions.

use bmdb::{Bmdb, Operator};

/// Ada, for a test.
///
/// # Panics
/// Never: she has a name and a reason.
#[must_use]
pub fn ada(bmdb: &Bmdb) -> Operator {
    bmdb.operator("ada", "a test").expect("she has a name and a reason")
}
