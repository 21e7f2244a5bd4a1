"""`jobrota viya`: logs in to SAS Viya, and lists job definitions and compute contexts."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jobrota._native import Credentials, ViyaSession, viya_base_url
from jobrota.commands.durations import positive_duration
from jobrota.commands.output import add_json, add_output, narrated, print_json
from jobrota.commands.tables import counted, print_table
from jobrota.errors import InvalidInputError, NotFoundError, StorageError
from jobrota.files import replace
from jobrota.text import printable, timestamp

__all__ = ["TEXT", "add_arguments", "add_connection", "connection"]

TEXT = "log in to SAS Viya, and list its job definitions and compute contexts"
TOKEN_FILE = "data/sas_tokens.json"


def add_connection(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds the arguments of each command that sends requests to a server."""
    parser.add_argument(
        "--base-url",
        metavar="URL",
        help="SAS Viya (default: JOBROTA_BASE_URL or jobrota.toml, else SAS_BASE_URL, SAS_SERVICES_ENDPOINT and "
        "similar variables, else the profile of sas-viya)",
    )
    parser.add_argument(
        "--tokens",
        metavar="FILE",
        help=f"token file (default: {TOKEN_FILE}, else the environment, else the profile of sas-viya)",
    )
    parser.add_argument(
        "--ca-bundle", metavar="FILE", help="PEM file with certificates to trust in addition to the system's"
    )
    parser.add_argument("--proxy", metavar="URL", help="proxy for all calls (default: HTTPS_PROXY and NO_PROXY)")
    parser.add_argument("--insecure", action="store_true", help="do not verify the server's certificate")
    parser.add_argument(
        "--connect-timeout", type=positive_duration, default=10.0, metavar="TIME", help="time to open a connection"
    )
    parser.add_argument(
        "--read-timeout",
        type=positive_duration,
        default=60.0,
        metavar="TIME",
        help="longest pause within an answer",
    )


def connection(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the keyword arguments of `ViyaSession` and `ViyaComparisonRunner` that `add_connection` added."""
    if arguments.ca_bundle and not Path(arguments.ca_bundle).expanduser().exists():
        raise InvalidInputError(f"the CA bundle {arguments.ca_bundle} does not exist: name a PEM file (--ca-bundle)")
    return {
        "tokens": arguments.tokens,
        "ca_bundle": arguments.ca_bundle,
        "proxy": arguments.proxy,
        "verify": not arguments.insecure,
        "connect_timeout": arguments.connect_timeout,
        "read_timeout": arguments.read_timeout,
    }


def add_arguments(command: Callable[..., Any], actions: Any) -> None:
    """Adds the actions of `jobrota viya`."""
    login = command(actions, "login", "log in and write a token file, mode 0600", _login)
    how = login.add_mutually_exclusive_group()
    how.add_argument("--password", action="store_true", help="with user and password, which is asked for")
    how.add_argument("--client-credentials", action="store_true", help="with the OAuth client's own id and secret")
    login.add_argument("--user", metavar="NAME", help="for --password (default: SAS_USERNAME, else you)")
    login.add_argument("--client-id", metavar="ID", help="OAuth client (default: SAS_CLIENT_ID, else SAS's own)")
    login.add_argument("--output", "-o", default=TOKEN_FILE, metavar="FILE", help="the token file")

    token = command(actions, "token", "print a valid access token, for scripts", _token)
    form = token.add_mutually_exclusive_group()
    form.add_argument("--header", action="store_true", help="print it as an HTTP header")
    add_json(form)
    whoami = command(actions, "whoami", "show the user and the expiry of the token", _whoami)

    discover = command(
        actions, "discover", "write a job configuration file from the job definitions of the server", _discover
    )
    discover.add_argument("pattern", metavar="PATTERN", help='names of definitions, such as "*_pooled"')
    discover.add_argument("--output", "-o", default="config/job_configs.json", metavar="FILE", help="the file to write")
    discover.add_argument(
        "--context-name", default="Autoscaling POC Context", metavar="NAME", help="context of each entry"
    )
    discover.add_argument("--disable", action="store_true", help="do not enable new entries")
    discover.add_argument("--overwrite", action="store_true", help="do not keep manual changes in an existing file")

    contexts = command(actions, "contexts", "compare compute contexts", _contexts)
    contexts.add_argument("names", nargs="*", metavar="NAME", help="only these contexts")
    add_json(login)  # without --quiet, because it shows an address and asks
    for action in (whoami, discover):
        add_output(action)
    add_output(contexts, "one JSON list")
    for action in (login, token, whoami, discover, contexts):
        add_connection(action)


def _session(arguments: argparse.Namespace) -> ViyaSession:
    return ViyaSession(arguments.base_url, **connection(arguments))


def _login(arguments: argparse.Namespace) -> int:
    url, options = arguments.base_url, connection(arguments)
    client_id = arguments.client_id or os.environ.get("SAS_CLIENT_ID")
    secret = os.environ.get("SAS_CLIENT_SECRET")
    if arguments.password:
        user = arguments.user or os.environ.get("SAS_USERNAME") or getpass.getuser()
        password = os.environ.get("SAS_PASSWORD") or _ask(getpass.getpass, f"Password of {user}: ")
        if not password:
            raise InvalidInputError("no password was given: enter it in a terminal, or set SAS_PASSWORD")
        options["tokens"] = Credentials.password(user, password, client_id=client_id, client_secret=secret)
    elif arguments.client_credentials:
        if not client_id or not secret:
            raise InvalidInputError(
                "client credentials need a client and its secret: set SAS_CLIENT_ID and SAS_CLIENT_SECRET"
            )
        options["tokens"] = Credentials.client_credentials(client_id, secret)
    else:
        # The address and the question are for the user, whatever the output is for.
        with narrated(arguments):
            _login_with_code(ViyaSession(url, **options), client_id, secret, arguments.output)
        return _show_login(arguments)
    ViyaSession(url, **options).save_login(arguments.output)
    return _show_login(arguments)


def _ask(read: Callable[[str], str], prompt: str) -> str:
    try:
        return read(prompt)
    except EOFError:  # standard input is closed
        return ""


def _login_with_code(session: ViyaSession, client_id: str | None, secret: str | None, output: str) -> None:
    login = session.begin_login(client_id, secret)
    print(f"Open this address, log in, and paste the code that is shown there:\n\n  {login.url}\n")
    code = _ask(input, "Code: ").strip()
    if not code:
        raise InvalidInputError("no code was given: nothing was written")
    login.finish(code, output)


def _show_login(arguments: argparse.Namespace) -> int:
    if arguments.json:
        print_json({"tokens": arguments.output})
    else:
        print(f"logged in: the tokens are in {arguments.output}")
    return 0


def _token(arguments: argparse.Namespace) -> int:
    token = _session(arguments).token()
    if arguments.json:
        print_json({"access_token": token})
    else:
        print(f"Authorization: Bearer {token}" if arguments.header else token)
    return 0


def _whoami(arguments: argparse.Namespace) -> int:
    identity = _session(arguments).whoami()
    expires = identity["expires"]
    identity["expires"] = timestamp(expires, "seconds") if isinstance(expires, datetime) else None
    if arguments.json:
        print_json(identity)
        return 0
    name = f" ({identity['name']})" if identity["name"] else ""
    print(printable(f"user     {identity['user'] or 'not known'}{name}"))
    print(f"expires  {identity['expires'] or 'not known'}{', and can be renewed' if identity['renewable'] else ''}")
    print(f"from     {identity['origin']}")
    print(printable(f"scopes   {' '.join(identity['scopes']) or 'not known'}"))
    return 0


def _discover(arguments: argparse.Namespace) -> int:
    found = _session(arguments).definitions(arguments.pattern)
    if not found:
        raise NotFoundError(
            f"no job definition matches {arguments.pattern!r}: nothing was written "
            "(quote the pattern, or the shell expands it)"
        )
    path = Path(arguments.output)
    existing, known = ({}, {}) if arguments.overwrite else _existing_configs(path)
    document = existing | _configs(known, existing.get("settings"), found, arguments)
    _write(path, document)
    metadata = document["metadata"]
    ids = {definition["id"] for definition in found}
    gone = [str(entry.get("name", id_)) for id_, entries in known.items() if id_ not in ids for entry in entries]
    if arguments.json:
        counts = {"jobs": metadata["total_jobs_found"], "enabled_jobs": metadata["enabled_jobs"]}
        print_json({"path": path} | counts | {"left_out": gone})
    else:
        print(f"{counted(metadata['total_jobs_found'], 'job')}, {metadata['enabled_jobs']} enabled: {path}")
    if gone:
        print(printable(f"left out, because their definition was not found: {', '.join(gone)}"), file=sys.stderr)
    return 0


def _write(path: Path, document: Mapping[str, Any]) -> None:
    """Replaces the file in one step. If it is a link, the target is replaced."""
    try:
        replace(path.resolve(), json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror}): name another file with -o") from error


def _existing_configs(path: Path) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Returns the existing file, and its entries by definition. A definition can have several sets of arguments."""
    if not path.exists():
        return {}, {}
    try:
        existing: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
        known: dict[str, list[dict[str, Any]]] = {}
        for entry in existing["jobs"]:
            known.setdefault(entry["definition_id"], []).append(entry)
        return existing, known
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror}): name another file with -o") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            f"{path} exists and is not a job configuration file: name another one, or use --overwrite"
        ) from error


def _configs(
    known: Mapping[str, list[dict[str, Any]]],
    settings: object,
    found: Sequence[Mapping[str, Any]],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    jobs: list[dict[str, Any]] = []
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
        # Manual changes in the file stay.
        existing = known.get(definition["id"], [{}])
        jobs.extend(entry | changes | ({"name": name} if len(existing) == 1 else {}) for changes in existing)
    enabled = sum(bool(job["enabled"]) for job in jobs)
    kept = settings if isinstance(settings, dict) else {}
    return {
        "jobs": jobs,
        "settings": {"max_concurrent_jobs": 3} | kept | {"base_url": viya_base_url(arguments.base_url)},
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
        print_json(found)
        return 0
    if not found:
        print("this user sees no compute context")
        return 0
    facts = [
        {"queue": context["queue"]} | _flatten(context["attributes"]) | _flatten(context["details"])
        for context in found
    ]
    names = dict.fromkeys(name for fact in facts for name in fact)
    rows = []
    for name in names:
        values = ["" if fact.get(name) is None else str(fact[name]) for fact in facts]
        differs = "differs" if len(set(values)) > 1 else ""
        rows.append((name, *values, differs))
    columns = ("", *(context["name"] for context in found), "")
    print_table(columns, rows, phrases=columns)
    if len(found) > 1:
        count = sum(bool(row[-1]) for row in rows)
        print(f"they differ in {count} of {len(rows)}" if count else "no readable setting differs")
    if unread := [context["name"] for context in found if context["details"] is None]:
        print(printable(f"this user may not read the details of {', '.join(unread)}"))
    return 0


def _flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Returns nested settings as one level of dotted names. Ids are left out, because they always differ."""
    if isinstance(value, Mapping):
        inner = (_flatten(each, f"{path}.{name}" if path else str(name)) for name, each in sorted(value.items()))
        return {name: each for part in inner for name, each in part.items() if not name.endswith("Id")}
    if isinstance(value, list):
        value = " ".join(map(str, value))
    return {path: value} if path and value not in (None, "") else {}
