"""The weights that a job names are found wherever they lie, and travel with the run."""

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cifarray.backends.pretrained import is_local_path
from cifarray.backends.submit import create, plan
from cifarray.errors import InputError, JobError
from cifarray.runs import Run
from cifarray.spec.profile import Profile
from cifarray.store import Store
from cifarray.training.checkpoint import read_state, write_checkpoint
from cifarray.training.worker import Work, fetch_weights, open_trainer
from tests.digit_sessions import CPU, Digits, small_job
from tests.frozen_sessions import TINY, Pretrained
from tests.s3 import S3Server
from tests.unit.backends.refusals import refused, sweep

PROFILE = Profile(name="two", kind="local", workers=2)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Pretrained:
    digits = Digits.prepared_in(tmp_path_factory.mktemp("store"))
    return Pretrained.on(digits, tmp_path_factory.mktemp("checkpoint"))


@dataclass(frozen=True)
class Submit:
    """Records runs of a job on the pretrained backbone's dataset."""

    pretrained: Pretrained

    def __call__(self, weights: str, **model: Any) -> Run:
        given = {"name": TINY, "weights": weights, "frozen": True, **model}
        digits = self.pretrained.digits
        return create(plan(small_job(model=given), PROFILE), digits.store, digits.manifest)


@pytest.fixture
def submit(pretrained: Pretrained) -> Submit:
    return Submit(pretrained)


@pytest.fixture(scope="module")
def earlier(pretrained: Pretrained) -> Run:
    """A run of the store whose best checkpoint holds the pretrained weights."""
    digits = pretrained.digits
    job = small_job(model={"name": TINY})
    run = create(plan(job, PROFILE, name="trained-before"), digits.store, digits.manifest)
    state = read_state(pretrained.checkpoint)
    key = "attempts/1/checkpoints/best"
    write_checkpoint(Path(digits.store.path(run.key(key))), state, state["history"][-1])
    digits.store.write_json(run.key("best.json"), {"checkpoint": key})
    return run


def held(run: Run) -> dict[str, torch.Tensor]:
    """The weights in the run's folder, whose sha256 is the recorded one."""
    weights = run.spec().weights
    assert weights is not None
    assert hashlib.sha256(run.store.read(weights.key)).hexdigest() == weights.sha256
    return load_file(Path(run.store.path(weights.key)))


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_a_file_a_checkpoint_and_a_run_give_the_same_bytes(
    submit: Submit, pretrained: Pretrained, earlier: Run, tmp_path: Path
):
    state = read_state(pretrained.checkpoint)["model"]
    weights = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(weights, tmp_path / "weights.safetensors")
    sources = (
        str(tmp_path / "weights.safetensors"),
        str(pretrained.checkpoint),
        str(pretrained.checkpoint / "state.pt"),
        f"run:{earlier.id}",
        "run:trained-bef",
    )
    runs = [submit(source) for source in sources]
    assert all(same(held(run), weights) for run in runs)
    specs = [run.spec().weights for run in runs]
    assert len({spec and spec.sha256 for spec in specs}) == 1
    assert [spec and spec.fresh for spec in specs] == [()] * len(sources)
    assert [run.spec().job.model.weights for run in runs] == list(sources)
    read = [spec.source for spec in specs if spec]
    assert read[:3] == list(sources[:3])
    assert read[3] == read[4]
    assert read[4].startswith(f"runs/{earlier.id}/attempts/1/checkpoints/")


def test_a_path_in_the_home_folder_is_found(
    submit: Submit, pretrained: Pretrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    torch.save(read_state(pretrained.checkpoint)["model"], tmp_path / "mine.pt")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert held(submit("~/mine.pt"))


def test_an_object_of_a_bucket_is_read(s3: S3Server, pretrained: Pretrained, tmp_path: Path):
    store = s3.new_store()
    digits = Digits(store, Digits.prepared_in(tmp_path).manifest)
    for entry in Store.open(str(tmp_path)).list("datasets"):
        store.write(entry.key, Path(tmp_path, entry.key).read_bytes())
    store.upload(pretrained.checkpoint / "state.pt", "given/state.pt")
    job = small_job(model={"name": TINY, "weights": f"{store.uri}/given/state.pt"})
    run = create(plan(job, PROFILE), store, digits.manifest)
    weights = run.spec().weights
    assert weights is not None
    assert hashlib.sha256(store.read(weights.key)).hexdigest() == weights.sha256


def test_a_head_for_other_classes_stays_fresh_and_the_run_says_so(submit: Submit):
    weights = submit(str(submit.pretrained.checkpoint), head=8).spec().weights
    assert weights is not None
    assert weights.fresh == ("head.0.weight", "head.0.bias", "head.3.weight", "head.3.bias")


def test_workers_begin_with_the_runs_own_copy(
    submit: Submit, pretrained: Pretrained, tmp_path: Path
):
    given = tmp_path / "given.pt"
    weights = read_state(pretrained.checkpoint)["model"]
    torch.save(weights, given)
    run = submit(str(given))
    given.unlink()
    spec = run.spec()
    work = Work(run.store.spec, spec, run.place.of_attempt(1))
    session = open_trainer(work, CPU, 1, pretrained.digits.rows(spec.job))
    next(session.records())
    learned = session.state()["model"]
    assert all(torch.equal(learned[k], weights[k]) for k in weights if k.startswith("backbone."))


def test_weights_that_were_changed_since_are_refused(submit: Submit, tmp_path: Path):
    run = submit(str(submit.pretrained.checkpoint))
    spec = run.spec()
    assert spec.weights is not None
    run.store.write(spec.weights.key, b"others")
    with pytest.raises(JobError, match=r"the run's weights have sha256 \w{64}, but \w{64} was rec"):
        fetch_weights(spec, run.store, tmp_path)
    run.store.delete([spec.weights.key])
    (tmp_path / "again").mkdir()
    with pytest.raises(JobError, match=r"copy of its weights, runs/.*, is missing; submit the run"):
        fetch_weights(spec, run.store, tmp_path / "again")
    assert fetch_weights(spec.model_copy(update={"weights": None}), run.store, tmp_path) is None


def test_a_run_without_weights_records_none(submit: Submit):
    assert submit("none", frozen=False).spec().weights is None


@pytest.mark.parametrize(
    ("weights", "kind", "sentence"),
    [
        (
            "nowhere.pt",
            JobError,
            r"no weights at nowhere\.pt; give model\.weights as a file, a che",
        ),
        (".", InputError, r"contains no complete checkpoint"),
        ("run:nowhere", InputError, "no run 'nowhere' in "),
        ("s3://bucket", JobError, r"s3://bucket names no object; give s3://bucket/file"),
    ],
)
def test_weights_that_are_not_there_are_refused_and_no_run_is_recorded(
    submit: Submit, weights: str, kind: type[Exception], sentence: str
):
    store = submit.pretrained.digits.store
    before = store.folders("runs")
    with pytest.raises(kind, match=sentence) as caught:
        submit(weights)
    assert "\n" not in str(caught.value)
    assert store.folders("runs") == before


def test_weights_of_another_network_are_refused_before_a_run_is_recorded(
    submit: Submit, earlier: Run
):
    store = submit.pretrained.digits.store
    before = store.folders("runs")
    with pytest.raises(JobError, match=f"weights run:{earlier.id} do not fit network timm/mobilen"):
        submit(f"run:{earlier.id}", name="timm/mobilenetv3_small_050")
    assert store.folders("runs") == before


def test_every_head_that_a_sweep_tries_is_held_against_the_weights(pretrained: Pretrained):
    model = {"name": TINY, "weights": str(pretrained.checkpoint), "frozen": True}
    job = sweep({"model.head": {"choice": [4, 8]}}, model=model)
    digits = pretrained.digits
    run = create(plan(job, PROFILE), digits.store, digits.manifest)
    weights = run.spec().weights
    assert weights is not None
    assert weights.fresh[0] == "head.0.weight"
    one_layer = sweep({"model.head": {"choice": [None, 8]}}, model=model)  # the first one fits
    found = create(plan(one_layer, PROFILE), digits.store, digits.manifest).spec().weights
    assert found is not None
    assert "head.0.weight" in found.fresh
    both = sweep({"model.name": {"choice": [TINY, "cnn3"]}}, model={**model, "frozen": False})
    refused(both, r"model\.name cannot be swept together with model\.weights .* one network only")


@pytest.mark.parametrize("weights", ["", " ", "https://a.b/c.pt", "gs://a/b", "s3://", "run:"])
def test_an_address_that_nothing_reads_is_refused(weights: str):
    with pytest.raises(ValueError, match="give none, timm, a path, s3://bucket/file or run:ID"):
        small_job(model={"name": TINY, "weights": weights})


def test_only_paths_mean_nothing_on_another_machine():
    assert [is_local_path(w) for w in ("none", "timm", "run:a", "s3://b/c")] == [False] * 4
    assert [is_local_path(w) for w in ("a.pt", "/a/b.pt", "~/b", "timm.pt")] == [True] * 4


TIMMS = """
import sys
from cifarray.errors import JobError
from cifarray.models.pretrained import published_weights
try:
    weights = published_weights("timm/test_resnet")
    print(float(sum(tensor.double().sum() for tensor in weights.values())))
except JobError as error:
    print("refused:", error)
"""


def timms(home: Path, **environment: str) -> str:
    """What a process says that asks for timm's weights, with a Hub that does not answer.

    The Hub's client tells of every try that it repeats, and none is to be.
    """
    given = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": "http://127.0.0.1:9", **environment}
    command = [sys.executable, "-c", TIMMS]
    ended = subprocess.run(command, env=given, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stderr
    assert "Retry" not in ended.stderr
    return ended.stdout


@pytest.mark.parametrize("offline", ["0", "1"])
def test_without_a_network_timms_weights_are_refused_at_once_with_what_to_do(
    tmp_path: Path, offline: str
):
    said = timms(tmp_path, HF_HUB_OFFLINE=offline)
    assert said.startswith("refused: timm's weights of timm/test_resnet cannot be downloaded (")
    assert said.count("\n") == 1
    assert "fetch model.safetensors of http://127.0.0.1:9/timm/test_resnet.r160_in1k on" in said
    assert "and give its path as model.weights" in said


def test_timms_weights_are_taken_from_the_cache_without_a_network(tmp_path: Path):
    import timm

    torch.manual_seed(1)
    published = timm.create_model("test_resnet")
    repository = tmp_path / "hub" / "models--timm--test_resnet.r160_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    weights = published.state_dict()
    save_file(weights, repository / "snapshots" / ("0" * 40) / "model.safetensors")
    kept = [tensor for name, tensor in weights.items() if not name.startswith("fc.")]
    total = float(sum(tensor.double().sum() for tensor in kept))
    assert float(timms(tmp_path)) == pytest.approx(total)
