//! The options of Run Command, and their checks.

use std::time::Duration;

use super::super::command;
use super::script;
use crate::autosys::event::Mapping;
use crate::azure::{Credential, Variables, check_segment};
use crate::error::{Error, Result};

/// How [`super::RunCommand`] sends.
#[derive(Debug, Clone)]
pub struct RunCommandOptions {
    /// The subscription's id.
    pub subscription_id: String,
    /// The VMs' resource group; `None`: Resource Manager is asked once for the group of each VM.
    pub resource_group: Option<String>,
    /// Whose rights are used.
    pub credential: Credential,
    /// `public`, `usgov`, `china`, or the address of a Resource Manager; `None`: public.
    pub endpoint: Option<String>,
    /// The login service, when it is not the cloud's own.
    pub authority_host: Option<String>,
    /// The environment variables.
    pub variables: Variables,
    /// The program on the VM: a path, or a name that is looked up in `PATH` there.
    pub program: String,
    /// A file on the VM that is sourced once per script, such as `/opt/autouser.ACE/autosys.sh.host`.
    pub env_file: Option<String>,
    /// The program that prints a job's status, such as `autostatus`; `None`: the status is not read. Reading it takes a
    /// script of its own, of about half a minute.
    pub autostatus: Option<String>,
    /// The user on the VM who runs the script, through `sudo`; `None`: root, the user of Run Command.
    pub run_as: Option<String>,
    /// Text for `-C`, which starts with a letter or digit; `{file_name}` becomes the row's file name. Cut at 255
    /// characters, control characters become spaces.
    pub comment: Option<String>,
    /// Events per script, from 1 to 60. The output has 4,096 bytes for all of them, so that more events leave less for each.
    pub batch: usize,
    /// Longest run of the program for one event, if the VM has `timeout`. Then its outcome is unknown.
    pub event_timeout: Duration,
    /// Longest wait while the VM runs another command.
    pub busy_timeout: Duration,
    /// Longest wait for the end of a script. Azure itself ends a script after 90 minutes.
    pub timeout: Duration,
    /// The event of each status.
    pub mapping: Mapping,
}

impl RunCommandOptions {
    /// The default options for the VMs of a subscription.
    pub fn new(subscription_id: impl Into<String>, resource_group: Option<String>) -> Self {
        Self {
            subscription_id: subscription_id.into(),
            resource_group,
            credential: Credential::Environment,
            endpoint: None,
            authority_host: None,
            variables: Variables::from_process(),
            program: "sendevent".to_owned(),
            env_file: None,
            autostatus: None,
            run_as: None,
            comment: None,
            batch: script::DEFAULT_BATCH,
            event_timeout: Duration::from_secs(60),
            busy_timeout: Duration::from_secs(600),
            timeout: Duration::from_secs(5400),
            mapping: Mapping::default(),
        }
    }

    /// Refuses options that can never work.
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
        if self.batch == 0 || self.batch > script::MOST_EVENTS {
            return Err(Error::invalid(format!("batch is {}; give 1 to {}", self.batch, script::MOST_EVENTS)));
        }
        if [self.event_timeout, self.timeout].iter().any(Duration::is_zero) {
            return Err(Error::invalid("event_timeout and timeout must be more than 0 seconds"));
        }
        command::check_comment(self.comment.as_deref())
    }
}
