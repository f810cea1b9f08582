"""Training: how a network is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tombola.utils.duration import Duration
from tombola.utils.frozen_model import FrozenModel

Precision = Literal["fp32", "tf32", "bf16"]


class Training(FrozenModel):
    """How a network is trained."""

    optimizer: Literal["adam", "sgd"]
    lr: float = Field(gt=0)
    """Learning rate."""
    batch_size: int = Field(ge=1)
    length: Duration
    """How long: iterations (batches) or epochs."""
    evaluate_every: Duration = Duration(iterations=100)
    """Validation happens every so often, and after the last iteration."""
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """Of SGD."""
    weight_decay: float = Field(default=0.0, ge=0)
    """The L2 penalty's coefficient, added to the gradient of every parameter."""
    decay_normalisation: bool = True
    """Whether that includes the scales and shifts of normalisation layers."""
    nesterov: bool = False
    """Whether momentum looks ahead (Sutskever et al. 2013, section 3), as torch does it."""
    schedule: Literal["constant", "step", "cosine"] = "constant"
    """What becomes of the learning rate; see `tombola.engines.lr_schedule`."""
    milestones: Annotated[tuple[Duration, ...], Field(strict=False)] = ()
    """When a `step` schedule multiplies the learning rate by `decay`."""
    decay: float = Field(default=0.1, gt=0, le=1)
    warmup: Duration = Duration()
    """Over how long the learning rate grows linearly from 0 at first."""
    test_curve: bool = False
    """Whether to record the test set's loss and accuracy at every evaluation too. Nothing is chosen by it."""
    precision: Precision = "fp32"
    """What the network's arithmetic is done in, weights and optimizer always in float32. `tf32`: on CUDA, matrix
    multiplications and convolutions round their inputs to TF32. `bf16`: the forward pass is under torch's autocast
    to bfloat16, in training and in evaluation."""

    @model_validator(mode="after")
    def _check(self) -> Training:
        if self.optimizer == "adam" and self.momentum:
            raise ValueError('momentum is an option of optimizer "sgd"; adam has its own')
        if self.nesterov and not self.momentum:
            raise ValueError('nesterov goes with optimizer "sgd" and a momentum')
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError('milestones, such as ["20000it", "25000it"], go with schedule = "step"')
        for name in ("length", "evaluate_every"):
            if getattr(self, name) == Duration():
                raise ValueError(f"{name} should be at least 1it")
        return self

    def in_iterations(self, examples: int) -> Training:
        """The same training with its lengths in iterations, `examples` making an epoch.

        Raises `ValueError` where milestones are not in order, or the warm-up does not end before the training.
        """

        def iterations(length: Duration) -> Duration:
            return length.in_iterations(examples, self.batch_size)

        lengths = {name: iterations(getattr(self, name)) for name in ("length", "evaluate_every", "warmup")}
        milestones = tuple(map(iterations, self.milestones))
        at = [milestone.iterations for milestone in milestones]
        if at != sorted({0, *at, lengths["length"].iterations})[1:-1]:
            raise ValueError(
                f"milestones: should be in order, between 0it and the length, {self.length}, not "
                f"{', '.join(map(str, self.milestones))}"
            )
        if lengths["warmup"].iterations >= lengths["length"].iterations:
            raise ValueError(f"warmup: should be shorter than the length, {self.length}, not {self.warmup}")
        return self.model_copy(update=lengths | {"milestones": milestones})
