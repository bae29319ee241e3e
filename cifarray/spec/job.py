"""A job: what to train or tune and on which dataset, but not where."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from cifarray.metrics import DEFAULT_OBJECTIVE
from cifarray.spec.augment import AugmentSpec, PreprocessSpec, without_preset
from cifarray.spec.record import Record
from cifarray.spec.sweep import SweepSpec

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
LONGEST = 1_000_000_000
"""Maximum of every duration in epochs or steps."""


class DatasetSpec(Record):
    """Which rows to learn from, and which of their labels."""

    name: str
    labels: Literal["fine", "coarse"] = "fine"
    classes: int | tuple[str, ...] | None = None
    """How many of the first classes, or a list of classes, numbered as listed; None: all."""
    archive_part: str | None = None
    """Use only the train rows of this part of the archive, such as data_batch_1 of cifar10."""
    rows: int | None = Field(default=None, ge=2)
    """Use only the first rows of train, in the archive's order, before validation is split off.

    Where classes or a part are chosen, only their rows count.
    """

    @field_validator("classes", mode="before")
    @classmethod
    def _a_number_or_names(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            # YAML reads the names of digits as numbers
            value = [str(name) if type(name) is int else name for name in value]
            if not all(isinstance(name, str) for name in value):
                raise ValueError("input should be a list of class names, or how many of the first")
            if twice := [name for name in value if value.count(name) > 1]:
                raise ValueError(f"{twice[0]} is listed twice")
        elif value is not None and type(value) is not int:
            raise ValueError("input should be a list of class names, or how many of the first")
        if value is not None and (value if isinstance(value, int) else len(value)) < 2:
            raise ValueError("at least two classes are required")
        return value


class ValidationSpec(Record):
    """The part of train that is held back for validation.

    A seeded, class-balanced fraction of it, or a whole part of the archive, whose rows are then
    never trained on.
    """

    fraction: float | None = Field(default=0.1, gt=0.0, lt=1.0)
    seed: int = Field(default=0, ge=0)
    archive_part: str | None = None
    """Excludes `fraction` and its seed."""

    @model_validator(mode="before")
    @classmethod
    def _a_part_has_no_fraction(cls, values: Any) -> Any:
        part = isinstance(values, dict) and values.get("archive_part") is not None
        return {"fraction": None, **values} if part else values

    @model_validator(mode="after")
    def _one_way_to_hold_back(self) -> "ValidationSpec":
        if (self.fraction is None) == (self.archive_part is None):
            raise ValueError(
                "give exactly one of fraction and archive_part, and set the other to null"
            )
        if self.archive_part is not None and self.seed:
            raise ValueError(f"archive_part uses no seed: leave seed {self.seed} out")
        return self


class ModelSpec(Record):
    """A network of the registry, one of timm's backbones, or `package.module:factory`."""

    name: str
    dropout: Fraction | None = None
    """The last dropout rate, usually that before the last layer; None: the network's default."""
    dropouts: tuple[float, ...] | None = None
    """All dropout rates of a network with several, in order; excludes `dropout`."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments, for a user-defined network."""
    weights: str = "none"
    """Initial weights: none (random), timm (published by timm), or an address: a file,
    a checkpoint's folder, s3://bucket/file, or `run:ID` for the best checkpoint of a run."""
    head: int | None = Field(default=None, ge=1, le=65_536)
    """`timm/`: width of a hidden dense layer before the last; None: no hidden layer."""
    frozen: bool = False
    """`timm/`: train only the head; the backbone keeps its weights and running statistics."""
    features: Literal["cached"] | None = None
    """`frozen`: compute the backbone's outputs once per dataset, and train the head on them."""

    @field_validator("weights")
    @classmethod
    def _an_address_that_can_be_read(cls, value: str) -> str:
        scheme, separator, rest = value.partition("://")
        if not value.strip() or value == "run:" or (separator and (scheme != "s3" or not rest)):
            raise ValueError(
                "give none, timm, a path, s3://bucket/file or run:ID; download other files first"
            )
        return value

    @model_validator(mode="after")
    def _one_way_to_say_dropout(self) -> "ModelSpec":
        if self.dropout is not None and self.dropouts is not None:
            raise ValueError("give dropout (the last rate) or dropouts (all of them), not both")
        if any(not 0.0 <= rate < 1.0 for rate in self.dropouts or ()):
            raise ValueError(
                f"dropouts must be rates from 0 up to 1, not {list(self.dropouts or ())}"
            )
        return self


class GroupSpec(Record):
    """Parameters with a learning rate and a weight decay of their own, chosen by their names."""

    pattern: str = Field(min_length=1, max_length=200)
    """A regular expression, searched anywhere in a name; the first group that matches wins."""
    lr_scale: float = Field(default=1.0, gt=0.0)
    """Multiplies the learning rate at every step."""
    weight_decay: float | None = Field(default=None, ge=0.0)
    """None: the optimizer's weight decay."""

    @field_validator("pattern")
    @classmethod
    def _is_a_regular_expression(cls, value: str) -> str:
        try:
            re.compile(value)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"this is not a regular expression: {error}") from error
        return value


class OptimizerSpec(Record):
    """An optimizer and its numbers; None leaves PyTorch's default."""

    name: str = "sgd"
    lr: float = Field(default=0.05, gt=0.0)
    weight_decay: float | None = Field(default=None, ge=0.0)
    momentum: float | None = Field(default=None, ge=0.0, lt=1.0)
    nesterov: bool | None = None
    beta1: Fraction | None = None
    beta2: Fraction | None = None
    alpha: Fraction | None = None
    eps: float | None = Field(default=None, gt=0.0)
    decay_norms: bool = True
    """False: no weight decay, in any group, for parameters with one dimension (biases, norms)."""
    groups: tuple[Annotated[GroupSpec, Field()], ...] = ()
    """Annotated, so that the list counts as one field: no path leads into it."""


class ScheduleSpec(Record):
    """How the learning rate changes, step by step, after a linear warm-up."""

    name: str = "constant"
    warmup_epochs: float | None = Field(default=None, ge=0.0, le=LONGEST)
    warmup_steps: int | None = Field(default=None, ge=0, le=LONGEST)
    every_epochs: float | None = Field(default=None, gt=0.0, le=LONGEST)
    """`step`: multiply by `gamma` each time this many epochs have passed."""
    every_steps: int | None = Field(default=None, ge=1, le=LONGEST)
    gamma: float | None = Field(default=None, gt=0.0, le=1.0)
    """`step`: factor per interval; `exponential`: factor per epoch."""
    final_fraction: float | None = Field(default=None, ge=0.0, le=1.0)
    """`cosine` and `onecycle`: the last learning rate as a fraction of the peak."""
    decay: float | None = Field(default=None, gt=0.0)
    """`inverse_time`: divide by 1 + `decay` * step, as Keras' optimizers do with their `decay`."""

    @model_validator(mode="after")
    def _one_unit_per_duration(self) -> "ScheduleSpec":
        for what in ("warmup", "every"):
            if None not in (getattr(self, f"{what}_epochs"), getattr(self, f"{what}_steps")):
                raise ValueError(f"give {what}_epochs or {what}_steps, not both")
        return self


class EarlyStoppingSpec(Record):
    """Stop when the metric has not improved by `min_delta` for `patience_epochs` epochs."""

    patience_epochs: int = Field(default=5, ge=1)
    metric: str = DEFAULT_OBJECTIVE
    min_delta: float = Field(default=0.0, ge=0.0)


class HistogramsSpec(Record):
    """Record histograms of weights, gradients and activations for TensorBoard."""

    every_epochs: int = Field(ge=1, le=LONGEST)


class TrainSpec(Record):
    """How long the training runs, to `epochs` or `steps`, whichever comes first, and how."""

    epochs: int | None = Field(default=None, ge=1, le=LONGEST)
    steps: int | None = Field(default=None, ge=1, le=LONGEST)
    global_batch_size: int = Field(default=256, ge=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = True
    """Memory layout of images and weights; faster on CPUs, and on GPUs with bf16."""
    compile: bool = False
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    clip_grad_norm: float | None = Field(default=None, gt=0.0)
    ema_decay: float | None = Field(default=None, gt=0.0, lt=1.0)
    sync_batchnorm: bool = False
    early_stopping: EarlyStoppingSpec | None = None
    histograms: HistogramsSpec | None = None

    @model_validator(mode="after")
    def _ends(self) -> "TrainSpec":
        if self.epochs is None and self.steps is None:
            raise ValueError(
                "give epochs or steps (or both: the first one reached ends the training)"
            )
        return self


class Job(Record):
    """A job file: one execution of it is a run."""

    name: str
    kind: Literal["train", "tune"]
    description: str = ""
    dataset: DatasetSpec
    validation: ValidationSpec = ValidationSpec()
    preprocess: PreprocessSpec = PreprocessSpec()
    augment: AugmentSpec = AugmentSpec()
    model: ModelSpec
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    train: TrainSpec
    seed: int = Field(default=0, ge=0)
    sweep: SweepSpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_preset_is_spelled_out(cls, values: Any) -> Any:
        return without_preset(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _no_part_trains_and_validates(self) -> "Job":
        part = self.dataset.archive_part
        if part is not None and part == self.validation.archive_part:
            raise ValueError(
                f"dataset.archive_part and validation.archive_part are both {part}; the same "
                "rows cannot both train and validate"
            )
        return self

    @model_validator(mode="after")
    def _what_is_computed_once_does_not_change(self) -> "Job":
        on = [f"augment.{name}" for name, _ in self.augment if getattr(self.augment, name)]
        if self.model.features == "cached" and on:
            raise ValueError(
                f"model.features cached computes each image once, but {on[0]} changes images in "
                "every epoch; leave one of the two out"
            )
        return self

    @model_validator(mode="after")
    def _kind_and_sweep_agree(self) -> "Job":
        if (self.kind == "tune") != (self.sweep is not None):
            raise ValueError("a job of kind tune has a sweep, and one of kind train has none")
        return self

    @property
    def metric(self) -> str:
        """The metric by which the best checkpoint is chosen."""
        if self.sweep is not None:
            return self.sweep.metric
        rule = self.train.early_stopping
        return DEFAULT_OBJECTIVE if rule is None else rule.metric
