from __future__ import annotations

from tombola.zoo.datasets.registry import load


def test_digits_are_real_and_always_divided_alike() -> None:
    digits = load("digits")
    assert digits.x_train.shape == (1197, 8, 8)
    assert digits.x_test.shape == (600, 8, 8)
    assert (digits.x_train.min(), digits.x_train.max(), digits.classes) == (0, 1, 10)
    assert digits.digest == load("digits").digest == "d9368b8a55d670342d8eaa381569f158"
    images = {image.tobytes() for image in digits.x_train}
    shared = sum(image.tobytes() in images for image in digits.x_test)
    assert shared == 0  # no test image was trained on
