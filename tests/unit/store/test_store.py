"""A local directory and a bucket behave alike."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cifarray.errors import InputError, KeyMissingError, StoreAddressError, StoreError
from cifarray.store import Store
from tests.s3 import S3Server


def _fill(store: Store, *keys: str) -> None:
    for key in keys:
        store.write(key, key.encode())


def _keys(store: Store, prefix: str = "") -> list[str]:
    return [entry.key for entry in store.list(prefix)]


def test_what_is_written_is_read_back(store: Store) -> None:
    for data in (b"", b"one", bytes(range(256)) * 5000):
        store.write("folder/object", data)
        assert store.read("folder/object") == data
        assert store.size("folder/object") == len(data)
        assert store.exists("folder/object")


def test_an_object_that_is_extended_holds_all_its_bytes(store: Store) -> None:
    store.extend("folder/log", b"one", known=0)
    store.extend("folder/log", b"one, two", known=3)
    assert store.read("folder/log") == b"one, two"
    store.write("folder/log", b"of somebody else")
    store.extend("folder/log", b"one, two, three", known=8)
    assert store.read("folder/log") == b"one, two, three"


def test_who_follows_a_file_of_a_directory_sees_it_grow(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.extend("log", b"one", known=0)
    with (tmp_path / "log").open("rb") as followed:
        assert followed.read() == b"one"
        store.extend("log", b"one, two", known=3)
        assert followed.read() == b", two"


def test_a_new_store_is_empty_and_every_read_of_it_says_so(store: Store, tmp_path: Path) -> None:
    assert store.list() == store.folders() == []
    assert not store.exists("a/b")
    reads = (
        lambda: store.read("a/b"),
        lambda: store.read_json("a/b"),
        lambda: store.read_tagged("a/b"),
        lambda: store.size("a/b"),
        lambda: store.sha256("a/b"),
        lambda: store.download("a/b", tmp_path / "b"),
        lambda: store.open_input("a/b"),
    )
    for read in reads:
        with pytest.raises(KeyMissingError, match="no a/b in"):
            read()
    assert not list(tmp_path.rglob("b"))


def test_a_folder_is_no_object(store: Store) -> None:
    _fill(store, "a/b")
    assert not store.exists("a")
    with pytest.raises(KeyMissingError):
        store.read("a")
    with pytest.raises(KeyMissingError):
        store.size("a")


def test_a_listing_holds_everything_below_a_folder_and_nothing_beside_it(store: Store) -> None:
    _fill(store, "runs/a/x", "runs/a/deep/er/y", "runs/ab/z", "runs/a.txt", "other")
    assert _keys(store, "runs/a") == _keys(store, "runs/a/") == ["runs/a/deep/er/y", "runs/a/x"]
    assert _keys(store) == ["other", "runs/a.txt", "runs/a/deep/er/y", "runs/a/x", "runs/ab/z"]
    assert _keys(store, "nothing") == _keys(store, "other") == []


def test_a_listing_tells_sizes_and_times(store: Store) -> None:
    _fill(store, "some/object")
    (entry,) = store.list()
    assert entry.size_bytes == len("some/object")
    assert abs(entry.modified - datetime.now(UTC)) < timedelta(minutes=1)
    assert entry.modified.utcoffset() == timedelta(0)


def test_folders_are_those_that_hold_something(store: Store) -> None:
    _fill(store, "runs/b/x", "runs/a/deep/y", "runs/file", "datasets/d")
    assert store.folders() == ["datasets", "runs"]
    assert store.folders("runs") == ["a", "b"]
    store.delete(["runs/a/deep/y"])
    assert store.folders("runs") == ["b"]
    assert store.folders("runs/file") == []


def test_a_listing_of_more_than_a_page_is_whole(store: Store) -> None:
    keys = [f"many/{number:04}" for number in range(1001)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.write(key, b"x"), keys))
    assert _keys(store, "many") == keys
    store.delete_folder("many")
    assert store.list() == []


def test_deleting_what_is_not_there_is_fine(store: Store) -> None:
    _fill(store, "a/b", "a/c")
    store.delete(["a/b", "a/b", "never/was"])
    store.delete([])
    store.delete_folder("never")
    assert _keys(store) == ["a/c"]


def test_deleting_a_folder_leaves_its_neighbors(store: Store) -> None:
    _fill(store, "runs/a/x", "runs/a/files.json", "runs/ab/x", "runs/a.txt")
    store.delete_folder("runs/a")
    assert _keys(store) == ["runs/a.txt", "runs/ab/x"]


def test_a_copied_folder_has_the_same_bytes(store: Store) -> None:
    _fill(store, "runs/1/files.json", "runs/1/deep/x", "runs/1/y", "runs/10/z")
    store.copy_folder("runs/1", "runs/2")
    assert _keys(store, "runs/2") == ["runs/2/deep/x", "runs/2/files.json", "runs/2/y"]
    assert store.read("runs/2/deep/x") == b"runs/1/deep/x"
    assert _keys(store, "runs/1") == ["runs/1/deep/x", "runs/1/files.json", "runs/1/y"]


def test_an_uploaded_file_comes_back_whole(store: Store, tmp_path: Path) -> None:
    data = bytes(range(251)) * 40_000
    (tmp_path / "file").write_bytes(data)
    store.upload(tmp_path / "file", "some/file")
    store.download("some/file", tmp_path / "new" / "folder" / "copy")
    assert (tmp_path / "new" / "folder" / "copy").read_bytes() == data
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["copy"]


def test_uploading_a_file_that_is_not_there_says_which(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*nothing"):
        store.upload(tmp_path / "nothing", "some/file")
    assert store.list() == []


def test_json_is_read_as_it_was_written_and_nan_becomes_null(store: Store) -> None:
    store.write_json("record.json", {"a": [1, 2.5, float("nan")], "b": {"c": float("inf")}})
    assert store.read_json("record.json") == {"a": [1, 2.5, None], "b": {"c": None}}
    store.write("record.json", b"{torn")
    with pytest.raises(StoreError, match=r"record\.json in .* is not JSON"):
        store.read_json("record.json")


def test_create_writes_only_what_is_absent(store: Store) -> None:
    tag = store.create("lease", b"first")
    assert tag is not None
    assert store.create("lease", b"second") is None
    assert store.read_tagged("lease") == (b"first", tag)


def test_replace_writes_only_over_the_version_it_knows(store: Store) -> None:
    first = store.create("lease", b"first")
    assert first is not None
    second = store.replace("lease", b"second", first)
    assert second is not None
    assert store.replace("lease", b"late", first) is None
    assert store.read_tagged("lease") == (b"second", second)
    store.write("lease", b"by anyone")
    assert store.replace("lease", b"late", second) is None
    store.delete(["lease"])
    assert store.replace("lease", b"late", second) is None
    assert not store.exists("lease")


@pytest.mark.parametrize("way", ["create", "replace"])
def test_of_sixteen_conditional_writers_one_wins(store: Store, way: str) -> None:
    for race in range(5):
        key, tag = f"race/{race}", ""
        if way == "replace":
            tag = store.create(key, b"before") or ""
        start = threading.Barrier(16)

        def compete(number: int, key: str = key, tag: str = tag) -> str | None:
            start.wait()  # noqa: B023
            data = f"writer {number}".encode()
            return store.create(key, data) if way == "create" else store.replace(key, data, tag)

        with ThreadPoolExecutor(16) as pool:
            tags = list(pool.map(compete, range(16)))
        (winner,) = [number for number, won in enumerate(tags) if won]
        assert store.read_tagged(key) == (f"writer {winner}".encode(), tags[winner])


def test_a_reader_never_sees_half_an_object(store: Store) -> None:
    store.write("object", b"a" * 300_000)
    done = threading.Event()

    def write() -> None:
        for letter in b"bcdefg" * 5:
            store.write("object", bytes([letter]) * 300_000)
        done.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        seen = set()
        while not done.is_set():
            data = store.read("object")
            assert len(data) == 300_000
            seen |= set(data)
            assert len(set(data)) == 1
        writing.result()
    assert len(seen) > 1


def test_a_store_travels_to_another_process(store: Store) -> None:
    _fill(store, "a/b")
    again = pickle.loads(pickle.dumps(store))
    assert again == store
    assert hash(again) == hash(store)
    assert again.read("a/b") == b"a/b"
    spec = store.spec
    assert Store.open(spec.uri, spec.endpoint) == store


def test_arrow_reads_and_writes_the_same_objects(store: Store) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"row_id": list(range(5000)), "label": [row % 10 for row in range(5000)]})
    filesystem = store.filesystem()
    store.write("datasets/marker", b"")  # a local folder has to exist for Arrow
    pq.write_table(table, store.path("datasets/part.parquet"), filesystem=filesystem)
    with filesystem.open_output_stream(store.path("datasets/big")) as stream:
        for _ in range(12):
            stream.write(b"x" * (1 << 20))
    assert store.size("datasets/big") == 12 << 20
    with store.open_input("datasets/part.parquet") as file:
        assert pq.ParquetFile(file).read().equals(table)
    assert pq.read_table(store.path("datasets/part.parquet"), filesystem=filesystem) == table
    assert "datasets/part.parquet" in _keys(store)


def test_checking_a_usable_store_is_silent(store: Store) -> None:
    store.check()
    store.write("after", b"")
    store.check()
    assert _keys(store) == ["after"]


@pytest.mark.parametrize(
    "uri", ["gs://bucket/prefix", "http://host/path", "s3://", "s3://ab/c", ""]
)
def test_a_uri_that_names_no_store_is_refused(uri: str) -> None:
    with pytest.raises(StoreAddressError, match="cannot open a store"):
        Store.open(uri)


def test_a_whole_bucket_is_a_store_too(s3: S3Server) -> None:
    store = Store.open(f"s3://{s3.new_bucket()}/", s3.endpoint)
    _fill(store, "runs/a", "b")
    assert _keys(store) == ["b", "runs/a"]
    assert store.folders() == ["runs"]
    assert store.path("b") == f"{store.uri.removeprefix('s3://')}/b"
    assert store.open_input("runs/a").read() == b"runs/a"
    store.delete_folder("")
    assert store.list() == []


def test_folder_markers_of_other_tools_are_no_objects_and_go_with_their_folder(
    s3: S3Server,
) -> None:
    store = s3.new_store()
    store.filesystem().create_dir(store.path("runs/a/empty"))
    _fill(store, "runs/a/x")
    assert _keys(store) == ["runs/a/x"]
    store.delete_folder("runs/a")
    bucket, _, prefix = store.path("runs/a").partition("/")
    assert s3.client().list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["KeyCount"] == 0
