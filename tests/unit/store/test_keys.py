"""Which keys a store takes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cifarray.errors import StoreError
from cifarray.store import Store, index_last, is_key

REFUSED = [
    "",
    "/etc/passwd",
    "../outside",
    "runs/../../outside",
    "runs/..",
    "./runs",
    "runs//status.json",
    "runs/",
    "runs\\status.json",
    "runs/a\nb",
    "runs/\x1b[2J",
    "runs/a\0b",
    "runs/" + "a" * 256,
    "a/" * 500 + "a",
    "runs/.cifarray-lock",
]


def test_a_key_that_could_leave_the_root_or_steer_a_terminal_is_refused(
    store: Store, tmp_path: Path
) -> None:
    calls: list[Callable[[str], object]] = [
        store.read,
        store.exists,
        store.open_input,
        lambda key: store.write(key, b""),
        lambda key: store.create(key, b""),
        lambda key: store.replace(key, b"", "tag"),
        lambda key: store.delete([key]),
        lambda key: store.download(key, tmp_path / "here"),
        lambda key: store.upload(Path(__file__), key),
    ]
    for key in REFUSED:
        assert not is_key(key)
        for call in calls:
            with pytest.raises(StoreError, match="refused the key"):
                call(key)
    assert store.list() == []


def test_a_prefix_that_could_leave_the_root_is_refused(store: Store) -> None:
    calls: list[Callable[[str], object]] = [
        store.list,
        store.folders,
        store.delete_folder,
        store.path,
        lambda prefix: store.copy_folder(prefix, "copy"),
        lambda prefix: store.copy_folder("source", prefix),
    ]
    for prefix in ("..", "/", "runs/../..", "/etc", "runs//a"):
        for call in calls:
            with pytest.raises(StoreError, match="refused the key"):
                call(prefix)


def test_an_ordinary_key_is_kept_as_it_is(store: Store) -> None:
    for key in (
        "a/b c/lr=0.1,optimizer=sgd",
        ".hidden/..data",
        "ünïcode/图像+%.parquet",
        "a" * 255,
    ):
        store.write(key, b"bytes")
        assert [entry.key for entry in store.list()] == [key]
        assert store.read(key) == b"bytes"
        assert key.partition("/")[0] in (*store.folders(), key)
        store.delete([key])


def test_what_makes_a_folder_valid_comes_last() -> None:
    keys = ["c/files.json", "c/a", "b/checkpoint.json", "z", "d/manifest.json"]
    assert index_last(keys) == ["c/a", "z", "b/checkpoint.json", "c/files.json", "d/manifest.json"]
