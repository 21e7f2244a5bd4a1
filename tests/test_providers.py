"""`storage_options` as a provider: credentials that are asked for again before they expire."""

from __future__ import annotations

import ast
import asyncio
import base64
import gc
import json
import logging
import subprocess
import sys
import threading
import time
import urllib.request
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

import jobrota
from jobrota.providers import read
from jobrota.stand_ins import Dbutils, WorkspaceClient
from jobrota.storage_options import StorageOptions
from jobrota.viya import Credentials, ViyaSession
from run_page import FENCE
from small_s3 import BUCKET, Answer, SmallS3, problem
from support import REPOSITORY, column

ROOT = f"s3://{BUCKET}/ledger"
SECRET = "very-secret-text"
THREADS = 8


class Store:
    """A store that demands an access key, and a provider of the key that is valid now."""

    def __init__(self, s3: SmallS3, loop: asyncio.AbstractEventLoop) -> None:
        """Takes the server and the event loop that runs it."""
        self.s3 = s3
        self.loop = loop
        self.asked = 0
        self.running = 0
        self.most_running = 0
        self.expires: object = None
        self.raises: BaseException | None = None

    def rotate(self) -> None:
        """Makes another key valid."""

        async def rotate() -> None:
            self.s3.rotate()

        asyncio.run_coroutine_threadsafe(rotate(), self.loop).result(10)

    def __call__(self) -> dict[str, Any]:
        self.asked += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if self.raises is not None:
                raise self.raises
            return {
                "aws_access_key_id": self.s3.access_key,
                "aws_secret_access_key": f"{SECRET}-{self.asked}",
                "aws_endpoint": self.s3.url,
                "allow_http": True,
                "timeout": timedelta(seconds=10),
                "expires_at": self.expires,
            }
        finally:
            self.running -= 1

    def ledger(self) -> jobrota.JobLedger:
        """A ledger with this provider."""
        return jobrota.JobLedger(ROOT, storage_options=self)


@pytest.fixture
def store() -> Iterator[Store]:
    """A store that accepts any number of requests with one key, until it is rotated."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    s3 = SmallS3(rotate_after=1_000_000)
    asyncio.run_coroutine_threadsafe(s3.start(), loop).result(10)
    try:
        yield Store(s3, loop)
    finally:
        asyncio.run_coroutine_threadsafe(s3.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def log(ledger: jobrota.JobLedger, job: str = "A") -> None:
    ledger.log_job_completion("a.sas", job, "SUCCESS")


def log_until(ledger: jobrota.JobLedger, deadline: float) -> None:
    while time.monotonic() < deadline:
        log(ledger)


def test_a_key_that_is_rotated_in_the_middle_of_everything(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store.s3.rotate_after = 20
    ledger = store.ledger()
    selector = jobrota.RoundRobinSelector(["vm1", "vm2"], cursor=ledger, probe=lambda vm: ("10.0.0.1", "nic"))
    sent: list[str] = []

    def send(file_name: str, job: str, status: str) -> bool:
        sent.append(job)
        return True

    updater = jobrota.AutosysUpdater(ledger, send)
    for number in range(20):
        log(ledger, f"J{number}")
        assert selector.select().vm in ("vm1", "vm2")
        if number % 5 == 4:
            assert updater.run().delivered == 5
            log(ledger, f"BY HAND {number}")
            assert ledger.acknowledge(ledger.pending_notifications()) == 1
    ledger.maintain()
    assert sent == [f"J{number}" for number in range(20)]
    assert ledger.pending_notifications().num_rows == 0
    assert store.s3.rotations > 10
    assert store.most_running == 1
    # Each rotation is noticed once by each store: that of the ledger, and that of the cursor.
    assert store.asked <= 2 * (store.s3.rotations + 1)
    assert SECRET not in caplog.text
    assert SECRET not in repr([ledger, selector, updater])


def test_eight_threads_ask_once(store: Store) -> None:
    ledger = store.ledger()
    log(ledger)
    barrier = threading.Barrier(THREADS)

    def work(number: int) -> None:
        barrier.wait(10)
        log(ledger, f"J{number}")

    with ThreadPoolExecutor(THREADS) as pool:
        for asked in (2, 3, 4):
            store.rotate()
            list(pool.map(work, range(THREADS)))
            assert store.asked == asked
    assert ledger.notifications().num_rows == 1 + 3 * THREADS


def test_credentials_are_asked_for_before_they_expire(store: Store) -> None:
    # Of two seconds of life, the last one is for asking.
    store.expires = time.time() + 2
    ledger = store.ledger()
    log(ledger)
    assert store.asked == 1
    store.expires = None
    deadline = time.monotonic() + 30
    while store.asked == 1:
        assert time.monotonic() < deadline
        log(ledger)
    assert (store.asked, store.s3.refused) == (2, 0)


@pytest.mark.parametrize(
    "expires",
    [
        lambda now: now.timestamp(),
        lambda now: int(now.timestamp() * 1000),
        lambda now: now,
        lambda now: now.astimezone(timezone(timedelta(hours=-7))).isoformat(),
        lambda now: now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    ],
    ids=["seconds", "milliseconds", "datetime", "text with an offset", "text"],
)
def test_forms_of_a_time(store: Store, expires: Callable[[datetime], object]) -> None:
    at = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(hours=1)
    store.expires = expires(at)
    _, given = read(store)
    assert given is not None
    name, ask = given
    options, known = ask()
    assert (name, known) == ("Store", at)
    assert (options["allow_http"], options["timeout"]) == ("true", "10.000000s")
    log(store.ledger())


def test_a_provider_that_fails(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store.raises = LookupError("the vault is closed")
    with pytest.raises(
        jobrota.AuthenticationError, match=r"'Store' of storage_options.*LookupError: the vault is closed"
    ) as caught:
        store.ledger()
    assert caught.value.retryable
    store.raises = jobrota.AuthenticationError("never for you")
    with pytest.raises(jobrota.AuthenticationError, match="never for you") as caught:
        store.ledger()
    assert not caught.value.retryable
    # What it raises while the credentials are good is logged, without secrets of them.
    store.raises, store.expires = None, time.time() + 4
    ledger = store.ledger()
    store.raises = RuntimeError(f"cannot renew {SECRET}-{store.asked}")
    asked, deadline = store.asked, time.monotonic() + 30
    while store.asked == asked:
        assert time.monotonic() < deadline
        log(ledger)
    assert "RuntimeError: cannot renew …" in caplog.text
    # Once they have run out, the call fails, until the provider works again.
    with pytest.raises(jobrota.AuthenticationError, match="RuntimeError: cannot renew …") as caught:
        log_until(ledger, deadline)
    assert caught.value.retryable
    store.raises, store.expires = None, None
    while True:
        try:
            log(ledger)
            break
        except jobrota.AuthenticationError:
            assert time.monotonic() < deadline
    assert SECRET not in caplog.text


def test_answers_that_cannot_be_used(store: Store) -> None:
    good = store()
    naive = datetime.now() + timedelta(hours=1)
    wrong: list[tuple[Any, str]] = [
        (None, "must return a dict"),
        (5, "must return a dict"),
        ({}, "no options"),
        ({"expires_at": time.time() + 60}, "no options"),
        ({**good, "aws_secret_access_keys": SECRET}, "did you mean 'aws_secret_access_key'"),
        ({"azure_storage_sas_token": SECRET}, "is a storage option of abfss:// roots"),
        ({**good, 5: SECRET}, "keys are text"),
        ({**good, "aws_session_token": SECRET.encode()}, "must be text, not a value of type bytes"),
        ({"aws_access_key_id": SECRET}, "cannot be used"),
        ({**good, "expires_at": naive}, "expires_at must be"),
        ({**good, "expires_at": "tomorrow"}, "expires_at must be"),
        ({**good, "expires_at": [1]}, "expires_at must be"),
        ({**good, "aws_access_key_id": f"{SECRET}\n"}, "such as a line break at its end"),
        ({**good, "aws_session_token": "a\0b"}, "such as a line break at its end"),
        ({**good, "expires_at": b"2026"}, "its expires_at is b'2026': it must be a time"),
        ({**good, "expires_at": 3600}, "its expires_at is 3600: it must be a time"),
        ({**good, "expires_at": True}, "its expires_at is True: it must be a time"),
        ({**good, "expires_at": time.time() - 1}, "has expired already"),
    ]
    for answer, says in wrong:
        with pytest.raises(jobrota.JobrotaError) as caught:
            jobrota.JobLedger(ROOT, storage_options=lambda answer=answer: answer)
        text = str(caught.value)
        assert says in text
        assert "<lambda>" in text
        assert SECRET not in text
        assert caught.value.retryable == ("expired" in says)
    others: list[Any] = ["text", 5, {"provider": 5}, {"provider": None}, object()]
    for given in others:
        with pytest.raises(jobrota.InvalidInputError, match=r"storage_options (\[\"provider\"\] )?must be"):
            jobrota.JobLedger(ROOT, storage_options=given)
    with pytest.raises(jobrota.InvalidInputError, match="belongs into what a provider returns"):
        jobrota.JobLedger(ROOT, storage_options=good)
    with pytest.raises(jobrota.InvalidInputError, match="'aws_regoin' is not a storage option"):
        jobrota.JobLedger(ROOT, storage_options={"provider": store, "aws_regoin": "x"})


@pytest.mark.parametrize("fixed", [False, True])
def test_a_commit_that_was_refused_after_a_lost_answer_can_be_there(
    store: Store, monkeypatch: pytest.MonkeyPatch, fixed: bool
) -> None:
    """The client of the store repeats requests: that the last one was refused says nothing about the first."""
    options = {name: value for name, value in store().items() if value is not None}
    ledger = jobrota.JobLedger(ROOT, storage_options=options) if fixed else store.ledger()
    log(ledger)
    commits: list[tuple[str, str, dict[str, str], bytes]] = []
    answer = store.s3._answer

    def lose(method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        if method != "PUT" or "_delta_log/" not in target:
            return answer(method, target, headers, body)
        commits.append((method, target, headers, body))
        return problem(500, "InternalError") if len(commits) == 1 else problem(403, "AccessDenied")

    monkeypatch.setattr(store.s3, "_answer", lose)
    with pytest.raises(jobrota.StorageError, match="it is not known whether version") as caught:
        log(ledger, "LATE")
    assert not caught.value.retryable
    monkeypatch.setattr(store.s3, "_answer", answer)
    assert answer(*commits[0])[0] == 200
    assert "LATE" in column(ledger.notifications(), "job_id")


def test_secrets_of_fixed_options_and_earlier_answers_are_not_shown(store: Store) -> None:
    fixed = {"aws_endpoint": store.s3.url, "allow_http": "true", "aws_session_token": "fixed-secret"}
    earlier = f"{SECRET}-1"

    def provide() -> dict[str, Any]:
        if store.asked == 2:
            raise LookupError(f"neither fixed-secret nor {earlier} in {fixed['aws_endpoint']}")
        return {name: value for name, value in store().items() if "key" in name}

    ledger = jobrota.JobLedger(ROOT, storage_options={**fixed, "provider": provide})
    log(ledger)
    store.rotate()
    log(ledger)
    store.rotate()
    with pytest.raises(jobrota.AuthenticationError, match="neither … nor … in http") as caught:
        log(ledger)
    assert not [secret for secret in ("fixed-secret", earlier) if secret in str(caught.value)]


def test_fixed_options_beside_a_provider(store: Store) -> None:
    def keys() -> dict[str, Any]:
        return {name: value for name, value in store().items() if "key" in name}

    fixed = {"aws_endpoint": store.s3.url, "allow_http": "true"}
    log(jobrota.JobLedger(ROOT, storage_options={**fixed, "provider": keys}))
    assert store.asked == 1


def test_an_asynchronous_provider(store: Store) -> None:
    loops = set()

    async def provide() -> dict[str, Any]:
        loops.add(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return store()

    ledger = jobrota.JobLedger(ROOT, storage_options=provide)
    log(ledger)
    store.rotate()

    async def main() -> None:
        # More coroutines than there are threads for blocking work.
        await asyncio.gather(*(ledger.log_job_completion_async("a.sas", f"J{n}", "SUCCESS") for n in range(600)))
        other = await jobrota.JobLedger.open_async(ROOT, storage_options=provide)
        assert (await other.notifications_async()).num_rows == 601
        assert asyncio.get_running_loop() not in loops

    asyncio.run(main())
    assert len(loops) == 1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_credential_with_get_token(asynchronous: bool) -> None:
    scopes: list[str] = []
    expires_on = int(time.time()) + 3600

    class Credential:
        def get_token(self, *wanted: str) -> Any:
            scopes.extend(wanted)
            answer = SimpleNamespace(token=SECRET, expires_on=expires_on)

            async def later() -> Any:
                return answer

            return later() if asynchronous else answer

    _, given = read(Credential())
    assert given is not None
    expected = datetime.fromtimestamp(expires_on, timezone.utc)
    assert given[1]() == ({"azure_storage_token": SECRET}, expected)
    assert scopes == ["https://storage.azure.com/.default"]
    with pytest.raises(jobrota.InvalidInputError, match=r"Credential.*is a storage option of abfss:// roots") as caught:
        jobrota.JobLedger(ROOT, storage_options=Credential())
    assert SECRET not in str(caught.value)


def test_all_that_takes_storage_options(store: Store, tmp_path: Path) -> None:
    ledger = store.ledger()
    log(ledger)
    assert jobrota.JobLedger(ROOT, storage_options={"provider": store}).notifications().num_rows == 1
    for cursor in (ROOT, ledger):
        selector = jobrota.RoundRobinSelector(
            ["vm1"], cursor=cursor, probe=lambda vm: ("10.0.0.1", "nic"), storage_options=store
        )
        assert selector.select().vm == "vm1"
        assert selector.distribution().num_rows == 1
    report = jobrota.doctor(ledger=ROOT, storage_options=store)
    assert "given: Store" in str(report)
    assert SECRET not in str(report)
    assert [check for check in report.checks if check.area == "ledger" and check.status == "failed"] == []
    with pytest.raises(jobrota.NotFoundError):
        jobrota.comparison_history(ROOT, storage_options=store)
    jobrota.ViyaComparisonRunner("https://viya.example.com", results_table=ROOT, storage_options=store)
    old = jobrota.JobLedger(tmp_path)
    log(old, "OLD")
    other = f"s3://{BUCKET}/other"
    jobrota.migrate(old.root, other, step="copy", storage_options=store)
    jobrota.migrate(other, tmp_path / "back", step="copy", source_options=store)
    assert jobrota.JobLedger(tmp_path / "back").notifications().num_rows == 1
    jobrota.configure(ledger=ledger)
    try:
        jobrota.log_job_completion("b.sas", "B", "SUCCESS")
    finally:
        jobrota.configure(ledger=None)
    assert ledger.notifications().num_rows == 2


def test_a_local_directory_asks_for_nothing(store: Store, tmp_path: Path) -> None:
    log(jobrota.JobLedger(tmp_path, storage_options=store))
    assert store.asked == 0


def test_two_providers_of_one_root_are_not_mixed(store: Store) -> None:
    log(store.ledger())

    def wrong() -> dict[str, Any]:
        return {**store(), "aws_access_key_id": "OTHER"}

    with pytest.raises(jobrota.AuthenticationError, match="403") as caught:
        jobrota.JobLedger(ROOT, storage_options=wrong)
    assert SECRET not in str(caught.value)
    log(store.ledger())


def test_a_circle_through_a_provider_is_collected(store: Store, tmp_path: Path) -> None:
    class Site:
        def __init__(self, make: Callable[[Any], Any]) -> None:
            self.ours = make(self.options)

        def options(self) -> dict[str, Any]:
            return store()

    for make in (
        lambda options: jobrota.JobLedger(ROOT, storage_options=options),
        lambda options: jobrota.JobLedger(tmp_path, storage_options=options),
        lambda options: jobrota.RoundRobinSelector(["vm1"], cursor=ROOT, storage_options=options),
    ):
        site = Site(make)
        gone = weakref.ref(site)
        gc.collect()
        assert site.ours is not None
        del site
        gc.collect()
        assert gone() is None
    # A selector that has the provider of a ledger keeps it.
    site = Site(lambda options: jobrota.JobLedger(ROOT, storage_options=options))
    selector = jobrota.RoundRobinSelector(["vm1"], cursor=site.ours, probe=lambda vm: ("10.0.0.1", "nic"))
    del site
    gc.collect()
    assert selector.select().vm == "vm1"


class Catalog(BaseHTTPRequestHandler):
    """Issues credentials for a path, as Unity Catalog does."""

    protocol_version = "HTTP/1.1"
    store: Store
    calls: ClassVar[list[tuple[str, str, Any]]] = []

    def do_POST(self) -> None:
        """Answers with the key that is valid now, for an hour."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.calls.append((self.path, self.headers["authorization"], body))
        key = self.store.s3.access_key
        answer: dict[str, Any] = {
            "aws_temp_credentials": {"access_key_id": key, "secret_access_key": SECRET, "session_token": SECRET},
            "expiration_time": int(time.time() * 1000) + 3_600_000,
        }
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


def recipe(name: str, page: str = "credentials.md", **names: Any) -> Any:
    """The function of this name in a code block of the page, with these names in place of those of the page."""
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    (block,) = (block["text"] for block in FENCE.finditer(text) if f"def {name}(" in block["text"])
    (function,) = (node for node in ast.parse(block).body if isinstance(node, ast.FunctionDef) and node.name == name)
    names |= {"json": json, "urllib": urllib}
    exec(compile(ast.Module([function], []), name, "exec"), names)
    return names[name]


def rotated(store: Store, provider: Any) -> None:
    """Logs with a recipe, also after the key was rotated."""
    options: StorageOptions = {"aws_endpoint": store.s3.url, "allow_http": True, "provider": provider}
    ledger = jobrota.JobLedger(ROOT, storage_options=options)
    log(ledger, "BEFORE")
    store.rotate()
    log(ledger, "AFTER")
    assert store.s3.refused > 0  # one call can send several requests at once


def test_secrets_of_a_scope(store: Store) -> None:
    dbutils = Dbutils(secrets={"storage": {"key": "", "secret": SECRET}})
    provider = recipe("from_scope", dbutils=dbutils)

    def current() -> dict[str, str]:
        dbutils.secrets.put("storage", "key", store.s3.access_key)
        options: dict[str, str] = provider()
        return options

    rotated(store, current)


def test_a_service_credential_of_aws(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def keys() -> SimpleNamespace:
        return SimpleNamespace(access_key=store.s3.access_key, secret_key=SECRET, token=SECRET)

    session = SimpleNamespace(get_credentials=lambda: SimpleNamespace(get_frozen_credentials=keys))
    monkeypatch.setitem(sys.modules, "boto3", SimpleNamespace(Session=lambda botocore_session: botocore_session))
    rotated(store, recipe("from_session", dbutils=Dbutils(service_credentials={"ledger": session})))


def test_a_service_credential_of_azure() -> None:
    credential = SimpleNamespace(get_token=lambda *scopes: SimpleNamespace(token=SECRET, expires_on=4102444800))
    dbutils = Dbutils(service_credentials={"ledger": credential})
    _, given = read(dbutils.credentials.getServiceCredentialsProvider("ledger"))
    assert given is not None
    assert given[1]() == ({"azure_storage_token": SECRET}, datetime(2100, 1, 1, tzinfo=timezone.utc))
    with pytest.raises(LookupError, match="those given are \\['ledger'\\]"):
        dbutils.credentials.getServiceCredentialsProvider("other")


def test_credentials_that_unity_catalog_issues(store: Store) -> None:
    Catalog.store = store
    with ThreadingHTTPServer(("127.0.0.1", 0), Catalog) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            client = WorkspaceClient(f"http://127.0.0.1:{server.server_port}")
            rotated(store, recipe("from_catalog", client=client, root=ROOT))
        finally:
            server.shutdown()
    wanted = {"url": ROOT, "operation": "PATH_READ_WRITE"}
    path = "/api/2.1/unity-catalog/temporary-path-credentials"
    assert Catalog.calls == [(path, f"Bearer not-a-real-token-{call}", wanted) for call in (1, 2)]


def test_renewed_tokens_of_viya_are_written_back() -> None:
    with jobrota.Sandbox(autosys=False, vms=0, vms_down=0, token_lifetime=1) as sandbox:
        dbutils = Dbutils(secrets={"viya": {"tokens": sandbox.tokens.read_text()}})
        client = WorkspaceClient(dbutils=dbutils)
        keep = recipe("keep", "viya.md", client=client)
        seen: set[str] = set()
        # Each refresh token of the sandbox works once, so each job needs what the one before it has written.
        for jobs in (1, 2, 3):
            tokens = Credentials.tokens(json.loads(dbutils.secrets.get("viya", "tokens")), persist=keep)
            session = ViyaSession(sandbox.viya_url, tokens=tokens)
            while len(seen) < 2 * jobs:
                seen.add(session.token())
    written = base64.b64decode(client.secrets.get_secret("viya", "tokens").value)
    assert json.loads(written)["access_token"] in seen
    with pytest.raises(LookupError, match="secret scope does not exist"):
        client.secrets.put_secret("other", "tokens", string_value="new")


EXIT = """
import atexit, sys
import jobrota

def options():
    keys = {"aws_access_key_id": "KEY000000", "aws_secret_access_key": "x"}
    return {**keys, "aws_endpoint": sys.argv[1], "allow_http": True}

ledger = jobrota.JobLedger("s3://ledgers/ledger", storage_options=options)
atexit.register(lambda: (ledger.log_job_completion("a.sas", "A", "SUCCESS"), print("logged")))
"""


def test_a_provider_at_the_end_of_the_process(store: Store) -> None:
    command = [sys.executable, "-c", EXIT, store.s3.url]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "logged\n", "")
    assert store.ledger().notifications().num_rows == 1
