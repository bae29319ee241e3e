"""Figures as inline SVG: well-formed, in the page's colors, with the points that were given."""

from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from cifarray.report.confusion import class_order, matrix
from cifarray.report.curves import curves, trial_curves
from cifarray.report.inputs import ReportDataset, Trial
from cifarray.report.svg import COLORS, draw
from cifarray.report.sweep_plots import SweepView, against_metric, parallel
from cifarray.spec.sweep import SweepSpec
from tests import report_samples

NAN = float("nan")


def sweep(**changes: Any) -> SweepSpec:
    return SweepSpec.model_validate({"space": report_samples.SPACE} | changes)


def trials(number: int = 8) -> list[Trial]:
    return [Trial.from_mapping(report_samples.trial(n, 9)) for n in range(number)]


def titles(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("title")]


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter("text")]


def test_colors_come_from_the_page_and_nothing_from_outside():
    svg = curves(report_samples.history(5), 5)
    assert "var(--accent)" in svg
    assert not any(stand_in in svg for stand_in in COLORS.values())
    assert "#" not in svg.replace("#curves-", "")
    assert "http" not in svg
    assert "<style" not in svg
    assert "font-family" not in svg


def test_names_and_numbers_stay_text_as_they_are():
    def paint(figure: Any) -> dict[str, list[str]]:
        figure.subplots().set_title("$x^2$ <b> 0.123456 #fe0001")
        return {}

    assert "$x^2$ <b> 0.123456 #fe0001" in texts(draw("f", "a figure", (300, 200), paint))


def test_a_figure_is_the_same_every_time_and_ids_differ_between_figures():
    history = report_samples.history(4)
    assert curves(history, 4) == curves(history, 4)
    first = set(ElementTree.fromstring(curves(history, 4)).iter())
    ids = {e.get("id") for e in first if e.get("id")}
    others = {
        e.get("id") for e in ElementTree.fromstring(trial_curves(trials(), None, "lr", [])).iter()
    }
    assert ids
    assert not ids & others


def test_every_epoch_of_every_line_has_a_hover_text():
    found = titles(curves(report_samples.history(5), 5))
    assert len(found) == 6 * 5
    assert "epoch 3\nvalidation top1" in "\n".join(found)


def test_one_epoch_is_drawn_as_points():
    found = titles(curves(report_samples.history(1), 1))
    assert len(found) == 6


def test_a_loss_that_never_was_finite_says_so():
    records = [{"epoch": 1, "validation.loss": NAN, "train.running_loss": None, "lr": 0.1}]
    records[0]["epoch_s"] = 2.0
    assert texts(curves(records, 1)).count("no finite value") == 2


def test_many_epochs_keep_a_figure_small():
    assert len(curves(report_samples.history(3000), 3000)) < 600_000


def test_each_trial_has_a_line_in_every_figure_and_lights_up_with_the_others():
    shown = trials(8)  # of which number 5 failed before a result
    view = SweepView.of(shown, sweep(), shown[0].id)
    numbers = {str(number) for number in range(8)}
    for svg, expected in (
        (parallel(view), numbers),
        (against_metric(view), numbers - {"5"}),
        (trial_curves(shown, shown[0].id, "validation.top1", [3, 9]), numbers - {"5"}),
    ):
        found = {e.get("data-trial") for e in ElementTree.fromstring(svg).iter()} - {None}
        assert found == expected


def test_the_swept_fields_are_named_and_their_choices_written():
    view = SweepView.of(trials(), sweep(), None)
    found = texts(parallel(view))
    assert {"optimizer.lr", "model.dropout", "optimizer.name", "best validation.top1"} <= set(found)
    assert {"sgd", "adam", "adamw", "rmsprop", "0.0001", "0.1"} <= set(found)


@pytest.mark.parametrize("metric", ["validation.loss", "validation.top5", "train.running_loss"])
def test_a_sweep_by_any_metric_is_drawn(metric: str):
    view = SweepView.of(trials(), sweep(metric=metric), None)
    assert f"best {metric}" in texts(parallel(view))
    assert titles(against_metric(view))


def test_a_sweep_without_any_result_or_trial_is_drawn():
    failed = [Trial.from_mapping(report_samples.trial(5, 9))]
    for shown in (failed, []):
        view = SweepView.of(shown, sweep(), None)
        assert parallel(view)
        assert against_metric(view)
        assert trial_curves(shown, None, "validation.top1", [])


def test_seven_swept_fields_are_drawn_in_rows():
    space = {f"model.args.field{n}": {"uniform": [0, 1]} for n in range(7)}
    view = SweepView.of([], sweep(space=space), None)
    assert {f"field{n}" for n in range(7)} <= set(texts(parallel(view)))
    assert {f"model.args.field{n}" for n in range(7)} <= set(texts(against_metric(view)))


def test_cases_are_drawn_by_the_values_that_they_have():
    cases = [{"optimizer.name": "sgd", "augment.shift": None}, {"augment.shift": {"fraction": 0.1}}]
    shown = [
        Trial.from_mapping({**report_samples.trial(number, 3), "params": case})
        for number, case in enumerate(cases)
    ]
    view = SweepView.of(shown, sweep(space={}, search="cases", cases=cases), None)
    assert {"optimizer.name", "augment.shift", "sgd"} <= set(texts(parallel(view)))
    assert titles(against_metric(view))


def test_a_small_matrix_shows_every_count_and_the_classes():
    counts = np.array([[8, 2, 0], [0, 10, 0], [1, 0, 9]])
    found = texts(matrix(counts, report_samples.dataset(3, names=["cat", "dog", "ship"])))
    assert sorted(text for text in found if text[-1].isdigit()) == sorted(
        ["80.0 %8", "20.0 %2", "100.0 %10", "10.0 %1", "90.0 %9"]
    )
    assert [found.count(name) for name in ("cat", "dog", "ship")] == [2, 2, 2]


def test_a_large_matrix_is_ordered_by_superclass_and_names_those():
    dataset = report_samples.dataset(100, 20)
    order = class_order(dataset)
    groups = [dataset.fine_to_coarse[label] for label in order]
    assert sorted(order) == list(range(100))
    assert groups == sorted(groups)
    test = report_samples.predictions(100, 5000, 0.4)
    counts = np.zeros((100, 100), int)
    np.add.at(counts, (test.labels, test.predictions), 1)
    svg = matrix(counts, dataset)
    assert texts(svg) == [name for group in range(20) for name in [f"superclass {group}"] * 2]
    assert len(svg) < 200_000


def test_a_matrix_of_a_class_without_rows_is_drawn():
    assert texts(matrix(np.array([[3, 0], [0, 0]]), report_samples.dataset(2)))


def test_a_matrix_of_many_classes_without_superclasses_names_some_of_them():
    classes = tuple(f"class {n}" for n in range(300))
    found = texts(matrix(np.eye(300, dtype=int), ReportDataset("d", "D", "00", classes)))
    assert 20 < len(found) // 2 < 60
