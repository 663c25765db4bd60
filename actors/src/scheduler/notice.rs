//! Whether anybody waits for a place, as the engine is told: at most once a step. Pure.
//!
//! The engine looks at it at the end of a step only. During a long one thousands of requests may come and go, and each of
//! them may turn it around; told every time, the engine's bounded queue of commands would be full of it.

use crate::engine::protocol::Waiting;

/// What is the case, and what the engine knows.
#[derive(Debug)]
pub(super) struct Notice {
    waiting: Waiting,
    told: Waiting,
    command: Command,
}

/// What became of the last command about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    /// A step has ended since.
    TakenUp,
    UnderWay,
}

/// Whether the engine is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the engine does not know"]
pub(super) enum News {
    /// Now.
    ToTell,
    /// It knows, or is told later.
    None,
}

impl Default for Notice {
    /// Nobody waits, and the engine takes that for granted.
    fn default() -> Self {
        Self { waiting: Waiting::Nobody, told: Waiting::Nobody, command: Command::TakenUp }
    }
}

impl Notice {
    /// Somebody waits, or nobody does any more.
    pub(super) fn on_change(&mut self, waiting: Waiting) -> News {
        self.waiting = waiting;
        self.news()
    }

    /// The engine has ended a step.
    pub(super) fn on_step(&mut self) -> News {
        self.command = Command::TakenUp;
        self.news()
    }

    /// What to tell the engine, which is done by this.
    pub(super) fn tell(&mut self) -> Waiting {
        if self.told != self.waiting {
            (self.told, self.command) = (self.waiting, Command::UnderWay);
        }
        self.told
    }

    fn news(&self) -> News {
        if self.told != self.waiting && self.command == Command::TakenUp { News::ToTell } else { News::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_changes_during_a_step_are_told_once_and_the_last_one_after_it() {
        let mut notice = Notice::default();
        let mut told = Vec::new();
        for change in 0..1001 {
            let waiting = if change % 2 == 0 { Waiting::Somebody } else { Waiting::Nobody };
            if notice.on_change(waiting) == News::ToTell {
                told.push(notice.tell());
            }
        }
        assert_eq!(told, [Waiting::Somebody]);
        assert_eq!(notice.on_step(), News::None, "it knows");
        assert_eq!(notice.on_change(Waiting::Nobody), News::ToTell);
        assert_eq!(notice.tell(), Waiting::Nobody);
        assert_eq!(notice.on_change(Waiting::Somebody), News::None);
        assert_eq!(notice.on_step(), News::ToTell);
        assert_eq!(notice.tell(), Waiting::Somebody);
    }
}
