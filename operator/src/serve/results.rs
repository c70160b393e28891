//! What acts have answered: told once more on the page that they lead to, and never taken from an address, where anybody could write it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

/// Older ones are forgotten: they were read.
const MOST: usize = 200;

/// The last answers.
#[derive(Default)]
pub(super) struct Results(Mutex<VecDeque<(String, String)>>);

impl Results {
    /// Keeps an answer, and gives the name under which it is found.
    pub(super) fn keep(&self, text: String) -> String {
        let name = Uuid::new_v4().to_string();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == MOST {
            all.pop_front();
        }
        all.push_back((name.clone(), text));
        name
    }

    pub(super) fn find(&self, name: &str) -> Option<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .find(|(known, _)| known == name)
            .map(|(_, text)| text.clone())
    }
}
