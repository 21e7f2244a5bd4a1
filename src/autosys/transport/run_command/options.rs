//! The options of Run Command, and their checks.

use std::time::Duration;

use super::super::vms::VmCommand;
use super::script;
use crate::azure::{Credential, CredentialVariables, check_segment};
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
    pub variables: CredentialVariables,
    /// Longest run of the program for one event, if the VM has `timeout`. Then its outcome is unknown.
    pub event_timeout: Duration,
    /// Longest wait while the VM runs another command.
    pub busy_timeout: Duration,
    /// Longest wait for the end of a script. Azure itself ends a script after 90 minutes.
    pub timeout: Duration,
    /// What is run on the VM: from 1 to 60 events per script, whose output has 4,096 bytes for all of them. Reading a status
    /// takes a script of its own, of about half a minute.
    pub command: VmCommand,
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
            variables: CredentialVariables::from_process(),
            event_timeout: Duration::from_secs(60),
            busy_timeout: Duration::from_secs(600),
            timeout: Duration::from_secs(5400),
            command: VmCommand::new(None, script::DEFAULT_BATCH),
        }
    }

    /// Refuses options that can never work.
    pub(super) fn check(&self) -> Result<()> {
        check_segment("subscription_id", &self.subscription_id)?;
        if let Some(group) = &self.resource_group {
            check_segment("resource_group", group)?;
        }
        self.command.check()?;
        let VmCommand { program, autostatus, env_file, run_as, batch, .. } = &self.command;
        if program.starts_with('-') || autostatus.as_ref().is_some_and(|text| text.starts_with('-')) {
            return Err(Error::invalid(
                "program and autostatus must be paths on the VM, or names that are in PATH there",
            ));
        }
        if env_file.as_ref().is_some_and(|file| !file.starts_with('/')) {
            return Err(Error::invalid("env_file must be an absolute path on the VM"));
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if run_as.as_ref().is_some_and(|user| !user.chars().all(fits)) {
            return Err(Error::invalid("run_as must be the name of a user: letters, digits and ._-"));
        }
        if *batch > script::MOST_EVENTS {
            return Err(Error::invalid(format!("batch is {batch}; give 1 to {}", script::MOST_EVENTS)));
        }
        if [self.event_timeout, self.timeout].iter().any(Duration::is_zero) {
            return Err(Error::invalid("event_timeout and timeout must be more than 0 seconds"));
        }
        Ok(())
    }
}
