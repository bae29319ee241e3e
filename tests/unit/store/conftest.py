"""A server that checks credentials, and every kind of store, for the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cifarray.store import Store
from tests.s3 import S3Server, serve_s3_with_credentials


@pytest.fixture(scope="session")
def guarded() -> Iterator[S3Server]:
    """A server that refuses wrong keys."""
    with serve_s3_with_credentials() as server:
        yield server


@pytest.fixture(params=["local", "prefix", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store: a local directory, a prefix of a bucket, a whole bucket."""
    if request.param == "local":
        return Store.open(str(tmp_path / "store"))
    server: S3Server = request.getfixturevalue("s3")
    if request.param == "prefix":
        return server.new_store()
    return Store.open(f"s3://{server.new_bucket()}", server.endpoint)
