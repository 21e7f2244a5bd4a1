"""Durations as arguments of commands."""

from __future__ import annotations

import argparse

from jobrota._native import duration_seconds
from jobrota.errors import InvalidInputError

__all__ = ["checked_duration", "duration", "positive_duration"]


def duration(text: str) -> float:
    """The seconds of a duration from 0: a number of seconds, or text such as "250ms", "90s", "15m", "1h30m" or "2d".

    >>> duration("1h30m"), duration("2 minutes"), duration("0.5")
    (5400.0, 120.0, 0.5)
    """
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = duration_seconds(text)
        except InvalidInputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a duration from 0")
    return seconds


def checked_duration(text: str) -> str:
    """The text of a duration, as it is.

    >>> checked_duration("1h30m")
    '1h30m'
    """
    duration(text)
    return text


def positive_duration(text: str) -> float:
    """The seconds of a duration above 0.

    >>> positive_duration("15m")
    900.0
    """
    seconds = duration(text)
    if not seconds:
        raise argparse.ArgumentTypeError(f"{text} is not a positive duration")
    return seconds
