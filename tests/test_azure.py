"""Inventories from Azure Resource Manager, against the sandbox's Azure over real HTTP."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import jobrota


@pytest.fixture
def azure() -> Iterator[jobrota.Sandbox]:
    with jobrota.Sandbox(viya=False, autosys=False, vms=4, vms_down=1, azure=True) as sandbox:
        yield sandbox


def listed(azure: jobrota.Sandbox, **arguments: Any) -> jobrota.Inventory:
    given: dict[str, Any] = {"credential": azure.azure_credential, "resource_group": azure.azure_resource_group}
    given |= {"endpoint": azure.azure_url, **arguments}
    return jobrota.Inventory.from_azure(given.pop("subscription_id", azure.azure_subscription_id), **given)


def test_selector_rotates_over_resource_group(azure: jobrota.Sandbox) -> None:
    inventory = listed(azure)
    assert inventory == azure.inventory
    selector = jobrota.RoundRobinSelector(inventory, cursor="process", probe=azure.probe)
    assert [tuple(selector.select()) for _ in range(4)] == [
        ("vm1", "127.0.0.11", "vm1-nic"),
        ("vm2", "127.0.0.12", "vm2-nic"),
        ("vm4", "127.0.0.14", "vm4-nic"),
        ("vm1", "127.0.0.11", "vm1-nic"),
    ]
    assert inventory.left_out == {"vm-deallocated": "is deallocated"}


def test_each_sandbox_is_a_subscription_of_its_own(azure: jobrota.Sandbox) -> None:
    # Else a listing of an earlier sandbox is found in the cache when a later one gets the same port.
    with jobrota.Sandbox(viya=False, autosys=False, vms=1, vms_down=0, azure=True) as other:
        assert other.azure_subscription_id != azure.azure_subscription_id
        with pytest.raises(jobrota.NotFoundError):
            listed(azure, subscription_id=other.azure_subscription_id)


def test_the_inventory_says_where_it_came_from(azure: jobrota.Sandbox) -> None:
    inventory = listed(azure)
    assert inventory.source == f"Azure subscription {azure.azure_subscription_id}, resource group sandbox-vms"
    assert inventory.listed_at is not None
    assert inventory.age is not None
    assert abs(datetime.now(timezone.utc) - inventory.listed_at) < timedelta(seconds=60)
    assert 0 <= inventory.age < 60
    assert not inventory.remembered
    assert "from Azure subscription" in repr(inventory)
    assert "1 left out" in repr(inventory)
    html = inventory._repr_html_()
    assert all(part in html for part in ("vm1-nic", "vm-deallocated", "is deallocated", "ago"))
    own = jobrota.Inventory(["vm1"])
    assert (own.source, own.listed_at, own.age, own.remembered, own.left_out) == (None, None, None, False, {})
    assert repr(own) == "Inventory(['vm1'])"


def test_names_pools_and_power_states(azure: jobrota.Sandbox) -> None:
    assert listed(azure, vm_names=["VM4", "vm2"]).names == ["vm4", "vm2"]
    for pool in ("sandbox-lb/by-nic", "sandbox-lb/by-address"):
        assert listed(azure, backend_pool=pool) == azure.inventory
    assert listed(azure, power_state="any").names == ["vm-deallocated", "vm1", "vm2", "vm3", "vm4"]
    assert listed(azure, resource_group=None).names == ["vm1", "vm2", "vm3", "vm4"]
    with pytest.raises(jobrota.NotFoundError, match="no VM vm8, vm9 in"):
        listed(azure, vm_names=["vm9", "vm1", "vm8"][::-1])
    for vm in azure.inventory.names:
        azure.set_azure_power(vm, "stopped")
    with pytest.raises(jobrota.NoReachableVmError, match=r"^No reachable VM found\.") as caught:
        listed(azure, max_age=0)
    assert caught.value.failures["vm2"] == "is stopped"
    assert caught.value.failures["vm-deallocated"] == "is deallocated"
    assert caught.value.retryable


def test_the_environment_has_the_credentials(azure: jobrota.Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    # The proxy does not exist: requests to this machine and to a metadata service do not use it.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure.azure_url)
    assert listed(azure, credential=None, max_age=0).names == azure.inventory.names
    monkeypatch.delenv("AZURE_POD_IDENTITY_AUTHORITY_HOST")
    for name, value in azure.azure_credential.items():
        monkeypatch.setenv(f"AZURE_{name.upper()}", value)
    assert listed(azure, credential=None, max_age=0).names == azure.inventory.names
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "not-the-secret")
    with pytest.raises(jobrota.AuthenticationError, match="AADSTS7000215") as caught:
        listed(azure, credential=None, max_age=0, max_stale=0)
    assert "not-the-secret" not in str(caught.value)


def test_no_credentials_at_all_say_what_was_tried(azure: jobrota.Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    # A port of the sandbox that is closed again: no server answers.
    with jobrota.Sandbox(viya=False, autosys=False, vms=0, vms_down=0, azure=True) as other:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", other.azure_url)
    began = time.monotonic()
    with pytest.raises(jobrota.AuthenticationError) as caught:
        listed(azure, credential=None)
    assert time.monotonic() - began < 5
    text = str(caught.value)
    assert all(part in text for part in ("AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE", "managed identity"))


def later(seconds: float) -> datetime:
    return datetime.now(timezone.utc) + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "answer",
    [
        lambda token: token,
        lambda token: (token, time.time() + 600),
        lambda token: (token, int(time.time()) + 600),
        lambda token: (token, later(600)),
        lambda token: (token, None),
        lambda token: SimpleNamespace(token=token, expires_on=int(time.time()) + 600),
    ],
)
def test_tokens_of_the_caller(azure: jobrota.Sandbox, answer: Callable[[str], Any]) -> None:
    assert listed(azure, credential=lambda: answer(azure.azure_token())).names == azure.inventory.names


def test_an_object_as_those_of_azure_identity(azure: jobrota.Sandbox) -> None:
    class Credential:
        def __init__(self) -> None:
            self.scopes: list[str] = []

        def get_token(self, *scopes: str) -> SimpleNamespace:
            self.scopes.extend(scopes)
            return SimpleNamespace(token=azure.azure_token(), expires_on=int(time.time()) + 600)

    credential = Credential()
    assert listed(azure, credential=credential).names == azure.inventory.names
    assert credential.scopes == ["https://management.azure.com/.default"]


def test_credentials_that_cannot_be_used(azure: jobrota.Sandbox) -> None:
    async def asynchronous() -> str:
        return "x"

    secret = "very-secret-text"
    complete = azure.azure_credential
    wrong: list[Any] = [
        secret,
        5,
        {},
        {"tenant_id": "t", "client_secret": secret},
        complete | {"password": secret},
        complete | {"client_secret": 5},
        complete | {"client_secret": " "},
        complete | {"authority_host": "http://login.example"},
        lambda: 5,
        lambda: (secret, "tomorrow"),
        lambda: (secret, 1, 2),
        lambda: "",
        lambda: f"{secret} with blanks",
        asynchronous,
    ]
    for credential in wrong:
        with pytest.raises(jobrota.InvalidInputError) as caught:
            listed(azure, credential=credential)
        assert secret not in str(caught.value), caught.value
    assert azure.azure_requests() == []

    def fails() -> str:
        raise RuntimeError("the vault is closed")

    for call, expected in [(fails, "the vault is closed"), (lambda: (secret, 1), "expired"), (lambda: secret, "401")]:
        with pytest.raises(jobrota.AuthenticationError, match=expected) as refused:
            listed(azure, credential=call)
        assert secret not in str(refused.value)


def test_ctrl_c_in_a_credential_goes_to_the_caller(azure: jobrota.Sandbox) -> None:
    def interrupted() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        listed(azure, credential=interrupted)


def test_arguments_that_cannot_be_right(azure: jobrota.Sandbox) -> None:
    wrong: list[dict[str, Any]] = [
        {"resource_group": "a/b"},
        {"vm_names": []},
        {"vm_names": "vm1"},
        {"vm_names": ["vm1"], "backend_pool": "lb/pool"},
        {"backend_pool": "pool"},
        {"endpoint": "http://10.0.0.1"},
        {"endpoint": "mars"},
        {"power_state": "stopped"},
        {"max_age": -1},
        {"timeout": 0},
    ]
    for arguments in wrong:
        with pytest.raises(jobrota.InvalidInputError):
            listed(azure, **arguments)
    assert azure.azure_requests() == []


def test_processes_share_fresh_listing(azure: jobrota.Sandbox) -> None:
    first = listed(azure)
    asked = len(azure.azure_requests())
    assert listed(azure).remembered
    code = (
        "import json, sys, jobrota; given = json.load(sys.stdin); "
        "inventory = jobrota.Inventory.from_azure(**given); print(inventory.remembered, *inventory.names)"
    )
    given = {
        "subscription_id": azure.azure_subscription_id,
        "resource_group": azure.azure_resource_group,
        "credential": azure.azure_credential,
        "endpoint": azure.azure_url,
    }
    child = [sys.executable, "-c", code]
    out = subprocess.run(child, input=json.dumps(given), capture_output=True, text=True, timeout=60, check=True)
    assert out.stdout.split() == ["True", *first.names]
    assert len(azure.azure_requests()) == asked
    (file,) = Path(os.environ["XDG_STATE_HOME"], "jobrota", "azure").glob("*.json")
    assert file.stat().st_mode & 0o777 == 0o600
    assert azure.azure_credential["client_secret"] not in file.read_text()
    assert not listed(azure, max_age=0).remembered


def test_stale_listing_replaces_azure_with_warning() -> None:
    with jobrota.Sandbox(viya=False, autosys=False, vms=2, vms_down=0, azure=True) as azure:
        given: dict[str, Any] = {"credential": azure.azure_credential, "endpoint": azure.azure_url, "timeout": 20}
        subscription, names = azure.azure_subscription_id, listed(azure, resource_group=None).names
    with pytest.warns(UserWarning, match=r"seconds? ago are taken instead"):
        stale = jobrota.Inventory.from_azure(subscription, max_age=0, **given)
    assert stale.names == names
    assert stale.remembered
    assert "warning" in stale._repr_html_()

    async def in_a_coroutine() -> jobrota.Inventory:
        return await jobrota.Inventory.from_azure_async(subscription, max_age=0, **given)

    with pytest.warns(UserWarning, match="are taken instead"):
        assert asyncio.run(in_a_coroutine()).names == names
    with pytest.raises(jobrota.NetworkError) as caught:
        jobrota.Inventory.from_azure(subscription, max_age=0, max_stale=0, **given)
    assert caught.value.retryable


def test_throttling_is_waited_out() -> None:
    with jobrota.Sandbox(viya=False, autosys=False, vms=2, vms_down=0, azure=True, azure_throttle_first=1) as azure:
        began = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert listed(azure).names == ["vm1", "vm2"]
        assert time.monotonic() - began >= 1


def test_the_twin_is_a_coroutine(azure: jobrota.Sandbox) -> None:
    async def work() -> list[jobrota.Inventory]:
        given: dict[str, Any] = {"credential": azure.azure_credential, "endpoint": azure.azure_url}
        twins = [jobrota.Inventory.from_azure_async(azure.azure_subscription_id, **given) for _ in range(3)]
        assert all(inspect.iscoroutine(twin) for twin in twins)
        assert azure.azure_requests() == []
        return await asyncio.gather(*twins)

    assert asyncio.run(work()) == [azure.inventory] * 3


def test_a_sandbox_without_azure_says_so() -> None:
    with (
        jobrota.Sandbox(viya=False, autosys=False, vms=1, vms_down=0) as sandbox,
        pytest.raises(jobrota.InvalidInputError, match="azure=True"),
    ):
        sandbox.azure_url  # noqa: B018
