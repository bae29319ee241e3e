"""The describe() table is pandas', and missing values are counted, not hidden."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from cifarray.data.ingest import prepare
from cifarray.data.inspect import inspect_dataset, without_nulls
from cifarray.data.manifest import load_manifest
from cifarray.data.parquet import read_images
from cifarray.data.statistics import FIGURES, count_pixels, describe_pixels
from cifarray.store import Store


def as_pandas(images_NHWC: NDArray[np.uint8]) -> list[dict[str, float]]:
    """What pandas says of each channel."""
    flat = images_NHWC.reshape(-1, images_NHWC.shape[3])
    return [pd.Series(flat[:, channel]).describe().to_dict() for channel in range(flat.shape[1])]


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("most", [1, 4, 256])
def test_drawn_pixels_are_described_as_pandas_does(rows: int, most: int):
    draw = np.random.default_rng(rows * most)
    images = draw.integers(0, most, (rows, 3, 5, 3), dtype=np.uint8)
    found = describe_pixels(count_pixels(images))
    for ours, theirs in zip(found, as_pandas(images), strict=True):
        assert list(ours) == list(theirs) == list(FIGURES)
        assert list(ours.values()) == pytest.approx(list(theirs.values()), rel=1e-12)


def test_real_images_are_described_as_pandas_does(photos: torch.Tensor):
    images = photos.permute(0, 2, 3, 1).numpy()
    for ours, theirs in zip(describe_pixels(count_pixels(images)), as_pandas(images), strict=True):
        assert list(ours.values()) == pytest.approx(list(theirs.values()), rel=1e-9)


def test_no_pixels_have_a_count_and_nothing_else():
    (found,) = describe_pixels(np.zeros((1, 256), dtype=np.int64))
    assert found["count"] == 0
    assert {found[name] for name in FIGURES[1:]} == {None}


def test_a_single_pixel_has_no_spread():
    (found,) = describe_pixels(count_pixels(np.full((1, 1, 1, 1), 9, dtype=np.uint8)))
    assert (found["mean"], found["std"], found["50%"]) == (9.0, None, 9.0)


def test_inspect_describes_the_pixels_of_every_split(local_store: Store):
    prepare(local_store, "digits")
    manifest = load_manifest(local_store, "digits")
    for split, content in inspect_dataset(local_store, "digits")["splits"].items():
        images = read_images(local_store, manifest, split, range(content["rows"]))
        (theirs,) = as_pandas(np.stack(list(images)))
        assert list(content["pixels"][0].values()) == pytest.approx(list(theirs.values()), rel=1e-9)
        assert content["null_images"] == content["null_labels"] == 0


def test_rows_without_an_image_or_a_label_are_counted_and_left_out():
    table = pa.table({"image": [b"a", None, b"c", None], "label": [0, 1, None, None]})
    complete, missing = without_nulls(table)
    assert complete["image"].to_pylist() == [b"a"]
    assert missing == {"image": 2, "label": 2}
