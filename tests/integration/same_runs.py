"""Whether two runs came to the same: records, weights and report."""

from pathlib import Path
from typing import Any

import torch

from cifarray.runs import Run
from cifarray.training.checkpoint import read_state
from cifarray.training.checkpoint_store import fetch, stored_checkpoints
from tests.digit_sessions import same_weights, without_times


def last_weights(run: Run, scratch: Path) -> dict[str, torch.Tensor]:
    """The network of the last checkpoint of a run's newest attempt."""
    attempt = run.key("attempts", str(run.attempt_numbers()[-1]))
    newest = stored_checkpoints(run.store, attempt)[0]
    weights: dict[str, torch.Tensor] = read_state(fetch(run.store, newest.key, scratch))["model"]
    return weights


def refuse_difference(run: Run, reference: Run, folder: Path) -> None:
    """Fail unless both runs have the same record of each epoch and the same bits as weights."""
    records, expected = ([without_times(r) for r in each.metrics()] for each in (run, reference))
    assert len(expected) == 4
    assert records == expected
    assert same_weights(
        last_weights(run, folder / "run"), last_weights(reference, folder / "reference")
    )


def refuse_other_report(run: Run, reference: Run) -> None:
    """Fail unless both reports give the same figures, counts and predictions."""
    own, expected = (_without_times(each.report()) for each in (run, reference))
    differing = {name: (own.get(name), expected[name]) for name in expected}
    assert {name: pair for name, pair in differing.items() if pair[0] != pair[1]} == {}, differing
    for name in ("confusion.csv", "per_class.csv", "predictions.parquet"):
        files = [each.store.read(f"{each.report_prefix()}/{name}") for each in (run, reference)]
        assert files[0] == files[1], name


def _without_times(report: dict[str, Any]) -> dict[str, Any]:
    """A report without what names the run, the clock and the machine."""
    left_out = ("run_id", "submitted_at", "reported_at", "duration_s", "profile")
    kept = {name: value for name, value in report.items() if name not in left_out}
    return {**kept, "train": {**kept["train"], "images_per_s": None, "epoch_s": None}}
