"""TLS in front of a server of the tests, with a certificate of an authority made for the test."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
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
        """Takes TLS connections for `name` and passes what is in them on to `url`; gives the https address."""
        parts = urlsplit(url)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(name).configure_cert(context)
        proxy = _Proxy(parts.hostname or "127.0.0.1", parts.port or 80, context)
        thread = threading.Thread(target=lambda: asyncio.run(proxy.run()), daemon=True)
        thread.start()
        proxy.ready.wait(timeout=30)
        try:
            yield f"https://127.0.0.1:{proxy.port}{parts.path}"
        finally:
            proxy.stop()
            thread.join(timeout=30)


class _Proxy:
    """A server on an event loop of its own."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        self.ready, self.port = threading.Event(), 0
        self._to, self._context = (host, port), context

    async def run(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        # A client that does not trust the certificate leaves, which is no error of ours.
        self._loop.set_exception_handler(lambda loop, context: None)
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        await self._stopped.wait()
        server.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, out = await asyncio.open_connection(*self._to)
        try:
            await asyncio.gather(_copy(reader, out), _copy(upstream, writer))
        finally:
            for end in (out, writer):
                end.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    # Whoever is at the other end has to see that there is no more.
    writer.close()
