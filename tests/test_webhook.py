"""Alerts to a webhook: what is posted, to whom, and that a receiver is in the way of no delivery."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

import jobrota
from jobrota.text import timestamp
from jobrota.webhook import Alerts, Webhook
from receiver import OK, Receiver, receiver
from support import log_aged, run

SECRET = "T0SECRETPATH"
ALERT = {"title": "jobrota: a test", "lines": ["one line"], "problems": [], "facts": {}}


@pytest.fixture
def receiving() -> Iterator[Receiver]:
    with receiver() as state:
        yield state


def webhook(state: Receiver, **options: Any) -> Webhook:
    return Webhook(state.url, **options)


def refuse(file_name: str, job_id: str, status: str) -> bool:
    return False


@pytest.fixture
def stuck(ledger: jobrota.JobLedger) -> jobrota.JobLedger:
    """A ledger with a row that is parked, and one that is pending for two hours."""
    ledger.log_job_completion("bad.sas", "NOT A NAME", "SUCCESS")
    log_aged(ledger, {"OLD": timedelta(hours=2)})
    return ledger


def deliver(ledger: jobrota.JobLedger, *options: object) -> int:
    return run("autosys", "deliver", "--ledger", ledger.root, "--sendevent", "/bin/false", *options)


def test_one_alert_has_all_that_is_wrong_after_a_cycle(stuck: jobrota.JobLedger, receiving: Receiver) -> None:
    assert deliver(stuck, "--webhook", receiving.url) == 1
    (alert,) = receiving.bodies
    assert (alert["source"], alert["event"], alert["version"]) == ("jobrota", "delivery", jobrota.__version__)
    assert alert["problems"] == ["failed", "parked", "oldest_pending"]
    assert alert["title"] == "jobrota delivery: failed, parked, oldest pending"
    assert alert["facts"] | {"oldest_pending": None, "rows": None} == {
        "table": "job_notifications", "ledger": stuck.root, "delivered": 0, "failed": 1, "unknown": 0, "parked": 1,
        "pending": 2, "oldest_pending": None, "rows": None,
    }  # fmt: skip
    oldest = stuck.summary().oldest_pending
    assert oldest is not None
    assert alert["facts"]["oldest_pending"] == timestamp(oldest)
    assert sorted(row["job_id"] for row in alert["facts"]["rows"]) == ["NOT A NAME", "OLD"]
    assert datetime.strptime(alert["at"], "%Y-%m-%dT%H:%M:%SZ")
    assert receiving.headers[0]["content-type"] == "application/json"


def test_a_longer_limit_permits_older_rows(stuck: jobrota.JobLedger, receiving: Receiver) -> None:
    deliver(stuck, "--webhook", receiving.url, "--webhook-pending", "3h")
    assert receiving.bodies[0]["problems"] == ["failed", "parked"]


def test_nothing_is_posted_without_a_problem(ledger: jobrota.JobLedger, receiving: Receiver) -> None:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    arguments = ("autosys", "deliver", "--ledger", ledger.root, "--sendevent", "/bin/true", "--webhook", receiving.url)
    assert run(*arguments) == 0
    assert receiving.bodies == []


def test_nothing_is_posted_for_a_dry_run(stuck: jobrota.JobLedger, receiving: Receiver) -> None:
    assert deliver(stuck, "--webhook", receiving.url, "--dry-run") == 1
    assert receiving.bodies == []


def test_nothing_is_posted_for_a_cycle_beside_another(stuck: jobrota.JobLedger, receiving: Receiver) -> None:
    codes = []

    def send(file_name: str, job_id: str, status: str) -> bool:
        codes.append(deliver(stuck, "--webhook", receiving.url))
        return True

    jobrota.AutosysUpdater(stuck, send).run()
    assert codes == [3]
    assert receiving.bodies == []


def test_a_cycle_that_ends_with_an_error_is_posted(ledger: jobrota.JobLedger, receiving: Receiver) -> None:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    arguments = ("autosys", "deliver", "--ledger", ledger.root, "--sendevent", "/no/such/program")
    assert run(*arguments, "--webhook", receiving.url) == run(*arguments) == 1
    (alert,) = receiving.bodies
    assert (alert["event"], alert["problems"]) == ("error", ["error"])
    assert "/no/such/program" in alert["lines"][0]


def test_while_the_same_is_wrong_it_is_posted_once(stuck: jobrota.JobLedger, receiving: Receiver) -> None:
    updater = jobrota.AutosysUpdater(stuck, refuse, max_attempts=3)
    alerts = Alerts(webhook(receiving), stuck)
    for _ in range(3):  # the third parks the row
        with alerts:
            alerts.cycle(updater.run())
    assert [alert["problems"] for alert in receiving.bodies] == [
        ["failed", "parked", "oldest_pending"],
        ["parked", "oldest_pending"],
    ]


def test_an_alert_that_was_not_taken_is_made_again(stuck: jobrota.JobLedger, receiving: Receiver) -> None:
    receiving.answers = [(400, {}, b"no")]
    updater = jobrota.AutosysUpdater(stuck, refuse)
    alerts = Alerts(webhook(receiving), stuck)
    for _ in range(3):
        with alerts:
            alerts.cycle(updater.run())
    assert len(receiving.bodies) == 2


@pytest.mark.parametrize("way", ["silent", "dripping"])
def test_a_receiver_that_never_ends_its_answer_is_not_waited_for(
    way: str, stuck: jobrota.JobLedger, receiving: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    setattr(receiving, way, True)
    with Alerts(webhook(receiving, timeout=0.05), stuck) as alerts:
        for delivered in range(3):
            stuck.log_job_completion("a.sas", f"A{delivered}", "SUCCESS")
            report = jobrota.AutosysUpdater(stuck, lambda file, job, status: job.startswith("A")).run()
            assert report.delivered == 1
            alerts.cycle(report)
            assert receiving.got.wait(30)
    assert not receiving.released.is_set(), "all of this was over before the receiver answered"
    assert SECRET not in caplog.text


@pytest.mark.parametrize("trouble", ["broken", "refused", "away"])
def test_a_receiver_with_trouble_changes_no_exit_code(
    trouble: str, ledger: jobrota.JobLedger, receiving: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.log_job_completion("bad.sas", "NOT A NAME", "SUCCESS")
    url = receiving.url
    receiving.broken = trouble == "broken"
    receiving.answers = [(404, {}, b"no_service")] if trouble == "refused" else []
    if trouble == "away":
        with socket.create_server(("127.0.0.1", 0)) as closed:
            url = f"http://127.0.0.1:{closed.getsockname()[1]}/{SECRET}"
    assert deliver(ledger, "--fail-on", "parked", "--webhook", url) == deliver(ledger, "--fail-on", "parked") == 1
    assert "an alert was not delivered to 127.0.0.1" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("answers", "taken", "requests"),
    [
        ([(503, {}, b""), (429, {"Retry-After": "0"}, b"rate_limited"), OK], True, 3),
        ([(500, {}, b"")] * 4, False, 3),
        ([(202, {}, b"")], True, 1),
        ([(400, {}, b"invalid_payload")], False, 1),
        ([(410, {}, b"channel_is_archived")], False, 1),
        ([(429, {"Retry-After": "3600"}, b"")], False, 1),
        ([(302, {"Location": "/other"}, b"")], False, 1),
        ([(503, {"Retry-After": "soon"}, b""), OK], True, 2),
    ],
)
def test_attempts_are_bounded(
    answers: list[Any], taken: bool, requests: int, receiving: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiving.answers = list(answers)
    assert webhook(receiving).post(ALERT | {"id": "the same"}) is taken
    assert [body["id"] for body in receiving.bodies] == ["the same"] * requests
    assert ("an alert was not delivered" in caplog.text) is not taken


def test_a_connection_that_breaks_is_tried_again(receiving: Receiver) -> None:
    receiving.broken = True
    assert not webhook(receiving).post(ALERT)
    assert len(receiving.bodies) == 3


def test_certificates_are_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with receiver(context) as state:
        assert not webhook(state).post(ALERT)
        assert "UnknownIssuer" in caplog.text
        assert caplog.text.count("an alert was not delivered") == 1
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert webhook(state).post(ALERT)
        assert len(state.bodies) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/T0SECRETPATH", "ftp://127.0.0.1/T0SECRETPATH", "https://u:T0SECRETPATH@hooks.example.com/",
        "https://hooks.example.com:99999/T0SECRETPATH", "https:///T0SECRETPATH", "https://ho st/T0SECRETPATH",
        "https://[::1/T0SECRETPATH", "T0SECRETPATH", "https://hooks.example.com/T0SECRETPATH\r\nX: y", "http://127.0.0.1.nip.io/T0SECRETPATH",
        "env:T0SECRETPATH", "file:/no/such/file", "", "env:https://hooks.example.com/T0SECRETPATH",
        "file:https://hooks.example.com/T0SECRETPATH",
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_refused_without_being_shown(
    url: str, ledger: jobrota.JobLedger, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(jobrota.InvalidInputError) as refused:
        Webhook(url)
    if url != "env:T0SECRETPATH":
        assert SECRET not in str(refused.value)
    # The rows are delivered all the same.
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    arguments = ("autosys", "deliver", "--ledger", ledger.root, "--sendevent", "/bin/true", f"--webhook={url}")
    assert run(*arguments) == 0
    assert "jobrota: no alert is sent: " in capsys.readouterr().err
    assert ledger.pending_notifications().num_rows == 0


@pytest.mark.parametrize("source", ["variable", "variable of another name", "file", "file in the variable"])
def test_the_url_can_be_in_a_variable_or_a_file(
    source: str, receiving: Receiver, stuck: jobrota.JobLedger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "url"
    path.write_text(f"{receiving.url}\n", encoding="utf-8")
    given = {"variable of another name": ["--webhook", "env:ALERTS"], "file": ["--webhook", f"file:{path}"]}
    monkeypatch.setenv("ALERTS", receiving.url)
    if source.startswith("file in"):
        monkeypatch.setenv("JOBROTA_WEBHOOK", f"file:{path}")
    if source == "variable":
        monkeypatch.setenv("JOBROTA_WEBHOOK", receiving.url)
    assert deliver(stuck, *given.get(source, [])) == 1
    assert len(receiving.bodies) == 1


def test_what_a_receiver_repeats_of_its_url_is_not_shown(receiving: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    hook = webhook(receiving)
    receiving.answers = [(400, {}, f"bad request to {receiving.url} \x1b[31m".encode() + b"x" * 20_000)]
    assert not hook.post(ALERT)
    assert "answered 400 Bad Request: bad request to …" in caplog.text
    assert len(caplog.records[-1].getMessage()) < 400
    for text in (caplog.text, repr(hook), repr(vars(Alerts(hook)))):
        assert SECRET not in text
        assert "\x1b" not in text


def test_own_words_stay_though_the_url_has_them(
    stuck: jobrota.JobLedger, receiving: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARTITION_KEY", "job_notifications")
    deliver(stuck, "--webhook", receiving.url.replace("hooks", "delivery"))
    (alert,) = receiving.bodies
    assert (alert["event"], alert["facts"]["table"]) == ("delivery", "job_notifications")
    assert alert["title"].startswith("jobrota delivery: ")


def test_an_answer_that_drips_ends_at_the_limit(receiving: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiving.dripping = True
    assert not webhook(receiving, timeout=0.3).post(ALERT)
    assert "did not answer an alert within the limit of 0.3 seconds" in caplog.text


def test_alerts_that_a_slow_receiver_loses_are_logged(
    stuck: jobrota.JobLedger, receiving: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobrota.webhook._MOST_WAITING", 1)
    receiving.silent = True
    report = jobrota.AutosysUpdater(stuck, refuse).run()
    alerts = Alerts(webhook(receiving), stuck)
    alerts.cycle(report)
    assert receiving.got.wait(30)  # the thread waits for the answer
    alerts.cycle(report)
    assert "dropped" not in caplog.text
    alerts.cycle(report)
    assert "an alert was dropped: 127.0.0.1 is slower than the cycles" in caplog.text
    alerts.close(0)


def test_twins_wait_for_the_receiver(receiving: Receiver, stuck: jobrota.JobLedger) -> None:
    async def post() -> bool:
        taken = await webhook(receiving).post_async(ALERT)
        alerts = Alerts(webhook(receiving), stuck)
        alerts.cycle(jobrota.AutosysUpdater(stuck, refuse).run())
        await alerts.close_async()
        return taken

    assert asyncio.run(post())
    assert len(receiving.bodies) == 2


@pytest.mark.parametrize("wrong", [True, "soon", -1, [], None, float("nan"), "40000d"])
def test_durations_are_checked(wrong: Any) -> None:
    for argument in ("pending_over", "timeout"):
        with pytest.raises(jobrota.InvalidInputError, match=argument):
            Webhook("https://hooks.example.com/", **{argument: wrong})


def test_texts_are_scrubbed_and_bounded(receiving: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSYS_PASSWORD", "correct horse battery")
    lines = [
        "login with correct horse battery failed",
        "GET https://x.example.com/?sv=1&sig=abc%2Fdef failed",
        "Authorization: Bearer abcdefghijkl",
        "AccountName=a;AccountKey=abcdefghijklmnop==;",
        '{"token": "abc", "name": "b"}',
        "password: hunter2",
        "the token: log in again",
        "https://user:pass@x.example.com/",
        f"posted to {receiving.url}",
        "a\nb\x1b[2Jc",
        "y" * 1000,
    ]
    assert webhook(receiving).post(ALERT | {"lines": lines})
    (body,) = receiving.bodies
    assert body["lines"] == [
        "login with … failed",
        "GET https://x.example.com/?sv=1&sig=… failed",
        "Authorization: Bearer …",
        "AccountName=a;AccountKey=…;",
        '{"token": "…", "name": "b"}',
        "password: …",
        "the token: log in again",
        "https://…x.example.com/",
        "posted to …",
        "a b\N{REPLACEMENT CHARACTER}[2Jc",
        "y" * 299 + "…",
    ]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("hooks.slack.com", "slack"),
        ("prod-01.westeurope.logic.azure.com:443", "teams"),
        ("default1.23.environment.api.powerplatform.com", "teams"),
        ("team.webhook.office.com", "teams"),
        ("hooks.slack.com.example.com", "json"),
        ("alerts.example.com", "json"),
    ],
)
def test_the_host_tells_the_format(host: str, expected: str) -> None:
    assert repr(Webhook(f"https://{host}/{SECRET}")) == f"Webhook(host={host.split(':')[0]!r}, format={expected!r})"


def test_slack_gets_text_without_markup(receiving: Receiver) -> None:
    assert webhook(receiving, format="slack").post(ALERT | {"lines": ["<!channel> *A* & <https://x.example.com|B>"]})
    assert receiving.bodies == [
        {
            "text": "jobrota: a test\n&lt;!channel&gt; *A* &amp; &lt;https://x.example.com|B&gt;",
            "mrkdwn": False,
        }
    ]


def test_teams_gets_an_adaptive_card_whose_details_have_no_markup(receiving: Receiver) -> None:
    assert webhook(receiving, format="teams").post(ALERT | {"lines": ["[a](https://x.example.com)"]})
    (body,) = receiving.bodies
    (attachment,) = body["attachments"]
    assert (body["type"], attachment["contentType"]) == ("message", "application/vnd.microsoft.card.adaptive")
    card = attachment["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert card["body"] == [
        {"type": "TextBlock", "text": "jobrota: a test", "weight": "Bolder", "wrap": True},
        {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": "[a](https://x.example.com)"}]},
    ]


COMPARED = {"autosys": False, "vms": 0, "vms_down": 0, "speed": 1000, "definitions": {"a_pooled": 20, "b_pooled": 30}}


@pytest.mark.parametrize("jobrota_sandbox_options", [COMPARED])
def test_a_comparison_that_ended_is_posted(
    jobrota_sandbox: jobrota.Sandbox, receiving: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("compare", "--base-url", jobrota_sandbox.viya_url, "--tokens", jobrota_sandbox.tokens)
    given = ("--jobs", jobrota_sandbox.jobs, "--mode", "all", "--webhook", receiving.url)
    assert run(*arguments, *given) == 0
    assert run(*arguments, *given, "--async-context", "no such context") == 1
    ended, failed = receiving.bodies
    shown = capsys.readouterr()
    assert (ended["event"], ended["problems"]) == ("comparison", [])
    assert ended["facts"]["failed_jobs"] == 0
    assert ended["facts"]["verdict"] in shown.out
    assert f"result: {ended['facts']['result']}" in shown.out
    assert (failed["event"], "no such context" in failed["lines"][0]) == ("error", True)
    assert run(*arguments, *given, "--limit-jobs", "0") == 0
    shown = capsys.readouterr()
    assert "(not shown)" in shown.out
    assert SECRET not in shown.out + shown.err
    assert len(receiving.bodies) == 2


def test_notebook_functions_post_too(stuck: jobrota.JobLedger, receiving: Receiver) -> None:
    jobrota.configure(ledger=stuck, webhook=receiving.url)
    jobrota.autosys_update_runner(refuse)
    jobrota.configure(webhook=None)
    jobrota.autosys_update_runner(refuse)
    assert len(receiving.bodies) == 1
    asyncio.run(jobrota.autosys_update_runner_async(refuse, webhook=receiving.url))
    assert [alert["problems"] for alert in receiving.bodies] == [["failed", "parked", "oldest_pending"]] * 2


def test_a_ledger_that_cannot_be_read_is_no_reason_to_be_silent(stuck: jobrota.JobLedger, receiving: Receiver) -> None:
    report = jobrota.AutosysUpdater(stuck, refuse).run()
    other = jobrota.JobLedger(Path(stuck.root) / "not-there")
    with Alerts(webhook(receiving), other) as alerts:
        alerts.cycle(report)
    (alert,) = receiving.bodies
    assert alert["problems"] == ["failed", "parked"]
    assert any("could not be read" in line for line in alert["lines"])


def test_the_log_has_the_name_of_the_module(receiving: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiving.answers = [(400, {}, b"no")]
    with caplog.at_level(logging.WARNING, "jobrota"):
        webhook(receiving).post(ALERT)
    assert [record.name for record in caplog.records] == ["jobrota.webhook"]
