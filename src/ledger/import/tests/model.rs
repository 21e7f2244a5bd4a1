//! Random lives of a folder against the rules on a list.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// Lines are appended to a file.
    Append(usize, Vec<u8>),
    /// A file is written anew.
    Rewrite(usize, Vec<u8>, bool),
    /// The beginning of another line, without its end.
    Half(usize, u8),
    Delete(usize),
    Import,
    /// An import that is killed after the batch was written down.
    Killed,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    // Few files and records, so that they are often the same.
    prop_oneof![
        3 => (0..3usize, vec(0..4u8, 1..4)).prop_map(|(file, records)| Step::Append(file, records)),
        2 => (0..3usize, vec(0..4u8, 0..4), any::<bool>()).prop_map(|(file, records, list)| Step::Rewrite(file, records, list)),
        1 => (0..3usize, 0..4u8).prop_map(|(file, record)| Step::Half(file, record)),
        1 => (0..3usize).prop_map(Step::Delete),
        4 => Just(Step::Import),
        1 => Just(Step::Killed),
        1 => Just(Step::Reopen),
    ]
}

/// What is in a file: whole records, and whether there is half a one behind them.
#[derive(Debug, Clone, Default)]
struct Content {
    records: Vec<u8>,
    half: Option<u8>,
    list: bool,
}

fn line(number: u8) -> String {
    record(&format!("J{number}"), u32::from(number))
}

impl Content {
    fn write(&self) -> String {
        let lines: Vec<String> = self.records.iter().map(|number| line(*number)).collect();
        if self.list {
            return format!("[{}]", lines.join(",\n"));
        }
        let half = self.half.map(|number| line(number)[..25].to_owned()).unwrap_or_default();
        lines.iter().map(|line| format!("{line}\n")).collect::<String>() + &half
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_record_is_imported_as_often_as_a_file_has_had_it_at_once(steps in vec(step(), 1..16)) {
        let fixture = Fixture::new();
        let mut ledger = fixture.ledger.clone();
        let mut folder: BTreeMap<usize, Content> = BTreeMap::new();
        // By file and record: how often it was imported.
        let mut imported: BTreeMap<(usize, u8), usize> = BTreeMap::new();
        for step in steps.into_iter().chain([Step::Import]) {
            match step {
                Step::Append(file, records) => {
                    let content = folder.entry(file).or_default();
                    if content.list {
                        *content = Content::default();
                    }
                    // Half a line is completed by a line end: it stays a broken line, so take it away first.
                    content.half = None;
                    content.records.extend(records);
                }
                Step::Rewrite(file, records, list) => drop(folder.insert(file, Content { records, half: None, list })),
                Step::Half(file, number) => {
                    let content = folder.entry(file).or_default();
                    content.list = false;
                    content.half = Some(number);
                }
                Step::Delete(file) => drop(folder.remove(&file)),
                Step::Reopen => ledger = fixture.reopened(),
                Step::Killed => {
                    let imports = ledger.created(&IMPORTS).unwrap();
                    let log = read_log(&ledger).unwrap();
                    let records = digests(&parse::items(line(0).as_bytes(), &reader(), u64::MAX).0);
                    let path = folder::key(&fixture.folder().canonicalize().unwrap().join("0.jsonl")).unwrap();
                    import_log::write_batch(&imports, log.head, &[(path, ImportedFile { stamp: None, records })]).unwrap();
                }
                Step::Import => {
                    let report = import(&ledger, &fixture.folder());
                    let mut new = 0;
                    for (file, content) in &folder {
                        let mut counts: BTreeMap<u8, usize> = BTreeMap::new();
                        for number in &content.records {
                            *counts.entry(*number).or_default() += 1;
                        }
                        for (number, count) in counts {
                            let before = imported.entry((*file, number)).or_default();
                            new += count.saturating_sub(*before);
                            *before = count.max(*before);
                        }
                    }
                    prop_assert_eq!(report.rows as usize, new);
                    let halves = folder.values().filter(|content| content.half.is_some()).count();
                    prop_assert_eq!((report.bad as usize, report.bad_records as usize), (halves, halves));
                }
            }
            for file in 0..3 {
                let path = fixture.folder().join(format!("{file}.jsonl"));
                match folder.get(&file) {
                    Some(content) => fs::write(path, content.write()).unwrap(),
                    None => drop(fs::remove_file(path)),
                }
            }
        }
        let mut expected: Vec<String> =
            imported.iter().flat_map(|((_, number), count)| vec![format!("J{number}"); *count]).collect();
        expected.sort();
        let mut actual = if expected.is_empty() { Vec::new() } else { fixture.jobs() };
        actual.sort();
        prop_assert_eq!(actual, expected);
    }
}
