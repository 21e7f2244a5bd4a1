"""Each error is a JobrotaError that says whether a retry can help, and survives pickling."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import pytest

import jobrota
from jobrota import errors

CLASSES = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("retryable", [True, False])
def test_errors_survive_pickling(cls: type[jobrota.JobrotaError], retryable: bool) -> None:
    error = cls("it broke; mend it", retryable=retryable)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.retryable) == (cls, "it broke; mend it", retryable)
    assert isinstance(copy, jobrota.JobrotaError)


def test_failures_survive_pickling() -> None:
    error = jobrota.NoReachableVmError("No reachable VM found.", failures={"vm1": "timed out"})
    assert pickle.loads(pickle.dumps(error)).failures == {"vm1": "timed out"}


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (jobrota.InvalidInputError, ValueError),
        (jobrota.NotFoundError, LookupError),
        (jobrota.StorageError, OSError),
        (jobrota.NetworkError, ConnectionError),
        (jobrota.MissingPackageError, ImportError),
    ],
)
def test_errors_are_what_a_python_programmer_expects(cls: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(cls, builtin)


def test_the_native_module_raises_these_classes() -> None:
    def silent(vm: str) -> tuple[None, None]:
        return None, None

    with pytest.raises(jobrota.NoReachableVmError, match=r"^No reachable VM found\.") as caught:
        jobrota.RoundRobinSelector(["vm1", "vm2"], cursor="process", probe=silent).select()
    assert list(caught.value.failures) == ["vm1", "vm2"]
    assert all(caught.value.failures.values())
    assert caught.value.retryable


# Packages are loaded before, as they may be where others cannot read. The limit is for threads of this user only.
LIMITED = """
import os, resource, tempfile
import arro3.core, jobrota
root = tempfile.mkdtemp(dir="/tmp")
os.chown(root, 54329, 54329)
os.setgid(54329)
os.setuid(54329)
os.environ["HOME"] = root
hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
def limit(threads): resource.setrlimit(resource.RLIMIT_NPROC, (threads, hard))
def log(): jobrota.JobLedger(f"{root}/ledger").log_job_execution("a.sas", "A", "SUCCESS")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_without_threads_of_the_system_work_is_refused_or_slower() -> None:
    code = """
limit(3)
try:
    log()
except jobrota.InternalError as error:
    assert error.retryable, error
else:
    raise AssertionError("three threads are too few")
limit(1000)
log()
log()
ledger = jobrota.JobLedger(f"{root}/ledger")
limit(1)
assert ledger.executions().num_rows == 2
"""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED + code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
