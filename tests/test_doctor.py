"""`jobrota doctor` reports the truth about a machine, leaves no files behind, never hangs, and shows no secret."""

from __future__ import annotations

import http.server
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import jobrota
from support import run

pytestmark = pytest.mark.timeout(120)

# Long enough for a slow machine; nothing here has to wait for a network.
PATIENCE = 15.0

SECRETS = {
    "AZURE_STORAGE_ACCOUNT_KEY": "aGlkZGVuLTAxLWhpZGRlbg==",
    "AZURE_STORAGE_SAS_TOKEN": "sv=hidden-02&sig=hidden-03",
    "AZURE_STORAGE_TOKEN": "hidden-04",
    "AZURE_CLIENT_SECRET": "hidden-05",
    "AWS_ACCESS_KEY_ID": "hidden-06",
    "AWS_SECRET_ACCESS_KEY": "hidden-07",
    "AWS_SESSION_TOKEN": "hidden-08",
    "GOOGLE_SERVICE_ACCOUNT_KEY": '{"private_key": "hidden-09"}',
    "SAS_CLIENT_SECRET": "hidden-10",
    "JOBROTA_BASE_URL": "https://user:hidden-11@viya.example.com/?token=hidden-12",
    "SAS_BASE_URL": "https://user:hidden-13@viya.example.com/",
    "JOBROTA_PROBE": "http://user:hidden-14@{ip}:1/?t=hidden-15",
    "HTTPS_PROXY": "http://user:hidden-16@127.0.0.1:9",
}


@pytest.fixture(autouse=True)
def no_programs_and_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine's AutoSys and SSH keys are not part of a test."""
    for name in list(os.environ):
        if name.startswith(("AUTO", "SSH_")):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))


def check(report: jobrota.DoctorReport, area: str, name: str) -> jobrota.Check:
    found = [check for check in report.checks if (check.area, check.name) == (area, name)]
    assert len(found) == 1, [(check.area, check.name) for check in report.checks]
    return found[0]


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_a_directory_is_examined_and_left_as_it_was(tmp_path: Path) -> None:
    ledger = jobrota.JobLedger(tmp_path / "ledger")
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    before = everything(tmp_path)
    begun = time.monotonic()
    report = jobrota.doctor(ledger=tmp_path / "ledger")
    assert time.monotonic() - begun < PATIENCE
    assert everything(tmp_path) == before
    assert report.ok, str(report)
    for name in ("root", "writable", "atomic", "listing", "durable", "latency", "job_notifications"):
        assert check(report, "ledger", name).status == "ok"
    assert "exactly one won" in check(report, "ledger", "atomic").detail
    for name in ("tcp", "http", "any probe"):
        assert check(report, "probes", name).status == "ok"
    assert {check.area for check in report.checks} == {"environment", "probes", "ledger", "credentials", "settings"}
    assert f"Python {sys.version.split()[0]}" in check(report, "environment", "jobrota").detail
    assert all(check.advice for check in report.checks if check.status in ("warning", "failed"))


def test_a_root_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    report = jobrota.doctor(ledger=tmp_path / "not" / "yet")
    assert report.ok
    assert "does not exist yet" in check(report, "ledger", "root").detail
    assert not (tmp_path / "not").exists()


# A file, a path below a file, and a file system where no user, root included, can create files.
@pytest.mark.parametrize("place", ["file", "file/below", "/proc/jobrota", "/Volumes/c/s/v", "dbfs:/x"])
def test_a_root_that_cannot_be_written_is_1(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    assert run("doctor", "--ledger", place) == 1
    shown = capsys.readouterr().out
    assert "✗" in shown
    assert "→" in shown
    assert shown.splitlines()[-1].startswith("jobrota cannot do its work here")


def test_without_anything_configured_it_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor") == 0
    shown = capsys.readouterr().out
    assert "no ledger is configured" in shown
    assert shown.splitlines()[-1].startswith("jobrota can work here")


def test_json_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor", "--json", "--ledger", tmp_path / "ledger") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["ok"] is True
    assert all(set(check) == {"area", "name", "status", "detail", "advice"} for check in values["checks"])
    assert {check["status"] for check in values["checks"]} <= {"ok", "note", "warning", "failed"}


def test_broken_settings_are_reported_once() -> None:
    Path("jobrota.toml").write_text('ledger = "/x"\nbase_url = "https://u:hidden@viya\n', encoding="utf-8")
    report = jobrota.doctor()
    broken = check(report, "settings", "settings file")
    assert broken.status == "failed"
    assert "line 2" in broken.detail
    assert not report.ok
    assert check(report, "probes", "tcp").status == "ok"
    assert "hidden" not in str(report)


def test_keys_that_are_no_settings_are_warned_of() -> None:
    Path("jobrota.toml").write_text('ledgr = "x"\nprobe = "tcp:22"\n[viya]\nbase_url = "x"\n', encoding="utf-8")
    warned = check(jobrota.doctor(), "settings", "settings file")
    assert warned.status == "warning"
    assert warned.detail == "jobrota.toml: no such setting: ledgr, viya"
    assert "base_url" in str(warned.advice)


def test_settings_say_where_they_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("jobrota.toml").write_text(f'ledger = "{tmp_path}/file"\nprobe = "tcp:22"\n', encoding="utf-8")
    monkeypatch.setenv("JOBROTA_LEDGER", f"{tmp_path}/variable")
    report = jobrota.doctor()
    assert check(report, "settings", "ledger").detail == f"{tmp_path}/variable (from JOBROTA_LEDGER)"
    assert check(report, "settings", "probe").detail == "tcp:22 (from jobrota.toml)"
    jobrota.configure(ledger=jobrota.JobLedger(tmp_path / "configured"))
    report = jobrota.doctor()
    assert check(report, "settings", "ledger").detail == f"{tmp_path}/configured (from jobrota.configure)"
    assert f"{tmp_path}/configured" in check(report, "ledger", "root").detail
    report = jobrota.doctor(ledger=tmp_path / "argument")
    assert check(report, "settings", "ledger").detail == f"{tmp_path}/argument (from argument)"


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobrota", "doctor"],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("jobrota can work here")


def test_secrets_are_shown_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**SECRETS, "AZURE_CLIENT_ID": "c", "AZURE_TENANT_ID": "t"}.items():
        monkeypatch.setenv(name, value)
    tokens = tmp_path / "tokens.json"
    tokens.write_text('{"access_token": "hidden-20", "refresh_token": "hidden-21", "expires_in": 60}')
    tokens.chmod(0o644)
    options = {"aws_secret_access_key": "hidden-22", "aws_access_key_id": "hidden-23"}
    report = jobrota.doctor(
        ["127.0.0.1"], ledger="s3://k:hidden-24@bucket/x", storage_options=options, tokens=tokens, timeout=0.2
    )
    assert run("doctor", "--ledger", "abfss://c@a.dfs.core.windows.net/x?sig=hidden-25", "--tokens", tokens) == 1
    told = [str(report), repr(report), report._repr_html_(), json.dumps(report.to_dict()), *capsys.readouterr()]
    for text in told:
        assert not re.search("hidden-[0-9]|aGlkZGVu", text), text
    assert check(report, "credentials", "Azure storage").detail.startswith("account key (AZURE_STORAGE_ACCOUNT_KEY)")
    assert check(report, "credentials", "SAS Viya tokens").status == "warning"
    assert "chmod 600" in str(check(report, "credentials", "SAS Viya tokens").advice)
    tokens.chmod(0o600)
    assert check(jobrota.doctor(tokens=tokens), "credentials", "SAS Viya tokens").status == "ok"


def test_vms_are_probed_side_by_side(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as up, socket.create_server(("127.0.0.1", 0)) as closed:
        port, dead = up.getsockname()[1], closed.getsockname()[1]
        closed.close()
        inventory = {"good": {"ip_address": "127.0.0.1"}, "other": {"ip_address": "localhost"}}
        report = jobrota.doctor(inventory=inventory, probes=[f"tcp:{dead}", f"tcp:{port}"], timeout=5.0)
        for name in inventory:
            told = check(report, "vms", name).detail
            assert f"tcp:{port} answers" in told
            assert re.search(rf"tcp:{dead}: .*refused", told)
        assert "answered:" in check(report, "vms", "probe to set").detail
        file = tmp_path / "vms.json"
        file.write_text(json.dumps(inventory))
        one = jobrota.doctor(["other"], inventory=file, probes=[f"tcp:{port}"])
        assert [check.name for check in one.checks if check.area == "vms"] == ["other", "probe to set"]
    with pytest.raises(jobrota.InvalidInputError, match="unknown-vm"):
        jobrota.doctor(["unknown-vm"], inventory=inventory)
    with pytest.raises(jobrota.InvalidInputError, match="nonsense"):
        jobrota.doctor(probes=["nonsense"])


def test_the_configured_inventory_is_probed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("vms.json").write_text('["127.0.0.1"]')
    monkeypatch.setenv("JOBROTA_INVENTORY", "vms.json")
    run("doctor", "--json")
    values = json.loads(capsys.readouterr().out)
    assert "127.0.0.1" in [check["name"] for check in values["checks"] if check["area"] == "vms"]
    monkeypatch.setenv("JOBROTA_INVENTORY", "nowhere.json")
    assert run("doctor", "--json") == 0
    values = json.loads(capsys.readouterr().out)
    (broken,) = [check for check in values["checks"] if (check["area"], check["name"]) == ("settings", "inventory")]
    assert broken["status"] == "warning"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_as_a_user_without_rights() -> None:
    # Loaded before the rights are given up, as Python and the package may be where others cannot read.
    code = """
import os, sys, json, platform
import jobrota
jobrota.doctor()
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
print(json.dumps(jobrota.doctor(ledger=sys.argv[1]).to_dict()))
"""
    with tempfile.TemporaryDirectory() as locked:
        Path(locked).chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", code, locked], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert everything(Path(locked)) == set()
    values = json.loads(done.stdout)
    assert values["ok"] is False
    checks = {(check["area"], check["name"]): check for check in values["checks"]}
    assert checks["environment", "user"]["detail"] == "user id 65534, without CAP_NET_RAW"
    writable = checks["ledger", "writable"]
    assert writable["status"] == "failed"
    assert writable["advice"]
    assert checks["probes", "icmp-raw IPv4"]["status"] != "ok"
    assert checks["probes", "any probe"]["status"] == "ok"


class Forgetful(http.server.BaseHTTPRequestHandler):
    """What speaks enough of S3 to be written to, and ignores the condition "only if it is new"."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        self.objects[self.path.partition("?")[0]] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, ETag='"e"')

    def do_GET(self) -> None:
        if "list-type" in self.path:
            prefix = urllib.parse.parse_qs(self.path.partition("?")[2]).get("prefix", [""])[0]
            keys = [key for key in map(self.key, list(self.objects)) if key.startswith(prefix)]
            entries = "".join(
                f"<Contents><Key>{key}</Key><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
                for key in keys
            )
            self.answer(200, f"<ListBucketResult>{entries}</ListBucketResult>".encode())
            return
        body = self.objects.get(self.path)
        self.answer(404) if body is None else self.answer(
            200, body, ETag='"e"', Last_Modified="Thu, 01 Jan 2026 00:00:00 GMT"
        )

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        keys = re.findall("<Key>(.*?)</Key>", asked)
        for key in keys:
            self.objects.pop(f"/ledgers/{key}", None)
        deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self.answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def key(self, path: str) -> str:
        return path.removeprefix("/ledgers/")

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def forgetful() -> Iterator[str]:
    """A store that is not atomic; its URL."""
    handler = type("Handler", (Forgetful,), {"objects": {}})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        assert handler.objects == {}, "what the doctor wrote was removed"  # type: ignore[attr-defined]


def options(url: str) -> dict[str, str]:
    return {
        "aws_access_key_id": "id",
        "aws_secret_access_key": "hidden-30",
        "aws_region": "us-east-1",
        "aws_endpoint": url,
        "allow_http": "true",
    }


def test_a_store_that_is_not_atomic_is_found_out(forgetful: str) -> None:
    report = jobrota.doctor(ledger="s3://ledgers/x", storage_options=options(forgetful))
    assert check(report, "ledger", "writable").status == "ok", str(report)
    atomic = check(report, "ledger", "atomic")
    assert atomic.status == "failed"
    assert "were told that they won" in atomic.detail
    assert not report.ok
    assert "hidden-30" not in str(report)


def test_missing_store_is_reported_in_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    begun = time.monotonic()
    report = jobrota.doctor(ledger="s3://ledgers/x", storage_options=options(f"http://127.0.0.1:{port}"))
    assert time.monotonic() - begun < PATIENCE
    assert not report.ok
    assert check(report, "ledger", "writable").status == "failed"


def test_a_store_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        begun = time.monotonic()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        report = jobrota.doctor(ledger="s3://ledgers/x", storage_options=options(url))
        assert time.monotonic() - begun < PATIENCE
    assert not report.ok
    assert check(report, "probes", "tcp").status == "ok"


class Text(HTMLParser):
    """The text of a page, with a check that every tag is closed."""

    def __init__(self) -> None:
        """Starts with nothing open."""
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_notebooks_show_a_table_that_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    report = jobrota.DoctorReport([jobrota.Check("ledger", evil, "failed", evil, evil)], ok=False)
    page = report._repr_html_()
    assert "<script" not in page
    text = Text()
    text.feed(page)
    assert text.open == []
    assert text.text.count(evil) == 3
    assert 'aria-label="failed"' in page
    hostile = jobrota.DoctorReport([jobrota.Check("vms", "a\x1b[2J", "ok", "b\nc")], ok=True)
    assert "\x1b" not in str(hostile)
    assert len(str(hostile).splitlines()) == 3
