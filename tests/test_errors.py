"""Each error is a JobrotaError that says whether a retry can help, and survives pickling."""

from __future__ import annotations

import pickle

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
