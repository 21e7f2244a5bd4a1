"""Two updaters with leases of a second, and one fault: no row is lost, and what is sent twice is marked.

Each round has its own ledger, AutoSys and fault. A seed decides the fault and its moment. JOBROTA_FAULT_ROUNDS sets the
number of rounds, and JOBROTA_FAULT_SEED repeats them: the seed of a run, or one round of it such as `123/ssh/7`, which
also shows what happened in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import os
import queue
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from arro3.core import Array, DataType, Table

import jobrota
from autosys_stand_in import AutosysStandIn, Event, LoopThread
from cloud_servers import s3_options
from small_s3 import BUCKET, Away, SmallS3
from sshd import USER, Sshd
from support import column

# A fixture removes these variables.
ROUNDS = int(os.environ.get("JOBROTA_FAULT_ROUNDS", "20"))
SEED = os.environ.get("JOBROTA_FAULT_SEED", "")

HERE = Path(__file__).parent
TRANSPORTS = ["callable", "sendevent", "ssh", "web_services", "run_command"]
FAULTS = ["store", "stop", "kill", "clock"]
"""Of each transport's rounds, in turn."""
TTL_S = 1.0
JOBS = 4
HOUR_S = 3600
SSH_SERVERS = 6
PATIENCE_S = 12 if ROUNDS <= 20 else 40
"""How long both updaters may take. After that, one with long leases and limits goes on."""
CALM_S = 20
ROUND_LIMIT_S = 240

pytestmark = [
    pytest.mark.timeout(300 + 5 * ROUNDS),
    # Thousands of small commits are the point here.
    pytest.mark.filterwarnings("ignore::jobrota.errors.MaintenanceWarning"),
]

Key = tuple[str, str]
"""Job and file. Identical rows have the same."""


@dataclass
class Fault:
    """What happens once in a round, and when."""

    kind: str
    at: int
    """At this event, or the first after it that gets so far; 0 is the start of the round."""
    moment: str
    """`before` the event arrives, `after` that and before the sender knows it, or `later`."""
    delay: float
    """How much later."""
    holds: bool
    """Whether the event waits as long as its sender is stopped, or as it can after its sender was killed."""
    hold: float
    away: Away
    skew: int
    target: str
    """Whose clock is wrong. Other faults are those of the sender of the event, or of this one at the start."""

    @classmethod
    def seeded(cls, kind: str, chance: random.Random, events: int) -> Fault:
        """A fault of this kind in a round of at least so many events."""
        at = chance.randint(1, events) if chance.random() < 0.8 else 0
        moment = chance.choice(["before", "after", "later"])
        return cls(
            kind=kind,
            at=at,
            moment="later" if at == 0 else moment,
            delay=chance.choice([0.0, chance.uniform(0, 0.05), chance.uniform(0, 0.5)]),
            holds=chance.random() < 0.5,
            hold=chance.uniform(0, 0.9 * TTL_S),
            away=chance.choice(["refuses", "hangs", "loses answers"]),
            skew=chance.choice([-HOUR_S, HOUR_S]),
            target=chance.choice("AB"),
        )


@dataclass
class Tools:
    """What all rounds use."""

    folder: Path
    program: Path
    loop: LoopThread
    forks: subprocess.Popen[str]
    sshd: Sshd
    fork_lock: threading.Lock = field(default_factory=threading.Lock)

    def fork(self, given: dict[str, Any]) -> int:
        """Starts a process of fenced_child.py, and returns its descriptor."""
        with self.fork_lock:
            assert self.forks.stdin is not None
            assert self.forks.stdout is not None
            self.forks.stdin.write(json.dumps(given) + "\n")
            self.forks.stdin.flush()
            return os.pidfd_open(int(self.forks.stdout.readline()))


@dataclass
class Outcome:
    """What a round has shown."""

    name: str
    fault: Fault
    faults: int = 0
    """0 if the round ended before a fault that was to happen later."""
    calmed: int = 0
    """1 if both updaters did not end: the machine was too slow for leases and limits of a second."""
    rows: int = 0
    events: int = 0
    marked: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    timeline: str = ""
    seconds: float = 0.0


class Round:
    """One ledger, two updaters and one fault."""

    def __init__(self, tools: Tools, seed: str, transport: str, number: int, slot: int) -> None:
        """Plans the round."""
        self.tools, self.transport, self.slot = tools, transport, slot
        self.name = f"{seed}/{transport}/{number}"
        self.chance = random.Random(self.name)
        self.folder = tools.folder / f"{transport}-{number}"
        self.folder.mkdir()
        self.keys = self._planned_rows()
        self.fault = Fault.seeded(FAULTS[number % len(FAULTS)], self.chance, len(self.keys))
        self.is_begun, self.faults = False, 0
        self.log: list[tuple[float, str]] = []
        self.processes: dict[str, int] = {}
        self.tasks: list[asyncio.Task[None]] = []
        self.clocks: dict[str, mmap.mmap] = {}

    def _planned_rows(self) -> list[Key]:
        """Three rows of each job in time order, two of them identical in every second job."""
        keys = [(f"J{job}", f"{place}.sas") for place in range(3) for job in range(JOBS)]
        twins = self.chance.sample(keys, JOBS // 2)
        return [key for key in keys for _ in range(2 if key in twins else 1)]

    def write_rows(self, ledger: jobrota.JobLedger) -> None:
        """Logs the executions and the notifications."""
        begun = datetime.now(timezone.utc) - timedelta(minutes=10)
        at = {key: begun + timedelta(seconds=place) for place, key in enumerate(dict.fromkeys(self.keys))}
        text, micros = DataType.string(), [int(at[key].timestamp() * 1e6) for key in self.keys]
        columns: dict[str, Any] = {
            "file_name": Array([file for _, file in self.keys], type=text),
            "job_id": Array([job for job, _ in self.keys], type=text),
            "status": Array(["SUCCESS" for _ in self.keys], type=text),
        }
        times = Array(micros, type=DataType.int64()).cast(DataType.timestamp("us", tz="UTC"))
        ledger.log_executions(Table.from_pydict({**columns, "execution_timestamp": times}))
        ledger.log_notifications(Table.from_pydict({**columns, "notification_timestamp": times}))

    def say(self, text: str) -> None:
        """Notes what happens now."""
        self.log.append((time.monotonic(), text))

    # ------------------------------------------------------------------------------------------------- the fault

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to a process, if it still runs."""
        self.say(f"{number.name} to {name}")
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.processes[name], number)

    async def happen(self, sender: str) -> None:
        """The fault; for the moments that are not `later`, up to the time when the event may go on."""
        fault, self.faults = self.fault, 1
        match fault.kind:
            case "clock":
                self.say(f"the clock of {fault.target} is set by {fault.skew} s")
                self.clocks[fault.target][:8] = struct.pack("q", fault.skew)
            case "stop":
                self.signal(sender, signal.SIGSTOP)
                resumed = asyncio.ensure_future(self.resume(sender))
                self.tasks.append(resumed)
                if fault.holds:
                    await asyncio.shield(resumed)
            case "kill":
                self.signal(sender, signal.SIGKILL)
                if fault.holds:
                    await asyncio.sleep(fault.hold)
            case _:
                self.tasks.append(asyncio.ensure_future(self.lose_store()))

    async def resume(self, name: str) -> None:
        await asyncio.sleep(3 * TTL_S)
        self.signal(name, signal.SIGCONT)

    async def lose_store(self) -> None:
        assert self.s3 is not None
        self.say(f"the store {self.fault.away}")
        await self.s3.go_away(self.fault.away, 2 * TTL_S)
        self.say("the store is back")

    async def end_tasks(self) -> None:
        """Nothing happens after the round, when the descriptors of its processes can be those of others."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def happen_later(self, sender: str) -> None:
        await asyncio.sleep(self.fault.delay)
        await self.happen(sender)

    def is_due(self, moment: str, number: int) -> bool:
        due = not self.is_begun and moment == self.fault.moment and number >= self.fault.at
        self.is_begun |= due
        return due

    async def before(self, event: Event) -> None:
        self.say(f"{event.sender} asks for {event.job} {event.file}")
        if self.is_due("before", event.number):
            await self.happen(event.sender)

    async def after(self, event: Event) -> None:
        self.say(f"event {event.job} {event.file} of {event.sender} has arrived")
        if self.is_due("after", event.number):
            await self.happen(event.sender)

    async def answered(self, event: Event) -> None:
        if self.fault.at and self.is_due("later", event.number):
            self.tasks.append(asyncio.ensure_future(self.happen_later(event.sender)))

    async def begin(self) -> None:
        if self.fault.at == 0 and self.is_due("later", 0):
            self.tasks.append(asyncio.ensure_future(self.happen_later(self.fault.target)))

    # ------------------------------------------------------------------------------------------------- the round

    @contextlib.contextmanager
    def store(self) -> Iterator[tuple[str, dict[str, str]]]:
        """The ledger's root and its options. Only a store that goes away is a remote one."""
        self.s3: SmallS3 | None = None
        if self.fault.kind != "store":
            yield str(self.folder / "ledger"), {}
            return
        self.s3 = SmallS3()
        self.tools.loop.run(self.s3.start())
        try:
            yield f"s3://{BUCKET}/ledger", s3_options(self.s3.url)
        finally:
            self.say(f"the store has answered {self.s3.requests} requests")
            self.tools.loop.run(self.s3.stop())

    @contextlib.contextmanager
    def transport_options(self) -> Iterator[dict[str, Any]]:
        """What the transport needs."""
        sshd = self.tools.sshd
        match self.transport:
            case "ssh":
                address = f"127.0.0.{self.slot % SSH_SERVERS + 1}"
                keys = {"key_file": str(sshd.key), "known_hosts": str(sshd.known_hosts)}
                yield {"ssh": {"address": address, "user": USER, "port": sshd.port, **keys}}
            case "run_command":
                with jobrota.Sandbox(viya=False, vms=2, vms_down=0, azure=True) as sandbox:
                    yield {
                        "azure": {
                            "subscription_id": sandbox.azure_subscription_id,
                            "resource_group": sandbox.azure_resource_group,
                            "credential": {**sandbox.azure_credential, "authority_host": sandbox.azure_url},
                            "endpoint": sandbox.azure_url,
                        }
                    }
            case _:
                yield {}

    def run(self) -> Outcome:
        """Runs the round, and says what it has shown."""
        begun = time.monotonic()
        outcome = Outcome(self.name, self.fault, rows=len(self.keys))
        self.autosys = AutosysStandIn(self.before, self.after, self.answered)
        self.tools.loop.run(self.autosys.start())
        try:
            with self.store() as (root, options), self.transport_options() as more:
                ledger = jobrota.JobLedger(root, storage_options=options or None)
                self.write_rows(ledger)
                self.deliver(root, options, more, outcome)
                # A fault that begins after the last row would meet the check.
                self.is_begun = True
                self.tools.loop.run(self.end_tasks())
                self.check(ledger, outcome)
        finally:
            self.tools.loop.run(self.end_tasks())
            for process in self.processes.values():
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                os.close(process)
            self.tools.loop.run(self.autosys.stop())
        if not outcome.problems:
            shutil.rmtree(self.folder)
        outcome.seconds = time.monotonic() - begun
        return outcome

    def deliver(self, root: str, options: dict[str, str], more: dict[str, Any], outcome: Outcome) -> None:
        """Runs both updaters to their ends."""
        program = self.folder / f"sendevent-{self.autosys.port}"
        os.link(self.tools.program, program)
        given = {
            "root": root,
            "storage_options": options or None,
            "transport": self.transport,
            "port": self.autosys.port,
            "program": str(program),
            "batch": self.chance.choice([1, 2]) if self.transport == "run_command" else self.chance.choice([4, 32]),
            "thread_safe": self.chance.random() < 0.5,
            "pause": 0.5 if options else 0.25,
            **more,
        }
        for name in self.chance.sample("AB", 2):
            self.start(name, {**given, "limit": TTL_S})
        self.tools.loop.run(self.begin())
        if self.are_ended(PATIENCE_S):
            return
        outcome.calmed, self.is_begun = 1, True
        self.tools.loop.run(self.end_tasks())
        for name in self.processes:
            self.signal(name, signal.SIGKILL)
        assert self.are_ended(ROUND_LIMIT_S)
        self.start("C", {**given, "limit": CALM_S})
        if not self.are_ended(ROUND_LIMIT_S):
            outcome.problems["unfinished"].append(f"C still runs after {ROUND_LIMIT_S} s")

    def start(self, name: str, given: dict[str, Any]) -> None:
        """Starts an updater."""
        clock = self.folder / f"{name}.clock"
        clock.write_bytes(bytes(8))
        with clock.open("r+b") as file:
            self.clocks[name] = mmap.mmap(file.fileno(), 8)
        mine = {"name": name, "clock": str(clock), "report": str(self.folder / f"{name}.jsonl")}
        self.processes[name] = self.tools.fork({**given, **mine})

    def are_ended(self, within: float) -> bool:
        """Waits until all updaters have ended."""
        deadline = time.monotonic() + within
        for process in self.processes.values():
            waiting = select.poll()
            waiting.register(process, select.POLLIN)
            if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return False
        return True

    # ------------------------------------------------------------------------------------------------- the check

    def check(self, ledger: jobrota.JobLedger, outcome: Outcome) -> None:
        """Compares what arrived with what was logged and recorded."""
        deliveries = ledger.deliveries()
        names = ("outcome", "detail", "job_id", "file_name", "attempt", "attempted_at")
        attempts = list(zip(*(column(deliveries, name) for name in names), strict=True))
        marks: Counter[Key] = Counter()
        for what, detail, job, file, *_ in attempts:
            marks[job, file] += what == "sending" and "arrived is unknown" in (detail or "")
        events = self.autosys.arrived
        arrived = Counter((event.job, event.file) for event in events)
        expected = Counter(self.keys)
        outcome.events, outcome.marked = len(events), sum(marks.values())
        is_over = "unfinished" not in outcome.problems
        for key, count in expected.items():
            if arrived[key] < count and is_over:
                outcome.problems["lost"].append(f"{key}: {arrived[key]} of {count} arrived")
            if arrived[key] > count + marks[key]:
                outcome.problems["doubled"].append(f"{key}: {arrived[key]} of {count}, {marks[key]} marks")
        for key in arrived.keys() - expected.keys():
            outcome.problems["doubled"].append(f"{key} is no row")
        self.check_order(events, marks, outcome)
        for table in ("notifications", "executions"):
            flags = column(getattr(ledger, table)(), "autosys_update_flag")
            if flags != ["YES"] * len(self.keys) and is_over:
                outcome.problems["flags"].append(f"{table}: {flags}")
        self.check_processes(outcome, is_over)
        outcome.faults = self.faults
        if not self.is_begun and is_over:
            outcome.problems["test"].append("the fault did not happen")
        outcome.timeline = self.timeline(attempts)

    def check_order(self, events: list[Event], marks: Counter[Key], outcome: Outcome) -> None:
        """No event arrives before the rows before its row have, or after a later row, unless one of both is marked."""
        order = list(dict.fromkeys(self.keys))
        expected, seen = Counter(self.keys), Counter[Key]()
        for event in events:
            key = (event.job, event.file)
            if key not in expected:
                continue
            seen[key] += 1
            place, others = order.index(key), [other for other in order if other[0] == event.job]
            early = [other for other in others if order.index(other) < place and seen[other] < expected[other]]
            late = [other for other in others if order.index(other) > place and seen[other]]
            for other in (*early, *late):
                if not marks[key] and not marks[other]:
                    outcome.problems["order"].append(f"{key} of {event.sender} arrived, {other}: {seen[other]}")

    def check_processes(self, outcome: Outcome, is_over: bool) -> None:
        """Both ended as they should, and what they met is what this fault explains."""
        for name in self.processes:
            lines = self.report(name)
            for line in lines:
                if line["what"] == "error":
                    outcome.errors[f"{self.fault.kind}: {line['error']}"] += 1
                    if not line["retryable"] or self.fault.kind != "store":
                        outcome.problems["error"].append(f"{name}: {line['error']}: {line['text']}")
                if line.get("parked"):
                    outcome.problems["parked"].append(f"{name}: {line}")
            was_killed = any(text == f"SIGKILL to {name}" for _, text in self.log)
            if not was_killed and is_over and (not lines or lines[-1]["what"] != "done"):
                log = (self.folder / f"{name}.log").read_text()[-2000:]
                outcome.problems["ended"].append(f"{name} did not come to its end: {log}")
            if self.fault.kind == "clock" and name == self.fault.target and lines and lines[-1]["what"] == "done":
                wrong = lines[-1]["wall"] - lines[-1]["at"] - (time.time() - time.monotonic())
                was_set = any(at < lines[-1]["at"] for at, text in self.log if "set by" in text)
                if was_set and abs(wrong - self.fault.skew) > 60:
                    outcome.problems["test"].append(f"the clock of {name} is wrong by {wrong} s")

    def report(self, name: str) -> list[dict[str, Any]]:
        """What a process has written down. The last line can be cut short by a kill."""
        path = self.folder / f"{name}.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def timeline(self, attempts: list[Any]) -> str:
        """Everything that is known of the round, in order."""
        to_wall = time.time() - time.monotonic()
        known = [(at, text) for at, text in self.log]
        for name in self.processes:
            for line in self.report(name):
                more = {key: value for key, value in line.items() if key not in ("at", "wall") and value}
                known.append((line["at"], f"    {name} says {more}"))
        for what, detail, job, file, attempt, at in attempts:
            known.append((at.timestamp() - to_wall, f"        {job} {file} attempt {attempt}: {what}: {detail}"))
        begun = min(at for at, _ in self.log)
        lines = [f"{at - begun:9.3f} {text}" for at, text in sorted(known)]
        return "\n".join([f"{self.name}: {self.fault}", *lines])


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tools]:
    """Compiles the programs, and starts the servers."""
    folder = tmp_path_factory.mktemp("fenced")
    program, library = folder / "sendevent", folder / "shifted_clock.so"
    for command in (
        ["-o", str(program), str(HERE / "asking_sendevent.c")],
        ["-shared", "-fPIC", "-o", str(library), str(HERE / "shifted_clock.c"), "-ldl"],
    ):
        subprocess.run(["cc", "-O1", "-Wall", "-Wextra", "-Werror", *command], check=True)
    with contextlib.ExitStack() as end:
        # What the user's shell does at its start would take long.
        sshd = Sshd(folder / "sshd", settings=[f"SetEnv HOME={folder}"])
        end.callback(sshd.stop)
        for number in range(SSH_SERVERS):
            sshd.start(f"127.0.0.{number + 1}")
        loop = LoopThread()
        end.callback(loop.close)
        forks = end.enter_context(
            subprocess.Popen(
                [sys.executable, str(HERE / "fenced_child.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "LD_PRELOAD": str(library)},
            )
        )
        yield Tools(folder, program, loop, forks, sshd)


def planned(seed: str) -> list[tuple[str, int]]:
    """Transports and numbers of all rounds. Those with a store that goes away take the longest, and begin first."""
    if "/" in seed:
        _, transport, number = seed.split("/")
        return [(transport, int(number))]
    all_rounds = [(TRANSPORTS[place % len(TRANSPORTS)], place // len(TRANSPORTS)) for place in range(ROUNDS)]
    if ROUNDS > 20:
        return all_rounds
    return sorted(all_rounds, key=lambda planned: planned[1] % len(FAULTS))


def shown(outcomes: list[Outcome]) -> str:
    """A table by transport and fault."""
    words = ["lost", "doubled", "order", "error"]
    titles = ["rounds", "faults", "calmed", "rows", "events", "marked", *words, "other", "seconds"]
    lines = [f"{'':26}" + " ".join(f"{title:>7}" for title in titles)]
    groups: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        transport = outcome.name.split("/")[1]
        groups[transport, outcome.fault.kind].append(outcome)
    for (transport, kind), group in sorted(groups.items()):
        found = Counter(word for outcome in group for word, texts in outcome.problems.items() for _ in texts)
        counts = [found[word] for word in words] + [sum(found[word] for word in found if word not in words)]
        names = ("faults", "calmed", "rows", "events", "marked")
        sums = [len(group), *(sum(getattr(outcome, name) for outcome in group) for name in names)]
        seconds = round(sum(outcome.seconds for outcome in group) / len(group), 1)
        numbers = [*sums, *counts, seconds]
        lines.append(f"{transport:14}{kind:12}" + " ".join(f"{number:7}" for number in numbers))
    errors = Counter[str]()
    for outcome in outcomes:
        errors += outcome.errors
    return "\n".join([*lines, f"errors, which were retried: {dict(errors)}"])


def test_no_row_is_lost_and_what_is_sent_twice_is_marked(tools: Tools) -> None:
    seed = SEED or str(random.SystemRandom().randrange(2**32))
    print(f"JOBROTA_FAULT_SEED={seed}")
    at_once = 8 if ROUNDS <= 20 else 24
    slots: queue.SimpleQueue[int] = queue.SimpleQueue()
    for slot in range(at_once):
        slots.put(slot)

    def run(transport: str, number: int) -> Outcome:
        slot = slots.get()
        try:
            outcome = Round(tools, seed.split("/")[0], transport, number, slot).run()
        finally:
            slots.put(slot)
        if outcome.problems or "/" in seed:
            print(f"{outcome.timeline}\n{dict(outcome.problems)}", flush=True)
        names = ("faults", "calmed", "rows", "events", "marked", "seconds")
        counts = {name: round(getattr(outcome, name), 1) for name in names}
        print(f"{outcome.name} {outcome.fault.kind}: {counts} {dict(outcome.errors)}", flush=True)
        return outcome

    with ThreadPoolExecutor(at_once) as pool:
        outcomes = list(pool.map(lambda planned: run(*planned), planned(seed)))
    print(shown(outcomes))
    problems = {outcome.name: dict(outcome.problems) for outcome in outcomes if outcome.problems}
    assert not problems
