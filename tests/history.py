"""Checks a history: whether the calls of many processes are what the log of a Delta table says that they did.

The log is the order: each version is one commit. `check` compares the commits with the calls that were recorded, and
knows three rules:

- conservation: a commit adds the rows of logging calls (each call's rows at once, and once), or sets flags of rows that
  are there from NO to YES for a call that asked for it, or changes no row. Nothing else appears or vanishes.
- result: what a call returned follows from the rows of some version. A call that set flags saw a version before its
  commit, and set what it had to set of that version.
- real time: a call sees and writes nothing that is older than what had returned when it began, and nothing that began
  after it had ended. So there is an order of all calls that respects both the versions and the clock.

When a version was committed is not known. It was after the calls of this version and of all before had begun, and
before the calls of this version and of all after had ended.
"""

from __future__ import annotations

import enum
import hashlib
import heapq
import itertools
from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

NO, YES = "NO", "YES"
FOREVER = float("inf")

# Operations, as the log names them, that may not change what is in the table.
KEEPS_ROWS = ("CREATE TABLE", "OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES", "COMPUTE STATS")


class Row(NamedTuple):
    """One row of a table of the ledger, with its time in microseconds."""

    file: str | None
    job: str | None
    status: str | None
    flag: str | None
    time: int | None

    def flagged(self, flag: str) -> Row:
        """The same row with this flag."""
        return self._replace(flag=flag)


Rows = Counter[Row]
Digest = dict[str, list[Any]]
"""Per flag, the number of rows and the sum of their hashes."""


@lru_cache(maxsize=1 << 18)
def hashed(row: Row) -> int:
    """A hash that is the same in all processes."""
    return int.from_bytes(hashlib.blake2b(repr(tuple(row)).encode(), digest_size=12).digest(), "big")


def add_to(digest: Digest, row: Row, count: int) -> None:
    """Adds `count` copies of a row."""
    sums = digest.setdefault(str(row.flag), [0, 0])
    sums[0] += count
    sums[1] = (sums[1] + count * hashed(row)) % (1 << 96)
    if sums == [0, 0]:
        del digest[str(row.flag)]


def digest_of(rows: Iterable[Row]) -> Digest:
    """What stands for many rows."""
    digest: Digest = {}
    for row in rows:
        add_to(digest, row, 1)
    return digest


@dataclass
class Commit:
    """One version of the log."""

    version: int
    operation: str
    engine: str
    added: Rows = field(default_factory=Counter)
    """Rows of the files that it adds."""
    removed: Rows = field(default_factory=Counter)
    """Rows of the files that it removes."""
    id: str | None = None
    """The id that jobrota gives its commits."""
    problems: list[str] = field(default_factory=list)
    """What is wrong with its files."""

    def __str__(self) -> str:
        return f"version {self.version} ({self.operation} by {self.engine})"


class Outcome(enum.Enum):
    """How a call ended."""

    RETURNED = "returned"
    NOTHING = "nothing"
    """With an error that says that nothing was written."""
    UNKNOWN = "unknown"
    """With another error, or with its process."""


@dataclass(frozen=True)
class Call:
    """One recorded call. Times are of the monotonic clock, in nanoseconds.

    | kind | given, where, limit | result |
    | --- | --- | --- |
    | log | the rows; one without a time has any | |
    | acknowledge | pending rows | how many it set |
    | update | `where`: file, job; those that are not there are any | how many it set |
    | settle | notifications whose executions it sets, if it likes | |
    | digest | `where`: flag | the digest of all rows |
    | rows | `where`: job, flag | the rows |
    | oldest | a limit or none | pending rows, oldest first |
    | counts | | rows, pending, acknowledged, oldest |
    """

    name: str
    kind: str
    table: str
    began: int
    ended: float = FOREVER
    outcome: Outcome = Outcome.RETURNED
    given: tuple[Row, ...] = ()
    where: dict[str, str] = field(default_factory=dict)
    limit: int | None = None
    result: Any = None

    @property
    def sets_flags(self) -> bool:
        """Whether its commit sets flags."""
        return self.kind in ("acknowledge", "update", "settle")

    @property
    def reads(self) -> bool:
        """Whether its result shows a version."""
        return self.kind in ("digest", "rows", "oldest", "counts")

    def __str__(self) -> str:
        where = f" {self.where}" if self.where else ""
        return f"{self.name} ({self.kind} of {self.table}{where})"


class Rule(enum.Enum):
    """What a history can violate."""

    CONSERVATION = "conservation"
    RESULT = "result"
    REAL_TIME = "real time"


@dataclass(frozen=True)
class Violation:
    """What violates a rule."""

    rule: Rule
    text: str

    def __str__(self) -> str:
        return f"{self.rule.value}: {self.text}"


@dataclass
class Verdict:
    """What a check found, and how much it had to look at."""

    violations: list[Violation]
    calls: Counter[str]
    """Calls by kind and outcome."""
    versions: Counter[str]
    """Versions by operation and engine."""
    shared: int
    """Versions that several calls wrote together."""
    widest: int
    """The most versions that one call could have seen."""
    overtaken: int
    """Calls that set flags, and saw an older version than the one before their commit."""

    def __str__(self) -> str:
        lines = [
            f"{sum(self.calls.values())} calls: {dict(sorted(self.calls.items()))}",
            f"{sum(self.versions.values())} versions: {dict(sorted(self.versions.items()))}",
            f"{self.shared} versions are of several calls; widest window: {self.widest} versions; "
            f"{self.overtaken} calls set flags as of an older version",
            f"{len(self.violations)} violations",
        ]
        return "\n".join([*lines, *map(str, self.violations[:30])])


def without_zeros(counts: Counter[Any]) -> Counter[Any]:
    """The counts that are not zero."""
    return Counter({key: count for key, count in counts.items() if count})


class Table:
    """The rows of a table at one version, moved forward commit by commit."""

    def __init__(self) -> None:
        """Starts with no rows."""
        self.rows: Rows = Counter()
        self.by_job: defaultdict[str | None, Rows] = defaultdict(Counter)
        self.digest: Digest = {}
        self.pending_times: list[int] = []

    def apply(self, changes: Counter[Row]) -> None:
        """Adds and removes rows."""
        for row, count in changes.items():
            for rows in (self.rows, self.by_job[row.job]):
                rows[row] += count
                if not rows[row]:
                    del rows[row]
            add_to(self.digest, row, count)
            if row.flag == NO:
                time = -1 if row.time is None else row.time
                for _ in range(count):
                    insort(self.pending_times, time)
                for _ in range(-count):
                    at = bisect_left(self.pending_times, time)
                    del self.pending_times[at : at + 1]

    def count(self, flag: str) -> int:
        """The number of rows with this flag."""
        return int(self.digest.get(flag, [0])[0])

    def shows(self, call: Call) -> bool:
        """Whether a read of this version returns what `call` returned."""
        flag = call.where.get("flag")
        if call.kind == "digest":
            wanted = self.digest if flag is None else {f: s for f, s in self.digest.items() if f == flag}
            return bool(call.result == wanted)
        if call.kind == "rows":
            rows = self.by_job.get(call.where["job"], Counter())
            return Counter(map(as_row, call.result)) == Counter(
                {row: count for row, count in rows.items() if flag in (None, row.flag)}
            )
        if call.kind == "counts":
            oldest = self.pending_times[0] if self.pending_times else None
            counts = {"rows": self.rows.total(), "pending": self.count(NO), "acknowledged": self.count(YES)}
            return bool(call.result == counts | {"oldest": oldest})
        return self._shows_oldest(call)

    def _shows_oldest(self, call: Call) -> bool:
        """Of rows of the same time, any can be the ones within the limit."""
        rows = [as_row(row) for row in call.result]
        pending = len(self.pending_times)
        if len(rows) != (pending if call.limit is None else min(call.limit, pending)):
            return False
        times = [-1 if row.time is None else row.time for row in rows]
        if times != self.pending_times[: len(times)]:
            return False
        return all(row.flag == NO and count <= self.rows[row] for row, count in Counter(rows).items())


def as_row(values: Sequence[Any]) -> Row:
    """A row that was a list in a recording."""
    return Row(*values)


class Pending:
    """How many copies of each row were pending, at each version."""

    def __init__(self) -> None:
        """Starts with no rows."""
        self.history: dict[Row, tuple[list[int], list[int]]] = {}
        self.by_job: defaultdict[str | None, list[Row]] = defaultdict(list)
        self.by_names: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)

    def apply(self, version: int, changes: Counter[Row]) -> None:
        """Takes in what one version changes."""
        for row, count in changes.items():
            if row.flag != NO:
                continue
            if row not in self.history:
                self.history[row] = ([], [])
                self.by_job[row.job].append(row)
                self.by_names[row[:3]].append(row)
            versions, counts = self.history[row]
            versions.append(version)
            counts.append((counts[-1] if counts else 0) + count)

    def count(self, row: Row, version: int) -> int:
        """The number of pending copies of the row at a version."""
        versions, counts = self.history.get(row, ([], []))
        at = bisect_right(versions, version)
        return counts[at - 1] if at else 0

    def selected(self, call: Call, version: int) -> Counter[Row]:
        """The pending rows of a version that `call` has to set."""
        if call.kind == "acknowledge":
            given = Counter(row.flagged(NO) for row in call.given)
            return without_zeros(Counter({row: min(n, self.count(row, version)) for row, n in given.items()}))
        if call.kind == "update":
            file, job = call.where.get("file"), call.where.get("job")
            rows: Iterable[Row] = self.history if job is None else self.by_job.get(job, [])
            return without_zeros(
                Counter({row: self.count(row, version) for row in rows if file is None or row.file == file})
            )
        found: Counter[Row] = Counter()
        for notified in call.given:
            for row in self.by_names.get(notified[:3], []):
                if (row.time or 0) <= (notified.time or 0):
                    found[row] = self.count(row, version)
        return without_zeros(found)

    def permits(self, call: Call, version: int, flips: Counter[Row]) -> bool:
        """Whether `call` sets `flips`, if it sees this version."""
        selected = self.selected(call, version)
        return flips <= selected if call.kind == "settle" else flips == selected


class Checker:
    """Checks the calls of one table against its log."""

    def __init__(self, commits: Sequence[Commit], calls: Iterable[Call]) -> None:
        """Takes the commits from version 0 on, without gaps."""
        self.commits = commits
        self.calls = sorted(calls, key=lambda call: call.began)
        self.violations: list[Violation] = []
        self.changes: list[Counter[Row]] = []
        self.flips: dict[int, Counter[Row]] = {}
        self.pending = Pending()
        self.commit_of: dict[str, int] = {}
        self.writers: defaultdict[int, list[Call]] = defaultdict(list)
        self.overtaken = 0
        self.widest = 0

    def report(self, rule: Rule, text: str) -> None:
        self.violations.append(Violation(rule, text))

    def check(self) -> Verdict:
        assert [commit.version for commit in self.commits] == list(range(len(self.commits))), "the log has gaps"
        self.check_commits()
        self.match_logs()
        self.bound()
        self.match_flips()
        self.bound()
        self.check_order(self.check_reads())
        return Verdict(
            self.violations,
            Counter(f"{call.kind} {call.outcome.value}" for call in self.calls),
            Counter(f"{commit.operation} by {commit.engine}" for commit in self.commits),
            sum(len(calls) > 1 for calls in self.writers.values()),
            self.widest,
            self.overtaken,
        )

    # ------------------------------------------------------------------------------------------------ conservation

    def check_commits(self) -> None:
        """What each commit changes: it adds rows, sets flags, or keeps all rows."""
        there: Rows = Counter()
        ids: dict[str, Commit] = {}
        for commit in self.commits:
            if commit.id is not None and (same := ids.setdefault(commit.id, commit)) is not commit:
                self.report(Rule.CONSERVATION, f"{commit} has the id of {same}: it was written twice")
            changes: Counter[Row] = Counter(commit.added)
            changes.subtract(commit.removed)
            changes = without_zeros(changes)
            self.changes.append(changes)
            self.pending.apply(commit.version, changes)
            for problem in commit.problems:
                self.report(Rule.CONSERVATION, f"{commit} {problem}")
            for row, count in changes.items():
                there[row] += count
                if there[row] < 0:
                    self.report(Rule.CONSERVATION, f"{commit} removes a row that is not there: {row}")
            if not changes:
                continue
            if commit.operation in KEEPS_ROWS:
                self.report(Rule.CONSERVATION, f"{commit} may not change rows: {dict(changes)}")
                continue
            gone = Counter({row: -count for row, count in changes.items() if count < 0})
            new = Counter({row: count for row, count in changes.items() if count > 0})
            if not gone:
                continue
            if any(row.flag != NO for row in gone) or new != Counter({r.flagged(YES): n for r, n in gone.items()}):
                text = "does more than to set flags from NO to YES"
                self.report(Rule.CONSERVATION, f"{commit} {text}: removed {dict(gone)}, added {dict(new)}")
                continue
            self.flips[commit.version] = gone

    def match_logs(self) -> None:
        """Each logging call has its rows in one commit."""
        logs = [call for call in self.calls if call.kind == "log"]
        owners: dict[tuple[Any, ...], Call] = {}
        # A call that wrote nothing can have been repeated by another one.
        for call in sorted(logs, key=lambda call: call.outcome is Outcome.NOTHING):
            for row in call.given:
                other = owners.setdefault(row[:3], call)
                is_clear = other is call or call.outcome is Outcome.NOTHING
                assert is_clear, f"{other} and {call} log rows that cannot be told apart: {row}"
        for commit, changes in zip(self.commits, self.changes, strict=True):
            if commit.version in self.flips or commit.operation in KEEPS_ROWS or min(changes.values(), default=0) < 0:
                continue
            by_call: dict[str, tuple[Call, Rows]] = {}
            for row, count in changes.items():
                if (owner := owners.get(row[:3])) is None:
                    self.report(Rule.CONSERVATION, f"{commit} adds a row that no call logged: {row}")
                else:
                    by_call.setdefault(owner.name, (owner, Counter()))[1][row] += count
            for call, rows in by_call.values():
                self.match_log(commit, call, rows)
        for call in logs:
            if call.outcome is Outcome.RETURNED and call.given and call.name not in self.commit_of:
                self.report(Rule.CONSERVATION, f"{call} returned, but its rows are in no commit: {call.given[:3]}")

    def match_log(self, commit: Commit, call: Call, rows: Rows) -> None:
        timed = {row[:3] for row in call.given if row.time is not None}
        stripped = Counter(row if row[:3] in timed else row._replace(time=None) for row in rows.elements())
        if call.name in self.commit_of:
            before = self.commit_of[call.name]
            self.report(Rule.CONSERVATION, f"{commit} adds rows of {call} again, after version {before}: {dict(rows)}")
        elif call.outcome is Outcome.NOTHING:
            self.report(Rule.CONSERVATION, f"{commit} adds rows of {call}, which said that it wrote nothing")
        elif stripped != Counter(call.given):
            self.report(Rule.CONSERVATION, f"{commit} adds other rows than {call} logged: {dict(rows)}")
        else:
            self.writes(call, commit.version)

    def writes(self, call: Call, version: int) -> None:
        self.commit_of[call.name] = version
        self.writers[version].append(call)

    # ------------------------------------------------------------------------------------------------------- windows

    def bound(self) -> None:
        """When each version was committed: not before `earliest`, not after `latest`."""
        began = [max((call.began for call in self.writers[v]), default=0) for v in range(len(self.commits))]
        ended = [min((call.ended for call in self.writers[v]), default=FOREVER) for v in range(len(self.commits))]
        self.earliest = list(itertools.accumulate(began, max))
        self.latest = list(itertools.accumulate(reversed(ended), min))[::-1]

    def window(self, call: Call) -> tuple[int, int]:
        """The oldest and the newest version that `call` can have seen."""
        oldest = max(bisect_left(self.latest, call.began) - 1, 0)
        newest = bisect_right(self.earliest, call.ended) - 1
        return oldest, newest

    # --------------------------------------------------------------------------------------------- calls that set flags

    def match_flips(self) -> None:
        """Each commit that sets flags is of one call that had to set them, and each call that set flags has one."""
        setters = [call for call in self.calls if call.sets_flags and call.outcome is not Outcome.NOTHING]
        by_row: defaultdict[tuple[Any, ...], list[Call]] = defaultdict(list)
        for call in setters:
            keys = {row[:3] for row in call.given} if call.kind != "update" else {(call.where.get("job"),)}
            for key in keys:
                by_row[key].append(call)
        edges: dict[int, list[tuple[Call, int]]] = {}
        for version, flips in self.flips.items():
            row = next(iter(flips))
            asked = [call for key in (row[:3], (row.job,), (None,)) for call in by_row.get(key, ())]
            edges[version] = sorted(self.explanations(version, flips, asked), key=lambda edge: edge[0].ended)
        matched = self.matching(setters, edges)
        for version, flips in self.flips.items():
            commit = self.commits[version]
            if version in matched:
                call = matched[version]
                self.writes(call, version)
                self.overtaken += next(seen for other, seen in edges[version] if other is call) < version - 1
                continue
            row = next(iter(flips))
            asked = [call for key in (row[:3], (row.job,), (None,)) for call in by_row.get(key, ())]
            self.blame(commit, flips, asked)

    def explanations(self, version: int, flips: Counter[Row], asked: list[Call]) -> Iterator[tuple[Call, int]]:
        """The calls that can have made this commit, with the version that they saw."""
        for call in asked:
            oldest, newest = self.window(call)
            if call.result not in (None, flips.total()) or not oldest < version <= newest:
                continue
            for seen in range(version - 1, oldest - 1, -1):
                if self.pending.permits(call, seen, flips):
                    yield call, seen
                    break

    def matching(self, setters: list[Call], edges: dict[int, list[tuple[Call, int]]]) -> dict[int, Call]:
        """Each commit with its call. Calls that returned a number need a commit, the others can have one."""
        calls = {call.name: call for call in setters}
        commits_of: defaultdict[str, list[int]] = defaultdict(list)
        for version, found in edges.items():
            for call, _ in found:
                commits_of[call.name].append(version)
        call_of: dict[int, str] = {}
        commit_of: dict[str, int] = {}

        def pair_call(name: str, tried: set[int]) -> bool:
            for version in commits_of[name]:
                if version not in tried:
                    tried.add(version)
                    if version not in call_of or pair_call(call_of[version], tried):
                        call_of[version], commit_of[name] = name, version
                        return True
            return False

        def pair_commit(version: int, tried: set[str]) -> bool:
            for call, _ in edges[version]:
                if call.name not in tried:
                    tried.add(call.name)
                    if call.name not in commit_of or pair_commit(commit_of[call.name], tried):
                        call_of[version], commit_of[call.name] = call.name, version
                        return True
            return False

        # Those that ended first take the earliest commits.
        for call in sorted(setters, key=lambda call: call.ended):
            if call.outcome is Outcome.RETURNED and call.result:
                pair_call(call.name, set())
        for version in edges:
            if version not in call_of:
                pair_commit(version, set())
        return self.in_order({version: calls[name] for version, name in call_of.items()}, edges)

    def in_order(self, matched: dict[int, Call], edges: dict[int, list[tuple[Call, int]]]) -> dict[int, Call]:
        """The same, with calls that set the same flags in the order in which they ended, where they could have been."""
        alike: defaultdict[frozenset[tuple[Row, int]], list[int]] = defaultdict(list)
        for version in sorted(matched):
            alike[frozenset(self.flips[version].items())].append(version)
        for versions in alike.values():
            left = sorted((matched[version] for version in versions), key=lambda call: call.ended)
            pairs: list[tuple[int, Call]] = []
            for version in versions:
                explains = {call.name for call, _ in edges[version]}
                if (call := next((call for call in left if call.name in explains), None)) is not None:
                    left.remove(call)
                    pairs.append((version, call))
            if not left:
                matched |= pairs
        return matched

    def blame(self, commit: Commit, flips: Counter[Row], asked: list[Call]) -> None:
        """Says why no call explains a commit that sets flags."""
        told = f"{commit} sets {flips.total()} flags, such as of {next(iter(flips))}"
        seen = range(commit.version)
        counted = [call for call in asked if call.name not in self.commit_of]
        for call in counted:
            if call.result not in (None, flips.total()) and any(self.pending.permits(call, v, flips) for v in seen):
                self.report(Rule.RESULT, f"{told}, but {call} returned {call.result}")
                return
        for call in counted:
            if call.result in (None, flips.total()) and any(self.pending.permits(call, v, flips) for v in seen):
                oldest, newest = self.window(call)
                self.report(Rule.REAL_TIME, f"{told}, but {call} saw and wrote versions from {oldest} to {newest}")
                return
        if not asked:
            self.report(Rule.CONSERVATION, f"{told}, which no call was to set")
            return
        self.report(Rule.RESULT, f"{told}, but no call had to set exactly these: {[str(call) for call in asked[:5]]}")

    # --------------------------------------------------------------------------------------------------------- reads

    def check_reads(self) -> list[tuple[Call, list[int], bool]]:
        """Calls with the versions that they can have seen or written; and whether they wrote."""
        found: list[tuple[Call, list[int], bool]] = []
        reads: list[tuple[Call, list[int]]] = []
        from_version: defaultdict[int, list[int]] = defaultdict(list)
        for call in self.calls:
            if call.name in self.commit_of:
                found.append((call, [self.commit_of[call.name]], True))
            elif call.outcome is Outcome.RETURNED and (call.reads or self.found_nothing(call)):
                from_version[self.window(call)[0]].append(len(reads))
                reads.append((call, []))
            elif call.outcome is Outcome.RETURNED and call.sets_flags and call.result:
                self.report(Rule.RESULT, f"{call} returned {call.result}, but no commit sets these flags")
        table = Table()
        active: list[tuple[int, int]] = []
        for version, changes in enumerate(self.changes):
            table.apply(changes)
            for number in from_version[version]:
                oldest, newest = self.window(reads[number][0])
                self.widest = max(self.widest, newest - oldest + 1)
                active.append((newest, number))
            active = [(newest, number) for newest, number in active if newest >= version]
            for _, number in active:
                call, versions = reads[number]
                if self.shows(table, version, call):
                    versions.append(version)
        self.blame_reads([call for call, versions in reads if not versions])
        found.extend((call, versions, False) for call, versions in reads if versions)
        return found

    @staticmethod
    def found_nothing(call: Call) -> bool:
        """Whether it asked to set flags, and none were left to set."""
        return call.kind in ("acknowledge", "update") and not call.result

    def shows(self, table: Table, version: int, call: Call) -> bool:
        return table.shows(call) if call.reads else not self.pending.selected(call, version)

    def blame_reads(self, calls: list[Call]) -> None:
        """Says of reads that no version of their window explains whether another version does."""
        table = Table()
        shown: defaultdict[str, list[int]] = defaultdict(list)
        if calls:
            for version, changes in enumerate(self.changes):
                table.apply(changes)
                for call in calls[:100]:
                    if self.shows(table, version, call):
                        shown[call.name].append(version)
        for call in calls:
            oldest, newest = self.window(call)
            told = f"{call} returned {str(call.result)[:300]} and could see versions {oldest} to {newest}"
            if versions := shown[call.name]:
                is_stale = versions[-1] < oldest
                text = f"this is {'stale' if is_stale else 'of the future'}: it is version {versions[-is_stale]}"
                self.report(Rule.REAL_TIME, f"{told}; {text}")
            else:
                self.report(Rule.RESULT, f"{told}; no version is like this")

    # --------------------------------------------------------------------------------------------------- real time

    def check_order(self, found: list[tuple[Call, list[int], bool]]) -> None:
        """Gives each call the oldest version that it can have. A call that began later may not have an older one."""
        running: list[tuple[float, int, int, Call]] = []
        floor, last = -1, None
        for number, (call, versions, wrote) in enumerate(sorted(found, key=lambda entry: entry[0].began)):
            while running and running[0][0] < call.began:
                _, _, version, ended = heapq.heappop(running)
                if version > floor:
                    floor, last = version, ended
            # What a call writes is newer than all that was there when it began.
            at = bisect_right(versions, floor) if wrote else bisect_left(versions, floor)
            if at == len(versions):
                did = "wrote" if wrote else "saw"
                text = f"{call} {did} version {versions[-1]}, but {last} had ended before with version {floor}"
                self.report(Rule.REAL_TIME, text)
            else:
                heapq.heappush(running, (call.ended, number, versions[at], call))


def check(commits: Sequence[Commit], calls: Iterable[Call]) -> Verdict:
    """Checks the calls of one table. Rows of different logging calls differ in file, job or status."""
    return Checker(commits, calls).check()
