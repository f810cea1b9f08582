from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.support.reports import printed
from tombola.report.fitting_table import FittingTable, print_table
from tombola.report.formatting import text_table

WORD = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=14)
CELL = st.lists(WORD, max_size=4).map(" ".join)
HEADS = st.lists(WORD, min_size=1, max_size=9, unique=True)


@st.composite
def tables(draw: st.DrawFn) -> FittingTable:
    heads = draw(HEADS)
    left = draw(st.lists(st.sampled_from(heads)))
    least, always = (draw(st.lists(st.sampled_from(heads), max_size=3)) for _ in range(2))
    title = draw(st.none() | CELL)
    table = text_table(heads, left, title, gap=draw(st.integers(1, 3)), least=least, always=always)
    for row in draw(st.lists(st.tuples(*[CELL] * len(heads)), max_size=4)):
        table.add_row(*row)
    return table


def words(table: FittingTable) -> list[list[str]]:
    """Of each column, its head first."""
    return [[word for cell in (c.header, *c.cells) for word in str(cell).split()] for c in table.columns]


@given(tables(), st.integers(40, 200))
def test_no_word_is_cut(table: FittingTable, width: int) -> None:
    text = printed(print_table, table, width=width)
    body, _, note = text.partition("Not shown at this width:")
    assert "…" not in text
    shown, left_out = body.split(), " ".join(note.split()).partition(". A wider")[0].split(", ")
    for column, head in zip(words(table), (str(c.header) for c in table.columns), strict=True):
        assert head in left_out or all(word in shown for word in column)


@given(tables(), st.integers(40, 200))
def test_it_fits_unless_a_word_of_what_must_stay_is_too_long(table: FittingTable, width: int) -> None:
    always = [0, *(i for i, c in enumerate(table.columns) if str(c.header) in table.importance.always)]
    gap = table.padding[1] + 1
    least = sum(max(map(cell_len, words(table)[i])) + gap for i in dict.fromkeys(always))
    if least <= width:
        lines = printed(print_table, table, width=width).splitlines()
        assert max(map(cell_len, lines), default=0) <= width


def test_the_least_important_columns_go_first() -> None:
    table = text_table(["name", "aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc"], ["name"], least=["bbbbbbbbbb"])
    table.add_row("n", "1", "2", "3")
    assert "Not shown" not in printed(print_table, table, width=40)
    narrow = " ".join(printed(print_table, table, width=30).split())
    assert "Not shown at this width: bbbbbbbbbb." in narrow
    assert "--json" in narrow
    narrower = " ".join(printed(print_table, table, width=20).split())
    assert "Not shown at this width: bbbbbbbbbb, cccccccccc." in narrower


def test_text_of_cells_is_not_markup() -> None:
    table = text_table(["a"], ["a"])
    table.add_row("[bold]x[/bold] :smile:")
    assert "[bold]x[/bold] :smile:" in printed(print_table, table, width=80)
