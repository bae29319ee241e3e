"""What the state of a checkpoint may hold: types, lengths and ranges of every key.

Checksums prove that a state is what was written, not that cifarray wrote it.
"""

from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from torch import Tensor

from cifarray.data.manifest import Sha256
from cifarray.errors import CheckpointError
from cifarray.spec.job import DatasetSpec, Job

LONGEST_SIDE, MOST_CHANNELS, MOST_CLASSES = 4096, 4, 32_767
"""Of images and labels, as a dataset's manifest allows them."""
MOST_WORKERS = 1 << 16
PYTHONS_WORDS, NUMPYS_WORDS = 625, 624
"""Of the Mersenne Twister's state; Python counts the position among them."""

Count = Annotated[int, Field(strict=True, ge=0, lt=1 << 63)]
Word = Annotated[int, Field(strict=True, ge=0, lt=1 << 32)]
Name = Annotated[str, Field(strict=True, min_length=1)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Weights = Annotated[dict[str, Tensor], Field(min_length=1)]
Side = Annotated[int, Field(strict=True, ge=1, le=LONGEST_SIDE)]
Channels = Annotated[int, Field(strict=True, ge=1, le=MOST_CHANNELS)]
Workers = Annotated[int, Field(strict=True, ge=1, le=MOST_WORKERS)]
Channelwise = Annotated[tuple[Number, ...], Field(min_length=1, max_length=MOST_CHANNELS)]


class _Part(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)


class RandomState(_Part):
    """One rank's random generators; see `rng_state`."""

    torch: Tensor
    cuda: Tensor | None
    python: Annotated[tuple[Word, ...], Field(min_length=PYTHONS_WORDS, max_length=PYTHONS_WORDS)]
    python_gauss: Number | None
    numpy: tuple[
        Literal["MT19937"],
        Annotated[tuple[Word, ...], Field(min_length=NUMPYS_WORDS, max_length=NUMPYS_WORDS)],
        Annotated[int, Field(strict=True, ge=0, le=NUMPYS_WORDS)],
        Annotated[int, Field(strict=True, ge=0, le=1)],
        Number,
    ]

    @model_validator(mode="after")
    def _is_of_torchs_generator(self) -> Self:
        if self.torch.dtype != torch.uint8 or self.torch.shape != torch.get_rng_state().shape:
            raise ValueError("torch's is not a state of its generator")
        if self.python[-1] > NUMPYS_WORDS:
            raise ValueError(f"python's position is {self.python[-1]}")
        return self


class OptimizerState(_Part):
    """What `state_dict` of a torch optimizer gives."""

    state: dict[Count, dict[str, Any]]
    param_groups: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]


class EpochRecord(_Part):
    """One epoch's figures: what training reads, and further ones."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    epoch: Count
    step: Count


class PreprocessState(_Part):
    """See `preprocess_state`; whether its whitening fits is for `restore_normalize` to say."""

    normalize: Name
    mean: Channelwise
    std: Channelwise
    whitening: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _is_of_as_many_channels(self) -> Self:
        if len(self.mean) != len(self.std) or min(self.std) < 0.0:
            raise ValueError("mean and std are not of the same channels")
        return self


class DatasetState(DatasetSpec):
    """The job's section on data, and the digest of the dataset that it meant."""

    digest: Sha256


class CheckpointState(_Part):
    """A state as `Trainer.state` gathers it."""

    model: Weights
    raw_model: Weights | None
    averaged: Count | None
    optimizer: OptimizerState
    epoch: Count
    step: Count
    rng: Annotated[tuple[RandomState, ...], Field(min_length=1, max_length=MOST_WORKERS)]
    history: Annotated[tuple[EpochRecord, ...], Field(min_length=1)]
    job: Job
    dataset: DatasetState
    validation_sha256: Sha256
    classes: Annotated[tuple[Name, ...], Field(min_length=2, max_length=MOST_CLASSES)]
    coarse_classes: tuple[Name, ...]
    fine_to_coarse: tuple[Count, ...]
    input_shape: tuple[Side, Side, Channels]
    preprocess: PreprocessState
    parameters: Count
    world_size: Workers
    threads: Workers

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        last = self.history[-1]
        if (last.epoch, last.step) != (self.epoch, self.step):
            raise ValueError(f"history ends with epoch {last.epoch}, not {self.epoch}")
        if self.fine_to_coarse and len(self.fine_to_coarse) != len(self.classes):
            raise ValueError("fine_to_coarse is not of as many classes")
        if any(label >= len(self.coarse_classes) for label in self.fine_to_coarse):
            raise ValueError("fine_to_coarse names a superclass that is none")
        if len(self.preprocess.mean) != self.job.preprocess.seen(self.input_shape)[2]:
            raise ValueError("preprocess is of other channels than input_shape")
        return self


STATE_KEYS = frozenset(CheckpointState.model_fields)
"""What a state holds; `Trainer.state` gathers it."""


def check_state(state: dict[str, Any], what: str) -> None:
    """Refuse a state that lacks a key or holds what none may hold. Raises: CheckpointError."""
    if missing := sorted(STATE_KEYS - state.keys()):
        raise CheckpointError(f"{what} lacks {', '.join(missing)}; use another checkpoint")
    try:
        CheckpointState.model_validate(state)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part)[:80] for part in first["loc"])
        message = " ".join(first["msg"].removeprefix("Value error, ").split())[:300]
        message = message[:1].lower() + message[1:]
        if first["loc"][:1] == ("job",):
            raise CheckpointError(
                f"{what} holds a job whose {field.removeprefix('job.')} this version of cifarray "
                f"does not read: {message}"
            ) from error
        raise CheckpointError(
            f"{what} is not a state of cifarray: {field or 'it'}: {message}; use another checkpoint"
        ) from error
