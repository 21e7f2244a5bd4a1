"""`jobrota compare`: the same SAS Viya jobs in different compute contexts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobrota._native import (
    ComparisonResult,
    ViyaComparisonRunner,
    __version__,
    journal_base_url,
    shown_url,
    viya_base_url,
)
from jobrota.commands.durations import duration, positive_duration
from jobrota.commands.output import add_output, explain, named_file, narrated, print_json
from jobrota.commands.viya import TOKEN_FILE, add_connection, connection
from jobrota.commands.webhook import add_webhook, alerts
from jobrota.errors import InvalidInputError
from jobrota.text import printable
from jobrota.tracing import record_comparison

__all__ = ["TEXT", "add_arguments", "run"]

TEXT = "run the same SAS Viya jobs in different compute contexts and compare"
SEQUENTIAL_CONTEXT = "SAS Job Execution compute context"
ASYNC_CONTEXT = "Autoscaling POC Context"


def add_arguments(
    parser: argparse.ArgumentParser,
    positive: Callable[[str], int],
    not_negative: Callable[[str], int],
    positive_float: Callable[[str], float],
    number: Callable[[str], float],
) -> None:
    """Adds the options of `jobrota compare` to its parser."""
    arms = parser.add_argument_group("comparison")
    arms.add_argument(
        "--mode",
        choices=("sequential", "batch", "window", "all"),
        default="batch",
        help="how the asynchronous arms start jobs",
    )
    arms.add_argument(
        "--concurrent", type=positive, default=5, metavar="N", help="jobs of a batch, or in flight in a window"
    )
    arms.add_argument(
        "--arms",
        metavar="three_way|FILE",
        help="three_way adds the asynchronous arm in the sequential context, which separates the effects of "
        "parallelism and context; or a file with a list of arms (name, context, mode, concurrent)",
    )
    arms.add_argument(
        "--repeat", type=positive, default=1, metavar="N", help="rounds; below 5 no difference is claimed"
    )
    arms.add_argument(
        "--sequential-context", default=SEQUENTIAL_CONTEXT, metavar="NAME", help="context of the sequential arm"
    )
    arms.add_argument("--async-context", default=ASYNC_CONTEXT, metavar="NAME", help="context of the asynchronous arm")
    which = arms.add_mutually_exclusive_group()
    which.add_argument("--async-only", action="store_true", help="run the asynchronous arm alone")
    which.add_argument("--sequential-only", action="store_true", help="run the sequential arm alone")
    arms.add_argument(
        "--limit-jobs", type=not_negative, metavar="N", help="only the first N jobs; 0 shows version and configuration"
    )
    arms.add_argument("--jobs", default="config/job_configs.json", metavar="FILE", help="job configurations")
    arms.add_argument(
        "--order", choices=("submission", "longest_first"), default="submission", help="which job is started next"
    )
    arms.add_argument(
        "--durations-from",
        metavar="FILE",
        help="result with the durations of jobs (default: the newest in --results-dir)",
    )
    arms.add_argument("--pause", type=duration, default=0.0, metavar="TIME", help="time between one arm and the next")
    # The journal of a run has all arguments so far. `--resume` refuses them.
    parser.set_defaults(planned=vars(parser.parse_args([])))

    server = parser.add_argument_group("server")
    add_connection(server)
    server.add_argument(
        "--job-timeout",
        type=positive_duration,
        default=3600.0,
        metavar="TIME",
        help="a job that takes longer is canceled",
    )
    server.add_argument(
        "--poll-interval",
        type=positive_duration,
        default=0.8,
        metavar="TIME",
        help="time between two status requests for a job",
    )
    server.add_argument(
        "--correlation-timeout",
        type=duration,
        default=60.0,
        metavar="TIME",
        help="time to wait for the orchestrator's entries",
    )
    server.add_argument(
        "--expires-after",
        default="P7D",
        metavar="DURATION",
        help="time after which the server deletes the jobs; none: never",
    )
    server.add_argument("--cleanup", action="store_true", help="delete the jobs once the result is written")
    server.add_argument(
        "--time-scale",
        type=positive_float,
        metavar="N",
        help="seconds of the server that pass in one real second; jobrota sandbox prints its own (default: 1)",
    )

    output = parser.add_argument_group("results")
    output.add_argument(
        "--resume", metavar="JOURNAL", help="continue an interrupted run; its journal determines what is compared"
    )
    output.add_argument("--results-dir", default="results", metavar="DIR", help="directory of results and journals")
    output.add_argument(
        "--results-table", metavar="ROOT", help="root of a Delta table to which the jobs of each run are added"
    )
    output.add_argument("--excel", metavar="FILE", help="also write an Excel workbook")
    output.add_argument("--report", action="store_true", help="also write the HTML report beside the result")
    output.add_argument(
        "--host-price", type=number, metavar="PRICE", help="price of an hour of a compute host, for the cost of jobs"
    )
    add_output(parser, "the result, or with --limit-jobs 0 the configuration, as one JSON object")
    add_webhook(output)


def run(arguments: argparse.Namespace) -> int:
    """Runs the comparison; returns 1 if a job failed."""
    if arguments.limit_jobs == 0 and not arguments.resume:
        with named_file():
            _runner(arguments, "https://not-used.invalid")  # refuses invalid options, as the run would
        _show_configuration(arguments, viya_base_url(arguments.base_url))
        return 0
    if arguments.resume:
        _refuse_planned(arguments)
    _require_packages(arguments)
    with named_file():
        url = journal_base_url(arguments.resume, arguments.base_url) if arguments.resume else arguments.base_url
        runner = _runner(arguments, url)
    if not arguments.resume and not Path(arguments.jobs).exists():
        raise InvalidInputError(f"the job configs {arguments.jobs} do not exist: name a file that exists (--jobs)")
    with narrated(arguments), alerts(arguments) as watched:
        result = runner.resume(arguments.resume, progress=True) if arguments.resume else runner.run(progress=True)
        watched.comparison(result)
        record_comparison(result)
        _show(result)
        if arguments.excel:
            print(f"workbook: {result.to_excel(arguments.excel)}")
        if arguments.report:
            print(f"report: {result.report()}")
    if arguments.json:
        print_json({"path": result.path} | result.to_dict())
    explain(arguments, _failures(result))
    return 1 if result.failed_jobs else 0


def _runner(arguments: argparse.Namespace, base_url: str | None) -> ViyaComparisonRunner:
    return ViyaComparisonRunner(
        base_url,
        jobs=arguments.jobs,
        mode=arguments.mode,
        concurrent=arguments.concurrent,
        sequential_context=arguments.sequential_context,
        async_context=arguments.async_context,
        arms=arguments.arms,
        limit_jobs=arguments.limit_jobs,
        sequential_only=arguments.sequential_only,
        async_only=arguments.async_only,
        repeat=arguments.repeat,
        results_dir=arguments.results_dir,
        poll_interval=arguments.poll_interval,
        job_timeout=arguments.job_timeout,
        correlation_timeout=arguments.correlation_timeout,
        pause=arguments.pause,
        order=arguments.order,
        durations_from=arguments.durations_from,
        expires_after=None if arguments.expires_after == "none" else arguments.expires_after,
        cleanup=arguments.cleanup,
        host_price=arguments.host_price,
        results_table=arguments.results_table,
        time_scale=arguments.time_scale,
        **connection(arguments),
    )


def _require_packages(arguments: argparse.Namespace) -> None:
    """Checks that the packages of the outputs are installed: a run takes hours, and its outputs are written last."""
    from jobrota import report
    from jobrota.report import workbook

    if arguments.excel:
        workbook.require()
    if arguments.report:
        report.require()


def _refuse_planned(arguments: argparse.Namespace) -> None:
    """Refuses arguments that the journal of the resumed run determines."""
    given = [name for name, default in arguments.planned.items() if getattr(arguments, name) != default]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InvalidInputError(f"--resume continues the run of the journal: leave out {options}, or start a new run")


def _show(result: ComparisonResult) -> None:
    """Prints the verdict first, then each arm, then the warnings."""
    values: dict[str, Any] = result.to_dict()
    analysis = values["analysis"]
    print(printable(analysis["verdict"]["text"]))
    for arm, figures in zip(values["arms"], analysis["arms"], strict=True):
        makespan = figures["makespan_s"]
        time = f"{makespan['mean']:,.1f} s" if makespan else "no complete round"
        rounds = f", mean of {figures['rounds']} rounds" if figures["rounds"] > 1 else ""
        done = f"{figures['completed']} done, {figures['failed']} failed"
        print(printable(f"{arm['name']}: {time}{rounds}, {done}, in {arm['context']}"))
    for failure in _failures(result):
        print(f"  {failure}")
    comparison = values.get("comparison") or {}
    if comparison.get("time_saved") is not None and comparison.get("efficiency_gain") is not None:
        gain = f"{comparison['efficiency_gain']:.1f} % of the sequential time"
        print(f"time saved: {comparison['time_saved']:,.1f} s ({gain})")
    for warning in result.warnings:
        print(printable(f"warning {warning.code}: {warning.text}"), file=sys.stderr)
    print(f"result: {result.path}")


def _failures(result: ComparisonResult) -> list[str]:
    """Returns a line for each job that did not complete."""
    jobs = result.jobs().to_pylist()
    has_rounds = any(job["round"] > 1 for job in jobs)
    lines = []
    for job in jobs:
        if job["state"] != "completed":
            of_round = f", round {job['round']}" if has_rounds else ""
            reason = job["error"] or "the server gave no reason"
            lines.append(printable(f"{job['state']}: {job['job']} of {job['arm']}{of_round}: {reason}"))
    return lines


def _show_configuration(arguments: argparse.Namespace, base_url: str | None) -> None:
    """Prints version and configuration, without reading a token or sending a request."""
    shown = {"base_url": shown_url(base_url) if base_url else "(not set)"}
    shown["tokens"] = arguments.tokens or TOKEN_FILE
    shown |= {
        name: value
        for name, value in vars(arguments).items()
        if name not in ("run", "planned", "base_url", "limit_jobs", "tokens", "json", "quiet")
    }
    if arguments.proxy:
        shown["proxy"] = shown_url(arguments.proxy)
    if arguments.webhook:
        shown["webhook"] = "(not shown)"
    if arguments.json:
        print_json({"version": __version__} | shown | {"base_url": base_url and shown_url(base_url)})
        return
    print(f"jobrota {__version__}, nothing is run")
    width = max(map(len, shown))
    for name, value in shown.items():
        note = ""
        if name in ("tokens", "jobs") and not Path(value).exists():
            note = "  (no such file)"
        print(f"  {name:<{width}}  {value}{note}")
