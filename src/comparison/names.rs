//! Names of jobs that no other job has, and that the Workload Orchestrator keeps as they are.

/// What all names of one run end with: its beginning in Unix seconds and three random letters, as two runs may begin in
/// one second. Nine letters and digits.
pub fn run_tag(unix: i64) -> String {
    let letters: String = (0..3).map(|_| char::from(rand::random_range(b'a'..=b'z'))).collect();
    format!("{}{letters}", base36(unix.unsigned_abs()))
}

/// A name of `[a-z0-9]` only: job, arm, round, sequence number and the run's tag, e.g. `cmpooledseq1x12t5k2f9qzk`.
///
/// SAS: the orchestrator lower-cases names, drops `_` and appends `-<uuid>`; 71 characters in all were seen to pass uncut,
/// so names of usual length stay below that.
pub fn unique_name(job: &str, arm_short: &str, round: u32, sequence: usize, tag: &str) -> String {
    let mut kept: String =
        job.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).take(20).collect();
    if !kept.starts_with(|c: char| c.is_ascii_lowercase()) {
        kept.insert_str(0, "job");
    }
    format!("{kept}{arm_short}{round}x{sequence}{tag}")
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from(b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize]));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_by_the_orchestrator() {
        assert_eq!(base36(1_757_479_582), "t2cvxa");
        assert_eq!(unique_name("cm_pooled", "seq", 1, 12, "t2cvxaqzk"), "cmpooledseq1x12t2cvxaqzk");
        assert_eq!(unique_name("3D-Übersicht", "async", 2, 11, "t"), "job3dbersichtasync2x11t");
        assert_eq!(unique_name("___", "seq", 1, 1, "t"), "jobseq1x1t");
        let long = unique_name(&"x".repeat(500), "asyncautos", 999, 99_999, &run_tag(1_757_479_582));
        assert!(long.len() + 37 <= 100, "{long}");
        assert!(unique_name("cm_pooled", "asyncauto", 1, 54, &run_tag(1_757_479_582)).len() + 37 <= 71);
        assert_eq!(run_tag(1_757_479_582).len(), 9);
    }
}
