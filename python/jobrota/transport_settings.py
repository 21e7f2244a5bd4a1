"""The transport of `--transport`, `JOBROTA_TRANSPORT` or `jobrota.toml`.

A text is a kind and its options: `ssh user=autosys key_file=/etc/jobrota/id`. The kinds are the keys of `_KINDS`, the
address of AutoSys's web services, a callable as `module:function`, and the path of the `sendevent` program. Options
have the names of the transport's arguments. Secrets are read from environment variables and files only, because options
show in the list of processes, and settings files are copied.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from jobrota import autosys
from jobrota._native import RoundRobinSelector, settings_lookup
from jobrota.errors import InvalidInputError, UnsupportedError

__all__ = ["configured_transport", "transport_from_text"]

_KINDS = {"sendevent": "SendEvent", "web-services": "WebServices", "ssh": "Ssh", "run-command": "RunCommand"}
_SECRETS = frozenset({"password", "token", "key_passphrase"})
# A selector comes from the settings of the inventory. The other two can hold secrets, and come from the environment.
_NOT_OPTIONS = frozenset({"selector", "credential", "env"})
_FORMS = f"{', '.join(sorted(_KINDS))}, an address or module:function"
_NUMBERS = frozenset({"port", "sessions", "batch"})
_URL = re.compile(r"https?://\S+")
_FUNCTION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_][\w.]*)")
_OPTION = re.compile(r"([a-z_]+)=(.*)", re.DOTALL)

_MakeSelector = Callable[[], RoundRobinSelector]


def configured_transport(make_selector: _MakeSelector, **more: str) -> Any:
    """Returns the transport of the settings.

    Args:
        make_selector: Makes the selector of the VMs. Only `ssh` and `run-command` call it.
        more: Options in addition to those of the settings.

    Returns:
        The transport, or None if no setting names one.

    Raises:
        InvalidInputError: The settings describe no transport.
    """
    text = settings_lookup("transport")
    if text is None:
        return None
    if text.startswith("{"):  # the table [transport]
        try:
            table = json.loads(text)
        except json.JSONDecodeError as error:
            raise InvalidInputError(f"the transport {text!r} is no kind: give {_FORMS}") from error
        kind = table.pop("kind", None)
        if not isinstance(kind, str):
            raise InvalidInputError(f'the table [transport] has no kind: add kind = "ssh", or one of {_listed(_KINDS)}')
        return _transport(kind, table | more, make_selector)
    return transport_from_text(text, make_selector, **more)


def transport_from_text(text: str, make_selector: _MakeSelector, **more: str) -> Any:
    """Returns the transport that a text describes.

    Args:
        text: A kind and its options.
        make_selector: Makes the selector of the VMs. Only `ssh` and `run-command` call it.
        more: Options in addition to those of the text.

    Raises:
        InvalidInputError: The text describes no transport.

    >>> transport_from_text("sendevent program=/opt/autosys/bin/sendevent", RoundRobinSelector)
    SendEvent("/opt/autosys/bin/sendevent")
    """
    words = text.split()
    if words and not _is_kind(words[0]) and not all(map(_OPTION.fullmatch, words[1:])):
        return _transport(text, more, make_selector)  # the path of a program can have spaces
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidInputError(f"the transport {words[0]} has a quotation mark without its end") from error
    options: dict[str, Any] = {}
    for word in words[1:]:
        match = _OPTION.fullmatch(word)
        if match is None:
            raise InvalidInputError(f"the transport {words[0]} has {word!r} in place of NAME=VALUE")
        if match[1] in options:
            raise InvalidInputError(f"the transport {words[0]} has {match[1]} twice; leave out one of them")
        options[match[1]] = match[2]
    return _transport(words[0] if words else "", options | more, make_selector)


def _is_kind(word: str) -> bool:
    return word in _KINDS or bool(_URL.fullmatch(word) or _FUNCTION.fullmatch(word))


def _transport(kind: str, options: Mapping[str, Any], make_selector: _MakeSelector) -> Any:
    if function := _FUNCTION.fullmatch(kind):
        if options:
            raise InvalidInputError(f"the transport {kind} is a callable without options: leave out {_listed(options)}")
        return _callable(function[1], function[2])
    given = dict(options)
    if _URL.fullmatch(kind):
        kind, given = "web-services", {"base_url": kind} | given
    elif kind not in _KINDS:
        if not kind.strip():
            raise InvalidInputError(f"the transport is empty: give {_FORMS}")
        kind, given = "sendevent", {"program": kind} | given
    try:
        transport = getattr(autosys, _KINDS[kind])
    except AttributeError as error:
        raise UnsupportedError(str(error)) from error
    parameters = inspect.signature(transport).parameters
    required = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    arguments = _arguments(kind, transport, given)
    if missing := required - arguments.keys() - {"selector"}:
        raise InvalidInputError(f"the transport {kind} needs {_listed(missing)}: add {sorted(missing)[0]}=VALUE")
    if "selector" in parameters:
        arguments["selector"] = make_selector()
    return transport(**arguments)


def _arguments(kind: str, transport: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    names = set(inspect.signature(transport).parameters) - _NOT_OPTIONS
    known = names - _SECRETS | {f"{name}_{end}" for name in names & _SECRETS for end in ("env", "file")}
    arguments: dict[str, Any] = {}
    for name, value in options.items():
        if name in names & _SECRETS:
            raise InvalidInputError(
                f"the transport {kind} takes no {name} as text, which others can read: name an environment variable "
                f"with {name}_env, or a file with {name}_file"
            )
        if name not in known:
            raise InvalidInputError(f"the transport {kind} has no option {name}; it has {_listed(known)}")
        secret, _, end = name.rpartition("_")
        if secret in _SECRETS:
            arguments[secret] = _secret(name, str(value), from_file=end == "file")
        else:
            arguments[name] = _value(f"{name} of the transport {kind}", name, value)
    return arguments


def _value(where: str, name: str, value: Any) -> Any:
    """Returns the value of an option. Text becomes a number or a truth value where the argument needs one."""
    # What JSON, in which the table of jobrota.toml comes, does not have.
    if value is None:
        raise InvalidInputError(f"{where} is infinite or not a number; give another number")
    if isinstance(value, dict) and name != "events":
        raise InvalidInputError(f"{where} is a table or a date, and needs text or a number")
    if not isinstance(value, str):
        return value
    if name == "allow_http":
        if value not in ("true", "false"):
            raise InvalidInputError(f"{where} is {value!r}; it can be true or false")
        return value == "true"
    if name == "events":
        raise InvalidInputError(f"{where} is a table, and no text: write it into [transport.events] of jobrota.toml")
    try:
        if name == "accepted":
            return [int(part) for part in value.split(",")]
        return int(value) if name in _NUMBERS else value
    except ValueError as error:
        form = "whole numbers with commas between them" if name == "accepted" else "a whole number"
        raise InvalidInputError(f"{where} is {value!r}, and needs {form}") from error


def _secret(option: str, source: str, *, from_file: bool) -> str:
    if not from_file:
        if value := os.environ.get(source):
            return value
        raise InvalidInputError(f"the environment variable {source}, which {option} names, is not set")
    try:
        text = Path(source).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InvalidInputError(f"the file {source}, which {option} names, cannot be read: {reason}") from error
    if value := text.rstrip("\r\n"):
        return value
    raise InvalidInputError(f"the file {source}, which {option} names, is empty")


def _callable(module: str, name: str) -> Any:
    # At the end, so that no file of this directory hides an installed module. It stays for imports within the callable.
    if not {"", here := str(Path.cwd())} & set(sys.path):
        sys.path.append(here)
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except ImportError as error:
        raise InvalidInputError(
            f"the transport {module}:{name} cannot be imported: {error}; install the module, or run in its directory"
        ) from error
    except AttributeError as error:
        raise InvalidInputError(f"the transport {module}:{name} does not exist: {error}") from error
    except (Exception, SystemExit) as error:
        raise InvalidInputError(
            f"the transport {module}:{name} cannot be imported: the module raises {type(error).__name__}: {error}"
        ) from error
    if not callable(found):
        raise InvalidInputError(f"the transport {module}:{name} is no function (file_name, job_id, status) -> bool")
    return found


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))
