"""What a new attempt takes over from the last one: copies, so that nothing older can hurt it."""

import tempfile
from pathlib import Path

from cifarray.runs import Attempt, Run
from cifarray.store import Store
from cifarray.training.checkpoint_store import best_good, newest_good
from cifarray.tuning.sweep import FOLDER as TRIALS


def carry_over(run: Run, attempt: Attempt) -> None:
    """Copy what an earlier attempt reached into this one's folder.

    Of a training, the newest and the best whole checkpoint; of a sweep, the whole folder of Tune.
    """
    job = run.spec().job
    for number in sorted((n for n in run.attempt_numbers() if n < attempt.number), reverse=True):
        earlier = run.key("attempts", str(number))
        if job.sweep is not None:
            copied = _copy_sweep(run.store, earlier, attempt.prefix)
        else:
            copied = _copy_checkpoints(run.store, earlier, attempt.prefix, job.metric, number)
        if copied:
            print(f"going on from attempt {number}: {copied}", flush=True)
            return


def _copy_sweep(store: Store, earlier: str, prefix: str) -> str:
    trials = store.folders(f"{earlier}/{TRIALS}")
    if trials:
        store.copy_folder(f"{earlier}/{TRIALS}", f"{prefix}/{TRIALS}")
    return f"{len(trials)} trials" if trials else ""


def _copy_checkpoints(store: Store, earlier: str, prefix: str, metric: str, number: int) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        newest = newest_good(store, earlier, Path(scratch) / "newest")
        best = best_good(store, earlier, metric, Path(scratch) / "best")
    for key in {found.key for found in (newest, best) if found is not None}:
        name = key.rpartition("/")[2]
        store.copy_folder(key, f"{prefix}/checkpoints/from-attempt-{number}/{name}")
    return f"epoch {newest.epoch}" if newest else ""
