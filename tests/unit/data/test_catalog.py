"""The catalog: every entry is complete and says what was published."""

import pickle
import re
import tarfile
from pathlib import Path

import pytest

from cifarray.data.catalog import DATASETS, DatasetEntry, dataset_entry
from cifarray.data.readers.registry import IMAGE_LAYOUTS, LAYOUTS
from cifarray.errors import DatasetError


@pytest.mark.parametrize("entry", DATASETS.values(), ids=lambda entry: entry.name)
def test_every_entry_is_complete(entry: DatasetEntry) -> None:
    assert re.fullmatch(r"[a-z0-9-]+", entry.name)
    assert DATASETS[entry.name] is entry
    assert len(set(entry.classes)) == len(entry.classes) > 1
    assert set(entry.rows) == {"train", "test"}
    assert entry.title and entry.citation and entry.homepage.startswith("https://")
    assert len(entry.fine_to_coarse) == (len(entry.classes) if entry.coarse_classes else 0)
    assert entry.layout == "digits" or entry.layout in LAYOUTS | IMAGE_LAYOUTS
    for file in entry.archives:
        assert re.fullmatch(r"[0-9a-f]{32}", file.md5)
        assert file.url.endswith(f"/{file.name}")
        assert file.size_bytes > 0
    pickle.loads(pickle.dumps(entry))


def test_cifar100_has_five_classes_in_each_of_twenty_superclasses() -> None:
    entry = DATASETS["cifar100"]
    counts = [entry.fine_to_coarse.count(coarse) for coarse in range(20)]
    assert counts == [5] * 20
    assert len(entry.coarse_classes) == 20
    assert entry.coarse_classes[entry.fine_to_coarse[entry.classes.index("whale")]] == (
        "aquatic_mammals"
    )


def test_checksums_and_names_are_torchvisions() -> None:
    from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST

    for name, theirs in (("cifar10", CIFAR10), ("cifar100", CIFAR100)):
        (file,) = DATASETS[name].archives
        assert (file.name, file.url, file.md5) == (theirs.filename, theirs.url, theirs.tgz_md5)
    fashion = DATASETS["fashion-mnist"]
    assert list(fashion.classes) == FashionMNIST.classes
    assert [(file.name, file.md5) for file in fashion.archives] == FashionMNIST.resources
    assert all(file.url == FashionMNIST.mirrors[0] + file.name for file in fashion.archives)


def test_names_and_coarse_classes_are_those_of_the_published_files(test_data: Path) -> None:
    with tarfile.open(test_data / "cifar-100-python.subset.tar.gz") as tar:
        meta, train = (
            pickle.loads(tar.extractfile(f"cifar-100-python/{name}").read(), encoding="latin1")  # type: ignore[union-attr]
            for name in ("meta", "train")
        )
    entry = DATASETS["cifar100"]
    assert list(entry.classes) == meta["fine_label_names"]
    assert list(entry.coarse_classes) == meta["coarse_label_names"]
    pairs = set(zip(train["fine_labels"], train["coarse_labels"], strict=True))
    assert pairs == set(enumerate(entry.fine_to_coarse))


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(DatasetError, match="unknown dataset 'cifar'; choose from: cifar10, cif"):
        dataset_entry("cifar")
