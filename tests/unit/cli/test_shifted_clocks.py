"""Commands on a machine whose clock is wrong leave a live run alone, and follow it to its end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cifarray.runs import Run
from cifarray.store import Store
from tests.conftest import REPOSITORY
from tests.preloaded import SHIFTED_CLOCK, preloaded
from tests.unit.runs.conftest import run_spec

RUN_ID = "train-digits-261123-100000-abcd"
TYPED = """
import contextlib, io, json, sys, time
from cifarray.cli.main import main
from cifarray.runs import Run
from cifarray.store import Store
from cifarray.backends.follow import Follower
codes, run_id = {}, sys.argv[1]
for name, words in {
    "delete": ("delete", run_id, "--yes"),
    "prune": ("prune", "--older-than", "1min", "--keep-best", "0", "--yes", "--json"),
    "resume": ("resume", run_id),
    "status": ("status", run_id, "--json"),
    "runs": ("runs", "--json"),
}.items():
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            main(words)
        except SystemExit as ended:
            codes[name] = int(ended.code or 0)
    if name in ("status", "prune", "runs"):
        codes[name] = json.loads(out.getvalue())
codes["time"] = time.time()
print(json.dumps(codes), flush=True)
run = Run.open(Store.open(sys.argv[2]), run_id)
print(Follower(run, None, None).follow(lambda status, remark: None, 0.1).state)
"""


@pytest.mark.parametrize("shift_s", [300, -300, 86400, -86400])
def test_a_live_run_is_left_alone_by_a_machine_whose_clock_is_wrong(
    home_store: Store, tmp_path: Path, shift_s: int
) -> None:
    run = Run.create(home_store, run_spec(RUN_ID))
    environment = preloaded(SHIFTED_CLOCK, tmp_path) | {"SHIFT_S": str(shift_s)}
    attempt = run.start_attempt("a driver", heartbeat_s=0.3)
    with subprocess.Popen(
        [sys.executable, "-c", TYPED, run.id, home_store.uri],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
    ) as process:
        assert process.stdout is not None
        try:
            with attempt.keep_alive():
                told = json.loads(process.stdout.readline())
            attempt.close("finished")
            assert process.stdout.read().strip() == "finished"
        finally:
            process.kill()
    assert abs(told["time"] - os.stat(home_store.uri).st_mtime - shift_s) < 200, "not shifted"
    assert (told["delete"], told["resume"]) == (2, 2)
    assert told["prune"]["deleted"] == []
    assert told["status"]["state"] == told["runs"][0]["state"] == "running"
    assert run.status().state == "finished"
