"""What a new attempt takes over from the last one: copies, so that nothing older can hurt it."""

import tempfile
from contextlib import suppress
from pathlib import Path

from cifarray.errors import KeyMissingError, StoreError
from cifarray.runs import Attempt, Run, read_metrics
from cifarray.runs.folders import write_metrics
from cifarray.store import Store
from cifarray.store.layout import CHECKPOINTS, PROOF_FILE, STATE_FILE, TRIALS
from cifarray.training.checkpoint_store import (
    StoredCheckpoint,
    best_good,
    newest_good,
    stored_checkpoints,
)
from cifarray.training.tensorboard import carry_histograms

TRIES = 10
"""How often an attempt that still lives may change what is being copied."""


def carry_over(run: Run, attempt: Attempt) -> None:
    """Copy what an earlier attempt reached into this one's folder, before this one begins.

    Of a training, the newest and the best whole checkpoint, the history and the histograms; of a
    sweep, the whole folder of Tune. An attempt that never began has at most a part of it.
    """
    job, newest = run.spec().job, run.newest_attempt()
    for number in sorted((n for n in run.attempt_numbers() if n <= newest), reverse=True):
        earlier = run.place.of_attempt(number).prefix
        if job.sweep is not None:
            copied = _copy_sweep(run.store, earlier, attempt.prefix)
        else:
            copied = _copy_training(run.store, earlier, attempt.prefix, job.metric, number)
        if copied:
            print(f"going on from attempt {number}: {copied}", flush=True)
            return


def _copy_sweep(store: Store, earlier: str, prefix: str) -> str:
    for tries_left in reversed(range(TRIES)):
        trials = store.folders(f"{earlier}/{TRIALS}")
        if not trials:
            return ""
        try:
            store.copy_folder(f"{earlier}/{TRIALS}", f"{prefix}/{TRIALS}")
        except KeyMissingError:  # deleted since it was listed
            if not tries_left:
                raise
        else:
            return f"{len(trials)} trials"
    raise AssertionError("the last try returns or raises")


def _copy_training(store: Store, earlier: str, prefix: str, metric: str, number: int) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        newest, best = _chosen(store, earlier, metric, Path(scratch))
        for found in {found.key: found for found in (best, newest) if found}.values():
            assert found.folder
            name = found.key.rpartition("/")[2]
            for file in (STATE_FILE, PROOF_FILE):  # the bytes that were checked, not what is there
                target = f"{prefix}/{CHECKPOINTS}/from-attempt-{number}/{name}/{file}"
                store.upload(found.folder / file, target)
    if newest is None:
        return ""
    with suppress(StoreError):  # the checkpoint holds its history too
        records = read_metrics(store, earlier)
        write_metrics(store, prefix, (r for r in records if r["epoch"] <= newest.epoch))
        carry_histograms(store, earlier, prefix, newest.epoch)
    return f"epoch {newest.epoch}"


def _chosen(
    store: Store, earlier: str, metric: str, scratch: Path
) -> tuple[StoredCheckpoint | None, StoredCheckpoint | None]:
    """The newest and the best whole checkpoint, fetched while no other came or went."""
    for number in range(TRIES):
        seen = stored_checkpoints(store, earlier)
        newest = newest_good(store, earlier, scratch / f"newest-{number}")
        best = best_good(store, earlier, metric, scratch / f"best-{number}")
        if stored_checkpoints(store, earlier) == seen:
            break
    return newest, best
