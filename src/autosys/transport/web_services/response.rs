//! What a response of the web services means.
//!
//! The vendor documents only 201. Every other status has its meaning in HTTP (RFC 9110, RFC 6585, RFC 8470), and a status that
//! leaves open whether the event was stored is unknown.

use super::super::SendOutcome;
use super::super::output::{find_error_code, names_invalid_job, names_no_authority};
use crate::http::secret::one_line;

/// Longest text of the server that is repeated, in characters.
const LONGEST_TEXT: usize = 600;

/// The text of a body on one line, cut.
pub(super) fn text(body: &[u8]) -> String {
    one_line(&String::from_utf8_lossy(body), LONGEST_TEXT)
}

/// A colon and `text`, or nothing without a text.
pub(super) fn after_colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// The outcome of an event for `job` with the response `status` and the text `said`.
pub(super) fn outcome(status: u16, accepted: &[u16], job: &str, said: &str, retry_after: Option<&str>) -> SendOutcome {
    let later = retry_after.map(|value| format!(" (Retry-After: {value})")).unwrap_or_default();
    let answered = format!("the web services answered {status}{later}{}", after_colon(said));
    let code = find_error_code(said.as_bytes());
    let failed = |permanent| SendOutcome::Failed { detail: answered.clone(), permanent };
    match status {
        200..=299 => {
            if let Some(code) = code {
                let detail = format!("AutoSys said {code}: {answered}");
                return SendOutcome::Failed { detail, permanent: names_invalid_job(said.as_bytes()) };
            }
            match accepted.contains(&status) {
                true => SendOutcome::Delivered { detail: Some(said.to_owned()).filter(|said| !said.is_empty()) },
                false => SendOutcome::unknown(format!(
                    "{answered}; that is no proof that the event was stored (if this server answers so, add the status to accepted)"
                )),
            }
        }
        300..=399 => {
            SendOutcome::transient(format!("{answered}; redirects are not followed: check base_url and prefix"))
        }
        // Wrong for all rows, and fixed in the settings: parking the rows would lose them.
        401 => SendOutcome::transient(format!(
            "{answered}; the credentials were refused: check user and password, or token"
        )),
        403 => failed(true),
        404 if is_about_job(said, job, code.is_some()) => failed(true),
        404 | 405 | 406 | 415 | 501 => {
            SendOutcome::transient(format!("{answered}; there is no such service: check base_url, prefix and events"))
        }
        400 | 409 | 422 => failed(true),
        // These say that nothing was done.
        408 | 425 | 429 | 503 => failed(false),
        // A refusal by AutoSys itself, with its code.
        500 if code.is_some() => failed(names_invalid_job(said.as_bytes()) || names_no_authority(said.as_bytes())),
        500..=599 => SendOutcome::unknown(format!("{answered}; whether the event was stored is unknown")),
        _ => failed(false),
    }
}

/// Whether a 404 is about the job, and not about an address that does not exist, which would refuse every row. An HTML page
/// comes from the server itself.
fn is_about_job(said: &str, job: &str, has_code: bool) -> bool {
    let page = said.get(..200).unwrap_or(said).to_ascii_lowercase();
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || "._#-".contains(c);
    let mentions = said.match_indices(job).any(|(at, _)| {
        let (before, after) = (&said[..at], &said[at + job.len()..]);
        // A full stop after the name ends the sentence.
        let rest = after.strip_prefix('.').unwrap_or(after);
        !before.ends_with(of_a_name) && !rest.starts_with(of_a_name)
    });
    has_code || (mentions && !page.contains("<html") && !page.contains("<!doctype"))
}
