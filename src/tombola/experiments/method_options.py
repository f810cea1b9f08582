"""Options of methods: the sections of a recipe that each go with one `[search] method`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tombola.utils.frozen_model import FrozenModel

Method = Literal["iterative", "one-shot", "gradual", "set", "rigl", "early-bird", "edge-popup"]

IN_TRAINING = ("gradual", "set", "rigl")
"""Those whose mask changes while the network trains, so that weights are never rewound."""


class GradualSection(FrozenModel):
    """`[gradual]`: see `tombola.studies.gradual`."""

    begin: float = Field(default=0.0, ge=0, lt=1)
    """When pruning begins and ends, as fractions of the training."""
    end: float = Field(default=0.75, gt=0, lt=1)
    changes: int = Field(default=20, ge=1)
    """In how many steps, equally far apart."""

    @model_validator(mode="after")
    def _check(self) -> GradualSection:
        if self.begin >= self.end:
            raise ValueError(f"begin should be before end, {self.end:g}, not {self.begin:g}")
        return self


class SetSection(FrozenModel):
    """`[set]`: see `tombola.studies.dynamic`."""

    fraction: float = Field(default=0.3, gt=0, le=1)
    """ζ, the fraction of each layer's weights that one change moves."""
    end: float = Field(default=1.0, gt=0, le=1)
    """Up to which fraction of the training the mask changes."""
    changes: int = Field(default=20, ge=1)
    """How often, equally far apart."""


class RiglSection(FrozenModel):
    """`[rigl]`: see `tombola.studies.dynamic`."""

    fraction: float = Field(default=0.3, gt=0, le=1)
    """α, the fraction of each layer's weights that move at first; it falls to 0 along half a cosine."""
    end: float = Field(default=0.75, gt=0, le=1)
    """T_end: up to which fraction of the training the mask changes."""
    changes: int = Field(default=20, ge=1)
    """How often, equally far apart."""


class EarlyBirdSection(FrozenModel):
    """`[early_bird]`: see `tombola.studies.early_bird`."""

    draws: int = Field(default=20, ge=1)
    """How many masks are drawn at most, equally far apart; in the paper one each epoch."""
    window: int = Field(default=5, ge=2)
    """How many of the last masks must agree."""
    tolerance: float = Field(default=0.1, gt=0, lt=1)
    """The largest distance between any two of them that counts as agreement."""
    go_on: bool = False
    """Whether the ticket goes on from the weights at which its mask was drawn, as in the paper."""

    @model_validator(mode="after")
    def _check(self) -> EarlyBirdSection:
        if self.draws < self.window:
            raise ValueError(f"draws should be at least window, {self.window}, not {self.draws}")
        return self


class EdgePopupSection(FrozenModel):
    """`[edge_popup]`: see `tombola.studies.supermask`."""

    lr: float | None = Field(default=None, gt=0)
    """The learning rate of the scores; that of the training if it is not given."""


SECTIONS: dict[str, str] = {
    "gradual": "gradual",
    "set": "set",
    "rigl": "rigl",
    "early-bird": "early_bird",
    "edge-popup": "edge_popup",
}
"""By method, its section."""
