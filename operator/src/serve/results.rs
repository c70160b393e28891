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

    /// Answers it once: told again later, it would be told of another time.
    pub(super) fn take(&self, name: &str) -> Option<String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = all.iter().position(|(known, _)| known == name)?;
        all.remove(place).map(|(_, text)| text)
    }
}
