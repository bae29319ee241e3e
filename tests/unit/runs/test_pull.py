"""A pulled run is complete, checked, resumable, and stays in its folder."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cifarray.errors import InputError
from cifarray.runs import Run, check_index, plan_pull, pull
from cifarray.runs.pull import chosen_checkpoints
from cifarray.store import Store
from tests.loopback import answering
from tests.s3 import S3Server
from tests.unit.runs.conftest import add_checkpoint, fill

CHECKPOINTS = "attempts/1/checkpoints/ray_run"


class Interrupted(Exception):
    """What a test raises if a person would press Ctrl-C."""


def _files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_pulled_run_holds_best_and_last_checkpoint_report_records_and_logs(
    finished: Run, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "copy"
    pulled = pull(finished, target)
    assert _files(target) == [
        f"{CHECKPOINTS}/epoch_000001/checkpoint.json",
        f"{CHECKPOINTS}/epoch_000001/state.pt",
        f"{CHECKPOINTS}/epoch_000002/checkpoint.json",
        f"{CHECKPOINTS}/epoch_000002/state.pt",
        "attempts/1/driver.log",
        "attempts/1/evaluation/test.parquet",
        "attempts/1/metrics.jsonl",
        "best.json",
        "files.json",
        "job.yaml",
        "report/files.json",
        "report/report.html",
        "report/report.json",
        "status.json",
    ]
    assert pulled.problems == []
    assert pulled.report == target / "report" / "report.html"
    assert pulled.checkpoints == {
        "best": target / CHECKPOINTS / "epoch_000001",
        "last": target / CHECKPOINTS / "epoch_000002",
    }
    copy = Store.open(str(target))
    for name in _files(target):
        if name != "files.json":
            assert copy.read(name) == finished.store.read(finished.key(name))
    assert check_index(copy, "") == check_index(copy, "report") == []
    for folder in ("epoch_000001", "epoch_000002"):
        assert check_index(copy, f"{CHECKPOINTS}/{folder}", index="checkpoint.json") == []


def test_a_flipped_byte_or_a_missing_file_of_a_copy_is_found(finished: Run, tmp_path: Path) -> None:
    pull(finished, tmp_path / "copy")
    copy = Store.open(str(tmp_path / "copy"))
    for name in ("000001/state.pt", "report/report.json", "metrics.jsonl", "driver.log"):
        (key,) = [entry.key for entry in copy.list() if entry.key.endswith(name)]
        data = copy.read(key)
        copy.write(key, bytes([data[0] ^ 1]) + data[1:])
        assert check_index(copy, "") == [f"{key} differs from what was written (sha256)"]
        copy.delete([key])
        assert check_index(copy, "") == [f"{key} is missing"]
        copy.write(key, data)


def test_a_second_pull_mends_the_copy_and_fetches_little(finished: Run, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    first = pull(finished, target)
    state = target / CHECKPOINTS / "epoch_000001" / "state.pt"
    good = state.read_bytes()
    again = pull(finished, target)
    assert again.fetched_bytes < first.fetched_bytes / 10
    state.write_bytes(good[:100] + b"X" + good[101:])
    mended = pull(finished, target)
    assert state.read_bytes() == good
    assert len(good) <= mended.fetched_bytes < len(good) + again.fetched_bytes + 1
    assert mended.problems == []


@pytest.mark.parametrize("after_bytes", [0, 3000, 400_000])
def test_a_pull_that_was_cut_goes_on_where_it_stopped(
    finished: Run, tmp_path: Path, after_bytes: int
) -> None:
    target = tmp_path / "copy"
    seen = 0

    def interrupt(amount: int) -> None:
        nonlocal seen
        seen += amount
        if seen > after_bytes:
            raise Interrupted

    with pytest.raises(Interrupted):
        pull(finished, target, advance=interrupt)
    assert not (target / "files.json").exists()
    told: list[int] = []
    plan = plan_pull(finished)
    resumed = pull(finished, target, plan, told.append)
    assert sum(told) == plan.size_bytes
    assert resumed.fetched_bytes <= plan.size_bytes - max(0, after_bytes - 200_000)
    assert check_index(Store.open(str(target)), "") == []
    assert not [name for name in _files(target) if name.endswith(".part")]


def test_a_damaged_checkpoint_is_named_and_does_not_exist_in_the_copy(
    finished: Run, tmp_path: Path
) -> None:
    key = finished.key(CHECKPOINTS, "epoch_000002", "state.pt")
    data = finished.store.read(key)
    finished.store.write(key, data[:-1] + b"?")
    pulled = pull(finished, tmp_path / "copy")
    (problem,) = pulled.problems
    assert "epoch_000002/state.pt" in problem
    assert "damaged" in problem
    assert list(pulled.checkpoints) == ["best"]
    assert not (tmp_path / "copy" / CHECKPOINTS / "epoch_000002" / "state.pt").exists()
    assert not (tmp_path / "copy" / CHECKPOINTS / "epoch_000002" / "checkpoint.json").exists()
    assert pulled.report is not None
    finished.store.write(key, data)
    assert pull(finished, tmp_path / "copy").problems == []


def test_a_missing_file_of_a_checkpoint_is_named(finished: Run, tmp_path: Path) -> None:
    finished.store.delete([finished.key(CHECKPOINTS, "epoch_000001", "state.pt")])
    pulled = pull(finished, tmp_path / "copy")
    assert any("epoch_000001/state.pt" in problem for problem in pulled.problems)
    assert "best" not in pulled.checkpoints


def test_a_damaged_report_is_named_and_not_shown_as_one(finished: Run, tmp_path: Path) -> None:
    finished.store.write(finished.key("report", "report.html"), b"<html>!</html>")
    pulled = pull(finished, tmp_path / "copy")
    assert any("report/report.html" in problem for problem in pulled.problems)
    assert pulled.report is None
    assert not (tmp_path / "copy" / "report" / "files.json").exists()


def test_a_running_run_is_pulled_as_far_as_it_has_come(run: Run, tmp_path: Path) -> None:
    fill(run.start_attempt("a driver"))
    pulled = pull(run, tmp_path / "copy")
    assert pulled.problems == []
    assert pulled.report is None
    assert {kind: folder.name for kind, folder in pulled.checkpoints.items()} == {
        "best": "epoch_000001",
        "last": "epoch_000002",
    }


def test_a_run_that_never_began_is_pulled_without_checkpoints(run: Run, tmp_path: Path) -> None:
    pulled = pull(run, tmp_path / "copy")
    assert _files(tmp_path / "copy") == ["files.json", "job.yaml", "status.json"]
    assert (pulled.checkpoints, pulled.report, pulled.problems) == ({}, None, [])


def test_a_folder_that_holds_something_else_is_refused(
    finished: Run, new_run: Callable[..., Run], tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="contains something other than run"):
        pull(finished, tmp_path / "mine")
    pull(new_run("other-261123-100000-0000"), tmp_path / "other")
    with pytest.raises(InputError, match="contains something other than run"):
        pull(finished, tmp_path / "other")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot write into"):
        pull(finished, tmp_path / "file")
    assert _files(tmp_path / "mine") == ["thesis.tex"]


def test_a_link_that_leads_out_of_the_folder_is_not_followed(finished: Run, tmp_path: Path) -> None:
    pull(finished, tmp_path / "copy")
    outside = tmp_path / "outside"
    outside.mkdir()
    for path in sorted((tmp_path / "copy" / "report").iterdir()):
        path.unlink()
    (tmp_path / "copy" / "report").rmdir()
    (tmp_path / "copy" / "report").symlink_to(outside)
    with pytest.raises(InputError, match="a link leads out of"):
        pull(finished, tmp_path / "copy")
    assert list(outside.iterdir()) == []


def test_a_hostile_store_makes_pull_write_nothing_outside_its_folder(
    s3: S3Server, tmp_path: Path
) -> None:
    names = ["job.yaml", "../../evil", "../x", "/abs", "a/../../../evil", "attempts/1/..\\evil"]
    items = "".join(
        f"<Contents><Key>runs/run-a/{name}</Key><LastModified>2026-01-01T00:00:00.000Z"
        '</LastModified><ETag>"e"</ETag><Size>4</Size></Contents>'
        for name in names
    )
    start = '<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated>'
    listing = f"{start}{items}</ListBucketResult>".encode()

    def answer(asked: str) -> tuple[int, dict[str, str], bytes]:
        if "list-type" in asked:
            return 200, {"Content-Type": "application/xml"}, listing
        return 200, {"ETag": '"e"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}, b"evil"

    with answering(answer) as address:
        store = Store.open("s3://bucket", address)
        pull(Run(store, "run-a"), tmp_path / "deep" / "er" / "copy")
    assert _files(tmp_path) == ["deep/er/copy/files.json", "deep/er/copy/job.yaml"]


def _sweep(run: Run) -> None:
    for trial, values in {"t0": (0.5, 0.6), "t1": (0.7, 0.9, 0.8), "t2": (0.4,)}.items():
        for epoch, top1 in enumerate(values):
            folder = run.key("attempts", "1", "trials", trial, f"checkpoint_{epoch}")
            add_checkpoint(run.store, folder, epoch, top1)
        run.store.write(run.key("attempts", "1", "trials", trial, "metrics.jsonl"), b"{}\n")
        run.store.write(run.key("attempts", "1", "trials", trial, "params.pkl"), b"pickle")
        events = run.key("attempts", "1", "trials", trial, "tensorboard", "events.out.tfevents.x")
        run.store.write(events, b"events")
    run.store.write(run.key("attempts", "1", "trials", "tuner.pkl"), b"pickle")


def test_of_a_sweep_the_best_trials_checkpoints_and_all_records_come_and_no_pickle(
    run: Run, tmp_path: Path
) -> None:
    _sweep(run)
    pulled = pull(run, tmp_path / "copy")
    assert pulled.problems == []
    names = _files(tmp_path / "copy")
    assert [name for name in names if name.endswith("state.pt")] == [
        "attempts/1/trials/t1/checkpoint_1/state.pt",
        "attempts/1/trials/t1/checkpoint_2/state.pt",
    ]
    assert len([name for name in names if name.endswith("metrics.jsonl")]) == 3
    assert len([name for name in names if "/tensorboard/events.out.tfevents." in name]) == 3
    assert not [name for name in names if name.endswith(".pkl")]


def _chosen(run: Run) -> dict[str, str]:
    start = len(run.prefix) + 1
    return chosen_checkpoints(run, [entry.key[start:] for entry in run.store.list(run.prefix)])


def test_best_json_decides_which_checkpoint_is_best(run: Run) -> None:
    _sweep(run)
    named = "attempts/1/trials/t0/checkpoint_1"
    run.store.write_json(run.key("best.json"), {"checkpoint": named})
    assert _chosen(run) == {"best": named, "last": named}
    for odd in (
        {"checkpoint": "../../x"},
        {"checkpoint": 3},
        [],
        {"checkpoint": "attempts/1/gone"},
    ):
        run.store.write_json(run.key("best.json"), odd)
        assert _chosen(run)["best"] == "attempts/1/trials/t1/checkpoint_1"


def test_a_damaged_checkpoint_json_is_passed_over(run: Run) -> None:
    _sweep(run)
    proof = run.key("attempts", "1", "trials", "t1", "checkpoint_1", "checkpoint.json")
    for damaged in (
        b"{",
        b"[]",
        b'{"epoch": "x"}',
        json.dumps({"epoch": 1, "metrics": 3}).encode(),
    ):
        run.store.write(proof, damaged)
        assert _chosen(run)["best"] == "attempts/1/trials/t1/checkpoint_2"


def test_the_newest_attempt_that_has_begun_counts(run: Run) -> None:
    for top1 in (0.9, 0.5):
        attempt = run.start_attempt("a driver")
        add_checkpoint(run.store, f"{attempt.prefix}/checkpoints/r/epoch_1", 1, top1)
    third = run.take_charge("died while it copied")
    add_checkpoint(run.store, f"{third.prefix}/checkpoints/r/epoch_1", 1, 0.9)
    assert _chosen(run)["best"] == "attempts/2/checkpoints/r/epoch_1"
    run.start_attempt("has nothing")
    assert _chosen(run) == {}


def test_of_attempts_before_the_newest_the_logs_are_pulled(run: Run, tmp_path: Path) -> None:
    for _ in range(2):
        fill(run.start_attempt("a driver"))
    assert pull(run, tmp_path / "copy").problems == []
    names = _files(tmp_path / "copy" / "attempts")
    assert [name for name in names if name.startswith("1/")] == ["1/driver.log"]
    assert {"2/driver.log", "2/metrics.jsonl", "2/evaluation/test.parquet"} < set(names)
