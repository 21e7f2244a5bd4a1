//! A process group for the program and its child processes, so that a time limit ends all of them. Ctrl-C in a terminal does
//! not reach the group, so that a started program ends by itself.

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

/// The group of a program. It is killed on drop, which must happen before the program was waited for.
pub(super) struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    /// Makes the program of `command` the leader of a group.
    pub(super) fn lead(command: &mut Command) {
        command.process_group(0);
    }

    /// The group of `child`, which was started as a leader.
    pub(super) fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    /// Leaves the group alone, because the program has ended: another program may have the number of the group by now.
    pub(super) fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            // An error means that no process is left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
