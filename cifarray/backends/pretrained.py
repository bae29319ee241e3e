"""The pretrained weights of a run: found, checked against its network, written as one file.

The file travels in the run's folder, so that every worker, trial and attempt starts with the same
bytes, and no worker downloads anything.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cifarray.backends.checks import candidates
from cifarray.errors import CheckpointError, JobError
from cifarray.models.registry import build_model, is_user_network
from cifarray.runs import Run
from cifarray.spec.job import Job
from cifarray.spec.run import WeightsSpec
from cifarray.store import Store
from cifarray.store.layout import WEIGHTS_FILE
from cifarray.user_folders import expanded

if TYPE_CHECKING:
    from cifarray.models.pretrained import Weights

RUN, S3 = "run:", "s3://"


@dataclass(frozen=True)
class PretrainedWeights:
    """Weights on this machine, ready to be copied."""

    path: Path
    source: str
    """Their source: `model.weights`, or the key of a run's checkpoint."""
    sha256: str
    fresh: tuple[str, ...]
    """The network's weights that the file lacks; for a sweep, those of any trial."""

    def spec(self, key: str) -> WeightsSpec:
        """What a run records of them, once they lie under this key."""
        return WeightsSpec(key=key, source=self.source, sha256=self.sha256, fresh=self.fresh)


def is_local_path(weights: str) -> bool:
    """Whether `model.weights` is a path, which means nothing on another machine."""
    return weights not in ("none", "timm") and not weights.startswith((RUN, S3))


def find_weights(
    job: Job, store: Store, shape: tuple[int, int, int], num_classes: int, folder: Path
) -> PretrainedWeights | None:
    """Write the job's weights into the folder, if it names any that its networks take.

    `shape` is (H, W, C) of the dataset's images. Weights of a network of the user are checked
    against it by the workers: its code does not run here.

    Raises: JobError, CheckpointError, RunNotFoundError, StoreError.
    """
    if job.model.weights == "none":
        return None
    import torch
    from safetensors.torch import save_file

    from cifarray.digests import file_sha256
    from cifarray.models.pretrained import match_weights

    (weights, source), fresh = _found(job, store, folder), list[tuple[str, ...]]()
    heads = {candidate.model.head: candidate for candidate in candidates(job)}
    for candidate in heads.values() if not is_user_network(job.model.name) else ():
        seen = candidate.preprocess.seen(shape)
        with torch.device("meta"):
            network = build_model(candidate.model, num_classes, seen)
        match = match_weights(network, job.model.name, weights, job.model.weights)
        fresh.append(match.fresh)
    path = folder / WEIGHTS_FILE
    save_file({key: tensor.detach().clone().contiguous() for key, tensor in weights.items()}, path)
    ever_fresh = tuple(dict.fromkeys(key for keys in fresh for key in keys))
    return PretrainedWeights(path, source, file_sha256(path), ever_fresh)


def _found(job: Job, store: Store, scratch: Path) -> tuple["Weights", str]:
    """The tensors at the address, and what they were read from."""
    from cifarray.inference.find_checkpoint import checkpoint_in_folder, checkpoint_of_run
    from cifarray.models.pretrained import published_weights, read_weights
    from cifarray.store.layout import STATE_FILE

    source = job.model.weights
    if source == "timm":
        return published_weights(job.model.name), source
    if source.startswith(RUN):
        run = Run.open(store, source.removeprefix(RUN))
        folder, key = checkpoint_of_run(run, scratch / "run")
        return read_weights(folder / STATE_FILE, source), key
    if source.startswith(S3):
        downloaded = _downloaded(source, store, scratch / "downloaded")
        return read_weights(downloaded, source), source
    path = Path(expanded(source))
    try:
        if path.is_dir():
            found = checkpoint_in_folder(path)
            assert found is not None  # a folder is a checkpoint, or refused
            path = found[0] / STATE_FILE
        elif not path.exists():
            raise JobError(
                f"no weights at {source}; give model.weights as a file, a checkpoint's folder, "
                "s3://bucket/file or run:ID"
            )
    except OSError as error:
        raise CheckpointError(
            f"{source} cannot be read: {error.strerror}; give another path"
        ) from error
    return read_weights(path, source), source


def _downloaded(source: str, store: Store, path: Path) -> Path:
    """An object of a bucket, read as the run's own store is: with its endpoint, if it has one."""
    parent, _, name = source.rpartition("/")
    if parent.count("/") < 2 or not name:
        raise JobError(f"{source} names no object; give s3://bucket/file")
    Store.open(parent, store.endpoint, store.access).download(name, path)
    return path
