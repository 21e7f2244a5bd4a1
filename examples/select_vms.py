"""Selects VMs in turn, takes one out of rotation, and limits how often each is in use."""

from __future__ import annotations

import tempfile

from jobrota import NoReachableVmError, RoundRobinSelector, Sandbox


def main() -> None:
    """Shows selections of two selectors that share one cursor."""
    with Sandbox(viya=False, autosys=False, vms=4, vms_down=1) as sandbox, tempfile.TemporaryDirectory() as root:
        # Two selectors, as two jobs would have them. The cursor is a Delta table below `root`, so they share the turns.
        morning = RoundRobinSelector(sandbox.inventory, cursor=root, probe=sandbox.probe, max_in_flight=1)
        evening = RoundRobinSelector(sandbox.inventory, cursor=root, probe=sandbox.probe, max_in_flight=1)

        print("does not answer:", ", ".join(sandbox.vms_down))
        for selector in (morning, evening, morning):
            with selector.select() as selection:  # in use until the block ends
                print("selected", selection.vm, selection.ip_address, selection.nic_name)

        morning.drain("vm2")
        for _ in range(2):
            with evening.select() as selection:
                print("vm2 is drained; selected", selection.vm)
        morning.restore("vm2")

        # Each VM may be in use once at a time. A fourth selection fails while three VMs are in use.
        held = [morning.select() for _ in range(3)]
        try:
            evening.select()
        except NoReachableVmError as error:
            print(f"all in use (retryable: {error.retryable})")
        for selection in held:
            selection.release()

        turns = morning.distribution()
        for vm, count in zip(turns["vm"].to_pylist(), turns["selections"].to_pylist(), strict=True):
            print(f"{vm}: {count} turns")


if __name__ == "__main__":
    main()
