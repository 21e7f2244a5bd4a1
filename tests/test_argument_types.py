"""Arguments of a wrong type or beyond their range give an error that names the argument and what is expected.

`JobLedger` has its own tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import jobrota
from jobrota.autosys import RunCommand, SendEvent, WebServices
from support import answers

HALF = "\ud800"  # half of a character: Python's text holds it, UTF-8 does not


def taken(*row: str) -> bool:
    return True


def selector(**options: Any) -> jobrota.RoundRobinSelector:
    defaults: dict[str, Any] = {"cursor": "process", "probe": answers}
    return jobrota.RoundRobinSelector(["vm1", "vm2"], **(defaults | options))


def runner(**options: Any) -> jobrota.ViyaComparisonRunner:
    return jobrota.ViyaComparisonRunner(options.pop("base_url", "http://127.0.0.1:1"), **options)


def refused(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> str:
    """The text of the error, which is a ValueError, too, and which no retry helps."""
    with pytest.raises(jobrota.InvalidInputError) as caught:
        call(*arguments, **keywords)
    assert isinstance(caught.value, ValueError)
    assert not caught.value.retryable
    return str(caught.value)


WRONG: list[tuple[Callable[..., Any], list[str], list[Any], str]] = [
    (selector, ["timeout", "health_ttl"], ["soon", None, True, [], 10**400], "a number of seconds"),
    (selector, ["timeout", "hold_ttl"], [-1, "400d", float("nan")], "a duration from 0 to a year"),
    (selector, ["rise", "fall"], [-1, 1.5, "1", None, False], "a whole number from 0"),
    (selector, ["rise"], [2**32], "at most 4294967295"),
    (selector, ["max_in_flight"], [-1, "many"], "a whole number from 0"),
    (selector, ["cursor"], [5, b"\xff", HALF], "text or a path"),
    (runner, ["concurrent", "limit_jobs", "repeat"], [-1, 2.0, "5", True], "a whole number from 0"),
    (runner, ["limit_jobs"], [2**64], "at most"),
    (runner, ["base_url", "sequential_context", "async_context"], [5, HALF, b"x"], "text"),
    (runner, ["mode"], [5, None, HALF], "text"),
    (runner, ["tokens", "jobs", "results_dir"], [5, HALF], "text or a path"),
    (runner, ["poll_interval", "job_timeout", "correlation_timeout"], ["soon", None], "a number of seconds"),
    (runner, ["time_scale"], ["1", True, []], "a number"),
    (runner, ["sequential_only", "async_only"], [1, "yes", None], "True or False"),
    (SendEvent, ["timeout"], ["soon", None], "a number of seconds"),
    (SendEvent, ["env"], [["AUTOSERV"], {"AUTOSERV": 5}, {"AUTOSERV": HALF}], "a dict of names and values"),
    (SendEvent, ["comment"], [5, HALF], "text"),
    (SendEvent, ["program"], [5, HALF], "text or a path"),
    (jobrota.Sandbox, ["vms", "vms_down"], [-1, 1.5, "4"], "a whole number from 0"),
    (jobrota.Sandbox, ["speed", "token_lifetime"], ["fast"], "a number"),
    (jobrota.Sandbox, ["definitions", "hosts"], [5, "a", ["a"]], "a dict"),
    (jobrota.Sandbox, ["viya", "autosys"], [1, "no"], "True or False"),
    (jobrota.Sandbox, ["refuse_first", "fail_jobs"], ["A", 5, [5], [HALF]], "a list of texts"),
]


@pytest.mark.parametrize(
    ("make", "name", "wrong", "expected"),
    [(make, name, wrong, expected) for make, names, wrongs, expected in WRONG for name in names for wrong in wrongs],
)
def test_the_error_says_what_is_expected_of_which_argument(
    make: Callable[..., Any], name: str, wrong: Any, expected: str
) -> None:
    text = refused(make, **{name: wrong})
    assert text.startswith(f"{name} must be {expected}"), text


def test_an_updater_without_a_ledger_is_refused(ledger: jobrota.JobLedger, tmp_path: Path) -> None:
    assert "JobLedger" in refused(jobrota.AutosysUpdater, str(tmp_path), taken)
    for name, wrong in [
        ("max_attempts", 1.5),
        ("max_attempts", 2**63),
        ("concurrency", -1),
        ("order", None),
        ("source", 5),
        ("thread_safe", "yes"),
        ("dry_run", 1),
        ("confirm", 1),
    ]:
        options: dict[str, Any] = {name: wrong}
        assert refused(jobrota.AutosysUpdater, ledger, taken, **options).startswith(f"{name} must be ")


def test_refused_calls_keep_turns() -> None:
    one = selector()
    for exclude in ("a", "vm1", 5, [5], [HALF]):
        for call in (one.select, one.select_async):
            assert refused(call, exclude=exclude).startswith("exclude must be a list of texts")
    for n in (-1, 1.5, "2", None, True):
        for many in (one.select_many, one.select_many_async):
            assert refused(many, n).startswith("n must be a whole number from 0")
    assert refused(one.report, HALF, True).startswith("vm must be text")
    assert refused(one.report, "vm1", "yes").startswith("ok must be True or False")
    refused(one.distribution, "yesterday")
    assert [selection.vm for selection in one.select_many(2)] == ["vm1", "vm2"]


def test_inventories_are_refused(tmp_path: Path) -> None:
    for wrong in (5, [5], [HALF], {HALF: {}}, HALF, object(), [{"name": HALF}]):
        refused(jobrota.Inventory, wrong)


class Interrupted(Mapping[str, Any]):
    """A mapping during whose conversion the user presses Ctrl-C."""

    def __getitem__(self, key: str) -> Any:
        raise KeyboardInterrupt

    def __iter__(self) -> Iterator[str]:
        return iter(["vm1"])

    def __len__(self) -> int:
        return 1


def test_ctrl_c_inside_a_mapping_is_not_taken_for_a_wrong_value(ledger: jobrota.JobLedger) -> None:
    mapping = Interrupted()
    calls: list[Callable[[], Any]] = [
        lambda: jobrota.Inventory(mapping),
        lambda: jobrota.Inventory([mapping]),
        lambda: jobrota.JobLedger(ledger.root, storage_options=mapping),
        lambda: jobrota.AutosysUpdater(ledger, taken, mapping=mapping),
        lambda: jobrota.AutosysUpdater(ledger, taken, backoff=mapping),
        lambda: runner(tokens=mapping),
        lambda: runner(tokens={"access_token": "t", "more": mapping}),
        lambda: runner(arms=[mapping, mapping]),
        lambda: runner(order="longest_first", durations_from=mapping),
        lambda: RunCommand(selector(), subscription_id="0" * 8 + "-0000-0000-0000-" + "0" * 12, credential=mapping),
        lambda: SendEvent(env=mapping),
    ]
    for call in calls:
        with pytest.raises(KeyboardInterrupt):
            call()


def test_any_mapping_is_taken_as_a_dict(ledger: jobrota.JobLedger) -> None:
    def named(**items: Any) -> Mapping[str, Any]:
        return MappingProxyType(items)

    inventory = jobrota.Inventory(named(vm1=named(ip_address="10.0.0.4"), vm2=named(weight=2)))
    assert [(vm["name"], vm["ip_address"], vm["weight"]) for vm in inventory.vms] == [
        ("vm1", "10.0.0.4", 1),
        ("vm2", "vm2", 2),
    ]
    assert jobrota.Inventory([named(name="vm1", ip_address="10.0.0.4")]).vms[0]["ip_address"] == "10.0.0.4"
    runner(
        order="longest_first", durations_from=named(a="1h"), tokens=named(access_token="t"), storage_options=named(a=1)
    )
    runner(arms=[named(name=name, context=name, mode="window", concurrent=2) for name in ("one", "two")])
    backoff, mapping = named(first="1m", longest="1h"), named(SUCCESS="STARTJOB")
    jobrota.AutosysUpdater(ledger, taken, backoff=backoff, mapping=mapping)
    assert refused(jobrota.AutosysUpdater, ledger, taken, backoff=named(frist="1m")).startswith("backoff has no frist")
    SendEvent(env=named(AUTOSERV="ACE"))
    WebServices("https://autosys.example.com", events=named(STARTJOB="start"))
    credential = named(tenant_id="t", client_id="c", client_secret="secret")
    RunCommand(selector(), subscription_id="0" * 8 + "-0000-0000-0000-" + "0" * 12, credential=credential)
    definitions, hosts = named(first=5, second="1m"), named(pool_max=3)
    with jobrota.Sandbox(autosys=False, vms=0, vms_down=0, definitions=definitions, hosts=hosts):
        pass


def test_an_error_names_the_key_of_a_dict(ledger: jobrota.JobLedger) -> None:
    updater, sandbox = jobrota.AutosysUpdater, jobrota.Sandbox
    assert refused(updater, ledger, taken, backoff="soon").startswith("backoff must be")
    assert refused(updater, ledger, taken, confirm="soon").startswith("confirm must be")
    assert refused(updater, ledger, taken, backoff={"first": "soon"}).startswith('backoff["first"] must be')
    assert refused(updater, ledger, taken, backoff={1: "1m"}).startswith("backoff has a key of type int")
    for wrong in ("5s", True, None):
        assert refused(sandbox, hosts={"cold_start": wrong}).startswith('hosts["cold_start"] must be a number')
    assert refused(sandbox, hosts={"cold_start": -1}).startswith('hosts["cold_start"] is -1')
    assert refused(sandbox, hosts={None: 1}).startswith("hosts has a key of type NoneType")
    assert refused(sandbox, definitions={"a": "soon"}).startswith('definitions["a"] must be')


def test_an_inventory_takes_only_what_json_has() -> None:
    looped: list[Any] = []
    looped.append(looped)
    for value, text in (
        ({None: {}}, "inventory has a key of type NoneType"),
        ({True: {}}, "inventory has a key of type bool"),
        ({"vm1": {1: "10.0.0.4"}}, "inventory has a key of type int"),
        ({"vm1": {"weight": float("nan")}}, "inventory has a number that is infinite"),
        ({"vm1": object()}, "inventory must be made of text, numbers, lists and dicts"),
        ([HALF], "inventory has text that is not valid"),
        (looped, "inventory is nested too deeply"),
    ):
        assert refused(jobrota.Inventory, value).startswith(text)


def test_unknown_filters_are_refused_with_the_known_ones(ledger: jobrota.JobLedger) -> None:
    for read in (ledger.executions, ledger.notifications, ledger.executions_async, ledger.notifications_async):
        wrong: Any = {"sice": None}
        with pytest.raises(TypeError, match="'sice': give since, until, job_id, status or flag"):
            read(**wrong)


def test_a_progress_that_cannot_be_called_is_refused() -> None:
    assert refused(runner().run, 5).startswith("progress must be")
    assert refused(runner().run_async, 5).startswith("progress must be")


def test_values_of_options_are_not_shown() -> None:
    assert "secret" not in refused(selector, storage_options={"key": b"secret"})
    assert "secret" not in refused(SendEvent, env={"TOKEN": ["secret"]})


def test_other_notes_stay_notes() -> None:
    error = jobrota.InvalidInputError("text")
    error.add_note("seen in the nightly run")
    assert (str(error), vars(error)["__notes__"]) == ("text", ["seen in the nightly run"])
