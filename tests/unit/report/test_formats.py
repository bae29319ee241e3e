"""How figures are written for a person."""

import math

import pytest

from cifarray.report import formats


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formats.percent(0.97222), "97.22 %"),
        (formats.percent(None), "–"),
        (formats.percent(math.nan), "–"),
        (formats.interval((0.95, 0.981)), "95.00 to 98.10 %"),
        (formats.interval(None), "–"),
        (formats.number(861.7, 3), "862"),
        (formats.number(12_345.6), "12,346"),
        (formats.number(0.000123456), "0.0001235"),
        (formats.number(math.inf), "–"),
        (formats.loss(0.371), "0.3710"),
        (formats.count(1_193_636), "1,193,636"),
        (formats.duration(4.25), "4.2 s"),
        (formats.duration(59.6), "1 min 00 s"),
        (formats.duration(7_384), "2 h 03 min"),
        (formats.value(True), "on"),
        (formats.value(None), "–"),
        (formats.value((0.1, 0.25)), "0.1, 0.25"),
        (formats.value({"lr": 0.1, "name": "sgd"}), "lr 0.1, name sgd"),
        (formats.metric("validation.top5", 0.5), "50.00 %"),
        (formats.metric("validation.loss", 0.5), "0.5000"),
        (formats.metric("lr", 0.05), "0.05"),
        (formats.moment("2026-03-01T13:00:00+01:00"), "2026-03-01 12:00:00 UTC"),
        (formats.moment("yesterday"), "yesterday"),
        (formats.printable("a\x1b[31mb\u202e"), "a\ufffd[31mb\ufffd"),
        (formats.shortened("a" * 40, 10), "a" * 9 + "…"),
    ],
)
def test_figures_read_as_a_person_writes_them(written: str, expected: str):
    assert written == expected
