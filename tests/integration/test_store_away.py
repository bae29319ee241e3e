"""The store goes away or is full while a run needs it; the run waits and ends as any other."""

import dataclasses
import os
import random
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cifarray.backends.local.state import Node
from cifarray.runs import Run
from cifarray.spec.load import to_yaml
from tests.holding_proxy import Fault, Request
from tests.integration.command_line import Ended, wait_for, wait_until
from tests.integration.drivers import Drivers, drivers_of
from tests.integration.same_runs import refuse_difference, refuse_other_report
from tests.s3 import S3Server

pytestmark = pytest.mark.timeout(900)
RESET = Fault("reset")
FULL = Fault("answer", 507, "InsufficientStorage")


def named(*parts: str, method: str = "PUT") -> Callable[[Request], bool]:
    """Whether a request is of this method and of a path that has all these parts."""
    return lambda asked: asked.method == method and all(part in asked.path for part in parts)


MOMENTS = {
    "data": named("/datasets/digits/", ".parquet", method="GET"),
    "an epoch": named("/attempts/1/metrics.jsonl"),
    "a checkpoint": named("/epoch_000002_", "/state.pt"),
    "a checkpoint's proof": named("/epoch_000002_", "/checkpoint.json"),
    "the report": named("/attempts/1/report/"),
}


class Away:
    """From the moment on every request is reset, for some seconds."""

    def __init__(self, moment: Callable[[Request], bool], seconds: float) -> None:
        self._moment, self._seconds = moment, seconds
        self._lock = threading.Lock()
        self.since: float | None = None

    def __call__(self, asked: Request) -> Fault | None:
        with self._lock:
            if self.since is None and self._moment(asked):
                self.since = time.monotonic()
        away = self.since is not None and time.monotonic() < self.since + self._seconds
        return RESET if away else None


def refuse_traces(drivers: Drivers, ended: Ended, trained: Run, folder: Path) -> None:
    """Fail unless the one driver came to what an undisturbed run comes to."""
    assert ended.code == 0, ended.out + ended.err
    assert "Traceback" not in ended.out + ended.err
    status = drivers.run.status()
    assert (status.state, status.attempts, status.error) == ("finished", 1, None)
    assert "failures" not in (status.progress or {})
    refuse_difference(drivers.run, trained, folder)
    refuse_other_report(drivers.run, trained)


def outlive(drivers: Drivers, moment: Callable[[Request], bool], seconds: float) -> Ended:
    """One driver whose store goes away; its end."""
    drivers.proxy.fault = away = Away(moment, seconds)
    driver = drivers.begin(drivers.proxy.address)
    try:
        out, err = driver.communicate(timeout=150 + seconds)
    finally:
        driver.kill()
    assert away.since is not None, f"the store was never away: {out}{err}"
    assert drivers.proxy.faults
    return Ended(driver.returncode, out, err)


def test_a_run_outlives_a_store_that_is_away_for_20_s_in_a_checkpoint(
    drivers: Drivers, trained: Run, tmp_path: Path
) -> None:
    ended = outlive(drivers, MOMENTS["a checkpoint"], 20)
    refuse_traces(drivers, ended, trained, tmp_path)
    assert "waiting for the store since " in ended.out
    assert "the store answers again" in ended.out


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [20, 60])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_outlives_a_store_that_is_away(
    drivers: Drivers, trained: Run, tmp_path: Path, moment: str, seconds: float
) -> None:
    refuse_traces(drivers, outlive(drivers, MOMENTS[moment], seconds), trained, tmp_path)


@pytest.mark.slow
def test_a_run_outlives_ten_minutes_without_a_store(
    drivers: Drivers, trained: Run, tmp_path: Path
) -> None:
    ended = outlive(drivers, MOMENTS["an epoch"], 600)
    refuse_traces(drivers, ended, trained, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_run_outlives_a_minute_without_a_store_whenever_it_begins(
    drivers: Drivers, trained: Run, tmp_path: Path, seed: int
) -> None:
    begin = time.monotonic() + random.Random(seed).uniform(1, 30)
    ended = outlive(drivers, lambda asked: time.monotonic() > begin, 60)
    refuse_traces(drivers, ended, trained, tmp_path)


@pytest.mark.slow
def test_a_run_outlives_one_request_in_ten_that_fails(
    drivers: Drivers, trained: Run, tmp_path: Path
) -> None:
    dice = random.Random(7)
    kinds = ("answer", "reset", "cut", "lost answer", "slow")

    def one_in_ten(asked: Request) -> Fault | None:
        if dice.random() > 0.1:
            return None
        return Fault(dice.choice(kinds), dice.choice((500, 503)), "InternalError")  # type: ignore[arg-type]

    drivers.proxy.fault = one_in_ten
    ended = wait_for(drivers.begin(drivers.proxy.address))
    assert drivers.proxy.kinds.keys() == set(kinds)
    refuse_traces(drivers, ended, trained, tmp_path)


def test_a_run_on_a_full_store_keeps_what_it_has_and_goes_on_once_there_is_space(
    drivers: Drivers, trained: Run, tmp_path: Path
) -> None:
    """Its patience is over first; the status names the cause, and a second attempt goes on."""
    run, proxy = drivers.run, drivers.proxy
    spec = run.spec()
    short = spec.profile.model_copy(update={"store_patience_s": 5.0, "max_failures": 0})
    impatient = spec.model_copy(update={"profile": short})
    run.store.write(run.key("job.yaml"), to_yaml(impatient).encode())
    is_full = named("/epoch_000003_", "/state.pt")
    proxy.fault = lambda asked: FULL if is_full(asked) else None
    first = drivers.begin(proxy.address)
    wait_until(lambda: bool(proxy.faults), "a full store", first)
    wait_until(
        lambda: "waits_for" in (run.status().progress or {}) or first.poll() is not None,
        "that status says so",
        first,
    )
    ended = wait_for(first)
    assert ended.code == 1
    assert "waiting for space in the store since " in ended.out
    status = run.status()
    assert status.state == "failed"
    assert status.error is not None
    assert "InsufficientStorage" in status.error
    kept = {entry.key.split("/")[-2] for entry in run.store.list(run.key("attempts/1/checkpoints"))}
    assert any(name.startswith("epoch_000002_") for name in kept)
    proxy.fault = lambda asked: None
    run.change_status(lambda status: dataclasses.replace(status, state="pending", error=None))
    again = wait_for(drivers.begin(proxy.address))
    assert again.code == 0, again.out + again.err
    assert "continuing from attempt 1: epoch 2" in again.out
    refuse_difference(run, trained, tmp_path)


@pytest.fixture
def small_gateway(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A real S3 server over a file system of 6 MB: its address, and the folder that it serves."""
    command = os.environ.get("CIFARRAY_TEST_GATEWAY")
    if not command:
        pytest.skip("no S3 gateway over a folder is named")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    keys = {"ROOT_ACCESS_KEY": "gateway", "ROOT_SECRET_KEY": "gateway-secret"}
    words = [*shlex.split(command), str(disk), "--port", str(port)]
    with subprocess.Popen(
        words, env={**os.environ, **keys}, stdout=subprocess.DEVNULL, text=True
    ) as server:
        try:
            wait_until(lambda: accepts(port), "the gateway's listening", server)
            yield f"http://127.0.0.1:{port}", disk
        finally:
            server.terminate()
            server.wait(10)
            subprocess.run(["umount", "-l", str(disk)], check=True)


def accepts(port: int) -> bool:
    """Whether anything listens on a port of this machine."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def fill(filler: Path) -> None:
    """Take all space of a file system but 64 KiB: a status fits then, and no checkpoint."""
    with filler.open("wb", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(max(0, file.tell() - (1 << 16)))


@pytest.mark.slow
def test_a_run_on_a_real_full_server_waits_and_ends_as_if_it_had_been_larger(
    small_gateway: tuple[str, Path],
    ray_node: Node,
    trained: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever a server says on a full disk: 507, 500, or a connection that it cuts."""
    address, disk = small_gateway
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "gateway")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "gateway-secret")
    server = S3Server(address, "gateway", "gateway-secret")
    with drivers_of(trained.spec().job, server, ray_node) as drivers:
        run, filler = drivers.run, disk / "filler"

        def has_begun() -> bool:
            return bool(run.metrics())

        driver = drivers.begin(address)
        wait_until(has_begun, "the first epoch", driver)
        fill(filler)
        wait_until(
            lambda: "space in the store" in (run.status().progress or {}).get("waits_for", ""),
            "that the status says so",
            driver,
        )
        time.sleep(10)
        filler.unlink()
        refuse_traces(drivers, wait_for(driver), trained, tmp_path)
