"""An AutoSys that writes down which events arrive, in order, and can wait with each of them.

A sender says `ask`, the job, the status and a comment in a line, waits for `go`, says `event`, and waits for `ok`. The
event has arrived between the last two. The web services are at the same port. The comment of an event is the name of
its sender and the file of its row.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

Result = TypeVar("Result")
Hook = Callable[["Event"], Awaitable[None]]


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        """Starts it."""
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """The result of `coroutine` in this loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(300)

    def close(self) -> None:
        """Ends the loop and what still runs in it."""

        async def cancel_all() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self.run(cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@dataclass
class Event:
    """An event that is asked for, or has arrived."""

    number: int
    """The place among all events that were asked for, from 1."""
    sender: str
    job: str
    status: str
    file: str
    asked: float
    """When, by the monotonic clock."""
    arrived: float = 0.0


async def no_wait(event: Event) -> None:
    """Waits for nothing."""


@dataclass
class AutosysStandIn:
    """What arrives, and what happens before and after it."""

    before: Hook = no_wait
    after: Hook = no_wait
    """When the event has arrived and its sender does not know it yet."""
    answered: Hook = no_wait
    asked: int = 0
    arrived: list[Event] = field(default_factory=list)
    port: int = 0

    async def start(self) -> None:
        """Listens on a port of the loopback interface."""
        self._connections: set[asyncio.StreamWriter] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Takes nothing any more."""
        self._server.close()
        for connection in self._connections:
            connection.transport.abort()

    def _ask(self, job: str, status: str, comment: str) -> Event:
        self.asked += 1
        sender, _, file = comment.partition(" ")
        return Event(self.asked, sender, job, status, file, time.monotonic())

    def _arrive(self, event: Event) -> None:
        event.arrived = time.monotonic()
        self.arrived.append(event)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while line := (await reader.readline()).decode():
                    serve = self._serve_http if line.startswith("POST ") else self._serve_line
                    await serve(line, reader, writer)
        finally:
            self._connections.discard(writer)
            writer.transport.abort()

    async def _serve_line(self, line: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, job, status, comment = line.removesuffix("\n").split("\t")
        event = self._ask(job, status, comment)
        await self.before(event)
        writer.write(b"go\n")
        if await reader.readline() != b"event\n":
            return
        self._arrive(event)
        await self.after(event)
        writer.write(b"ok\n")
        await self.answered(event)

    async def _serve_http(self, line: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        headers = (await reader.readuntil(b"\r\n\r\n")).decode().lower().splitlines()
        length = next(int(header.split(":")[1]) for header in headers if header.startswith("content-length:"))
        body = json.loads(await reader.readexactly(length))
        event = self._ask(body["jobName"], body["jobStatus"], body["comment"])
        await self.before(event)
        self._arrive(event)
        await self.after(event)
        writer.write(b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
        await self.answered(event)
