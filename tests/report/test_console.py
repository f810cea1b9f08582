from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from tombola.report.console import NO_LIMIT, LineConsole, print_pairs, print_text, print_unbroken, wrapped

WORDS = st.lists(st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=50), min_size=1, max_size=30)


@given(WORDS, st.integers(40, 200))
def test_no_word_is_cut_and_lines_fit(words: list[str], width: int) -> None:
    lines = [*wrapped(" ".join(words), width)]
    assert " ".join(lines).split() == words
    assert all(cell_len(line) <= width or " " not in line for line in lines)


def test_lines_keep_their_indentation() -> None:
    assert [*wrapped("  one two three\n\nfour", 9)] == ["  one two", "  three", "", "four"]


@given(WORDS, st.integers(40, 200))
def test_what_is_printed_is_neither_markup_nor_cut(words: list[str], width: int) -> None:
    file = io.StringIO()
    print_text(Console(file=file, width=width, force_terminal=True, color_system=None), " ".join(words))
    assert file.getvalue().split() == words


def test_paths_and_commands_are_not_broken() -> None:
    path = "results/" + "long/" * 30 + "with space [bold].txt"
    file = io.StringIO()
    console = Console(file=file, width=40)
    print_unbroken(console, path)
    print_pairs(console, [("results", path), ("a", "b")])
    assert file.getvalue().splitlines() == [path, f"results  {path}", "a        b"]


def test_a_pipe_has_no_limit_and_a_terminal_has_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert LineConsole(file=io.StringIO()).width == NO_LIMIT
    assert LineConsole(file=io.StringIO(), force_terminal=True, width=60).width == 60
    monkeypatch.setenv("COLUMNS", "72")
    assert LineConsole(file=io.StringIO()).width == 72
