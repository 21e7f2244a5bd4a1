"""Probes and selections over real networks: hosts that answer, and hosts that fail in every known way."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

import netlab
from netlab import HOSTS, PORT, Lab, address, address6

# Checks every host with each of the probes; prints {probe: {host: row}}.
CHECK = """
import json, sys
import jobrota

hosts, probes, timeout = json.loads(sys.argv[1])
vms = [{"name": name, "ip_address": address} for name, address in hosts.items()]
found = {}
for probe in probes:
    table = jobrota.RoundRobinSelector(vms, cursor="process", probe=probe, timeout=timeout).check()
    columns = [table[name].to_pylist() for name in table.column_names]
    found[str(probe)] = {row[0]: dict(zip(table.column_names, row)) for row in zip(*columns)}
print(json.dumps(found))
"""

# Selects some VMs in turn; prints what each selection found.
SELECT = """
import json, sys
import jobrota

hosts, probe, timeout, turns = json.loads(sys.argv[1])
vms = [{"name": name, "ip_address": address} for name, address in hosts.items()]
selector = jobrota.RoundRobinSelector(vms, cursor="process", probe=probe, timeout=timeout)
found = []
for _ in range(turns):
    try:
        selection = selector.select()
        found.append([selection.vm, selection.probe, selection.rtt_ms, selection.skipped])
    except jobrota.NoReachableVmError as error:
        found.append([None, str(error), error.retryable, error.failures])
print(json.dumps(found))
"""

ANYBODY, NOBODY = "0 2147483647", "1 0"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    lacking = netlab.missing()
    if lacking is not None:
        text = f"a network lab needs {lacking}"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    with Lab() as lab:
        yield lab


def checked(lab: Lab, hosts: dict[str, str], probe: Any, timeout: float = 1.0, **client: Any) -> dict[str, Any]:
    found = lab.python(CHECK, json.dumps([hosts, [probe], timeout]), **client)
    rows: dict[str, Any] = found[str(probe)]
    return rows


def selected(lab: Lab, hosts: list[str], probe: Any, timeout: float = 1.0, turns: int = 1) -> list[list[Any]]:
    vms = {host: address(host) for host in hosts}
    found: list[list[Any]] = lab.python(SELECT, json.dumps([vms, probe, timeout, turns]))
    return found


def both_families() -> dict[str, str]:
    addresses = {host: address(host) for host in [*HOSTS, "slow"]}
    return addresses | {f"{host}, IPv6": address6(host) for host in HOSTS}


def alive(rows: dict[str, Any]) -> set[str]:
    return {host for host, row in rows.items() if row["reachable"] and "lossy" not in host}


@pytest.mark.parametrize(("ping_group", "kind"), [(ANYBODY, "icmp-dgram"), (NOBODY, "icmp-raw")])
def test_only_an_echo_reply_from_the_host_itself_counts(lab: Lab, ping_group: str, kind: str) -> None:
    rows = checked(lab, both_families(), "icmp", ping_group=ping_group)
    expected = {"up", "refusing", "every_third"}
    assert alive(rows) == expected | {f"{host}, IPv6" for host in expected} | {"slow"}
    assert {rows[host]["probe"] for host in alive(rows)} == {kind}
    assert rows["slow"]["rtt_ms"] >= 300
    for host in ("down", "tcp_only", "silent", "impostor"):
        assert address(host) in rows[host]["reason"]
    for host in ("prohibited", "prohibited, IPv6"):
        assert "prohibited" in rows[host]["reason"], rows[host]["reason"]


def test_forbidden_icmp_falls_back_to_tcp(lab: Lab) -> None:
    hosts = {host: address(host) for host in ("up", "silent", "refusing")}
    forbidden = checked(lab, hosts, "icmp", ping_group=NOBODY, net_raw=False)
    assert not alive(forbidden)
    for row in forbidden.values():
        assert "ping_group_range" in row["reason"]
        assert "CAP_NET_RAW" in row["reason"]
    auto = checked(lab, hosts, "auto", ping_group=NOBODY, net_raw=False)
    assert alive(auto) == {"up"}
    assert auto["up"]["probe"] == "tcp:22"


def test_auto_takes_tcp_where_icmp_is_silent(lab: Lab) -> None:
    rows = checked(lab, both_families(), "auto", timeout=2.0)
    expected = {"up", "refusing", "tcp_only", "impostor", "every_third"}
    assert alive(rows) == expected | {f"{host}, IPv6" for host in expected} | {"slow"}
    assert rows["up"]["probe"] == "icmp-dgram"
    assert rows["tcp_only"]["probe"] == rows["tcp_only, IPv6"]["probe"] == "tcp:22"


def test_tcp_and_http_need_a_service_that_answers(lab: Lab) -> None:
    everyone = both_families()
    expected = {"up", "tcp_only", "impostor", "every_third"}
    expected |= {f"{host}, IPv6" for host in expected} | {"slow"}
    tcp = checked(lab, everyone, f"tcp:{PORT}")
    assert alive(tcp) == expected
    assert "refused" in tcp["refusing"]["reason"]
    assert "refused" in tcp["refusing, IPv6"]["reason"]
    http = checked(lab, everyone, f"http://{{ip}}:{PORT}/")
    assert alive(http) == expected
    assert {http[host]["probe"] for host in expected} == {"http"}


def test_a_list_of_probes_needs_one_answer(lab: Lab) -> None:
    hosts = {host: address(host) for host in ("tcp_only", "refusing", "silent")}
    rows = checked(lab, hosts, ["icmp", f"tcp:{PORT}"])
    assert {host: row["probe"] for host, row in rows.items()} == {
        "tcp_only": f"tcp:{PORT}",
        "refusing": "icmp-dgram",
        "silent": None,
    }
    assert "ICMP" in rows["silent"]["reason"]
    assert "TCP" in rows["silent"]["reason"]


def test_packet_loss_is_not_a_failure(lab: Lab) -> None:
    """Of three requests one gets through but for 2.7 % of the time; more than 10 of 60 have odds of 1 to 10 million."""
    hosts = {f"vm{number}": address("lossy") for number in range(60)}
    rows = checked(lab, hosts, "icmp")
    assert len(alive(rows)) >= 50


def test_dead_vms_are_skipped_and_never_selected(lab: Lab) -> None:
    hosts = ["silent", "up", "down", "tcp_only", "refusing", "prohibited", "impostor"]
    found = selected(lab, hosts, "icmp", turns=4)
    assert [selection[0] for selection in found] == ["up", "refusing", "up", "refusing"]
    assert set(found[0][3]) == {"silent"}
    assert set(found[1][3]) == {"silent", "down", "tcp_only"}
    assert set(found[3][3]) == {"silent", "down", "tcp_only", "prohibited", "impostor"}


def test_the_first_in_order_wins_though_others_answer_sooner(lab: Lab) -> None:
    before = lab.counted("up")
    vm, probe, rtt_ms, skipped = selected(lab, ["slow", "up", "refusing"], "icmp", timeout=5.0)[0]
    assert (vm, probe, skipped) == ("slow", "icmp-dgram", {})
    assert rtt_ms >= 300
    # It was slow enough for the next one to be probed meanwhile.
    assert lab.counted("up") > before


def test_next_vms_are_probed_early(lab: Lab) -> None:
    """The dead ones have a minute each, and all of those behind them have been probed long before the first is over."""
    dead = ["silent", "tcp_only", "impostor"]
    order = [*dead, "up"]
    before = {host: lab.counted(host) for host in order}
    vms = {host: address(host) for host in order}
    with lab.running(SELECT, json.dumps([vms, "icmp", 60.0, 1])) as process:
        netlab.wait_until(
            lambda: all(lab.counted(host) > before[host] for host in order), "all of the VMs are probed together"
        )
        # The last one has answered, and is not taken while one before it still may.
        assert process.poll() is None


def test_selecting_over_ipv6(lab: Lab) -> None:
    vms = {f"{host}6": address6(host) for host in ("silent", "up", "prohibited", "refusing")}
    found = lab.python(SELECT, json.dumps([vms, "icmp", 1.0, 2]))
    assert [selection[:2] for selection in found] == [["up6", "icmp-dgram"], ["refusing6", "icmp-dgram"]]
    found = lab.python(SELECT, json.dumps([vms, f"http://{{ip}}:{PORT}/", 1.0, 2]))
    assert [selection[:2] for selection in found] == [["up6", "http"], ["up6", "http"]]
    assert "refusing6" in found[1][3]


def test_no_answer_gives_each_reason(lab: Lab) -> None:
    ((vm, text, retryable, failures),) = selected(lab, ["silent", "prohibited"], ["icmp", "tcp:22"])
    assert vm is None
    assert text.startswith("No reachable VM found.")
    assert retryable
    assert set(failures) == {"silent", "prohibited"}


def test_silent_name_server_keeps_time_limit(lab: Lab) -> None:
    hosts = {"vm1": "vm1.example", "vm2": address("up")}
    rows = checked(lab, hosts, "icmp", resolver=address("silent"))
    assert alive(rows) == {"vm2"}
    assert '"vm1.example" could not be resolved within' in rows["vm1"]["reason"]


def test_notebook_functions_skip_dead_vms(lab: Lab) -> None:
    code = """
import json, sys
import jobrota

hosts = json.loads(sys.argv[1])
inventory = {host: {"ip_address": address, "nic_name": "nic-" + host} for host, address in hosts.items()}
jobrota.configure(ledger=sys.argv[2], inventory=inventory, probe="icmp")
pinged = {host: jobrota.ping_test(host) for host in hosts}
sys.stdout, stdout = sys.stderr, sys.stdout
taken = [jobrota.select_reachable_vm(list(hosts))[0] for _ in range(4)]
print(json.dumps([pinged, taken]), file=stdout)
"""
    hosts = {host: address(host) for host in ("silent", "up", "down", "refusing")}
    with tempfile.TemporaryDirectory() as ledger:
        pinged, taken = lab.python(code, json.dumps(hosts), ledger)
    assert pinged == {
        "silent": [None, None],
        "up": [address("up"), "nic-up"],
        "down": [None, None],
        "refusing": [address("refusing"), "nic-refusing"],
    }
    assert taken == ["up", "refusing", "up", "refusing"]


def test_the_lab_has_no_way_out(lab: Lab) -> None:
    inside = [ipaddress.ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.15/32")]
    inside6 = [ipaddress.ip_network(net) for net in ("fd00:db8::/64", "fd00:db8:1::/64", "fe80::/64", "ff00::/8")]
    for family, known in (("-4", inside), ("-6", inside6)):
        routes = json.loads(lab.ip(lab.router, family, "-j", "route"))
        assert routes
        assert {route["dst"] for route in routes} <= {str(net) for net in known} | {netlab.SLOW}
    # Whatever the router has no route for ends there: all of the others send by it, or by the relay that it holds.
    for space in lab.spaces:
        for family in ("-4", "-6"):
            for route in json.loads(lab.ip(space, family, "-j", "route")):
                if route["dst"] == "default":
                    gateways = ("192.0.2.1", "198.51.100.1", "fd00:db8::1", "fd00:db8:1::1")
                    assert route.get("gateway") in gateways or route["dev"] == "relay"
        # The other end of each link is in the lab too.
        names = {peer["nsid"]: peer.get("name") for peer in json.loads(lab.ip(space, "-j", "netns", "list-id"))}
        for link in json.loads(lab.ip(space, "-j", "link")):
            if "UP" in link["flags"] and link["ifname"] not in ("lo", "br0", "relay"):
                assert names.get(link.get("link_netnsid")) in lab.spaces, f"{space} has {link['ifname']}"


def test_next_lab_removes_killed_lab(lab: Lab) -> None:
    code = """
import time
from netlab import Lab

with Lab() as lab:
    print(lab.services.pid, flush=True)
    time.sleep(100)
"""
    environment = os.environ | {"PYTHONPATH": str(netlab.SERVICES.parent)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            services = int(process.stdout.readline())
            name = f"{netlab.PREFIX}{process.pid}-"
            assert name in netlab.run("ip", "netns", "list")
        finally:
            process.kill()
    netlab.remove_leftovers()
    listing = netlab.run("ip", "netns", "list")
    assert name not in listing
    assert lab.client in listing, "one that is in use stays"
    netlab.wait_until(lambda: not netlab.alive(services), "its services have ended")
