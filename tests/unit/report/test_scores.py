"""Figures from predictions, against scikit-learn, published numbers and each other."""

import math

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score

from cifarray.errors import WorkError
from cifarray.report.scores import Predictions, wilson
from tests import report_samples


def reordered(predictions: Predictions, order: np.ndarray) -> Predictions:
    return Predictions.from_table(predictions.to_table().take(pa.array(order)))


def test_wilson_gives_the_published_interval():
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_wilson_stays_within_0_and_1_and_holds_the_share():
    for n in (1, 2, 3, 360, 10_000):
        for successes in {0, 1, n // 2, n - 1, n}:
            low, high = wilson(successes, n)
            assert 0.0 <= low <= successes / n <= high <= 1.0
            assert low < high


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_what_is_no_proportion(successes: int, n: int):
    with pytest.raises(WorkError, match=f"not {successes} of {n}"):
        wilson(successes, n)


def test_top1_is_exactly_correct_over_rows():
    predictions = report_samples.predictions(10, 361, 0.1)
    assert predictions.top1 == predictions.correct / 361
    assert predictions.top1 == accuracy_score(predictions.labels, predictions.predictions)


def test_figures_do_not_depend_on_the_order_or_the_number_of_parts():
    whole = report_samples.predictions(10, 1001, 0.2)
    order = np.random.default_rng(0).permutation(1001)
    parts = [reordered(whole, piece) for piece in np.array_split(order, 3)]
    joined = Predictions.join(parts)
    assert np.array_equal(joined.row_ids, whole.row_ids)
    assert np.array_equal(joined.predictions, whole.predictions)
    for figure in ("top1", "top5", "loss", "interval"):
        assert getattr(joined, figure) == getattr(whole, figure)


def test_the_loss_is_summed_with_one_rounding():
    losses = [1e16, 1.0, -1e16, 1.0]
    zeros = np.zeros(4)
    predictions = Predictions(np.arange(4), zeros, zeros, zeros, zeros, losses)
    assert predictions.loss == 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_shows(bad: float):
    zeros = np.zeros(2)
    assert not math.isfinite(Predictions([0, 1], zeros, zeros, zeros, zeros, [0.5, bad]).loss)


def test_no_rows_have_no_figures():
    empty = Predictions([], [], [], [], [], [])
    assert empty.rows == 0
    assert math.isnan(empty.top1)
    assert math.isnan(empty.loss)


def test_a_row_that_was_evaluated_twice_is_refused():
    zeros = np.zeros(3)
    with pytest.raises(WorkError, match="row 7 was evaluated twice"):
        Predictions([7, 2, 7], zeros, zeros, zeros, zeros, zeros)


def test_fields_of_different_lengths_are_refused():
    with pytest.raises(WorkError, match="one entry per row in every field"):
        Predictions([0, 1], [0, 1], [0], [0.5, 0.5], [True, True], [0.1, 0.1])


def test_joining_nothing_is_refused():
    with pytest.raises(WorkError, match="no worker evaluated any row"):
        Predictions.join([])


def test_a_table_without_a_column_is_refused():
    table = report_samples.predictions(10, 5, 0.2).to_table().drop_columns(["loss"])
    with pytest.raises(WorkError, match="missing: loss"):
        Predictions.from_table(table)


def test_superclass_top1_counts_predictions_in_the_labels_superclass():
    rows = np.arange(4)
    predictions = Predictions(rows, [0, 1, 2, 3], [1, 1, 0, 3], np.ones(4), np.ones(4), np.zeros(4))
    assert predictions.superclass_top1([0, 0, 1, 1]) == 3 / 4


def test_the_most_confident_mistakes_come_first_and_are_mistakes():
    predictions = report_samples.predictions(10, 500, 0.3)
    chosen = predictions.most_confident_mistakes(12)
    assert len(chosen) == 12
    assert (predictions.labels[chosen] != predictions.predictions[chosen]).all()
    assert (np.diff(predictions.probabilities[chosen]) <= 0).all()
    wrong = predictions.labels != predictions.predictions
    assert predictions.probabilities[chosen[0]] == predictions.probabilities[wrong].max()
