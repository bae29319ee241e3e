"""The checks of a store: a good one passes all, and each lack is found by one."""

from pathlib import Path

import pytest

from cifarray.backends.base import FAILED, PASSED, SKIPPED, Result
from cifarray.doctor.checks import diagnose_store
from cifarray.doctor.store import BUCKET_CHECKS, directory
from cifarray.store import Store
from cifarray.store.contract import TRAITS
from tests.loopback import black_hole
from tests.quirky_s3 import quirky_s3
from tests.s3 import S3Server

REST = list(BUCKET_CHECKS[1:])


def results(store: Store) -> dict[str, Result]:
    return {found.check: found.result for found in diagnose_store(store)}


def test_every_question_of_the_contract_has_a_check() -> None:
    assert REST[1:-1] == [f"store: {trait.replace('_', ' ')}" for trait in TRAITS]


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


def test_keys_that_may_not_write_fail_the_contract_once(moto: S3Server) -> None:
    with quirky_s3(moto.endpoint, "writes denied") as server:
        found = results(Store.open(moto.new_store().uri, server.address))
    failures = {name for name, result in found.items() if result.outcome == FAILED}
    assert failures == {"store: contract"}
    assert "does not let these credentials PutObject" in found["store: contract"].finding


@pytest.mark.parametrize(
    ("quirk", "check", "words"),
    [
        ("conditions refused", "create", "refuses If-None-Match: * (501 NotImplemented), so that"),
        ("conditions ignored", "create", "ignores If-None-Match: *, so that two submissions"),
        ("If-Match ignored", "replace", "ignores If-Match, so that"),
        ("list lags behind writes", "listing", "lag behind"),
        ("ranges ignored", "objects", "a range of an object"),
        ("deletes denied", "delete", "refuses to delete an object (403 AccessDenied)"),
        ("metadata lost", "metadata", "are lost"),
        ("clock runs late", "clock", "s ahead of the store's"),
    ],
)
def test_each_lack_is_found_by_its_check_with_a_remedy(
    moto: S3Server, quirk: str, check: str, words: str
) -> None:
    with quirky_s3(moto.endpoint, quirk) as server:
        found = results(Store.open(moto.new_store().uri, server.address))
    failures = {name for name, result in found.items() if result.outcome == FAILED}
    both = {"store: create", "store: replace"} if quirk.startswith("conditions") else set()
    assert failures == {f"store: {check}"} | both
    assert words in found[f"store: {check}"].finding
    assert found[f"store: {check}"].remedy


@pytest.mark.parametrize(
    ("quirk", "check", "words"),
    [
        ("Content-MD5 required", "delete many", "requires Content-MD5; cifarray sends it"),
        ("no DeleteObjects", "delete many", "one by one (501 NotImplemented)"),
        ("checksums refused", "checksums", "refuses boto3's checksum headers"),
        ("checksums required", "checksums", "requires checksum headers; cifarray sends them"),
        ("multipart refused", "multipart", "each object in one request (501 NotImplemented)"),
        ("copies refused", "copy", "cifarray reads and writes them"),
        ("If-Match makes what is absent", "replace", "cifarray checks first"),
    ],
)
def test_what_cifarray_adapts_to_passes_and_says_so(
    moto: S3Server, quirk: str, check: str, words: str
) -> None:
    with quirky_s3(moto.endpoint, quirk) as server:
        found = results(Store.open(moto.new_store().uri, server.address))
    assert {result.outcome for result in found.values()} == {PASSED}
    assert words in found[f"store: {check}"].finding


def test_a_directory_that_is_there_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.write("runs/a/status.json", b"{}")
    assert directory(store).outcome == PASSED
    assert [entry.key for entry in store.list()] == ["runs/a/status.json"]


def test_a_directory_that_is_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (found,) = diagnose_store(Store.open(str(tmp_path / "file")))
    assert found.result.outcome == FAILED
