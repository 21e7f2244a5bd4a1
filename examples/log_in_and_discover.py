"""Logs in to SAS Viya, and lists job definitions and compute contexts."""

from __future__ import annotations

import tempfile
from pathlib import Path

from jobrota import Sandbox
from jobrota.viya import Credentials, ViyaSession


def main() -> None:
    """Logs in with a password, and uses the token file that this writes."""
    with Sandbox(autosys=False, vms=0, vms_down=0) as sandbox, tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder, "sas_tokens.json")
        # The sandbox's only user. `jobrota viya login` also offers a login with a code from the browser.
        credentials = Credentials.password("sandbox", "sandbox-password")
        ViyaSession(sandbox.viya_url, tokens=credentials).save_login(tokens)
        print(f"{tokens.name} has mode {tokens.stat().st_mode & 0o777:04o}")

        # The session renews the tokens in the file before they expire.
        session = ViyaSession(sandbox.viya_url, tokens=tokens)
        identity = session.whoami()
        print(f"user {identity['user']}, renewable: {identity['renewable']}")

        # `jobrota viya discover` writes these into a job configuration file.
        definitions = session.definitions("ae_*")
        print("definitions:", [definition["name"] for definition in definitions])
        for context in session.contexts():
            print(f"context {context['name']!r}, queue {context['queue']}")


if __name__ == "__main__":
    main()
