"""A TLS proxy in front of a server of the tests, with a certificate of the test's own authority."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trustme


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        """Makes the authority, and `file` with its certificate."""
        self._authority = trustme.CA()
        self.file = folder / f"{name}.pem"
        self._authority.cert_pem.write_to_path(str(self.file))

    @contextlib.contextmanager
    def serve(self, url: str, name: str = "127.0.0.1") -> Iterator[str]:
        """Takes HTTPS requests for `name` and passes them on to `url`; gives the https address."""
        parts = urlsplit(url)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(name).configure_cert(context)
        server = _Proxy(parts.netloc, context)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}{parts.path}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Proxy(ThreadingHTTPServer):
    # Closing waits for what is under way.
    daemon_threads = False

    def __init__(self, target: str, context: ssl.SSLContext) -> None:
        self.target, self._context = target, context
        super().__init__(("127.0.0.1", 0), _Passing)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        # The thread of the connection does the handshake, so that a slow client blocks no other connection.
        return self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not trust the certificate leaves, and so does a server that gives no answer."""


class _Passing(BaseHTTPRequestHandler):
    """One request per connection: passed on, and its answer back."""

    server: _Proxy

    def do_GET(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        with contextlib.closing(http.client.HTTPConnection(self.server.target, timeout=60)) as upstream:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            text = answer.read()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "content-length", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None: ...
