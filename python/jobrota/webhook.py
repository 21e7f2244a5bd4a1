"""Alerts: one JSON text is posted to a URL when something is wrong, or a comparison has ended.

A receiver delays and fails no delivery: a thread posts the alerts, its end is waited for with a bound, and what cannot
be posted is only logged. The URL of a webhook is a secret, because who has it can post.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from jobrota._native import WebhookPost, __version__, duration_seconds, webhook_host
from jobrota.errors import InvalidInputError, JobrotaError
from jobrota.scrub import scrub, secrets
from jobrota.text import timestamp

if TYPE_CHECKING:
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
# Seconds between two looks at whether an alert is posted.
_SHORTEST_LOOK, _LONGEST_LOOK = 0.002, 0.1
# Receivers that are slower than the cycles lose the oldest alerts beyond these.
_MOST_WAITING = 100
_MOST_ROWS = 5
# Fields whose words are of this package: they have no secret, though a part of the URL such as /delivery may be in one.
_OWN_WORDS: Final = frozenset({"source", "version", "id", "at", "event", "title", "problems", "table", "error"})
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
        self._url = _read(url if url is not None else os.environ.get(VARIABLE, ""))
        self.host = webhook_host(self._url)
        self.format = _format_of(self.host) if format == "auto" else format
        self.pending_over = _seconds("pending_over", pending_over)
        self.timeout = _seconds("timeout", timeout)

    def __repr__(self) -> str:
        return f"Webhook(host={self.host!r}, format={self.format!r})"

    def post(self, alert: Mapping[str, Any]) -> bool:
        """Posts one alert, and tries again if the receiver cannot be reached, is overloaded or fails.

        It waits for the receiver. `Alerts` does not.

        Args:
            alert: What `Alerts` makes. It is scrubbed and cut here.

        Returns:
            Whether the receiver took it. Why not is logged.
        """
        body = json.dumps(self._body(self._scrubbed(alert)))
        pause = _SHORTEST_LOOK
        try:
            post = WebhookPost(self._url, body, secrets(self._url), self.timeout)
            while not post.is_taken():
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_LOOK)
        except JobrotaError as error:
            _log.warning("an alert was not delivered to %s: %s", self.host, scrub(str(error), self._url))
            return False
        return True

    async def post_async(self, alert: Mapping[str, Any]) -> bool:
        """As `post`, without blocking the event loop."""
        import asyncio

        return await asyncio.to_thread(self.post, alert)

    def _scrubbed(self, value: Any) -> Any:
        if isinstance(value, str):
            return scrub(value, self._url)
        if isinstance(value, Mapping):
            return {name: each if name in _OWN_WORDS else self._scrubbed(each) for name, each in value.items()}
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
        self._waiting: deque[_Make] = deque()
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

    async def close_async(self, timeout: float | None = None) -> None:
        """As `close`, without blocking the event loop."""
        import asyncio

        await asyncio.to_thread(self.close, timeout)

    def _put(self, make: _Make) -> None:
        if self._webhook is None:
            return
        with self._changed:
            self._ended = False
            if len(self._waiting) == _MOST_WAITING:
                self._waiting.popleft()
                _log.warning("an alert was dropped: %s is slower than the cycles", self._webhook.host)
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
            lines.append(f"the oldest pending row is of {timestamp(oldest, 'seconds')}")
        state = (*problems, parked)
        if not problems or state == self._last:
            self._last = state
            return None
        self._last = state
        rows = [{name: str(row[name]) for name in ("job_id", "status", "outcome", "detail")} for row in report.failures]
        lines += [f"{row['outcome']}: {row['job_id']} {row['status']}: {row['detail']}" for row in rows[:_MOST_ROWS]]
        counts = {name: getattr(report, name) for name in ("delivered", "failed", "unknown", "pending")}
        facts = {"table": table, **counts, "parked": parked, "oldest_pending": oldest and timestamp(oldest)}
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
    at = timestamp(datetime.now(timezone.utc), "seconds")
    # A receiver that gets an alert twice, because its answer was lost, knows it by the id.
    head = {"source": "jobrota", "version": __version__, "id": os.urandom(16).hex(), "at": at, "event": event}
    return {**head, "title": title, "problems": problems, "lines": lines, "facts": facts}


def _read(url: str) -> str:
    """Returns the URL itself, if `url` says where it is."""
    kind, colon, place = url.partition(":")
    if not colon:
        raise InvalidInputError(f"there is no URL for a webhook: set {VARIABLE}, or use file:PATH or env:NAME")
    if kind in ("env", "file") and "://" in place:
        raise InvalidInputError(
            f"{kind}: is followed by a URL: give the name of a place that has the URL, or leave {kind}: out"
        )
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


def _format_of(host: str) -> str:
    found = (name for known, name in _HOSTS.items() if host == known or host.endswith(f".{known}"))
    return next(found, "json")


def _seconds(name: str, duration: float | str | timedelta) -> float:
    try:
        return duration_seconds(duration)
    except InvalidInputError as error:
        raise InvalidInputError(f"{name}: {error}") from error
