"""An S3 server: moto with atomic writes. It prints its address, and ends with its standard input.

moto's server decides a conditional write (`If-None-Match: *`) by looking first and writing then, in as many threads as
there are requests. One request at a time makes that atomic, as it is on S3. Usage: `python s3_server.py [CERT KEY]`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

WsgiApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class OneAtATime:
    """A WSGI application that answers one request after the other, whatever the number of threads."""

    def __init__(self, application: WsgiApplication) -> None:
        """Puts a queue before `application`."""
        self.application = application
        self.lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answers the request in one piece, body included."""
        with self.lock:
            return list(self.application(environ, start_response))


class Silent(WSGIRequestHandler):
    """Serves connections that stay open, and logs nothing."""

    protocol_version = "HTTP/1.1"

    def log(self, *arguments: Any) -> None:
        """Logs nothing."""


def main() -> None:
    """Serves until standard input ends."""
    certificate = (sys.argv[1], sys.argv[2]) if len(sys.argv) > 2 else None
    server = make_server(
        "127.0.0.1",
        0,
        OneAtATime(DomainDispatcherApplication(create_backend_app)),
        threaded=True,
        request_handler=Silent,
        ssl_context=certificate,
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
