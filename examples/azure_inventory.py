"""Takes the VMs from an Azure resource group, and delivers to AutoSys through Run Command on one of them."""

from __future__ import annotations

import tempfile

from jobrota import AutosysUpdater, Inventory, JobLedger, RoundRobinSelector, Sandbox
from jobrota.autosys import RunCommand


def main() -> None:
    """Lists VMs, and delivers one update."""
    with (
        Sandbox(viya=False, vms=3, vms_down=0, azure=True) as sandbox,
        tempfile.TemporaryDirectory() as root,
    ):
        # In Azure itself, leave out `endpoint`; on Databricks, take the credential from a secret scope.
        credential, endpoint = sandbox.azure_credential, sandbox.azure_url
        inventory = Inventory.from_azure(
            sandbox.azure_subscription_id,
            sandbox.azure_resource_group,
            credential=credential,
            endpoint=endpoint,
            max_age=0,
        )
        print("from", inventory.source)
        for vm in inventory.vms:
            print(vm["name"], vm["ip_address"], vm["nic_name"])
        print("left out:", inventory.left_out)

        selector = RoundRobinSelector(inventory, cursor="process", probe=sandbox.probe)
        transport = RunCommand(
            selector,
            subscription_id=sandbox.azure_subscription_id,
            resource_group=sandbox.azure_resource_group,
            credential=credential,
            endpoint=endpoint,
        )
        ledger = JobLedger(root)
        ledger.log_job_completion("ae.sas", "STUDY.AE", "SUCCESS")
        report = AutosysUpdater(ledger, transport).run()
        attempts = ledger.deliveries()
        vms = [vm for vm in attempts["vm"].to_pylist() if vm]
        print(f"{report.delivered} delivered through {', '.join(vms)}")


if __name__ == "__main__":
    main()
