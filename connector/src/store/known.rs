//! The rules that a component has registered: each is written and checked once, however many ask for it, one by one or at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use crate::error::Error;
use crate::rules::work_key::RuleKey;
use crate::runtime::lock::locked;
use crate::store::rule::Rule;

/// A registration under way, for all who wait for it: what came of it, once it is there.
pub(crate) type Registering = watch::Receiver<Option<Result<Arc<Rule>, Error>>>;

/// How far a component is with a rule.
pub(crate) enum Registration {
    Registered(Arc<Rule>),
    UnderWay(Registering),
}

/// The rules that a component knows, all of its sessions together.
#[derive(Default)]
pub(crate) struct Known(Mutex<HashMap<RuleKey, Registration>>);

/// So many are kept that nobody has a handle of: for those who register with each request.
const KEPT: usize = 64;

impl Known {
    pub(crate) fn rules(&self) -> MutexGuard<'_, HashMap<RuleKey, Registration>> {
        locked(&self.0)
    }

    /// Keeps a rule, and forgets those without a handle when there are many: a process may bind something that changes.
    pub(crate) fn keep(&self, rule: &Arc<Rule>) {
        let mut rules = self.rules();
        if rules.len() >= KEPT {
            rules.retain(|_, known| !matches!(known, Registration::Registered(rule) if Arc::strong_count(rule) == 1));
        }
        rules.insert(rule.key, Registration::Registered(Arc::clone(rule)));
    }
}
