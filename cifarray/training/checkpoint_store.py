"""Checkpoints in a store: lists, verifies, stores and fetches them."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cifarray.errors import (
    CheckpointError,
    KeyMissingError,
    StoreDamagedError,
    StoreRefusedError,
)
from cifarray.metrics import epoch_value, ranked
from cifarray.runs.index import check_index
from cifarray.store import Store
from cifarray.store.layout import CHECKPOINTS, PROOF_FILE, STATE_FILE
from cifarray.training.checkpoint import check_folder, write_checkpoint

NO_PROOF = (KeyError, TypeError, ValueError, OverflowError)
"""Errors when a record has no valid figures; int() of infinity overflows."""


@dataclass(frozen=True)
class StoredCheckpoint:
    """A folder of the store that holds a checkpoint.json; its files are not yet checked."""

    key: str
    epoch: int
    metrics: dict[str, Any]
    folder: Path | None = None
    """Where its files lie on this machine once they are fetched and checked."""


def stored_checkpoints(store: Store, prefix: str) -> list[StoredCheckpoint]:
    """Every checkpoint below a prefix, newest epoch first; unreadable ones are passed over."""
    found = []
    for entry in store.list(prefix):
        folder, _, name = entry.key.rpartition("/")
        if name == PROOF_FILE:
            try:
                proof = store.read_json(entry.key)
                found.append(StoredCheckpoint(folder, int(proof["epoch"]), dict(proof["metrics"])))
            except (KeyMissingError, StoreDamagedError, *NO_PROOF):
                continue
    return sorted(found, key=lambda checkpoint: (-checkpoint.epoch, checkpoint.key))


def keep(store: Store, prefix: str, name: str, state: dict[str, Any], metric: str) -> None:
    """Store a checkpoint of the state's last epoch; of all below the prefix best and last remain.

    Nothing is deleted before the new one is listed with all its files. Raises: StoreError.
    """
    record, key = state["history"][-1], f"{prefix}/{CHECKPOINTS}/{name}"
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), state, record)
        for file in (STATE_FILE, PROOF_FILE):
            store.upload(Path(folder) / file, f"{key}/{file}")
    if problems := check_index(store, key, deep=False, index=PROOF_FILE):
        raise StoreDamagedError(
            f"the checkpoint of epoch {record['epoch']} is not complete in {store.uri}: "
            f"{problems[0]}; older checkpoints are kept"
        )
    found = stored_checkpoints(store, prefix)
    kept = {key, *(best.key for best in by_metric(found, metric)[:1])}
    for other in (checkpoint.key for checkpoint in found if checkpoint.key not in kept):
        try:
            store.delete_folder(other)
        except StoreRefusedError as error:  # it costs space, not an epoch
            print(f"warning: the old checkpoint {other} could not be deleted: {error}", flush=True)


def checkpoint_name(epoch: int, token: str) -> str:
    """Folder of an epoch's checkpoint; `token` differs between processes that write one epoch."""
    return f"epoch_{epoch:06d}_{token}"


def fetch(store: Store, key: str, folder: Path) -> Path:
    """Copy a checkpoint's files into a local folder and check them. Raises: CheckpointError."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for name in (STATE_FILE, PROOF_FILE):
            (folder / name).write_bytes(store.read(f"{key}/{name}"))
    except KeyMissingError as error:
        raise CheckpointError(f"checkpoint {key} cannot be read: {error}") from error
    check_folder(folder)
    return folder


def newest_good(store: Store, prefix: str, scratch: Path) -> StoredCheckpoint | None:
    """The checkpoint of the latest epoch below a prefix whose bytes are as it says."""
    return next(_good(store, stored_checkpoints(store, prefix), scratch), None)


def best_good(store: Store, prefix: str, metric: str, scratch: Path) -> StoredCheckpoint | None:
    """The whole checkpoint with the best metric."""
    return next(_good(store, by_metric(stored_checkpoints(store, prefix), metric), scratch), None)


def by_metric(found: list[StoredCheckpoint], metric: str) -> list[StoredCheckpoint]:
    """Best value first, of equals the earliest epoch; checkpoints without one are left out."""
    by_epoch = sorted(found, key=lambda checkpoint: (checkpoint.epoch, checkpoint.key))
    return ranked(by_epoch, metric, lambda checkpoint: epoch_value(checkpoint.metrics, metric))


def _good(
    store: Store, candidates: list[StoredCheckpoint], scratch: Path
) -> Iterator[StoredCheckpoint]:
    for number, candidate in enumerate(candidates):
        try:
            folder = fetch(store, candidate.key, scratch / str(number))
        except CheckpointError:
            continue
        yield replace(candidate, folder=folder)
