"""`jobrota viya discover` and `contexts`, against the sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import jobrota
from jobrota import cli


@pytest.fixture(scope="module")
def viya() -> Iterator[jobrota.Sandbox]:
    with jobrota.Sandbox(autosys=False, vms=0, vms_down=0, speed=300) as sandbox:
        yield sandbox


def run(sandbox: jobrota.Sandbox, *arguments: str) -> None:
    action, *rest = arguments
    cli.main(["viya", action, *rest, "--base-url", sandbox.viya_url, "--tokens", str(sandbox.tokens)])


def test_discovered_jobs_are_those_of_the_example(viya: jobrota.Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "config" / "job_configs.json"
    run(viya, "discover", "*_pooled", "-o", str(path))
    found, example = json.loads(path.read_text()), json.loads(viya.jobs.read_text())
    # The server lists ten at a time if it is not asked for more: all pages were read.
    assert found["metadata"] | {"generated_at": ""} == {
        "generated_at": "", "discovery_pattern": "*_pooled", "total_jobs_found": 54, "enabled_jobs": 54,
        "disabled_jobs": 0,
    }  # fmt: skip
    keys = ["definition_id", "name", "description", "arguments", "context_name", "enabled"]
    assert all(list(job) == keys for job in found["jobs"])
    ids = {job["definition_id"] for job in example["jobs"] if job["name"].endswith("_pooled")}
    assert {job["definition_id"] for job in found["jobs"]} == ids
    result = jobrota.ViyaComparisonRunner(
        viya.viya_url, tokens=viya.tokens, jobs=path, limit_jobs=2, async_only=True, results_dir=tmp_path
    ).run(progress=False)
    assert result.failed_jobs == 0


def test_what_was_written_by_hand_stays(viya: jobrota.Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "jobs.json"
    run(viya, "discover", "ae_*", "-o", str(path))
    document = json.loads(path.read_text())
    document["jobs"][0] |= {"enabled": False, "arguments": {"N": "3"}, "job_timeout": 60}
    document |= {"settings": {"max_concurrent_jobs": 9, "owner": "risk"}, "note": "of the nightly run"}
    path.write_text(json.dumps(document))
    run(viya, "discover", "a*", "-o", str(path))
    again = json.loads(path.read_text())
    (mine,) = [job for job in again["jobs"] if job["name"] == document["jobs"][0]["name"]]
    assert (mine["enabled"], mine["arguments"], mine["job_timeout"]) == (False, {"N": "3"}, 60)
    assert again["metadata"]["disabled_jobs"] == 1
    assert again["settings"] == {"max_concurrent_jobs": 9, "owner": "risk", "base_url": viya.viya_url}
    assert again["note"] == "of the nightly run"
    run(viya, "discover", "a*", "-o", str(path), "--overwrite", "--disable", "--context-name", "B")
    fresh = json.loads(path.read_text())
    assert {(job["enabled"], job["context_name"]) for job in fresh["jobs"]} == {(False, "B")}


def test_discover_keeps_argument_sets(
    viya: jobrota.Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "jobs.json"
    run(viya, "discover", "ae_pooled", "-o", str(path))
    document = json.loads(path.read_text())
    (entry,) = document["jobs"]
    twice = [entry | {"name": f"ae_{number}", "arguments": {"N": number}} for number in "12"]
    document["jobs"] = [*twice, entry | {"definition_id": "gone", "name": "of_yesterday"}]
    path.write_text(json.dumps(document))
    capsys.readouterr()
    run(viya, "discover", "ae_pooled", "-o", str(path))
    assert json.loads(path.read_text())["jobs"] == twice
    told = capsys.readouterr()
    assert "2 jobs" in told.out
    assert "of_yesterday" in told.err


def test_nothing_is_written_where_nothing_was_found(
    viya: jobrota.Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "jobs.json"
    with pytest.raises(SystemExit) as ended:
        run(viya, "discover", "nothing*", "-o", str(path))
    assert ended.value.code == 1
    assert "nothing was written" in capsys.readouterr().err
    assert not path.exists()
    path.write_text("[]")
    with pytest.raises(SystemExit):
        run(viya, "discover", "a*", "-o", str(path))
    assert path.read_text() == "[]"


def test_contexts_are_shown_side_by_side(viya: jobrota.Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["SAS Job Execution compute context", "Autoscaling POC Context"]
    run(viya, "contexts", *names)
    out = capsys.readouterr().out
    queue = next(line for line in out.splitlines() if line.strip().startswith("queue"))
    assert "default" in queue
    assert queue.rstrip().endswith("differs")
    assert "reuseServerProcesses" in out
    assert "they differ in" in out
    assert "launchContext" in out
    run(viya, "contexts", names[0], names[0])
    assert "no readable setting differs" in capsys.readouterr().out
    run(viya, "contexts", "--json")
    assert {context["name"] for context in json.loads(capsys.readouterr().out)} >= set(names)
    with pytest.raises(SystemExit):
        run(viya, "contexts", "no such context")
    assert "there are:" in capsys.readouterr().err


def test_login_without_a_terminal_says_how_to_give_the_password(
    viya: jobrota.Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def closed(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("getpass.getpass", closed)
    with pytest.raises(SystemExit):
        run(viya, "login", "--password")
    assert "SAS_PASSWORD" in capsys.readouterr().err
