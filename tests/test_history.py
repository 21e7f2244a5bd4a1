"""The checker of histories finds each kind of violation; see history.py for the rules."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from history import NO, YES, Call, Commit, Outcome, Row, Rule, check, digest_of

# ------------------------------------------------------------------------------------------- what the checker finds


def row(job: str, flag: str = NO, time: int = 1) -> Row:
    return Row("a.sas", job, "SUCCESS", flag, time)


def commit(version: int, operation: str, added: list[Row] | None = None, removed: list[Row] | None = None) -> Commit:
    return Commit(version, operation, "an engine", Counter(added or []), Counter(removed or []))


def call(name: str, kind: str, began: int, ended: int, *given: Row, **more: Any) -> Call:
    return Call(name, kind, "job_notifications", began, ended, given=given, **more)


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


def test_a_call_can_set_flags_as_of_an_older_version() -> None:
    """A row that is logged between what an update saw and its commit stays: the update came first."""
    late = row("B", time=9)._replace(status="LATE")
    overtaken = [*commits()[:5], commit(5, "WRITE", [late]), replace(commits()[5], version=6)]
    logged = call("log late", "log", 78, 79, late)
    assert found(overtaken, logged, others=without("see all", "count")) == []
    # Unless it was there when the call began.
    early = replace(logged, began=71, ended=72)
    assert found(overtaken, early, others=without("see all", "count"))[0] == Rule.REAL_TIME
