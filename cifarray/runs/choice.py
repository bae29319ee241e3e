"""Which checkpoints of a run are its best and its last, from what their checkpoint.json say."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cifarray.errors import KeyMissingError, StoreDamagedError
from cifarray.runs.run import Run
from cifarray.spec.metrics import EPOCH_METRICS, is_better
from cifarray.store.layout import ATTEMPTS, BEST_FILE, PROOF_FILE, TRIALS


@dataclass(frozen=True)
class _Proof:
    folder: str
    epoch: int
    step: int
    value: float


def chosen_checkpoints(run: Run, names: Iterable[str]) -> dict[str, str]:
    """`best` and `last` of the newest attempt, those that there are; of a sweep the best trial's.

    Best is the one that best.json names, before there is that file the best by the job's metric.
    `names` are the run's files, relative to its folder, as the answer is.
    """
    proof = f"/{PROOF_FILE}"
    folders = [name.removesuffix(proof) for name in names if name.endswith(proof)]
    newest = f"{ATTEMPTS}/{run.newest_attempt()}/"
    folders = [folder for folder in folders if folder.startswith(newest)]
    metric = _metric(run)
    proofs = [found for folder in folders if (found := _proof(run, folder, metric))]
    if not proofs:
        return {}
    best = _named_best(run)
    best = best if best in folders else _best(proofs, metric).folder
    alike = [proof for proof in proofs if _trial(proof.folder) == _trial(best)]
    last = max(alike, key=lambda p: (p.epoch, p.step, p.folder), default=None)
    return {"best": best, "last": last.folder if last else best}


def _best(proofs: list[_Proof], metric: str) -> _Proof:
    best = proofs[0]
    for proof in proofs[1:]:
        if math.isnan(best.value) or is_better(metric, proof.value, best.value):
            best = proof
    return best


def _named_best(run: Run) -> str | None:
    try:
        content = run.store.read_json(run.key(BEST_FILE))
    except (KeyMissingError, StoreDamagedError):
        return None
    named = content.get("checkpoint") if isinstance(content, dict) else None
    return named if isinstance(named, str) else None


def _metric(run: Run) -> str:
    try:
        job = run.spec().job
    except (KeyMissingError, StoreDamagedError):
        return "validation.top1"
    rule = job.train.early_stopping
    metric = job.sweep.metric if job.sweep else rule.metric if rule else "validation.top1"
    return metric if metric in EPOCH_METRICS else "validation.top1"


def _proof(run: Run, folder: str, metric: str) -> _Proof | None:
    """What checkpoint.json says; None where it is damaged."""
    try:
        content: dict[str, Any] = run.store.read_json(run.key(folder, PROOF_FILE))
        value = content.get("metrics", {}).get(metric)
        number = float(value) if isinstance(value, int | float) else math.nan
        return _Proof(folder, int(content["epoch"]), int(content.get("step", 0)), number)
    except (KeyMissingError, StoreDamagedError, TypeError, ValueError, KeyError, AttributeError):
        return None


def _trial(folder: str) -> str | None:
    parts = folder.split("/")
    return parts[3] if parts[2:3] == [TRIALS] else None
