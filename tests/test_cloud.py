"""The ledger and the shared cursor in containers and buckets, against servers that the tests start themselves."""

from __future__ import annotations

import datetime
import http.client
import http.server
import ipaddress
import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import deltalake
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import jobrota
from cloud_servers import (
    ACCOUNT,
    ACCOUNT_KEY,
    S3_SECRET,
    Place,
    aws,
    azure_put,
    azurite,
    create_container,
    s3_options,
    s3_server,
    shared_access_signature,
)
from support import column

pytestmark = pytest.mark.timeout(180)

SECRETS = {"azure": ACCOUNT_KEY, "s3": S3_SECRET}
WRONG_KEY = "d3JvbmcgUzNjcjN0IGtleSBvZiBub2JvZHkgYXQgYWxs"


@pytest.fixture(scope="module")
def azure_url() -> Iterator[str]:
    """Azurite with the container `ledgers`."""
    with azurite() as url:
        create_container(url, "ledgers")
        yield url


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    """An S3 server with the bucket `ledgers`."""
    with s3_server() as url:
        aws("s3", url).create_bucket(Bucket="ledgers")
        yield url


@pytest.fixture
def azure(azure_url: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place of the test's own in Azurite."""
    environment = {"AZURITE_BLOB_STORAGE_URL": azure_url}
    monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", azure_url)
    options = {"azure_storage_use_emulator": "true", "azure_storage_account_key": ACCOUNT_KEY}
    root = f"abfss://ledgers@{ACCOUNT}.dfs.core.windows.net/{uuid.uuid4()}"
    return Place("azure", root, options, environment, azure_url)


@pytest.fixture
def s3(s3_url: str) -> Place:
    """A place of the test's own in the S3 server."""
    return Place("s3", f"s3://ledgers/{uuid.uuid4()}", s3_options(s3_url), {}, s3_url)


@pytest.fixture(params=["azure", "s3"])
def place(request: pytest.FixtureRequest) -> Place:
    """A place of the test's own in each cloud."""
    found: Place = request.getfixturevalue(request.param)
    return found


def ledger_at(place: Place, below: str = "") -> jobrota.JobLedger:
    return jobrota.JobLedger(place.root + below, storage_options=place.options)


def test_options_of_a_provider(place: Place) -> None:
    asked = []

    async def provide() -> dict[str, Any]:
        asked.append(1)
        return {**place.options, "expires_at": time.time() + 3600}

    ledger = jobrota.JobLedger(place.root, storage_options=provide)
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    assert ledger.acknowledge(ledger.pending_notifications()) == 1
    assert (len(asked), ledger_at(place).notifications().num_rows) == (1, 1)


def test_a_signature_that_azure_refuses_is_asked_for_again(azure: Place) -> None:
    """The first signature has expired, and the provider did not say so."""
    expires = [-60, 3600, 3600]

    def provide() -> dict[str, str]:
        signature = shared_access_signature(datetime.timedelta(seconds=expires.pop(0)))
        return {"azure_storage_use_emulator": "true", "azure_storage_sas_token": signature}

    ledger = jobrota.JobLedger(azure.root, storage_options=provide)
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    assert ledger.notifications().num_rows == 1
    assert expires == [3600]


def query(place: Place, table: str, sql: str) -> list[tuple[Any, ...]]:
    """The answer that PyPI's deltalake gives about one of our tables."""
    delta = deltalake.DeltaTable(f"{place.root}/{table}", storage_options=place.options)
    found = deltalake.QueryBuilder().register("t", delta).execute(sql).read_all()
    return list(zip(*(found[name].to_pylist() for name in found.schema.names), strict=True))


def in_processes(place: Place, count: int, code: str) -> list[str]:
    """Runs `code` in as many processes at once, each with its `number`; what they printed."""
    prepared = """
import json, sys, jobrota
number, root, options = int(sys.argv[1]), sys.argv[2], json.loads(sys.stdin.readline())
"""
    script = prepared + textwrap.dedent(code)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(number), place.root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **place.environment},
        )
        for number in range(count)
    ]
    # All of them are loaded before the first one begins.
    said = []
    for process in started:
        assert process.stdin is not None
        process.stdin.write(json.dumps(place.options) + "\n")
        process.stdin.flush()
    for process in started:
        out, errors = process.communicate(timeout=150)
        assert process.returncode == 0, errors
        said.append(out)
    return said


# ------------------------------------------------------------------------------------------------ a ledger's life


def test_a_ledger_is_created_logged_to_delivered_and_acknowledged(place: Place) -> None:
    ledger = ledger_at(place)
    with pytest.raises(jobrota.errors.NotFoundError):
        ledger.fetch_unprocessed_updates()
    ledger.log_job_execution("ae.sas", "JOB_A", "SUCCESS")
    ledger.log_job_completion("ae.sas", "JOB_A", "SUCCESS")
    ledger.log_job_completion("dm.sas", "JOB_B", "FAILURE")
    assert column(ledger.pending_notifications(), "job_id") == ["JOB_A", "JOB_B"]
    sent: list[tuple[str, str, str]] = []

    def send(file_name: str, job_id: str, status: str) -> bool:
        sent.append((file_name, job_id, status))
        return job_id != "JOB_B"

    report = jobrota.AutosysUpdater(ledger, send).run()
    assert (report.delivered, report.failed, report.pending) == (1, 1, 1)
    assert sorted(sent) == [("ae.sas", "JOB_A", "SUCCESS"), ("dm.sas", "JOB_B", "FAILURE")]
    assert ledger_at(place).fetch_unprocessed_updates().num_rows == 0
    assert ledger.update_autosys_flag("dm.sas", "JOB_B") == 0
    assert ledger.acknowledge(ledger.pending_notifications()) == 1
    flags = "select job_id, autosys_update_flag from t order by job_id"
    assert query(place, "job_notifications", flags) == [("JOB_A", "YES"), ("JOB_B", "YES")]
    assert query(place, "autosys_job_log", flags) == [("JOB_A", "YES")]
    assert query(place, "autosys_deliveries", "select count(*) from t where outcome = 'delivered'") == [(1,)]


@pytest.mark.parametrize("below", ["/a b", "/100%25", "/a%2520b", "/date=2026-01-01/x+y&z", "/ünï/日本語", "/it's (1)"])
def test_names_keep_their_characters(place: Place, below: str) -> None:
    ledger = ledger_at(place, below)
    for number in range(3):
        ledger.log_job_completion("a b%20c.sas", f"JOB={number}", "SUCCESS")
    assert ledger.acknowledge(ledger.pending_notifications(limit=2)) == 2
    assert column(ledger_at(place, below).pending_notifications(), "job_id") == ["JOB=2"]
    if "%25" in below and below != "/100%25":
        return  # deltalake 1.6 decodes such names twice and cannot find the table
    delta = deltalake.DeltaTable(f"{place.root}{below}/job_notifications", storage_options=place.options)
    assert delta.version() == ledger.notifications().num_rows + 1  # created, 3 rows, acknowledged
    count = deltalake.QueryBuilder().register("t", delta).execute("select count(*) as n from t").read_all()
    assert count["n"].to_pylist() == [3]


def test_a_log_with_checkpoints_is_read_again(place: Place) -> None:
    ledger = ledger_at(place)
    for number in range(45):
        ledger.log_job_completion("a.sas", f"JOB_{number}", "SUCCESS")
    assert ledger_at(place).pending_notifications().num_rows == 45
    assert query(place, "job_notifications", "select count(distinct job_id) from t") == [(45,)]


# ---------------------------------------------------------------------------------------------------- concurrency


def test_a_ledger_is_migrated_within_a_store(place: Place) -> None:
    """Its version is not known there, so the last step reads it twice."""
    old, new = ledger_at(place, "/old"), ledger_at(place, "/new")
    for number in range(3):
        old.log_job_completion(f"{number}.sas", f"JOB{number}", "SUCCESS")
    for appended, acknowledged in ((3, 0), (0, 2)):
        table = jobrota.migrate(old.root, new, step="copy", source_options=place.options).tables[-1]
        assert (table.version, table.appended, table.acknowledged) == (None, appended, acknowledged)
        old.acknowledge(old.pending_notifications(limit=2))
    assert not jobrota.migrate(old.root, new, step="finish", source_options=place.options).ok
    new.acknowledge(new.pending_notifications())
    assert jobrota.migrate(old.root, new, step="finish", source_options=place.options).ok


def test_concurrent_logging_keeps_each_row_once(place: Place) -> None:
    said = in_processes(
        place,
        4,
        """
        from concurrent.futures import ThreadPoolExecutor
        ledger = jobrota.JobLedger(root, storage_options=options)
        def log(row):
            ledger.log_job_completion("a.sas", f"{number}-{row}", "SUCCESS")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(log, range(25)))
        acknowledged = ledger.acknowledge(ledger.pending_notifications(limit=10)) if number == 0 else 0
        print(acknowledged)
        """,
    )
    expected = {f"{number}-{row}" for number in range(4) for row in range(25)}
    ledger = ledger_at(place)
    logged = column(ledger.notifications(), "job_id")
    assert Counter(logged) == Counter(expected)
    assert int(said[0]) == 10
    assert ledger.pending_notifications().num_rows == 90
    assert query(place, "job_notifications", "select count(*), count(distinct job_id) from t") == [(100, 100)]


def test_a_cursor_is_shared_by_processes(place: Place) -> None:
    said = in_processes(
        place,
        3,
        """
        selector = jobrota.RoundRobinSelector(
            ["vm1", "vm2", "vm3"], cursor=root, probe=lambda vm: ("10.0.0.1", "nic"), storage_options=options
        )
        print(*[selector.select().vm for _ in range(6)])
        """,
    )
    assert Counter(" ".join(said).split()) == {"vm1": 6, "vm2": 6, "vm3": 6}


def test_the_servers_create_atomically(place: Place) -> None:
    """What the other tests rest on: of writers that create one object at once, exactly one succeeds."""
    rounds, writers = 50, 8
    barrier = threading.Barrier(writers)
    won: list[int] = []

    def create(number: int) -> None:
        client = aws("s3", place.url) if place.kind == "s3" else None
        for turn in range(rounds):
            key, body = f"race-{place.root[-8:]}/{turn}", str(number).encode() * 1000
            barrier.wait(60)
            if client is None:
                status = azure_put(place.url, f"ledgers/{key}", body, if_none_match="*")
            else:
                try:
                    answer = client.put_object(Bucket="ledgers", Key=key, Body=body, IfNoneMatch="*")
                except client.exceptions.ClientError as error:
                    answer = error.response
                status = answer["ResponseMetadata"]["HTTPStatusCode"]
            assert status in (200, 201, 409, 412)
            if status < 300:
                won.append(turn)

    with ThreadPoolExecutor(writers) as pool:
        for done in [pool.submit(create, number) for number in range(writers)]:
            done.result()
    assert Counter(won) == dict.fromkeys(range(rounds), 1)


# ------------------------------------------------------------------------------------------------- what goes wrong


def refused(place: Place, error: type[jobrota.JobrotaError], within: float, **options: str) -> jobrota.JobrotaError:
    """The error of a log call and of a read, which say the same kind of thing in time."""
    changed = Place(place.kind, place.root, {**place.options, **options})
    raised = []
    uses: list[Callable[[], object]] = [
        lambda: ledger_at(changed).log_job_execution("a.sas", "A", "SUCCESS"),
        lambda: ledger_at(changed).executions(),
    ]
    for use in uses:
        began = time.monotonic()
        with pytest.raises(error) as caught:
            use()
        assert time.monotonic() - began < within
        raised.append(caught.value)
    assert raised[0].retryable == raised[1].retryable
    for secret in (*options.values(), *place.options.values()):
        if len(secret) > 8 and not secret.startswith("http"):
            assert secret not in f"{raised[0]!r} {raised[0]} {raised[1]!r}"
    return raised[0]


def test_a_wrong_key_of_azure_is_said_at_once(azure: Place) -> None:
    error = refused(azure, jobrota.errors.AuthenticationError, 10, azure_storage_account_key=WRONG_KEY)
    assert not error.retryable
    assert "403" in str(error)
    assert "check the credentials" in str(error)
    assert "container 'ledgers'" in str(error)


def test_a_wrong_key_of_s3_is_said_at_once() -> None:
    with s3_server() as url:
        iam = aws("iam", url)
        iam.create_user(UserName="user")
        allowed = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        iam.put_user_policy(UserName="user", PolicyName="all", PolicyDocument=document)
        key = iam.create_access_key(UserName="user")["AccessKey"]
        aws("s3", url).create_bucket(Bucket="ledgers")
        # From now on signatures are checked.
        text = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset-auth", b"0", text)).close()
        place = Place("s3", "s3://ledgers/x", s3_options(url, key["AccessKeyId"], key["SecretAccessKey"]))
        ledger_at(place).log_job_execution("a.sas", "A", "SUCCESS")
        error = refused(place, jobrota.errors.AuthenticationError, 10, aws_secret_access_key=WRONG_KEY)
    assert not error.retryable
    assert "SignatureDoesNotMatch" in str(error)


def test_a_missing_container_or_bucket_is_named(place: Place) -> None:
    elsewhere = Place(place.kind, place.root.replace("ledgers", "nowhere", 1), place.options)
    error = refused(elsewhere, jobrota.errors.StorageError, 10)
    assert not error.retryable
    assert "'nowhere'" in str(error)
    assert "create it first" in str(error)


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_missing_server_is_retryable(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = f"http://127.0.0.1:{closed_port()}"
    monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", nowhere)
    changed = {"aws_endpoint": nowhere} if place.kind == "s3" else {}
    error = refused(place, jobrota.errors.NetworkError, 25, **changed)
    assert error.retryable
    assert "cannot be reached" in str(error)
    assert "Connection refused" in str(error)


def test_missing_credentials_error_names_sources(s3: Place) -> None:
    nowhere = f"http://127.0.0.1:{closed_port()}/169.254.169.254"
    options = {"aws_endpoint": s3.url, "allow_http": "true", "aws_metadata_endpoint": nowhere}
    with pytest.raises(jobrota.errors.AuthenticationError, match="neither storage_options nor the environ") as caught:
        jobrota.JobLedger(s3.root, storage_options=options).log_job_execution("a.sas", "A", "SUCCESS")
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("kind", "wrong", "meant"),
    [
        ("azure", "azure_storage_acount_key", "azure_storage_account_key"),
        ("azure", "aws_region", "s3:// roots"),
        ("s3", "aws_acess_key_id", "aws_access_key_id"),
        ("s3", "azure_storage_account_key", "abfss:// roots"),
        ("s3", "timeout", "must be a time"),
        ("azure", "allow_http", "'true' or 'false'"),
    ],
)
def test_options_are_checked_before_anything_is_sent(kind: str, wrong: str, meant: str) -> None:
    root = {"azure": f"abfss://ledgers@{ACCOUNT}.dfs.core.windows.net/x", "s3": "s3://ledgers/x"}[kind]
    with pytest.raises(jobrota.errors.InvalidInputError, match=meant) as caught:
        jobrota.JobLedger(root, storage_options={wrong: WRONG_KEY})
    assert wrong in str(caught.value)
    assert WRONG_KEY not in f"{caught.value} {caught.value!r}"


def test_plain_http_needs_consent(s3: Place) -> None:
    options = {name: value for name, value in s3.options.items() if name != "allow_http"}
    with pytest.raises(jobrota.errors.InvalidInputError, match="allow_http"):
        jobrota.JobLedger(s3.root, storage_options=options)


def test_credentials_in_a_root_are_refused_and_not_repeated() -> None:
    for root in ["s3://user:S3cr3t@bucket/x", "az://container/x?sig=S3cr3t", "https://host/x?sig=S3cr3t"]:
        with pytest.raises(jobrota.JobrotaError) as caught:
            jobrota.JobLedger(root)
        assert "S3cr3t" not in f"{caught.value} {caught.value!r}"


def test_nothing_shows_the_options(place: Place) -> None:
    ledger = ledger_at(place)
    ledger.log_job_execution("a.sas", "A", "SUCCESS")
    selector = jobrota.RoundRobinSelector(["vm1"], cursor=ledger, probe=lambda vm: ("10.0.0.1", "nic"))
    assert selector.select().vm == "vm1"
    for shown in (ledger, ledger.summary(), selector, selector.cursor):
        text = f"{shown} {shown!r} {getattr(shown, '_repr_html_', str)()}"
        assert SECRETS[place.kind] not in text


def test_the_notebook_functions_keep_the_turns_beside_the_ledger(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    jobrota.configure(
        ledger=ledger_at(place),
        inventory={name: {"ip_address": "10.0.0.1", "nic_name": "nic"} for name in ("vm1", "vm2")},
        probe=lambda vm: ("10.0.0.1", "nic"),
    )
    assert [jobrota.select_reachable_vm(["vm1", "vm2"])[0] for _ in range(3)] == ["vm1", "vm2", "vm1"]
    jobrota.log_job_execution("a.sas", "A", "SUCCESS")
    assert len(jobrota.fetch_unprocessed_updates()) == 1
    assert query(place, "vm_selections", "select count(*) from t") == [(3,)]
    assert "Selected VM: vm2" in capsys.readouterr().out


def test_the_environment_is_enough(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    if place.kind == "s3":
        monkeypatch.setenv("AWS_ENDPOINT_URL", place.url)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", S3_SECRET)
        root = place.root.replace("s3://", "s3a://")
    else:
        monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY)
        root = f"az://ledgers/{place.root.rsplit('/', 1)[1]}"
    jobrota.JobLedger(root).log_job_execution("a.sas", "A", "SUCCESS")
    assert ledger_at(place).executions().num_rows == 1


def test_certificates_are_verified(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    with s3_server((certificate, key)) as url:
        place = Place("s3", "s3://ledgers/x", s3_options(url))
        error = refused(place, jobrota.errors.NetworkError, 25)
        assert not error.retryable
        assert "certificate" in str(error)
        # A process that trusts it gets through to the server, which has no such bucket.
        place.environment["SSL_CERT_FILE"] = str(certificate)
        (said,) = in_processes(
            place,
            1,
            """
            try:
                jobrota.JobLedger(root, storage_options=options).log_job_execution("a.sas", "A", "SUCCESS")
            except jobrota.errors.StorageError as error:
                print(error)
            """,
        )
        assert "'ledgers'" in said


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that no client trusts, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "server.crt", folder / "server.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = serialization.PrivateFormat.PKCS8
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, pem, serialization.NoEncryption()))
    return files


# ------------------------------------------------------------------------------------ writes of unknown outcome


class Meddler(http.server.BaseHTTPRequestHandler):
    """Passes requests on, and does something to the answers of those that create version 1 of a log."""

    protocol_version = "HTTP/1.1"
    upstream = ""
    mode = ""
    meddled: list[str]
    release: threading.Event

    def pass_on(self) -> None:
        """Passes one request on."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        connection = http.client.HTTPConnection(self.upstream, timeout=30)
        try:
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if self.command == "PUT" and self.path.endswith("_delta_log/00000000000000000001.json") and not self.meddled:
            self.meddled.append(f"{answer.status}")
            self.close_connection = True
            if self.mode == "silence":
                self.release.wait(30)
            if self.mode != "error":
                return
            answer.status, content = 503, b"<Error><Code>SlowDown</Code></Error>"
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                self.send_header(name, value)
        if self.command == "HEAD":
            self.send_header("content-length", answer.getheader("content-length") or "0")
        else:
            self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = pass_on  # noqa: N815

    def log_message(self, *arguments: Any) -> None:
        """Logs nothing."""


@pytest.mark.parametrize("mode", ["hang up", "silence", "error"])
def test_commit_with_lost_response_is_found(place: Place, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    meddled: list[str] = []
    release = threading.Event()
    members = {"upstream": place.url.split("//")[1], "mode": mode, "meddled": meddled, "release": release}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Meddler,), members)) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{proxy.server_port}"
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", url)
        changed = {"aws_endpoint": url} if place.kind == "s3" else {}
        ledger = jobrota.JobLedger(place.root, storage_options={**place.options, **changed, "timeout": "2s"})
        ledger.log_job_execution("a.sas", "A", "SUCCESS")
        ledger.log_job_execution("a.sas", "B", "SUCCESS")
        release.set()
        assert column(ledger.executions(), "job_id") == ["A", "B"]
        proxy.shutdown()
    # It had taken effect: exactly one commit per row, beside the one that created the table.
    assert meddled in (["200"], ["201"])
    monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", place.environment.get("AZURITE_BLOB_STORAGE_URL", ""))
    delta = deltalake.DeltaTable(f"{place.root}/autosys_job_log", storage_options=place.options)
    assert delta.version() == 2
    assert query(place, "autosys_job_log", "select count(*) from t") == [(2,)]


# ------------------------------------------------------------------------------------------------- Spark on S3


SPARK = "Apache-Spark/3.5.3 Delta-Lake/3.2.1"


def commit_as_spark(place: Place, table: str, version: int) -> None:
    info = {"timestamp": 0, "operation": "OPTIMIZE", "operationParameters": {}, "engineInfo": SPARK}
    key = f"{place.root.rsplit('/', 1)[1]}/{table}/_delta_log/{version:020}.json"
    body = json.dumps({"commitInfo": info}).encode()
    if place.kind == "s3":
        aws("s3", place.url).put_object(Bucket="ledgers", Key=key, Body=body)
    else:
        assert azure_put(place.url, f"ledgers/{key}", body) == 201


def test_spark_beside_us_is_fine_on_azure(azure: Place) -> None:
    ledger = ledger_at(azure)
    ledger.log_job_execution("a.sas", "A", "SUCCESS")
    commit_as_spark(azure, "autosys_job_log", 2)
    ledger.log_job_execution("a.sas", "B", "SUCCESS")
    assert column(ledger_at(azure).executions(), "job_id") == ["A", "B"]
    assert query(azure, "autosys_job_log", "select count(*) from t") == [(2,)]


def test_spark_table_on_s3_is_refused(s3: Place) -> None:
    ledger = ledger_at(s3)
    for number in range(3):
        ledger.log_job_execution("a.sas", f"JOB_{number}", "SUCCESS")
    commit_as_spark(s3, "autosys_job_log", 4)
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(jobrota.errors.UnsupportedError, match="Spark engine") as caught:
            ledger_at(s3).executions()
        assert SPARK in str(caught.value)
        assert "abfss://" in str(caught.value)
        assert not caught.value.retryable
    assert time.monotonic() - began < 10


def test_lost_race_against_spark_is_noticed(s3: Place) -> None:
    ledger = ledger_at(s3)
    ledger.log_job_execution("a.sas", "A", "SUCCESS")
    commit_as_spark(s3, "autosys_job_log", 2)
    began = time.monotonic()
    with pytest.raises(jobrota.errors.UnsupportedError, match="Spark engine") as caught:
        ledger.log_job_execution("a.sas", "B", "SUCCESS")
    assert SPARK in str(caught.value)
    assert time.monotonic() - began < 10


# ----------------------------------------------------------------------------------------------------- the doctor


def test_the_doctor_finds_real_stores_atomic_and_leaves_nothing(place: Place) -> None:
    ledger_at(place).log_job_completion("a.sas", "JOB_A", "SUCCESS")
    report = jobrota.doctor(ledger=place.root, storage_options=place.options)
    found = {check.name: check for check in report.checks if check.area == "ledger"}
    for name in ("root", "writable", "atomic", "listing", "latency", "job_notifications"):
        assert found[name].status != "failed", str(report)
    assert found["atomic"].status == "ok"
    assert "exactly one won" in found["atomic"].detail
    assert "cleaned up" not in found
    assert report.ok
    assert SECRETS[place.kind] not in str(report) + json.dumps(report.to_dict())
