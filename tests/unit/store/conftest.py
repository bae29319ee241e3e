"""A server that checks credentials, for the tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.s3 import S3Server, serve_s3_with_credentials


@pytest.fixture(scope="session")
def guarded() -> Iterator[S3Server]:
    """A server that refuses wrong keys."""
    with serve_s3_with_credentials() as server:
        yield server
