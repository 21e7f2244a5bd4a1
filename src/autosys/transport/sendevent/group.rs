//! The program's process group: the program and all that it starts, so that a time limit ends all of it. Ctrl-C in a
//! terminal does not reach a group of its own: what is under way then ends in order.

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

/// Kills the group when it is dropped, unless the program has ended before.
pub(super) struct Group(Option<Pid>);

impl Group {
    /// Lets the program of `command` lead a group of its own.
    pub(super) fn lead(command: &mut Command) {
        command.process_group(0);
    }

    /// The group that `child`, started so, leads.
    pub(super) fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    /// The program has ended: what it left behind in the background is its own affair, and the group's number may be
    /// somebody else's by now.
    pub(super) fn spare(mut self) {
        self.0 = None;
    }

    /// Kills the program, which must not have been waited for, and all that it started.
    pub(super) fn kill(self) {}
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            // An error means that nobody is left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
