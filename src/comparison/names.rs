//! Unique names of jobs, in a form that the Workload Orchestrator does not change.

use super::journal::JobKey;

/// The end of all names of one run: its beginning in Unix seconds and three random letters, because two runs can begin in
/// the same second. Nine letters and digits.
pub fn run_tag(unix: i64) -> String {
    let letters: String = (0..3).map(|_| char::from(rand::random_range(b'a'..=b'z'))).collect();
    format!("{}{letters}", base36(unix.unsigned_abs()))
}

/// A name of `[a-z0-9]` that no other job of the run has: job, arm with its number (from 0), round, sequence number and the
/// tag of the run, such as `cmpooledseqa0r1x12t5k2f9qzk`. Read from the right it is unambiguous for all names of arms.
///
/// SAS: the orchestrator converts names to lower case, removes `_` and appends `-<uuid>`. Names of 71 characters in all
/// passed uncut, so names of usual length stay below that.
pub fn unique_name(job: &str, arm_short: &str, key: JobKey, tag: &str) -> String {
    let letters = job.chars().filter(char::is_ascii_alphanumeric);
    let mut short: String = letters.take(20).collect::<String>().to_ascii_lowercase();
    if !short.starts_with(|c: char| c.is_ascii_lowercase()) {
        short.insert_str(0, "job");
    }
    let JobKey { arm, round, sequence } = key;
    format!("{short}{arm_short}a{arm}r{round}x{sequence}{tag}")
}

fn base36(number: u64) -> String {
    let rests = std::iter::successors(Some(number), |rest| (*rest >= 36).then_some(rest / 36));
    let digits: Vec<char> = rests.filter_map(|rest| char::from_digit((rest % 36) as u32, 36)).collect();
    digits.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::arms::{Arm, SubmissionMode};

    #[test]
    fn names_pass_the_orchestrator_unchanged() {
        assert_eq!(base36(1_757_479_582), "t2cvxa");
        let key = |arm, round, sequence| JobKey { arm, round, sequence };
        assert_eq!(unique_name("cm_pooled", "seq", key(0, 1, 12), "t2cvxaqzk"), "cmpooledseqa0r1x12t2cvxaqzk");
        assert_eq!(unique_name("3D-Übersicht", "async", key(1, 2, 11), "t"), "job3dbersichtasynca1r2x11t");
        assert_eq!(unique_name("___", "seq", key(0, 1, 1), "t"), "jobseqa0r1x1t");
        let long = unique_name(&"x".repeat(500), "asyncautos", key(99, 999, 99_999), &run_tag(1_757_479_582));
        assert!(long.len() + 37 <= 100, "{long}");
        let usual = unique_name("cm_pooled", "asyncauto", key(2, 1, 54), &run_tag(1_757_479_582));
        assert!(usual.len() + 37 <= 71, "{usual}");
        assert_eq!(run_tag(1_757_479_582).len(), 9);
    }

    #[test]
    fn no_two_jobs_of_a_run_have_one_name() {
        // A sweep of concurrencies, whose arms begin alike, and names that could run into the numbers after them.
        let arms = ["autoscaling_5", "autoscaling_10", "window", "window1", "a", "a1", "a1r1", "ar", "x", "1"];
        let mut names = std::collections::HashSet::new();
        for (arm, name) in arms.iter().enumerate() {
            let short = Arm::new(name, "context", SubmissionMode::All, 1).unwrap().short();
            for (round, sequence, job) in
                (1..=12).flat_map(|round| (1..=12).map(move |at| (round, at, ["a", "b"][at % 2])))
            {
                let name = unique_name(job, &short, JobKey { arm, round, sequence }, "t2cvxaqzk");
                assert!(names.insert(name.clone()), "{name}");
            }
        }
    }
}
