"""Credentials come from the standard chain, for our own requests and Arrow's alike."""

import json
import os
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cifarray.store import Access, Store
from cifarray.store.s3_connection import Connection
from tests.loopback import answering
from tests.s3 import S3Server

CHAIN = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@pytest.fixture
def keyless_store(guarded: S3Server, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store on a server that checks keys, with none in the environment."""
    for name in CHAIN:
        monkeypatch.delenv(name, raising=False)
    return guarded.new_store()


def _use(store: Store) -> None:
    """Write by one client and read by the other."""
    store.write("by-boto3", b"1")
    with store.filesystem().open_output_stream(store.path("by-arrow")) as stream:
        stream.write(b"2")
    assert store.open_input("by-boto3").read() == b"1"
    assert store.read("by-arrow") == b"2"


def test_a_profile_of_the_credentials_file_is_used(
    guarded: S3Server, keyless_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = wrong\naws_secret_access_key = wrong\n"
        f"[mine]\naws_access_key_id = {guarded.access_key}\n"
        f"aws_secret_access_key = {guarded.secret_key}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    _use(keyless_store)


def test_credentials_that_pass_are_asked_for_once_for_all_requests(
    guarded: S3Server, keyless_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(request: str) -> tuple[int, dict[str, str], bytes]:
        asked.append(request)
        credentials = {
            "AccessKeyId": guarded.access_key,
            "SecretAccessKey": guarded.secret_key,
            "Token": "",
            "Expiration": (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return 200, {"Content-Type": "application/json"}, json.dumps(credentials).encode()

    with answering(answer) as address:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{address}/role")
        keyless_store.write("a", b"")
        _use(keyless_store)
    assert len(asked) == 1


def test_a_pickled_filesystem_holds_no_key_and_finds_them_where_it_is_opened(
    guarded: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in guarded.environment.items():
        monkeypatch.setenv(name, value)
    store = guarded.new_store()
    store.write("a", b"1")
    pickled = pickle.dumps(store.filesystem())
    assert guarded.access_key.encode() not in pickled
    assert guarded.secret_key.encode() not in pickled
    again = pickle.loads(pickled)
    assert again.open_input_stream(store.path("a")).read() == b"1"
    assert again == store.filesystem()


def test_the_region_is_the_one_that_every_aws_client_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """boto3 alone reads AWS_DEFAULT_REGION and nothing else."""
    empty = b"<ListBucketResult><Name>b</Name><KeyCount>0</KeyCount></ListBucketResult>"
    with answering(lambda request: (200, {"Content-Type": "application/xml"}, empty)) as address:
        for name, region in (("AWS_DEFAULT_REGION", "us-west-2"), ("AWS_REGION", "eu-north-1")):
            monkeypatch.setenv(name, region)
            connection = Connection("s3://bucket", address)
            connection.check()
            assert connection.region == region


def test_a_region_that_is_given_wins_over_one_that_a_variable_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    empty = b"<ListBucketResult><Name>b</Name><KeyCount>0</KeyCount></ListBucketResult>"
    with answering(lambda request: (200, {"Content-Type": "application/xml"}, empty)) as address:
        monkeypatch.delenv("AWS_REGION", raising=False)
        monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
        for named in (None, "AWS_DEFAULT_REGION", "AWS_REGION"):
            if named is not None:
                monkeypatch.setenv(named, "us-west-2")
            connection = Connection("s3://bucket", address, Access("eu-north-1"))
            connection.check()
            assert connection.region == "eu-north-1"


def test_keys_that_are_given_win_over_the_environments_and_go_nowhere_else(
    guarded: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = guarded.new_store().uri  # by a client of the test's own, which reads what follows
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-somebody-else")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-somebody-else")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-somebody-else")
    monkeypatch.setenv("AWS_PROFILE", "that-is-in-no-file")
    before = dict(os.environ)
    access = Access("us-east-1", guarded.access_key, guarded.secret_key)
    store = Store.open(uri, guarded.endpoint, access)
    _use(store)
    assert dict(os.environ) == before
    shown = f"{access!r} {store!r} {store.spec!r}".encode()
    for secret in (guarded.secret_key.encode(), b"secret_key='"):
        assert secret not in shown
    pickled = pickle.dumps((store, store.filesystem()))
    assert guarded.access_key.encode() not in pickled
    assert guarded.secret_key.encode() not in pickled
    again, _ = pickle.loads(pickled)
    assert again == store and again.access == Access("us-east-1")
