//! `Ssh`: the transport that runs `sendevent` on a selected VM over SSH.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use super::convert::arguments::{self, Location, Secret, Text};
use super::errors::PyOutcome;
use super::selector::{PyRoundRobinSelector, selector_argument};
use crate::autosys::{Mapping, Ssh, SshOptions, Transport};
use crate::error::Error;

/// The transport that runs `sendevent` over SSH on VMs that a selector selects.
///
/// Each batch goes to one selected VM. There is one connection to each VM, which is kept and reused. Each event is a command
/// with its own exit code and output. Every value is quoted for the remote shell, so no character of it is interpreted. If a VM
/// cannot be used (it is not reachable, its host key is not known, it does not accept the key, it has no `sendevent`), the
/// events that were not sent go to the next VM.
///
/// Args:
///     selector: The `RoundRobinSelector`.
///     user: The user who logs in.
///     port: Where sshd listens.
///     key_file: A private key (ed25519, ECDSA or RSA), which only this user may read; None: the keys of the SSH agent.
///     key_passphrase: The passphrase of `key_file`.
///     agent: The agent's socket; None: that of `SSH_AUTH_SOCK`.
///     known_hosts: The file with the keys of hosts, under the VMs' names or addresses; None: `~/.ssh/known_hosts`. A host
///         without a key there is not trusted.
///     program: `sendevent` on the VM: a path, or a name that is in `PATH` there.
///     autostatus: The program on the VM that reads a job's status; None: the status is not read.
///     env_file: A shell file on the VM that is sourced before each call, such as `"/opt/autouser.ACE/autosys.sh.host"`.
///     run_as: The user on the VM who runs the program, through `sudo -n`; None: the user who logs in.
///     comment: Text for `-C`; `{file_name}` becomes the row's file name. Starts with a letter or digit.
///     connect_timeout: Time to connect and log in: seconds, text such as `"15s"`, or a timedelta.
///     timeout: Time for one command. Then the command is left running, and the outcome is unknown.
///     sessions: How many commands run at a time on one VM; the default limit of sshd is 10.
///     batch: How many rows go to one VM before the selector selects the next one.
///
/// Raises:
///     InvalidInputError: An argument can never work, or the key file cannot be used.
///
/// Example:
///     >>> from jobrota import RoundRobinSelector
///     >>> from jobrota.autosys import Ssh
///     >>> selector = RoundRobinSelector({"vm1": {"ip_address": "10.0.0.4"}}, cursor="process", probe="tcp:22")
///     >>> Ssh(selector, user="autosys", agent="/run/user/1000/agent")
///     Ssh(user="autosys", port=22)
#[pyclass(module = "jobrota", name = "Ssh", frozen)]
pub(super) struct PySsh {
    selector: Py<PyRoundRobinSelector>,
    options: SshOptions,
}

impl PySsh {
    /// The transport that sends events by `mapping`.
    pub(super) fn core(&self, mapping: Mapping) -> PyOutcome<Arc<dyn Transport>> {
        let mut options = self.options.clone();
        options.command.mapping = mapping;
        Ok(Arc::new(Ssh::new(self.selector.get().core()?.as_ref().clone(), options)?))
    }
}

#[pymethods]
impl PySsh {
    #[new]
    #[pyo3(signature = (selector, *, user, port = 22, key_file = None, key_passphrase = None, agent = None, known_hosts = None,
                        program = "sendevent", autostatus = Some(Text("autostatus".to_owned())), env_file = None, run_as = None,
                        comment = None, connect_timeout = Duration::from_secs(10), timeout = Duration::from_secs(60),
                        sessions = 8, batch = 32),
           text_signature = "(selector, *, user, port=22, key_file=None, key_passphrase=None, agent=None, known_hosts=None, \
                             program='sendevent', autostatus='autostatus', env_file=None, run_as=None, comment=None, \
                             connect_timeout=10, timeout=60, sessions=8, batch=32)")]
    fn new(
        #[pyo3(from_py_with = selector_argument)] selector: Py<PyRoundRobinSelector>,
        user: Text,
        #[pyo3(from_py_with = arguments::whole)] port: u32,
        key_file: Option<Location>,
        key_passphrase: Option<Secret>,
        agent: Option<Location>,
        known_hosts: Option<Location>,
        #[pyo3(from_py_with = arguments::text)] program: &str,
        autostatus: Option<Text>,
        env_file: Option<Text>,
        run_as: Option<Text>,
        comment: Option<Text>,
        #[pyo3(from_py_with = arguments::duration)] connect_timeout: Duration,
        #[pyo3(from_py_with = arguments::duration)] timeout: Duration,
        #[pyo3(from_py_with = arguments::whole)] sessions: usize,
        #[pyo3(from_py_with = arguments::whole)] batch: usize,
    ) -> PyOutcome<Self> {
        let port = u16::try_from(port).ok().filter(|port| *port > 0);
        let mut options = SshOptions::new(user.0);
        options.port = port.ok_or_else(|| Error::invalid("port must be from 1 to 65535"))?;
        options.key_file = key_file.map(|file| PathBuf::from(file.0));
        options.key_passphrase = key_passphrase.map(|passphrase| passphrase.0.into());
        options.agent = agent.map(|socket| PathBuf::from(socket.0));
        options.known_hosts = known_hosts.map(|file| PathBuf::from(file.0));
        options.command.program = program.to_owned();
        options.command.autostatus = autostatus.map(|program| program.0);
        options.command.env_file = env_file.map(|file| file.0);
        options.command.run_as = run_as.map(|user| user.0);
        options.command.comment = comment.map(|comment| comment.0);
        options.connect_timeout = connect_timeout;
        options.timeout = timeout;
        options.sessions = sessions;
        options.command.batch = batch;
        let made = Self { selector, options };
        // Refuses bad options here, and not at the first delivery.
        made.core(Mapping::change_status())?;
        Ok(made)
    }

    fn __repr__(&self) -> String {
        format!("Ssh(user={:?}, port={})", self.options.user, self.options.port)
    }

    // Whatever can be part of a circle through the selector clears itself.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.selector)
    }
}
