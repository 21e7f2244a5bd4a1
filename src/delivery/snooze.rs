//! Snooze windows: times of the week at which nothing is sent, such as a maintenance window of AutoSys.

use std::str::FromStr;

use chrono::{DateTime, Datelike as _, Days, NaiveDate, NaiveTime, TimeZone as _, Utc, Weekday};
use chrono_tz::Tz;

use crate::error::{Error, Result};

/// A window that repeats every day, or on some days of the week: `02:00-03:30`, `Sun 22:00-04:00 Europe/Berlin`,
/// `Mon-Fri 12:00-12:15 UTC`, `Sat,Sun 00:00-24:00`. The default time zone is UTC. A window that ends before it begins ends
/// on the next day; its days are those on which it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnoozeWindow {
    days: Vec<Weekday>,
    from: NaiveTime,
    /// None is midnight.
    to: Option<NaiveTime>,
    zone: Tz,
}

impl SnoozeWindow {
    /// When the window ends, if it is open at `now`.
    pub fn until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let today = now.with_timezone(&self.zone).date_naive();
        let days = [today.checked_sub_days(Days::new(1)), Some(today)];
        days.into_iter().flatten().filter(|day| self.days.contains(&day.weekday())).find_map(|day| {
            let next = match self.to {
                Some(to) if to > self.from => day,
                _ => day.checked_add_days(Days::new(1))?,
            };
            let (begins, ends) = (self.at(day, self.from)?, self.at(next, self.to.unwrap_or(NaiveTime::MIN))?);
            (begins <= now && now < ends).then_some(ends)
        })
    }

    /// The instant of a local time. If a change of clocks skips the time, it is the first instant after the gap.
    fn at(&self, day: NaiveDate, time: NaiveTime) -> Option<DateTime<Utc>> {
        let local = day.and_time(time);
        let minutes = (0..=180).map(|minutes| local + chrono::TimeDelta::minutes(minutes));
        let mut instants = minutes.filter_map(|local| self.zone.from_local_datetime(&local).earliest());
        instants.next().map(|instant| instant.with_timezone(&Utc))
    }
}

impl FromStr for SnoozeWindow {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::invalid(format!(
                "the snooze window {text:?} {why}; give one such as \"02:00-03:30\" or \"Sun 22:00-04:00 Europe/Berlin\""
            ))
        };
        let mut words = text.split_whitespace().peekable();
        let mut days = Vec::new();
        let word = words.next_if(|word| word.starts_with(|c: char| c.is_ascii_alphabetic())).unwrap_or("mon-sun");
        for part in word.split(',') {
            days.extend(days_of(part).ok_or_else(|| wrong("names an unknown day"))?);
        }
        let times = words.next().and_then(|times| times.split_once('-'));
        let (from, to) = times.ok_or_else(|| wrong("has no times"))?;
        let time = |text: &str| NaiveTime::parse_from_str(text, "%H:%M").ok();
        let from = time(from).ok_or_else(|| wrong("does not begin at a time of day"))?;
        let to = match to {
            "24:00" => None,
            to => Some(time(to).ok_or_else(|| wrong("does not end at a time of day"))?),
        };
        if to == Some(from) {
            return Err(wrong("is empty"));
        }
        let zone = match words.next() {
            None => Tz::UTC,
            Some(name) => name.parse().map_err(|_| wrong("names an unknown time zone"))?,
        };
        match words.next() {
            None => Ok(Self { days, from, to, zone }),
            Some(_) => Err(wrong("has text after the time zone")),
        }
    }
}

/// The days of `mon`, or of `mon-fri`.
fn days_of(text: &str) -> Option<Vec<Weekday>> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (mut days, to) = (vec![from.parse::<Weekday>().ok()?], to.parse().ok()?);
    while *days.last()? != to {
        days.push(days.last()?.succ());
    }
    Some(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(window: &str, now: &str) -> Option<String> {
        let now = now.parse::<DateTime<Utc>>().unwrap();
        let window: SnoozeWindow = window.parse().unwrap();
        window.until(now).map(|end| end.format("%dT%H:%M").to_string())
    }

    // 2026-11-22 is a Sunday.

    #[test]
    fn a_window_is_open_from_its_beginning_to_its_end() {
        assert_eq!(until("02:00-03:30", "2026-11-22T01:59:59Z"), None);
        assert_eq!(until("02:00-03:30", "2026-11-22T02:00:00Z").as_deref(), Some("22T03:30"));
        assert_eq!(until("02:00-03:30", "2026-11-22T03:29:59Z").as_deref(), Some("22T03:30"));
        assert_eq!(until("02:00-03:30", "2026-11-22T03:30:00Z"), None);
        assert_eq!(until("00:00-24:00", "2026-11-22T23:59:59Z").as_deref(), Some("23T00:00"));
    }

    #[test]
    fn days_are_those_on_which_it_begins() {
        let night = "Sun 22:00-04:00";
        assert_eq!(until(night, "2026-11-22T21:59:00Z"), None);
        assert_eq!(until(night, "2026-11-22T22:00:00Z").as_deref(), Some("23T04:00"));
        assert_eq!(until(night, "2026-11-23T03:59:00Z").as_deref(), Some("23T04:00"));
        assert_eq!(until(night, "2026-11-22T03:59:00Z"), None, "Saturday's night has no window");
        assert_eq!(until("Fri-Mon 10:00-11:00", "2026-11-22T10:30:00Z").as_deref(), Some("22T11:00"));
        assert_eq!(until("tue,WED 10:00-11:00", "2026-11-22T10:30:00Z"), None);
    }

    #[test]
    fn a_time_zone_and_its_summer_time_count() {
        assert_eq!(until("02:00-03:30 Europe/Berlin", "2026-11-22T01:00:00Z").as_deref(), Some("22T02:30"));
        assert_eq!(until("02:00-03:30 Europe/Berlin", "2026-07-22T00:00:00Z").as_deref(), Some("22T01:30"));
        // On 2026-03-29 there is no 02:30 in Berlin: the window begins when the clocks have moved on.
        assert_eq!(until("02:30-04:00 Europe/Berlin", "2026-03-29T00:59:00Z"), None);
        assert_eq!(until("02:30-04:00 Europe/Berlin", "2026-03-29T01:00:00Z").as_deref(), Some("29T02:00"));
    }

    #[test]
    fn windows_that_make_no_sense_are_refused() {
        for text in [
            "",
            "always",
            "2-3",
            "02:00",
            "02:00-02:00",
            "25:00-26:00",
            "Som 02:00-03:00",
            "02:00-03:00 Nowhere",
            "02:00-03:00 UTC x",
            "Mon- 02:00-03:00",
        ] {
            let error = text.parse::<SnoozeWindow>().unwrap_err();
            assert!(error.to_string().contains("such as"), "{text}: {error}");
        }
    }
}
