//! Any sequence of what users do, with maintenance in between: the table holds what a list would hold.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// So many rows in one file.
    Append(u8),
    /// Acknowledges every pending row whose number leaves this remainder when divided by 4.
    Flip(u64),
    /// Retention, and how much later, in hours.
    Maintain(u16, u16),
    /// Files and log entries age by so many hours.
    Age(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u8..4).prop_map(Step::Append),
        2 => (0u64..4).prop_map(Step::Flip),
        2 => (0u16..300, 0u16..300).prop_map(|(retain, later)| Step::Maintain(retain, later)),
        1 => (1u8..250).prop_map(Step::Age),
    ]
}

fn pending(rows: &[(String, String)]) -> Vec<&str> {
    rows.iter().filter(|row| row.1 == "NO").map(|row| row.0.as_str()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_are_as_in_a_list(plain in any::<bool>(), steps in prop::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().expect("directory");
        let spec = if plain { plain_spec() } else { spec() };
        let table = Table::open_or_create(&storage(&dir), &spec).expect("created");
        let long_lived = Table::open(&storage(&dir), "events").expect("opened");
        let mut model: Vec<(u64, bool)> = Vec::new();
        for step in steps {
            match step {
                Step::Append(count) => {
                    let next = model.len() as u64;
                    let new: Vec<_> = (next..next + u64::from(count)).map(|n| row(format!("{n:04}"), 7, "NO")).collect();
                    table.append(&batch(&new)).expect("appended");
                    model.extend((next..next + u64::from(count)).map(|n| (n, false)));
                }
                Step::Flip(remainder) => {
                    let chosen = |n: u64| n % 4 == remainder;
                    let count = flip(&table, &|name| chosen(name.parse().expect("number"))).expect("flipped");
                    let wanted = model.iter_mut().filter(|(n, flag)| chosen(*n) && !*flag).map(|(_, flag)| *flag = true);
                    prop_assert_eq!(count, wanted.count() as u64);
                }
                Step::Maintain(retain, later) => {
                    let before = in_order(&table);
                    let report = maintain_later(&table, f64::from(retain), i64::from(later));
                    prop_assert_eq!(&report.problems, &Vec::<String>::new());
                    // No background checkpoint may be looked at half-way.
                    crate::runtime::drain(Duration::from_secs(60));
                    let after = in_order(&table);
                    prop_assert_eq!(pending(&after), pending(&before));
                }
                Step::Age(hours) => {
                    crate::runtime::drain(Duration::from_secs(60));
                    for name in files_in(&events(&dir)) {
                        age(&events(&dir).join(name), u64::from(hours));
                    }
                }
            }
            let expected: Vec<_> = model
                .iter()
                .map(|(n, flag)| row(format!("{n:04}"), 7, if *flag { "YES" } else { "NO" }))
                .collect();
            prop_assert_eq!(&all(&table), &expected);
            prop_assert_eq!(&all(&long_lived), &expected);
            let pending_now: Vec<String> = model.iter().filter(|row| !row.1).map(|row| format!("{:04}", row.0)).collect();
            let pending_read = in_order(&table);
            prop_assert_eq!(pending(&pending_read), pending_now);
        }
        prop_assert_eq!(all(&Table::open(&storage(&dir), "events").expect("opened")).len(), model.len());
    }
}
