"""A rank's rows with a frozen backbone's features in the place of their images.

Shapes: R rows of a rank, D outputs of the backbone.
"""

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from cifarray.data.augment import Normalize
from cifarray.data.cache import ResidentShard, Rows, Shard
from cifarray.data.selection import STORED_SPLIT
from cifarray.errors import JobError
from cifarray.models.timm_classifier import TimmClassifier
from cifarray.models.weights import file_sha256
from cifarray.spec.images import PreprocessSpec
from cifarray.spec.job import Job
from cifarray.training.distributed import world
from cifarray.training.features import FeatureCache, add_missing
from cifarray.training.preprocessing import preprocess_state
from cifarray.training.rows import RowSource


class FeatureRows:
    """What `model.features: cached` trains and judges a network on.

    To the rest of a training they are images of D channels and one pixel, which the network knows
    for features; checkpoints hold the whole network.
    """

    def __init__(self, job: Job, rows: RowSource, network: nn.Module, weights: Path) -> None:
        """`weights` are those that the network's backbone has. Raises: JobError."""
        assert isinstance(network, TimmClassifier)  # no other network reads model.features
        self._job, self._rows, self._network = job, rows, network
        self._weights_sha256 = file_sha256(weights)
        self._held: dict[str, Shard] = {}
        self.as_they_are = Normalize(PreprocessSpec(normalize="none"), [0.0], [1.0])
        self.as_they_are.to(rows.device)

    def shard(self, split: str, normalize: Normalize) -> Shard:
        """This rank's rows of a split; features that the store lacks are computed at first."""
        if split not in self._held:
            self._held[split] = self._open(split, normalize)
        return self._held[split]

    def _open(self, split: str, normalize: Normalize) -> Shard:
        self._refuse_too_many()
        labels_R, row_ids_R = self._rows.labels(split)
        cache, stored = self._cache(normalize), STORED_SPLIT[split]
        ids_R = row_ids_R.numpy()
        features_RD, known_R = cache.read(stored, ids_R, self._network.outputs)
        if not known_R.all():
            images = self._rows.passing(split)
            add_missing(
                cache, stored, self._network, normalize, images, ids_R, features_RD, known_R
            )
        held = Rows(features_RD[:, :, None, None], labels_R, row_ids_R)
        return ResidentShard(held, self._rows.device)

    def _cache(self, normalize: Normalize) -> FeatureCache:
        assert self._rows.store is not None, "features are kept in the dataset's store"
        manifest = self._rows.manifest
        about = {
            "dataset": manifest.name,
            "digest": manifest.digest,
            "backbone": self._job.model.name,
            "weights_sha256": self._weights_sha256,
            "preprocess": _said(self._job, normalize),
            "timm": version("timm"),  # which now and then mends what a network of a name computes
        }
        return FeatureCache(self._rows.store, about)

    def _refuse_too_many(self) -> None:
        """Features stay on the device, as images do where they fit. Raises: JobError."""
        selection, (_, world_size) = self._rows.selection, world()
        rows = sum(selection.shard_rows(s, world_size)[0] for s in ("train", "validation"))
        size, limit = 4 * self._network.outputs * rows, self._rows.cache_bytes
        if size > limit:
            raise JobError(
                f"features of {rows} rows take {size >> 20} MiB of a worker, and its cache holds "
                f"{limit >> 20}; raise cache_bytes_per_worker of the profile, take more workers, "
                "or leave model.features out"
            )


def _said(job: Job, normalize: Normalize) -> dict[str, Any]:
    """The preprocessing with its numbers, in JSON."""
    state = preprocess_state(normalize)
    fitted = {
        name: hashlib.sha256(tensor.cpu().numpy().tobytes()).hexdigest()
        for name, tensor in state.pop("whitening", {}).items()
    }
    return {**job.preprocess.model_dump(mode="json"), **state, **fitted}
