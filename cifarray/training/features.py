"""Outputs of a frozen backbone, computed once per dataset and kept in the store as Parquet.

    features/<dataset>/<digest12>/<key12>/about.json            what was computed, of what
    features/<dataset>/<digest12>/<key12>/{train,test}/part-<rows>.parquet

The key is over the dataset's digest, the backbone, the sha256 of its weights and the preprocessing.
Each part is whole by itself and named after its rows. A rank reads the parts that hold rows of its
own, computes what no part has, and adds that: ranks, runs and selections share what they can, and
nothing breaks when parts vanish.

Shapes: N rows of a step or a part, R rows of a rank, D outputs of the backbone.
"""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad

from cifarray.data.augment.normalize import Normalize
from cifarray.data.shard import ResidentShard, Rows, Shard
from cifarray.data.split import STORED_SPLIT
from cifarray.digests import content_sha256, file_sha256
from cifarray.errors import JobError, KeyMissingError
from cifarray.models.timm_classifier import TimmClassifier
from cifarray.spec.augment import PreprocessSpec
from cifarray.spec.job import Job
from cifarray.spec.quantity import written_bytes
from cifarray.store import Store
from cifarray.store.layout import ABOUT_FILE, features_prefix
from cifarray.training.distributed import world
from cifarray.training.evaluation import EVALUATION_BATCH
from cifarray.training.preprocessing import preprocess_state
from cifarray.training.rows import RowSource

PART_BYTES = 64 << 20
"""Outputs of one part, about."""
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class FeatureCache:
    """The outputs of one backbone for the rows of one dataset."""

    store: Store
    about: dict[str, Any]
    """All that the outputs depend on; `dataset` and `digest` among it."""

    @property
    def prefix(self) -> str:
        """Its folder in the store."""
        key = content_sha256(json.dumps(self.about, sort_keys=True))
        return features_prefix(self.about["dataset"], self.about["digest"], key)

    def read(self, split: str, row_ids_R: Ids, width: int) -> tuple[Tensor, Tensor]:
        """(features_RD, known_R) of these rows of a stored split; zeros where no part has a row."""
        features_RD = np.zeros((len(row_ids_R), width), dtype=np.float32)
        known_R = np.zeros(len(row_ids_R), dtype=np.bool_)
        order_R = np.argsort(row_ids_R)
        for entry in self.store.list(f"{self.prefix}/{split}") if len(row_ids_R) else ():
            row_ids_N, outputs_ND = self._part(entry.key, width)
            found_N = np.searchsorted(row_ids_R, row_ids_N, sorter=order_R)
            places_N = order_R[np.minimum(found_N, len(row_ids_R) - 1)]
            mine_N = row_ids_R[places_N] == row_ids_N
            features_RD[places_N[mine_N]] = outputs_ND[mine_N]
            known_R[places_N[mine_N]] = True
        return torch.from_numpy(features_RD), torch.from_numpy(known_R)

    def write(self, split: str, row_ids_N: Ids, outputs_ND: NDArray[np.float32]) -> None:
        """Add a part, whole at once."""
        about = f"{self.prefix}/{ABOUT_FILE}"
        if not self.store.exists(about):
            self.store.write_json(about, self.about)
        schema = _schema(outputs_ND.shape[1])
        values = pa.py_buffer(np.ascontiguousarray(outputs_ND))
        outputs = pa.Array.from_buffers(schema.field(1).type, len(row_ids_N), [None, values])
        sink = pa.BufferOutputStream()
        pq.write_table(
            pa.Table.from_arrays([pa.array(row_ids_N), outputs], schema=schema),
            sink,
            compression="zstd",
            use_dictionary=False,
            write_page_checksum=True,
        )
        rows = content_sha256(row_ids_N.tobytes())[:12]
        key = f"{self.prefix}/{split}/part-{rows}.parquet"
        self.store.write(key, sink.getvalue().to_pybytes())

    def _part(self, key: str, width: int) -> tuple[Ids, NDArray[np.float32]]:
        """A part's rows; none where it is gone, damaged or of another layout."""
        try:
            with self.store.open_input(key) as source:
                parquet = pq.ParquetFile(source, page_checksum_verification=True)
                table = parquet.read() if parquet.schema_arrow.equals(_schema(width)) else None
        except (KeyMissingError, pa.ArrowException, OSError):
            table = None
        if table is None or not table.num_rows:
            return np.empty(0, dtype=np.int64), np.empty((0, width), dtype=np.float32)
        outputs = table["features"].combine_chunks()
        values = np.frombuffer(outputs.buffers()[1], dtype=np.float32)
        first = outputs.offset * width
        matrix_ND = values[first : first + len(outputs) * width].reshape(-1, width)
        return table["row_id"].to_numpy(), matrix_ND


def _schema(width: int) -> pa.Schema:
    """Columns row_id and features, one row's float32 outputs in one piece."""
    layout = {"shape": json.dumps([width]), "dtype": "float32"}
    return pa.schema(
        [
            pa.field("row_id", pa.int64(), nullable=False),
            pa.field("features", pa.binary(4 * width), nullable=False, metadata=layout),
        ]
    )


@torch.no_grad()
def add_missing(
    cache: FeatureCache,
    split: str,
    network: TimmClassifier,
    normalize: nn.Module,
    images: Shard,
    row_ids_R: Ids,
    features_RD: Tensor,
    known_R: Tensor,
) -> None:
    """Compute the outputs that are not known, into `features_RD` and the cache.

    `images` gives the rows of `row_ids_R` in this order. As in evaluation every batch is filled up
    to one size, so that a row's outputs do not depend on how many rows stand beside it.
    """
    part_rows = max(EVALUATION_BATCH, PART_BYTES // (4 * features_RD.shape[1]))
    missing, first = int((~known_R).sum()), 0
    waiting: list[Tensor] = []
    network.eval()
    for rows in images.in_order(EVALUATION_BATCH):
        here_N = (~known_R[first : first + len(rows)]).nonzero()[:, 0]
        if len(here_N):
            images_NCHW = pad(rows.images_NCHW, (0, 0) * 3 + (0, EVALUATION_BATCH - len(rows)))
            outputs_ND = network.features(normalize(images_NCHW)).float().cpu()
            features_RD[first + here_N] = outputs_ND[here_N]
            waiting.append(first + here_N)
        first += len(rows)
        if waiting and (sum(map(len, waiting)) >= part_rows or first == len(row_ids_R)):
            places_N = torch.cat(waiting)
            cache.write(split, row_ids_R[places_N.numpy()], features_RD[places_N].numpy())
            missing, waiting = missing - len(places_N), []
            print(f"computed features of {len(places_N)} {split} rows, {missing} to go", flush=True)


class FeatureRows:
    """A rank's rows with features in place of images, as `model.features: cached` trains on them.

    To the rest of a training they are images of D channels and one pixel, which the network
    recognizes as features; checkpoints hold the whole network.
    """

    def __init__(self, job: Job, rows: RowSource, network: nn.Module, weights: Path) -> None:
        """`weights` is the file of the backbone's weights. Raises: JobError."""
        assert isinstance(network, TimmClassifier)  # no other network reads model.features
        self._job, self._rows, self._network = job, rows, network
        self._weights_sha256 = file_sha256(weights)
        self._held: dict[str, Shard] = {}
        self.as_they_are = Normalize(PreprocessSpec(normalize="none"), [0.0], [1.0])
        self.as_they_are.to(rows.device)

    def shard(self, split: str, normalize: Normalize) -> Shard:
        """This rank's rows of a split; features that the store lacks are computed first."""
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
        assert self._rows.store is not None, "features are stored in the dataset's store"
        manifest = self._rows.manifest
        about = {
            "dataset": manifest.name,
            "digest": manifest.digest,
            "backbone": self._job.model.name,
            "weights_sha256": self._weights_sha256,
            "preprocess": _described(self._job, normalize),
            "timm": version("timm"),  # a release may fix what a network of the same name computes
        }
        return FeatureCache(self._rows.store, about)

    def _refuse_too_many(self) -> None:
        """Features stay on the device, as images do where they fit. Raises: JobError."""
        selection, (_, world_size) = self._rows.selection, world()
        rows = sum(selection.shard_rows(s, world_size)[0] for s in ("train", "validation"))
        size, limit = 4 * self._network.outputs * rows, self._rows.cache_bytes
        if size > limit:
            raise JobError(
                f"features of {rows} rows take {written_bytes(size, binary=True)} of a worker's "
                f"memory, but its cache is {written_bytes(limit, binary=True)}; raise "
                "cache_bytes_per_worker of the profile, use more workers, or leave model.features "
                "out"
            )


def _described(job: Job, normalize: Normalize) -> dict[str, Any]:
    """The preprocessing with its numbers, in JSON."""
    state = preprocess_state(normalize)
    fitted = {
        name: content_sha256(tensor.cpu().numpy().tobytes())
        for name, tensor in state.pop("whitening", {}).items()
    }
    return {**job.preprocess.model_dump(mode="json"), **state, **fitted}
