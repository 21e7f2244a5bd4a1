"""The state that selectors of several processes share: turns, and VMs that are drained, up, or in use."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import deltalake
import pytest

import jobrota
from support import answers, column

VMS = ["vm1", "vm2", "vm3", "vm4", "vm5"]

# Selects once and prints the VM; with "hold", keeps it until killed.
CHILD = """
import sys
import jobrota

def answers(vm):
    if vm == sys.argv[4]:
        raise OSError("powered off")
    return "127.0.0.1", "nic-" + vm

limit = {"max_in_flight": 1, "hold_ttl": 1.0} if sys.argv[3] == "hold" else {}
selector = jobrota.RoundRobinSelector(sys.argv[2].split(","), cursor=sys.argv[1], probe=answers, **limit)
with selector.select() as selection:
    print(selection.vm, flush=True)
    if limit:
        sys.stdin.read()
"""


def start(cursor: Path, *, vms: list[str] | None = None, mode: str = "once", down: str = "") -> subprocess.Popen[str]:
    arguments = [str(cursor), ",".join(vms or VMS), mode, down]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def ended(child: subprocess.Popen[str]) -> str:
    text, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    return text.strip()


def test_processes_started_anew_share_the_turns_exactly(tmp_path: Path) -> None:
    taken: list[str] = []
    for _ in range(6):
        taken += [ended(child) for child in [start(tmp_path) for _ in range(5)]]
    assert Counter(taken) == dict.fromkeys(VMS, 6)
    # One after the other, it is the order of the list.
    assert [ended(start(tmp_path)) for _ in range(3)] == taken_next(tmp_path, 3)
    table = deltalake.DeltaTable(str(tmp_path / "vm_selections")).to_pyarrow_table()
    assert table.num_rows == 33
    assert set(table["probe"].to_pylist()) == {"callable"}


def taken_next(cursor: Path, count: int) -> list[str]:
    """The VMs of the last `count` selections, as the table has them."""
    table = deltalake.DeltaTable(str(cursor / "vm_selections")).to_pyarrow_table().sort_by("selected_at")
    vms: list[str] = table["vm"].to_pylist()
    return vms[-count:]


def test_flapping_vm_keeps_turns_even(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    for attempt in range(10):
        down = "vm2" if attempt % 2 else ""
        counts.update(ended(child) for child in [start(tmp_path, down=down) for _ in range(4)])
    healthy = [counts[vm] for vm in VMS if vm != "vm2"]
    assert max(healthy) - min(healthy) <= 1, counts
    assert 0 < counts["vm2"] <= min(healthy), counts


def test_a_drained_vm_is_drained_for_everyone(tmp_path: Path) -> None:
    selector = jobrota.RoundRobinSelector(VMS, cursor=tmp_path, probe=answers)
    selector.drain("vm2")
    assert [ended(start(tmp_path)) for _ in range(4)] == ["vm1", "vm3", "vm4", "vm5"]
    assert column(selector.state(), "drained") == [False, True, False, False, False]
    with pytest.raises(jobrota.NoReachableVmError, match="drained") as refused:
        selector.select(exclude=["vm1", "vm3", "vm4", "vm5"])
    assert refused.value.failures["vm1"] == "excluded by the caller"
    jobrota.RoundRobinSelector(["vm2"], cursor=tmp_path, probe=answers).restore("vm2")
    assert ended(start(tmp_path)) == "vm2"
    with pytest.raises(jobrota.InvalidInputError, match="vm9"):
        selector.drain("vm9")


def test_killed_holder_releases_vm(tmp_path: Path) -> None:
    holder = start(tmp_path, vms=["vm1", "vm2"], mode="hold")
    assert holder.stdout is not None
    assert holder.stdout.readline().strip() == "vm1"
    here = jobrota.RoundRobinSelector(["vm1", "vm2"], cursor=tmp_path, probe=answers, max_in_flight=1)
    with here.select() as second:
        assert second.vm == "vm2"
        with pytest.raises(jobrota.NoReachableVmError, match="1 of 1 selections in flight") as refused:
            here.select()
        assert refused.value.retryable
    assert column(here.state(), "in_flight") == [1, 0]
    # It reports that it is alive, so it keeps its VM for longer than its time limit of one second.
    alive = time.monotonic() + 2.5
    while time.monotonic() < alive:
        assert column(here.state(), "in_flight") == [1, 0]
        time.sleep(0.05)
    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=60)
    until = time.monotonic() + 30
    while column(here.state(), "in_flight") != [0, 0]:
        assert time.monotonic() < until
        time.sleep(0.05)
    with here.select() as again:
        assert again.vm == "vm1"


def test_block_end_or_drop_releases_selection() -> None:
    selector = jobrota.RoundRobinSelector(["vm1", "vm2"], cursor="process", probe=answers, max_in_flight=1)
    with selector.select() as first:
        assert (first.vm, column(selector.state(), "in_flight")) == ("vm1", [1, 0])
    assert column(selector.state(), "in_flight") == [0, 0]
    with pytest.raises(ZeroDivisionError), selector.select():
        1 / 0  # noqa: B018
    assert column(selector.state(), "in_flight") == [0, 0]
    both = selector.select_many(2)
    with pytest.raises(jobrota.NoReachableVmError):
        selector.select()
    both[0].release()
    both[0].release()
    assert sum(column(selector.state(), "in_flight")) == 1
    del both
    until = time.monotonic() + 30
    while sum(column(selector.state(), "in_flight")):
        assert time.monotonic() < until


def test_context_manager_without_limit() -> None:
    with jobrota.RoundRobinSelector(["vm1"], cursor="process", probe=answers).select() as selection:
        vm, _ip_address, nic_name = selection
    assert (vm, nic_name) == ("vm1", "nic-vm1")


def test_everything_has_an_asynchronous_twin(tmp_path: Path) -> None:
    async def use() -> None:
        selector = jobrota.RoundRobinSelector(["vm1", "vm2"], cursor=tmp_path, probe=answers, max_in_flight=1, rise=2)
        async with await selector.select_async() as first:
            assert first.vm == "vm1"
            assert column(await selector.state_async(), "in_flight") == [1, 0]
        assert column(await selector.state_async(), "in_flight") == [0, 0]
        await selector.drain_async("vm2")
        second = await selector.select_async()
        assert second.vm == "vm1"
        await second.release_async()
        await selector.restore_async("vm2")
        await selector.report_async("vm2", False)
        assert column(await selector.state_async(), "healthy") == [True, False]
        assert column(await selector.distribution_async(), "selections") == [2, 0]

    asyncio.run(use())


def test_weights_are_spread_over_processes(tmp_path: Path) -> None:
    vms = [{"name": "a", "weight": 5}, {"name": "b", "weight": 1}, {"name": "c", "weight": 1}]
    selector = jobrota.RoundRobinSelector(vms, cursor=tmp_path, probe=answers)
    assert "".join(selector.select().vm for _ in range(7)) == "aabacaa"
    anew = jobrota.RoundRobinSelector(vms, cursor=tmp_path, probe=answers)
    assert "".join(selection.vm for selection in anew.select_many(7)) == "aabacaa"


def test_rise_and_fall_are_counted_by_all(tmp_path: Path) -> None:
    def anew() -> jobrota.RoundRobinSelector:
        return jobrota.RoundRobinSelector(["vm1", "vm2"], cursor=tmp_path, probe=answers, rise=2, fall=2)

    anew().report("vm1", False)
    assert anew().select().vm == "vm1"  # one failure of two, and the probe's answer ended the row
    anew().report("vm2", False)
    anew().report("vm2", False)
    skipping = anew().select()
    assert skipping.vm == "vm1"
    assert "1 more answer" in skipping.skipped["vm2"]
    assert anew().select().vm == "vm2"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"rise": 0}, "rise is 0"),
        ({"fall": 1001}, "fall is 1001"),
        ({"max_in_flight": 0}, "drain it"),
        ({"hold_ttl": 0.5}, "hold_ttl"),
        ({"hold_ttl": -1.0}, "hold_ttl"),
        ({"health_max_age": float("nan")}, "health_max_age"),
    ],
)
def test_rules_that_cannot_work_are_refused(arguments: dict[str, float], text: str) -> None:
    with pytest.raises(jobrota.InvalidInputError, match=text):
        jobrota.RoundRobinSelector(["vm1"], cursor="process", probe=answers, **arguments)  # type: ignore[arg-type]
