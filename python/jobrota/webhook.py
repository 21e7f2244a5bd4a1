"""Alerts: one JSON text is posted to a URL when something is wrong, or a comparison has ended.

A receiver delays and fails no delivery: a thread posts the alerts, its end is waited for with a bound, and what cannot
be posted is only logged. The URL of a webhook is a secret, because who has it can post.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import re
import threading
import time
import urllib.error
import urllib.parse
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from jobrota._native import __version__, duration_seconds
from jobrota.commands.tables import printable
from jobrota.errors import InvalidInputError, JobrotaError

if TYPE_CHECKING:
    import urllib.request

    from jobrota._native import ComparisonResult, DeliveryReport, JobLedger

__all__ = ["FORMATS", "VARIABLE", "Alerts", "Webhook"]

FORMATS: Final = ("auto", "json", "slack", "teams")
"""What is posted. `auto` looks at the host of the URL."""

VARIABLE: Final = "JOBROTA_WEBHOOK"
"""The environment variable that has the URL, or its source, if none is given."""

_HOSTS: Final = {
    "hooks.slack.com": "slack",
    "hooks.slack-gov.com": "slack",
    "logic.azure.com": "teams",
    "api.powerplatform.com": "teams",
    "webhook.office.com": "teams",
}
_ATTEMPTS = 3
# Seconds before the second and the third attempt, if the receiver names no time.
_PAUSES = (0.5, 2.0)
_LONGEST_PAUSE = 5.0
# The longest duration of an argument, in seconds.
_LONGEST = 36_500 * 86_400
# Receivers take more, but a channel is no place for a log. Teams takes 28 KB.
_LONGEST_TEXT = 300
_MOST_READ = 16_384
_MOST_ROWS = 5
_SHORTEST_SECRET = 8
_SECRET_VARIABLE = re.compile(r"(SECRET|PASSWORD|PASSPHRASE|TOKEN|KEY|WEBHOOK)$")
_SECRET_TEXT = re.compile(
    r"(?P<scheme>\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}"
    r"|(?P<name>\b(?:sig|signature|password|secret|token|key)=)[^\s&\"']+"
    r"|(?P<user>://)[^\s/@]+@",
    re.IGNORECASE,
)
_log = logging.getLogger("jobrota.webhook")


class Webhook:
    """A URL to which alerts are posted."""

    def __init__(
        self,
        url: str | None = None,
        *,
        format: Literal["auto", "json", "slack", "teams"] = "auto",  # noqa: A002 - the name of the option
        pending_over: float | str | timedelta = "1h",
        timeout: float | str | timedelta = 10.0,
    ) -> None:
        """Checks the URL, and sends nothing.

        Args:
            url: The URL, or where it is: `env:NAME` or `file:PATH`. None reads the variable `JOBROTA_WEBHOOK`.
            format: What is posted; one of `FORMATS`.
            pending_over: Alert of a row that is pending for longer.
            timeout: The longest time that the end of a command waits for the receiver.

        Raises:
            InvalidInputError: There is no URL, or it is not `https://`, or `http://` on this machine. Or a duration
                is negative, or longer than 36,500 days.
        """
        if format not in FORMATS:
            raise InvalidInputError(f"the format of a webhook is {format!r}; it can be {', '.join(FORMATS)}")
        self._url = _checked(_read(url if url is not None else os.environ.get(VARIABLE, "")))
        self._host = urllib.parse.urlsplit(self._url).hostname or ""
        self.format = _format_of(self._host) if format == "auto" else format
        self.pending_over = _seconds("pending_over", pending_over)
        self.timeout = _seconds("timeout", timeout)

    def __repr__(self) -> str:
        return f"Webhook(host={self._host!r}, format={self.format!r})"

    def post(self, alert: Mapping[str, Any]) -> bool:
        """Posts one alert, and tries again if the receiver cannot be reached, is overloaded or fails.

        It waits for the receiver. `Alerts` does not.

        Args:
            alert: What `Alerts` makes. It is scrubbed and cut here.

        Returns:
            Whether the receiver took it. Why not is logged.
        """
        body = json.dumps(self._body(self._scrubbed(alert))).encode()
        deadline = time.monotonic() + self.timeout
        reason = "there was no time"
        for attempt in range(_ATTEMPTS):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            done, reason, after = self._send(body, remaining)
            if done:
                return True
            if after is None or attempt + 1 == _ATTEMPTS:
                break
            pause = after or _PAUSES[attempt]
            if pause > min(_LONGEST_PAUSE, deadline - time.monotonic()):
                reason += "; the next attempt would be too late"
                break
            time.sleep(pause)
        _log.warning("an alert was not delivered to %s: %s", self._host, self._scrub(reason))
        return False

    def _send(self, body: bytes, timeout: float) -> tuple[bool, str, float | None]:
        """Returns whether the alert was taken, why not, and the pause before the next attempt (None: there is none)."""
        import http.client
        import urllib.request

        request = urllib.request.Request(
            self._url, data=body, method="POST",
            headers={"Content-Type": "application/json", "User-Agent": f"jobrota/{__version__}"},
        )  # fmt: skip
        try:
            with self._opener().open(request, timeout=timeout) as answer:
                return True, f"HTTP {answer.status}", None
        except urllib.error.HTTPError as error:
            with error:
                try:
                    # Much more than is shown: a secret at the end would be cut, and not found.
                    said = printable(error.read(_MOST_READ).decode("utf-8", "replace").strip())
                except (OSError, http.client.HTTPException) as broken:
                    said = type(broken).__name__
            reason = f"HTTP {error.code}: {said}" if said else f"HTTP {error.code}"
            if error.code in (408, 429) or error.code >= 500:
                return False, reason, _retry_after(error.headers.get("Retry-After"))
            return False, reason, None
        except urllib.error.URLError as error:
            # A certificate that is not trusted stays so.
            import ssl

            return False, str(error.reason), None if isinstance(error.reason, ssl.SSLCertVerificationError) else 0
        except (OSError, http.client.HTTPException) as error:
            return False, f"{type(error).__name__}: {error}", 0

    def _opener(self) -> urllib.request.OpenerDirector:
        import ssl
        import urllib.request

        # build_opener would add a handler that follows redirects: the alert is for this receiver only.
        opener = urllib.request.OpenerDirector()
        proxies = urllib.request.ProxyHandler({} if _is_loopback(self._host) else None)
        https = urllib.request.HTTPSHandler(context=ssl.create_default_context())
        errors = (urllib.request.HTTPErrorProcessor(), urllib.request.HTTPDefaultErrorHandler())
        for handler in (proxies, urllib.request.HTTPHandler(), https, *errors):
            opener.add_handler(handler)
        return opener

    def _scrub(self, text: str) -> str:
        """Returns the text without secrets, without characters that change a terminal, and of a bounded length."""
        for secret in _secrets(self._url):
            text = text.replace(secret, "…")
        text = _SECRET_TEXT.sub(lambda found: f"{found['scheme'] or found['name'] or found['user']}…", text)
        text = " ".join(printable(word) for word in text.split())
        return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"

    def _scrubbed(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._scrub(value)
        if isinstance(value, Mapping):
            return {name: self._scrubbed(each) for name, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._scrubbed(each) for each in value]
        return value

    def _body(self, alert: dict[str, Any]) -> dict[str, Any]:
        """Returns what the receiver expects."""
        if self.format == "json":
            return alert
        lines = [alert["title"], *alert["lines"]]
        if self.format == "slack":
            # Slack takes these three characters for markup. Without mrkdwn, it takes no others.
            text = "\n".join(lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            return {"text": text, "mrkdwn": False}
        card = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": [
                {"type": "TextBlock", "text": alert["title"], "weight": "Bolder", "wrap": True},
                # A TextBlock has markup, and this has none.
                *({"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": line}]} for line in alert["lines"]),
            ],
        }
        content = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
        return {"type": "message", "attachments": [content]}


_Make: TypeAlias = Callable[[Webhook], dict[str, Any] | None]


class Alerts:
    """The alerts of one command or cycle, which a thread posts. Without a webhook, there are none."""

    def __init__(self, webhook: Webhook | None, ledger: JobLedger | None = None) -> None:
        """Takes the ledger whose pending and parked rows are looked at after a cycle."""
        self._webhook = webhook
        self._ledger = ledger
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        # A receiver that is slower than the cycles loses the older alerts.
        self._waiting: deque[_Make] = deque(maxlen=2)
        self._ended = False
        self._last: tuple[Any, ...] = ()

    def __enter__(self) -> Alerts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Posts the error that ended the block, if any, and waits for what is still to be posted."""
        if isinstance(error, Exception):
            self._put(lambda _: _error_alert(error))
        interrupted = error is not None and not isinstance(error, Exception)
        self.close(0 if interrupted else None)

    async def __aenter__(self) -> Alerts:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Like the end of `with`, without blocking the event loop."""
        import asyncio

        await asyncio.to_thread(self.__exit__, kind, error, traceback)

    def cycle(self, report: DeliveryReport, table: str = "job_notifications") -> None:
        """Posts what is wrong after a delivery cycle. While the same is wrong after each cycle, it is posted once."""
        if report.lease_held_by is None and not report.dry_run:
            self._put(lambda webhook: self._cycle_alert(report, table, webhook.pending_over))

    def comparison(self, result: ComparisonResult) -> None:
        """Posts that a comparison has ended, and how."""
        self._put(lambda _: _comparison_alert(result))

    def close(self, timeout: float | None = None) -> None:
        """Waits until all is posted, but not longer than `timeout` seconds, by default those of the webhook."""
        with self._changed:
            self._ended = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and self._webhook is not None:
            thread.join(self._webhook.timeout if timeout is None else timeout)
            if thread.is_alive() and timeout is None:
                _log.warning("the receiver of alerts is slow: its answer is not waited for")

    def _put(self, make: _Make) -> None:
        if self._webhook is None:
            return
        with self._changed:
            self._ended = False
            self._waiting.append(make)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, args=(self._webhook,), name="jobrota-webhook", daemon=True
                )
                self._thread.start()
            self._changed.notify()

    def _work(self, webhook: Webhook) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    self._thread = None
                    return
                make = self._waiting.popleft()
            try:
                alert = make(webhook)
                if alert is not None and not webhook.post(alert):
                    self._last = ()  # the next cycle tries again
            except Exception as error:  # an alert is never in the way
                _log.warning("an alert could not be made: %s", type(error).__name__)

    def _cycle_alert(self, report: DeliveryReport, table: str, pending_over: float) -> dict[str, Any] | None:
        lines, problems = [], []
        refused = report.failed + report.unknown
        if refused:
            problems.append("failed")
            lines.append(f"{refused:,} not delivered in this cycle")
        parked, oldest = report.parked, None
        if self._ledger is not None:
            try:
                summary = self._ledger.summary()
                counts = summary.notifications if table == "job_notifications" else summary.executions
                parked, oldest = counts["parked"], counts["oldest_pending"]
            except JobrotaError as error:
                lines.append(f"the ledger could not be read: {error}")
        if parked:
            problems.append("parked")
            lines.append(f"{parked:,} parked: see jobrota autosys parked")
        now = datetime.now(timezone.utc)
        # Nothing is sent in a snooze window: that rows wait is what was asked for.
        if oldest is not None and not report.snoozed_until and (now - oldest).total_seconds() > pending_over:
            problems.append("oldest_pending")
            lines.append(f"the oldest pending row is of {oldest:%Y-%m-%d %H:%M:%S} UTC")
        state = (*problems, parked)
        if not problems or state == self._last:
            self._last = state
            return None
        self._last = state
        rows = [{name: str(row[name]) for name in ("job_id", "status", "outcome", "detail")} for row in report.failures]
        lines += [f"{row['outcome']}: {row['job_id']} {row['status']}: {row['detail']}" for row in rows[:_MOST_ROWS]]
        counts = {name: getattr(report, name) for name in ("delivered", "failed", "unknown", "pending")}
        facts = {"table": table, **counts, "parked": parked, "oldest_pending": oldest and oldest.isoformat()}
        if self._ledger is not None:
            facts["ledger"] = self._ledger.root
        title = f"jobrota delivery: {', '.join(problems).replace('_', ' ')}"
        return _alert("delivery", title, problems, lines, facts | {"rows": rows[:_MOST_ROWS]})


def _error_alert(error: Exception) -> dict[str, Any]:
    kind = type(error).__name__
    title = f"jobrota: ended with {kind}"
    return _alert(
        "error", title, ["error"], [str(error)], {"error": kind, "retryable": getattr(error, "retryable", False)}
    )


def _comparison_alert(result: ComparisonResult) -> dict[str, Any]:
    verdict = result.to_dict()["analysis"]["verdict"]["text"]
    problems = ["failed"] if result.failed_jobs else []
    warnings = [warning.code for warning in result.warnings]
    lines = [verdict, f"{result.failed_jobs:,} jobs failed", f"result: {result.path}"]
    facts = {"verdict": verdict, "failed_jobs": result.failed_jobs, "warnings": warnings, "result": str(result.path)}
    title = "jobrota comparison: ended" + (", with failed jobs" if problems else "")
    return _alert("comparison", title, problems, lines, facts)


def _alert(event: str, title: str, problems: list[str], lines: list[str], facts: dict[str, Any]) -> dict[str, Any]:
    at = datetime.now(timezone.utc).isoformat(timespec="seconds")
    # A repeated attempt can arrive twice: the id tells.
    head = {"source": "jobrota", "version": __version__, "id": uuid.uuid4().hex, "at": at, "event": event}
    return {**head, "title": title, "problems": problems, "lines": lines, "facts": facts}


def _read(url: str) -> str:
    """Returns the URL itself, if `url` says where it is."""
    kind, colon, place = url.partition(":")
    if not colon:
        raise InvalidInputError(f"there is no URL for a webhook: set {VARIABLE}, or use file:PATH or env:NAME")
    if kind == "env":
        value = os.environ.get(place, "")
        if not value:
            raise InvalidInputError(
                f"the environment variable {place}, which is to have the URL of a webhook, is not set"
            )
        return value.strip()
    if kind == "file":
        try:
            return Path(place).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise InvalidInputError(f"the URL of a webhook cannot be read from {place}: {reason}") from error
    return url.strip()


def _checked(url: str) -> str:
    """Returns the URL. An error names no part of it but the scheme."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise InvalidInputError("the URL of the webhook is not valid: copy it again from the receiver") from None
    if not url.isascii() or not url.isprintable() or " " in url or not host or port == 0:
        raise InvalidInputError("the URL of the webhook is not valid: copy it again from the receiver")
    if parts.username is not None or parts.password is not None:
        raise InvalidInputError("the URL of the webhook has a user: use one whose path or query is the secret")
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)):
        return url
    raise InvalidInputError(
        f"the URL of the webhook begins with {parts.scheme}://: it must be https://, or http:// to this machine"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _format_of(host: str) -> str:
    found = (name for known, name in _HOSTS.items() if host == known or host.endswith(f".{known}"))
    return next(found, "json")


def _seconds(name: str, duration: float | str | timedelta) -> float:
    if isinstance(duration, timedelta):
        seconds = duration.total_seconds()
    else:
        seconds = duration_seconds(duration) if isinstance(duration, str) else float(duration)
    if not 0 <= seconds <= _LONGEST:
        raise InvalidInputError(f"{name} is {duration}; it must be from 0 to 36500 days")
    return seconds


def _retry_after(value: str | None) -> float:
    """Returns the seconds that the receiver asks for; 0 if it names none, or a date."""
    return float(value) if value and value.isascii() and value.isdigit() else 0.0


def _secrets(url: str) -> list[str]:
    """Returns what is removed from texts, the longest first: parts of the URL, and secrets of the environment."""
    parts = urllib.parse.urlsplit(url)
    found = {url, parts.path, parts.query, *parts.path.split("/")}
    found |= {value for _, value in urllib.parse.parse_qsl(parts.query)}
    found |= {value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name.upper())}
    return sorted((text for text in found if len(text) >= _SHORTEST_SECRET), key=len, reverse=True)
