//! The process that delivers: how tables name it, and whether it has ended.

use siphasher::sip::SipHasher13;

use crate::runtime::{environment, this_process};

/// A new name for an owner in this process: host:pid/id.
pub(super) fn new_owner() -> String {
    format!("{}/{}", this_process(), &environment().uuid().simple().to_string()[..8])
}

/// In which process namespace, since which start of the machine, a pid of this process means something.
pub(super) fn this_machine() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let hash = SipHasher13::new().hash(format!("{boot} {}", namespace.display()).as_bytes());
    Some(format!("{:08x}", hash & 0xffff_ffff))
}

/// Whether `process`, a name of [`this_process`] on `machine`, has certainly ended.
pub(super) fn has_ended(process: &str, machine: &str) -> bool {
    let pid_here = || {
        let (_, pid) = process.rsplit_once(':').filter(|_| this_machine().is_some_and(|ours| ours == machine))?;
        rustix::process::Pid::from_raw(pid.parse().ok()?)
    };
    pid_here().is_some_and(|pid| {
        rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH) || is_zombie(pid.as_raw_pid())
    })
}

/// Whether a process has ended, but its parent has not asked for its exit code yet. Its pid is not free, and takes signals. If only
/// its first thread has ended, the others are still listed.
fn is_zombie(pid: i32) -> bool {
    // The directory can be of another process namespace, where the pid is another process.
    let ours =
        std::fs::read_link("/proc/self").is_ok_and(|of| *of.to_string_lossy() == *std::process::id().to_string());
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok().filter(|_| ours);
    let is_dead = state.is_some_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('Z')));
    is_dead && std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() == 1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The name of a process on this machine that has ended.
    pub(crate) fn ended_process() -> String {
        let ended = std::process::Command::new("true").spawn().unwrap();
        let pid = ended.id();
        ended.wait_with_output().unwrap();
        this_process().replacen(&format!(":{}", std::process::id()), &format!(":{pid}"), 1)
    }

    #[test]
    fn a_process_has_ended_before_its_parent_asks_for_its_exit_code() {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        let machine = this_machine().unwrap();
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let name = format!("host:{}", child.id());
        assert!(!has_ended(&name, &machine));
        child.kill().unwrap();
        let pid = Pid::from_child(&child);
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        assert!(has_ended(&name, &machine));
        child.wait().unwrap();
        assert!(has_ended(&name, &machine));
    }

    #[test]
    fn a_process_has_ended_only_if_that_is_certain() {
        let machine = this_machine().unwrap();
        assert!(!has_ended(&this_process(), &machine));
        assert!(has_ended(&ended_process(), &machine));
        assert!(!has_ended(&ended_process(), "00000000"));
        for unclear in ["", "elsewhere", "elsewhere:", "host:x", "host:0", "host:-1"] {
            assert!(!has_ended(unclear, &machine), "{unclear}");
        }
    }
}
