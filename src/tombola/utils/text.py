"""Text for messages: one line each."""

from __future__ import annotations

from collections.abc import Iterable


def first_line(error: Exception) -> str:
    """The first line of an error's message; the name of its class if there is none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def one_line(error: Exception) -> str:
    """The message of an error on one printable line of at most 200 characters; it may quote untrusted content."""
    return printable(" ".join(str(error).split())[:200])


def printable(text: str) -> str:
    """Untrusted text with "?" for line breaks and for the control characters that terminals interpret."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def plural(number: float, noun: str) -> str:
    """A number with a noun: `1 point`, `2 points`, `1,000,000 points`."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:,g}"
    return f"{shown} {noun}" + ("" if number == 1 else "s")


def enumeration(items: Iterable[str]) -> str:
    """Items in a sentence: `5, 10 and 20`."""
    *most, last = items
    return f"{', '.join(most)} and {last}" if most else last


def rough_time(seconds: float) -> str:
    """With two digits: `40 s`, `1.5 h`."""
    unit, length = next(((u, n) for u, n in (("h", 3600), ("min", 60)) if seconds >= n), ("s", 1))
    return f"{float(f'{seconds / length:.2g}'):g} {unit}"


def byte_size(count: float) -> str:
    """`1.5 kB`, `12.0 MB`, `1.2 GB`."""
    unit, size = next(((u, n) for u, n in (("GB", 1e9), ("MB", 1e6)) if count >= n), ("kB", 1e3))
    return f"{count / size:,.1f} {unit}"
