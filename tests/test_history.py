"""Histories of many processes are checked against the log of the tables; see history.py for the rules.

The first tests show that the checker finds each kind of violation. JOBROTA_HISTORY_SECONDS makes the runs longer.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from pathlib import Path
from typing import Any

import pytest

import history_child
import history_deltalake
import history_log
import history_record
import jobrota
from cloud_servers import ACCOUNT, ACCOUNT_KEY, azurite, create_container
from history import NO, YES, Call, Commit, Outcome, Row, Rule, Verdict, check, digest_of
from history_child import EXECUTIONS, NOTIFICATIONS, TABLES, Work
from history_record import Recorder

SECONDS = float(os.environ.get("JOBROTA_HISTORY_SECONDS", "0"))
"""How long the runs with kills and with eight processes take. Zero: as long as the numbers below take."""
KILLS, KILLED_AT_ONCE, LATEST_KILL_S = 12, 4, 0.4
PROCESSES, ROUNDS = 8, 16
ON_AZURE, OF_DELTALAKE = 7, 18
"""Rounds of each process."""
MOST_ROUNDS = 400
"""Processes beside another engine go on until that is done, at most so often, with pauses: the other one is slower."""
BESIDE_SPARK_PAUSE_S = 1

pytestmark = [
    pytest.mark.timeout(900 + 4 * SECONDS),
    pytest.mark.filterwarnings("ignore::jobrota.errors.MaintenanceWarning"),
]

# ------------------------------------------------------------------------------------------- what the checker finds


def row(job: str, flag: str = NO, time: int = 1) -> Row:
    return Row("a.sas", job, "SUCCESS", flag, time)


def commit(version: int, operation: str, added: list[Row] | None = None, removed: list[Row] | None = None) -> Commit:
    return Commit(version, operation, "an engine", Counter(added or []), Counter(removed or []))


def call(name: str, kind: str, began: int, ended: int, *given: Row, **more: Any) -> Call:
    return Call(name, kind, NOTIFICATIONS, began, ended, given=given, **more)


A, B, C = row("A"), row("B", time=2), row("C", time=3)
ALL = [A.flagged(YES), B.flagged(YES), C, C]


def commits() -> list[Commit]:
    """A and B are logged, A is acknowledged, C is logged twice by one call, B is acknowledged, and all is compacted."""
    return [
        commit(0, "CREATE TABLE"),
        commit(1, "WRITE", [A]),
        commit(2, "WRITE", [B]),
        commit(3, "UPDATE", [A.flagged(YES)], [A]),
        commit(4, "WRITE", [C, C]),
        commit(5, "UPDATE", [B.flagged(YES)], [B]),
        commit(6, "OPTIMIZE", ALL, ALL),
    ]


CALLS = {
    made.name: made
    for made in (
        call("log A", "log", 0, 10, A),
        call("log B", "log", 20, 30, B),
        call("see A and B", "oldest", 32, 34, result=[A, B]),
        call("set A", "acknowledge", 40, 50, A, result=1),
        call("log C", "log", 60, 70, C, C._replace(time=3)),
        call("set B", "update", 75, 90, where={"job": "B"}, result=1),
        call("set A again", "acknowledge", 92, 94, A, result=0),
        call("see all", "digest", 95, 99, result=digest_of(ALL)),
        call("count", "counts", 95, 99, result={"rows": 4, "pending": 2, "acknowledged": 2, "oldest": 3}),
        call("see C", "rows", 95, 99, where={"job": "C"}, result=[C, C]),
    )
}


def without(*names: str) -> dict[str, Call]:
    """The calls above without some."""
    return {name: call for name, call in CALLS.items() if name not in names}


def found(commits: list[Commit], *changed: Call, others: dict[str, Call] = CALLS) -> list[Rule]:
    """The rules that a history violates: the calls above, of which some are changed, and others added."""
    verdict = check(commits, (others | {call.name: call for call in changed}).values())
    print(verdict)
    return [violation.rule for violation in verdict.violations]


def test_a_right_history_has_no_violation() -> None:
    assert found(commits()) == []


def instead(version: int, operation: str, added: list[Row], removed: list[Row] | None = None) -> list[Commit]:
    """The history above with another commit at `version`."""
    return [commit(version, operation, added, removed) if old.version == version else old for old in commits()]


def compacted_twice() -> list[Commit]:
    return [*commits(), commit(7, "OPTIMIZE", ALL, ALL)]


@dataclass
class Doctored:
    """A history that is not right."""

    rule: Rule
    commits: list[Commit] = field(default_factory=commits)
    calls: tuple[Call, ...] = ()
    """Calls that are added, or in the place of others."""
    others: dict[str, Call] = field(default_factory=without)


DOCTORED = {
    "a row is lost": Doctored(Rule.CONSERVATION, [*commits(), commit(7, "WRITE", [], [C])]),
    "a row whose call returned is in no commit": Doctored(
        Rule.CONSERVATION, calls=(call("log D", "log", 0, 10, row("D")),)
    ),
    "a row is doubled": Doctored(Rule.CONSERVATION, [*commits(), commit(7, "WRITE", [A])]),
    "a row is twice in one commit": Doctored(Rule.CONSERVATION, instead(2, "WRITE", [B, B])),
    "a row of a call is missing": Doctored(Rule.CONSERVATION, instead(4, "WRITE", [C])),
    "one call is in two commits": Doctored(
        Rule.CONSERVATION,
        [*instead(4, "WRITE", [C])[:5], commit(5, "WRITE", [C])],
        others=without("see all", "count", "see C", "set B"),
    ),
    "one commit is in two versions": Doctored(
        Rule.CONSERVATION, [replace(commit, id="1" if commit.version > 5 else None) for commit in compacted_twice()]
    ),
    "a row that no call logged": Doctored(Rule.CONSERVATION, [*commits(), commit(7, "WRITE", [row("X")])]),
    "rows of a call that wrote nothing": Doctored(
        Rule.CONSERVATION, calls=(replace(CALLS["log B"], outcome=Outcome.NOTHING),)
    ),
    "a flag is set back": Doctored(Rule.CONSERVATION, [*commits(), commit(7, "UPDATE", [A], [A.flagged(YES)])]),
    "a flag is set that no call was to set": Doctored(
        Rule.CONSERVATION, [*commits(), commit(7, "UPDATE", [C.flagged(YES)], [C])]
    ),
    "a row is changed while its flag is set": Doctored(
        Rule.CONSERVATION, instead(3, "UPDATE", [row("A", YES, time=9)], [A])
    ),
    "a row is changed by an OPTIMIZE": Doctored(
        Rule.CONSERVATION, instead(6, "OPTIMIZE", [*ALL[:3], row("C", time=4)], ALL)
    ),
    "a flag is set by an OPTIMIZE": Doctored(
        Rule.CONSERVATION, instead(6, "OPTIMIZE", [*ALL[:3], C.flagged(YES)], ALL)
    ),
    "an OPTIMIZE doubles a row": Doctored(Rule.CONSERVATION, instead(6, "OPTIMIZE", [*ALL, C], ALL)),
    "a read is stale": Doctored(
        Rule.REAL_TIME, calls=(replace(CALLS["see all"], result=digest_of([A.flagged(YES), B])),)
    ),
    "a read is of the future": Doctored(Rule.REAL_TIME, calls=(replace(CALLS["see A and B"], began=12, ended=14),)),
    "a read is of no version": Doctored(
        Rule.RESULT, calls=(call("see A, B and C", "oldest", 0, 99, result=[A, B, C]),)
    ),
    "the oldest rows come last": Doctored(Rule.RESULT, calls=(replace(CALLS["see A and B"], result=[B, A]),)),
    "a count is wrong": Doctored(
        Rule.RESULT, calls=(replace(CALLS["count"], result=CALLS["count"].result | {"pending": 1}),)
    ),
    "the number of flags that were set is wrong": Doctored(Rule.RESULT, calls=(replace(CALLS["set A"], result=2),)),
    "flags were set in no commit": Doctored(Rule.RESULT, calls=(replace(CALLS["set A again"], result=1),)),
    "too few flags are set": Doctored(
        Rule.RESULT,
        [*commits(), commit(7, "UPDATE", [C.flagged(YES)], [C])],
        (call("set C", "acknowledge", 100, 110, C, C, result=1),),
    ),
    "nothing was set, as if of an old version": Doctored(
        Rule.REAL_TIME, calls=(call("set C", "acknowledge", 95, 99, C, result=0),)
    ),
    "a commit is older than one whose call had ended": Doctored(
        Rule.REAL_TIME, calls=(replace(CALLS["log A"], began=31, ended=33),), others=without("see A and B")
    ),
    "two calls that did not overlap share a commit": Doctored(
        Rule.REAL_TIME,
        instead(2, "WRITE", [B, row("D", YES)])[:4],
        (call("log D", "log", 31, 33, row("D", YES)),),
        without("see A and B", "see all", "see C", "count", "log C", "set B"),
    ),
    "a flag was seen before the call that set it began": Doctored(
        Rule.REAL_TIME,
        calls=(
            call("see B", "rows", 80, 82, where={"job": "B"}, result=[B.flagged(YES)]),
            replace(CALLS["set B"], began=85),
        ),
    ),
    "of two reads the later one sees less": Doctored(
        Rule.REAL_TIME,
        calls=(
            replace(CALLS["log C"], ended=90),
            call("more", "rows", 72, 73, where={"job": "C"}, result=[C, C]),
            call("less", "rows", 76, 77, where={"job": "C"}, result=[]),
        ),
    ),
}


@pytest.mark.parametrize("kind", DOCTORED)
def test_a_violation_is_found(kind: str) -> None:
    history = DOCTORED[kind]
    # Others can follow from the first one.
    assert found(history.commits, *history.calls, others=history.others)[0] == history.rule


def test_what_is_not_known_can_have_happened() -> None:
    unknown = [replace(CALLS[name], outcome=Outcome.UNKNOWN, result=None) for name in ("log B", "set A", "log C")]
    assert found(commits(), *unknown, call("log D", "log", 0, 10, row("D"), outcome=Outcome.UNKNOWN)) == []


def test_commits_that_set_the_same_flags_are_of_their_calls_in_order() -> None:
    one_by_one = [*commits(), *(commit(version, "UPDATE", [C.flagged(YES)], [C]) for version in (7, 8))]
    first = call("set one C", "acknowledge", 100, 110, C, result=1)
    second = call("set the other C", "acknowledge", 120, 130, C, result=1)
    assert found(one_by_one, first, second) == []
    seen = call("see C", "rows", 112, 118, where={"job": "C"}, result=[C.flagged(YES)] * 2)
    assert found(one_by_one, first, second, seen)[0] == Rule.REAL_TIME


def test_a_call_can_set_flags_as_of_an_older_version() -> None:
    """A row that is logged between what an update saw and its commit stays: the update came first."""
    late = row("B", time=9)._replace(status="LATE")
    overtaken = [*commits()[:5], commit(5, "WRITE", [late]), replace(commits()[5], version=6)]
    logged = call("log late", "log", 78, 79, late)
    assert found(overtaken, logged, others=without("see all", "count")) == []
    # Unless it was there when the call began.
    early = replace(logged, began=71, ended=72)
    assert found(overtaken, early, others=without("see all", "count"))[0] == Rule.REAL_TIME


# ------------------------------------------------------------------------------------------------------ real histories


@dataclass
class Run:
    """Processes that work on one ledger, and the recordings of what they did."""

    root: str
    here: Path
    options: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    seed: str = field(default_factory=lambda: str(random.SystemRandom().randrange(2**32)))

    def __post_init__(self) -> None:
        """The ledger is there before the processes begin."""
        print(f"seed: {self.seed}")
        self.kept.mkdir(parents=True)
        history_child.run(self.work("first", 1, first=("log_both",)))

    @property
    def kept(self) -> Path:
        """Data files that a vacuum may delete in the meantime."""
        return self.here / "kept"

    def recording(self, who: str) -> Path:
        return self.here / f"{who}.jsonl"

    def work(self, who: str, rounds: int, **more: Any) -> Work:
        kept = "" if self.options else str(self.kept)
        given = {"options": self.options, "environment": self.environment, "kept": kept} | more
        return Work(self.root, who, str(self.recording(who)), self.seed, rounds, **given)

    def worker(self, who: str) -> history_child.Worker:
        """A worker in this process."""
        ledger = jobrota.JobLedger(self.root, storage_options=self.options)
        recorder = Recorder(self.recording(who), who)
        return history_child.Worker(self.work(who, 0, retain="168h"), recorder, ledger)

    def keep(self) -> None:
        """Called again and again while processes vacuum."""
        for table in TABLES if not self.options else ():
            history_log.keep(Path(self.root, table), self.kept)

    def process(self, target: Callable[..., None], *arguments: Any) -> Any:
        """Forked from a process that has only imported: each child is a process of its own."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["history_child", "history_deltalake"])
        process = context.Process(target=target, args=arguments)
        process.start()
        return process

    def wait(self, processes: list[Any]) -> None:
        """Waits until all have ended by themselves."""
        while running := [process.sentinel for process in processes if process.exitcode is None]:
            connection.wait(running, timeout=0.2)
            self.keep()
        assert [process.exitcode for process in processes] == [0] * len(processes), "the errors are in the output"

    def go_on(self) -> None:
        """A fresh handle works on what the others left, and reads all of it."""
        last = self.worker("last")
        for action in (last.log_both, last.acknowledge, last.log_both, last.log_both, last.maintain, last.count):
            action()
        for table in TABLES:
            last.read_all(table)

    def verdicts(self) -> dict[str, Verdict]:
        """Of each table."""
        calls = history_record.calls(sorted(self.here.glob("*.jsonl")))
        print("problems of maintenance:", [call.result for call in calls if call.kind == "maintain" and call.result])
        found = {}
        for table in TABLES:
            name = f"{self.root}/{table}"
            files = history_log.remote(name, self.options) if self.options else history_log.local(Path(name))
            read = history_log.commits(files, self.kept)
            found[table] = check(read, [call for call in calls if call.table == table])
            print(f"{table}: {found[table]}")
        return found

    def is_right(self) -> Counter[str]:
        """No rule is violated. The versions by operation and engine."""
        self.go_on()
        verdicts = self.verdicts()
        assert [str(violation) for verdict in verdicts.values() for violation in verdict.violations] == []
        return sum((verdict.versions for verdict in verdicts.values()), Counter[str]())


def test_a_violation_is_found_in_a_real_log(local: Run) -> None:
    worker = local.worker("p")
    for action in (worker.log_many, worker.acknowledge, worker.settle, worker.update, worker.maintain, worker.log_both):
        action()
    local.is_right()
    last = max(Path(local.root, EXECUTIONS, "_delta_log").glob("*.json"))
    added, *_ = [json.loads(line)["add"]["path"] for line in last.read_text().splitlines() if '"add"' in line]
    forged = [{"commitInfo": {"operation": "OPTIMIZE"}}, {"remove": {"path": added, "dataChange": False}}]
    last.with_name(f"{int(last.stem) + 1:020}.json").write_text("\n".join(map(json.dumps, forged)))
    verdict = local.verdicts()[EXECUTIONS]
    assert verdict.violations[0].rule is Rule.CONSERVATION
    assert "may not change rows" in verdict.violations[0].text


@pytest.fixture
def local(tmp_path: Path) -> Run:
    return Run(str(tmp_path / "ledger"), tmp_path / "recordings")


def test_history_of_killed_processes(local: Run) -> None:
    ends = time.monotonic() + SECONDS

    def kill_one(number: int) -> bool:
        """Whether it was killed while it worked; False also when the time is over."""
        if SECONDS and time.monotonic() > ends:
            return False
        here, there = multiprocessing.Pipe(duplex=False)
        log_more = {"log_one": 60}
        work = local.work(f"k{number}", 10**9, threads=1 + number % 3, first=("log_one",), weights=log_more)
        child = local.process(history_child.run, work, there)
        there.close()
        assert here.poll(120), f"child {number} did nothing for two minutes"
        # Not a wait for something to happen: the moment of the kill is what varies.
        child.join(random.Random(f"{local.seed}/{number}").uniform(0, LATEST_KILL_S))
        assert child.is_alive(), f"child {number} ended by itself with {child.exitcode}: its error is in the output"
        child.kill()
        child.join(60)
        history_record.died(work.recording)
        local.keep()
        # A forkserver that is busy may not be able to say how its child ended.
        return child.exitcode in (-signal.SIGKILL, 255)

    with ThreadPoolExecutor(KILLED_AT_ONCE) as pool:
        killed = sum(pool.map(kill_one, range(KILLS if not SECONDS else int(SECONDS * 100))))
    print(f"{killed} kills")
    assert killed == KILLS or SECONDS
    versions = local.is_right()
    assert versions["WRITE by jobrota"] > KILLS


def test_history_of_eight_processes(local: Run) -> None:
    differs: dict[int, dict[str, Any]] = {
        0: {"first": ("acknowledge", "maintain", "read_all", "settle")},
        # Threads that log at the same moment share commits.
        1: {"threads": 4, "weights": {"log_one": 500}},
        2: {"threads": 2},
    }
    works = [
        local.work(f"p{number}", ROUNDS, seconds=SECONDS, **differs.get(number, {})) for number in range(PROCESSES)
    ]
    local.wait([local.process(history_child.run, work) for work in works])
    versions = local.is_right()
    assert min(versions[f"{what} by jobrota"] for what in ("WRITE", "UPDATE", "OPTIMIZE")) > 0


def test_history_beside_deltalake(local: Run) -> None:
    done = local.here / "done"
    theirs = local.process(history_deltalake.run, local.work("d", OF_DELTALAKE))
    ours = [local.work(f"p{n}", MOST_ROUNDS, until=str(done), pause=0.02, retain="168h") for n in range(2)]
    processes = [local.process(history_child.run, work) for work in ours]
    local.wait([theirs])
    done.touch()
    local.wait(processes)
    versions = local.is_right()
    assert min(versions[f"{what} by delta-rs"] for what in ("WRITE", "VACUUM END")) > 0


class Sql:
    """What Spark does in this process, recorded. A statement that loses a race is tried again, as another call."""

    def __init__(self, spark: Any, run: Run) -> None:
        """Spark works on the ledger of `run`."""
        self.spark = spark
        self.run = run
        self.record = Recorder(run.recording("spark"), "spark")
        self.logged = 0

    def name(self, table: str) -> str:
        return f"delta.`{self.run.root}/{table}`"

    def call(self, kind: str, table: str, work: Callable[[], Any], **recorded: Any) -> None:
        def lost(error: Exception) -> bool:
            return "DELTA_CONCURRENT" in str(error)

        for _ in range(50):
            try:
                self.record.call(kind, table, work, wrote_nothing=lost, **recorded)
                return
            except Exception as error:
                if not lost(error):
                    raise
        raise AssertionError("Spark lost 50 races")

    def insert(self, table: str) -> None:
        time = 1_700_000_000_000_000 + self.logged
        rows = [Row("sql.sas", f"JOB_0_{n}", f"SUCCESS spark/{self.logged}", NO, time + n) for n in range(4)]
        rows += rows[:1]
        self.logged += 1
        columns = f"file_name, job_id, status, autosys_update_flag, {history_child.TIME_OF[table]}"
        values = ", ".join(
            f"('{row.file}', '{row.job}', '{row.status}', '{row.flag}', timestamp_micros({row.time}))" for row in rows
        )
        statement = f"INSERT INTO {self.name(table)} ({columns}) VALUES {values}"
        self.call("log", table, lambda: self.spark.sql(statement).collect(), given=rows)

    def update(self, table: str, job: str) -> None:
        flags = f"SET autosys_update_flag = '{YES}' WHERE autosys_update_flag = '{NO}' AND job_id = '{job}'"
        self.call(
            "update",
            table,
            lambda: self.spark.sql(f"UPDATE {self.name(table)} {flags}").collect(),
            where={"job": job},
            result=lambda rows: rows[0].num_affected_rows,
        )

    def optimize(self, table: str) -> None:
        self.call("maintain", table, lambda: self.spark.sql(f"OPTIMIZE {self.name(table)}").collect())

    def read(self, table: str) -> None:
        time = f"unix_micros({history_child.TIME_OF[table]})"
        statement = f"SELECT file_name, job_id, status, autosys_update_flag, {time} FROM {self.name(table)}"
        self.call(
            "digest",
            table,
            lambda: self.spark.sql(statement).collect(),
            result=lambda rows: digest_of(Row(*values) for values in rows),
        )


def test_history_beside_spark(spark: Any, tmp_path: Path) -> None:
    """Of the tables, ours has partitions, and the one that Spark made has none."""
    table = f"delta.`{tmp_path}/ledger/{NOTIFICATIONS}`"
    columns = ", ".join(f"{name} STRING" for name in history_record.NAMES)
    spark.sql(f"CREATE TABLE {table} ({columns}, notification_timestamp TIMESTAMP) USING delta")
    run = Run(str(tmp_path / "ledger"), tmp_path / "recordings")
    sql = Sql(spark, run)
    done = tmp_path / "done"
    works = [
        run.work(f"p{number}", MOST_ROUNDS, until=str(done), pause=BESIDE_SPARK_PAUSE_S, retain="168h")
        for number in range(2)
    ]
    processes = [run.process(history_child.run, work) for work in works]
    sql.insert(NOTIFICATIONS)
    sql.insert(EXECUTIONS)
    sql.optimize(NOTIFICATIONS)
    sql.update(EXECUTIONS, "JOB_0_2")
    sql.read(NOTIFICATIONS)
    done.touch()
    run.wait(processes)
    versions = run.is_right()
    # What it updates or compacts, the others can have done before.
    assert versions["WRITE by Apache-Spark"] == 2
    assert versions["UPDATE by jobrota"] > 0


def test_history_on_azurite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with azurite() as url:
        create_container(url, "ledgers")
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", url)
        options = {"azure_storage_use_emulator": "true", "azure_storage_account_key": ACCOUNT_KEY}
        root = f"abfss://ledgers@{ACCOUNT}.dfs.core.windows.net/{uuid.uuid4()}"
        run = Run(root, tmp_path / "recordings", options, {"AZURITE_BLOB_STORAGE_URL": url})
        works = [run.work(f"p{number}", ON_AZURE, retain="168h", first=("acknowledge",)) for number in range(4)]
        run.wait([run.process(history_child.run, work) for work in works])
        versions = run.is_right()
    assert min(versions[f"{what} by jobrota"] for what in ("WRITE", "UPDATE")) > 0
