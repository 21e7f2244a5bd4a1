"""Stand-ins for `dbutils` and `display`, which Databricks puts into each notebook, and for the client of its SDK.

A notebook that runs elsewhere, in Jupyter or in a test, uses them in their place:

>>> dbutils = Dbutils(secrets={"autosys": {"password": "not a real one"}})
>>> dbutils.widgets.dropdown("mode", "window", ["window", "batch"], "How jobs are started")
>>> dbutils.widgets.get("mode"), dbutils.secrets.get("autosys", "password")
('window', 'not a real one')

They have the methods that a notebook for jobs needs, with the names and arguments that Databricks gives them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

__all__ = ["Dbutils", "Display", "NotebookExit", "Secrets", "Widgets", "WorkspaceClient"]


class NotebookExit(BaseException):
    """The notebook called `dbutils.notebook.exit(value)`. No `except Exception` of the notebook catches it."""

    def __init__(self, value: str) -> None:
        """Keeps `value`, which is the result of the notebook."""
        super().__init__(value)
        self.value = value


class Widgets:
    """The parameters of a notebook. A given argument replaces the default value of its widget, as in a job."""

    def __init__(self, arguments: Mapping[str, str] | None = None) -> None:
        """Takes the arguments of the run, by the name of their widget."""
        self._arguments = dict(arguments or {})
        self._values: dict[str, str] = dict(self._arguments)

    def text(self, name: str, defaultValue: str, label: str | None = None) -> None:  # noqa: N803 - Databricks' name
        """Makes a text field. One that exists keeps its value.

        Args:
            name: The name that `get` takes.
            defaultValue: The value without an argument of this name.
            label: What is shown beside it.
        """
        self._values.setdefault(name, self._arguments.get(name, defaultValue))

    def dropdown(
        self,
        name: str,
        defaultValue: str,  # noqa: N803 - Databricks' name
        choices: Sequence[str],
        label: str | None = None,
    ) -> None:
        """Makes a list of which one value can be chosen. One that exists keeps its value.

        Args:
            name: The name that `get` takes.
            defaultValue: The value without an argument of this name.
            choices: The values that can be chosen.
            label: What is shown beside it.

        Raises:
            ValueError: The default value or the argument is not one of `choices`.
        """
        given = self._values.get(name, self._arguments.get(name, defaultValue))
        for value in (defaultValue, given):
            if value not in choices:
                raise ValueError(f"the widget {name!r} cannot be {value!r}; its choices are {list(choices)}")
        self._values[name] = given

    def get(self, name: str) -> str:
        """Returns the value of a widget, or of an argument that has no widget.

        Raises:
            LookupError: There is neither.
        """
        if name not in self._values:
            raise LookupError(f"no input widget named {name!r} is defined; defined are {sorted(self._values)}")
        return self._values[name]

    def getAll(self) -> dict[str, str]:  # noqa: N802 - Databricks' name
        """Returns all values by the name of their widget."""
        return dict(self._values)

    def give(self, name: str, value: str) -> None:
        """Gives the run another argument, as `%run ./notebook $name="value"` does. Databricks has no such method."""
        self._arguments[name] = self._values[name] = value

    def remove(self, name: str) -> None:
        """Removes a widget. One that is made again gets the argument of the run again.

        Raises:
            LookupError: There is no widget of this name.
        """
        self.get(name)
        del self._values[name]

    def removeAll(self) -> None:  # noqa: N802 - Databricks' name
        """Removes all widgets, as `remove` does."""
        self._values.clear()


class _SecretScope(NamedTuple):
    """A scope, as `listScopes` returns it."""

    name: str


class _SecretMetadata(NamedTuple):
    """The key of a secret, as `list` returns it."""

    key: str


class Secrets:
    """Secrets by scope and key."""

    def __init__(self, secrets: Mapping[str, Mapping[str, str]] | None = None) -> None:
        """Takes `{scope: {key: value}}`."""
        self._secrets = {scope: dict(values) for scope, values in (secrets or {}).items()}

    def __repr__(self) -> str:
        return f"Secrets(scopes={sorted(self._secrets)})"

    def get(self, scope: str, key: str) -> str:
        """Returns the secret.

        Raises:
            LookupError: There is no such scope or key.
        """
        values = self._scope(scope)
        if key not in values:
            raise LookupError(f"secret does not exist with scope: {scope} and key: {key}")
        return values[key]

    def put(self, scope: str, key: str, value: str) -> None:
        """Sets a secret, as `WorkspaceClient().secrets.put_secret` does. `dbutils` has no such method.

        Raises:
            LookupError: There is no such scope.
        """
        self._scope(scope)[key] = value

    def list(self, scope: str) -> Sequence[_SecretMetadata]:
        """Returns the keys of a scope, each with the attribute `key`.

        Raises:
            LookupError: There is no such scope.
        """
        return [_SecretMetadata(key) for key in sorted(self._scope(scope))]

    def listScopes(self) -> Sequence[_SecretScope]:  # noqa: N802 - Databricks' name
        """Returns the scopes, each with the attribute `name`."""
        return [_SecretScope(scope) for scope in sorted(self._secrets)]

    def _scope(self, scope: str) -> dict[str, str]:
        if scope not in self._secrets:
            raise LookupError(f"secret scope does not exist: {scope}; those given are {sorted(self._secrets)}")
        return self._secrets[scope]


class _Notebook:
    """What a notebook does with its own run."""

    def exit(self, value: str) -> NoReturn:
        """Ends the notebook with `value` as its result.

        Raises:
            NotebookExit: Always.
        """
        raise NotebookExit(value)


class _ServiceCredentials:
    """The service credentials of Unity Catalog."""

    def __init__(self, credentials: Mapping[str, Any] | None) -> None:
        self._credentials = dict(credentials or {})

    def getServiceCredentialsProvider(self, name: str) -> Any:  # noqa: N802 - Databricks' name
        """Returns a credential: on Azure one such as those of `azure.identity`, on AWS a session of `botocore`.

        Raises:
            LookupError: There is no such service credential.
        """
        if name not in self._credentials:
            raise LookupError(f"service credential does not exist: {name}; those given are {sorted(self._credentials)}")
        return self._credentials[name]


class _Library:
    """What a notebook does with its packages."""

    def restartPython(self) -> None:  # noqa: N802 - Databricks' name
        """Does nothing, because nothing was installed."""


class Dbutils:
    """A stand-in for `dbutils`: widgets, secrets, credentials, `notebook.exit` and `library.restartPython`."""

    def __init__(
        self,
        *,
        widgets: Mapping[str, str] | None = None,
        secrets: Mapping[str, Mapping[str, str]] | None = None,
        service_credentials: Mapping[str, Any] | None = None,
    ) -> None:
        """Makes a stand-in.

        Args:
            widgets: Arguments of the run, by the name of their widget. They replace default values.
            secrets: The secrets, as `{scope: {key: value}}`.
            service_credentials: The objects that `credentials.getServiceCredentialsProvider` returns, by name.
        """
        self.credentials = _ServiceCredentials(service_credentials)
        self.widgets = Widgets(widgets)
        self.secrets = Secrets(secrets)
        self.notebook = _Notebook()
        self.library = _Library()


class _SecretValue(NamedTuple):
    """A secret, as `get_secret` returns it: the value is in base64."""

    key: str
    value: str


class _WorkspaceSecrets:
    """The secrets of a workspace, as its API has them."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def get_secret(self, scope: str, key: str) -> _SecretValue:
        """Returns the secret.

        Raises:
            LookupError: There is no such scope or key.
        """
        return _SecretValue(key, base64.b64encode(self._secrets.get(scope, key).encode()).decode())

    def put_secret(self, scope: str, key: str, *, string_value: str) -> None:
        """Sets the secret.

        Raises:
            LookupError: There is no such scope.
        """
        self._secrets.put(scope, key, string_value)


class _Config:
    """Where the workspace is, and who calls it."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._calls = 0

    def authenticate(self) -> dict[str, str]:
        """Returns the headers of a request. Each call gives another token."""
        self._calls += 1
        return {"Authorization": f"Bearer not-a-real-token-{self._calls}"}


class WorkspaceClient:
    """A stand-in for `databricks.sdk.WorkspaceClient`: `config`, `secrets` and `dbutils`.

    >>> client = WorkspaceClient(dbutils=Dbutils(secrets={"viya": {"tokens": "old"}}))
    >>> client.secrets.put_secret("viya", "tokens", string_value="new")
    >>> client.dbutils.secrets.get("viya", "tokens")
    'new'
    >>> client.config.authenticate()
    {'Authorization': 'Bearer not-a-real-token-1'}
    """

    def __init__(self, host: str = "https://workspace.example.com", *, dbutils: Dbutils | None = None) -> None:
        """Makes a stand-in.

        Args:
            host: The address of the workspace.
            dbutils: Has the secrets of the workspace; None: there are none.
        """
        self.config = _Config(host)
        self.dbutils = dbutils or Dbutils()
        self.secrets = _WorkspaceSecrets(self.dbutils.secrets)


class Display:
    """A stand-in for `display` that records what it is given.

    >>> display = Display()
    >>> display({"rows": 2})
    >>> display.shown
    [{'rows': 2}]
    """

    def __init__(self) -> None:
        """Starts with nothing."""
        self.shown: list[Any] = []
        """The values, in the order in which they were shown."""

    def __call__(self, *values: Any, **options: Any) -> None:
        """Records `values`. The options of Databricks and Jupyter change nothing."""
        self.shown += values

    @property
    def text(self) -> str:
        """Everything that was shown: the HTML of each value that has one, else its `repr`, in lines."""
        return "\n".join(_shown_text(value) for value in self.shown)


def _shown_text(value: Any) -> str:
    html = getattr(value, "_repr_html_", None)
    return str(html() if callable(html) and not isinstance(value, type) else repr(value))
