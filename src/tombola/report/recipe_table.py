"""The recipes that come with tombola, in as few lines as fit a small terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping

from tombola.experiments.recipe_index import RecipeSize

WIDTH = 80

NOTE = "Times: two cores, by rough arithmetic. To measure: tombola run NAME --dry-run"

UNITS = (("years", 365 * 86400), ("days", 86400), ("h", 3600), ("min", 60))

NO_BREAK = "\xa0"

SIMILAR = 4
"""The time of a variant is given if it is that many times longer or shorter than that of its family."""


def recipe_lines(sizes: Mapping[str, RecipeSize], width: int = WIDTH) -> Iterator[str]:
    """A line for each family of recipes, the fastest first, and below it the endings of its variants.

    Numbers of examples, and then of weights, are left out where the `width`, in characters, is too small for them."""
    left_out = [name for name, needs in (("examples", WIDTH), ("weights", WIDTH - 10)) if width < needs]
    cells = {"examples": " {2:>9}", "weights": " {3:>10}"}
    row = ("{0:23} {1:25}" + "".join(cell for name, cell in cells.items() if name not in left_out) + " {4:>9}").format
    yield row("recipe (and -variants)", "network and dataset", "examples", "weights", "time")
    for base, variants in sorted(families(sizes).items(), key=lambda family: sizes[family[0]].seconds):
        size = sizes[base]
        yield row(base, size.title, f"{size.examples:,}", f"{size.weights:,}", rough_duration(size.seconds))
        listed = _variants(size.seconds, {name.removeprefix(base): sizes[name].seconds for name in variants})
        lines = textwrap.wrap(
            listed, min(width, WIDTH), initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
        yield from (line.replace(NO_BREAK, " ") for line in lines)
    yield NOTE
    if left_out:
        yield f"Not shown at this width: {', '.join(left_out)}."


def families(names: Iterable[str]) -> dict[str, list[str]]:
    """By the name of each recipe that is no variant of another, the names of its variants.

    >>> families(["digits", "digits-set", "vgg-small"])
    {'digits': ['digits-set'], 'vgg-small': []}
    """
    found: dict[str, list[str]] = {}
    for name in sorted(names):  # a base stands before its variants
        base = next((base for base in found if name.startswith(f"{base}-")), None)
        found.setdefault(base or name, []).extend([name] if base else [])
    return found


def rough_duration(seconds: float) -> str:
    """With one digit: `1 min`, `30 min`, `4 days`.

    >>> rough_duration(1234), rough_duration(200 * 86400)
    ('20 min', '200 days')
    """
    unit, length = next(((unit, length) for unit, length in UNITS if seconds >= length), UNITS[-1])
    count = max(1, float(f"{seconds / length:.1g}"))
    return f"{count:,.0f} {unit.removesuffix('s') if count == 1 else unit}"


def _variants(base: float, variants: Mapping[str, float]) -> str:
    """The endings of the variants' names, given with their seconds; a time follows those that take another one than
    `base`, to which similar ones are added."""
    others = {name: time for name, time in variants.items() if not base / SIMILAR < time < base * SIMILAR}
    groups: list[list[str]] = []
    for name in sorted(others, key=lambda name: others[name]):
        if groups and others[name] < 2 * others[groups[-1][0]]:
            groups[-1].append(name)
        else:
            groups.append([name])
    parts = [" ".join(name for name in variants if name not in others)]
    times = [rough_duration(others[group[-1]]).replace(" ", NO_BREAK) for group in groups]
    parts += [f"{' '.join(group)}{NO_BREAK}{time}" for group, time in zip(groups, times, strict=True)]
    return ", ".join(filter(None, parts))
