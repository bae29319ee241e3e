"""An attempt whose process was stopped in the middle of a write changes nothing when it wakes."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest

from cifarray.runs import Run
from cifarray.runs.metrics_log import write_metrics
from tests.conftest import REPOSITORY
from tests.holding_proxy import Held, HoldingProxy, holding_proxy
from tests.s3 import S3Server
from tests.unit.runs.conftest import run_spec
from tests.unit.runs.test_attempt import wait_until


@pytest.fixture
def run(s3: S3Server) -> Run:
    """A pending run in a bucket."""
    return Run.create(s3.new_store(), run_spec("train-digits-261123-100000-abcd"))


@contextmanager
def first_attempt(run: Run, endpoint: str) -> Iterator["subprocess.Popen[str]"]:
    words = ("-m", "tests.unit.runs.one_attempt", run.store.uri, endpoint, run.id)
    with subprocess.Popen(
        [sys.executable, *words], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def take_over(run: Run, proxy: HoldingProxy, process: "subprocess.Popen[str]") -> tuple[Held, str]:
    """Stop the process once a request is held, begin the second attempt, and wake the process."""
    wait_until(lambda: bool(proxy.held) or process.poll() is not None)
    os.kill(process.pid, signal.SIGSTOP)
    second = run.start_attempt("the second")
    write_metrics(run.store, second.prefix, [{"epoch": 1}])
    second.heartbeat({"done": 1})
    before = [run.store.read(run.key(name)) for name in ("status.json", "lease.json")]
    os.kill(process.pid, signal.SIGCONT)
    proxy.release()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert [run.store.read(run.key(name)) for name in ("status.json", "lease.json")] == before
    second.close("finished")
    assert run.metrics() == [{"epoch": 1}]
    (held,) = proxy.held
    return held, err.strip()


@pytest.mark.parametrize("how", ["half", "whole"])
@pytest.mark.parametrize("name", ["status.json", "lease.json"])
def test_what_the_stopped_one_says_of_the_run_is_refused_when_it_arrives(
    run: Run, name: str, how: Literal["half", "whole"]
) -> None:
    with holding_proxy(run.store.endpoint or "") as proxy:
        writes = itertools.count(1)
        proxy.hold(lambda r: r.method == "PUT" and r.path.endswith(name) and next(writes) == 3, how)
        with first_attempt(run, proxy.address) as process:
            held, sentence = take_over(run, proxy, process)
    assert held.status == 412
    assert sentence.startswith(f"error: attempt 1 of run {run.id} is no longer in charge: another")


@pytest.mark.parametrize("how", ["half", "whole"])
def test_what_the_stopped_one_writes_of_its_own_is_not_read(
    run: Run, how: Literal["half", "whole"]
) -> None:
    with holding_proxy(run.store.endpoint or "") as proxy:
        proxy.hold(lambda r: r.method == "PUT" and b'"epoch": 3' in r.body, how)
        with first_attempt(run, proxy.address) as process:
            held, sentence = take_over(run, proxy, process)
    assert held.status == 200
    assert run.store.read(run.key("attempts/1/metrics.jsonl")).count(b"\n") == 3
    assert "is no longer in charge" in sentence
