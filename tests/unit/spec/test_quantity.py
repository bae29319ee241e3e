"""Amounts as Kubernetes reads them, and bytes as a person does."""

from decimal import Decimal

import pytest
from kubernetes.utils.quantity import parse_quantity

from cifarray.spec.quantity import amount, written_bytes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2.0),
        ("2.", 2.0),
        (".5", 0.5),
        ("500m", 0.5),
        ("250u", 0.00025),
        ("1k", 1e3),
        ("1G", 1e9),
        ("512Mi", 512 << 20),
        ("4Gi", 4 << 30),
        ("1Ti", 1 << 40),
        ("1.5Pi", 1.5 * (1 << 50)),
        ("12e2", 1200.0),
        ("1E-2", 0.01),
        ("1E", 1e18),
    ],
)
def test_a_quantity_is_read_as_kubernetes_reads_it(text: str, value: float):
    assert float(amount(text)) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["", "16 GB", "16GB", "-1", "four", "1e999", "1.2.3", "Gi", "2 ", "٣"]
)
def test_what_is_no_quantity_is_refused(text: str):
    with pytest.raises(ValueError, match="not a Kubernetes quantity"):
        amount(text)


@pytest.mark.parametrize("text", ["0", 4, "2", "0.1", "500m", "250u", "1k", "1.5Gi", "12e2", "1E"])
def test_an_amount_is_exact_as_that_of_the_official_client(text: str | int):
    assert amount(text) == parse_quantity(text)
    assert amount("100m") * 10 == 1


@pytest.mark.parametrize(
    ("size_bytes", "decimal", "binary"),
    [
        (0, "0 B", "0 B"),
        (999, "999 B", "999 B"),
        (1000, "1.0 kB", "1000 B"),
        (1500, "1.5 kB", "1.5 KiB"),
        (Decimal(8 << 30), "8.6 GB", "8.0 GiB"),
        (2.5e12, "2.5 TB", "2.3 TiB"),
        (3 << 50, "3377.7 TB", "3072.0 TiB"),
    ],
)
def test_bytes_are_written_in_the_largest_unit(size_bytes: float, decimal: str, binary: str):
    assert written_bytes(size_bytes) == decimal
    assert written_bytes(size_bytes, binary=True) == binary
