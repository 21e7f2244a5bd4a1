"""An S3 server that can be away for a while. It holds one bucket in memory, and knows only what a ledger needs.

It takes requests to create, read, list and delete objects, with the conditions `If-None-Match` and `If-Match`. It
checks no signature, but can demand an access key, which it rotates. A request takes effect at once: nothing else
happens in its event loop meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from email.utils import formatdate
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

Away = Literal["refuses", "hangs", "loses answers"]
Answer = tuple[int, dict[str, str], bytes]

BUCKET = "ledgers"


def problem(status: int, code: str) -> Answer:
    """An answer that says what is wrong."""
    text = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
    return status, {"content-type": "application/xml"}, text.encode()


class SmallS3:
    """Objects by key, each with its content, its tag and the time when it was written."""

    def __init__(self, rotate_after: int = 0) -> None:
        """Holds nothing yet.

        Args:
            rotate_after: Only requests with the access key `access_key` are answered, and it is rotated after so many
                of them. 0: any key will do.
        """
        self.rotate_after = rotate_after
        self.rotations = self.refused = self._since = 0
        self.objects: dict[str, tuple[bytes, str, float]] = {}
        self.requests = 0
        self._away, self._open = "", asyncio.Event()
        self._connections: set[asyncio.StreamWriter] = set()
        self.url = ""

    @property
    def access_key(self) -> str:
        """The access key that is valid now."""
        return f"KEY{self.rotations:06}"

    def rotate(self) -> None:
        """Makes another access key valid, and no other one."""
        self.rotations, self._since = self.rotations + 1, 0

    async def start(self) -> None:
        """Listens on a port of the loopback interface."""
        self._open.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Ends all connections."""
        self._server.close()
        self._abort()

    def _abort(self) -> None:
        for connection in list(self._connections):
            connection.transport.abort()

    async def go_away(self, how: Away, seconds: float) -> None:
        """Refuses connections, waits with all requests, or loses the answers to requests that take effect."""
        self._away = how
        if how == "refuses":
            self._abort()
        if how == "hangs":
            self._open.clear()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._away = ""
            self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while self._away != "refuses":
                    method, target, _ = (await reader.readuntil(b"\r\n")).decode().split(" ", 2)
                    lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
                    pairs = (line.split(":", 1) for line in lines if ":" in line)
                    headers = {name.lower(): value.strip() for name, value in pairs}
                    body = await reader.readexactly(int(headers.get("content-length", 0)))
                    await self._open.wait()
                    status, more, content = self._answer(method, target, headers, body)
                    if self._away == "loses answers":
                        return
                    more = {"content-length": str(len(content)), **more}
                    head = "".join(f"{name}: {value}\r\n" for name, value in more.items())
                    writer.write(f"HTTP/1.1 {status} \r\n{head}\r\n".encode() + (b"" if method == "HEAD" else content))
                    await writer.drain()
        finally:
            self._connections.discard(writer)
            writer.transport.abort()

    def _answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        self.requests += 1
        if self.rotate_after:
            # Credential=KEY/DATE/REGION/s3/aws4_request
            if headers.get("authorization", "").partition("Credential=")[2].split("/")[0] != self.access_key:
                self.refused += 1
                return problem(403, "InvalidAccessKeyId")
            self._since += 1
            if self._since > self.rotate_after:
                self.rotate()
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        bucket, _, key = unquote(parts.path).removeprefix("/").partition("/")
        if bucket != BUCKET:
            return problem(404, "NoSuchBucket")
        if method == "GET" and not key:
            return self._list(query)
        if method == "POST" and "delete" in query:
            return self._delete(body)
        if method == "PUT":
            return self._put(key, headers, body)
        if method == "DELETE":
            self.objects.pop(key, None)
            return 204, {}, b""
        if method in ("GET", "HEAD"):
            return self._get(key, headers)
        return problem(501, "NotImplemented")

    def _put(self, key: str, headers: dict[str, str], body: bytes) -> Answer:
        _, tag, _ = self.objects.get(key, (b"", "", 0.0))
        if headers.get("if-none-match") == "*" and tag:
            return problem(412, "PreconditionFailed")
        if "if-match" in headers and headers["if-match"] != tag:
            return problem(412, "PreconditionFailed")
        if "x-amz-copy-source" in headers or "chunked" in headers.get("content-encoding", ""):
            return problem(501, "NotImplemented")
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        self.objects[key] = (body, tag, time.time())
        return 200, {"etag": tag}, b""

    def _get(self, key: str, headers: dict[str, str]) -> Answer:
        if key not in self.objects:
            return problem(404, "NoSuchKey")
        content, tag, written = self.objects[key]
        more = {"etag": tag, "last-modified": formatdate(written, usegmt=True), "content-length": str(len(content))}
        if "range" not in headers:
            return 200, more, content
        first, last = headers["range"].removeprefix("bytes=").split("-")
        begin = int(first) if first else max(0, len(content) - int(last))
        end = min(int(last) + 1, len(content)) if first and last else len(content)
        if begin >= end:
            return problem(416, "InvalidRange")
        more |= {"content-range": f"bytes {begin}-{end - 1}/{len(content)}", "content-length": str(end - begin)}
        return 206, more, content[begin:end]

    def _list(self, query: dict[str, str]) -> Answer:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        found, folders = [], set()
        for key in sorted(self.objects):
            if not key.startswith(prefix) or key <= query.get("start-after", ""):
                continue
            rest = key.removeprefix(prefix)
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
                continue
            content, tag, written = self.objects[key]
            at = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(written))
            found.append(
                f"<Contents><Key>{escape(key)}</Key><LastModified>{at}</LastModified><ETag>{escape(tag)}</ETag>"
                f"<Size>{len(content)}</Size></Contents>"
            )
        common = [f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in sorted(folders)]
        text = "".join([*found, *common])
        head = f"<Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix><IsTruncated>false</IsTruncated>"
        return 200, {"content-type": "application/xml"}, f"<ListBucketResult>{head}{text}</ListBucketResult>".encode()

    def _delete(self, body: bytes) -> Answer:
        keys = [element.text or "" for element in ElementTree.fromstring(body).iter() if element.tag.endswith("Key")]
        for key in keys:
            self.objects.pop(key, None)
        text = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        return 200, {"content-type": "application/xml"}, f"<DeleteResult>{text}</DeleteResult>".encode()
