"""`sasctl`, SAS's own client for Python, works with the sandbox unchanged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

import jobrota

pytestmark = pytest.mark.filterwarnings("default")

REQUEST = "application/vnd.sas.job.execution.job.request+json"
JOB = "application/vnd.sas.job.execution.job+json"


@pytest.fixture(scope="module")
def server() -> Iterator[jobrota.Sandbox]:
    with jobrota.Sandbox(autosys=False, vms=0, vms_down=0, speed=200) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def session(server: jobrota.Sandbox) -> Iterator[Any]:
    from sasctl import Session

    parts = urlsplit(server.viya_url)
    with Session(parts.hostname, "sandbox", "sandbox-password", protocol="http", port=parts.port) as session:
        yield session


def test_it_logs_in_and_lists_with_its_own_paging(session: Any) -> None:
    from sasctl.core import get

    names = [item.name for item in get("/jobDefinitions/definitions", params={"limit": 10})]
    assert len(names) == 54
    assert len(set(names)) == 54
    contexts = get("/compute/contexts", params={"filter": "startsWith(name,'Autoscaling')"})
    found = contexts if isinstance(contexts, list) else [contexts]
    assert [context.name for context in found] == ["Autoscaling POC Context"]


def test_it_creates_follows_and_deletes_a_job(session: Any) -> None:
    from sasctl.core import delete, get, get_link, post, request_link

    filtered = get("/jobDefinitions/definitions", params={"filter": "eq(name,'cm_pooled')"}, format="json")
    (definition,) = filtered["items"]
    job = post(
        "/jobExecution/jobs",
        json={
            "name": "fromsasctl",
            "jobDefinitionUri": f"/jobDefinitions/definitions/{definition['id']}",
            "arguments": {"_contextName": "SAS Job Execution compute context"},
        },
        headers={"Content-Type": REQUEST, "Accept": JOB},
    )
    assert job.state == "running"
    # It follows the links that the job itself has.
    assert get_link(job, "state")["uri"] == f"/jobExecution/jobs/{job.id}/state"
    until = time.monotonic() + 60
    while request_link(job, "state", format="content") == b"running" and time.monotonic() < until:
        pass
    done = request_link(job, "self")
    assert (done.state, done.jobRequest["name"]) == ("completed", "fromsasctl")
    assert done.elapsedTime > 0
    assert done.results["COMPUTE_CONTEXT"] == "SAS Job Execution compute context"
    lines = get(done.logLocation + "/content", format="json")["items"]
    assert {"type", "line"} <= set(lines[0])
    delete(f"/jobExecution/jobs/{job.id}")
    assert get(f"/jobExecution/jobs/{job.id}") is None


def test_a_token_of_ours_is_one_of_theirs(server: jobrota.Sandbox) -> None:
    from sasctl import Session
    from sasctl.core import get

    from jobrota.viya import ViyaSession

    token = ViyaSession(server.viya_url, tokens=server.tokens).token()
    parts = urlsplit(server.viya_url)
    with Session(parts.hostname, token=token, protocol="http", port=parts.port):
        assert get("/identities/users/@currentUser").id == "sandbox"
    with (
        pytest.raises(Exception, match="Authentication failed"),
        Session(parts.hostname, "sandbox", "wrong", protocol="http", port=parts.port),
    ):
        get("/jobExecution/jobs")
