"""What only a local directory can do wrong."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from cifarray.errors import StoreAddressError, StoreError
from cifarray.store import Store


def test_opening_a_store_touches_nothing(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    assert store.list() == []
    assert not store.exists("a")
    store.delete_folder("a")
    assert not (tmp_path / "store" / "a").exists()
    store.check()
    assert (tmp_path / "store").is_dir()


def test_a_relative_directory_stays_the_same_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store.open("./store")
    store.write("a", b"1")
    monkeypatch.chdir("/")
    assert store.read("a") == b"1"
    assert store.uri == str(tmp_path / "store")
    assert Store.open(f"file://{tmp_path}/store") == store


def test_a_directory_that_cannot_be_made_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = Store.open(str(tmp_path / "file" / "store"))
    with pytest.raises(StoreError, match=r"cannot use .* as a store: .*--store"):
        store.check()
    with pytest.raises(StoreError, match="cannot write a in"):
        store.write("a", b"")


def test_a_file_is_no_store(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    store = Store.open(str(file))
    for ask in (store.list, store.folders, partial(store.read, "a"), partial(store.size, "a")):
        with pytest.raises(
            StoreAddressError, match="is a file, not a store; give a directory with --st"
        ):
            ask()


def test_a_path_that_is_not_utf_8_is_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreAddressError, match="a path that is not UTF-8"):
        Store.open(str(tmp_path / "\udcff"))
    (tmp_path / "\udcff").mkdir()
    monkeypatch.chdir(tmp_path / "\udcff")
    with pytest.raises(StoreAddressError, match="a path that is not UTF-8"):
        Store.open("store")


def test_a_key_below_another_key_is_refused(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.write("a", b"object")
    for write in (store.write, store.create):
        with pytest.raises(StoreError, match="cannot write a/b in"):
            write("a/b", b"")
    assert store.read("a") == b"object"


def test_a_cut_write_is_never_listed(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.write("runs/a/x", b"1")
    (tmp_path / "runs" / "a" / ".cifarray-0123").write_bytes(b"half")
    (tmp_path / "runs" / "b").mkdir()
    (tmp_path / "runs" / "b" / ".cifarray-0123").write_bytes(b"half")
    assert [entry.key for entry in store.list()] == ["runs/a/x"]
    assert store.folders("runs") == ["a"]
    store.delete_folder("runs")
    assert not (tmp_path / "runs").exists()


def test_a_listing_leaves_out_names_that_no_store_could_take(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.write("good", b"")
    (tmp_path / "back\\slash").write_bytes(b"")
    (tmp_path / "new\nline").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/not-\xff-utf8")).write_bytes(b"")
    assert [entry.key for entry in store.list()] == ["good"]


def test_a_link_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"")
    store = Store.open(str(tmp_path / "store"))
    store.write("runs/a", b"")
    (tmp_path / "store" / "runs" / "link").symlink_to(tmp_path / "outside")
    assert [entry.key for entry in store.list()] == ["runs/a"]
    store.delete_folder("runs")
    assert (tmp_path / "outside" / "secret").exists()


def test_of_writers_in_several_processes_one_wins(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from cifarray.store import Store\n"
        "store = Store.open(sys.argv[1])\n"
        "tag = store.read_tagged('lease')[1]\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(store.replace('lease', sys.argv[2].encode(), tag))\n"
    )
    store = Store.open(str(tmp_path))
    store.write("lease", b"before")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), f"writer {number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        for number in range(3)
    ]
    for writer in writers:
        assert writer.stdout and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("go\n")
        writer.stdin.flush()
    answers = [writer.communicate(timeout=30)[0].strip() for writer in writers]
    (winner,) = [number for number, answer in enumerate(answers) if answer != "None"]
    assert store.read("lease") == f"writer {winner}".encode()
