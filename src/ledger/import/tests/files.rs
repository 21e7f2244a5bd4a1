//! The records of one file.

use super::*;

#[test]
fn one_object_a_list_json_lines_and_mixtures_of_them() {
    let (a, b, c) = (record("A", 1), record("B", 2), record("C", 3));
    assert_eq!(jobs(&a), ["A"]);
    assert_eq!(jobs(format!("\n\n [{a},\n{b}] \n")), ["A", "B"]);
    assert_eq!(jobs(format!("{a}\n{b}\n")), ["A", "B"]);
    assert_eq!(jobs(format!("{a}\r\n\r\n{b}\r\n")), ["A", "B"]);
    assert_eq!(jobs(format!("{a}{b}[{c}]")), ["A", "B", "C"]);
    assert_eq!(jobs(format!("[{a}]\n[{b}, {c}]\n")), ["A", "B", "C"]);
    assert_eq!(jobs(a.replace(',', ",\n  ").replace('{', "{\n")), ["A"]);
    assert_eq!(jobs("[]"), [""; 0]);
    assert_eq!(jobs(""), [""; 0]);
}

#[test]
fn what_windows_tools_write() {
    let a = record("Ä", 1);
    let utf16 = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
        std::iter::once(0xFEFF).chain(a.encode_utf16()).flat_map(order).collect()
    };
    assert_eq!(jobs([b"\xEF\xBB\xBF", a.as_bytes()].concat()), ["Ä"]);
    assert_eq!(jobs(utf16(u16::to_le_bytes)), ["Ä"]);
    assert_eq!(jobs(utf16(u16::to_be_bytes)), ["Ä"]);
    let cut = utf16(u16::to_le_bytes);
    assert!(fault(&cut[..cut.len() - 1]).contains("UTF-16"));
    assert!(fault(b"\xFF\xFE\x00\xD8").contains("UTF-16"));
    let latin1: Vec<u8> = a.chars().map(|c| c as u8).collect();
    assert!(fault(&latin1).contains("unicode"), "{}", fault(&latin1));
    let mixed = [&latin1, b"\n".as_slice(), record("B", 2).as_bytes()].concat();
    assert_eq!(outcome(mixed)[1].0.as_deref(), Some("B"), "one line in another encoding stops no other");
}

#[test]
fn fields_become_a_row() {
    let read = |text: &str| parse::items(text.as_bytes(), &reader(), u64::MAX).0.remove(0).record.unwrap();
    let found = read(&record("A", 5));
    let expected = LedgerRow {
        file_name: Some("f.csv".into()),
        job_id: Some("A".into()),
        status: Some("SUCCESS".into()),
        timestamp: at("2025-04-16T07:01:05Z"),
    };
    assert_eq!((found.row, found.is_acknowledged, found.is_ambiguous), (expected, false, false));
    let with = |extra: &str| record("A", 5).replace('}', &format!(", {extra}}}"));
    assert!(read(&with(r#""autosys_update_flag": "YES""#)).is_acknowledged);
    assert!(!read(&with(r#""autosys_update_flag": "NO""#)).is_acknowledged);
    assert!(!read(&with(r#""autosys_update_flag": null"#)).is_acknowledged);
    let nested = read(&with(r#""more": {"job_id": "other", "list": [1, 2.5, true, null, {"status": "x"}]}"#));
    assert_eq!(nested.row.job_id.as_deref(), Some("A"));
    assert_eq!(read(&record("A", 5).replace("\"A\"", "1234")).row.job_id.as_deref(), Some("1234"));
    assert_eq!(read(&record("A", 5).replace("\"A\"", "-7")).row.job_id.as_deref(), Some("-7"));
    assert_eq!(read(&record(r"a\ud83d\ude80\u0000 '$(x)", 5)).row.job_id.as_deref(), Some("a🚀\0 '$(x)"));
}

#[test]
fn other_names_are_mapped() {
    let fields = [("job_id", "jobName"), ("timestamp", "time"), ("file_name", "jobName")];
    let fields = fields.map(|(ours, theirs)| (ours.to_owned(), theirs.to_owned()));
    let reader = RecordReader::new(&fields, None).unwrap();
    let text = r#"{"jobName": "A", "job_id": 7.5, "status": "S", "time": "2025-04-16 09:01:05Z"}"#;
    let found = parse::items(text.as_bytes(), &reader, u64::MAX).0.remove(0).record.unwrap();
    assert_eq!((found.row.job_id.as_deref(), found.row.file_name.as_deref()), (Some("A"), Some("A")));
    for (fields, timezone, says) in [
        (vec![("job", "x")], None, "file_name, job_id, status, timestamp, autosys_update_flag"),
        (vec![("job_id", "")], None, "empty name"),
        (vec![], Some("Europe/Atlantis"), "IANA"),
        (vec![], Some(""), "IANA"),
    ] {
        let fields: Vec<_> = fields.into_iter().map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
        let error = RecordReader::new(&fields, timezone).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn a_value_in_a_message_is_shortened() {
    for (length, shown) in [(59, ""), (60, ""), (61, "…"), (1_000, "…")] {
        let (name, shown) = ("x".repeat(length), format!(" \"{}{shown}\" ", "x".repeat(length.min(60))));
        let error = RecordReader::new(&[], Some(&name)).unwrap_err().to_string();
        assert!(error.contains(&shown), "{error}");
    }
}

#[test]
fn what_is_no_row_says_why() {
    let good = record("A", 5);
    let long = "j".repeat(1_025);
    for (text, says) in [
        (good.replace("\"A\"", "\"\""), "job_id is empty"),
        (good.replace("\"A\"", &format!("\"{long}\"")), "1025 bytes"),
        (good.replace("SUCCESS", ""), "status is empty"),
        (good.replace("\"A\"", "null"), "has null in the field \"job_id\""),
        (good.replace("\"A\"", "1.5"), "not whole"),
        (good.replace("\"A\"", "123456789012345678901234567890"), "too large"),
        (good.replace("\"A\"", "true"), "true or false"),
        (good.replace("\"A\"", "[\"A\"]"), "a list"),
        (good.replace("\"A\"", "{}"), "an object"),
        (good.replace("\"A\"", r#""\ud800""#), "hex escape"),
        (good.replace("job_id", "jobName"), "no field \"job_id\" (if the files use another name"),
        (good.replace("timestamp", "time"), "the import does not insert the current time"),
        (good.replace("\"2025-04-16T09:01:05\"", "null"), "has null in the field \"timestamp\""),
        (good.replace("status", "job_id"), "has the field \"job_id\" twice"),
        (good.replace('}', r#", "autosys_update_flag": "yes"}"#), "neither \"YES\" nor \"NO\""),
        (good.replace('}', r#", "autosys_update_flag": true}"#), "must be \"YES\" or \"NO\""),
        ("{}".into(), "no field \"file_name\""),
        ("7".into(), "is a number"),
        ("\"text\"".into(), "is text"),
        ("null".into(), "is null"),
        ("[[{}]]".into(), "a list in a list"),
        ("{\"a\": NaN}".into(), "not valid JSON"),
        (good[..good.len() - 1].to_owned(), "still being written"),
        ("{'a': 1}".into(), "not valid JSON"),
        ("\0\0\0".into(), "not valid JSON"),
        ("hello".into(), "not valid JSON"),
    ] {
        let reason = fault(&text);
        assert!(reason.contains(says), "{text} gave: {reason}");
        assert!(!reason.contains("nothing was logged"), "{reason}");
    }
}

#[test]
fn what_is_not_a_record_is_listed_up_to_a_limit_and_counted() {
    let record = record("A", 1);
    for text in [format!("[{}{record}]", "1,".repeat(1000)), format!("{}{record}", "1\n".repeat(1000))] {
        let (listed, unlisted) = parse::items(text.as_bytes(), &reader(), 20);
        assert_eq!((listed.len(), unlisted), (21, 980));
        let numbers: Vec<u64> = listed.iter().map(|item| item.number).collect();
        assert_eq!((numbers[0], numbers[19], numbers[20]), (1, 20, 1001));
        assert!(listed[20].record.is_ok() && listed[..20].iter().all(|item| item.record.is_err()));
    }
    // Of a list that is not valid JSON, nothing is imported.
    let (listed, unlisted) = parse::items(format!("[{record}, {{\"status\": \"\\ud800\"}}]").as_bytes(), &reader(), 20);
    assert_eq!((listed.len(), unlisted, listed[0].number), (1, 0, 1));
    assert!(listed[0].record.as_ref().unwrap_err().contains("is not valid JSON"));
}

#[test]
fn an_item_has_the_line_on_which_its_value_begins() {
    let a = record("A", 1);
    let pretty = a.replace(',', ",\n");
    let items = parse::items(format!("{a}\n\n{pretty} 7\n[\n{a},\n7]\n\n{a}").as_bytes(), &reader(), u64::MAX).0;
    let lines: Vec<(u64, bool)> = items.iter().map(|item| (item.line, item.record.is_ok())).collect();
    assert_eq!(lines, [(1, true), (3, true), (6, false), (7, true), (7, false), (11, true)]);
}

#[test]
fn a_broken_line_stops_no_other_and_is_named() {
    let (a, c) = (record("A", 1), record("C", 3));
    let text = format!("{a}\n{{\"file_name\": \"b\n\n{c}\n{{}}\n7\n{}", &c[..20]);
    let items = parse::items(text.as_bytes(), &reader(), u64::MAX).0;
    let told: Vec<(u64, bool)> = items.iter().map(|item| (item.line, item.record.is_ok())).collect();
    assert_eq!(told, [(1, true), (2, false), (4, true), (5, false), (6, false), (7, false)]);
    let first_cut = format!("{}\n{c}\n{a}", &a[..60]);
    assert_eq!(outcome(first_cut).iter().filter(|(job, _)| job.is_some()).count(), 2);
    let tail = format!("tatus\": \"SUCCESS\"}}\n{a}\n{c}");
    assert_eq!(outcome(tail).iter().filter(|(job, _)| job.is_some()).count(), 2);
}

#[test]
fn the_lines_of_a_broken_pretty_file_are_not_taken_for_records() {
    let (a, b) = (record("A", 1), record("B", 2));
    assert!(fault(format!("[\n{a},\n{b}\n")).contains("still being written"));
    assert!(fault(format!("{{\n\"inner\": \n{a}\n")).contains("still being written"));
    assert!(fault(format!("{{\"inner\":\n{a}\n")).contains("still being written"));
    assert!(fault(format!("{{\"inner\": [\n{a},\n{a},\n{b}\n]\n")).contains("still being written"));
    assert!(fault(format!("[\n{a}\n{b}\n]")).contains("not valid JSON"));
    assert!(fault(format!("[{a}, {b}, {{\"job_id\": \"\\ud800\"}}]")).contains("hex escape"), "whole or not at all");
}

#[test]
fn depth_costs_no_stack() {
    let deep = 200_000;
    assert!(fault("[".repeat(deep)).contains("still being written"));
    assert!(fault(format!("{}{}", "[".repeat(deep), "]".repeat(deep))).contains("a list in a list"));
    assert!(fault("{\"a\":".repeat(deep)).contains("still being written"));
    let inside = record("A", 1).replace('}', &format!(", \"x\": {}{}}}", "[".repeat(deep), "]".repeat(deep)));
    assert!(fault(&inside).contains("recursion limit"));
    assert_eq!(outcome(format!("{inside}\n{}", record("B", 2)))[1].0.as_deref(), Some("B"));
}

#[test]
fn times() {
    let zone = "Europe/Berlin".parse().ok();
    for (text, utc) in [
        ("2025-04-16T09:01:05", "2025-04-16T07:01:05Z"),
        (" 2025-01-16 09:01:05 ", "2025-01-16T08:01:05Z"),
        ("2025-04-16T09:01", "2025-04-16T07:01:00Z"),
        ("2025-04-16t09:01:05z", "2025-04-16T09:01:05Z"),
        ("2025-04-16T09:01:05.123456789+05:30", "2025-04-16T03:31:05.123456Z"),
        ("2025-04-16T09:01:05,5-0800", "2025-04-16T17:01:05.5Z"),
        ("2025-04-16T09:01:05 +02", "2025-04-16T07:01:05Z"),
        ("2025-03-30T01:59:59", "2025-03-30T00:59:59Z"),
        ("2025-03-30T03:00:00", "2025-03-30T01:00:00Z"),
        ("2025-10-26T03:00:00", "2025-10-26T02:00:00Z"),
    ] {
        let moment = record::time_of_text(text, zone).unwrap();
        assert_eq!((Some(moment.micros), moment.is_ambiguous), (at(utc), false), "{text}");
    }
    let twice = record::time_of_text("2025-10-26T02:30:00", zone).unwrap();
    assert_eq!((Some(twice.micros), twice.is_ambiguous), (at("2025-10-26T00:30:00Z"), true), "the first of the two");
    let never = record::time_of_text("2025-03-30T02:30:00", zone).unwrap_err();
    assert!(never.contains("does not exist in Europe/Berlin"), "{never}");
    assert!(record::time_of_text("2025-04-16T09:01:05", None).unwrap_err().contains("timezone="));
    for text in [
        "",
        "now",
        "2025-04-16",
        "16.04.2025 09:01",
        "2025-4-16T09:01:05",
        "2025-13-16T09:01:05",
        "2025-02-29T09:01:05",
        "2025-04-16T24:00:00",
        "2025-04-16T09:01:60",
        "2025-04-16T09:01:05.",
        "2025-04-16T09:01:05+",
        "2025-04-16T09:01:05 ",
        "2025-04-16T09:01:05+2",
        "2025-04-16T09:01:05+02:",
        "2025-04-16T09:01:05+02:60",
        "2025-04-16T09:01:05+99:00",
        "2025-04-16T09:01:05Zulu",
        "0000-04-16T09:01:05Z",
        "+025-04-16T09:01:05",
        "2025-04-16T09:01:05ü",
        "1744794065",
    ] {
        // Spaces around a time are none of its business.
        let expected = text == "2025-04-16T09:01:05 ";
        assert_eq!(record::time_of_text(text, zone).is_ok(), expected, "{text:?}");
    }
    let from_number = |number| record::time_of_number(number).map(|moment| moment.micros).ok();
    assert_eq!(from_number(1_744_794_065.0), at("2025-04-16T09:01:05Z"));
    assert_eq!(from_number(1_744_794_065.25), at("2025-04-16T09:01:05.25Z"));
    assert_eq!(from_number(1_744_794_065_123.0), at("2025-04-16T09:01:05.123Z"));
    assert_eq!(from_number(1_744_794_065_123_456.0), at("2025-04-16T09:01:05.123456Z"));
    for number in [0.0, -1_744_794_065.0, 20_250_416.0, 20_250_416_090_105.0, 1_744_794_065e9, f64::MAX] {
        assert_eq!(from_number(number), None, "{number}");
    }
    let epoch = record("A", 1).replace("\"2025-04-16T09:01:01\"", "1744794065");
    assert_eq!(jobs(epoch), ["A"]);
}

#[test]
fn a_digest_is_of_the_content_and_stays_the_same() {
    let digests = |text: &str| super::digests(&parse::items(text.as_bytes(), &reader(), u64::MAX).0);
    let a = record("A", 1);
    let plain = digests(&a);
    assert_eq!(digests(&a.replace(", ", ",\n\t")), plain, "spacing does not count");
    assert_eq!(digests(&format!("[{a}]")), plain);
    assert_eq!(digests(&a.replace("\"A\"", "\"\\u0041\"")), plain, "nor does the spelling of a character");
    assert_ne!(digests(&a.replace('}', ", \"x\": 1}")), plain, "but every field does");
    assert_ne!(digests(&a.replace('}', ", \"x\": [1, 2]}")), digests(&a.replace('}', ", \"x\": [[1], 2]}")));
    // Ledgers remember these bytes: they must not change with a version of this crate or of a library.
    assert_eq!(hex(&plain[0]), "cba1f45818c5f3169148a1b6145d3e87");
}

fn hex(digest: &RecordDigest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
