"""Servers of the clouds for the tests, on ports that the system chooses: Azurite for Azure, moto for S3."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import hmac
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

ACCOUNT = "devstoreaccount1"
# Azurite's published account and key.
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
# The S3 server takes any, until a test tells it to check.
S3_SECRET = "UzMgc2VjcmV0IG9mIHRoZSB0ZXN0cw"


@dataclass
class Place:
    """A container or bucket with what it takes to open it."""

    kind: str
    root: str
    options: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)
    url: str = ""


@contextlib.contextmanager
def running(command: list[str], ready: str) -> Iterator[re.Match[str]]:
    """Runs a server until the end of the block; what it printed when it was ready is matched by `ready`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PATH": path},
    ) as server:
        assert server.stdout is not None
        said = []
        try:
            for line in server.stdout:
                said.append(line)
                if found := re.search(ready, line):
                    yield found
                    break
            else:
                raise RuntimeError(f"{command[0]} did not start: {''.join(said)}")
        finally:
            server.kill()


@contextlib.contextmanager
def azurite() -> Iterator[str]:
    """Azurite's blob service, in memory; its URL."""
    program = Path(sys.prefix, "azurite/node_modules/.bin/azurite-blob")
    if not program.exists():
        raise RuntimeError(f"{program} is missing: `make test` installs it")
    node = shutil.which("node", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if node is None:
        raise RuntimeError("node is not on the PATH, which Azurite needs")
    options = ["--blobPort", "0", "--silent", "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"]
    with running([node, str(program.resolve()), *options], r"listens on (http://\S+)") as found:
        yield found[1]


def azure_put(url: str, path: str, body: bytes = b"", **conditions: str) -> int:
    """Puts a container (`name?restype=container`) or blob into Azurite, without our code; the HTTP status."""
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
    ours = {"x-ms-date": date, "x-ms-version": "2023-11-03"}
    if "?" not in path:
        ours["x-ms-blob-type"] = "BlockBlob"
    name, _, query = path.partition("?")
    lines = [
        "PUT",
        "",
        "",
        str(len(body) or ""),
        "",
        "text/plain",
        "",
        "",
        "",
        conditions.get("if_none_match", ""),
        "",
        "",
    ]
    lines += [f"{header}:{ours[header]}" for header in sorted(ours)]
    lines += [f"/{ACCOUNT}/{ACCOUNT}/{name}", *([query.replace("=", ":")] if query else [])]
    signature = hmac.digest(base64.b64decode(ACCOUNT_KEY), "\n".join(lines).encode(), hashlib.sha256)
    headers = {
        **ours,
        "Content-Type": "text/plain",
        "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}",
        **{header.replace("_", "-").title(): value for header, value in conditions.items()},
    }
    request = urllib.request.Request(f"{url}/{ACCOUNT}/{path}", body, headers, method="PUT")
    try:
        with urllib.request.urlopen(request) as response:
            status: int = response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    return status


def shared_access_signature(life: datetime.timedelta) -> str:
    """A signature for all blobs of Azurite's account, which expires after `life`."""
    expires = (datetime.datetime.now(datetime.timezone.utc) + life).strftime("%Y-%m-%dT%H:%M:%SZ")
    permissions, services, resources, version = "rwdlac", "b", "sco", "2019-12-12"
    signed = [ACCOUNT, permissions, services, resources, "", expires, "", "https,http", version, ""]
    signature = hmac.digest(base64.b64decode(ACCOUNT_KEY), "\n".join(signed).encode(), hashlib.sha256)
    parts = {"sv": version, "ss": services, "srt": resources, "sp": permissions, "se": expires, "spr": "https,http"}
    return urllib.parse.urlencode({**parts, "sig": base64.b64encode(signature).decode()})


def create_container(url: str, name: str) -> None:
    """Creates a container in Azurite."""
    assert azure_put(url, f"{name}?restype=container") == 201


@contextlib.contextmanager
def s3_server(certificate: tuple[Path, Path] | None = None) -> Iterator[str]:
    """An S3 server; its URL."""
    command = [sys.executable, str(Path(__file__).with_name("s3_server.py")), *map(str, certificate or ())]
    with running(command, r"^(\d+)$") as found:
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{found[1]}"


def aws(service: str, url: str, key: str = "id", secret: str = S3_SECRET) -> Any:
    """boto3, as another client of the S3 server."""
    return boto3.session.Session().client(
        service,  # type: ignore[call-overload, unused-ignore]
        endpoint_url=url,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        verify=False if url.startswith("https") else None,
        config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}),
    )


def s3_options(url: str, key: str = "id", secret: str = S3_SECRET) -> dict[str, str]:
    """The storage options for the S3 server."""
    return {
        "aws_access_key_id": key,
        "aws_secret_access_key": secret,
        "aws_region": "us-east-1",
        "aws_endpoint": url,
        "allow_http": "true",
    }
