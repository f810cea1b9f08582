"""A table in HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def html_table(head: Iterable[str], rows: Iterable[Sequence[str]], before: str = "", after: str = "") -> str:
    """A table of text between two paragraphs, which are left out if empty. All text is escaped."""
    columns = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    table = f"<table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>"
    return f"{_paragraph(before)}{table}{_paragraph(after)}"


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>" if text else ""
