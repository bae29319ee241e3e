"""What a report is made from refuses holes, and reads trials and histories."""

import math
from typing import Any

import pytest

from cifarray.errors import WorkError
from cifarray.report.inputs import Best, ReportDataset, Trial, images_per_s, series
from tests import report_samples


def trial(**changes: Any) -> Trial:
    values = {"id": "a", "params": {}, "epochs": 3, "state": "finished", "validation.top1": 0.5}
    return Trial.from_mapping(values | changes)


def history(*losses: float | None) -> list[dict[str, Any]]:
    return [{"epoch": epoch, "validation.loss": loss} for epoch, loss in enumerate(losses, 1)]


def test_a_report_needs_predictions_of_every_split():
    test = report_samples.predictions(10, 20, 0.1)
    with pytest.raises(WorkError, match="no train"):
        report_samples.inputs(predictions={"validation": test, "test": test})


def test_superclasses_must_fit_the_classes():
    with pytest.raises(WorkError, match="each of 2 classes, not 1"):
        ReportDataset("d", "D", "00", ("a", "b"), ("x",), (0,))


def test_the_best_epoch_of_a_trial_follows_the_metric_and_its_direction():
    losses = trial(history=history(0.9, 0.4, 0.4, math.nan, None))
    assert losses.best("validation.loss") == Best(0.4, 2)
    renamed = [
        {**record, "validation.top1": record["validation.loss"]} for record in losses.history
    ]
    assert trial(history=renamed).best("validation.top1") == Best(0.9, 1)


def test_a_trial_without_records_has_the_value_that_came_with_it():
    assert trial().best("validation.top1") == Best(0.5, 3)
    assert trial().best("validation.loss") is None
    assert trial(**{"validation.top1": math.nan}).top1 is None


def test_a_series_leaves_out_what_is_not_finite():
    assert series(history(0.9, math.inf, None, 0.1), "validation.loss") == [(1, 0.9), (4, 0.1)]


def test_images_per_s_is_rows_over_step_time_after_the_first_epoch():
    records = [{"train_rows": 100, "step_s": 50.0}, *[{"train_rows": 100, "step_s": 2.0}] * 2]
    assert images_per_s(records) == 50.0
    assert images_per_s(records[:1]) is None
    assert images_per_s([]) is None
