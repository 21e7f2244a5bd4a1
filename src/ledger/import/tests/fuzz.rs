//! Malformed input: no panic, nothing that is not in the file, and nothing that is neither taken nor
//! reported. Proptest prints the seed and the smallest input of a failure.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;

/// A good file: one of the shapes, with the records in it.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Lines,
    List,
    Pretty,
    Crlf,
    Concatenated,
}

impl Shape {
    fn write(self, records: &[Json]) -> String {
        let lines = |end: &str| records.iter().map(|record| format!("{record}{end}")).collect::<String>();
        match self {
            Self::Lines => lines("\n"),
            Self::Crlf => lines("\r\n"),
            Self::Concatenated => lines(""),
            Self::List => Json::from(records.to_vec()).to_string(),
            Self::Pretty => serde_json::to_string_pretty(records).unwrap(),
        }
    }
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Lines),
        Just(Shape::List),
        Just(Shape::Pretty),
        Just(Shape::Crlf),
        Just(Shape::Concatenated)
    ]
}

fn good_record() -> impl Strategy<Value = Json> {
    let text = || prop_oneof![4 => "[A-Z_]{1,6}", 1 => "\\PC{1,8}", 1 => Just("\u{1F680}\"\\\n{}[],:".to_owned())];
    (text(), text(), text(), 0..60u32, any::<bool>()).prop_map(|(file, job, status, second, extra)| {
        let mut record = serde_json::json!({
            "file_name": file, "job_id": job, "status": status, "timestamp": format!("2025-04-16T09:01:{second:02}"),
        });
        if extra {
            record["more"] = serde_json::json!({"job_id": [1.5, null, {"status": "inner"}], "": true});
        }
        record
    })
}

/// Another reading of a file: everything in it that looks like an object, wherever it begins.
fn objects(text: &[u8]) -> Vec<Json> {
    let places = text.iter().enumerate().filter(|(_, byte)| **byte == b'{').map(|(at, _)| at);
    let read = |at: usize| serde_json::Deserializer::from_slice(&text[at..]).into_iter::<Json>().next()?.ok();
    places.filter_map(read).collect()
}

fn same(row: &LedgerRow, object: &Json) -> bool {
    let field = |name: &str| match &object[name] {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        _ => None,
    };
    row.file_name == field("file_name") && row.job_id == field("job_id") && row.status == field("status")
}

/// What holds for any bytes at all.
fn check(bytes: &[u8]) -> Vec<FileItem> {
    let items = parse::items(bytes, &reader(), u64::MAX).0;
    // Only what has no byte order mark of UTF-16 can be read again byte by byte.
    if !bytes.starts_with(&[0xFF, 0xFE]) && !bytes.starts_with(&[0xFE, 0xFF]) {
        let objects = objects(bytes);
        for found in items.iter().filter_map(|item| item.record.as_ref().ok()) {
            assert!(objects.iter().any(|object| same(&found.row, object)), "{:?} is not in the file", found.row);
        }
        let something = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes).trim_ascii();
        let empty_lists = something.iter().all(|byte| b"[] \t\r\n".contains(byte));
        assert!(!items.is_empty() || empty_lists, "nothing was taken and nothing reported");
    }
    let lines = 1 + bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert!(items.iter().all(|item| (1..=lines).contains(&item.line)));
    items
}

fn digests_of(bytes: &[u8]) -> Vec<RecordDigest> {
    digests(&check(bytes))
}

#[derive(Debug, Clone)]
enum Mutation {
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let place = || any::<prop::sample::Index>();
    let token = prop_oneof![
        vec(any::<u8>(), 1..4),
        prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\\",
            "\n",
            "\r",
            "null",
            "1e999",
            "-",
            "\\u",
            "\\ud800",
            "\u{FEFF}",
            "\0",
            "{\"job_id\":",
            "true",
            "//",
            "'",
        ])
        .prop_map(|token| token.as_bytes().to_vec()),
    ];
    prop_oneof![
        (place(), any::<u8>()).prop_map(|(at, byte)| Mutation::Flip(at, byte)),
        (place(), token).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (place(), 1..40usize).prop_map(|(at, count)| Mutation::Remove(at, count)),
        (place(), 1..80usize).prop_map(|(at, count)| Mutation::Repeat(at, count)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: Mutation) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    match mutation {
        Mutation::Flip(at, byte) => bytes[at.index(length)] = byte,
        Mutation::Insert(at, new) => drop(bytes.splice(at.index(length)..at.index(length), new)),
        Mutation::Remove(at, count) => drop(bytes.drain(at.index(length)..length.min(at.index(length) + count))),
        Mutation::Repeat(at, count) => {
            let part = bytes[at.index(length)..length.min(at.index(length) + count)].to_vec();
            bytes.splice(at.index(length)..at.index(length), part);
        }
    }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..200)) {
        check(&bytes);
    }

    #[test]
    fn bytes_that_look_like_json(tokens in vec(prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "\n", " ", "\"file_name\"", "\"job_id\"", "\"status\"", "\"timestamp\"", "\"A\"", "1",
        "\"2025-04-16T09:01:05Z\"", "null", "{\"file_name\":\"f\",\"job_id\":\"J\",\"status\":\"S\",\"timestamp\":1744794065}",
    ]), 0..40)) {
        check(tokens.concat().as_bytes());
    }

    #[test]
    fn mutated_files(
        records in vec(good_record(), 0..6), shape in shape(), mutations in vec(mutation(), 1..5),
    ) {
        let mut bytes = shape.write(&records).into_bytes();
        for mutation in mutations {
            mutate(&mut bytes, mutation);
        }
        check(&bytes);
    }
}

proptest! {
    #![proptest_config(config(150))]

    /// Cut at every byte, as a reader sees a file that is being written: what is found is the beginning of what will be
    /// found, what is cut is reported, and then and now together bring each record once.
    #[test]
    fn cut_at_every_byte(records in vec(good_record(), 1..5), shape in shape()) {
        let whole = shape.write(&records).into_bytes();
        let all = digests_of(&whole);
        prop_assert_eq!(all.len(), records.len(), "a good file is taken whole");
        for cut in 0..whole.len() {
            let items = check(&whole[..cut]);
            let before = digests(&items);
            prop_assert!(all.starts_with(&before), "cut at {}", cut);
            let faults = items.len() - before.len();
            prop_assert!(faults <= 1 || before.is_empty(), "cut at {}", cut);
            if before.len() < all.len() && faults == 0 {
                // Nothing is missing at this point: the cut is between two records.
                let rest = digests_of(&whole[cut..]);
                prop_assert_eq!([before.clone(), rest].concat(), all.clone(), "cut at {}", cut);
            }
            let known = ImportedFile { stamp: None, records: before.clone() };
            let new = ImportedFile::new_records(Some(&known), &all);
            prop_assert_eq!(new.iter().filter(|new| **new).count(), all.len() - before.len(), "cut at {}", cut);
        }
    }

    /// One damaged line of many: the others are all taken.
    #[test]
    fn a_damaged_line_costs_that_line(
        records in vec(good_record(), 3..8), place in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(),
    ) {
        let mut lines: Vec<String> = records.iter().map(Json::to_string).collect();
        let damaged = place.index(lines.len());
        let mut end = 1 + cut.index(lines[damaged].len() - 1);
        while !lines[damaged].is_char_boundary(end) {
            end -= 1;
        }
        let expected: Vec<RecordDigest> = (0..lines.len()).filter(|at| *at != damaged).map(|at| digests_of(lines[at].as_bytes())[0]).collect();
        lines[damaged].truncate(end);
        let items = check(lines.join("\n").as_bytes());
        prop_assert_eq!(digests(&items), expected);
        prop_assert_eq!(items.len(), lines.len());
    }
}
