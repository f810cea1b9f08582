"""The bytes and FLOP of a step, by hand."""

from __future__ import annotations

import pytest
from benchmarks.roofline import Design, stacked_step

from benchmarks import roofline

WEIGHTS, PARAMETERS = 266_200, 266_610


def test_the_least_is_weights_and_optimizer_state_both_ways_and_the_inputs() -> None:
    adam, sgd = stacked_step("adam", 60, "least"), stacked_step("sgd", 64, "least")
    assert adam.total == 6 * 4 * PARAMETERS + 4 * 60 * 784 == 6_586_800
    assert sgd.total == 2 * 4 * PARAMETERS + 4 * 64 * 784 == 2_333_584


@pytest.mark.parametrize(
    ("optimizer", "batch", "design", "total"),
    [
        ("adam", 60, "plain", 14_968_160),
        ("adam", 60, "masking", 12_039_960),
        ("adam", 60, "fused", 8_851_560),
        ("sgd", 64, "plain", 10_839_296),
    ],
)
def test_the_bytes_of_each_design(optimizer: str, batch: int, design: Design, total: int) -> None:
    assert stacked_step(optimizer, batch, design).total == total  # type: ignore[arg-type]


def test_each_design_saves_what_it_says() -> None:
    plain, masking, fused = (stacked_step("adam", 60, design).bytes for design in ("plain", "masking", "fused"))
    assert plain["mask"] == 3 * 4 * WEIGHTS
    assert masking["mask"] == WEIGHTS
    assert {part for part in plain if plain[part] != masking[part]} == {"mask"}
    assert plain["weight gradients"] - fused["weight gradients"] == 4 * WEIGHTS
    assert plain["optimizer"] - fused["optimizer"] == 4 * PARAMETERS


def test_the_bytes_of_a_tiny_network_are_those_counted_by_hand() -> None:
    work = stacked_step("sgd", 2, "plain", (3, 2))  # 6 weights, 2 biases, no hidden units
    assert work.flop == 2 * 2 * (2 * 6)  # no gradient of the inputs
    assert work.bytes == {
        "inputs": 4 * 2 * 6,
        "forward products": 4 * (6 + 2 * 3 + 2 * 2),
        "weight gradients": 4 * (6 + 2 * 3 + 2 * 2),
        "input gradients": 0,
        "activations": 4 * (2 * 8 * 2 + 2 * 2 + 2),
        "optimizer": 4 * 3 * 8,
        "mask": 12 * 6,
    }


def test_flop_count_forward_products_and_both_gradients() -> None:
    assert stacked_step("adam", 60, "plain").flop == 2 * 60 * (2 * WEIGHTS + 31_000) == 67_608_000


def test_the_table_has_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    roofline.main(bandwidth=4.3)
    printed = capsys.readouterr().out
    assert all(part in printed for part in stacked_step("adam", 60, "plain").bytes)
    assert "653" in printed  # thousand steps per second: 4.3 TB/s over 6.5868 MB
