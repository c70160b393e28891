//! What providers said of machines is left out, where nobody asked for it.

use serde_json::Value;

use crate::facts::attention::{Attention, Failures, Thing};
use crate::facts::name::Name;

/// The columns of tags that answers have.
const TAGS: [&str; 5] = ["provider", "provider_id", "address", "location", "reservation"];

/// Takes tags out of a document, however deep.
pub(super) fn strip(document: &mut Value) {
    match document {
        Value::Object(members) => {
            for tag in TAGS {
                members.remove(tag);
            }
            // Of a machine that is gone, the act keeps what it was called.
            if members.get("verb").is_some_and(|verb| verb == "remove-machine") {
                members.remove("detail");
            }
            members.values_mut().for_each(strip);
        }
        Value::Array(values) => values.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Machines go by their own ids.
pub(super) fn unname(found: &mut Attention) {
    for thing in &mut found.things {
        match thing {
            Thing::StuckWork(work) | Thing::LongWork(work) => work.provider_id = None,
            Thing::Parked(Failures { name, .. })
            | Thing::FailsOften(Failures { name, .. })
            | Thing::HeldForLong { name, .. } => *name = by_id(name),
            Thing::SilentSession(_) | Thing::Unrun { .. } | Thing::PausedForLong(_) => {}
        }
    }
}

fn by_id(name: &Name) -> Name {
    Name {
        shown: name.pasted.clone(),
        pasted: name.pasted.clone(),
    }
}
