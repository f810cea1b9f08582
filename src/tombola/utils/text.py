"""Text: what errors say, and numbers of things, on one line."""

from __future__ import annotations


def first_line(error: Exception) -> str:
    """The first line of what `error` says."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def one_line(error: Exception) -> str:
    """What `error` says, on one line; it may quote what is in the file."""
    text = " ".join(str(error).split())
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200])


def printable(text: str) -> str:
    """Text that a file may have from anybody: one line, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def plural(number: float, noun: str) -> str:
    """A number of things: `1 point`, `2 points`."""
    return f"{number:,g} {noun}" + ("" if number == 1 else "s")
