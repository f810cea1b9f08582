from __future__ import annotations

from tombola.utils.differences import differences


def test_different_nested_values_have_dotted_keys() -> None:
    one = {"name": "a", "data": {"name": "digits", "fraction": 0.5}, "controls": {"reinit": 1}}
    other = {"name": "a", "data": {"name": "digits"}, "controls": {"reinit": {"draws": 1, "levels": [2]}}}
    assert differences([one, other]) == {
        "data.fraction": [0.5, None],
        "controls.reinit": [1, None],
        "controls.reinit.draws": [None, 1],
        "controls.reinit.levels": [None, [2]],
    }
    assert differences([one, one, one]) == differences([one]) == differences([]) == {}
