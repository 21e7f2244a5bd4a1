//! What a program printed: kept up to a limit, searched to its end.

use tokio::io::{AsyncRead, AsyncReadExt};

/// How much of one output stream is kept for the attempt's detail, in bytes.
const KEPT: usize = 1024;

/// How much of what was read before is searched again with the next piece, so that no code is missed at a seam. Longer
/// than any message code and any phrase looked for.
const OVERLAP: usize = 64;

/// One output stream of a program.
#[derive(Debug, Default)]
pub(in crate::autosys::transport) struct Captured {
    kept: Vec<u8>,
    cut: bool,
    seam: Vec<u8>,
    error_code: Option<String>,
    invalid_job: bool,
    no_authority: bool,
}

impl Captured {
    /// Reads `stream` to its end. What was read before an error or a cancellation is kept.
    pub(super) async fn read(&mut self, stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<()> {
        let Some(mut stream) = stream else { return Ok(()) };
        let mut piece = [0; 4096];
        loop {
            match stream.read(&mut piece).await? {
                0 => return Ok(()),
                length => self.take(&piece[..length]),
            }
        }
    }

    /// Takes in a piece.
    pub(in crate::autosys::transport) fn take(&mut self, piece: &[u8]) {
        let room = KEPT.saturating_sub(self.kept.len()).min(piece.len());
        self.kept.extend_from_slice(&piece[..room]);
        self.cut |= room < piece.len();
        self.seam.extend_from_slice(piece);
        // Digits may go on in the next piece: a code found at the very end is only taken as it stands.
        if self.error_code.is_none() {
            self.error_code = find_error_code(&self.seam);
        }
        self.invalid_job |= names_invalid_job(&self.seam);
        self.no_authority |= names_no_authority(&self.seam);
        let drop = self.seam.len().saturating_sub(OVERLAP);
        self.seam.drain(..drop);
    }

    /// The first message code of AutoSys that reports an error, such as `CAUAJM_E_50029`.
    pub(in crate::autosys::transport) fn error_code(&self) -> Option<&str> {
        self.error_code.as_deref()
    }

    /// Whether AutoSys does not know the job ("Invalid job name", "Invalid job/box name").
    pub(in crate::autosys::transport) fn invalid_job(&self) -> bool {
        self.invalid_job
    }

    /// Whether AutoSys says that this user may not do it.
    pub(in crate::autosys::transport) fn no_authority(&self) -> bool {
        self.error_code.is_some() && self.no_authority
    }

    /// The output on one line, cut at the limit.
    pub(in crate::autosys::transport) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if self.cut {
            line.push_str(" …");
        }
        line
    }
}

const INVALID_JOB: &[u8] = b"invalid job";

/// Whether AutoSys says in `bytes` that it does not know the job. The text is from clients in use.
pub(in crate::autosys::transport) fn names_invalid_job(bytes: &[u8]) -> bool {
    bytes.to_ascii_lowercase().windows(INVALID_JOB.len()).any(|window| window == INVALID_JOB)
}

/// How clients of AutoSys, and of the security server behind it, say that a user may not do something.
const NO_AUTHORITY: [&[u8]; 6] = [
    b"not authorized",
    b"not authorised",
    b"no authority",
    b"not have permission",
    b"permission denied",
    b"access denied",
];

/// Whether somebody says in `bytes` that this user may not do it. Of AutoSys's that is only together with an error code.
pub(in crate::autosys::transport) fn names_no_authority(bytes: &[u8]) -> bool {
    let bytes = bytes.to_ascii_lowercase();
    NO_AUTHORITY.iter().any(|phrase| bytes.windows(phrase.len()).any(|window| window == *phrase))
}

/// Finds `CAUAJM_[EFW]_` and digits. `_I_` is information.
pub(in crate::autosys::transport) fn find_error_code(bytes: &[u8]) -> Option<String> {
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

    fn captured(pieces: &[&[u8]]) -> Captured {
        let mut captured = Captured::default();
        pieces.iter().for_each(|piece| captured.take(piece));
        captured
    }

    #[test]
    fn errors_are_found_anywhere_and_information_is_none() {
        assert_eq!(captured(&[b"x CAUAJM_E_50029 Invalid job name: a"]).error_code(), Some("CAUAJM_E_50029"));
        assert_eq!(captured(&[b"CAUAJM_I_50152 sent\nCAUAJM_W_1 hm"]).error_code(), Some("CAUAJM_W_1"));
        assert_eq!(captured(&[b"CAUAJM_I_60000 Job (X) is already running."]).error_code(), None);
        assert_eq!(captured(&[b"CAUAJM_E_ no digits, CAUAJM_"]).error_code(), None);
    }

    #[test]
    fn a_code_across_two_pieces_and_behind_the_kept_part_is_found() {
        let filler = vec![b'.'; 5000];
        let captured = captured(&[&filler, b"CAUAJM", b"_F_", b"7 INVALID ", b"Job"]);
        assert_eq!(captured.error_code(), Some("CAUAJM_F_7"));
        assert!(captured.invalid_job());
        assert_eq!(captured.text().chars().count(), KEPT + 2);
    }

    #[test]
    fn missing_authority_is_what_autosys_says_and_not_a_shell() {
        let said = captured(&[b"CAUAJM_E_10262 User x is NOT auth", b"orized to send this event"]);
        assert!(said.no_authority() && !said.invalid_job());
        assert!(!captured(&[b"sh: sendevent: Permission denied"]).no_authority());
        assert!(!captured(&[b"CAUAJM_E_10527 The event server is not available."]).no_authority());
    }

    #[test]
    fn text_is_one_line_and_survives_bad_utf8() {
        assert_eq!(captured(&[b"a\n\t b\xff\n"]).text(), "a b\u{fffd}");
        assert_eq!(captured(&[]).text(), "");
    }
}
