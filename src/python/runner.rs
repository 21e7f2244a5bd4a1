//! `ViyaComparisonRunner`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments;
use super::attach::attached;
use super::comparison_result::PyComparisonResult;
use super::convert;
use super::credentials::credentials;
use super::errors::{PyOutcome, Raised};
use super::interrupt::Run;
use super::viya_session::client_options;
use super::wait::{self, Born};
use crate::comparison::{self, ComparisonResult, JobOrder, Mode, ProgressEvent, RunnerOptions, durations};
use crate::error::Error;
use crate::stop::Stop;
use crate::viya::{ClientOptions, server};

/// Runs the same SAS Viya jobs sequentially in one compute context and asynchronously in another, and compares them with
/// the Workload Orchestrator's own evidence.
///
/// Args:
///     base_url: The server, such as `https://viya.example.com`; else the setting `base_url` (`JOBROTA_BASE_URL`, or
///         `jobrota.toml`), else `SAS_BASE_URL`, `SAS_SERVICES_ENDPOINT`, `VIYA_ENDPOINT`, `VIYA_BASE_URL` or
///         `SAS_VIYA_URL`, else the endpoint of the profile of SAS's own command line.
///     tokens: A token file, which is renewed in place before it expires; a callable that gives tokens; or
///         `jobrota.viya.Credentials`. Else `data/sas_tokens.json`, else what the environment has.
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
///     repeat: Rounds. In each all arms run, forth and back in turn; below 5 rounds no difference is claimed.
///     results_dir: Where the result JSON is written.
///     poll_interval: Seconds between two looks at a job, where the server does not wait with its answer until the job
///         has ended.
///     job_timeout: Seconds after which a job is canceled and counts as failed.
///     correlation_timeout: Seconds for which the orchestrator's entries are looked for.
///     pause: Seconds between one arm and the next, so that hosts which are not needed can go.
///     order: `"submission"`: jobs are let in as the file has them; `"longest_first"`: as long as they took before.
///     durations_from: For `"longest_first"`: a result file, a `ComparisonResult`, or seconds by name of the job; else the
///         newest result in `results_dir`.
///     expires_after: ISO 8601 duration after which the server deletes the jobs, such as `P7D`; None keeps them.
///     cleanup: Delete the jobs, with their logs and results, once the result is written.
///     host_price: What an hour of a compute host costs, for the cost of jobs.
///     ca_bundle: A PEM file with certificates to trust beside the system's.
///     proxy: A proxy for all calls; else what `HTTPS_PROXY` and `NO_PROXY` say.
///     verify: False does not check the server's certificate, and says so loudly.
///     connect_timeout: Seconds to open a connection.
///     read_timeout: Longest silence within an answer, seconds.
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
    born: Born,
}

/// Hands the runner's events to Python; the first exception ends the reports and is kept for the caller. One that is about
/// more than the report, such as KeyboardInterrupt, ends the run.
struct Reporter {
    callback: Py<PyAny>,
    run: Arc<Run>,
    failed: Mutex<Option<PyErr>>,
}

fn event_dict<'py>(py: Python<'py>, event: &ProgressEvent) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("arm", &event.arm)?;
    dict.set_item("round", event.round)?;
    dict.set_item("rounds", event.rounds)?;
    dict.set_item("done", event.done)?;
    dict.set_item("failed", event.failed)?;
    dict.set_item("in_flight", event.in_flight)?;
    dict.set_item("total", event.total)?;
    dict.set_item("job", &event.job)?;
    dict.set_item("state", &event.state)?;
    Ok(dict)
}

impl Reporter {
    fn report(&self, event: &ProgressEvent) {
        attached(|py| {
            // Locked for a moment only, and always with the GIL: whoever waits for the other one would wait for ever.
            if self.failed().is_some() {
                return;
            }
            let called = event_dict(py, event).and_then(|event| self.callback.bind(py).call1((event,)));
            if let Err(error) = called {
                self.run.interrupted_by(py, &error);
                *self.failed() = Some(error);
            }
        });
    }

    fn failed(&self) -> MutexGuard<'_, Option<PyErr>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl PyViyaComparisonRunner {
    #[new]
    #[pyo3(signature = (base_url = None, *, tokens = None, jobs = None, mode = "batch", concurrent = 5,
                        sequential_context = None, async_context = None, arms = None, limit_jobs = None,
                        sequential_only = false, async_only = false, repeat = 1, results_dir = None,
                        poll_interval = 0.8, job_timeout = 3600.0, correlation_timeout = 60.0, pause = 0.0,
                        order = "submission", durations_from = None, expires_after = Some("P7D".to_owned()), cleanup = false,
                        host_price = None, ca_bundle = None, proxy = None, verify = true, connect_timeout = 10.0,
                        read_timeout = 60.0, results_table = None, storage_options = None,
                        time_scale = None))]
    #[allow(clippy::too_many_arguments, reason = "one per keyword of the Python class")]
    fn new(
        py: Python<'_>,
        #[pyo3(from_py_with = arguments::optional_text)] base_url: Option<String>,
        tokens: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::optional_location)] jobs: Option<String>,
        #[pyo3(from_py_with = arguments::text)] mode: &str,
        #[pyo3(from_py_with = arguments::whole)] concurrent: usize,
        #[pyo3(from_py_with = arguments::optional_text)] sequential_context: Option<String>,
        #[pyo3(from_py_with = arguments::optional_text)] async_context: Option<String>,
        arms: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::optional_whole)] limit_jobs: Option<usize>,
        #[pyo3(from_py_with = arguments::flag)] sequential_only: bool,
        #[pyo3(from_py_with = arguments::flag)] async_only: bool,
        #[pyo3(from_py_with = arguments::whole)] repeat: u32,
        #[pyo3(from_py_with = arguments::optional_location)] results_dir: Option<String>,
        #[pyo3(from_py_with = arguments::number)] poll_interval: f64,
        #[pyo3(from_py_with = arguments::number)] job_timeout: f64,
        #[pyo3(from_py_with = arguments::number)] correlation_timeout: f64,
        #[pyo3(from_py_with = arguments::number)] pause: f64,
        #[pyo3(from_py_with = arguments::text)] order: &str,
        durations_from: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::optional_text)] expires_after: Option<String>,
        #[pyo3(from_py_with = arguments::flag)] cleanup: bool,
        #[pyo3(from_py_with = arguments::optional_number)] host_price: Option<f64>,
        #[pyo3(from_py_with = arguments::optional_location)] ca_bundle: Option<String>,
        #[pyo3(from_py_with = arguments::optional_secret)] proxy: Option<String>,
        #[pyo3(from_py_with = arguments::flag)] verify: bool,
        #[pyo3(from_py_with = arguments::number)] connect_timeout: f64,
        #[pyo3(from_py_with = arguments::number)] read_timeout: f64,
        #[pyo3(from_py_with = arguments::optional_location)] results_table: Option<String>,
        storage_options: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = arguments::optional_number)] time_scale: Option<f64>,
    ) -> PyOutcome<Self> {
        let mode: Mode = mode.parse()?;
        let defaults = RunnerOptions::default();
        let path =
            |value: Option<String>, default: &std::path::Path| value.map_or_else(|| default.to_owned(), PathBuf::from);
        let options = RunnerOptions {
            base_url: server::require(base_url.as_deref())?,
            tokens: credentials(tokens)?,
            client: ClientOptions {
                time_scale,
                ..client_options(py, ca_bundle, proxy, verify, connect_timeout, read_timeout)?
            },
            jobs: path(jobs, &defaults.jobs),
            arms: super::arm::arms(arms)?,
            mode,
            concurrent,
            repeat,
            pause,
            order: job_order(order, durations_from)?,
            expires_after,
            cleanup,
            host_price,
            results_table: match results_table {
                Some(root) => Some((root, convert::storage_options(storage_options)?.unwrap_or_default())),
                None => None,
            },
            sequential_context: sequential_context.unwrap_or_else(|| defaults.sequential_context.clone()),
            async_context: async_context.unwrap_or_else(|| defaults.async_context.clone()),
            limit_jobs,
            sequential_only,
            async_only,
            results_dir: path(results_dir, &defaults.results_dir),
            poll_interval,
            job_timeout,
            correlation_timeout,
            ..defaults
        };
        Ok(Self { runner: Arc::new(comparison::ViyaComparisonRunner::new(options)?), born: Born::here() })
    }

    /// Runs the comparison and writes the result JSON.
    ///
    /// Ctrl-C, and SIGTERM in the main thread of a program that has no handler of its own, cancel what is running on the
    /// server; what is done is written, and the exception's cause says where.
    ///
    /// Args:
    ///     progress: True for progress bars, False for none, or a callable that is given a dict per event (arm, done,
    ///         failed, in_flight, total, job, state).
    ///
    /// Returns:
    ///     A `ComparisonResult`.
    ///
    /// Raises:
    ///     NotFoundError: A file or a compute context does not exist. No job was submitted.
    ///     AuthenticationError: The tokens are expired or refused.
    ///     NetworkError: The server cannot be reached; a retry can help.
    #[pyo3(signature = (progress = None))]
    fn run(&self, py: Python<'_>, progress: Option<&Bound<'_, PyAny>>) -> PyOutcome<PyComparisonResult> {
        self.born.check("ViyaComparisonRunner")?;
        self.shown(py, None, progress)
    }

    /// Goes on with an interrupted run: no job that has ended runs again, and those that were running are followed on.
    ///
    /// Arms, jobs and rounds are those of the journal; server, tokens, folders and limits those of this runner.
    ///
    /// Args:
    ///     journal: The journal of the interrupted run: the `….journal.jsonl` file (or `….journal` folder) in `results_dir`.
    ///     progress: As `run` has it.
    ///
    /// Returns:
    ///     A `ComparisonResult` of the whole run.
    ///
    /// Raises:
    ///     NotFoundError: There is no such journal.
    ///     InvalidInputError: It is no journal, or the run was on another server.
    ///     ConflictError: Another process works with it.
    #[pyo3(signature = (journal, progress = None))]
    fn resume(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = arguments::location)] journal: String,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<PyComparisonResult> {
        self.born.check("ViyaComparisonRunner")?;
        self.shown(py, Some(PathBuf::from(journal)), progress)
    }

    /// Like `resume`, as a coroutine, without progress bars.
    ///
    /// Args:
    ///     journal: The journal of the interrupted run.
    ///     progress: A callable that is given a dict per event, or nothing.
    #[pyo3(signature = (journal, progress = None))]
    fn resume_async<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = arguments::location)] journal: String,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        self.born.check("ViyaComparisonRunner")?;
        self.awaited(py, Some(PathBuf::from(journal)), progress)
    }

    /// Like `run`, as a coroutine, without progress bars. Canceling it cancels what is running on the server, and what is
    /// done is written.
    ///
    /// Args:
    ///     progress: A callable that is given a dict per event, or nothing.
    #[pyo3(signature = (progress = None))]
    fn run_async<'py>(&self, py: Python<'py>, progress: Option<&Bound<'py, PyAny>>) -> PyOutcome<Bound<'py, PyAny>> {
        self.born.check("ViyaComparisonRunner")?;
        self.awaited(py, None, progress)
    }

    /// Version and configuration as text; asks no server.
    fn describe(&self) -> PyOutcome<String> {
        Ok(self.runner.describe()?)
    }

    fn __repr__(&self) -> String {
        format!("ViyaComparisonRunner({:?})", self.runner.options().base_url)
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        let description = self.runner.describe().unwrap_or_else(|error| error.full_message());
        convert::repr_html(py, "runner", description)
    }
}

fn callable(progress: &Bound<'_, PyAny>) -> PyOutcome<Py<PyAny>> {
    if progress.is_callable() {
        return Ok(progress.clone().unbind());
    }
    Err(Error::invalid(format!(
        "progress must be True, False or a callable that takes a dict, not {}",
        progress.repr()?
    ))
    .into())
}

fn reporter(callback: Option<Py<PyAny>>, run: &Arc<Run>) -> Option<Arc<Reporter>> {
    callback.map(|callback| Arc::new(Reporter { callback, run: Arc::clone(run), failed: Mutex::default() }))
}

fn sink(reporter: Option<&Arc<Reporter>>) -> Option<Arc<dyn Fn(ProgressEvent) + Send + Sync>> {
    let reporter = Arc::clone(reporter?);
    Some(Arc::new(move |event| reporter.report(&event)))
}

/// What `result` is for Python: what interrupted the run goes on, and says where that was written which was done.
fn finished(
    py: Python<'_>,
    run: &Run,
    reporter: Option<&Arc<Reporter>>,
    result: PyOutcome<ComparisonResult>,
) -> PyOutcome<PyComparisonResult> {
    if let Some(interrupt) = run.raised() {
        interrupt.set_cause(py, result.err().map(PyErr::from));
        return Err(interrupt.into());
    }
    let result = result?;
    let failed = reporter.and_then(|reporter| reporter.failed().take());
    failed.map_or_else(|| Ok(PyComparisonResult::from(result)), |error| Err(error.into()))
}

/// The order in which jobs are let in.
fn job_order(order: &str, durations_from: Option<&Bound<'_, PyAny>>) -> PyOutcome<JobOrder> {
    let given = durations_from.filter(|value| !value.is_none());
    match order {
        "submission" if given.is_none() => Ok(JobOrder::Submission),
        "submission" => {
            Err(Error::invalid("durations_from is for order=\"longest_first\": say that as well, or leave it out")
                .into())
        }
        "longest_first" => {
            let Some(value) = given else { return Ok(JobOrder::LongestFirst(None)) };
            let known: HashMap<String, f64> = if let Ok(named) = value.cast::<PyDict>() {
                named.extract()?
            } else if let Ok(result) = value.cast::<PyComparisonResult>() {
                result.get().durations()?
            } else {
                durations::read(&PathBuf::from(arguments::location(value)?))?
            };
            Ok(JobOrder::LongestFirst(Some(known)))
        }
        other => {
            Err(Error::invalid(format!("order {other:?} is unknown: it is \"submission\" or \"longest_first\"")).into())
        }
    }
}

impl PyViyaComparisonRunner {
    /// Runs, or resumes from `journal`, with whatever shows progress.
    fn shown(
        &self,
        py: Python<'_>,
        journal: Option<PathBuf>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<PyComparisonResult> {
        // A scheduler ends its tasks with SIGTERM: what is running is canceled then, as at Ctrl-C.
        let terminable = py.import("jobrota.signals")?.call_method0("terminable")?;
        terminable.call_method0("__enter__")?;
        let outcome = self.with_progress(py, journal, progress);
        terminable.call_method1("__exit__", (py.None(), py.None(), py.None()))?;
        outcome
    }

    fn with_progress(
        &self,
        py: Python<'_>,
        journal: Option<PathBuf>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyOutcome<PyComparisonResult> {
        let flag = progress.map_or(Some(true), |value| value.extract::<bool>().ok());
        match (flag, progress) {
            (Some(false), _) => self.run_with(py, journal, None),
            (None, Some(callback)) => self.run_with(py, journal, Some(callable(callback)?)),
            _ => {
                let bars = py.import("jobrota.progress")?.call_method0("make_progress")?;
                let shown = bars.call_method0("__enter__")?.unbind();
                let outcome = self.run_with(py, journal, Some(shown));
                bars.call_method1("__exit__", (py.None(), py.None(), py.None()))?;
                outcome
            }
        }
    }

    fn run_with(
        &self,
        py: Python<'_>,
        journal: Option<PathBuf>,
        callback: Option<Py<PyAny>>,
    ) -> PyOutcome<PyComparisonResult> {
        let (runner, run) = (Arc::clone(&self.runner), Arc::<Run>::default());
        let reporter = reporter(callback, &run);
        let (sink, stop, asked) = (sink(reporter.as_ref()), run.stop(), run.stop());
        // Ctrl-C cancels what is running on the server and writes what is done, which an abrupt end would not.
        let work = async move { go(&runner, journal, sink, &asked).await };
        let result = wait::stoppable(py, work, || stop.stop());
        finished(py, &run, reporter.as_ref(), result)
    }

    fn awaited<'py>(
        &self,
        py: Python<'py>,
        journal: Option<PathBuf>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyOutcome<Bound<'py, PyAny>> {
        let progress = progress.map(callable).transpose()?;
        let (runner, run) = (Arc::clone(&self.runner), Arc::<Run>::default());
        let reporter = reporter(progress, &run);
        let (sink, stop, asked) = (sink(reporter.as_ref()), run.stop(), run.stop());
        let work = async move { Ok(go(&runner, journal, sink, &asked).await) };
        wait::stoppable_awaitable(
            py,
            work,
            move || stop.stop(),
            move |py, result| finished(py, &run, reporter.as_ref(), result.map_err(Raised::from)),
        )
    }
}

async fn go(
    runner: &comparison::ViyaComparisonRunner,
    journal: Option<PathBuf>,
    sink: Option<comparison::Progress>,
    stop: &Stop,
) -> Result<ComparisonResult, Error> {
    match journal {
        Some(journal) => runner.resume_until(&journal, sink, stop).await,
        None => runner.run_until(sink, stop).await,
    }
}
