"""A receiver of webhooks on this machine, which answers as it is told."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], bytes]
OK: Answer = (200, {}, b"ok")


@dataclass
class Receiver:
    """What a receiver got, and what it answers."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    """The next answers; then it takes everything."""
    bodies: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    silent: bool = False
    """Reads a request and does not answer before `released`."""
    dripping: bool = False
    """Sends an answer that does not end before `released`, byte by byte, so that no read takes long."""
    broken: bool = False
    """Closes the connection instead of an answer."""
    got: threading.Event = field(default_factory=threading.Event)
    """A request came."""
    released: threading.Event = field(default_factory=threading.Event)


@contextmanager
def receiver(context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Runs a receiver, with TLS if there is a context."""
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            state.headers.append({name.lower(): value for name, value in self.headers.items()})
            state.got.set()
            if state.silent:
                state.released.wait(60)
            while state.dripping and not state.released.wait(0.01):
                self.wfile.write(b"H")
            if state.silent or state.dripping or state.broken:
                self.close_connection = True
                return
            code, headers, body = state.answers.pop(0) if state.answers else OK
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
            """Prints nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    state.url = f"http{'s' if context else ''}://127.0.0.1:{server.server_port}/hooks/T0SECRETPATH"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
