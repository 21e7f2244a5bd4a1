//! The one grammar for durations: in arguments, options of commands, and storage options.
//!
//! | text | meaning |
//! | --- | --- |
//! | `90`, `0.5`, `1e3` | seconds |
//! | `250ms`, `90s`, `15m`, `2h`, `2d` | one number with a unit |
//! | `1h30m`, `1h 30m` | the sum of its parts |
//! | `2 minutes`, `1 hour 30 min` | the same with the unit as a word |
//!
//! The grammar has no upper limit. Each argument has its own.

use std::time::Duration;

use crate::error::{Error, Result};

/// Texts that an error message gives as examples.
pub const EXAMPLES: &str = "\"250ms\", \"90s\", \"15m\", \"1h30m\" or \"2d\"";

/// Names of each unit, with how many of the unit are in a second (`ms`) or how many seconds it has (all others).
const MILLISECONDS: &[&str] = &["ms", "millisecond", "milliseconds"];
const UNITS: &[(&[&str], f64)] = &[
    (&["s", "sec", "secs", "second", "seconds"], 1.0),
    (&["m", "min", "mins", "minute", "minutes"], 60.0),
    (&["h", "hour", "hours"], 3_600.0),
    (&["d", "day", "days"], 86_400.0),
];

/// Reads a duration.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] when the text is not a duration, or is longer than [`Duration`] can hold.
pub fn parse(text: &str) -> Result<Duration> {
    read(text.trim()).ok_or_else(|| {
        Error::invalid(format!("{text:?} is not a duration: give a number of seconds, or text such as {EXAMPLES}"))
    })
}

fn read(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(number_length(rest));
        let after = after.trim_start();
        let (unit, after) = after.split_at(after.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(after.len()));
        let number: f64 = number.parse().ok()?;
        let seconds = match UNITS.iter().find(|(names, _)| names.contains(&unit)) {
            Some((_, size)) => number * size,
            None if MILLISECONDS.contains(&unit) => number / 1_000.0,
            None => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        rest = after.trim_start();
    }
    (!text.is_empty()).then_some(total)
}

/// The length of the number at the beginning of `text`: digits, points, and an exponent such as `e3` or `e-3`.
fn number_length(text: &str) -> usize {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let mantissa = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let Some(exponent) = text[mantissa..].strip_prefix(['e', 'E']) else { return mantissa };
    let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    match digits(unsigned) {
        0 => mantissa,
        length => text.len() - unsigned.len() + length,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepted_texts() {
        for (text, milliseconds) in [
            ("0", 0),
            ("90", 90_000),
            (" 90 ", 90_000),
            ("0.5", 500),
            (".5", 500),
            ("5.", 5_000),
            ("+5", 5_000),
            ("-0", 0),
            ("1e3", 1_000_000),
            ("1e-3", 1),
            ("250ms", 250),
            ("250 ms", 250),
            ("3 milliseconds", 3),
            ("90s", 90_000),
            ("90 s", 90_000),
            ("0.5s", 500),
            ("1e3s", 1_000_000),
            ("1E+3 s", 1_000_000),
            ("15m", 900_000),
            ("15 minutes", 900_000),
            ("1 minute", 60_000),
            ("2 min", 120_000),
            ("1 hour 30 mins", 5_400_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("\t1h\u{a0}30m\n", 5_400_000),
            ("30m1h", 5_400_000),
            ("1.5h", 5_400_000),
            ("2d", 172_800_000),
            ("2 days", 172_800_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("1s1s", 2_000),
        ] {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(milliseconds), "{text:?}");
        }
    }

    #[test]
    fn refused_texts() {
        for text in [
            "", " ", "m", "ms", "soon", "-5", "-5m", "+5m", "1h-30m", "1h30", "30 1h", "5x", "5M", "5 M", "1 week",
            "P1D", "PT15M", "1:30", "1h,30m", "..s", "1.2.3s", "1_000", "0x10", "٣", "٣s", "5µs", "nan", "inf", "-inf",
            "1e400", "1e400s", "1e20", "1e20s", "e3s", "1es", "1e s",
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
            assert!(error.to_string().contains("1h30m"), "{error}");
        }
    }

    fn written() -> impl Strategy<Value = (String, Duration)> {
        let part = (0..UNITS.len() + 1, 0..100_000u64, any::<prop::sample::Index>(), 0..3usize);
        prop::collection::vec(part, 1..6).prop_map(|parts| {
            let (mut text, mut total) = (String::new(), Duration::ZERO);
            for (unit, count, name, blanks) in parts {
                let (names, length) = match unit.checked_sub(1) {
                    None => (MILLISECONDS, Duration::from_millis(count)),
                    Some(unit) => (UNITS[unit].0, Duration::from_secs(count * UNITS[unit].1 as u64)),
                };
                let blank = " ".repeat(blanks);
                text += &format!("{count}{blank}{}{blank}", name.get(names));
                total += length;
            }
            (text, total)
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read((text, total) in written()) {
            prop_assert_eq!(parse(&text).unwrap(), total, "{}", text);
        }

        #[test]
        fn seconds_are_read_back(nanoseconds in 0..10_000_000_000_000_000u64) {
            let seconds = Duration::from_nanos(nanoseconds).as_secs_f64();
            let expected = Duration::from_secs_f64(seconds);
            prop_assert_eq!(parse(&seconds.to_string()).unwrap(), expected);
            prop_assert_eq!(parse(&format!("{seconds}s")).unwrap(), expected);
            prop_assert_eq!(parse(&format!("{seconds:e}s")).unwrap(), expected);
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn no_text_that_looks_like_a_duration_panics(text in "[-+0-9.eE smhdinutesayocku\u{a0}]{0,24}") {
            let _ = parse(&text);
        }
    }
}
