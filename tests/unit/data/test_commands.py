"""`datasets`, `data prepare`, `data inspect` and `data verify` as they are typed."""

import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cifarray.cli import output
from cifarray.cli.main import main
from cifarray.data.catalog import DATASETS
from cifarray.data.manifest import load_manifest
from cifarray.store import Store
from cifarray.store.layout import dataset_prefix
from tests.archive_server import ArchiveServer
from tests.archives import write_cifar10, write_cifar100, write_tar
from tests.image_archives import bird_files, folder_files, write_folder
from tests.s3 import S3Server

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cifarray(capsys: pytest.CaptureFixture[str]) -> Command:
    """Types a command; its exit code, output and remarks."""

    def typed(*words: str) -> tuple[int, str, str]:
        output.set_level(output.NORMAL)
        with pytest.raises(SystemExit) as ended:
            main(words)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(ended.value.code or 0), out, err

    return typed


@pytest.fixture
def home(cifarray_home: Path) -> Store:
    """The store that the environment names."""
    return Store.open(str(cifarray_home / "store"))


def test_prepare_says_what_is_where_and_then_that_it_was_there(
    home: Store, cifarray: Command, cifar100_archive: Path
) -> None:
    words = ("data", "prepare", "cifar100", "--archive", str(cifar100_archive))
    code, out, err = cifarray(*words)
    manifest = load_manifest(home, "cifar100")
    folder = f"{home.uri}/{dataset_prefix('cifar100', manifest.digest)}"
    assert code == 0
    assert f"CIFAR-100 is now in {folder}" in out
    assert "train       200 rows" in out
    assert "fewer rows than published" in out
    assert "writing cifar100: 300 of 300 rows" in err
    code, out, _ = cifarray(*words)
    assert code == 0
    assert f"CIFAR-100 was already in {folder}" in out


def test_prepare_prints_json_and_nothing_else_when_quiet(home: Store, cifarray: Command) -> None:
    code, out, err = cifarray("data", "prepare", "digits", "--json", "--quiet")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["written"] is True
    assert found["digest"] == load_manifest(home, "digits").digest
    assert found["rows"] == {"train": 1437, "test": 360}


def test_prepare_fetches_an_address_into_a_bucket(
    s3: S3Server, cifarray: Command, server: ArchiveServer, cifar100_archive: Path
) -> None:
    store = s3.new_store()
    server.files["c.tar.gz"] = cifar100_archive.read_bytes()
    server.cuts = [10_000]
    code, _, err = cifarray(
        *("data", "prepare", "cifar100", "--archive", server.url("c.tar.gz")),
        *("--store", store.uri, "--endpoint", store.endpoint or ""),
    )
    assert code == 0
    assert "downloading c.tar.gz" in err
    assert load_manifest(store, "cifar100").splits["train"].rows == 200


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("prepare", "cifar1000"), "unknown dataset 'cifar1000'"),
        (("prepare", "mine", "--layout", "imagefolder"), "mine has no --archive"),
        (("prepare", "mine", "--layout", "zip", "--archive", "."), "unknown layout 'zip'"),
        (("prepare", "cifar10", "--layout", "imagefolder"), "is a dataset of the catalog"),
        (("prepare", "cifar10", "--crop"), "has no bounding boxes to crop to"),
        (("prepare", "digits", "--skip-bad"), "leave --skip-bad out"),
        (("prepare", "digits", "--test-split", "val"), "leave --test-split out"),
        (("prepare", "cifar10", "--test-split", "eval"), "unknown test split 'eval'; choose from"),
        (("prepare", "cifar100", "--archive", "nowhere.tar.gz"), "no archive at nowhere.tar.gz"),
        (("prepare", "cifar100", "--archive", "http://["), "no archive at http"),
        (("prepare", "cifar100", "--archive", "http://127.0.0.1:port/a"), "cannot be asked"),
        (("prepare", "digits", "--archive", "x.tar.gz"), "leave --archive out"),
        (("prepare", "digits", "--store", "gs://bucket"), "cannot open a store of kind gs://"),
        (("inspect", "digits"), "dataset digits is not in"),
        (("inspect", "mnist"), "unknown dataset 'mnist'"),
        (("inspect", "digits", "--grid", "grid.jpg"), "is not the path of a .png file"),
        (("inspect", "digits", "--grid", "no/such/grid.png"), "in an existing folder"),
        (("verify", "cifar10"), "run `cifarray data prepare cifar10"),
        (("verify", "../runs"), "unknown dataset '../runs'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(
    words: tuple[str, ...], reason: str, cifarray: Command
) -> None:
    code, out, err = cifarray("data", *words)
    assert (code, out) == (2, "")
    *_, last = err.splitlines()
    assert last.startswith("error: ")
    assert reason in last


def test_a_store_that_refuses_is_one_sentence_and_no_bad_input(cifarray: Command) -> None:
    code, out, err = cifarray("data", "prepare", "digits", "--store", "/proc/store")
    assert (code, out) == (1, "")
    assert "cannot use /proc/store as a store" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("kind", ["pickle", "link", "names", "cut"])
def test_a_malicious_or_broken_archive_is_one_sentence_and_leaves_no_dataset(
    kind: str, home: Store, cifarray: Command, cifar100_archive: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bad.tar.gz"
    if kind == "pickle":
        touch = f"touch {tmp_path}/touched".encode()
        call = b"\x80\x02cposix\nsystem\nU" + bytes([len(touch)]) + touch + b"\x85R."
        write_cifar100(path, 1, 1, train=call)
    elif kind == "link":
        link = tarfile.TarInfo("cifar-100-python/train")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        write_tar(path, {}, [link])
    elif kind == "names":
        write_cifar10(path)
    else:
        path.write_bytes(cifar100_archive.read_bytes()[:-1000])
    code, _, err = cifarray("data", "prepare", "cifar100", "--archive", str(path))
    assert code == 2
    assert sum(line.startswith("error: bad.tar.gz") for line in err.splitlines()) == 1
    assert not (tmp_path / "touched").exists()
    assert home.list("") == []
    code, _, err = cifarray("data", "verify", "cifar100")
    assert code == 2
    assert "is not in" in err


def test_inspect_shows_figures_and_writes_the_grid(home: Store, cifarray: Command) -> None:
    cifarray("data", "prepare", "digits", "--quiet")
    code, out, _ = cifarray("data", "inspect", "digits", "--grid", "grid.png")
    assert code == 0
    assert Path("grid.png").read_bytes().startswith(b"\x89PNG")
    for line in ("rows                  1437     360", "    3    146    37"):
        assert line in out
    assert "exact duplicates within train: 0" in out
    code, out, _ = cifarray("data", "inspect", "digits", "--json")
    findings = json.loads(out)
    assert findings["splits"]["test"]["class_counts"][3] == 37
    assert findings["shape"] == [8, 8, 1]


def test_verify_ends_with_0_for_a_sound_dataset_and_1_for_a_damaged_one(
    home: Store, cifarray: Command
) -> None:
    cifarray("data", "prepare", "digits", "--quiet")
    code, out, _ = cifarray("data", "verify", "digits")
    assert code == 0
    assert "is intact: 2 files" in out
    key = (
        f"{dataset_prefix('digits', load_manifest(home, 'digits').digest)}/test/part-00000.parquet"
    )
    home.write(key, bytes(home.size(key)))
    code, out, err = cifarray("data", "verify", "digits", "--json")
    assert code == 1
    assert json.loads(out)["problems"][0].startswith(f"{key} has sha256")
    assert "run `cifarray data prepare digits" in err
    assert cifarray("data", "prepare", "digits", "--again")[0] == 0
    assert cifarray("data", "verify", "digits")[0] == 0


def test_datasets_lists_the_catalog_and_what_is_prepared(home: Store, cifarray: Command) -> None:
    code, out, _ = cifarray("datasets")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(DATASETS)
    cifarray("data", "prepare", "digits", "--quiet")
    digest = load_manifest(home, "digits").digest
    code, out, _ = cifarray("datasets", "--json")
    found = {entry["name"]: entry for entry in json.loads(out)}
    assert found["digits"]["prepared"]["digest"] == digest
    assert found["cifar100"]["prepared"] is None
    assert found["cifar100"]["published_rows"] == {"train": 50000, "test": 10000}
    assert digest[:12] in cifarray("datasets")[1]


def test_images_of_ones_own_are_prepared_listed_inspected_and_verified(
    home: Store, cifarray: Command, tmp_path: Path
) -> None:
    files = folder_files()
    files["train/dog/003.png"] = b"rubbish"
    folder = write_folder(tmp_path / "pets", files)
    words = ("data", "prepare", "my-pets", "--layout", "imagefolder", "--archive", str(folder))
    code, out, err = cifarray(*words)
    assert (code, out) == (2, "")
    assert "error: train row_id 9, train/dog/003.png, does not decode" in err
    code, out, err = cifarray(*words, "--skip-bad")
    assert (code, out) == (2, "")
    *_, last = err.splitlines()
    assert "error: pets: 1 of 6 images of class 'dog' in train would be left out" in last
    assert "(unreadable, such as train/dog/003.png); fix the archive" in last
    skipping = ("--skip-bad", "--accept-loss")
    code, out, err = cifarray(*words, *skipping)
    assert code == 0
    assert "left out: train/dog/003.png (its bytes are not an image of JPEG, PNG" in err
    assert "left out: 1 image of train: unreadable (train/dog/003.png)" in out
    assert "a job must set preprocess.resize" in out
    digest = load_manifest(home, "my-pets").digest
    *_, listed = cifarray("datasets")[1].splitlines()
    assert listed.split()[:4] == ["my-pets", "any", "size", "2"]
    assert f"{digest[:12]} (11 + 6 rows)" in listed
    code, out, _ = cifarray("data", "inspect", "my-pets", "--grid", "pets.png")
    assert code == 0
    assert "my-pets  any size" in out
    assert re.search(r"^heights +24 to 40 +24 to 40$", out, re.MULTILINE)
    assert Path("pets.png").read_bytes().startswith(b"\x89PNG")
    assert cifarray("data", "verify", "my-pets")[0] == 0
    found = json.loads(cifarray(*words, *skipping, "--json", "--quiet")[1])
    assert found["written"] is False
    assert (found["storage"], found["skipped_images"], found["crop"]) == ("encoded", 1, False)


def test_birds_say_what_is_missing_and_crops_are_asked_for(
    home: Store, cifarray: Command, tmp_path: Path
) -> None:
    files = bird_files()
    del files["images/001.Black_footed_Albatross/bird_0000.jpg"]
    folder = write_folder(tmp_path / "CUB_200_2011", files)
    words = ("data", "prepare", "cub200", "--archive", str(folder))
    code, out, _ = cifarray(*words)
    assert code == 0
    assert "images that are listed but missing: 1" in out
    assert "fewer rows than published" in out
    assert "left out: 197 classes: class without an image (" in out
    whole = load_manifest(home, "cub200")
    assert cifarray(*words, "--crop")[0] == 0
    assert load_manifest(home, "cub200").digest != whole.digest


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("datasets", "--store", "gs://bucket"), "cannot open a store of kind gs://"),
        (("datasets", "--cluster", "moon"), "unknown cluster profile 'moon'"),
    ],
)
def test_datasets_of_a_store_that_cannot_be_opened_is_one_sentence(
    words: tuple[str, ...], reason: str, cifarray: Command
) -> None:
    code, out, err = cifarray(*words)
    assert (code, out) == (2, "")
    assert reason in err


def test_datasets_lists_the_others_where_one_is_damaged(home: Store, cifarray: Command) -> None:
    cifarray("data", "prepare", "digits", "--quiet")
    home.write("datasets/flowers/LATEST", b"rubbish")
    code, out, err = cifarray("datasets")
    assert code == 0
    assert load_manifest(home, "digits").digest[:12] in out
    assert "datasets/flowers/LATEST" in err
