"""Which checkpoints of a run are its best and its last, from what their checkpoint.json say."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cifarray.errors import KeyMissingError, StoreDamagedError
from cifarray.metrics import best, epoch_value
from cifarray.runs.run import Run
from cifarray.store.layout import ATTEMPTS, BEST_FILE, PROOF_FILE, TRIALS


@dataclass(frozen=True)
class _Proof:
    folder: str
    epoch: int
    step: int
    value: float | None


def chosen_checkpoints(run: Run, names: Iterable[str]) -> dict[str, str]:
    """`best` and `last` of the newest attempt, those that there are; of a sweep the best trial's.

    Best is the one that best.json names, before there is that file the best by the job's metric.
    `names` are the run's files, relative to its folder, as the answer is.
    """
    proof = f"/{PROOF_FILE}"
    folders = [name.removesuffix(proof) for name in names if name.endswith(proof)]
    newest = f"{ATTEMPTS}/{run.newest_attempt()}/"
    folders = [folder for folder in folders if folder.startswith(newest)]
    metric = run.objective()
    proofs = [found for folder in folders if (found := _proof(run, folder, metric))]
    if not proofs:
        return {}
    chosen = _named_best(run)
    if chosen not in folders:
        in_order = sorted(proofs, key=lambda proof: (_trial(proof.folder) or "", proof.epoch))
        chosen = (best(in_order, metric, lambda proof: proof.value) or in_order[0]).folder
    alike = [proof for proof in proofs if _trial(proof.folder) == _trial(chosen)]
    last = max(alike, key=lambda p: (p.epoch, p.step, p.folder), default=None)
    return {"best": chosen, "last": last.folder if last else chosen}


def _named_best(run: Run) -> str | None:
    try:
        content = run.store.read_json(run.key(BEST_FILE))
    except (KeyMissingError, StoreDamagedError):
        return None
    named = content.get("checkpoint") if isinstance(content, dict) else None
    return named if isinstance(named, str) else None


def _proof(run: Run, folder: str, metric: str) -> _Proof | None:
    """What checkpoint.json says; None where it is damaged."""
    try:
        content: dict[str, Any] = run.store.read_json(run.key(folder, PROOF_FILE))
        value = epoch_value(content.get("metrics", {}), metric)
        return _Proof(folder, int(content["epoch"]), int(content.get("step", 0)), value)
    except (KeyMissingError, StoreDamagedError, TypeError, ValueError, KeyError, AttributeError):
        return None


def _trial(folder: str) -> str | None:
    parts = folder.split("/")
    return parts[3] if parts[2:3] == [TRIALS] else None
