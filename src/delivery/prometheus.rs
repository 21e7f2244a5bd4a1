//! The summary in the text format of Prometheus (exposition formats, version 0.0.4).

use std::fmt::Write as _;

use super::summary::{AGES, LedgerSummary, TableSummary};
use crate::ledger::LedgerTable;

/// The labels and the value of one sample.
type Sample = (Vec<(&'static str, String)>, f64);

impl LedgerSummary {
    /// The summary as Prometheus text: one line per sample, each metric with its help and type. All metrics are gauges.
    pub fn to_prometheus(&self) -> String {
        let tables = [(LedgerTable::Executions, &self.executions), (LedgerTable::Notifications, &self.notifications)];
        let tables = tables.map(|(table, counts)| (("table", table.name().to_owned()), counts));
        let per_table = |value: fn(&TableSummary) -> Option<f64>| -> Vec<Sample> {
            tables.iter().filter_map(|(table, counts)| Some((vec![table.clone()], value(counts)?))).collect()
        };
        let per_group = |label: &'static str, groups: fn(&TableSummary) -> Vec<(String, u64)>| -> Vec<Sample> {
            let of_table = |(table, counts): &((&'static str, String), &TableSummary)| {
                let table = table.clone();
                let sample = move |(group, count)| (vec![table.clone(), (label, group)], number(count));
                groups(counts).into_iter().map(sample)
            };
            tables.iter().flat_map(of_table).collect()
        };
        let flags = |counts: &TableSummary| {
            let flags = [("YES", counts.acknowledged), ("NO", counts.pending), ("other", counts.other_flags)];
            flags.map(|(flag, count)| (flag.to_owned(), count)).to_vec()
        };
        let ages = |counts: &TableSummary| AGES.map(str::to_owned).into_iter().zip(counts.pending_by_age).collect();
        let outcomes = self.attempts.iter().map(|(word, count)| (vec![("outcome", word.clone())], number(*count)));
        let one = |value: Option<f64>| value.map(|value| (Vec::new(), value)).into_iter().collect::<Vec<Sample>>();
        let mut text = String::new();
        let mut add = |name, help, samples: Vec<Sample>| metric(&mut text, name, help, samples);
        add("rows", "Rows by flag; NO is pending.", per_group("flag", flags));
        add("pending_rows", "Pending rows by status.", per_group("status", |counts| counts.pending_by_status.clone()));
        add("pending_rows_by_age", "Pending rows by how long they have been pending.", per_group("age", ages));
        add(
            "oldest_pending_timestamp_seconds",
            "When the oldest pending row was logged; absent while none is pending.",
            per_table(|counts| counts.oldest_pending.map(seconds)),
        );
        add("parked_rows", "Pending rows that were given up.", per_table(|counts| Some(number(counts.parked))));
        add(
            "retrying_rows",
            "Pending rows that were tried without success and are tried again.",
            per_table(|counts| Some(number(counts.retrying))),
        );
        add(
            "next_retry_timestamp_seconds",
            "When the first of them can be tried again; absent if the next delivery tries it.",
            per_table(|counts| counts.next_retry.map(|at| seconds(at.timestamp_micros()))),
        );
        let help = "Executions that are pending for over an hour and have no notification.";
        add("executions_without_notification", help, one(Some(number(self.unnotified))));
        let help = "Attempts to deliver by outcome, in the time that jobrota_recent_seconds says.";
        add("recent_attempts", help, outcomes.collect());
        let help = "Share of the recent tries that delivered their row; absent if there was none.";
        add("success_ratio", help, one(self.success_rate));
        let recent = (self.made_at - self.since).num_microseconds().map(seconds);
        add("recent_seconds", "The age of the oldest attempts that are counted.", one(recent));
        text
    }
}

#[allow(clippy::cast_precision_loss, reason = "the format has floating point numbers only")]
fn number(count: u64) -> f64 {
    count as f64
}

#[allow(clippy::cast_precision_loss, reason = "exact to the microsecond until the year 2255")]
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

/// Adds a metric, if it has samples.
fn metric(text: &mut String, name: &str, help: &str, samples: Vec<Sample>) {
    if samples.is_empty() {
        return;
    }
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP jobrota_{name} {help}\n# TYPE jobrota_{name} gauge");
    for (labels, value) in samples {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(text, "jobrota_{name}{labels} {value}");
    }
}

/// Escapes backslashes, quotation marks and line feeds in a label's value.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};

    use super::*;

    fn summary() -> LedgerSummary {
        let made_at = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        LedgerSummary {
            root: "ledger".to_owned(),
            made_at,
            source: LedgerTable::Notifications,
            executions: TableSummary::default(),
            notifications: TableSummary {
                rows: 5,
                pending: 2,
                acknowledged: 3,
                pending_by_status: vec![("a\\b\"c\nd".to_owned(), 2)],
                pending_by_age: [1, 0, 0, 1],
                oldest_pending: Some(1_789_000_000_500_000),
                ..TableSummary::default()
            },
            unnotified: 0,
            since: made_at - TimeDelta::hours(24),
            attempts: vec![("delivered".to_owned(), 3)],
            success_rate: Some(0.75),
        }
    }

    #[test]
    fn each_sample_is_a_line_and_labels_are_escaped() {
        let text = summary().to_prometheus();
        for line in [
            "# HELP jobrota_rows Rows by flag; NO is pending.",
            "# TYPE jobrota_rows gauge",
            "jobrota_rows{table=\"autosys_job_log\",flag=\"NO\"} 0",
            "jobrota_rows{table=\"job_notifications\",flag=\"YES\"} 3",
            "jobrota_pending_rows{table=\"job_notifications\",status=\"a\\\\b\\\"c\\nd\"} 2",
            "jobrota_pending_rows_by_age{table=\"job_notifications\",age=\"over_24h\"} 1",
            "jobrota_oldest_pending_timestamp_seconds{table=\"job_notifications\"} 1789000000.5",
            "jobrota_executions_without_notification 0",
            "jobrota_success_ratio 0.75",
            "jobrota_recent_seconds 86400",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn what_is_not_known_is_left_out_with_its_help() {
        let none = LedgerSummary { attempts: Vec::new(), success_rate: None, ..summary() };
        let text = none.to_prometheus();
        for name in ["success_ratio", "recent_attempts", "next_retry"] {
            assert!(!text.contains(name), "{text}");
        }
    }
}
