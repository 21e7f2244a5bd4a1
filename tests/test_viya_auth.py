"""Logging in to SAS Viya in each supported way, against the sandbox and over TLS."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import jobrota
from jobrota import cli
from jobrota.viya import Credentials, ViyaSession
from tls_proxy import Authority

VARIABLES = [
    "SAS_BASE_URL", "SAS_SERVICES_ENDPOINT", "SAS_ACCESS_TOKEN", "SAS_REFRESH_TOKEN", "SAS_TOKEN_FILE", "SAS_CLIENT_ID",
    "SAS_CLIENT_SECRET", "SAS_USERNAME", "SAS_PASSWORD", "SAS_CLI_PROFILE", "SAS_CLI_CONFIG", "JOBROTA_CA_BUNDLE",
    "VIYA_ACCESS_TOKEN", "VIYA_BASE_URL", "SAS_VIYA_URL", "JOBROTA_BASE_URL", "VIYA_CLIENT_ID", "VIYA_USERNAME",
    "VIYA_PASSWORD", "VIYA_ENDPOINT", "REQUESTS_CA_BUNDLE",
]  # fmt: skip
# The sandbox's own, as its sources have them.
USER, PASSWORD = "sandbox", "sandbox-password"
CLIENT, SECRET = "sandbox.client", "sandbox-secret"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def viya() -> Iterator[jobrota.Sandbox]:
    with jobrota.Sandbox(autosys=False, vms=0, vms_down=0, speed=300) as sandbox:
        yield sandbox


def whoami(sandbox: jobrota.Sandbox, tokens: Any) -> dict[str, Any]:
    return ViyaSession(sandbox.viya_url, tokens=tokens).whoami()


def response(sandbox: jobrota.Sandbox) -> dict[str, Any]:
    """A SASLogon response of one's own."""
    form = f"grant_type=password&username={USER}&password={PASSWORD}&client_id=sas.cli&client_secret="
    with urllib.request.urlopen(f"{sandbox.viya_url}/SASLogon/oauth/token", data=form.encode(), timeout=30) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def test_every_kind_of_login_works_and_shows_no_secret(viya: jobrota.Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps(response(viya)))
    tokens = response(viya)
    for credentials in (
        str(path),
        path,
        Credentials.file(path),
        Credentials.password(USER, PASSWORD),
        Credentials.client_credentials(CLIENT, SECRET),
        Credentials.tokens(tokens),
        Credentials.tokens(lambda: tokens["access_token"]),
        tokens,
        lambda: tokens,
    ):
        session = ViyaSession(viya.viya_url, tokens=credentials)
        assert session.whoami()["user"] == USER
        text = repr(session) + repr(credentials if isinstance(credentials, Credentials) else "")
        for secret in (PASSWORD, SECRET, tokens["access_token"], tokens["refresh_token"]):
            assert secret not in text


def test_the_environment_is_looked_at_in_order(viya: jobrota.Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(jobrota.NotFoundError, match="SAS_ACCESS_TOKEN"):
        whoami(viya, Credentials.environment())
    with pytest.raises(jobrota.NotFoundError, match=r"data/sas_tokens\.json"):
        whoami(viya, None)
    monkeypatch.setenv("SAS_USERNAME", USER)
    monkeypatch.setenv("SAS_PASSWORD", PASSWORD)
    assert whoami(viya, None)["origin"] == "SAS_USERNAME"
    monkeypatch.setenv("SAS_ACCESS_TOKEN", response(viya)["access_token"])
    assert whoami(viya, Credentials.environment())["origin"] == "SAS_ACCESS_TOKEN"


def cli_profile(home: Path, sandbox: jobrota.Sandbox, expiry: str) -> Path:
    folder = home / ".sas"
    folder.mkdir(exist_ok=True)
    pair = response(sandbox)
    entry = {"access-token": pair["access_token"], "refresh-token": pair["refresh_token"], "expiry": expiry, "mine": 1}
    path = folder / "credentials.json"
    path.write_text(json.dumps({"Default": entry, "other": {"access-token": "x", "expiry": expiry}}))
    (folder / "config.json").write_text(json.dumps({"Default": {"sas-endpoint": sandbox.viya_url}}))
    return path


def test_a_profiles_tokens_go_to_its_own_server_only(
    viya: jobrota.Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli_profile(tmp_path, viya, "2099-09-11T12:00:00Z")
    config = tmp_path / ".sas" / "config.json"
    config.write_text(json.dumps({"Default": {"sas-endpoint": "viya.example.com"}}))
    before = viya.viya_requests()
    for tokens in (Credentials.cli(), Credentials.environment(), None):
        with pytest.raises(jobrota.InvalidInputError, match=r"https://viya\.example\.com.*are not sent to http://127"):
            whoami(viya, tokens)
    assert viya.viya_requests() == before
    # Tokens of this server do not need the profile.
    monkeypatch.setenv("SAS_ACCESS_TOKEN", response(viya)["access_token"])
    assert whoami(viya, None)["user"] == USER
    monkeypatch.delenv("SAS_ACCESS_TOKEN")
    # The same server in other words.
    config.write_text(json.dumps({"Default": {"sas-endpoint": f" {viya.viya_url.upper()}/SASLogon/ "}}))
    assert whoami(viya, Credentials.cli())["user"] == USER


def test_expired_token_file_falls_back_to_environment(
    viya: jobrota.Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "data" / "sas_tokens.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"access_token": "opaque-and-over", "expires_at": "2001-01-01T00:00:00+00:00"}))
    with pytest.raises(jobrota.AuthenticationError, match=r"sas_tokens\.json"):
        whoami(viya, None)
    monkeypatch.setenv("SAS_ACCESS_TOKEN", response(viya)["access_token"])
    assert whoami(viya, None)["origin"] == "SAS_ACCESS_TOKEN"
    assert "opaque-and-over" not in caplog.text
    assert "has expired and cannot be renewed" in caplog.text
    # A named file is not replaced by the environment.
    with pytest.raises(jobrota.AuthenticationError, match=r"sas_tokens\.json"):
        whoami(viya, path)


@pytest.mark.parametrize("expiry", ["2099-09-11T12:00:00Z", "2099-09-11T12:00:00.123456+02:00"])
def test_the_files_of_the_command_line_are_read(
    viya: jobrota.Sandbox, tmp_path: Path, expiry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cli_profile(tmp_path, viya, expiry)
    assert whoami(viya, Credentials.cli())["user"] == USER
    assert str(path) in whoami(viya, None)["origin"]
    with pytest.raises(jobrota.NotFoundError, match=r"no profile ['\"]nobody['\"]"):
        whoami(viya, Credentials.cli("nobody"))
    # Its configuration says which server is meant, where nothing else does.
    assert ViyaSession().whoami()["user"] == USER
    cli.main(["viya", "whoami"])
    monkeypatch.setenv("VIYA_ENDPOINT", "http://127.0.0.1:1")
    assert "127.0.0.1:1" in repr(ViyaSession())
    monkeypatch.setenv("SAS_CLI_PROFILE", "nobody")
    monkeypatch.delenv("VIYA_ENDPOINT")
    with pytest.raises(jobrota.InvalidInputError, match="SAS_SERVICES_ENDPOINT"):
        ViyaSession()


def test_cli_login_is_renewed_in_place(tmp_path: Path) -> None:
    with jobrota.Sandbox(autosys=False, vms=0, vms_down=0, token_lifetime=1) as sandbox:
        path = cli_profile(tmp_path, sandbox, "2001-01-01T00:00:00Z")
        before = json.loads(path.read_text())
        # The token's own claim says when it ends.
        session = ViyaSession(sandbox.viya_url, tokens=Credentials.cli())
        seen = {session.token()}
        while len(seen) < 2:
            seen.add(session.token())
        after = json.loads(path.read_text())
        assert after["Default"]["access-token"] != before["Default"]["access-token"]
        assert after["Default"]["refresh-token"] != before["Default"]["refresh-token"]
        assert (after["Default"]["mine"], after["other"]) == (1, before["other"])
        assert datetime.fromisoformat(after["Default"]["expiry"].replace("Z", "+00:00")).tzinfo == timezone.utc
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_renewed_tokens_are_given_to_the_persist_hook() -> None:
    kept: list[dict[str, Any]] = []
    with jobrota.Sandbox(autosys=False, vms=0, vms_down=0, token_lifetime=1) as sandbox:
        session = ViyaSession(sandbox.viya_url, tokens=Credentials.tokens(response(sandbox), kept.append))
        seen = {session.token()}
        while len(seen) < 3:
            seen.add(session.token())
    assert len(kept) >= 2
    assert kept[-1]["access_token"] in seen
    assert len({pair["refresh_token"] for pair in kept}) == len(kept)


def test_failing_callable_shows_no_token(viya: jobrota.Sandbox) -> None:
    def broken() -> str:
        raise ValueError("the vault is sealed")

    with pytest.raises(jobrota.AuthenticationError, match="the vault is sealed"):
        whoami(viya, broken)
    with pytest.raises(jobrota.InvalidInputError, match="returned a int"):
        whoami(viya, lambda: 3)
    for tokens in (3, {"no": "token"}):
        with pytest.raises(jobrota.InvalidInputError):
            ViyaSession(viya.viya_url, tokens=tokens)  # type: ignore[arg-type]


def test_several_processes_spend_a_refresh_token_once(tmp_path: Path) -> None:
    with jobrota.Sandbox(autosys=False, vms=0, vms_down=0, token_lifetime=1) as sandbox:
        code = (
            "import sys, jobrota.viya as v\n"
            "session = v.ViyaSession(sys.argv[1], tokens=sys.argv[2])\n"
            "seen = set()\n"
            "while len(seen) < 3:\n"
            "    seen.add(session.token())\n"
            "print(session.whoami()['user'])\n"
        )
        arguments = [sys.executable, "-c", code, sandbox.viya_url, str(sandbox.tokens)]
        children = [subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
        for child in children:
            out, err = child.communicate(timeout=90)
            assert (child.returncode, out.strip()) == (0, USER.encode()), err.decode()
        assert stat.S_IMODE(sandbox.tokens.stat().st_mode) == 0o600


def test_login_writes_a_file_that_only_its_owner_reads(
    viya: jobrota.Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAS_PASSWORD", PASSWORD)
    path = tmp_path / "new" / "tokens.json"
    cli.main(["viya", "login", "--base-url", viya.viya_url, "--password", "--user", USER, "-o", str(path)])
    pair = json.loads(path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    out, err = capsys.readouterr()
    assert not any(secret in out + err for secret in (PASSWORD, pair["access_token"], pair["refresh_token"]))
    cli.main(["viya", "whoami", "--base-url", viya.viya_url, "--tokens", str(path), "--json"])
    assert json.loads(capsys.readouterr().out)["user"] == USER
    cli.main(["viya", "token", "--base-url", viya.viya_url, "--tokens", str(path), "--header"])
    assert capsys.readouterr().out.strip() == f"Authorization: Bearer {pair['access_token']}"


def test_login_with_a_code_answers_its_challenge(
    viya: jobrota.Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tokens.json"

    def browse(_: object = "") -> str:
        url = re.search(r"http://\S+", capsys.readouterr().out)
        assert url is not None
        with urllib.request.urlopen(url[0], timeout=30) as page:
            shown = re.search(r'id="code">(\w+)<', page.read().decode())
        assert shown is not None
        return shown[1]

    monkeypatch.setattr("builtins.input", browse)
    cli.main(["viya", "login", "--base-url", viya.viya_url, "-o", str(path)])
    assert whoami(viya, path)["user"] == USER
    # Another login's code does not answer this one's challenge.
    session = ViyaSession(viya.viya_url)
    one, other = session.begin_login(), session.begin_login()
    with urllib.request.urlopen(one.url, timeout=30) as page:
        code = re.search(r'id="code">(\w+)<', page.read().decode())
    assert code is not None
    with pytest.raises(jobrota.AuthenticationError, match="refused the authorization code"):
        other.finish(code[1], tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    monkeypatch.setattr("builtins.input", lambda _="": "")
    with pytest.raises(SystemExit) as ended:
        cli.main(["viya", "login", "--base-url", viya.viya_url, "-o", str(tmp_path / "y.json")])
    assert ended.value.code == 2


@pytest.fixture
def tls(viya: jobrota.Sandbox, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    authority = Authority(tmp_path, "trustedcerts")
    with authority.serve(viya.viya_url) as url:
        yield url, authority.file


def test_a_certificate_is_checked_unless_told_otherwise(
    viya: jobrota.Sandbox, tls: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, bundle = tls
    tokens = response(viya)
    with pytest.raises(jobrota.NetworkError):
        ViyaSession(url, tokens=tokens).whoami()
    assert ViyaSession(url, tokens=tokens, ca_bundle=bundle).whoami()["user"] == USER
    monkeypatch.setenv("JOBROTA_CA_BUNDLE", str(bundle))
    assert ViyaSession(url, tokens=tokens).whoami()["user"] == USER
    monkeypatch.delenv("JOBROTA_CA_BUNDLE")
    other = Authority(tmp_path, "other").file
    with pytest.raises(jobrota.NetworkError):
        ViyaSession(url, tokens=tokens, ca_bundle=other).whoami()
    with pytest.warns(UserWarning, match="not checked"):
        session = ViyaSession(url, tokens=tokens, verify=False)
    assert session.whoami()["user"] == USER
    # A neighbour's variable does not turn it off.
    monkeypatch.setenv("SSLREQCERT", "no")
    monkeypatch.setenv("PYVIYA_INSECURE", "true")
    with pytest.raises(jobrota.NetworkError):
        ViyaSession(url, tokens=tokens).whoami()


def test_a_bundle_or_proxy_that_is_none_is_named(viya: jobrota.Sandbox, tmp_path: Path) -> None:
    tokens = response(viya)
    for text, expected in ((None, "cannot be read"), ("nonsense", "no certificate|not a PEM")):
        bundle = tmp_path / "bundle.pem"
        if text is not None:
            bundle.write_text(text)
        with pytest.raises((jobrota.InvalidInputError, jobrota.NotFoundError), match=expected):
            ViyaSession(viya.viya_url, tokens=tokens, ca_bundle=bundle).whoami()
    with pytest.raises(jobrota.InvalidInputError) as caught:
        ViyaSession(viya.viya_url, tokens=tokens, proxy="http://me:secret@[nonsense").whoami()
    assert "secret" not in str(caught.value)


def test_a_run_survives_tokens_that_expire_all_the_time(tmp_path: Path) -> None:
    with jobrota.Sandbox(autosys=False, vms=0, vms_down=0, speed=60, token_lifetime=1) as sandbox:
        result = jobrota.ViyaComparisonRunner(
            sandbox.viya_url, tokens=sandbox.tokens, jobs=sandbox.jobs, limit_jobs=4, mode="all", results_dir=tmp_path
        ).run(progress=False)
        assert result.failed_jobs == 0
        renewals = sandbox.viya_requests()["POST /SASLogon/oauth/token"]
        assert renewals >= 2
    assert "refresh_token" not in os.environ


def test_tokens_are_renewed_by_given_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with jobrota.Sandbox(autosys=False, vms=0, vms_down=0, token_lifetime=1) as sandbox:
        path = tmp_path / "tokens.json"
        begun = ViyaSession(sandbox.viya_url).begin_login("vscode")
        with urllib.request.urlopen(begun.url, timeout=30) as page:
            code = re.search(r'id="code">(\w+)<', page.read().decode())
        assert code is not None
        begun.finish(code[1], path)
        assert json.loads(path.read_text())["client_id"] == "vscode"
        session = ViyaSession(sandbox.viya_url, tokens=path)
        seen = {session.token()}
        while len(seen) < 3:
            seen.add(session.token())
        # Another client cannot renew them.
        monkeypatch.setenv("SAS_CLIENT_ID", "sas.cli")
        other = ViyaSession(sandbox.viya_url, tokens=path)

        def until_refused() -> None:
            while True:
                other.token()

        with pytest.raises(jobrota.AuthenticationError, match="SAS_CLIENT_ID"):
            until_refused()


def test_reused_credentials_keep_renewed_tokens() -> None:
    with jobrota.Sandbox(autosys=False, vms=0, vms_down=0, token_lifetime=1) as sandbox:
        kept: list[dict[str, Any]] = []
        credentials = Credentials.tokens(response(sandbox), persist=kept.append)
        for _ in range(3):
            time.sleep(1.1)
            # Each refresh token of the sandbox works once.
            assert whoami(sandbox, credentials)["user"] == USER
        assert len({each["refresh_token"] for each in kept}) == len(kept) >= 2


def test_a_hook_that_fails_is_called_again() -> None:
    with jobrota.Sandbox(autosys=False, vms=0, vms_down=0, token_lifetime=1) as sandbox:
        kept: list[dict[str, Any]] = []

        def keep(renewed: dict[str, Any]) -> None:
            kept.append(renewed)
            if len(kept) == 1:
                raise OSError("the secret scope is away: TOPSECRET")

        session = ViyaSession(sandbox.viya_url, tokens=Credentials.tokens(response(sandbox), persist=keep))
        time.sleep(1.1)
        with pytest.raises(jobrota.StorageError, match="OSError") as failed:
            session.token()
        assert failed.value.retryable
        assert "TOPSECRET" not in str(failed.value)
        assert session.token() == kept[1]["access_token"]
        assert kept[0] == kept[1]


def test_what_errors_show_is_no_secret(tmp_path: Path) -> None:
    token = "ey" + "J" * 30 + "." + "a" * 30 + "." + "b" * 30
    for call in (
        lambda: Credentials.client_credentials("id", b"TOPSECRET"),  # type: ignore[arg-type]
        lambda: Credentials.password("me", b"TOPSECRET"),  # type: ignore[arg-type]
        lambda: Credentials.tokens({"access_token": "x"}, client_id="a", client_secret=b"TOPSECRET"),  # type: ignore[arg-type]
        lambda: ViyaSession("http://127.0.0.1:1", proxy=b"http://u:TOPSECRET@p"),  # type: ignore[arg-type]
        lambda: ViyaSession("http://127.0.0.1:1", tokens=token),
    ):
        with pytest.raises(jobrota.InvalidInputError) as refused:
            call()
        assert "TOPSECRET" not in str(refused.value)
        assert token not in str(refused.value)


def test_tokens_are_renewed_by_the_client_that_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(base64.b64decode(self.headers["Authorization"].split()[1]).decode().split(":")[0])
            self.answer({"access_token": "new", "refresh_token": "r2", "expires_in": 3600})

        def do_GET(self) -> None:
            self.answer({"id": "me"})

        def answer(self, value: dict[str, Any]) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        pair = {
            "access_token": "old",
            "refresh_token": "r1",
            "client_id": "vscode",
            "expires_at": "2001-01-01 00:00:00",
        }
        path = tmp_path / "tokens.json"
        path.write_text(json.dumps(pair))
        assert ViyaSession(url, tokens=pair).token() == "new"
        monkeypatch.setenv("SAS_TOKEN_FILE", str(path))
        assert ViyaSession(url, tokens=Credentials.environment()).token() == "new"
        path.write_text(json.dumps(pair))
        assert ViyaSession(url, tokens=path).token() == "new"
        assert seen == ["vscode"] * 3
        # A client id in the arguments is used.
        assert ViyaSession(url, tokens=Credentials.tokens(pair, client_id="mine")).token() == "new"
        assert seen[-1] == "mine"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("token", ["8b2d4c1e0f9a4b3c8d7e6f5a-r", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzYXMifQ.c2ln"])
def test_a_token_in_the_place_of_a_path_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(jobrota.InvalidInputError, match=r"tokens is a token itself.*Credentials\.tokens") as refused:
        ViyaSession("https://viya.example.com", tokens=token)
    assert token not in f"{refused.value!r}"
    # A file of such a name is a file.
    Path("a-file-with-a-long-name").write_text('{"access_token": "hidden"}')
    assert "a-file-with-a-long-name" in repr(ViyaSession("https://viya.example.com", tokens="a-file-with-a-long-name"))
