//! The output of a program: stored up to a limit, and searched completely for AutoSys's messages.

use std::borrow::Cow;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::SendOutcome;
use crate::http::Secret;
use crate::http::secret::{Scrubber, one_line};

/// How much of one output stream the attempt's detail has, in bytes.
const SHOWN: usize = 1024;

/// How much of one output stream is stored, in bytes. It is more than is shown, because a secret that is cut is not found.
const STORED: usize = 16 * SHOWN;

/// How much of the previous piece is searched again with the next one, so that a code across both is found. Longer than any
/// message code and any phrase that is looked for.
const OVERLAP: usize = 64;

/// One output stream of a program.
#[derive(Debug, Default)]
pub(super) struct CapturedOutput {
    /// What is not shown.
    secrets: Arc<[Secret]>,
    stored: Vec<u8>,
    seam: Vec<u8>,
    /// The first message code of AutoSys that reports an error, such as `CAUAJM_E_50029`.
    error_code: Option<String>,
    /// Whether AutoSys does not know the job ("Invalid job name", "Invalid job/box name").
    invalid_job: bool,
    no_authority: bool,
}

impl CapturedOutput {
    /// The output of a program that knows `secrets`.
    pub(super) fn without(secrets: &Arc<[Secret]>) -> Self {
        Self { secrets: Arc::clone(secrets), ..Self::default() }
    }

    /// Reads `stream` to its end. What was read before an error or a cancellation stays.
    pub(super) async fn read(&mut self, stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<()> {
        let Some(mut stream) = stream else { return Ok(()) };
        let mut piece = [0; 4096];
        loop {
            match stream.read(&mut piece).await? {
                0 => return Ok(()),
                length => self.add(&piece[..length]),
            }
        }
    }

    /// Adds a piece.
    pub(super) fn add(&mut self, piece: &[u8]) {
        let room = STORED.saturating_sub(self.stored.len()).min(piece.len());
        self.stored.extend_from_slice(&piece[..room]);
        self.seam.extend_from_slice(piece);
        // The digits of a code at the end of a piece may continue in the next one; the code is then cut.
        if self.error_code.is_none() {
            self.error_code = find_error_code(&self.seam);
        }
        self.invalid_job |= says_invalid_job(&self.seam);
        self.no_authority |= says_not_authorized(&self.seam);
        let drop = self.seam.len().saturating_sub(OVERLAP);
        self.seam.drain(..drop);
    }

    /// Whether AutoSys says that this user is not allowed to.
    pub(super) fn no_authority(&self) -> bool {
        self.error_code.is_some() && self.no_authority
    }

    /// Removes `text` once. Returns whether it was there.
    pub(super) fn remove(&mut self, text: &str) -> bool {
        let at = self.stored.windows(text.len()).position(|window| window == text.as_bytes());
        at.map(|at| self.stored.drain(at..at + text.len())).is_some()
    }

    /// The stored output as it is, which is not for display.
    pub(super) fn raw(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stored)
    }

    /// The output on one line without secrets, cut at the limit.
    pub(super) fn text(&self) -> String {
        let secrets: Vec<&str> = self.secrets.iter().map(Secret::expose).collect();
        let raw = self.raw();
        let text = Scrubber::new(&secrets).scrub(&raw);
        let end = (0..=text.len().min(SHOWN)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        let shown = &text[..end];
        let mut line = one_line(shown, SHOWN);
        if shown.len() < text.len() {
            line.push_str(" …");
        }
        line
    }
}

/// How a program ended, and what it printed.
pub(super) struct ProgramResult {
    /// Its exit code, or why there is none.
    pub(super) end: Result<i32, String>,
    pub(super) out: CapturedOutput,
    pub(super) err: CapturedOutput,
}

impl ProgramResult {
    /// The result of an event that `sendevent` sent.
    pub(super) fn outcome(&self) -> SendOutcome {
        let (out, err) = (&self.out, &self.err);
        // An unknown job stays unknown, and a user without authority stays without. The texts are those of clients in use,
        // because the vendor's list of codes is not public.
        let permanent = out.invalid_job || err.invalid_job || out.no_authority() || err.no_authority();
        let failed = |text: String| SendOutcome::Failed { detail: self.with_output(&text), permanent };
        match (err.error_code.as_ref().or(out.error_code.as_ref()), &self.end) {
            // A warning can come before the event is stored.
            (code, Err(why)) => {
                let said = code.map(|code| format!(", and AutoSys said {code}")).unwrap_or_default();
                SendOutcome::unknown(self.with_output(&format!("sendevent {why}{said}")))
            }
            (Some(code), Ok(_)) => failed(format!("AutoSys said {code}")),
            (None, Ok(0)) => {
                SendOutcome::Delivered { detail: Some(self.with_output("")).filter(|text| !text.is_empty()) }
            }
            (None, Ok(code)) => failed(format!("sendevent ended with exit code {code}")),
        }
    }

    /// The status that `autostatus` printed: one word, such as `SUCCESS` or `SUCCESS/ON_NOEXEC`.
    pub(super) fn status(&self) -> Result<String, String> {
        let text = self.out.text();
        let is_word = !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase() || b"_/".contains(&b));
        match &self.end {
            Ok(0) if is_word => Ok(text),
            Ok(code) => Err(self.with_output(&format!("autostatus printed no status (exit code {code})"))),
            Err(why) => Err(self.with_output(&format!("autostatus {why}"))),
        }
    }

    fn with_output(&self, text: &str) -> String {
        let parts = [text, &self.err.text(), &self.out.text()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
    }
}

const INVALID_JOB: &[u8] = b"invalid job";

/// Whether AutoSys says in `bytes` that it does not know the job. The text is that of clients in use.
pub(super) fn says_invalid_job(bytes: &[u8]) -> bool {
    bytes.to_ascii_lowercase().windows(INVALID_JOB.len()).any(|window| window == INVALID_JOB)
}

/// Texts of AutoSys clients, and of the security server, for a user who is not allowed to do something.
const NO_AUTHORITY: [&[u8]; 6] = [
    b"not authorized",
    b"not authorised",
    b"no authority",
    b"not have permission",
    b"permission denied",
    b"access denied",
];

/// Whether `bytes` say that this user is not allowed to. It is a text of AutoSys only together with an error code.
pub(super) fn says_not_authorized(bytes: &[u8]) -> bool {
    let bytes = bytes.to_ascii_lowercase();
    NO_AUTHORITY.iter().any(|phrase| bytes.windows(phrase.len()).any(|window| window == *phrase))
}

/// Finds `CAUAJM_[EFW]_` and digits. `_I_` is informational.
pub(super) fn find_error_code(bytes: &[u8]) -> Option<String> {
    const PREFIX: &[u8] = b"CAUAJM_";
    (0..bytes.len()).find_map(|start| {
        let rest = bytes[start..].strip_prefix(PREFIX)?;
        let [severity @ (b'E' | b'F' | b'W'), b'_', digits @ ..] = rest else { return None };
        let digits: String = digits.iter().take_while(|b| b.is_ascii_digit()).map(|b| char::from(*b)).collect();
        (!digits.is_empty()).then(|| format!("CAUAJM_{}_{digits}", char::from(*severity)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(pieces: &[&[u8]]) -> CapturedOutput {
        let mut captured = CapturedOutput::default();
        pieces.iter().for_each(|piece| captured.add(piece));
        captured
    }

    #[test]
    fn errors_are_found_anywhere_and_information_is_none() {
        assert_eq!(captured(&[b"x CAUAJM_E_50029 Invalid job name: a"]).error_code.as_deref(), Some("CAUAJM_E_50029"));
        assert_eq!(captured(&[b"CAUAJM_I_50152 sent\nCAUAJM_W_1 hm"]).error_code.as_deref(), Some("CAUAJM_W_1"));
        assert_eq!(captured(&[b"CAUAJM_I_60000 Job (X) is already running."]).error_code.as_deref(), None);
        assert_eq!(captured(&[b"CAUAJM_E_ no digits, CAUAJM_"]).error_code.as_deref(), None);
    }

    #[test]
    fn a_code_across_two_pieces_and_behind_the_stored_part_is_found() {
        let filler = vec![b'.'; 5000];
        let captured = captured(&[&filler, b"CAUAJM", b"_F_", b"7 INVALID ", b"Job"]);
        assert_eq!(captured.error_code.as_deref(), Some("CAUAJM_F_7"));
        assert!(captured.invalid_job);
        assert_eq!(captured.text().chars().count(), SHOWN + 2);
    }

    #[test]
    fn a_program_that_did_not_end_is_unknown_whatever_it_said() {
        for said in ["CAUAJM_W_10000 trying again", "CAUAJM_E_50029 Invalid job name: a"] {
            let (out, err) = (captured(&[&[b'.'; 5000]]), captured(&[&[b'.'; 5000], said.as_bytes()]));
            let result = ProgramResult { end: Err("was killed".to_owned()), out, err };
            let outcome = result.outcome();
            let expected = format!("sendevent was killed, and AutoSys said {}: .", &said[..14]);
            assert!(
                matches!(&outcome, SendOutcome::Unknown { detail } if detail.starts_with(&expected)),
                "{outcome:?}"
            );
        }
    }

    #[test]
    fn a_secret_is_not_shown_also_where_the_text_is_cut() {
        let secret = "a secret of some length".to_owned();
        let mut captured = CapturedOutput::without(&Arc::from([Secret::from(secret.clone())]));
        captured.add(format!("{}{secret}\n{secret}", ".".repeat(SHOWN - 5)).as_bytes());
        let text = captured.text();
        assert!(text.ends_with("… …") && !text.contains("a sec"), "{text}");
    }

    #[test]
    fn missing_authority_is_what_autosys_says_and_not_a_shell() {
        let said = captured(&[b"CAUAJM_E_10262 User x is NOT auth", b"orized to send this event"]);
        assert!(said.no_authority() && !said.invalid_job);
        assert!(!captured(&[b"sh: sendevent: Permission denied"]).no_authority());
        assert!(!captured(&[b"CAUAJM_E_10527 The event server is not available."]).no_authority());
    }

    #[test]
    fn text_is_one_line_and_survives_bad_utf8() {
        assert_eq!(captured(&[b"a\n\t b\xff\n"]).text(), "a b\u{fffd}");
        assert_eq!(captured(&[b"\x1b[31mred\x07"]).text(), " [31mred ");
        assert_eq!(captured(&[]).text(), "");
    }
}
