"""Find a checkpoint by a folder, a pulled run, or a run in the store."""

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cifarray.errors import CheckpointError, KeyMissingError, StoreDamagedError
from cifarray.metrics import DEFAULT_OBJECTIVE, OBJECTIVES
from cifarray.models.registry import is_user_network
from cifarray.runs import Run
from cifarray.runs.run import read_spec
from cifarray.store import Store, is_key
from cifarray.store.layout import BEST_FILE, PROOF_FILE, SPEC_FILE, run_folder
from cifarray.training.checkpoint import Checkpoint, check_folder, load_checkpoint, read_state
from cifarray.training.checkpoint_store import (
    best_good,
    by_metric,
    fetch,
    stored_checkpoints,
)

SHOWN_RUNS = 5


def open_checkpoint(
    target: str, open_store: Callable[[], Store], code: Path | None = None
) -> tuple[Checkpoint, str]:
    """The network that `target` means, and where it came from.

    `target` is a checkpoint folder, the folder of a pulled run, or a run's id in the store, which
    is opened for the last alone. `code` is the folder that defines a user-defined network.

    Raises: CheckpointError, JobError, RunNotFoundError, StoreError.
    """
    # A run's best checkpoint lies in the store; a local one is read where it is.
    with tempfile.TemporaryDirectory(prefix="cifarray-checkpoint-") as scratch:
        folder, origin = _find(target, open_store, Path(scratch))
        _refuse_foreign_code(folder, code)
        return load_checkpoint(folder, code), origin


def _find(target: str, open_store: Callable[[], Store], scratch: Path) -> tuple[Path, str]:
    try:
        found = checkpoint_in_folder(Path(target))
    except OSError as error:
        raise CheckpointError(
            f"{target} cannot be read: {error.strerror}; give another path"
        ) from error
    return found or checkpoint_of_run(Run.open(open_store(), target), scratch)


def checkpoint_in_folder(path: Path) -> tuple[Path, str] | None:
    """The checkpoint at a path of this machine; None if the path may be a run's id instead."""
    if path.is_file() and (path.parent / PROOF_FILE).is_file():
        path = path.parent
    if (path / PROOF_FILE).is_file():
        return path, str(path)
    if path.is_dir():
        return _in_pulled_run(path)
    if path.exists() or path.is_absolute() or len(path.parts) != 1:
        raise CheckpointError(
            f"no checkpoint at {path}; give a checkpoint's folder (with {PROOF_FILE}), the "
            "folder of a pulled run, or a run's id"
        )
    return None


def _in_pulled_run(path: Path) -> tuple[Path, str]:
    store = Store.open(str(path))
    key = _chosen(store, "", str(path))
    if key is not None:
        return path / key, str(path / key)
    stored = stored_checkpoints(store, "")
    runs = sorted({run_folder(found.key) for found in stored})
    if len(runs) > 1:  # the choice must not depend on their figures
        runs = [name or "." for name in runs]
        more = f" and {len(runs) - SHOWN_RUNS} more" if len(runs) > SHOWN_RUNS else ""
        raise CheckpointError(
            f"{path} contains several runs: {', '.join(runs[:SHOWN_RUNS])}{more}; give the folder "
            "of one run"
        )
    if runs and runs != [""]:
        return _in_pulled_run(path / runs[0])
    for found in by_metric(stored, _objective(store)):
        with suppress(CheckpointError):
            check_folder(path / found.key)
            return path / found.key, str(path / found.key)
    raise CheckpointError(f"{path} contains no complete checkpoint; pull the run again")


def _objective(pulled: Store) -> str:
    """What the run of a pulled folder optimizes; the usual figure if its job.yaml is unreadable."""
    with suppress(KeyMissingError, StoreDamagedError):
        metric = read_spec("pulled", pulled.read(SPEC_FILE)).job.metric
        return metric if metric in OBJECTIVES else DEFAULT_OBJECTIVE
    return DEFAULT_OBJECTIVE


def checkpoint_of_run(run: Run, scratch: Path) -> tuple[Path, str]:
    """A run's best checkpoint, fetched into `scratch`, and its key. Raises: CheckpointError."""
    key = _chosen(run.store, f"{run.prefix}/", f"run {run.id}")
    if key is None:
        newest = run.place.of_attempt(run.newest_attempt()).prefix
        found = best_good(run.store, newest, run.objective(), scratch / "candidates")
        if found is None:
            raise CheckpointError(f"run {run.id} has no complete checkpoint yet")
        key = found.key
    folder = scratch / "chosen"
    try:
        return fetch(run.store, key, folder), key
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(str(folder), key)) from error


def _chosen(store: Store, prefix: str, what: str) -> str | None:
    """The checkpoint that a run chose at its end; None while it runs."""
    try:
        best = store.read_json(prefix + BEST_FILE)
    except KeyMissingError:
        return None
    key = best.get("checkpoint") if isinstance(best, dict) else None
    if not isinstance(key, str) or not is_key(key):
        raise CheckpointError(f"{BEST_FILE} of {what} names no checkpoint")
    return prefix + key


def _refuse_foreign_code(folder: Path, code: Path | None) -> None:
    """A checkpoint may name any function of any package, so only the user decides what runs."""
    model = read_state(folder)["job"]["model"]["name"]
    if not is_user_network(model):
        return
    top = model.partition(":")[0].partition(".")[0]
    if code is None or not ((code / top).is_dir() or (code / f"{top}.py").is_file()):
        given = "" if code is None else f", not in {code}"
        raise CheckpointError(
            f"the checkpoint's network {model} is code outside cifarray{given}; give the folder "
            f"that contains {top} with --code DIR"
        )
