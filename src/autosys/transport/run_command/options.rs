//! How Run Command is used, and which wishes it refuses.

use std::fmt;
use std::time::Duration;

use super::super::command;
use super::script;
use crate::autosys::event::Mapping;
use crate::azure::{Credential, Variables, check_segment};
use crate::error::{Error, Result};

/// How [`RunCommand`] sends.
#[derive(Clone)]
pub struct RunCommandOptions {
    /// The subscription's id.
    pub subscription_id: String,
    /// The VMs' resource group; `None`: Resource Manager is asked, once, in which one each VM is.
    pub resource_group: Option<String>,
    /// Whose rights are used.
    pub credential: Credential,
    /// `public`, `usgov`, `china`, or the address of a Resource Manager; `None`: public.
    pub endpoint: Option<String>,
    /// The login service, where it is not the cloud's own.
    pub authority_host: Option<String>,
    /// The environment variables.
    pub variables: Variables,
    /// The program on the VM: a path, or a name that is looked up in `PATH` there.
    pub program: String,
    /// A file on the VM that is sourced once per script, such as `/opt/autouser.ACE/autosys.sh.host`.
    pub env_file: Option<String>,
    /// The program that tells a job's status, such as `autostatus`; `None`: the status is not read, as one takes a script
    /// of its own, of half a minute or so.
    pub autostatus: Option<String>,
    /// The user on the VM who runs it all, through `sudo`; `None`: root, as whom Run Command works.
    pub run_as: Option<String>,
    /// Text for `-C`, which starts with a letter or digit; `{file_name}` becomes the row's file name. Cut at 255
    /// characters, control characters become spaces.
    pub comment: Option<String>,
    /// Events per script, from 1 to 60. More leave less room for what each prints: the output has 4,096 bytes for all.
    pub batch: usize,
    /// Longest run of the program for one event, where the VM has `timeout`; then its outcome is unknown.
    pub event_timeout: Duration,
    /// Longest wait for the VM's turn while it runs somebody else's command.
    pub busy_timeout: Duration,
    /// Longest wait for the end of a script. Azure itself ends one after 90 minutes.
    pub timeout: Duration,
    /// Which event each status stands for.
    pub mapping: Mapping,
}

impl RunCommandOptions {
    /// The options for the VMs of a subscription, everything else as usual.
    pub fn new(subscription_id: impl Into<String>, resource_group: Option<String>) -> Self {
        Self {
            subscription_id: subscription_id.into(),
            resource_group,
            credential: Credential::Environment,
            endpoint: None,
            authority_host: None,
            variables: Variables::of_this_process(),
            program: "sendevent".to_owned(),
            env_file: None,
            autostatus: None,
            run_as: None,
            comment: None,
            batch: script::USUAL_BATCH,
            event_timeout: Duration::from_secs(60),
            busy_timeout: Duration::from_secs(600),
            timeout: Duration::from_secs(5400),
            mapping: Mapping::default(),
        }
    }

    /// Refuses what can never work.
    pub(super) fn check(&self) -> Result<()> {
        check_segment("subscription_id", &self.subscription_id)?;
        if let Some(group) = &self.resource_group {
            check_segment("resource_group", group)?;
        }
        for (what, program) in [("program", Some(&self.program)), ("autostatus", self.autostatus.as_ref())] {
            if program
                .is_some_and(|text| text.is_empty() || text.starts_with('-') || text.chars().any(char::is_control))
            {
                return Err(Error::invalid(format!(
                    "{what} must be a path on the VM, or a name that is in PATH there, without control characters"
                )));
            }
        }
        if self.env_file.as_ref().is_some_and(|file| !file.starts_with('/') || file.chars().any(char::is_control)) {
            return Err(Error::invalid("env_file must be an absolute path on the VM, without control characters"));
        }
        let user = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if self.run_as.as_ref().is_some_and(|name| name.is_empty() || name.starts_with('-') || !name.chars().all(user))
        {
            return Err(Error::invalid("run_as must be the name of a user: letters, digits and ._-"));
        }
        if self.batch == 0 || self.batch > script::MOST {
            return Err(Error::invalid(format!("batch is {}; give 1 to {}", self.batch, script::MOST)));
        }
        if [self.event_timeout, self.timeout].iter().any(Duration::is_zero) {
            return Err(Error::invalid("event_timeout and timeout must be more than 0 seconds"));
        }
        command::check_comment(self.comment.as_deref())
    }
}

impl fmt::Debug for RunCommandOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunCommandOptions")
            .field("subscription_id", &self.subscription_id)
            .field("resource_group", &self.resource_group)
            .field("credential", &self.credential)
            .field("program", &self.program)
            .field("env_file", &self.env_file)
            .field("run_as", &self.run_as)
            .field("batch", &self.batch)
            .finish_non_exhaustive()
    }
}
