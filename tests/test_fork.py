"""A forked child gets a clear error or a rebuilt runtime, never a hang."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PREPARE = """
import os, sys, warnings
import jobrota
warnings.simplefilter("ignore")                      # Python 3.12 and later warn of forking with threads
ledger = jobrota.JobLedger({root!r})
ledger.log_job_completion("a.sas", "PARENT", "SUCCESS")
probe = lambda vm: ("127.0.0.1", "nic")
selector = jobrota.RoundRobinSelector(["vm1"], cursor="process", probe=probe)
selector.select()
pid = os.fork()
if pid:
    _, status = os.waitpid(pid, 0)
    assert ledger.pending_notifications().num_rows >= 1  # the parent goes on working
    sys.exit(os.waitstatus_to_exitcode(status))
"""


def forked(root: Path, child: str) -> None:
    code = PREPARE.format(root=str(root)) + textwrap.dedent(child) + "\nos._exit(0)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_new_objects_work_in_the_child(tmp_path: Path) -> None:
    forked(
        tmp_path / "ledger",
        f"""
        own = jobrota.JobLedger({str(tmp_path / "ledger")!r})
        own.log_job_completion("a.sas", "CHILD", "SUCCESS")
        assert own.pending_notifications().num_rows == 2
        assert jobrota.RoundRobinSelector(["vm1"], cursor="process", probe=probe).select().vm == "vm1"
        """,
    )


@pytest.mark.parametrize("use", ["selector.select()", "ledger.log_job_completion('a.sas', 'CHILD', 'SUCCESS')"])
def test_the_parents_objects_work_or_say_why_not(tmp_path: Path, use: str) -> None:
    forked(
        tmp_path / "ledger",
        f"""
        try:
            {use}
        except jobrota.JobrotaError as error:
            assert "fork" in str(error), error
        """,
    )


def test_the_notebook_functions_go_on_in_the_child(tmp_path: Path) -> None:
    code = f"""
import os, sys, warnings
import jobrota
warnings.simplefilter("ignore")
jobrota.configure(ledger={str(tmp_path / "ledger")!r}, probe=lambda vm: ("127.0.0.1", "nic"))
jobrota.log_job_execution("a.sas", "PARENT", "SUCCESS")
assert jobrota.select_reachable_vm(["vm1", "vm2"])[0] == "vm1"
pid = os.fork()
if pid:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
jobrota.log_job_execution("a.sas", "CHILD", "SUCCESS")
assert len(jobrota.fetch_unprocessed_updates()) == 2
assert jobrota.select_reachable_vm(["vm1", "vm2"])[0] == "vm2"
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_multiprocessing_with_fork(tmp_path: Path) -> None:
    code = f"""
import multiprocessing, warnings
import jobrota
warnings.simplefilter("ignore")

def log(number):
    jobrota.JobLedger({str(tmp_path / "ledger")!r}).log_job_completion("a.sas", f"J{{number}}", "SUCCESS")
    return number

if __name__ == "__main__":
    jobrota.JobLedger({str(tmp_path / "ledger")!r}).log_job_completion("a.sas", "FIRST", "SUCCESS")
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert sorted(pool.map(log, range(12))) == list(range(12))
    assert jobrota.JobLedger({str(tmp_path / "ledger")!r}).pending_notifications().num_rows == 13
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
