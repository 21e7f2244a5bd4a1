//! What an answer of the web services means.
//!
//! The vendor documents 201 alone, so that every other status is taken for what HTTP says it is (RFC 9110, RFC 6585,
//! RFC 8470), and what leaves open whether the event was stored is unknown.

use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::super::Outcome;
use super::super::sendevent::output::{find_error_code, names_invalid_job, names_no_authority};

/// Longest text of the server that is repeated, in characters.
const LONGEST_TEXT: usize = 600;

/// `Retry-After`, as the server gave it.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    (!value.is_empty()).then(|| value.chars().take(40).collect())
}

/// The text of a body on one line, cut.
pub(super) fn text(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(LONGEST_TEXT) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line,
    }
}

/// `text` behind a colon, or nothing.
pub(super) fn after_colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// What became of an event for `job` that was answered `status` and `said`.
pub(super) fn verdict(status: u16, accepted: &[u16], job: &str, said: &str, retry_after: Option<&str>) -> Outcome {
    let later = retry_after.map(|value| format!(" (Retry-After: {value})")).unwrap_or_default();
    let answered = format!("the web services answered {status}{later}{}", after_colon(said));
    let code = find_error_code(said.as_bytes());
    let failed = |permanent| Outcome::Failed { detail: answered.clone(), permanent };
    match status {
        200..=299 => {
            if let Some(code) = code {
                let detail = format!("AutoSys said {code}: {answered}");
                return Outcome::Failed { detail, permanent: names_invalid_job(said.as_bytes()) };
            }
            match accepted.contains(&status) {
                true => Outcome::Delivered { detail: Some(said.to_owned()).filter(|said| !said.is_empty()) },
                false => Outcome::unknown(format!(
                    "{answered}; that is no proof that the event was stored (if this server answers so, say it in accepted)"
                )),
            }
        }
        300..=399 => Outcome::transient(format!("{answered}; redirects are not followed: see base_url and prefix")),
        // Wrong for every row alike, and mended outside: parking them would lose them.
        401 => Outcome::transient(format!("{answered}; the credentials were refused: see user and password, or token")),
        403 => failed(true),
        404 if is_about_job(said, job, code.is_some()) => failed(true),
        404 | 405 | 406 | 415 | 501 => {
            Outcome::transient(format!("{answered}; there is no such service: see base_url, prefix and events"))
        }
        400 | 409 | 422 => failed(true),
        // These say that nothing was done.
        408 | 425 | 429 | 503 => failed(false),
        // AutoSys's own refusal, with the code that it has for it.
        500 if code.is_some() => failed(names_invalid_job(said.as_bytes()) || names_no_authority(said.as_bytes())),
        500..=599 => Outcome::unknown(format!("{answered}; whether the event was stored is unknown")),
        _ => failed(false),
    }
}

/// Whether a 404 is about the job, and not about an address that the server does not have, where every row would be
/// refused. Pages for people come from the server itself.
fn is_about_job(said: &str, job: &str, has_code: bool) -> bool {
    let page = said.get(..200).unwrap_or(said).to_ascii_lowercase();
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || "._#-".contains(c);
    let mentions = said.match_indices(job).any(|(at, _)| {
        let (before, after) = (&said[..at], &said[at + job.len()..]);
        // A full stop behind the name ends the sentence.
        let rest = after.strip_prefix('.').unwrap_or(after);
        !before.ends_with(of_a_name) && !rest.starts_with(of_a_name)
    });
    has_code || (mentions && !page.contains("<html") && !page.contains("<!doctype"))
}
