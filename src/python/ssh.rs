//! `Ssh`: SSH to a selected VM as the way to AutoSys.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;

use super::arguments;
use super::errors::PyOutcome;
use super::selector::PyRoundRobinSelector;
use crate::autosys::{Mapping, Ssh, SshOptions, Transport};
use crate::error::Error;

/// `sendevent` on VMs that a selector picks, over SSH, as the way to AutoSys.
///
/// Each batch goes to the VM that the selector picks; there is one connection to each VM, which is kept and used again. Each
/// event is a command of its own with an exit code and an output of its own. Every value is quoted for the shell on the other
/// side, so that no character of it is interpreted. A VM that cannot be used (it is not reachable, its host key is not known, it
/// does not accept the key, it has no `sendevent`) hands what was not sent to the next one.
///
/// Args:
///     selector: The `RoundRobinSelector`.
///     user: Who logs in.
///     port: Where sshd listens.
///     key_file: A private key (ed25519, ECDSA or RSA), which nobody else may read; None: the keys of the SSH agent.
///     key_passphrase: What `key_file` is encrypted with.
///     agent: The agent's socket; None: that of `SSH_AUTH_SOCK`.
///     known_hosts: The keys of hosts, under the VMs' names or addresses; None: `~/.ssh/known_hosts`. A host whose key is not
///         there is not trusted.
///     program: `sendevent` on the VM: a path, or a name that is in `PATH` there.
///     autostatus: The program there that tells a job's status; None: it is not asked for.
///     env_file: A shell file there that is sourced before each call, such as `"/opt/autouser.ACE/autosys.sh.host"`.
///     run_as: The user there who runs the program, through `sudo -n`; None: who logs in.
///     comment: Text for `-C`; `{file_name}` becomes the row's file name. Starts with a letter or digit.
///     connect_timeout: Seconds for connecting and logging in.
///     timeout: Seconds for one command; then it is left to itself, and the outcome is unknown.
///     sessions: How many commands may run at a time on one VM; sshd allows 10 unless told otherwise.
///     batch: How many rows go to one VM before the selector picks the next one.
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
    /// The transport that sends what `mapping` says.
    pub(super) fn core(&self, mapping: Mapping) -> PyOutcome<Arc<dyn Transport>> {
        let mut options = self.options.clone();
        options.mapping = mapping;
        Ok(Arc::new(Ssh::new(self.selector.get().core()?.as_ref().clone(), options)?))
    }
}

#[pymethods]
impl PySsh {
    #[new]
    #[pyo3(signature = (selector, *, user, port = 22, key_file = None, key_passphrase = None, agent = None, known_hosts = None,
                        program = "sendevent", autostatus = Some("autostatus".to_owned()), env_file = None, run_as = None,
                        comment = None, connect_timeout = Duration::from_secs(10), timeout = Duration::from_secs(60),
                        sessions = 8, batch = 32),
           text_signature = "(selector, *, user, port=22, key_file=None, key_passphrase=None, agent=None, known_hosts=None, \
                             program='sendevent', autostatus='autostatus', env_file=None, run_as=None, comment=None, \
                             connect_timeout=10, timeout=60, sessions=8, batch=32)")]
    #[allow(clippy::too_many_arguments, reason = "one per keyword of the Python class")]
    fn new(
        selector: &Bound<'_, PyAny>,
        #[pyo3(from_py_with = arguments::text)] user: &str,
        #[pyo3(from_py_with = arguments::whole)] port: u32,
        #[pyo3(from_py_with = arguments::optional_location)] key_file: Option<String>,
        #[pyo3(from_py_with = arguments::optional_text)] key_passphrase: Option<String>,
        #[pyo3(from_py_with = arguments::optional_location)] agent: Option<String>,
        #[pyo3(from_py_with = arguments::optional_location)] known_hosts: Option<String>,
        #[pyo3(from_py_with = arguments::text)] program: &str,
        #[pyo3(from_py_with = arguments::optional_text)] autostatus: Option<String>,
        #[pyo3(from_py_with = arguments::optional_text)] env_file: Option<String>,
        #[pyo3(from_py_with = arguments::optional_text)] run_as: Option<String>,
        #[pyo3(from_py_with = arguments::optional_text)] comment: Option<String>,
        #[pyo3(from_py_with = arguments::span)] connect_timeout: Duration,
        #[pyo3(from_py_with = arguments::span)] timeout: Duration,
        #[pyo3(from_py_with = arguments::whole)] sessions: usize,
        #[pyo3(from_py_with = arguments::whole)] batch: usize,
    ) -> PyOutcome<Self> {
        let selector = selector.cast::<PyRoundRobinSelector>().map_err(|_| {
            let kind = selector.get_type().name().map(|name| name.to_string()).unwrap_or_default();
            Error::invalid(format!("selector must be a RoundRobinSelector, not {kind}"))
        })?;
        let port = u16::try_from(port).ok().filter(|port| *port > 0);
        let mut options = SshOptions::new(user);
        options.port = port.ok_or_else(|| Error::invalid("port must be from 1 to 65535"))?;
        options.key_file = key_file.map(PathBuf::from);
        options.key_passphrase = key_passphrase.map(Into::into);
        options.agent = agent.map(PathBuf::from);
        options.known_hosts = known_hosts.map(PathBuf::from);
        options.program = program.to_owned();
        options.autostatus = autostatus;
        options.env_file = env_file;
        options.run_as = run_as;
        options.comment = comment;
        options.connect_timeout = connect_timeout;
        options.timeout = timeout;
        options.sessions = sessions;
        options.batch = batch;
        let made = Self { selector: selector.clone().unbind(), options };
        // Made once here only to refuse bad options where they are given, not at the first delivery.
        made.core(Mapping::default())?;
        Ok(made)
    }

    fn __repr__(&self) -> String {
        format!("Ssh(user={:?}, port={})", self.options.user, self.options.port)
    }
}
