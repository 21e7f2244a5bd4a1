//! Spans of time as people write them: `30s`, `15m`, `1h30m`, `2d`.

use std::time::Duration;

use crate::error::{Error, Result};

const UNITS: [(&str, f64); 5] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)];
/// The longest span, in seconds: a hundred years.
const LONGEST: f64 = 100.0 * 365.0 * 86_400.0;

/// The span that `text` names: numbers with units (`ms`, `s`, `m`, `h`, `d`), one after the other, such as `1h30m`. A number
/// without a unit is seconds.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] for anything else, and beyond a hundred years.
pub fn parse(text: &str) -> Result<Duration> {
    let wrong =
        || Error::invalid(format!("{text:?} is no span of time; give one such as \"15m\", \"90s\" or \"1h30m\""));
    let mut seconds = 0.0;
    let whole = text.trim();
    let mut rest = whole;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        let unit_end = behind.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_end);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let size = match unit {
            "" if rest == whole && behind.is_empty() => 1.0,
            unit => UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1,
        };
        seconds += number * size;
        rest = behind.trim_start();
    }
    if seconds > LONGEST {
        return Err(wrong());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_as_people_write_them() {
        for (text, milliseconds) in [
            ("15m", 900_000),
            ("90s", 90_000),
            ("90", 90_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("2d", 172_800_000),
            ("0.5s", 500),
            ("250ms", 250),
            ("0", 0),
        ] {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", " ", "m", "15 minutes", "-5m", "1e9d", "5x", "1h30", "..s", "1.2.3s", "999999999d", "٣s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
