"""AutoSys's web services from Python, over real HTTP and TLS."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import jobrota
from jobrota.autosys import WebServices
from support import column, rows
from tls_proxy import Authority

HOSTILE = ["a'b\"c.sas", "$(touch x) `id`.sas", "ünï\\codé; rm -rf /.sas", '{"jobName": "OTHER"}.sas', "-J OTHER.sas"]


@pytest.fixture
def autosys() -> Iterator[jobrota.Sandbox]:
    with jobrota.Sandbox(viya=False, vms=0, vms_down=0, refuse_first=["REFUSED"]) as sandbox:
        yield sandbox


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def url(autosys: jobrota.Sandbox, authority: Authority) -> Iterator[str]:
    """The web services over TLS."""
    with authority.serve(autosys.autosys_url) as url:
        yield url


def services(url: str, autosys: jobrota.Sandbox, authority: Authority, **more: Any) -> WebServices:
    user, password = autosys.autosys_credentials
    given: dict[str, Any] = {"user": user, "password": password, "ca_file": authority.file, **more}
    return WebServices(url, **given)


def outcomes(ledger: jobrota.JobLedger) -> dict[str, str]:
    """The last word about each job."""
    attempts = ledger.deliveries()
    return dict(zip(column(attempts, "job_id"), column(attempts, "outcome"), strict=True))


def test_events_over_tls_have_outcomes(
    ledger: jobrota.JobLedger, url: str, autosys: jobrota.Sandbox, authority: Authority
) -> None:
    for job in ("A", "B", "REFUSED", "two words"):
        ledger.log_job_completion("a.sas", job, "SUCCESS")
    assert url.startswith("https://")
    updater = jobrota.AutosysUpdater(ledger, services(url, autosys, authority))
    report = updater.run()
    assert (report.delivered, report.failed, report.parked, report.pending) == (2, 1, 1, 2)
    assert outcomes(ledger) == {"A": "delivered", "B": "delivered", "REFUSED": "failed", "two words": "parked"}
    assert updater.run().delivered == 1
    events = autosys.autosys_events()
    assert sorted(event["job"] for event in events) == ["A", "B", "REFUSED"]
    assert {(event["via"], event["event"]) for event in events} == {("web", "CHANGE_STATUS")}
    assert set(column(ledger.deliveries(), "transport")) == {"web_services"}


def test_hostile_names_arrive_byte_for_byte(
    ledger: jobrota.JobLedger, url: str, autosys: jobrota.Sandbox, authority: Authority
) -> None:
    for number, name in enumerate(HOSTILE):
        ledger.log_job_completion(name, f"J{number}", "FAILURE")
    transport = services(url, autosys, authority, comment="of {file_name}")
    assert jobrota.AutosysUpdater(ledger, transport).run().delivered == len(HOSTILE)
    comments = {event["job"]: event["comment"] for event in autosys.autosys_events()}
    assert comments == {f"J{number}": f"of {name}" for number, name in enumerate(HOSTILE)}


def test_foreign_certificate_is_refused(
    ledger: jobrota.JobLedger, tmp_path: Path, autosys: jobrota.Sandbox, authority: Authority
) -> None:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    stranger = Authority(tmp_path, "stranger")
    with stranger.serve(autosys.autosys_url) as url, authority.serve(autosys.autosys_url, "elsewhere.example") as other:
        for address in (url, other):
            report = jobrota.AutosysUpdater(ledger, services(address, autosys, authority)).run()
            assert (report.failed, report.unknown) == (1, 0), "it was never sent"
            assert "certificate" in report.failures[0]["detail"]
    assert autosys.autosys_events() == []


def test_wrong_credentials_do_not_park(
    ledger: jobrota.JobLedger,
    url: str,
    autosys: jobrota.Sandbox,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "pass-word-in-clear"
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    for transport in (
        services(url, autosys, authority, password=secret),
        services(url, autosys, authority, user=None, password=None, token=secret),
    ):
        report = jobrota.AutosysUpdater(ledger, transport).run()
        assert (report.failed, report.parked) == (1, 0)
        assert "401" in report.failures[0]["detail"]
        shown = [
            repr(transport),
            repr(report),
            report._repr_html_(),
            str(report.to_dict()),
            str(rows(ledger.deliveries())),
        ]
        assert secret not in "".join([*shown, *(record.getMessage() for record in caplog.records)])
    for wrong in ({"password": f"{secret}\n"}, {"user": None}, {"user": "a:b"}, {"password": secret.encode()}):
        with pytest.raises(jobrota.InvalidInputError) as caught:
            services(url, autosys, authority, **wrong)
        assert secret not in str(caught.value)


class Answering(BaseHTTPRequestHandler):
    """Takes events, and answers as the job's name says."""

    seen: list[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        type(self).seen.append(self.path)
        status = next((status for status in (200, 201, 404, 429, 502) if f"S{status}" in body), None)
        if status is None:
            self.close_connection = True  # without an answer
            return
        self.send_response(status)
        self.send_header("content-length", "0")
        self.send_header("retry-after", "60")
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def answering() -> Iterator[str]:
    Answering.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_ambiguous_responses_are_unknown(ledger: jobrota.JobLedger, answering: str, authority: Authority) -> None:
    jobs = {
        "S201": "delivered",
        "S200": "unknown",
        "S404": "failed",
        "S429": "failed",
        "S502": "unknown",
        "LOST": "unknown",
    }
    for job in jobs:
        ledger.log_job_completion("a.sas", job, "SUCCESS")
    with authority.serve(answering) as url:
        report = jobrota.AutosysUpdater(ledger, WebServices(url, ca_file=authority.file)).run()
    assert outcomes(ledger) == jobs
    assert (report.delivered, report.failed, report.unknown) == (1, 2, 3)
    details = {failure["job_id"]: failure["detail"] for failure in report.failures}
    assert "Retry-After: 60" in details["S429"]
    assert len(Answering.seen) == len(jobs), "nothing is sent twice"


def test_the_status_is_read_back(
    ledger: jobrota.JobLedger, url: str, autosys: jobrota.Sandbox, authority: Authority
) -> None:
    ledger.log_job_completion("a.sas", "JOB.A#1", "FAILURE")
    assert jobrota.AutosysUpdater(ledger, services(url, autosys, authority), confirm=True).run().delivered == 1
    assert "AutoSys shows FAILURE" in str(rows(ledger.deliveries()))
    # No status is reported here: the event is taken and cannot be confirmed.
    ledger.log_job_completion("a.sas", "JOB.A#1", "SUCCESS")
    elsewhere = services(url, autosys, authority, status_path="nothing/{job}")
    report = jobrota.AutosysUpdater(ledger, elsewhere, confirm="200ms").run()
    assert (report.delivered, report.unknown) == (0, 1)
    # The status before it could not be read either, so that SUCCESS does not prove that the event arrived.
    assert jobrota.AutosysUpdater(ledger, services(url, autosys, authority)).run().delivered == 1
    assert [event["status"] for event in autosys.autosys_events()] == ["FAILURE", "SUCCESS", "SUCCESS"]


def test_prefix_event_names_and_statuses_can_be_others(ledger: jobrota.JobLedger, answering: str) -> None:
    ledger.log_job_completion("a.sas", "S200", "SUCCESS")
    transport = WebServices(
        f"{answering}/ae", prefix="api/event", events={"CHANGE_STATUS": "change-status"}, accepted=[200, 201]
    )
    assert jobrota.AutosysUpdater(ledger, transport).run().delivered == 1
    assert Answering.seen == ["/ae/api/event/change-status"]


def test_plain_http_needs_allow_http() -> None:
    with pytest.raises(jobrota.InvalidInputError, match="allow_http=True"):
        WebServices("http://autosys.example.com")
    assert (
        repr(WebServices("http://autosys.example.com", allow_http=True)) == 'WebServices("http://autosys.example.com")'
    )
    with pytest.raises(jobrota.InvalidInputError, match="unknown event"):
        WebServices("https://autosys.example.com", events={"KILLJOB": "kill-job"})
