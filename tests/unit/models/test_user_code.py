"""Code folders: packed and unpacked as they are, and the networks that they define or do not."""

import io
import os
import stat
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cifarray.digests import content_sha256
from cifarray.errors import JobError
from cifarray.models import user_code
from cifarray.models.registry import build_model, check_model
from cifarray.models.user_code import pack_code, unpack_code
from cifarray.models.user_network import check_factory, import_factory
from cifarray.spec.job import ModelSpec
from cifarray.spec.load import load_job, with_fields

REPOSITORY = Path(__file__).parents[3]

NETWORK = """
from torch import nn

def linear(num_classes, in_channels, image_size, dropout=0.0, width=4):
    pixels = in_channels * image_size[0] * image_size[1]
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.Dropout(dropout),
                         nn.Linear(width, num_classes))

def wrong_size(num_classes, in_channels, image_size):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes + 1))

def lazy(num_classes, in_channels, image_size):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))

def broken(num_classes, in_channels, image_size):
    raise ZeroDivisionError("oh")

def no_network(num_classes, in_channels, image_size):
    return 3
"""


@pytest.fixture(autouse=True)
def path_as_before() -> Iterator[None]:
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A code folder whose module name no other test uses."""
    root = tmp_path / "code"
    (root / "nets" / "__pycache__").mkdir(parents=True)
    (root / "nets" / "__init__.py").write_text("")
    (root / "nets" / "small.py").write_text(NETWORK)
    (root / "nets" / "means.json").write_text("[1, 2]")
    (root / "nets" / "__pycache__" / "small.cpython-311.pyc").write_bytes(b"x")
    (root / ".env").write_text("AWS_SECRET_ACCESS_KEY=hush")
    (root / "venv").mkdir()
    (root / "venv" / "pyvenv.cfg").write_text("")
    return root


def member(name: str, mode: int = stat.S_IFREG | 0o644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        archive.writestr(entry, "print('out')")
    return buffer.getvalue()


def test_a_folder_comes_out_as_it_went_in(folder: Path, tmp_path: Path):
    archive = pack_code(folder)
    unpack_code(archive, content_sha256(archive), tmp_path / "out")
    found = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    assert found == {"nets/__init__.py", "nets/small.py", "nets/means.json"}
    assert (tmp_path / "out" / "nets" / "small.py").read_text() == NETWORK


def test_the_same_files_give_the_same_bytes_whenever_they_were_written(folder: Path):
    before = pack_code(folder)
    for path in folder.rglob("*.py"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    assert pack_code(folder) == before
    (folder / "nets" / "means.json").write_text("[1, 3]")
    assert pack_code(folder) != before


def test_a_link_in_the_folder_is_refused(folder: Path):
    (folder / "nets" / "hosts.txt").symlink_to("/etc/hosts")
    with pytest.raises(JobError, match="contains a link"):
        pack_code(folder)


def test_a_pipe_in_the_folder_is_refused(folder: Path):
    os.mkfifo(folder / "nets" / "pipe")
    with pytest.raises(JobError, match="not a regular file"):
        pack_code(folder)


def test_a_folder_that_is_too_large_names_its_largest_file(folder: Path):
    with (folder / "nets" / "weights.bin").open("wb") as file:
        file.truncate(user_code.MAX_CODE_BYTES + 1)
    with pytest.raises(JobError, match=r"the largest nets/weights.bin"):
        pack_code(folder)


@pytest.mark.parametrize("name", ["missing", "nets/small.py"])
def test_what_is_no_folder_is_refused(folder: Path, name: str):
    with pytest.raises(JobError, match="no code folder at"):
        pack_code(folder / name)


def test_a_folder_without_python_is_refused(tmp_path: Path):
    with pytest.raises(JobError, match="no Python file"):
        pack_code(tmp_path)


def test_changed_bytes_are_refused(folder: Path, tmp_path: Path):
    archive = pack_code(folder)
    with pytest.raises(JobError, match="was recorded"):
        unpack_code(archive + b"x", content_sha256(archive), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "archive",
    [
        member("../out.py"),
        member("/tmp/out.py"),
        member("a/../../out.py"),
        member("a\\..\\out.py"),
        member("C:out.py"),
        member("link.py", stat.S_IFLNK | 0o777),
    ],
)
def test_a_member_that_leaves_the_folder_or_is_a_link_is_refused(archive: bytes, tmp_path: Path):
    with pytest.raises(JobError, match="outside the folder"):
        unpack_code(archive, content_sha256(archive), tmp_path / "in" / "out")
    assert list(tmp_path.rglob("*.py")) == []


def test_bytes_that_are_no_zip_are_refused(tmp_path: Path):
    with pytest.raises(JobError, match="not a zip"):
        unpack_code(b"hello", content_sha256(b"hello"), tmp_path)


def test_a_network_from_the_folder_is_built_with_the_jobs_fields(folder: Path):
    spec = ModelSpec(name="nets.small:linear", dropout=0.25, args={"width": 6})
    model = build_model(spec, 10, (8, 8, 1), folder)
    assert model[1].out_features == 6
    assert model[2].p == 0.25
    assert model(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
    assert model.training


def test_an_installed_network_needs_no_folder():
    check_factory("torchvision.models:resnet18")
    check_factory("torch.nn:Flatten")
    assert import_factory("torch.nn:Flatten") is torch.nn.Flatten


def test_lazy_layers_have_their_shapes_once_built(folder: Path):
    model = build_model(ModelSpec(name="nets.small:lazy"), 10, (8, 8, 1), folder)
    assert model[1].weight.shape == (10, 64)


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        ("wrong_size", r"logits of \[images, 10\], not \[1, 11\]"),
        ("broken", "failed to build a network: ZeroDivisionError: oh"),
        ("no_network", "returned int, not a torch.nn.Module"),
    ],
)
def test_a_factory_that_gives_no_fitting_network_is_refused(
    folder: Path, factory: str, sentence: str
):
    with pytest.raises(JobError, match=sentence):
        build_model(ModelSpec(name=f"nets.small:{factory}"), 10, (8, 8, 1), folder)


def test_an_unknown_argument_is_refused_with_the_factorys_own_words(folder: Path):
    spec = ModelSpec(name="nets.small:linear", args={"depth": 2})
    with pytest.raises(JobError, match="unexpected keyword argument 'depth'"):
        build_model(spec, 10, (8, 8, 1), folder)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nets.smal:linear", "no module nets.smal in code folder"),
        ("nets.small:linaer", "did you mean linear"),
        ("nets.bad:net", "is not Python"),
    ],
)
def test_what_the_folder_does_not_define_is_refused_before_it_runs(
    folder: Path, name: str, sentence: str
):
    (folder / "nets" / "bad.py").write_text("def net(:\n")
    with pytest.raises(JobError, match=sentence):
        check_model(ModelSpec(name=name), None, folder)


def test_checking_a_factory_runs_none_of_its_code(folder: Path):
    (folder / "nets" / "loud.py").write_text("raise SystemExit('ran')\ndef net(): ...\n")
    check_factory("nets.loud:net", folder)
    with pytest.raises(JobError, match="failed: SystemExit: ran"):
        import_factory("nets.loud:net", folder)


def test_two_folders_with_one_module_name_do_not_mix(tmp_path: Path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "twin_net.py").write_text(f"def net(): return {name!r}\n")
    first = import_factory("twin_net:net", tmp_path / "first")
    second = import_factory("twin_net:net", tmp_path / "second")
    again = import_factory("twin_net:net", tmp_path / "first")
    assert (first(), second(), again()) == ("first", "second", "first")


def test_a_module_that_is_named_like_a_loaded_one_is_refused(tmp_path: Path):
    (tmp_path / "torch.py").write_text("def net(): ...\n")
    with pytest.raises(JobError, match="rename it"):
        import_factory("torch:net", tmp_path)
    assert str(tmp_path) not in sys.path


def test_the_documented_example_is_found_and_takes_its_swept_fields():
    folder = REPOSITORY / "docs" / "examples" / "own_network"
    job = load_job(str(folder / "tune-conv-mixer.yaml"))
    check_model(job.model, (8, 8, 1), folder / "code")
    assert job.sweep is not None
    for width in job.sweep.space["model.args.width"].examples:
        trial = with_fields(job, {"model.args.width": width, "model.dropout": 0.3})
        model = build_model(trial.model, 10, (8, 8, 1), folder / "code")
        assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
        assert [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)] == [0.3]
        assert model[0].out_channels == width


def test_a_code_folder_that_cannot_be_looked_at_says_why():
    with pytest.raises(JobError, match=r"code folder a+ cannot be read: a+: File name too long"):
        pack_code(Path("a" * 300))


DEEP = {
    "brackets": "net = " + "(" * 5000 + ")" * 5000,
    "signs": "net = " + "-" * 100_000 + "1",
    "sum": "net = " + "1+" * 100_000 + "1",
    "calls": "net = " + "f(" * 150 + ")" * 150,
    "attributes": "net = a" + ".b" * 100_000,
    "nulls": "net = 1\0",
    "large": "net = 1\n" + "# a line\n" * 200_000,
}


@pytest.mark.parametrize("kind", DEEP)
def test_a_file_that_exhausts_pythons_parser_is_one_sentence(kind: str, tmp_path: Path):
    (tmp_path / "deep_net.py").write_text(DEEP[kind])
    try:
        check_factory("deep_net:net", tmp_path)
    except JobError as error:
        assert "deep_net.py is" in str(error)
        assert "\n" not in str(error)
    else:
        assert kind == "calls"  # which Python takes


@pytest.mark.parametrize("spoil", ["cut", "packed", "two"])
def test_a_zip_that_cannot_be_unpacked_is_one_sentence(spoil: str, tmp_path: Path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", "x" * 100)
        archive.writestr("a/b" if spoil == "two" else "b.py", "x" * 100)
    content = bytearray(buffer.getvalue())
    if spoil == "cut":
        content[10:60] = bytes(50)
    if spoil == "packed":  # by a method that nobody knows
        for place in (8, content.index(b"PK\1\2") + 10):
            content[place] = 99
    packed = bytes(content)
    with pytest.raises(JobError, match="the run's code cannot be unpacked") as caught:
        unpack_code(packed, content_sha256(packed), tmp_path / "out")
    assert "\n" not in str(caught.value)
