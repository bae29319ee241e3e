"""Checkpoint folders: state.pt for training and prediction, checkpoint.json with its checksums.

A folder without checkpoint.json, or whose bytes differ from it, does not exist for readers.
Checksums prove that a state is what was written, not that cifarray wrote it: `CheckpointState` says
which types, lengths and ranges each of its keys may have.
"""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from torch import Tensor, nn

from cifarray.data.augment.normalize import Normalize
from cifarray.data.manifest import Sha256
from cifarray.digests import file_sha256
from cifarray.errors import CheckpointError, CifarrayError
from cifarray.models.pretrained import misfit_in_words
from cifarray.models.registry import build_model, is_user_network
from cifarray.models.torch_files import read_torch_file
from cifarray.spec.bounds import parse_json
from cifarray.spec.job import DatasetSpec, Job
from cifarray.store.layout import PROOF_FILE, STATE_FILE
from cifarray.training.preprocessing import restore_normalize

SCHEMA_VERSION = 1
MOST_FILES = 100
"""That a checkpoint.json lists; cifarray writes one."""
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
            raise ValueError("mean and std have different numbers of channels")
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
            raise ValueError("fine_to_coarse has a different number of classes")
        if any(label >= len(self.coarse_classes) for label in self.fine_to_coarse):
            raise ValueError("fine_to_coarse names a superclass that does not exist")
        if len(self.preprocess.mean) != self.job.preprocess.seen(self.input_shape)[2]:
            raise ValueError("preprocess has a different number of channels than input_shape")
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
                f"{what} contains a job whose {field.removeprefix('job.')} this version of "
                f"cifarray does not support: {message}"
            ) from error
        raise CheckpointError(
            f"{what} is not a checkpoint of cifarray: {field or 'it'}: {message}; use another "
            "checkpoint"
        ) from error


def write_checkpoint(folder: Path, state: dict[str, Any], record: dict[str, Any]) -> None:
    """Write state.pt and then checkpoint.json, which proves it."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"schema_version": SCHEMA_VERSION, **state}, folder / STATE_FILE)
    proof = {
        "schema_version": SCHEMA_VERSION,
        "epoch": record["epoch"],
        "step": record["step"],
        "metrics": record,
        "files": {STATE_FILE: _fingerprint(folder / STATE_FILE)},
    }
    (folder / PROOF_FILE).write_text(json.dumps(proof, indent=1), encoding="utf-8")


def check_folder(folder: Path) -> dict[str, Any]:
    """The content of checkpoint.json, if every file is as it says. Raises: CheckpointError."""
    try:
        proof: dict[str, Any] = parse_json((folder / PROOF_FILE).read_bytes())
        files = proof["files"]
        if len(files) > MOST_FILES:
            raise ValueError(f"it lists more than {MOST_FILES} files")
        wrong = [name for name in files if files[name] != _fingerprint(folder / Path(name).name)]
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).name
        raise CheckpointError(f"{folder} is not a checkpoint: {missing} is missing") from error
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise CheckpointError(f"{folder / PROOF_FILE} cannot be read: {error}") from error
    if wrong or STATE_FILE not in files:
        raise CheckpointError(
            f"{folder} is damaged: {', '.join(wrong) or STATE_FILE} differs from {PROOF_FILE}; "
            "use another checkpoint or pull it again"
        )
    return proof


def read_state(folder: Path) -> dict[str, Any]:
    """The checked state of a checkpoint folder; tensors on the CPU. Raises: CheckpointError."""
    check_folder(folder)
    path = folder / STATE_FILE
    try:
        state = read_torch_file(path)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} is not a checkpoint of cifarray: {reason}; use another checkpoint"
        ) from error
    if not isinstance(state, dict) or state.get("schema_version") != SCHEMA_VERSION:
        raise CheckpointError(
            f"{path} does not have schema version {SCHEMA_VERSION}; it was written by another "
            "version of cifarray"
        )
    check_state(state, str(path))
    return state


def _fingerprint(path: Path) -> dict[str, Any]:
    return {"size_bytes": path.stat().st_size, "sha256": file_sha256(path)}


@dataclass(frozen=True)
class Checkpoint:
    """A network with all that prediction needs."""

    model: nn.Module
    """Built and loaded, in eval mode, on the CPU."""
    job: Job
    classes: tuple[str, ...]
    """Names of the labels that it predicts."""
    coarse_classes: tuple[str, ...]
    fine_to_coarse: tuple[int, ...]
    """Empty where the dataset has no superclasses, or coarse labels were learned."""
    input_shape: tuple[int, int, int]
    """Height, width, channels."""
    preprocess: Normalize
    mean: tuple[float, ...]
    std: tuple[float, ...]
    epoch: int
    step: int
    metrics: dict[str, Any]
    dataset: dict[str, Any]
    """`digest`, and the job's section: `name`, `labels`, and what it selects."""


def load_checkpoint(folder: Path, code: Path | None = None) -> Checkpoint:
    """Build the network of a checkpoint folder and load its weights.

    Args:
        code: the folder of a user-defined network; a checkpoint never brings code.
    Raises: CheckpointError, JobError.
    """
    state = read_state(folder)
    job = Job.model_validate(state["job"])
    classes, shape = tuple(state["classes"]), tuple(state["input_shape"])
    _refuse_misfit(folder, job, len(classes), shape, state["model"], code)
    model = build_network(job, len(classes), shape, code)
    load_weights(model, state["model"], f"{folder} does not fit network {job.model.name}")
    preprocess = restore_normalize(job, state["preprocess"], shape)
    return Checkpoint(
        model=model.eval(),
        job=job,
        classes=classes,
        coarse_classes=tuple(state["coarse_classes"]),
        fine_to_coarse=tuple(state["fine_to_coarse"]),
        input_shape=shape,
        preprocess=preprocess,
        mean=tuple(preprocess.mean),
        std=tuple(preprocess.std),
        epoch=state["epoch"],
        step=state["step"],
        metrics=state["history"][-1] if state["history"] else {},
        dataset=state["dataset"],
    )


def _refuse_misfit(
    folder: Path,
    job: Job,
    num_classes: int,
    shape: tuple[int, int, int],
    weights: dict[str, Tensor],
    code: Path | None,
) -> None:
    """Compare the weights with the network's shapes before any memory is allocated for it."""
    name = job.model.name
    try:
        with torch.device("meta"):
            network = build_network(job, num_classes, shape, code)
    except Exception as error:  # torch's, for sizes that no tensor has
        if is_user_network(name):
            return  # it may need what the meta device lacks
        if isinstance(error, CifarrayError):
            raise
        size = "x".join(map(str, shape))
        raise CheckpointError(
            f"{folder}: network {name} cannot be built for images of {size}; use another checkpoint"
        ) from error
    if misfit := misfit_in_words(network, weights):
        raise CheckpointError(f"{folder} does not fit network {name}: {misfit}")


def load_weights(model: nn.Module, weights: dict[str, Tensor], misfit: str) -> None:
    """Load all weights into the network. Raises: CheckpointError, which begins with `misfit`."""
    if reason := misfit_in_words(model, weights):
        raise CheckpointError(f"{misfit}: {reason}")
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{misfit}: {' '.join(str(error).split())[:300]}") from error


def build_network(
    job: Job, num_classes: int, shape: tuple[int, int, int], code: Path | None = None
) -> nn.Module:
    """A job's network with random weights, in the memory layout of its training.

    `shape` is (H, W, C) of the images as stored, not as the network sees them. Evaluation in
    another layout would round differently, in the last digits.
    """
    model = build_model(job.model, num_classes, job.preprocess.seen(shape), code)
    layout = torch.channels_last if job.train.channels_last else torch.contiguous_format
    return model.to(memory_format=layout)


def seed_rng(seed: int) -> None:
    """Seed this process's random generators, those that a user-defined network draws from too."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def rng_state() -> dict[str, Any]:
    """The state of this process's random generators, as tensors and plain values."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "python": list(random.getstate()[1]),
        "python_gauss": random.getstate()[2],
        "numpy": [name, [int(key) for key in keys], int(position), int(has_gauss), float(gauss)],
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Set this process's random generators to a saved state."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    random.setstate((3, tuple(state["python"]), state["python_gauss"]))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))


@contextmanager
def kept_rng() -> Iterator[None]:
    """Leave this process's random generators as they are, whatever draws from them inside."""
    before = rng_state()
    try:
        yield
    finally:
        restore_rng(before)
