"""Jobs and profiles by name or by path, other fields for them, and what is refused."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic.fields import FieldInfo

from cifarray.errors import JobError
from cifarray.spec.job import Job
from cifarray.spec.load import (
    check_field,
    fields_of,
    job_names,
    load_job,
    load_profile,
    nearest,
    profile_names,
    read_field,
    to_yaml,
    unknown_name,
    with_fields,
)
from cifarray.spec.profile import Profile
from cifarray.spec.record import Record
from tests.golden_files import Golden

JOBS = job_names()
JOBS_FOLDER = Path(__file__).parents[3] / "jobs"


def without_defaults(record: Record) -> str:
    """A record as YAML without the fields that have their default, so that a new one adds none."""
    values = record.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def records_in(annotation: Any) -> Iterator[type[Record]]:
    """The kinds of records in a field's annotation, and those in their fields."""
    if isinstance(annotation, type) and issubclass(annotation, Record):
        yield annotation
        for field in annotation.model_fields.values():
            yield from records_in(field.annotation)
    for part in get_args(annotation):
        yield from records_in(part)


def default(field: FieldInfo) -> Any:
    """A field's default as plain values; of a record what is not its own default."""
    value = field.get_default(call_default_factory=True, validated_data={})
    return json.loads(
        json.dumps(value, default=lambda record: record.model_dump(exclude_defaults=True))
    )


def refused(match: str, job: str) -> None:
    """The job is refused in one sentence."""
    with pytest.raises(JobError, match=match) as caught:
        load_job(job)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_shipped_jobs_and_profiles_are_listed():
    files = JOBS_FOLDER.glob("*.yaml")
    assert sorted(file.stem for file in files) == job_names()
    assert {"train-cifar100", "tune-cifar100", "train-digits", "tune-digits"} <= set(job_names())
    assert profile_names() == ["kubernetes", "kubernetes-local", "local"]


@pytest.mark.parametrize("name", JOBS)
def test_a_shipped_job_resolves_to_what_is_recorded(golden: Golden, name: str):
    golden.check_text(f"jobs/{name}.yaml", without_defaults(load_job(name)))


def test_the_defaults_of_jobs_and_profiles_are_the_recorded_ones(golden: Golden):
    found = {
        kind.__name__: {
            name: default(field)
            for name, field in kind.model_fields.items()
            if not field.is_required()
        }
        for root in (Job, Profile)
        for kind in records_in(root)
    }
    golden.check_text("defaults.yaml", yaml.safe_dump(found, sort_keys=False))


@pytest.mark.parametrize("name", JOBS)
def test_a_resolved_job_reads_back_as_itself(name: str, tmp_path: Path):
    job = load_job(name)
    path = tmp_path / "other-name.yaml"
    path.write_text(to_yaml(job))
    assert load_job(str(path)) == job


@pytest.mark.parametrize("name", JOBS)
def test_a_shipped_job_says_how_to_run_it_and_what_it_cost(name: str):
    lines = (JOBS_FOLDER / f"{name}.yaml").read_text().splitlines()
    header = [line for line in lines if line.startswith("# ")]
    assert header[0].startswith(f"# cifarray submit {name}")
    assert any(line.startswith(("# Cost and result: ", "# Ours")) for line in header)


PUBLISHED = [name for name in JOBS if "# Published" in (JOBS_FOLDER / f"{name}.yaml").read_text()]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_names_its_source_and_figure(name: str):
    header = (JOBS_FOLDER / f"{name}.yaml").read_text()
    assert "\n# Source: " in header
    assert "\n# Published" in header
    assert "\n# Ours" in header


@pytest.mark.parametrize("name", profile_names())
def test_a_shipped_profile_resolves_to_what_is_recorded(golden: Golden, name: str):
    golden.check_text(f"profiles/{name}.yaml", without_defaults(load_profile(name)))


def test_a_job_file_takes_its_name_from_the_file(tmp_path: Path):
    path = tmp_path / "mine.yml"
    path.write_text(
        "kind: train\ndataset: {name: digits}\nmodel: {name: cnn3}\ntrain: {steps: 3}\n"
    )
    assert load_job(str(path)).name == "mine"
    path.write_text("name: given\n" + path.read_text())
    assert load_job(str(path)).name == "given"


def test_a_profile_can_be_a_file(tmp_path: Path):
    path = tmp_path / "big.yaml"
    path.write_text("kind: local\nworkers: 16\nstore: {uri: s3://bucket/prefix}\n")
    profile = load_profile(str(path))
    assert (profile.name, profile.workers, profile.store.uri) == ("big", 16, "s3://bucket/prefix")


def test_an_unknown_job_names_its_neighbor_and_says_how_to_give_a_file():
    refused(
        r"unknown job 'tune-digit'; choose from: .*train-cifar10, .*; did you mean tune-digits\?; "
        "or give a path to a YAML file",
        job="tune-digit",
    )


def test_an_unknown_profile_names_the_known_ones():
    match = r"unknown cluster profile 'loca'; choose from: kubernetes, .*local; did you mean local"
    with pytest.raises(JobError, match=match):
        load_profile("loca")


@pytest.mark.parametrize("job", ["nowhere.yaml", "./nowhere", "a/b.yml", "."])
def test_a_job_file_that_is_not_there_is_named(job: str):
    sentence = "no job file at " if job != "." else "unknown job '.'"
    refused(sentence, job=job)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"kind: [train", "is not YAML: "),
        (b"a: b: c", "is not YAML: "),
        (b"a: 2026-99-99", "is not YAML: month must be in 1..12"),
        (b"a: &a {b: *a}", "is not YAML: an alias contains itself"),
        (b"[" * 9000, "is not YAML: it is nested too deeply"),
        (b"a" * (1 << 21), "is too long: at most 262144 characters"),
        (b"\xff\xfe\x00", "is not YAML: "),
        (b"!!python/object/apply:os.getcwd []", "is not YAML: "),
        (b"", "has no fields"),
        (b"- train", "has no fields"),
        (b"kind: train", "dataset is missing; model is missing; train is missing"),
    ],
)
def test_a_file_that_is_no_job_is_refused(tmp_path: Path, content: bytes, sentence: str):
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    refused(sentence, job=str(path))


def test_aliases_of_aliases_do_not_fill_the_memory(tmp_path: Path):
    levels = ["l0: &l0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    levels += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 9)]
    path = tmp_path / "job.yaml"
    path.write_text("\n".join(levels))
    refused("is not YAML: it expands to more than 100000 values; use fewer", job=str(path))


def test_a_value_may_be_written_once_and_used_twice(tmp_path: Path):
    path = tmp_path / "job.yaml"
    path.write_text(
        "kind: train\ndataset: {name: &name digits}\nmodel: {name: cnn3}\ntrain: {steps: &n 3}\n"
        "schedule: {warmup_steps: *n}\ndescription: *name\n"
    )
    job = load_job(str(path))
    assert (job.schedule.warmup_steps, job.description) == (3, "digits")


def test_an_unknown_field_in_a_file_names_its_neighbors(tmp_path: Path):
    values = yaml.safe_load(to_yaml(load_job("train-digits")))
    values["train"]["batch_size"] = 3
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(values))
    refused(r"unknown field 'train\.batch_size'; did you mean .*batch_size", job=str(path))


def test_other_fields_give_another_job_and_leave_the_first_alone():
    job = load_job("train-digits")
    other = with_fields(job, {"optimizer.lr": 0.5, "augment.horizontal_flip.p": 0.1})
    assert (other.optimizer.lr, read_field(other, "augment.horizontal_flip.p")) == (0.5, 0.1)
    assert (job.optimizer.lr, job.augment.horizontal_flip) == (2e-3, None)
    assert with_fields(job, {}) == job


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"optimizer.speed": 1}, r"unknown field 'optimizer\.speed'"),
        ({"optimizer.lr": "fast"}, r"job train-digits: optimizer\.lr: .*\(given 'fast'\)"),
    ],
)
def test_other_fields_are_checked_too(fields: dict[str, Any], sentence: str):
    with pytest.raises(JobError, match=sentence):
        with_fields(load_job("train-digits"), fields)


def test_the_value_of_a_record_that_is_off_is_none():
    job = load_job("train-digits")
    assert read_field(job, "augment.horizontal_flip.p") is None
    assert read_field(job, "train.early_stopping.metric") is None
    assert read_field(job, "model.args.width") is None


def test_every_field_of_a_job_is_known_by_its_path():
    paths = fields_of(Job)
    assert len(paths) == len(set(paths)) > 40
    for path in paths:
        check_field(Job, path)
    for record in ("augment.horizontal_flip", "train.early_stopping", "sweep.scheduler", "train"):
        check_field(Job, record)
        assert record not in paths


def test_the_nearest_names_come_first_and_all_where_none_is_near():
    assert nearest("resnet81", ["cnn3", "resnet18"]) == "did you mean resnet18?"
    assert nearest("xyz", ["b", "a"]) == "choose from: b, a"
    assert unknown_name("model", "resnet81", ["resnet18", "cnn3"]) == (
        "unknown model 'resnet81'; choose from: cnn3, resnet18; did you mean resnet18?"
    )
    assert unknown_name("model", "x", ["b", "a"]) == "unknown model 'x'; choose from: a, b"


def test_reading_a_job_loads_neither_torch_nor_ray():
    program = (
        "import sys; from cifarray.spec.load import load_job; load_job('tune-digits'); "
        "print(sorted({'torch', 'ray', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stdout.strip() == "[]"
