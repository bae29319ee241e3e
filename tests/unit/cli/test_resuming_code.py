"""`resume` says what code a run executes, and asks where the run was not submitted from here."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from cifarray.backends.trust import SUBMITTED_FILE, remember_submission
from cifarray.runs import Run
from cifarray.spec.job import Job, ModelSpec
from cifarray.spec.profile import Profile
from cifarray.spec.run import CodeSpec, RunSpec
from cifarray.store import Store
from tests.digit_sessions import small_job
from tests.loopback import Collector, collecting
from tests.unit.cli.conftest import Type
from tests.unit.runs.conftest import run_spec

RUN_ID = "train-digits-261123-100000-abcd"
ADDRESS = "127.0.0.1:6379"
CODE = CodeSpec(key=f"runs/{RUN_ID}/code.zip", sha256="ab" * 32)
SWEEP = small_job(kind="tune", sweep={"space": {"optimizer.lr": {"choice": [0.1]}}})


@pytest.fixture
def node() -> Iterator[Collector]:
    """The user's own node."""
    with collecting("no-job") as server:
        yield server


@pytest.fixture
def mine(node: Collector, tmp_path: Path) -> Path:
    """The profile that names it."""
    path = tmp_path / "mine.yaml"
    given = {"kind": "local", "address": ADDRESS, "dashboard": node.address}
    path.write_text(yaml.safe_dump(given))
    return path


Recorded = Callable[..., Run]


@pytest.fixture
def failed(home_store: Store, node: Collector) -> Recorded:
    """Records a run on that node that has failed."""

    def make(code: CodeSpec | None = CODE, job: Job | None = None, here: bool = False) -> Run:
        profile = Profile(name="mine", kind="local", address=ADDRESS, dashboard=node.address)
        spec: RunSpec = run_spec(RUN_ID)
        changes = {"profile": profile, "code": code, "job": job or spec.job}
        spec = spec.model_copy(update=changes)
        run = Run.create(home_store, spec)
        if here:
            remember_submission(spec)
        run.mark_failed("it was killed")
        return run

    return make


def submissions(node: Collector) -> int:
    return sum(each.startswith("POST /api/jobs/") for each in node.received)


def with_network(name: str) -> Job:
    job = run_spec(RUN_ID).job
    return job.model_copy(update={"model": ModelSpec(name=name)})


@pytest.mark.parametrize(
    ("code", "job", "brought"),
    [
        (CODE, None, "executes the code that it brings (sha256 abababababab)"),
        (None, with_network("shutil:rmtree"), "executes the network shutil:rmtree"),
        (None, SWEEP, "executes the state of its search, a pickle of Ray Tune"),
    ],
)
def test_code_of_a_run_from_elsewhere_is_refused_where_nobody_can_be_asked(
    typed: Type,
    failed: Recorded,
    node: Collector,
    mine: Path,
    code: CodeSpec | None,
    job: Job | None,
    brought: str,
) -> None:
    run = failed(code, job)
    shown = typed("resume", RUN_ID, "--detach", "--cluster", mine)
    assert shown.code == 2
    assert brought in shown.err and "was not submitted from here" in shown.err
    assert "then add --yes to execute it" in shown.err
    assert submissions(node) == 0 and run.status().state == "failed"
    shown = typed("resume", RUN_ID, "--detach", "--cluster", mine, "--yes")
    assert shown.code == 0 and submissions(node) == 1
    assert brought in shown.err


def test_of_a_run_from_here_it_is_said_and_not_asked(
    typed: Type, failed: Recorded, node: Collector
) -> None:
    failed(here=True)
    shown = typed("resume", RUN_ID, "--detach")
    assert shown.code == 0 and submissions(node) == 1
    assert "executes the code that it brings" in shown.err


def test_other_code_in_the_record_of_a_run_from_here_is_asked_about(
    typed: Type, failed: Recorded, node: Collector, mine: Path, home_store: Store
) -> None:
    run = failed(here=True)
    changed = home_store.read(run.key("job.yaml")).replace(b"ab" * 32, b"cd" * 32)
    home_store.write(run.key("job.yaml"), changed)
    shown = typed("resume", RUN_ID, "--detach", "--cluster", mine)
    assert shown.code == 2 and "(sha256 cdcdcdcdcdcd)" in shown.err
    assert submissions(node) == 0


def test_a_run_without_code_of_its_own_is_not_asked_about(
    typed: Type, failed: Recorded, node: Collector, mine: Path
) -> None:
    failed(code=None)
    shown = typed("resume", RUN_ID, "--detach", "--cluster", mine)
    assert shown.code == 0 and submissions(node) == 1 and "executes" not in shown.err


@pytest.mark.parametrize(("answer", "submitted"), [("y", 1), ("n", 0), ("", 0)])
def test_a_person_at_a_terminal_is_asked(
    failed: Recorded, node: Collector, mine: Path, answer: str, submitted: int
) -> None:
    failed()
    ours, theirs = pty.openpty()
    cifarray = str(Path(sys.executable).with_name("cifarray"))
    command = [cifarray, "resume", RUN_ID, "--detach", "--cluster", str(mine)]
    process = subprocess.Popen(
        command, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, text=True
    )
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    process.communicate(timeout=60)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert process.returncode == 0, shown
    assert "was not submitted from here: continue? [y/N]" in shown
    assert submissions(node) == submitted
    assert ("nothing was started" in shown) == (submitted == 0)


def test_the_list_of_submissions_is_for_its_owner_alone(
    failed: Recorded, cifarray_home: Path
) -> None:
    failed(here=True)
    assert (cifarray_home / "state" / SUBMITTED_FILE).stat().st_mode & 0o777 == 0o600
