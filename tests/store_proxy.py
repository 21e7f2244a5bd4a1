"""A TCP proxy in front of a store that can be away for a while."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal

Away = Literal["refuses", "hangs", "loses answers"]


class StoreProxy:
    """Passes on what is sent to its port, and back."""

    def __init__(self, port: int) -> None:
        """Passes on to `port` of the loopback interface."""
        self._target, self._away, self._open = port, "", asyncio.Event()
        self._connections: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def start(self) -> None:
        """Listens."""
        self._open.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Ends all connections."""
        self._server.close()
        self._abort()

    def _abort(self) -> None:
        for connection in list(self._connections):
            connection.transport.abort()

    async def go_away(self, how: Away, seconds: float) -> None:
        """Refuses connections, answers nothing for a while, or loses the answers to requests that took effect."""
        self._away = how
        if how == "refuses":
            self._abort()
        if how == "hangs":
            self._open.clear()
        await asyncio.sleep(seconds)
        self._away = ""
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            with contextlib.suppress(ConnectionError):
                if self._away == "refuses":
                    return
                answers, upstream = await asyncio.open_connection("127.0.0.1", self._target)
                passing = [
                    asyncio.ensure_future(self._pass(reader, upstream)),
                    asyncio.ensure_future(self._pass(answers, writer, are_answers=True)),
                ]
                try:
                    await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in passing:
                        task.cancel()
                    await asyncio.gather(*passing, return_exceptions=True)
        finally:
            self._connections.discard(writer)
            for end in (writer, upstream):
                if end is not None:
                    end.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, are_answers: bool = False
    ) -> None:
        while data := await reader.read(1 << 16):
            await self._open.wait()
            if are_answers and self._away == "loses answers":
                return
            writer.write(data)
            await writer.drain()
