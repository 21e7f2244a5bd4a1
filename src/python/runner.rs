//! `ViyaComparisonRunner`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use super::attach::attached;
use super::callables::{Call, HeldObjects};
use super::comparison_result::PyComparisonResult;
use super::convert;
use super::convert::arguments::{self, Location, Secret, Text};
use super::credentials::credentials;
use super::errors::{ForkGuard, PyOutcome, refuse};
use super::storage_options::StorageOptions;
use super::viya_session::client_options;
use super::wait::{CallMode, in_context};
use crate::comparison::{
    self, ComparisonResult, JobOrder, ProgressEvent, ProgressListener, RunnerOptions, job_durations,
};
use crate::runtime::lock;
use crate::viya::{ClientOptions, server};

/// Runs the same SAS Viya jobs sequentially in one compute context and asynchronously in another, and compares them with
/// the Workload Orchestrator's own evidence.
///
/// Args:
///     base_url: The server, such as `https://viya.example.com`; else the setting `base_url` (`JOBROTA_BASE_URL`, or
///         `jobrota.toml`), else `SAS_BASE_URL`, `SAS_SERVICES_ENDPOINT`, `VIYA_ENDPOINT`, `VIYA_BASE_URL` or
///         `SAS_VIYA_URL`, else the endpoint of the profile of SAS's own command line.
///     tokens: A token file, which is renewed in place before it expires; a callable that gives tokens; or
///         `jobrota.viya.Credentials`. Else `data/sas_tokens.json`, else the login of the environment.
///     jobs: The job configuration file.
///     mode: `"batch"`: batches of `concurrent`, each waited for; `"window"`: always `concurrent` jobs in flight; `"all"`:
///         all at once. Of the asynchronous arms.
///     concurrent: Jobs of a batch, or in flight.
///     sequential_context: Compute context of the sequential arm.
///     async_context: Compute context of the asynchronous arm.
///     arms: `"three_way"` adds the asynchronous arm in the sequential arm's context, without which parallelism and context
///         cannot be told apart; or a list of `Arm`; or a file that has one (JSON, YAML, TOML).
///     limit_jobs: Only the first so many enabled jobs.
///     sequential_only: Only the sequential arm.
///     async_only: Only the asynchronous arm.
///     repeat: Rounds. In each, all arms run, in forward and reverse order alternately; below 5 rounds no difference is claimed.
///     results_dir: Where the result JSON is written.
///     poll_interval: Time between two reads of a job's state, if the server does not hold its answer until the job has
///         ended. Times are seconds, text such as `"15m"`, or a timedelta.
///     job_timeout: Time after which a job is canceled and counts as failed.
///     correlation_timeout: How long the runner looks for the orchestrator's entries.
///     pause: Time between two arms, in which hosts that are not needed can be released.
///     order: `"submission"`: jobs start in the order of the file; `"longest_first"`: those with the longest earlier runs
///         first.
///     durations_from: For `"longest_first"`: a result file, a `ComparisonResult`, or the duration of each job by its name;
///         else the newest result in `results_dir`.
///     expires_after: ISO 8601 duration after which the server deletes the jobs, such as `P7D`; None keeps them.
///     cleanup: Delete the jobs, with their logs and results, once the result is written.
///     host_price: The price of an hour of a compute host, for the cost of jobs.
///     ca_bundle: A PEM file with certificates to trust in addition to the system's.
///     proxy: A proxy for all calls; else that of `HTTPS_PROXY` and `NO_PROXY`.
///     verify: False does not check the server's certificate, and warns about it.
///     connect_timeout: Time to open a connection.
///     read_timeout: Longest time without data within an answer.
///     results_table: Directory or URI of a Delta table that keeps the jobs of every run: see `comparison_history`.
///     storage_options: Credentials and the like of its store.
///     time_scale: Seconds of the server that pass in one real second: 1, or the `speed` of a `Sandbox` of another process.
///         A `Sandbox` of this process has its own `speed` without it.
///
/// Raises:
///     InvalidInputError: An argument can never work.
///     NotFoundError: The file of `arms` does not exist.
///
/// Example:
///     >>> import tempfile
///     >>> from jobrota import Sandbox, ViyaComparisonRunner
///     >>> with Sandbox(autosys=False, speed=500) as sandbox:
///     ...     runner = ViyaComparisonRunner(
///     ...         sandbox.viya_url, tokens=sandbox.tokens, jobs=sandbox.jobs, limit_jobs=3,
///     ...         results_dir=tempfile.mkdtemp(),
///     ...     )
///     ...     result = runner.run(progress=False)
///     >>> result.failed_jobs
///     0
#[pyclass(module = "jobrota", name = "ViyaComparisonRunner", frozen)]
pub(super) struct PyViyaComparisonRunner {
    runner: Arc<comparison::ViyaComparisonRunner>,
    held: HeldObjects,
    guard: ForkGuard,
}

/// Passes the events of a run to a callable. The first exception ends the reports and is kept for the caller. An exception that
/// concerns more than the report, such as KeyboardInterrupt, ends the run.
struct Reporter {
    callback: Option<Py<PyAny>>,
    call: Arc<Call>,
    failed: Mutex<Option<PyErr>>,
}

impl Reporter {
    fn report(&self, event: &ProgressEvent) {
        let Some(callback) = &self.callback else { return };
        attached(|py| {
            // The mutex is only locked while the GIL is held, and never during the callback: otherwise, a thread with the mutex
            // and a thread with the GIL could wait for each other.
            if lock(&self.failed).is_some() {
                return;
            }
            let called = convert::record(py, event).map_err(PyErr::from).and_then(|event| callback.call1(py, (event,)));
            if let Err(error) = called {
                self.call.interrupted_by(py, &error);
                *lock(&self.failed) = Some(error);
            }
        });
    }

    /// The callback for the core.
    fn progress(self: &Arc<Self>) -> Option<ProgressListener> {
        let reporter = self.callback.is_some().then(|| Arc::clone(self))?;
        Some(Arc::new(move |event| reporter.report(&event)))
    }

    /// The result for Python. An exception that interrupted the run has the core's error as its cause, which says where the
    /// finished work is written.
    fn finish(&self, py: Python<'_>, result: PyOutcome<ComparisonResult>) -> PyOutcome<PyComparisonResult> {
        if let Some(interrupt) = self.call.take_exception() {
            interrupt.set_cause(py, result.err().map(PyErr::from));
            return Err(interrupt.into());
        }
        let result = result?;
        let failed = lock(&self.failed).take();
        failed.map_or_else(|| Ok(PyComparisonResult::from(result)), |error| Err(error.into()))
    }
}

#[pymethods]
impl PyViyaComparisonRunner {
    #[new]
    #[pyo3(signature = (base_url = None, *, tokens = None, jobs = None, mode = "batch", concurrent = 5,
                        sequential_context = None, async_context = None, arms = None, limit_jobs = None,
                        sequential_only = false, async_only = false, repeat = 1, results_dir = None,
                        poll_interval = 0.8, job_timeout = 3600.0, correlation_timeout = 60.0, pause = 0.0,
                        order = "submission", durations_from = None, expires_after = Some(Text("P7D".to_owned())), cleanup = false,
                        host_price = None, ca_bundle = None, proxy = None, verify = true, connect_timeout = 10.0,
                        read_timeout = 60.0, results_table = None, storage_options = None,
                        time_scale = None))]
    fn new(
        py: Python<'_>,
        base_url: Option<Text>,
        tokens: Option<&Bound<'_, PyAny>>,
        jobs: Option<Location>,
        #[pyo3(from_py_with = arguments::text)] mode: &str,
        #[pyo3(from_py_with = arguments::whole)] concurrent: usize,
        sequential_context: Option<Text>,
        async_context: Option<Text>,
        arms: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::optional_whole)] limit_jobs: Option<usize>,
        #[pyo3(from_py_with = arguments::flag)] sequential_only: bool,
        #[pyo3(from_py_with = arguments::flag)] async_only: bool,
        #[pyo3(from_py_with = arguments::whole)] repeat: u32,
        results_dir: Option<Location>,
        #[pyo3(from_py_with = arguments::unlimited_seconds)] poll_interval: f64,
        #[pyo3(from_py_with = arguments::unlimited_seconds)] job_timeout: f64,
        #[pyo3(from_py_with = arguments::unlimited_seconds)] correlation_timeout: f64,
        #[pyo3(from_py_with = arguments::unlimited_seconds)] pause: f64,
        #[pyo3(from_py_with = arguments::text)] order: &str,
        durations_from: Option<&Bound<'_, PyAny>>,
        expires_after: Option<Text>,
        #[pyo3(from_py_with = arguments::flag)] cleanup: bool,
        #[pyo3(from_py_with = arguments::optional_number)] host_price: Option<f64>,
        ca_bundle: Option<Location>,
        proxy: Option<Secret>,
        #[pyo3(from_py_with = arguments::flag)] verify: bool,
        #[pyo3(from_py_with = arguments::seconds)] connect_timeout: f64,
        #[pyo3(from_py_with = arguments::seconds)] read_timeout: f64,
        results_table: Option<Location>,
        storage_options: Option<StorageOptions>,
        #[pyo3(from_py_with = arguments::optional_number)] time_scale: Option<f64>,
    ) -> PyOutcome<Self> {
        let held = HeldObjects::default();
        let StorageOptions { options: storage_options, held: provider } = storage_options.unwrap_or_default();
        held.extend(provider);
        let defaults = RunnerOptions::default();
        let path =
            |value: Option<Location>, default: &Path| value.map_or_else(|| default.to_owned(), |path| path.0.into());
        let options = RunnerOptions {
            base_url: server::require(base_url.as_ref().map(|url| url.0.as_str()))?,
            tokens: credentials(tokens, &held)?,
            client: ClientOptions {
                time_scale,
                ..client_options(py, ca_bundle, proxy, verify, connect_timeout, read_timeout)?
            },
            jobs: path(jobs, &defaults.jobs),
            arms: super::arm::arms(arms)?,
            mode: mode.parse()?,
            concurrent,
            repeat,
            pause,
            order: job_order(order, durations_from)?,
            expires_after: expires_after.map(|duration| duration.0),
            cleanup,
            host_price,
            results_table: results_table.map(|root| (root.0, storage_options)),
            sequential_context: sequential_context.map_or_else(|| defaults.sequential_context.clone(), |name| name.0),
            async_context: async_context.map_or_else(|| defaults.async_context.clone(), |name| name.0),
            limit_jobs,
            sequential_only,
            async_only,
            results_dir: path(results_dir, &defaults.results_dir),
            poll_interval,
            job_timeout,
            correlation_timeout,
        };
        Ok(Self { runner: Arc::new(comparison::ViyaComparisonRunner::new(options)?), held, guard: ForkGuard::new() })
    }

    /// Runs the comparison and writes the result JSON.
    ///
    /// Ctrl-C, and SIGTERM in the main thread of a program without its own handler, cancel the jobs that run on the server. The
    /// results so far are written, and the cause of the exception says where.
    ///
    /// Args:
    ///     progress: True for progress bars, False for none, or a callable that gets a dict per event (arm, done, failed,
    ///         in_flight, total, job, state).
    ///
    /// Returns:
    ///     A `ComparisonResult`.
    ///
    /// Raises:
    ///     NotFoundError: A file or a compute context does not exist. No job was submitted.
    ///     AuthenticationError: The tokens are expired or refused.
    ///     NetworkError: The server cannot be reached; a retry can help.
    #[pyo3(signature = (progress = None))]
    fn run(&self, py: Python<'_>, progress: Option<&Bound<'_, PyAny>>) -> PyOutcome {
        self.run_with_signals(py, None, progress)
    }

    /// Continues an interrupted run. Jobs that have ended do not run again, and jobs that were running are followed further.
    ///
    /// Arms, jobs and rounds are those of the journal; server, tokens, folders and limits are those of this runner.
    ///
    /// Args:
    ///     journal: The journal of the interrupted run: the `….journal.jsonl` file (or `….journal` folder) in `results_dir`.
    ///     progress: As in `run`.
    ///
    /// Returns:
    ///     A `ComparisonResult` of the whole run.
    ///
    /// Raises:
    ///     NotFoundError: There is no such journal.
    ///     InvalidInputError: It is not a journal, or the run was on another server.
    ///     ConflictError: Another process uses it.
    #[pyo3(signature = (journal, progress = None))]
    fn resume(&self, py: Python<'_>, journal: Location, progress: Option<&Bound<'_, PyAny>>) -> PyOutcome {
        self.run_with_signals(py, Some(journal.0.into()), progress)
    }

    /// Like `resume`, as a coroutine, without progress bars.
    ///
    /// Args:
    ///     journal: The journal of the interrupted run.
    ///     progress: A callable that gets a dict per event, or None.
    #[pyo3(signature = (journal, progress = None))]
    fn resume_async(&self, py: Python<'_>, journal: Location, progress: Option<&Bound<'_, PyAny>>) -> PyOutcome {
        let callback = progress.map(callable).transpose()?;
        self.run_with(CallMode::Coroutine(py), Some(journal.0.into()), callback)
    }

    /// Like `run`, as a coroutine, without progress bars. Canceling it cancels the jobs that run on the server, and the results
    /// so far are written.
    ///
    /// Args:
    ///     progress: A callable that gets a dict per event, or None.
    #[pyo3(signature = (progress = None))]
    fn run_async(&self, py: Python<'_>, progress: Option<&Bound<'_, PyAny>>) -> PyOutcome {
        let callback = progress.map(callable).transpose()?;
        self.run_with(CallMode::Coroutine(py), None, callback)
    }

    /// Version and configuration as text. Sends no request to a server.
    fn describe(&self) -> PyOutcome<String> {
        Ok(self.runner.describe()?)
    }

    fn __repr__(&self) -> String {
        format!("ViyaComparisonRunner({:?})", self.runner.options.base_url)
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let description = self.runner.describe().unwrap_or_else(|error| error.full_message());
        convert::repr_html(py, "runner", description)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.held.traverse(&visit, Arc::strong_count(&self.runner) > 1)
    }

    fn __clear__(&self) {
        self.held.clear();
    }
}

fn callable(progress: &Bound<'_, PyAny>) -> PyOutcome {
    if progress.is_callable() {
        return Ok(progress.clone().unbind());
    }
    refuse(format!("progress must be True, False or a callable that takes a dict, not {}", progress.repr()?))
}

/// The order in which jobs are started.
fn job_order(order: &str, durations_from: Option<&Bound<'_, PyAny>>) -> PyOutcome<JobOrder> {
    match order {
        "submission" if durations_from.is_none() => Ok(JobOrder::Submission),
        "submission" => refuse("durations_from is for order=\"longest_first\": say that as well, or leave it out"),
        "longest_first" => {
            let Some(value) = durations_from else { return Ok(JobOrder::LongestFirst(None)) };
            let known: HashMap<String, f64> = if let Some(named) = arguments::mapping(value)? {
                let seconds = named.iter().map(|(name, value)| {
                    let seconds = arguments::named(value.py(), "durations_from", arguments::unlimited_seconds(&value))?;
                    if !(0.0..f64::INFINITY).contains(&seconds) {
                        return Err(arguments::invalid(format!("durations_from[{name}] must be 0 or more")));
                    }
                    Ok((name.extract()?, seconds))
                });
                seconds.collect::<PyResult<_>>()?
            } else if let Ok(result) = value.cast::<PyComparisonResult>() {
                result.get().durations()?
            } else {
                let file = arguments::named(value.py(), "durations_from", arguments::location(value))?;
                job_durations::read(Path::new(&file))?
            };
            Ok(JobOrder::LongestFirst(Some(known)))
        }
        other => refuse(format!("order {other:?} is unknown: it is \"submission\" or \"longest_first\"")),
    }
}

impl PyViyaComparisonRunner {
    /// Runs, or resumes from `journal`. A scheduler ends its tasks with SIGTERM: it cancels running jobs, as Ctrl-C does.
    fn run_with_signals(
        &self,
        py: Python<'_>,
        journal: Option<PathBuf>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome {
        let terminable = py.import("jobrota.signals")?.call_method0("terminable")?;
        in_context(&terminable, |_| {
            let flag = progress.map_or(Some(true), |value| value.extract::<bool>().ok());
            match (flag, progress) {
                (Some(false), _) => self.run_with(CallMode::Wait(py), journal, None),
                (None, Some(callback)) => self.run_with(CallMode::Wait(py), journal, Some(callable(callback)?)),
                _ => {
                    let bars = py.import("jobrota.progress")?.call_method0("make_progress")?;
                    in_context(&bars, |bars| self.run_with(CallMode::Wait(py), journal, Some(bars)))
                }
            }
        })
    }

    fn run_with(&self, mode: CallMode<'_>, journal: Option<PathBuf>, callback: Option<Py<PyAny>>) -> PyOutcome {
        self.guard.check("ViyaComparisonRunner")?;
        let runner = Arc::clone(&self.runner);
        let reporter = Arc::new(Reporter { callback, call: Arc::default(), failed: Mutex::default() });
        let (progress, call) = (reporter.progress(), Arc::clone(&reporter.call));
        let stop = call.stop();
        let work = async move {
            match journal {
                Some(journal) => runner.resume(&journal, progress, &stop).await,
                None => runner.run(progress, &stop).await,
            }
        };
        mode.run_stoppable(call, work, move |py, result| reporter.finish(py, result))
    }
}
