"""Figures as people read and type them: 3.28M, 2m30s, and numbers within bounds for argparse."""

import argparse
import math


def amount(count: float) -> str:
    """3,280,000 as 3.28M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{name}" if count < 1000 * unit else f"{count / unit:,.0f}{name}"
    return f"{count:.0f}"


def duration(seconds: float) -> str:
    """Seconds as 45s, 2m30s or 1h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02}m"


def so_far(seconds: float, part: float) -> str:
    """How long it took, and will take where `part` of it, above 0 to 1, is done: 45s, 15s left."""
    return duration(seconds) + (f", {duration(seconds * (1 - part) / part)} left" if part else "")


def between(low: int, high: float = math.inf, kind: type = int):
    """For argparse: a number within bounds."""

    def number(text: str):
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text}: allowed is {low} to {high}")
        return value

    return number
