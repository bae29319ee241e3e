"""Whole runs where people run them: in a plain container, and behind a proxy."""

from pathlib import Path

import pytest

from cifarray.backends.local import state as node_state
from cifarray.proxies import is_loopback
from tests.integration.command_line import CommandLine
from tests.other_users import in_container, open_folder
from tests.proxies import proxied
from tests.s3 import S3Server

__all__ = ["open_folder", "proxied"]

SHORT = ("--set", "train.epochs=1", "--set", "train.global_batch_size=256")


def test_a_container_without_home_name_and_much_memory_trains(open_folder: Path) -> None:
    folders = {
        "CIFARRAY_STATE_DIR": str(open_folder / "state"),
        "CIFARRAY_STORE": str(open_folder / "store"),
    }
    try:
        ended = in_container("submit", "train-digits", "--prepare", *SHORT, **folders)
        assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), ended.stderr
        assert "are free in /dev/shm: Ray keeps its objects in its" in ended.stderr
        shown = in_container("runs", **folders)
        assert "finished" in shown.stdout, shown.stderr
        told = in_container("runs", CIFARRAY_STATE_DIR=folders["CIFARRAY_STATE_DIR"])
        assert (
            "/store contains no runs" in told.stdout + told.stderr
        )  # of a folder it may not write
    finally:
        down = in_container("cluster", "down", "--yes", **folders)
    assert down.returncode == 0, down.stderr


def test_a_folder_that_cannot_be_written_is_named(open_folder: Path) -> None:
    state = {"CIFARRAY_STATE_DIR": str(open_folder / "state")}
    for words in (("data", "prepare", "digits"), ("submit", "train-digits", "--prepare")):
        ended = in_container(*words, **state)
        assert (ended.returncode, "Traceback" in ended.stderr) == (1, False), ended.stderr
        assert "error: cannot use /store as a store: Permission denied; give" in ended.stderr


def test_a_run_on_a_bucket_of_this_machine_asks_no_proxy(
    cifarray_home: Path,
    s3: S3Server,
    proxied: list[str],
) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("NO_PROXY", "127.0.0.1")  # for the test's own client
        bucket = s3.new_bucket()
    command_line = CommandLine({"CIFARRAY_STORE": f"s3://{bucket}/runs"}, cifarray_home)
    try:
        run = command_line.submit("train-digits", "--prepare", *SHORT)
        assert run.status().state == "finished"
        assert "epoch 1" in command_line("logs", run.id)
    finally:
        command_line("cluster", "down", "--yes")
    # Ray looks for the cloud that it is in, through the proxy as anybody would.
    targets = [asked.split()[1] for asked in proxied]
    urls = [target if "://" in target else f"https://{target}" for target in targets]
    assert [url for url in urls if is_loopback(url)] == []
    assert node_state.read_node() is None
