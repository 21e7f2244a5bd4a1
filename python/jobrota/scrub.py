"""Texts that leave the machine, such as those of alerts and spans, without secrets and of a bounded length."""

from __future__ import annotations

import os
import re
import urllib.parse

from jobrota._native import scrubbed
from jobrota.text import printable

__all__ = ["scrub", "secrets"]

# Receivers take more, but they are no place for a log. Teams takes 28 KB of several texts.
_LONGEST_TEXT = 300
_SHORTEST_SECRET = 8
_SECRET_VARIABLE = re.compile(r"(SECRET|PASSWORD|PASSWD|PASSPHRASE|TOKEN|KEY|_PWD?|WEBHOOK)$")
_SECRET_TEXT = re.compile(
    r"(\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}"
    r"|((?:\bsig|signature|password|passwd|secret|token|key)(?:=|[\"']\s*:\s*[\"'])|\bpassw(?:or)?d:\s*)[^\s&\"',;]+"
    r"|(://)[^\s/@]+@",
    re.IGNORECASE,
)


def scrub(text: str, url: str = "") -> str:
    """Returns the text without secrets, without characters that change a terminal, and of a bounded length.

    Args:
        text: The text.
        url: A URL whose parts are secrets too.

    >>> scrub("refused: token=0123456789abcdef")
    'refused: token=…'
    """
    text = scrubbed(text, secrets(url))
    text = _SECRET_TEXT.sub(lambda found: f"{found[1] or found[2] or found[3]}…", text)
    text = " ".join(printable(word) for word in text.split())
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"


def secrets(url: str = "") -> list[str]:
    """Returns what is removed from texts: parts of the URL, and secrets of the environment."""
    parts = urllib.parse.urlsplit(url)
    found = {url, parts.path, parts.query, *parts.path.split("/")}
    found |= {value for _, value in urllib.parse.parse_qsl(parts.query)}
    found |= {value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name.upper())}
    return [text for text in found if len(text) >= _SHORTEST_SECRET]
