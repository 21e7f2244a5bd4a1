//! Where an inventory came from, when it was listed somewhere and not written down by somebody.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// Where an inventory came from and how old it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// What was listed, such as `Azure subscription …, resource group …`.
    pub source: String,
    /// When it was listed.
    pub listed_at: DateTime<Utc>,
    /// Whether it was remembered, and not asked for anew.
    pub remembered: bool,
    /// VMs that are not in the inventory, each with the reason, in order of their names.
    pub left_out: Vec<(String, String)>,
    /// What the user should know about it, such as its age when it had to be taken for want of a new one.
    pub warning: Option<String>,
}

impl Origin {
    /// How long ago it was listed.
    pub fn age(&self) -> Duration {
        (Utc::now() - self.listed_at).to_std().unwrap_or_default()
    }
}
