"""The systems of a sandbox in the hands of a test: VMs that it takes down, and what AutoSys got.

>>> import jobrota
>>> with jobrota.Sandbox(viya=False, vms=2, vms_down=0) as sandbox:
...     vms = SandboxVms(sandbox)
...     vms.down("vm1")
...     selector = jobrota.RoundRobinSelector(sandbox.inventory, cursor="process", probe=vms.probe)
...     selector.select().vm
'vm2'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobrota._native import AutosysUpdater, DeliveryReport, JobLedger
from jobrota.autosys import SendEvent

if TYPE_CHECKING:
    from jobrota._native import Sandbox

__all__ = ["SandboxAutosys", "SandboxVms"]


class SandboxVms:
    """The VMs of a sandbox, each of which can be taken down and brought up."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Takes the VMs of `sandbox`. Those that do not answer there are down."""
        self._vms = {vm["name"]: vm for vm in sandbox.inventory.vms}
        self._down = set(sandbox.vms_down)

    @property
    def names(self) -> list[str]:
        """The names of all VMs, in the order of the inventory."""
        return list(self._vms)

    def down(self, *names: str) -> None:
        """From now on, these VMs do not answer.

        Raises:
            LookupError: There is no VM of this name.
        """
        self._down |= self._known(names)

    def up(self, *names: str) -> None:
        """From now on, these VMs answer.

        Raises:
            LookupError: There is no VM of this name.
        """
        self._down -= self._known(names)

    def probe(self, vm: str) -> tuple[str, str]:
        """Returns the address and the NIC of a VM that is up: a probe for `configure` and `RoundRobinSelector`.

        Raises:
            ConnectionRefusedError: The VM is down.
        """
        if vm in self._known([vm]) & self._down:
            raise ConnectionRefusedError(f"{vm} is down in this test")
        return self._vms[vm]["ip_address"], self._vms[vm]["nic_name"]

    def _known(self, names: Any) -> set[str]:
        unknown = sorted(set(names) - set(self._vms))
        if unknown:
            raise LookupError(f"the sandbox has no VM {', '.join(unknown)}; it has {', '.join(self._vms)}")
        return set(names)


class SandboxAutosys:
    """The AutoSys of a sandbox: which events arrived, and which jobs it refuses."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Takes the AutoSys of `sandbox`."""
        self._sandbox = sandbox
        self.transport = SendEvent(sandbox.sendevent)
        """Sends to it: a transport for `configure` and `AutosysUpdater`."""

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events that arrived, in order: dicts with `job`, `status`, `event` and more."""
        return self._sandbox.autosys_events()

    @property
    def statuses(self) -> list[tuple[str, str]]:
        """The job and the status of each event that arrived, in order."""
        return [(event["job"], event["status"]) for event in self.events]

    def refuse_once(self, *jobs: str) -> None:
        """Refuses the next event of each of these jobs. The cycle after that delivers it."""
        self._sandbox.refuse_once(jobs)

    def deliver(self, ledger: JobLedger, **options: Any) -> DeliveryReport:
        """Runs one delivery cycle of `ledger`.

        Args:
            ledger: The ledger whose rows are sent.
            options: Options of `AutosysUpdater`, such as `mapping="STARTJOB"`.

        Raises:
            JobrotaError: No event can be sent, or the ledger does not exist yet.
        """
        return AutosysUpdater(ledger, self.transport, **options).run()
