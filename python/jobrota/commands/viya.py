"""`jobrota viya`: log in to SAS Viya, and see what is there."""

from __future__ import annotations

import argparse
import getpass
import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jobrota._native import Credentials, ViyaSession, settings_lookup
from jobrota.commands.autosys import print_table
from jobrota.errors import InvalidInputError

__all__ = ["TEXT", "add_arguments", "add_connection", "base_url", "connection"]

TEXT = "log in to SAS Viya, and see its job definitions and compute contexts"
URL_VARIABLES = ("SAS_BASE_URL", "SAS_SERVICES_ENDPOINT", "VIYA_ENDPOINT", "VIYA_BASE_URL", "SAS_VIYA_URL")
TOKEN_FILE = "data/sas_tokens.json"


def base_url(given: str | None) -> str | None:
    """The server: the argument, the setting `base_url`, else the variables that SAS's own tools and others use."""
    if given or (setting := settings_lookup("base_url")):
        return given or setting
    for name in URL_VARIABLES:
        if os.environ.get(name):
            return os.environ[name]
    return None


def add_connection(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup, positive_number: Callable[[str], float]
) -> None:
    """Adds what every command needs that talks to a server."""
    names = ", ".join(("JOBROTA_BASE_URL", *URL_VARIABLES))
    parser.add_argument("--base-url", metavar="URL", help=f"SAS Viya (default: {names}, or jobrota.toml)")
    parser.add_argument(
        "--tokens",
        metavar="FILE",
        help=f"token file (default: {TOKEN_FILE}, else what the environment has, else the profile of sas-viya)",
    )
    parser.add_argument("--ca-bundle", metavar="FILE", help="PEM file with certificates to trust beside the system's")
    parser.add_argument("--proxy", metavar="URL", help="proxy for all calls (default: HTTPS_PROXY and NO_PROXY)")
    parser.add_argument("--insecure", action="store_true", help="do not check the server's certificate")
    parser.add_argument(
        "--connect-timeout", type=positive_number, default=10.0, metavar="S", help="seconds to open a connection"
    )
    parser.add_argument(
        "--read-timeout", type=positive_number, default=60.0, metavar="S", help="longest silence within an answer"
    )


def connection(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keywords of `ViyaSession` and `ViyaComparisonRunner` that `add_connection` asks for."""
    return {
        "tokens": arguments.tokens,
        "ca_bundle": arguments.ca_bundle,
        "proxy": arguments.proxy,
        "verify": not arguments.insecure,
        "connect_timeout": arguments.connect_timeout,
        "read_timeout": arguments.read_timeout,
    }


def required_url(arguments: argparse.Namespace) -> str:
    """The server, or an error that names all the ways to say it."""
    url = base_url(arguments.base_url)
    if not url:
        raise InvalidInputError(
            "no SAS Viya server is given: use --base-url URL, or set JOBROTA_BASE_URL (or SAS_BASE_URL), "
            'or write base_url = "https://…" into jobrota.toml'
        )
    return url


def add_arguments(command: Callable[..., Any], actions: Any, positive_number: Callable[[str], float]) -> None:
    """Adds the actions of `jobrota viya`."""
    login = command(actions, "login", "log in and write a token file, mode 0600", _login)
    how = login.add_mutually_exclusive_group()
    how.add_argument("--password", action="store_true", help="with user and password, which is asked for")
    how.add_argument("--client-credentials", action="store_true", help="with the OAuth client's own id and secret")
    login.add_argument("--user", metavar="NAME", help="for --password (default: SAS_USERNAME, else you)")
    login.add_argument("--client-id", metavar="ID", help="OAuth client (default: SAS_CLIENT_ID, else SAS's own)")
    login.add_argument("--output", "-o", default=TOKEN_FILE, metavar="FILE", help="the token file")

    token = command(actions, "token", "print a valid access token, for scripts", _token)
    token.add_argument("--header", action="store_true", help="print it as an HTTP header")
    whoami = command(actions, "whoami", "show whose token it is, and until when it is good", _whoami)

    discover = command(actions, "discover", "write job configurations from the job definitions there are", _discover)
    discover.add_argument("pattern", metavar="PATTERN", help='names of definitions, such as "*_pooled"')
    discover.add_argument("--output", "-o", default="config/job_configs.json", metavar="FILE", help="the file")
    discover.add_argument("--context-name", default="Autoscaling POC Context", metavar="NAME", help="of each entry")
    discover.add_argument("--disable", action="store_true", help="new entries are not enabled")
    discover.add_argument("--overwrite", action="store_true", help="keep nothing of a file that is there")

    contexts = command(actions, "contexts", "show compute contexts side by side", _contexts)
    contexts.add_argument("names", nargs="*", metavar="NAME", help="only these")
    for action in (whoami, contexts):
        action.add_argument("--json", action="store_true", help="print JSON")
    for action in (login, token, whoami, discover, contexts):
        add_connection(action, positive_number)


def _session(arguments: argparse.Namespace) -> ViyaSession:
    return ViyaSession(required_url(arguments), **connection(arguments))


def _login(arguments: argparse.Namespace) -> int:
    url, options = required_url(arguments), connection(arguments)
    client_id = arguments.client_id or os.environ.get("SAS_CLIENT_ID")
    secret = os.environ.get("SAS_CLIENT_SECRET")
    if arguments.password:
        user = arguments.user or os.environ.get("SAS_USERNAME") or getpass.getuser()
        password = os.environ.get("SAS_PASSWORD") or getpass.getpass(f"Password of {user}: ")
        options["tokens"] = Credentials.password(user, password, client_id=client_id, client_secret=secret)
    elif arguments.client_credentials:
        if not client_id or not secret:
            raise InvalidInputError(
                "client credentials need a client and its secret: set SAS_CLIENT_ID and SAS_CLIENT_SECRET"
            )
        options["tokens"] = Credentials.client_credentials(client_id, secret)
    else:
        return _login_with_code(ViyaSession(url, **options), client_id, secret, arguments.output)
    ViyaSession(url, **options).save_login(arguments.output)
    print(f"logged in: the tokens are in {arguments.output}")
    return 0


def _login_with_code(session: ViyaSession, client_id: str | None, secret: str | None, output: str) -> int:
    begun = session.begin_login(client_id, secret)
    print(f"Open this address, log in, and paste the code that is shown there:\n\n  {begun.url}\n")
    try:
        code = input("Code: ").strip()
    except EOFError:
        code = ""
    if not code:
        raise InvalidInputError("no code was given: nothing was written")
    begun.finish(code, output)
    print(f"logged in: the tokens are in {output}")
    return 0


def _token(arguments: argparse.Namespace) -> int:
    token = _session(arguments).token()
    print(f"Authorization: Bearer {token}" if arguments.header else token)
    return 0


def _whoami(arguments: argparse.Namespace) -> int:
    identity = _session(arguments).whoami()
    expires = identity["expires"]
    identity["expires"] = expires.isoformat(timespec="seconds") if isinstance(expires, datetime) else None
    if arguments.json:
        print(json.dumps(identity))
        return 0
    name = f" ({identity['name']})" if identity["name"] else ""
    print(f"user     {identity['user'] or 'not known'}{name}")
    print(f"expires  {identity['expires'] or 'not known'}{', and can be renewed' if identity['renewable'] else ''}")
    print(f"from     {identity['origin']}")
    print(f"scopes   {' '.join(identity['scopes']) or 'not known'}")
    return 0


def _discover(arguments: argparse.Namespace) -> int:
    url = required_url(arguments)
    found = ViyaSession(url, **connection(arguments)).definitions(arguments.pattern)
    if not found:
        raise InvalidInputError(
            f"no job definition matches {arguments.pattern!r}: nothing was written "
            "(quote the pattern, or the shell takes it)"
        )
    path = Path(arguments.output)
    document = _configs(path, {} if arguments.overwrite else _known(path), found, arguments, url)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
    metadata = document["metadata"]
    print(f"{metadata['total_jobs_found']} jobs, {metadata['enabled_jobs']} of them enabled: {path}")
    return 0


def _known(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a file that is there, by definition."""
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["jobs"]
        return {entry["definition_id"]: entry for entry in entries}
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            f"{path} is there and is no job configuration file: name another one, or give --overwrite"
        ) from error


def _configs(
    path: Path,
    known: Mapping[str, dict[str, Any]],
    found: Sequence[Mapping[str, Any]],
    arguments: argparse.Namespace,
    url: str,
) -> dict[str, Any]:
    jobs = []
    for definition in found:
        name = definition["name"]
        entry = {
            "definition_id": definition["id"],
            "name": name,
            "description": definition["description"] or f"Auto-discovered job: {name}",
            "arguments": {},
            "context_name": arguments.context_name,
            "enabled": not arguments.disable,
        }
        # What somebody wrote there by hand stays.
        jobs.append(entry | known.get(definition["id"], {}) | {"name": name})
    enabled = sum(bool(job["enabled"]) for job in jobs)
    return {
        "jobs": jobs,
        "settings": {"max_concurrent_jobs": 3, "base_url": url},
        "metadata": {
            "generated_at": datetime.now().isoformat(),
            "discovery_pattern": arguments.pattern,
            "total_jobs_found": len(jobs),
            "enabled_jobs": enabled,
            "disabled_jobs": len(jobs) - enabled,
        },
    }


def _contexts(arguments: argparse.Namespace) -> int:
    found = _session(arguments).contexts(arguments.names or None)
    if arguments.json:
        print(json.dumps(found))
        return 0
    if not found:
        print("this user sees no compute context")
        return 0
    facts = [{"queue": context["queue"], **(context["attributes"] or {})} for context in found]
    names = ["queue", *sorted({name for fact in facts for name in fact} - {"queue"})]
    rows = []
    for name in names:
        values = ["" if fact.get(name) is None else str(fact[name]) for fact in facts]
        differs = "differs" if len(set(values)) > 1 else ""
        rows.append((name, *values, differs))
    print_table(("", *(context["name"] for context in found), ""), rows)
    if len(found) > 1:
        count = sum(bool(row[-1]) for row in rows)
        print(f"they differ in {count} of {len(rows)}" if count else "they do not differ in anything that can be read")
    return 0
