"""The services on the hosts of the lab: a small HTTP server on each, and the relay that delays one of them.

A process of its own, which goes when the one that started it goes. Prints "ready" when all is there.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

ONE_WAY = 0.15  # seconds
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nup\n"

libc = ctypes.CDLL(None, use_errno=True)


def enter(space: str) -> None:
    """Moves this thread into a network namespace; what is opened from now on belongs there."""
    with Path("/run/netns", space).open() as file:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {space}")


def tun() -> int:
    """A TUN device named "relay"; the packets that the kernel routes to it are read from the descriptor."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"relay", IFF_TUN | IFF_NO_PI))
    return device


def listener(port: int) -> socket.socket:
    """Listens on all addresses, of both families."""
    server = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", port))
    server.listen(128)
    server.setblocking(False)
    return server


def main() -> None:
    """Serves until it is killed."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    plan = json.loads(sys.argv[1])
    ready = selectors.DefaultSelector()
    late: list[tuple[float, int, bytes]] = []

    def answer(client: socket.socket) -> None:
        try:
            if client.recv(65536):
                client.sendall(ANSWER)
        except OSError:
            pass  # the client has gone, as a probe of the port does
        ready.unregister(client)
        client.close()

    def accept(server: socket.socket) -> None:
        client, _ = server.accept()
        ready.register(client, selectors.EVENT_READ, lambda: answer(client))

    def serve(server: socket.socket) -> Callable[[], None]:
        return lambda: accept(server)

    def relay(source: int, target: int) -> Callable[[], None]:
        return lambda: heapq.heappush(late, (time.monotonic() + ONE_WAY, target, os.read(source, 65536)))

    for space in plan["spaces"].values():
        enter(space)
        for port in plan["ports"]:
            server = listener(port)
            ready.register(server, selectors.EVENT_READ, serve(server))
    enter(plan["router"])
    near = tun()
    enter(plan["slow"])
    far = tun()
    ready.register(near, selectors.EVENT_READ, relay(near, far))
    ready.register(far, selectors.EVENT_READ, relay(far, near))
    print("ready", flush=True)
    while True:
        wait = max(0.0, late[0][0] - time.monotonic()) if late else None
        for key, _ in ready.select(wait):
            key.data()
        while late and late[0][0] <= time.monotonic():
            _, target, packet = heapq.heappop(late)
            os.write(target, packet)


if __name__ == "__main__":
    main()
