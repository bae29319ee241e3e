"""The checks of a store in a bucket: a good server passes all, each lack is found by one."""

from collections.abc import Iterator
from email.utils import formatdate
from time import time

import pytest

from cifarray.store import Store
from cifarray.submit.doctor import FAILED, PASSED, SKIPPED
from cifarray.submit.doctor.buckets import BUCKET_CHECKS, Bucket, cleared
from cifarray.submit.doctor.record import Result, carry_out
from tests.loopback import black_hole
from tests.s3 import S3Server, serve_moto
from tests.unit.submit.doctor.forging import Forge, Passed, forging, unchanged

REST = [check.name for check in BUCKET_CHECKS[1:]]


@pytest.fixture(scope="module")
def motos_server() -> Iterator[S3Server]:
    """One that takes forged requests too, whichever server other tests use."""
    with serve_moto() as endpoint:
        yield S3Server(endpoint, "test-key", "test-secret")


@pytest.fixture
def moto(motos_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """That server, with the standard AWS variables pointing to it."""
    for name, value in motos_server.environment.items():
        monkeypatch.setenv(name, value)
    return motos_server


def results(store: Store) -> dict[str, Result]:
    with cleared(Bucket(store)) as bucket:
        return {found.check: found.result for found in carry_out(BUCKET_CHECKS, bucket)}


def failures(store: Store) -> dict[str, Result]:
    return {name: found for name, found in results(store).items() if found.outcome == FAILED}


@pytest.mark.parametrize("prefix", ["", "stores/one"])
def test_a_good_server_passes_every_check_and_keeps_nothing_of_them(
    s3: S3Server, prefix: str
) -> None:
    store = s3.new_store(prefix)
    found = results(store)
    assert {
        name: result.finding for name, result in found.items() if result.outcome != PASSED
    } == {}
    assert list(found) == ["store", *REST]
    assert store.list() == []


def test_a_store_that_does_not_answer_fails_once_and_skips_the_rest(s3: S3Server) -> None:
    with black_hole() as address:
        found = results(Store.open("s3://bucket/x", address))
    assert found["store"].outcome == FAILED and "cannot reach" in found["store"].finding
    assert {found[name].outcome for name in REST} == {SKIPPED}


def test_a_bucket_that_is_not_there_is_named(s3: S3Server) -> None:
    found = results(Store.open("s3://no-such-bucket", s3.endpoint))
    assert "no bucket 'no-such-bucket'" in found["store"].finding


def forget_conditions(asked: Passed) -> None:
    asked.without("if-none-match", "if-match")


def forget_if_match(asked: Passed) -> None:
    if asked.method == "PUT":
        asked.without("if-match")


def forget_metadata(asked: Passed) -> None:
    asked.without("x-amz-meta-")


def refuse_parts(asked: Passed) -> None:
    if "uploadId=" in asked.path:
        asked.path = asked.path.replace("uploadId=", "uploadId=x")


def refuse_checksums(given: Passed) -> None:
    if given.method == "PUT" and "/boto3" in given.path:
        given.status, given.body = 501, b"<Error><Code>NotImplemented</Code></Error>"


def swap_bytes(given: Passed) -> None:
    if given.method == "GET" and "/object" in given.path:
        given.body = given.body[::-1]


def run_late(given: Passed) -> None:
    given.headers["date"] = formatdate(time() - 3600, usegmt=True)


def refuse_paths(given: Passed) -> None:
    if given.method == "GET" and given.path.endswith("/path"):
        given.status, given.body = 400, b""


@pytest.mark.parametrize(
    ("request_forge", "answer_forge", "check", "words"),
    [
        (forget_conditions, unchanged, "store: conditional writes", "If-None-Match"),
        (forget_if_match, unchanged, "store: conditional writes", "If-Match"),
        (forget_metadata, unchanged, "store: metadata", "are lost"),
        (refuse_parts, unchanged, "store: multipart", "UploadPart"),
        (unchanged, refuse_checksums, "store: checksums", "default checksums"),
        (unchanged, swap_bytes, "store: objects", "other bytes"),
        (unchanged, refuse_paths, "store: path style", "refuses /cifarray-"),
        (unchanged, run_late, "store: clock", "s ahead of the store's"),
    ],
)
def test_each_lack_of_a_forged_server_is_found_by_its_check_alone(
    moto: S3Server, request_forge: Forge, answer_forge: Forge, check: str, words: str
) -> None:
    good = moto.new_store()
    with forging(moto.endpoint, request_forge, answer_forge) as address:
        found = failures(Store.open(good.uri, address))
    assert list(found) == [check]
    assert words in found[check].finding
    assert found[check].remedy or check == "store: multipart"
    assert good.list() == []
