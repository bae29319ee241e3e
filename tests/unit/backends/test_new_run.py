"""A plan becomes a run in the store, with all that its numbers depend on."""

import hashlib
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from cifarray.backends.submit import (
    Submission,
    best_fields,
    check_data,
    create,
    plan,
    record_request,
    request,
)
from cifarray.data.split import select_rows
from cifarray.digests import content_sha256
from cifarray.errors import InputError, JobError, StoreError
from cifarray.runs import Run, write_index
from cifarray.runs.run import is_run_id
from cifarray.spec.job import Job
from cifarray.spec.load import load_job
from cifarray.spec.profile import Profile
from cifarray.spec.run import RunRequest, RunSpec
from cifarray.store import Store
from tests.digit_sessions import Digits, small_job
from tests.unit.backends.kubernetes.kube_requests import applied_record

PROFILE = Profile(name="two", kind="local", workers=2)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return Digits.prepared_in(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "net_of_new_run.py").write_text("def small(**options): ...\n")
    return folder


def sweep_run(store: Store, params: dict[str, Any], name: str = "a-sweep") -> Run:
    """A finished sweep whose best trial had these values."""
    job = small_job(kind="tune", sweep={"space": {"optimizer.lr": {"choice": [0.1]}}})
    run = Run.create(
        store,
        RunSpec(
            run_id=name,
            job=job,
            profile=PROFILE,
            world_size=2,
            dataset_digest="0" * 64,
            validation_rows=16,
            validation_sha256="0" * 64,
            submitted_at="2026-11-23T10:00:00+00:00",
            versions={},
        ),
    )
    trials = [
        {"id": "t0", "parameters": {"optimizer.lr": 0.9}},
        {"id": "t1", "parameters": params},
    ]
    store.write_json(run.key("report", "report.json"), {"trials": trials, "best_trial_id": "t1"})
    write_index(store, run.key("report"))
    return run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def test_a_run_is_recorded_with_all_that_its_numbers_depend_on(digits: Digits):
    run = create(plan(small_job(), PROFILE), digits.store, digits.manifest)
    assert is_run_id(run.id)
    assert run.id.startswith("few-digits-")
    spec = Run.open(digits.store, run.id).spec()
    assert (spec.job, spec.profile, spec.world_size) == (small_job(), PROFILE, 2)
    assert spec.dataset_digest == digits.manifest.digest
    assert spec.validation_rows == 16
    assert spec.versions["torch"]
    assert spec.code is None
    assert spec.best_of is None
    assert run.status().state == "pending"


def test_job_yaml_is_plain_yaml_that_reads_as_a_job(digits: Digits, tmp_path: Path):
    run = create(plan(small_job(), PROFILE), digits.store, digits.manifest)
    written = yaml.safe_load(digits.store.read(run.key("job.yaml")))
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(written["job"]))
    assert load_job(str(tmp_path / "again.yaml")) == small_job()


def test_the_validation_rows_lie_beside_the_job_and_hash_to_what_it_records(digits: Digits):
    run = create(plan(small_job(), PROFILE), digits.store, digits.manifest)
    table = pq.read_table(io.BytesIO(digits.store.read(run.key("validation.parquet"))))
    row_ids = table["row_id"].to_pylist()
    spec = run.spec()
    text = json.dumps(sorted(row_ids), separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == spec.validation_sha256
    assert len(row_ids) == spec.validation_rows
    selection = select_rows(digits.store, digits.manifest, spec.job)
    assert row_ids == selection.validation_row_ids.tolist()


def test_a_run_takes_the_name_it_is_given_once(digits: Digits):
    given = plan(small_job(), PROFILE)
    assert create(replace(given, name="my-run"), digits.store, digits.manifest).id == "my-run"
    with pytest.raises(InputError, match=r"my-run already exists in .*; give another name"):
        create(replace(given, name="my-run"), digits.store, digits.manifest)
    with pytest.raises(InputError, match="cannot name a run 'My run'"):
        create(replace(given, name="My run"), digits.store, digits.manifest)


def test_a_run_that_cannot_be_written_whole_does_not_stay_pending(digits: Digits):
    run = Run(digits.store, "cut-short")
    Path(digits.store.path(run.key("validation.parquet"))).mkdir(parents=True)
    with pytest.raises(StoreError, match=r"cannot write runs/cut-short/validation\.parquet"):
        create(plan(small_job(), PROFILE, name=run.id), digits.store, digits.manifest)
    assert run.status().state == "failed"
    assert "the run could not be recorded: cannot write" in (run.status().error or "")


def test_own_code_travels_with_the_run(digits: Digits, code: Path):
    job = small_job(model={"name": "net_of_new_run:small"})
    run = create(plan(job, PROFILE, code=code), digits.store, digits.manifest)
    spec = run.spec()
    assert spec.code is not None
    packed = digits.store.read(spec.code.key)
    assert spec.code.key == run.key("code.zip")
    assert content_sha256(packed) == hashlib.sha256(packed).hexdigest() == spec.code.sha256
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.namelist() == ["net_of_new_run.py"]


def test_nothing_is_written_for_a_job_that_the_rows_refuse(digits: Digits, store: Store):
    job = small_job(train={"global_batch_size": 65})
    planned = plan(job, PROFILE)
    with pytest.raises(JobError, match="global_batch_size 65 is more than the 64 training rows"):
        check_data(planned, digits.store, digits.manifest)
    before = len(digits.store.list("runs"))
    with pytest.raises(JobError, match="global_batch_size 65 is more than the 64 training rows"):
        create(planned, digits.store, digits.manifest)
    assert len(digits.store.list("runs")) == before


def test_a_job_that_the_profile_refuses_gives_no_plan():
    with pytest.raises(JobError, match="--workers 3 is more than the 2"):
        plan(small_job(), PROFILE, workers=3)


def test_workers_are_the_profiles_unless_told_otherwise():
    assert plan(small_job(), PROFILE).world_size == 2
    assert plan(small_job(), PROFILE, workers=1).world_size == 1


def test_another_seed_changes_nothing_but_the_name():
    planned = plan(small_job(seed=6), PROFILE, workers=1, name="mine")
    first, other = planned.seeds(2)
    assert first == replace(planned, name="mine-1")
    assert other == Submission(small_job(seed=7), PROFILE, 1, name="mine-2")
    assert planned.seeds(1) == [planned]


def taken(store: Store, params: dict[str, Any], *sets: str, **sections: Any) -> Job:
    """The small job with a sweep's best values."""
    run = sweep_run(store, params)
    return plan(small_job(**sections), PROFILE, best_of=run, sets=sets).job


def test_the_best_trials_fields_are_taken_and_where_from_is_recorded(digits: Digits, store: Store):
    params = {"optimizer.lr": 0.02, "model.dropout": 0.3}
    run = sweep_run(store, params)
    planned = plan(small_job(), PROFILE, best_of=run)
    assert (planned.job.optimizer.lr, planned.job.model.dropout) == (0.02, 0.3)
    assert planned.job.train == small_job().train
    recorded = create(planned, digits.store, digits.manifest).spec().best_of
    assert recorded == {"run_id": "a-sweep", "trial_id": "t1", "params": params}
    assert recorded == best_fields(run)


def test_typed_fields_win_over_those_of_the_sweep(store: Store):
    params = {"optimizer.lr": 0.02, "model.dropout": 0.3}
    typed = small_job(optimizer={"lr": 0.5})
    run = sweep_run(store, params)
    job = plan(typed, PROFILE, best_of=run, sets=["optimizer.lr=0.5"]).job
    assert (job.optimizer.lr, job.model.dropout) == (0.5, 0.3)


def test_a_typed_record_wins_as_a_whole(store: Store):
    sets = ["optimizer={name: sgd, lr: 0.05, momentum: 0.9}"]
    assert taken(store, {"optimizer.lr": 0.02, "optimizer.name": "adam"}, *sets) == small_job()


def test_what_the_best_optimizer_does_not_use_is_left_out(store: Store):
    params = {"optimizer.name": "adam", "optimizer.momentum": 0.7, "optimizer.lr": 0.001}
    optimizer = taken(store, params).optimizer
    assert (optimizer.name, optimizer.lr, optimizer.momentum) == ("adam", 0.001, None)
    optimizer = taken(
        Store.open(store.uri + "-2"), {"optimizer.name": "adamw"}, optimizer={"nesterov": True}
    ).optimizer
    assert (optimizer.name, optimizer.momentum, optimizer.nesterov) == ("adamw", None, None)


def test_a_typed_field_that_the_best_optimizer_does_not_use_is_refused(store: Store):
    with pytest.raises(JobError, match=r"optimizer adam does not use optimizer\.momentum"):
        taken(store, {"optimizer.name": "adam"}, "optimizer.momentum=0.9")


def test_a_sweeps_report_names_no_code_that_the_job_did_not_name(store: Store):
    run = sweep_run(store, {"model.name": "shutil:rmtree"})
    with pytest.raises(JobError, match=r"network shutil:rmtree, .* --set model.name=shutil:rmtree"):
        plan(small_job(), PROFILE, best_of=run)


def test_a_run_that_is_no_sweep_has_no_best_fields(store: Store):
    run = sweep_run(store, {})
    store.write_json(run.key("report", "report.json"), {"trials": None, "best_trial_id": None})
    write_index(store, run.key("report"))
    with pytest.raises(
        JobError, match="--best-of a-sweep: this run is not a sweep; give a run of kind"
    ):
        best_fields(run)


def test_a_sweep_without_a_report_has_no_best_fields_yet(store: Store):
    run = sweep_run(store, {})
    store.delete([run.key("report", "report.json")])
    with pytest.raises(InputError, match="has no complete report"):
        plan(small_job(), PROFILE, best_of=run)


def asked_for(digits: Digits, name: str, **fields: Any) -> RunRequest:
    asked = request(plan(small_job(), PROFILE, name=name), digits.manifest)
    return asked.model_copy(update=fields)


def test_a_driver_records_a_run_that_it_was_only_asked_for(digits: Digits):
    asked = asked_for(digits, "asked-for")
    spec = record_request(digits.store, asked).spec()
    assert (spec.job, spec.profile, spec.submitted_at) == (
        asked.job,
        asked.profile,
        asked.submitted_at,
    )
    assert (spec.world_size, spec.dataset_digest) == (2, digits.manifest.digest)
    assert digits.store.exists("runs/asked-for/validation.parquet")


def test_a_run_that_is_recorded_already_is_left_as_it_is(digits: Digits):
    asked = asked_for(digits, "asked-twice")
    first = record_request(digits.store, asked)
    first.mark_stopped("by a person")
    again = record_request(digits.store, asked.model_copy(update={"submitted_at": "2027-01-01"}))
    assert again.spec().submitted_at == asked.submitted_at
    assert again.status().state == "stopped"


def test_a_request_without_a_digest_takes_the_latest_dataset(digits: Digits):
    run = record_request(digits.store, asked_for(digits, "of-the-latest", dataset_digest=None))
    assert run.spec().dataset_digest == digits.manifest.digest


def applied(digits: Digits, name: str) -> RunRequest:
    """As `submit --dry-run | kubectl apply -f -` hands it to a driver."""
    store = {"uri": digits.store.uri}
    on = Profile.model_validate({"name": "kube", "kind": "kubernetes", "store": store})
    return asked_for(digits, name, profile=on)


def test_a_driver_records_the_rayjob_that_was_applied(digits: Digits):
    asked = applied(digits, "applied")
    record = record_request(digits.store, asked).status().cluster
    assert record == applied_record(asked)
    assert (record["job_id"], record["kind"]) == ("applied-1", "kubernetes")


def test_a_driver_that_died_between_run_and_record_leaves_the_record_to_the_next(digits: Digits):
    asked = applied(digits, "died-between")
    run = record_request(digits.store, asked)
    run.change_status(lambda status: replace(status, cluster=None))
    assert record_request(digits.store, asked).status().cluster == applied_record(asked)


def test_the_record_of_a_submission_is_left_as_it_is(digits: Digits):
    asked = applied(digits, "submitted")
    record_request(digits.store, asked).set_cluster({"kind": "kubernetes", "job_id": "submitted-2"})
    again = record_request(digits.store, asked).status().cluster or {}
    assert again["job_id"] == "submitted-2"
