"""A mistyped address of a store is refused, and never taken for a directory."""

from pathlib import Path

import pytest

from cifarray.errors import StoreAddressError
from cifarray.store import Store

TYPOS = {
    "s3:/bucket/prefix": "give s3://bucket/prefix, or ./s3:",
    "s3:bucket": "give s3://bucket, or ./s3:",
    "s3:///bucket": "give s3://bucket",
    "s3:": "give s3://bucket/prefix",
    "S3://bucket/prefix": "give s3://bucket/prefix",
    "S3:/bucket": "give s3://bucket, or ./S3:",
    "s3a://bucket/prefix": "give s3://bucket/prefix",
    "s3n:/bucket": "give s3://bucket",
    "gs:/bucket/prefix": "give s3://bucket/prefix with --endpoint https://storage.googleapis.com",
    "gs://bucket": "give s3://bucket with --endpoint",
    "file:/folder/store": "give the directory itself, as /folder/store",
    "file:store": "give the directory itself",
    "file://folder/store": "give the directory itself, as /folder/store",
    "https://host/bucket": "give s3://bucket/prefix, and the server's address with --endpoint",
    "az:container": "give s3://bucket/prefix or a local directory",
    "anything:/folder": "or ./anything:... for a directory of that name",
}


@pytest.mark.parametrize("uri", TYPOS)
def test_a_mistyped_scheme_is_refused_and_the_right_spelling_is_offered(
    uri: str, cifarray_home: Path
) -> None:
    with pytest.raises(StoreAddressError, match="cannot open a store") as caught:
        Store.open(uri)
    assert TYPOS[uri] in str(caught.value)
    assert list(cifarray_home.iterdir()) == []


def test_a_directory_whose_name_looks_like_a_scheme_is_given_with_a_path(
    cifarray_home: Path,
) -> None:
    for uri in (
        "./s3:/bucket",
        f"{cifarray_home}/s3:/bucket",
        f"file://{cifarray_home}/s3:/bucket",
    ):
        store = Store.open(uri)
        store.write("a", uri.encode())
        assert (cifarray_home / "s3:" / "bucket" / "a").read_bytes() == uri.encode()
        assert Store.open(store.uri, store.endpoint) == store
    Store.open("data:v2").write("a", b"1")
    assert (cifarray_home / "data:v2" / "a").exists()
    Store.open(f"file://localhost{cifarray_home}/store").write("a", b"1")
    assert (cifarray_home / "store" / "a").exists()


@pytest.mark.parametrize(
    "uri", ["s3:/key:topsecret@bucket", "S3://key:topsecret@bucket", "gs://b?token=topsecret"]
)
def test_a_secret_in_a_mistyped_address_is_not_shown(uri: str) -> None:
    with pytest.raises(StoreAddressError, match=r"withheld|of kind gs://;") as caught:
        Store.open(uri)
    assert "topsecret" not in str(caught.value)
