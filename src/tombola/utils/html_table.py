"""A table in HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from html import escape


def html_table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    before: str = "",
    after: str = "",
    left: Collection[str] = (),
    bold: Collection[int] = (),
) -> str:
    """A table of text between two paragraphs, which are left out if empty. All text is escaped. Columns in `left` are
    left-aligned (notebooks align all others right), rows in `bold`, by number, are bold."""
    styles = [' style="text-align: left"' if name in left else "" for name in head]

    def row(texts: Iterable[str], tag: str = "td", strong: bool = False) -> str:
        shown = (f"<b>{escape(text)}</b>" if strong and text else escape(text) for text in texts)
        cells = (f"<{tag}{style}>{cell}</{tag}>" for style, cell in zip(styles, shown, strict=True))
        return f"<tr>{''.join(cells)}</tr>"

    body = "".join(row(cells, strong=number in bold) for number, cells in enumerate(rows))
    table = f"<table><thead>{row(head, 'th')}</thead><tbody>{body}</tbody></table>"
    return f"{_paragraph(before)}{table}{_paragraph(after)}"


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>" if text else ""
