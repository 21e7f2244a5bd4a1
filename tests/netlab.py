"""Hosts with real networks between them: network namespaces, joined by veth pairs, without a route to the outside.

    client 192.0.2.2 ──── router ──── bridge ──── hosts 198.51.100.0/24, fd00:db8::/64
                            └──── relay, 300 ms there and back ──── slow 203.0.113.15

Addresses are those that RFC 5737 sets aside for documentation, and unique local ones. Needs root, iproute2, nftables.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

SERVICES = Path(__file__).with_name("netlab_services.py")
PORT = 8080
SSH = 22
PREFIX = "jobrota"
# name: last part of its address
HOSTS = {
    "up": 10,  # answers everything
    "down": 11,  # its interface is down
    "tcp_only": 12,  # drops echo requests, answers TCP
    "prohibited": 13,  # the router refuses to forward to it, and says so
    "lossy": 14,  # loses 30 % of the packets that arrive, by chance
    "every_third": 15,  # loses two of every three echo requests, in order
    "silent": 17,  # drops everything
    "impostor": 18,  # its echo replies come from another address
    "refusing": 20,  # answers echo requests, and has no service at all
}
SLOW = "203.0.113.15"

# Returns when every address has refused or taken a connection.
WAIT = """
import json, socket, sys, time

until = time.monotonic() + 30
addresses, port = json.loads(sys.argv[1])
for address in addresses:
    while True:
        try:
            socket.create_connection((address, port), timeout=1).close()
            break
        except ConnectionRefusedError:
            break
        except OSError as error:
            if time.monotonic() > until:
                raise SystemExit(f"{address} is not there: {error}")
            time.sleep(0.02)
print("null")
"""


def address(host: str) -> str:
    """The IPv4 address of a host."""
    return SLOW if host == "slow" else f"198.51.100.{HOSTS[host]}"


def address6(host: str) -> str:
    """The IPv6 address of a host."""
    return f"fd00:db8::{HOSTS[host]}"


def missing() -> str | None:
    """What this machine lacks for a lab."""
    if os.geteuid() != 0:
        return "root"
    for program in ("ip", "nft", "setpriv"):
        if shutil.which(program) is None:
            return f"the program {program}"
    return None if Path("/dev/net/tun").exists() else "/dev/net/tun"


def run(*arguments: str, text: str | None = None) -> str:
    """Runs a program to its end; its output."""
    done = subprocess.run(arguments, input=text, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout


class Lab:
    """The lab, while the `with` block lasts."""

    def __init__(self) -> None:
        """Nothing exists before the block begins."""
        self.name = f"{PREFIX}{os.getpid()}"
        self.client = f"{self.name}-client"
        self.router = f"{self.name}-router"
        self.spaces: list[str] = []
        self.services: subprocess.Popen[str] | None = None

    def space(self, host: str) -> str:
        """The namespace of a host."""
        return f"{self.name}-{host}"

    def ip(self, space: str, *arguments: str) -> str:
        """Runs `ip` inside a namespace."""
        return run("ip", "-n", space, *arguments)

    def nft(self, space: str, rules: str) -> str:
        """Loads packet filter rules inside a namespace."""
        return run("ip", "netns", "exec", space, "nft", "-f", "-", text=rules)

    def sysctl(self, space: str, name: str, value: str) -> None:
        """Sets a kernel parameter inside a namespace."""
        path = "/proc/sys/" + name.replace(".", "/")
        run("ip", "netns", "exec", space, "sh", "-c", 'printf %s "$2" > "$1"', "sh", path, value)

    def counted(self, host: str) -> int:
        """How many echo requests and TCP connections have arrived at a host, lost ones included."""
        listing = run("ip", "netns", "exec", self.space(host), "nft", "-j", "list", "counter", "inet", "lab", "arrived")
        return int(json.loads(listing)["nftables"][1]["counter"]["packets"])

    def __enter__(self) -> Lab:
        """Builds it."""
        remove_leftovers()
        try:
            self._build()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Takes it down, whatever is left of it."""
        if self.services is not None:
            self.services.kill()
            self.services.communicate()
        for space in self.spaces:
            subprocess.run(["ip", "netns", "del", space], check=False, timeout=30)
        shutil.rmtree(self._settings(self.client), ignore_errors=True)

    def _add_space(self, space: str) -> None:
        run("ip", "netns", "add", space)
        self.spaces.append(space)
        self.ip(space, "link", "set", "lo", "up")
        self.sysctl(space, "net.ipv6.conf.default.accept_dad", "0")
        self.sysctl(space, "net.ipv6.conf.all.accept_dad", "0")

    def _build(self) -> None:
        for space in (self.router, self.client):
            self._add_space(space)
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            self.sysctl(self.router, name, "1")
        # Messages about unreachable hosts are not to be held back for having been many.
        self.sysctl(self.router, "net.ipv4.icmp_ratelimit", "0")
        self.sysctl(self.router, "net.ipv6.icmp.ratelimit", "0")
        self._join(self.client, "eth0", ("192.0.2.2/24", "fd00:db8:1::2/64"), ("192.0.2.1/24", "fd00:db8:1::1/64"))
        self.ip(self.client, "route", "add", "default", "via", "192.0.2.1")
        self.ip(self.client, "-6", "route", "add", "default", "via", "fd00:db8:1::1")
        self.ip(self.router, "link", "add", "br0", "type", "bridge")
        self.ip(self.router, "link", "set", "br0", "up")
        self.ip(self.router, "address", "add", "198.51.100.1/24", "dev", "br0")
        self.ip(self.router, "-6", "address", "add", "fd00:db8::1/64", "dev", "br0")
        for host in HOSTS:
            self._add_host(host)
        self._add_space(self.space("slow"))
        self.nft(
            self.router,
            f"""
table inet lab {{
    chain forward {{
        type filter hook forward priority 0
        ip daddr {address("prohibited")} reject with icmp admin-prohibited
        ip6 daddr {address6("prohibited")} reject with icmpv6 admin-prohibited
    }}
}}
""",
        )
        self._start_services()
        self.ip(self.router, "link", "set", "relay", "up")
        self.ip(self.router, "route", "add", SLOW, "dev", "relay")
        self.ip(self.space("slow"), "address", "add", SLOW, "dev", "relay")
        self.ip(self.space("slow"), "link", "set", "relay", "up")
        self.ip(self.space("slow"), "route", "add", "default", "dev", "relay")
        self.ip(self.space("down"), "link", "set", "eth0", "down")
        # Neighbours of IPv6 are not found from the first moment on.
        everyone = [
            a(host) for host in HOSTS for a in (address, address6) if host not in ("down", "prohibited", "silent")
        ]
        self.python(WAIT, json.dumps([[*everyone, SLOW], PORT]))

    def _join(self, space: str, link: str, here: tuple[str, str], there: tuple[str, str] | None) -> None:
        """A veth pair from `space` to the router."""
        port = f"v{len(self.spaces)}"
        self.ip(self.router, "link", "add", port, "type", "veth", "peer", "name", link, "netns", space)
        ends = [(space, link, here)] + ([(self.router, port, there)] if there else [])
        for end, device, (v4, v6) in ends:
            self.ip(end, "address", "add", v4, "dev", device)
            self.ip(end, "-6", "address", "add", v6, "dev", device)
            self.ip(end, "link", "set", device, "up")
        if there is None:
            self.ip(self.router, "link", "set", port, "master", "br0", "up")

    def _add_host(self, host: str) -> None:
        space = self.space(host)
        self._add_space(space)
        self._join(space, "eth0", (f"{address(host)}/24", f"{address6(host)}/64"), None)
        self.ip(space, "route", "add", "default", "via", "198.51.100.1")
        self.ip(space, "-6", "route", "add", "default", "via", "fd00:db8::1")
        echo = "icmp type echo-request {0}\n        icmpv6 type echo-request {0}"
        losses = {
            "tcp_only": echo.format("drop"),
            "lossy": "numgen random mod 100 < 30 drop",
            "every_third": echo.format("numgen inc mod 3 < 2 drop"),
            "silent": "meta l4proto { tcp, udp, icmp } drop\n        icmpv6 type echo-request drop",
        }
        counted = "counter name arrived"
        self.nft(
            space,
            f"""
table inet lab {{
    counter arrived {{ }}
    chain input {{
        type filter hook input priority 0
        icmp type echo-request {counted}
        icmpv6 type echo-request {counted}
        tcp flags & (syn | ack) == syn {counted}
        {losses.get(host, "")}
    }}
}}
""",
        )
        if host == "impostor":
            # Another address of the same host answers: replies are rewritten on their way out.
            for v, old, new in (("ip", address(host), "198.51.100.19"), ("ip6", address6(host), "fd00:db8::19")):
                icmp = "icmp type echo-reply" if v == "ip" else "icmpv6 type echo-reply"
                self.nft(
                    space,
                    f"""
table {v} impostor {{
    chain output {{
        type filter hook output priority -300
        {v} saddr {old} {icmp} {v} saddr set {new}
    }}
}}
""",
                )

    def _start_services(self) -> None:
        listening = [host for host in HOSTS if host != "refusing"]
        spaces = {host: self.space(host) for host in [*listening, "slow"]}
        plan = {"spaces": spaces, "ports": [PORT, SSH], "router": self.router, "slow": self.space("slow")}
        self.services = subprocess.Popen(
            [sys.executable, str(SERVICES), json.dumps(plan)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.services.stdout is not None
        if self.services.stdout.readline().strip() != "ready":
            raise RuntimeError("the services of the lab did not start")

    def python(
        self,
        code: str,
        *arguments: str,
        ping_group: str = "0 2147483647",
        net_raw: bool = True,
        resolver: str | None = None,
    ) -> Any:
        """Runs Python code at the client; what it prints is JSON.

        Args:
            code: The code; `sys.argv[1:]` are the arguments.
            arguments: Its arguments.
            ping_group: Which groups may open ICMP datagram sockets: "1 0" is no group.
            net_raw: Whether the process may open raw sockets.
            resolver: Address of the only name server.

        Returns:
            What the JSON stands for.
        """
        self.sysctl(self.client, "net.ipv4.ping_group_range", ping_group)
        settings = self._settings(self.client)
        if resolver is not None:
            settings.mkdir(parents=True, exist_ok=True)
            (settings / "resolv.conf").write_text(f"nameserver {resolver}\n")
        command = ["ip", "netns", "exec", self.client]
        if not net_raw:
            command += ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw"]
        try:
            done = subprocess.run(
                [*command, sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=100
            )
        finally:
            shutil.rmtree(settings, ignore_errors=True)
        if done.returncode:
            raise RuntimeError(f"the code at the client failed:\n{done.stderr}")
        return json.loads(done.stdout)

    @contextmanager
    def running(self, code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Python code that runs at the client during the `with` block, and is ended by it."""
        self.sysctl(self.client, "net.ipv4.ping_group_range", "0 2147483647")
        command = ["ip", "netns", "exec", self.client, sys.executable, "-c", code, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    @staticmethod
    def _settings(space: str) -> Path:
        """Where `ip netns exec` finds the files that stand in for those of /etc."""
        return Path("/etc/netns", space)


def remove_leftovers() -> None:
    """Removes the labs of processes that are gone."""
    for line in run("ip", "netns", "list").splitlines():
        space = line.split()[0]
        if not space.startswith(PREFIX):
            continue
        pid = space.removeprefix(PREFIX).split("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            for process in run("ip", "netns", "pids", space).split():
                os.kill(int(process), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", space], check=False, timeout=30)
            shutil.rmtree(Path("/etc/netns", space), ignore_errors=True)


def alive(pid: int) -> bool:
    """Whether a process runs. A process that has ended and was not waited for (a zombie) does not run."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Any, what: str) -> None:
    """Waits until `condition()` holds."""
    until = time.monotonic() + 30
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(what)
        time.sleep(0.01)
