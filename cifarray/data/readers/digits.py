"""The digits that come with scikit-learn, split in the way of every example: 20 % test, seed 0."""

import numpy as np

from cifarray.data.catalog import DatasetEntry
from cifarray.data.readers.base import SplitArrays

GRAY_LEVELS = 16
"""The files hold 0 to 16; cifarray stores 0 to 255."""


def read_digits(entry: DatasetEntry) -> dict[str, SplitArrays]:
    """Both splits, each in the order of `sklearn.datasets.load_digits`."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = np.round(bunch.images * 255 / GRAY_LEVELS).astype(np.uint8)[..., np.newaxis]
    labels = bunch.target.astype(np.int16)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=entry.rows["test"], stratify=labels, random_state=0
    )
    return {
        split: SplitArrays(images=images[np.sort(rows)], labels=labels[np.sort(rows)])
        for split, rows in (("train", train), ("test", test))
    }
