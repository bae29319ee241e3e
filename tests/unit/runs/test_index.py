"""An index makes a folder valid; what differs from it is found, in the store and in a copy."""

import json
from pathlib import Path

import pytest

from cifarray.errors import StoreError
from cifarray.runs import Run, check_index, read_metrics, write_index
from cifarray.runs.metrics_log import write_metrics
from cifarray.store import Store
from tests.unit.runs.conftest import add_checkpoint


@pytest.fixture
def indexed(store: Store) -> Store:
    """A store with one indexed folder of three files."""
    for name in ("a", "deep/b", "empty"):
        store.write(f"folder/{name}", b"" if name == "empty" else name.encode() * 100)
    write_index(store, "folder")
    return store


def _flip(data: bytes) -> bytes:
    return data[:50] + bytes([data[50] ^ 1]) + data[51:]


def test_an_untouched_folder_is_valid(indexed: Store) -> None:
    assert check_index(indexed, "folder") == []
    assert check_index(indexed, "folder", deep=False) == []


def test_a_flipped_byte_is_found(indexed: Store) -> None:
    indexed.write("folder/deep/b", _flip(indexed.read("folder/deep/b")))
    (problem,) = check_index(indexed, "folder")
    assert problem == "folder/deep/b differs from what was written (sha256)"
    assert check_index(indexed, "folder", deep=False) == []


def test_a_missing_a_cut_and_a_grown_file_are_found_without_reading_any(indexed: Store) -> None:
    indexed.delete(["folder/empty"])
    indexed.write("folder/a", b"cut")
    indexed.write("folder/deep/b", indexed.read("folder/deep/b") + b"more")
    assert check_index(indexed, "folder", deep=False) == [
        "folder/a has 3 bytes instead of 100",
        "folder/deep/b has 604 bytes instead of 600",
        "folder/empty is missing",
    ]


def test_a_folder_without_index_is_not_valid(indexed: Store) -> None:
    indexed.delete(["folder/files.json"])
    assert check_index(indexed, "folder") == ["folder/files.json is missing"]
    assert check_index(indexed, "nowhere") == ["nowhere/files.json is missing"]


DAMAGED = (
    b"",
    b"{torn",
    b"[]",
    b'{"files": []}',
    b'{"files": {"a": 3}}',
    b'{"files": {"a": {"size_bytes": "x", "sha256": "y"}}}',
    b'{"files": {"../../etc/passwd": {"size_bytes": 1, "sha256": "y"}}}',
    b'{"files": {"/etc/passwd": {"size_bytes": 1, "sha256": "y"}}}',
)


def test_a_damaged_or_hostile_index_is_one_sentence(indexed: Store) -> None:
    for content in DAMAGED:
        indexed.write("folder/files.json", content)
        (problem,) = check_index(indexed, "folder")
        assert "folder/files.json" in problem
        assert "\n" not in problem


def test_what_comes_after_the_index_does_not_count(indexed: Store) -> None:
    indexed.write("folder/later", b"x")
    assert check_index(indexed, "folder") == []


def test_an_index_of_the_whole_store_and_of_a_local_copy_works_the_same(
    indexed: Store, tmp_path: Path
) -> None:
    for entry in indexed.list("folder"):
        indexed.download(entry.key, tmp_path / "copy" / entry.key.removeprefix("folder/"))
    copy = Store.open(str(tmp_path / "copy"))
    assert check_index(copy, "") == []
    copy.write("a", _flip(copy.read("a")))
    assert check_index(copy, "") == ["a differs from what was written (sha256)"]


def test_an_index_takes_a_checkpoints_own_digests(store: Store) -> None:
    state = add_checkpoint(store, "attempt/checkpoints/epoch_1", 1, 0.5)
    store.write("attempt/checkpoints/epoch_1/state.pt", _flip(state))  # damaged on its way
    write_index(store, "attempt")
    (problem,) = check_index(store, "attempt")
    assert "state.pt differs from what was written" in problem
    assert check_index(store, "attempt/checkpoints/epoch_1", index="checkpoint.json") == [problem]


def test_a_whole_checkpoint_is_valid_by_its_own_index(store: Store) -> None:
    add_checkpoint(store, "x/epoch_1", 1, 0.5)
    assert check_index(store, "x/epoch_1", index="checkpoint.json") == []
    store.delete(["x/epoch_1/state.pt"])
    assert check_index(store, "x/epoch_1", index="checkpoint.json") == [
        "x/epoch_1/state.pt is missing"
    ]


def test_the_index_is_a_documented_record(indexed: Store) -> None:
    index = indexed.read_json("folder/files.json")
    assert index["schema_version"] == 1
    assert sorted(index["files"]) == ["a", "deep/b", "empty"]
    assert index["files"]["empty"]["size_bytes"] == 0


def test_a_torn_last_line_of_the_metrics_is_left_out(run: Run) -> None:
    prefix = run.key("attempts", "1")
    assert read_metrics(run.store, prefix) == []
    lines = [json.dumps({"epoch": epoch}) for epoch in range(3)]
    run.store.write(f"{prefix}/metrics.jsonl", ("\n".join(lines) + '\n{"epoch": 3, "lo').encode())
    assert [record["epoch"] for record in read_metrics(run.store, prefix)] == [0, 1, 2]
    run.store.write(f"{prefix}/metrics.jsonl", b'{"epoch": 0}\n\xff{torn\n{"epoch": 2}\n')
    with pytest.raises(StoreError, match=r"metrics\.jsonl in .* is damaged in line 2"):
        read_metrics(run.store, prefix)


def test_a_record_holds_null_for_a_figure_that_json_cannot_say(run: Run) -> None:
    records = [{"epoch": 1, "loss": float("nan")}, {"epoch": 2, "loss": 0.5}]
    write_metrics(run.store, run.prefix, records)
    assert [record["loss"] for record in read_metrics(run.store, run.prefix)] == [None, 0.5]
