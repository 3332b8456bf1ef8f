//! Panics of tasks, which a runtime keeps to itself: a world does not end well where one has.

use std::cell::Cell;
use std::sync::Once;
use std::{panic, thread};

thread_local! {
    static SEEN: Cell<u64> = const { Cell::new(0) };
}

/// Panics on this thread from its making on, in whatever task. A panic that nobody is told of when it is thrown
/// ([`panic::resume_unwind`]) is none: so a simulation ends a task.
#[derive(Debug)]
pub(crate) struct PanicWatch {
    seen: u64,
}

impl PanicWatch {
    /// Begins to count.
    pub(crate) fn begin() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                SEEN.set(SEEN.get() + 1);
                before(info);
            }));
        });
        Self { seen: SEEN.get() }
    }

    fn count(&self) -> u64 {
        SEEN.get() - self.seen
    }
}

/// How many there were on this thread so far.
pub(crate) fn seen() -> u64 {
    SEEN.get()
}

/// Forgets those since there were so many: of what was already to end, and found a lock poisoned under which it was struck.
pub(crate) fn forget_since(seen: u64) {
    SEEN.set(SEEN.get().min(seen));
}

impl Drop for PanicWatch {
    /// # Panics
    /// If something has panicked, unless it is what drops this.
    fn drop(&mut self) {
        assert!(thread::panicking() || self.count() == 0, "{} tasks of this world panicked", self.count());
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn task(work: impl FnOnce() + Send + 'static) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { drop(tokio::spawn(async { work() }).await) });
    }

    #[test]
    fn a_panic_of_a_task_is_one_of_its_world() {
        let watch = PanicWatch::begin();
        task(|| panic::resume_unwind(Box::new("a simulated end")));
        assert_eq!(watch.count(), 0);
        task(|| panic!("on purpose"));
        let before = seen();
        task(|| panic!("on purpose as well"));
        assert_eq!(watch.count(), 2);
        forget_since(before);
        assert_eq!(watch.count(), 1);
        assert!(catch_unwind(AssertUnwindSafe(|| drop(watch))).is_err());
    }
}
