//! Mutexes that only this process's own code holds.

use std::sync::{Mutex, MutexGuard};

/// What it guards. Poison says that something has panicked in the middle of a change, so that nobody knows what is true any more.
///
/// # Panics
/// Panics if something has.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("BUG: nothing panics while it holds this lock")
}
