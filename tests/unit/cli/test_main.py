"""How a command ends: errors, a closed pipe, Ctrl-C, and which store it uses."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cifarray.cli.options import open_store
from tests.unit.cli.conftest import Type

CIFARRAY = Path(sys.executable).with_name("cifarray")


def test_a_closed_pipe_is_quiet() -> None:
    command = subprocess.Popen(
        [CIFARRAY, "jobs", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert command.stdout is not None and command.stderr is not None
    command.stdout.close()
    errors = command.stderr.read()
    command.stderr.close()
    assert command.wait(timeout=30) == 1
    assert errors == b""


def test_ctrl_c_ends_with_130_and_no_traceback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = subprocess.Popen(
            [CIFARRAY, "runs", "--store", "s3://bucket/x", "--endpoint", address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        connection, _ = silent.accept()
        with connection:
            command.send_signal(signal.SIGINT)
            _, errors = command.communicate(timeout=30)
    assert command.returncode == 130
    assert b"Traceback" not in errors


def test_quiet_and_verbose_stand_before_or_after_the_command(typed: Type) -> None:
    assert typed("-q", "runs").err == ""
    assert typed("submit", "train-digits", "--dry-run", "-q").err == ""
    assert "contains no runs" in typed("-v", "runs").err


def test_the_store_is_the_flags_then_the_environments_then_the_profiles(
    cifarray_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_store("/tmp/flag", None).uri == "/tmp/flag"
    assert open_store(None, None).uri == str(cifarray_home / "store")
    monkeypatch.delenv("CIFARRAY_STORE")
    assert open_store(None, None).uri == str(cifarray_home / "store")  # ./store, from here
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert open_store("s3://bucket", None).endpoint == "http://127.0.0.1:1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:2")
    assert open_store("s3://bucket", None).endpoint == "http://127.0.0.1:2"
    assert open_store("s3://bucket", "http://127.0.0.1:3").endpoint == "http://127.0.0.1:3"
