"""Fixtures of the data tests: small archives, an archive server, a store that holds digits."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cifarray.data.catalog import DATASETS
from cifarray.data.ingest import prepare
from cifarray.data.readers.cifar import read_cifar
from cifarray.store import Store
from tests.archive_server import ArchiveServer, serve_archives
from tests.archives import write_cifar100


@pytest.fixture(scope="session")
def cifar100_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CIFAR-100 archive of 200 train and 100 test rows."""
    return write_cifar100(tmp_path_factory.mktemp("archives") / "cifar100.tar.gz", 2, 1)


@pytest.fixture(scope="session", params=["real", "made"])
def photos(request: pytest.FixtureRequest) -> torch.Tensor:
    """Images of 32x32 RGB pixels, uint8 NCHW: CIFAR-100's own where they are there, and digits."""
    if request.param == "real":
        archive = request.getfixturevalue("test_data") / "cifar-100-python.subset.tar.gz"
    else:
        archive = request.getfixturevalue("cifar100_archive")
    images = read_cifar(DATASETS["cifar100"], archive)["train"].images
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2).contiguous()


@pytest.fixture
def server() -> Iterator[ArchiveServer]:
    """An archive server for one test."""
    with serve_archives() as running:
        yield running


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    """An empty store in a directory."""
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def digits_store(local_store: Store) -> Store:
    """A store in a directory with digits prepared in it."""
    prepare(local_store, "digits")
    return local_store
