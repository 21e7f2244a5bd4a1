"""Selecting VMs from Python: turns, exclusions, shared cursors, and callable probes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

import jobrota
from support import answers, column


def test_turns_go_round_and_skip_what_is_down(sandbox: jobrota.Sandbox) -> None:
    selector = jobrota.RoundRobinSelector(sandbox.inventory, cursor="process", probe=sandbox.probe)
    selections = [selector.select() for _ in range(6)]
    counts = Counter(selection.vm for selection in selections)
    assert sorted(counts.values()) == [2, 2, 2]
    (down,) = set(sandbox.inventory.names) - set(counts)
    assert any(down in selection.skipped for selection in selections)
    assert selections[0].rtt_ms > 0


def test_a_selection_unpacks_as_three() -> None:
    selection = jobrota.RoundRobinSelector(["vm1"], cursor="process", probe=answers).select()
    vm, ip_address, nic_name = selection
    assert (vm, ip_address, nic_name) == ("vm1", "10.0.0.1", "nic-vm1")
    assert (len(selection), selection[0], selection[-1]) == (3, "vm1", "nic-vm1")
    with pytest.raises(IndexError):
        selection[3]


def test_the_inventory_names_address_and_nic() -> None:
    vms = [{"name": "vm1", "ip_address": "127.0.0.1", "nic_name": "vm1-nic", "weight": 1}]
    inventory = jobrota.Inventory(vms)
    assert inventory.names == ["vm1"]
    assert inventory.vms[0]["nic_name"] == "vm1-nic"
    assert (len(inventory), "vm1" in inventory, "vm2" in inventory) == (1, True, False)


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".csv"])
def test_inventories_come_from_files(tmp_path: Path, suffix: str) -> None:
    text = {
        ".json": json.dumps([{"name": "vm1", "ip_address": "10.0.0.1", "nic_name": "n1"}]),
        ".yaml": "- name: vm1\n  ip_address: 10.0.0.1\n  nic_name: n1\n",
        ".csv": "name,ip_address,nic_name\nvm1,10.0.0.1,n1\n",
    }[suffix]
    path = tmp_path / f"vms{suffix}"
    path.write_text(text)
    (vm,) = jobrota.Inventory(path).vms
    assert (vm["name"], vm["ip_address"], vm["nic_name"]) == ("vm1", "10.0.0.1", "n1")


def test_excluded_vms_are_passed_over() -> None:
    selector = jobrota.RoundRobinSelector(["vm1", "vm2"], cursor="process", probe=answers)
    assert [selector.select(exclude=["vm1"]).vm for _ in range(2)] == ["vm2", "vm2"]


def test_select_many_goes_on_from_select() -> None:
    selector = jobrota.RoundRobinSelector(["vm1", "vm2", "vm3"], cursor="process", probe=answers)
    assert selector.select().vm == "vm1"
    assert [selection.vm for selection in selector.select_many(4)] == ["vm2", "vm3", "vm1", "vm2"]


def test_new_process_continues_turns(tmp_path: Path) -> None:
    code = (
        "import jobrota; s = jobrota.RoundRobinSelector(['vm1','vm2','vm3'], "
        f"cursor={str(tmp_path)!r}, probe=lambda vm: ('10.0.0.1', 'nic')); print(s.select().vm)"
    )
    chosen = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
        ).stdout.strip()
        for _ in range(4)
    ]
    assert chosen == ["vm1", "vm2", "vm3", "vm1"]


def test_threads_share_the_turns(tmp_path: Path) -> None:
    selector = jobrota.RoundRobinSelector(["vm1", "vm2", "vm3"], cursor=tmp_path, probe=answers)
    threads = [threading.Thread(target=lambda: [selector.select() for _ in range(5)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    distribution = selector.distribution()
    assert dict(zip(column(distribution, "vm"), column(distribution, "selections"), strict=True)) == {
        "vm1": 10,
        "vm2": 10,
        "vm3": 10,
    }
    assert sum(column(distribution, "share")) == pytest.approx(1)


def test_check_does_not_move_cursor(sandbox: jobrota.Sandbox) -> None:
    selector = jobrota.RoundRobinSelector(sandbox.inventory, cursor="process", probe=sandbox.probe)
    table = selector.check()
    assert column(table, "vm") == sandbox.inventory.names
    assert column(table, "reachable").count(False) == 1
    first_up = column(table, "vm")[column(table, "reachable").index(True)]
    assert selector.select().vm == first_up


def test_a_probe_that_raises_means_unreachable() -> None:
    def broken(vm: str) -> tuple[str, str]:
        if vm == "vm1":
            raise RuntimeError("the probe broke")
        return answers(vm)

    selection = jobrota.RoundRobinSelector(["vm1", "vm2"], cursor="process", probe=broken).select()
    assert selection.vm == "vm2"
    assert "the probe broke" in selection.skipped["vm1"]


def test_ping_answers_on_the_loopback_interface() -> None:
    """ICMP where the system allows it, else what "auto" falls back to: never an exception."""
    table = jobrota.RoundRobinSelector(["127.0.0.1"], cursor="process", probe="auto").check()
    assert column(table, "reachable")[0] in (True, False)


def test_dead_vms_ahead_are_probed_together() -> None:
    """Each dead VM's probe waits for those of the other dead ones: one after the other, none would ever end."""
    dead = [f"vm{number}" for number in range(1, 41)]
    together = threading.Barrier(len(dead))

    def probe(vm: str) -> tuple[str, str]:
        if vm in dead:
            together.wait(timeout=50)
            raise OSError("down")
        return answers(vm)

    selector = jobrota.RoundRobinSelector([*dead, "vm41"], cursor="process", probe=probe, timeout=60)
    selection = selector.select()
    assert selection.vm == "vm41"
    assert list(selection.skipped) == dead


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_inside_a_probe_goes_on(interrupt: type[BaseException]) -> None:
    asked: list[str] = []

    def probe(vm: str) -> tuple[str, str]:
        asked.append(vm)
        if len(asked) == 1:
            raise interrupt("enough")
        return "10.0.0.1", "nic"

    selector = jobrota.RoundRobinSelector(["vm1", "vm2"], cursor="process", probe=[probe], timeout=30)
    with pytest.raises(interrupt, match="enough"):
        selector.select()
    assert selector.select().vm == "vm1"  # no turn was taken
    asked.clear()
    with pytest.raises(interrupt, match="enough"):
        selector.check()
