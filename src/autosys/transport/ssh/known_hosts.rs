//! Checks a host's key against the known keys. A key that is not known is not trusted.
//!
//! The file's format is OpenSSH's (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).

use std::path::PathBuf;

use hmac::{Hmac, KeyInit as _, Mac as _};
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, KnownHosts, Marker};
use russh::keys::{HashAlg, PublicKey};
use sha1::Sha1;
use wildmatch::WildMatch;

/// A check of the key of one host.
#[derive(Debug, Clone)]
pub(super) struct HostKeyCheck {
    /// The names that the host may have in the file.
    pub(super) names: Vec<String>,
    pub(super) port: u16,
    /// The file with the known keys.
    pub(super) file: PathBuf,
}

impl HostKeyCheck {
    /// Checks that `key` is the key of the host.
    ///
    /// # Errors
    /// Why it is not trusted, with what to do.
    pub(super) async fn check(&self, key: &PublicKey) -> Result<(), String> {
        let text = match tokio::fs::read_to_string(&self.file).await {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(format!("the known hosts in {} cannot be read: {e}", self.file.display())),
        };
        self.check_against(&text, key)
    }

    fn check_against(&self, text: &str, key: &PublicKey) -> Result<(), String> {
        // A line with a key type that cannot be parsed is about another key.
        let entries = KnownHosts::new(text).filter_map(Result::ok);
        let ours: Vec<Entry> =
            entries.filter(|entry| self.names.iter().any(|name| self.matches(entry.host_patterns(), name))).collect();
        let same = |entry: &&Entry| entry.public_key().key_data() == key.key_data();
        let fingerprint = key.fingerprint(HashAlg::Sha256);
        let (names, file) = (self.names.join(", "), self.file.display());
        if ours.iter().filter(same).any(|entry| entry.marker() == Some(&Marker::Revoked)) {
            return Err(format!("the host key {fingerprint} of {names} is revoked in {file}"));
        }
        let plain = || ours.iter().filter(|entry| entry.marker().is_none());
        // Each name by itself: an address can have passed to another machine, which is then not the VM of this name.
        for name in &self.names {
            let known = || plain().filter(|entry| self.matches(entry.host_patterns(), name));
            let has_this_kind = known().any(|entry| entry.public_key().algorithm() == key.algorithm());
            if has_this_kind && !known().any(|entry| same(&entry)) {
                return Err(format!(
                    "the host key of {name} has CHANGED to {fingerprint}, which is not the one in {file}: the connection may be \
                     intercepted; if the host was set up again, replace its line there"
                ));
            }
        }
        if plain().any(|entry| same(&entry)) {
            return Ok(());
        }
        let port = if self.port == 22 { String::new() } else { format!("-p {} ", self.port) };
        let name = self.names.last().map(String::as_str).unwrap_or_default();
        Err(format!(
            "the host key {fingerprint} of {names} is not known: compare it, and add it to {file}, as with ssh-keyscan {port}{name}"
        ))
    }

    fn matches(&self, patterns: &HostPatterns, name: &str) -> bool {
        let name = match self.port {
            22 => name.to_lowercase(),
            port => format!("[{}]:{port}", name.to_lowercase()),
        };
        match patterns {
            HostPatterns::HashedName { salt, hash } => Hmac::<Sha1>::new_from_slice(salt)
                .is_ok_and(|hmac| hmac.chain_update(name.as_bytes()).verify_slice(hash).is_ok()),
            HostPatterns::Patterns(patterns) => {
                let fits = |pattern: &str| WildMatch::new(&pattern.to_lowercase()).matches(&name);
                let refused = patterns.iter().filter_map(|pattern| pattern.strip_prefix('!')).any(fits);
                !refused && patterns.iter().filter(|pattern| !pattern.starts_with('!')).any(|pattern| fits(pattern))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

    fn check(file: &str, port: u16) -> Result<(), String> {
        let host = HostKeyCheck { names: vec!["vm1".to_owned(), "10.0.0.4".to_owned()], port, file: "known".into() };
        host.check_against(file, &KEY.parse().unwrap())
    }

    #[test]
    fn a_known_key_is_trusted_under_any_of_its_names() {
        for line in ["vm1", "10.0.0.4", "VM1", "other,vm1", "vm*", "10.0.0.?", "*"] {
            assert_eq!(check(&format!("# comment\n\n{line} {KEY} me@here\n"), 22), Ok(()), "{line}");
        }
        assert_eq!(check(&format!("[vm1]:2222 {KEY}\n"), 2222), Ok(()));
    }

    #[test]
    fn an_unknown_key_is_not_trusted_and_its_fingerprint_is_said() {
        for (text, port) in [
            (String::new(), 22),
            (format!("vm2 {KEY}\n"), 22),
            (format!("vm1 {KEY}\n"), 2222),
            (format!("[vm1]:2222 {KEY}\n"), 22),
            (format!("*,!vm1,!10.* {KEY}\n"), 22),
            (format!("@cert-authority vm1 {KEY}\n"), 22),
            ("vm1 ssh-unknown AAAA\nrubbish\n".to_owned(), 22),
        ] {
            let error = check(&text, port).unwrap_err();
            assert!(
                error.contains("SHA256:") && error.contains("not known") && error.contains("ssh-keyscan"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn a_changed_or_revoked_key_is_said_so() {
        assert!(check(&format!("vm1 {OTHER}\n"), 22).unwrap_err().contains("CHANGED"));
        assert!(check(&format!("vm1 {KEY}\n@revoked * {KEY}\n"), 22).unwrap_err().contains("revoked"));
        assert_eq!(check(&format!("vm1 {OTHER}\nvm1 {KEY}\n"), 22), Ok(()), "one of several");
        for (name, other) in [("vm1", "10.0.0.4"), ("10.0.0.4", "vm1")] {
            let error = check(&format!("{name} {OTHER}\n{other} {KEY}\n"), 22).unwrap_err();
            assert!(error.contains(&format!("the host key of {name} has CHANGED")), "{error}");
        }
    }

    #[test]
    fn hashed_names_are_known_too() {
        // Made with `ssh-keygen -H` of "vm1".
        let hashed = "|1|1SXCqd4cqNsYwjBBQMM2XEAIjyU=|";
        let salt =
            base64::Engine::decode(&base64::engine::general_purpose::STANDARD, "1SXCqd4cqNsYwjBBQMM2XEAIjyU=").unwrap();
        let hash = Hmac::<Sha1>::new_from_slice(&salt).unwrap().chain_update(b"vm1").finalize().into_bytes();
        let hash = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, hash);
        assert_eq!(check(&format!("{hashed}{hash} {KEY}\n"), 22), Ok(()));
        assert!(check(&format!("{hashed}{hash} {KEY}\n"), 2222).is_err());
    }
}
