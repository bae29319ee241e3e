"""What each command says of input that cannot work: one sentence, exit code 2, nothing started."""

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Type

NO_RUN = "contains no runs"
JOBS = "train-cifar10, "
BAD = {
    "submit nosuch": JOBS,
    "submit train-digits --set optimizer.lrr=1": "did you mean optimizer.lr",
    "submit train-digits --set train.epochs=many": "train.epochs",
    "submit train-digits --set train.epochs": "field=value",
    "submit train-digits --set model.name=resnet81": "did you mean resnet18",
    "submit train-digits --cluster nosuch": "unknown cluster profile 'nosuch'",
    "submit train-digits --workers 3": "--workers 3 is more than the 2",
    "submit train-digits --workers 0": "--workers",
    "models cnn3 --code .": "--code . is for your own network; name it",
    "models --code .": "--code . is for your own network; name it",
    "submit train-digits --code /no/such/folder": "--code /no/such/folder is not a folder",
    "submit train-digits --best-of nosuch": NO_RUN,
    "submit train-digits --store ftp://host/x": "kind ftp://",
    "submit train-digits": "add --prepare",
    "submit train-digits --name Not_A_Name": "cannot name a run 'Not_A_Name'",
    "submit train-digits --seeds 0": "--seeds",
    "submit train-cifar10 --prepare --archive /no/such/archive": "/no/such/archive",
    "submit train-digits --dry-run --set train.global_batch_size=1": "less than the 2 workers",
    "run nosuch": JOBS,
    "run ./absent.yaml": "no job file at ./absent.yaml",
    "run train-digits --set dataset.labels=coarse": "coarse",
    "runs --store ftp://host/x": "kind ftp://",
    "runs --cluster nosuch": "unknown cluster profile",
    "status nosuch": NO_RUN,
    "status": "Missing argument",
    "logs nosuch": NO_RUN,
    "logs": "Missing argument",
    "stop nosuch": NO_RUN,
    "stop ../../etc": NO_RUN,
    "resume nosuch": NO_RUN,
    "resume": "Missing argument",
    "pull nosuch": NO_RUN,
    "pull": "Missing argument",
    "report nosuch": NO_RUN,
    "report": "Missing argument",
    "compare nosuch other": NO_RUN,
    "compare": "Missing argument",
    "evaluate nosuch": "nosuch",
    "evaluate": "Missing argument",
    "predict nosuch image.png": "nosuch",
    "predict": "Missing argument",
    "export nosuch": "nosuch",
    "export": "Missing argument",
    "delete nosuch": NO_RUN,
    "delete": "Missing argument",
    "prune --older-than soon": "soon",
    "prune --keep-best -1": "--keep-best",
    "jobs train-digits": "unexpected extra argument",
    "jobs --nosuch": "No such option",
    "models resnet81": "did you mean resnet18",
    "models --nosuch": "No such option",
    "datasets digits": "unexpected extra argument",
    "datasets --store ftp://host/x": "kind ftp://",
    "data prepare nosuch": "nosuch",
    "data prepare": "Missing argument",
    "data inspect nosuch": "nosuch",
    "data inspect digits": "data prepare digits",
    "data verify nosuch": "nosuch",
    "data verify digits": "data prepare digits",
    "doctor --cluster nosuch": "unknown cluster profile",
    "doctor now": "unexpected extra argument",
    "cluster render --overlay nosuch": "unknown overlay 'nosuch'; choose from: external-s3, gpu",
    "cluster render now": "unexpected extra argument",
    "cluster up --cluster nosuch": "unknown cluster profile",
    "cluster up --overlay gpu": "--overlay is for profiles of kind kubernetes",
    "cluster up --force-conflicts": "--force-conflicts is for profiles of kind kubernetes",
    "cluster up --cluster kubernetes --overlay nosuch": "unknown overlay 'nosuch'",
    "cluster up now": "unexpected extra argument",
    "cluster down now": "unexpected extra argument",
    "cluster down --cluster nosuch": "unknown cluster profile",
    "cluster down --delete-store": "--delete-store is for profiles of kind kubernetes",
    "cluster down --remove-finalizers": "--remove-finalizers is for profiles of kind kubernetes",
    "cluster status --cluster nosuch": "unknown cluster profile",
    "cluster status now": "unexpected extra argument",
    "sbmit train-digits": "Did you mean 'submit'",
}


@pytest.mark.parametrize(("line", "words"), BAD.items(), ids=list(BAD))
def test_bad_input_is_one_sentence_and_exit_code_2(
    typed: Type, cifarray_home: Path, line: str, words: str
) -> None:
    shown = typed(*line.split())
    assert shown.code == 2, shown.err
    assert words in " ".join(shown.err.split())
    assert not (cifarray_home / "state" / "node.json").exists()
    assert not list(cifarray_home.glob("store/runs/*"))


def test_a_job_file_of_ones_own_with_a_field_that_does_not_exist(
    typed: Type, cifarray_home: Path
) -> None:
    job = cifarray_home / "mine.yaml"
    job.write_text(
        "kind: train\ndataset: {name: digits}\nmodel: {name: cnn3}\ntrian: {epochs: 1}\n"
    )
    shown = typed("submit", job, "--dry-run")
    assert shown.code == 2
    assert "unknown field 'trian'" in shown.err and "train" in shown.err


def test_a_profile_with_half_an_address_is_refused_before_anything_is_recorded(
    typed: Type, cifarray_home: Path
) -> None:
    profile = cifarray_home / "mine.yaml"
    profile.write_text("kind: local\naddress: 127.0.0.1:6379\n")
    shown = typed("submit", "train-digits", "--prepare", "--cluster", profile)
    assert shown.code == 2
    assert "set both" in shown.err
    assert not (cifarray_home / "store").exists()
