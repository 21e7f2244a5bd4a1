"""OpenSSH's server on loopback, with keys and a configuration that the test creates."""

from __future__ import annotations

import contextlib
import getpass
import os
import random
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

USER = getpass.getuser()


def find_sshd() -> str:
    """The server, or a skip; in CI its absence is a failure."""
    sshd = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
    if sshd is None:
        if os.environ.get("CI") == "true":
            pytest.fail("the tests of SSH need OpenSSH's server: install openssh-server")
        pytest.skip("the tests of SSH need OpenSSH's server: install openssh-server")
    return sshd


def new_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A key pair; the public one is beside it."""
    bits = ["-b", "2048"] if kind == "rsa" else []
    command = ["ssh-keygen", "-q", "-t", kind, *bits, "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def free_port() -> int:
    """A port without a listener, outside of the range that the system chooses ports from.

    sshd needs a port number, and a port that the system chose could be given to another process before sshd uses it.
    """
    first_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, first_given)
        with socket.socket() as listener:
            try:
                listener.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port


@dataclass
class Sshd:
    """Servers at several loopback addresses, all at the same port, that let the same keys in."""

    folder: Path
    port: int = field(default_factory=free_port)
    servers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    settings: list[str] = field(default_factory=list)
    """More lines of the configuration."""

    def __post_init__(self) -> None:
        """Makes the user's key."""
        self.folder.mkdir()
        self.key = new_key(self.folder / "id")
        self.authorized = self.folder / "authorized_keys"
        self.known_hosts = self.folder / "known_hosts"
        self.known_hosts.touch()
        self.authorize(self.key)

    def authorize(self, key: Path) -> None:
        """Lets another key in."""
        with self.authorized.open("a") as file:
            file.write(key.with_name(key.name + ".pub").read_text())

    def start(self, address: str, *, known: bool = True, kind: str = "ed25519") -> None:
        """Starts a server, and waits until it listens."""
        host_key = self.folder / f"host_{address}_{kind}"
        if not host_key.exists():
            new_key(host_key, kind)
            if known:
                self.know(address, host_key)
        config = self.folder / f"config_{address}"
        lines = [
            f"Port {self.port}",
            f"ListenAddress {address}",
            f"HostKey {host_key}",
            f"AuthorizedKeysFile {self.authorized}",
            f"PidFile {self.folder}/pid_{address}",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "LogLevel VERBOSE",
            *self.settings,
        ]
        config.write_text("\n".join(lines) + "\n")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where it shuts its unprivileged half in
        said = len(self.log(address).read_text()) if self.log(address).exists() else 0
        with self.log(address).open("ab") as log:
            server = subprocess.Popen([find_sshd(), "-D", "-e", "-f", str(config)], stderr=log)
        self.servers[address] = server
        deadline = time.monotonic() + 30
        while "Server listening" not in self.log(address).read_text()[said:]:
            assert server.poll() is None, self.log(address).read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def know(self, address: str, host_key: Path) -> None:
        """Writes a host's key where the client looks for it."""
        kind, key, *_ = host_key.with_name(host_key.name + ".pub").read_text().split()
        with self.known_hosts.open("a") as file:
            file.write(f"[{address}]:{self.port} {kind} {key}\n")

    def log(self, address: str) -> Path:
        """What a server says."""
        return self.folder / f"log_{address}"

    def logins(self, address: str) -> int:
        """How many logins succeeded."""
        return self.log(address).read_text().count("Accepted publickey")

    def kill(self, address: str) -> None:
        """Ends a server and all connections to it, as a crash would."""
        server = self.servers.pop(address)
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        server.kill()
        server.wait()
        for child in children:
            grandchildren = Path(f"/proc/{child}/task/{child}/children").read_text().split()
            for pid in [child, *grandchildren]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), 9)

    def stop(self) -> None:
        """Ends all servers."""
        for address in list(self.servers):
            server = self.servers.pop(address)
            server.terminate()
            server.wait()
