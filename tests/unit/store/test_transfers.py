"""Transfers that are cut go on where they stopped, and never leave a part that looks whole."""

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cifarray.errors import StoreError
from cifarray.store import Store
from cifarray.store.base import TRANSFER_TRIES
from tests.loopback import CuttingProxy, answering, cutting_proxy
from tests.quirky_s3 import quirky_s3
from tests.s3 import S3Server

DATA = bytes(range(253)) * 24_000
"""About 6 MB."""


class Interrupted(Exception):
    """What a test raises if a person would press Ctrl-C."""


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[CuttingProxy]:
    with cutting_proxy(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture
def cut_store(s3: S3Server, proxy: CuttingProxy) -> Store:
    store = Store.open(s3.new_store().uri, proxy.address)
    store.write("big", DATA)
    return store


def test_an_interrupted_download_resumes_and_tells_all_bytes(store: Store, tmp_path: Path) -> None:
    store.write("big", DATA)
    target = tmp_path / "copy"
    arrived: list[int] = []

    def interrupt(amount: int) -> None:
        arrived.append(amount)
        if sum(arrived) > len(DATA) // 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        store.download("big", target, interrupt)
    assert not target.exists()
    told: list[int] = []
    store.download("big", target, told.append)
    assert told[0] == sum(arrived)
    assert sum(told) == len(DATA)
    assert target.read_bytes() == DATA
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["copy"]


def test_a_part_of_another_version_is_not_continued(store: Store, tmp_path: Path) -> None:
    store.write("big", DATA)

    def interrupt(amount: int) -> None:
        if amount:
            raise Interrupted

    with pytest.raises(Interrupted):
        store.download("big", tmp_path / "copy", interrupt)
    store.write("big", DATA[::-1])
    store.download("big", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == DATA[::-1]


def test_a_connection_that_is_cut_twice_is_taken_up_by_itself(
    cut_store: Store, proxy: CuttingProxy, tmp_path: Path
) -> None:
    before = proxy.passed_bytes
    proxy.cut(after_bytes=2_000_000, times=2)
    cut_store.download("big", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == DATA
    assert proxy.cuts_left == 0
    assert proxy.passed_bytes - before < 1.5 * len(DATA)


def test_a_digest_survives_a_cut_connection(cut_store: Store, proxy: CuttingProxy) -> None:
    whole = cut_store.sha256("big")
    proxy.cut(after_bytes=2_000_000, times=1)
    assert cut_store.sha256("big") == whole
    assert proxy.cuts_left == 0


def test_a_connection_that_is_cut_again_and_again_gets_there_as_long_as_bytes_arrive(
    cut_store: Store, proxy: CuttingProxy, tmp_path: Path
) -> None:
    proxy.cut(after_bytes=500_000, times=1000)
    cut_store.download("big", tmp_path / "copy")
    assert 1000 - proxy.cuts_left > TRANSFER_TRIES
    assert (tmp_path / "copy").read_bytes() == DATA


def test_a_transfer_of_which_nothing_arrives_is_given_up_and_the_part_is_kept(
    s3: S3Server, tmp_path: Path
) -> None:
    listing = b'<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated>'

    def answer(asked: str) -> tuple[int, dict[str, str], bytes]:
        if "list-type" in asked:
            return 200, {"Content-Type": "application/xml"}, listing + b"</ListBucketResult>"
        return 200, {"ETag": '"e"', "Content-Length": "1000"}, b""

    with answering(answer) as address:
        store = Store.open("s3://bucket", address)
        with pytest.raises(
            StoreError, match=r"big stopped arriving from .* after \d+ of 1000 bytes"
        ):
            store.download("big", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert len(list(tmp_path.glob("copy.*.part"))) == 1


def test_a_large_upload_goes_in_parts_and_arrives_whole(s3: S3Server, tmp_path: Path) -> None:
    store = s3.new_store()
    with (tmp_path / "large").open("wb") as file:
        for number in range(20):
            file.write(bytes([number]) * (1 << 20))
    store.upload(tmp_path / "large", "large")
    assert store.size("large") == 20 << 20
    bucket, _, key = store.path("large").partition("/")
    assert s3.client().head_object(Bucket=bucket, Key=key)["ETag"].strip('"').endswith("-3")
    store.download("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "large").read_bytes()


def test_a_conditional_write_whose_answer_is_lost_is_known_as_won(moto: S3Server) -> None:
    """The server has carried it out, the repeated request loses to it."""
    with quirky_s3(moto.endpoint) as server:
        store = Store.open(moto.new_store().uri, server.address)
        store.write("other", b"")

        def lose_the_next() -> None:
            server.seen.clear()
            server.lose = lambda one: one.method == "PUT" and one.path.endswith("/lease")

        def lost_status() -> int:
            (lost,) = [one for one in server.seen if one.lost]
            assert server.count("PUT", "/lease") == 2
            assert server.count("GET", "/lease") == 1
            return lost.status

        lose_the_next()
        first = store.create("lease", b"first")
        assert first is not None and lost_status() == 200
        lose_the_next()
        second = store.replace("lease", b"second", first)
        assert second is not None and lost_status() == 200
        assert store.read_tagged("lease") == (b"second", second)
        lose_the_next()
        assert store.create("lease", b"third") is None and lost_status() == 412
        lose_the_next()
        assert store.replace("lease", b"third", first) is None and lost_status() == 412
        assert store.read("lease") == b"second"


def test_a_read_that_is_cut_half_way_is_tried_again(cut_store: Store, proxy: CuttingProxy) -> None:
    proxy.cut(after_bytes=2_000_000, times=2)
    assert cut_store.read("big") == DATA
    assert proxy.cuts_left == 0
    proxy.cut(after_bytes=2_000_000, times=1000)
    with pytest.raises(StoreError, match="it closes the connection"):
        cut_store.read("big")


def test_an_object_that_is_rewritten_all_the_time_is_fetched_as_one_version(
    store: Store, tmp_path: Path
) -> None:
    versions = [bytes([letter]) * 50_000 for letter in b"abcdefghij"]
    store.write("status", versions[0])
    over = threading.Event()

    def rewrite() -> None:
        for number in itertools.count():
            if over.is_set():
                return
            store.write("status", versions[number % len(versions)])
            time.sleep(0.05)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(rewrite)
        try:
            for number in range(20):
                told: list[int] = []
                store.download("status", tmp_path / f"copy-{number}", told.append)
                assert (tmp_path / f"copy-{number}").read_bytes() in versions
                assert sum(told) == 50_000
                assert len(store.sha256("status")) == 64
        finally:
            over.set()
        writing.result()
    assert not list(tmp_path.glob("*.part"))


def test_work_outlives_a_server_that_is_away_for_a_moment(
    cut_store: Store, proxy: CuttingProxy
) -> None:
    proxy.cut(after_bytes=0, times=5)
    cut_store.write("by-boto3", b"1")
    assert proxy.cuts_left == 0
    filesystem = cut_store.filesystem()
    proxy.cut(after_bytes=0, times=2)
    with filesystem.open_output_stream(cut_store.path("by-arrow")) as stream:
        stream.write(b"2")
    assert proxy.cuts_left == 0
    assert cut_store.read("by-boto3") + cut_store.read("by-arrow") == b"12"
