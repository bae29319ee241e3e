"""evaluate, predict, export and models as typed: what they print, and how bad input ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cifarray.cli.main import main
from cifarray.models.registry import MODELS
from tests.unit.inference.conftest import Trained

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typed:
    """Run one command; its exit code, output and remarks."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A colored picture that no digits network has seen."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_evaluate_prints_top1_interval_top5_and_loss(typed: Typed, trained: Trained):
    code, out, _ = typed("evaluate", trained.run.id, "--store", trained.store.uri)
    test = trained.predictions["test"]
    assert code == 0
    assert f"{test.rows} rows" in out
    assert f"top1  {test.top1:.4f}  (95 % interval {test.interval[0]:.4f} to" in out
    assert f"top5  {test.top5:.4f}" in out
    assert f"loss  {test.loss:.4f}" in out


def test_evaluate_as_json_names_the_split_and_the_checkpoint(typed: Typed, trained: Trained):
    code, out, _ = typed(
        "evaluate", trained.folder, "--store", trained.store.uri, "--split", "validation", "--json"
    )
    figures = json.loads(out)
    assert code == 0
    assert figures["split"] == "validation"
    assert figures["top1"] == trained.predictions["validation"].top1
    assert figures["checkpoint"] == str(trained.checkpoint)


def test_the_store_may_be_that_of_a_cluster_profile(
    typed: Typed, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("CIFARRAY_STORE")
    profile = tmp_path / "mine.yaml"
    profile.write_text(f"kind: local\nstore: {{uri: {trained.store.uri}}}\n")
    code, out, _ = typed("evaluate", trained.run.id, "--cluster", profile, "--json")
    assert code == 0
    assert json.loads(out)["top1"] == trained.predictions["test"].top1


def test_quiet_silences_remarks_and_verbose_says_what_was_opened(typed: Typed, trained: Trained):
    words = ("export", trained.folder, "--format", "safetensors", "--force")
    assert typed(*words, "-q")[2] == ""
    assert f"cnn3 of digits {trained.manifest.digest[:12]}" in typed(*words, "-v")[2]


def test_evaluate_refuses_an_unknown_run_and_an_unknown_dataset(typed: Typed, trained: Trained):
    code, out, err = typed("evaluate", "digits-tset", "--store", trained.store.uri)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    code, _, err = typed(
        "evaluate", trained.checkpoint, "--store", trained.store.uri, "--dataset", "digit"
    )
    assert code == 2
    assert "did you mean digits" in err


def test_predict_prints_five_classes_and_what_was_done_to_the_image(
    typed: Typed, trained: Trained, picture: Path
):
    code, out, _ = typed("predict", trained.checkpoint, picture)
    first, *lines = out.splitlines()
    assert code == 0
    assert "RGB to gray; resized from 20x30 to 8x8, which changes its aspect ratio" in first
    assert len(lines) == 5
    assert all("%" in line for line in lines)


def test_predict_as_json_holds_the_same(typed: Typed, trained: Trained, picture: Path):
    code, out, _ = typed("predict", trained.folder, picture, picture, "--json")
    records: list[dict[str, Any]] = json.loads(out)
    assert code == 0
    assert len(records) == 2
    assert records[0]["image"] == str(picture)
    assert records[0]["label"] == records[0]["top5"][0]["label"]
    assert records[0]["changes"][0] == "RGB to gray"


def test_predict_refuses_a_missing_image_and_a_missing_checkpoint(
    typed: Typed, trained: Trained, picture: Path
):
    code, out, err = typed("predict", trained.checkpoint, picture, "nowhere.png")
    assert (code, out) == (2, "")
    assert "no image at nowhere.png" in err
    code, _, err = typed("predict", picture.parent / "nowhere", picture)
    assert code == 2
    assert "no checkpoint at" in err


def test_export_writes_one_file_named_after_the_job(typed: Typed, trained: Trained):
    code, out, _ = typed("export", trained.folder, "--format", "safetensors")
    assert code == 0
    assert out.strip() == "digits-test.safetensors"
    assert Path("digits-test.safetensors").stat().st_size > 0


def test_export_as_json_gives_path_and_size(typed: Typed, trained: Trained, tmp_path: Path):
    path = tmp_path / "new" / "net.onnx"
    code, out, _ = typed("export", trained.folder, "--output", path, "--json")
    assert code == 0
    assert json.loads(out) == {
        "path": str(path),
        "format": "onnx",
        "size_bytes": path.stat().st_size,
    }


def test_export_refuses_an_unknown_format_and_a_file_that_is_there(
    typed: Typed, trained: Trained, picture: Path
):
    code, _, err = typed("export", trained.folder, "--format", "tflite")
    assert code == 2
    assert "unknown format 'tflite'; choose from: onnx, safetensors, torch-export" in err
    code, _, err = typed("export", trained.folder, "--format", "safetensors", "-o", picture)
    assert code == 2
    assert "already exists" in err
    output = ("--format", "safetensors", "-o")
    for path, reason in (("a" * 300, "File name too long"), (picture / "x", "File exists")):
        code, _, err = typed("export", trained.folder, *output, path)
        assert code == 2
        assert f"cannot write {path}: {reason}; give another --output" in err


def test_predict_draws_the_image_as_the_network_sees_it_with_its_guesses(
    typed: Typed, trained: Trained, picture: Path, tmp_path: Path
):
    drawn = tmp_path / "seen.svg"
    code, out, _ = typed("predict", trained.folder, picture, picture, "--picture", drawn, "--json")
    assert code == 0
    svg = drawn.read_text()
    for guess in json.loads(out)[0]["top5"]:
        assert f">{100 * guess['probability']:.1f} %<" in svg
    assert svg.count(">photo.png<") == 2
    assert svg.count("<image ") == 2
    code, _, _ = typed("predict", trained.folder, picture, "--picture", tmp_path / "seen.png")
    assert code == 0
    assert Image.open(tmp_path / "seen.png").format == "PNG"


def test_predict_refuses_a_picture_that_it_cannot_draw_before_it_reads_anything(
    typed: Typed, tmp_path: Path
):
    for target, reason in (
        (tmp_path / "seen.jpg", "use a file name that ends in .svg or .png"),
        (tmp_path / "no" / "seen.png", "cannot be written: there is no folder"),
    ):
        code, _, err = typed("predict", "nothing", "x.png", "--picture", target)
        assert code == 2
        assert reason in err
    many = ["x.png"] * 33
    code, _, err = typed("predict", "nothing", *many, "--picture", tmp_path / "seen.png")
    assert code == 2
    assert "takes at most 32 images, not 33" in err


def test_models_lists_every_network_with_its_parameters(typed: Typed):
    code, out, _ = typed("models")
    assert code == 0
    assert "1,193,636" in out
    assert "11,220,132" in out
    code, out, _ = typed("models", "--json")
    shapes = {record["name"]: record["input_shape"] for record in json.loads(out)}
    assert shapes == {name: list(entry.input_shape) for name, entry in MODELS.items()}
    assert shapes["fashion_cnn"] == [28, 28, 1]


def test_models_counts_one_network_for_a_number_of_classes(typed: Typed):
    code, out, _ = typed("models", "resnet18", "--classes", 10, "--json")
    assert code == 0
    assert json.loads(out) == {
        "name": "resnet18",
        "parameters": {"total": 11_173_962, "trainable": 11_173_962, "buffers": 9_600},
        "input_shape": [32, 32, 3],
    }


def test_models_counts_a_backbone_with_the_head_that_is_asked_for(typed: Typed):
    code, out, _ = typed("models", "timm/resnet50", "--classes", 200, "--json")
    assert code == 0
    assert json.loads(out) == {
        "name": "timm/resnet50",
        "parameters": {"total": 23_917_832, "trainable": 23_917_832, "buffers": 53_120},
        "input_shape": [224, 224, 3],
    }
    code, out, _ = typed("models", "timm/resnet50", "--classes", 200, "--head", 500)
    assert code == 0
    assert "24,632,732" in out
    assert "timm/<name>" in typed("models")[1]


def test_models_refuses_a_head_where_there_is_none(typed: Typed):
    code, _, err = typed("models", "--head", 9)
    assert (code, "--head 9 is for one network; name it, as in timm/resnet50" in err) == (2, True)
    code, _, err = typed("models", "cnn3", "--head", 9)
    assert (code, "model cnn3 does not use model.head" in err) == (2, True)
    code, _, err = typed("models", "timm/resnet5")
    assert (code, "did you mean resnet50" in err) == (2, True)


def test_models_counts_a_network_of_the_users_own(typed: Typed):
    code_folder = Path(__file__).parents[3] / "docs" / "examples" / "own_network" / "code"
    code, out, _ = typed("models", "conv_mixer:conv_mixer", "--code", code_folder)
    assert code == 0
    assert "your own" in out


def test_models_lists_the_layers_of_a_network(typed: Typed):
    code, out, _ = typed("models", "lenet25", "--classes", 25, "--summary")
    assert code == 0
    assert out.rstrip().endswith(
        "24,197 parameters, 24,197 of them trainable; 0 running statistics"
    )
    (first,) = [line.split() for line in out.splitlines() if line.startswith("features.0 ")]
    assert first == ["features.0", "Conv2d", "5x5", "6x28x28", "456", "yes"]
    code, out, _ = typed("models", "lenet25", "--classes", 25, "--summary", "--json")
    layers = json.loads(out)["layers"]
    assert sum(layer["parameters"] for layer in layers) == 24_197
    assert layers[-1]["output_shape"] == [25]


def test_models_draws_a_network(typed: Typed, tmp_path: Path):
    code, out, _ = typed("models", "cnn3", "--picture", tmp_path / "cnn3.png", "--json")
    assert code == 0
    assert "layers" not in json.loads(out)
    assert Image.open(tmp_path / "cnn3.png").width > 1000
    code, out, _ = typed("models", "cnn3", "--picture", tmp_path / "cnn3.svg")
    assert out.splitlines()[-1] == f"picture: {tmp_path / 'cnn3.svg'}"
    assert (tmp_path / "cnn3.svg").read_text().rstrip().endswith("</svg>")


def test_layers_and_pictures_are_of_one_network(typed: Typed, tmp_path: Path):
    for words in (("--summary",), ("--picture", tmp_path / "all.png")):
        code, _, err = typed("models", *words)
        assert code == 2
        assert "name it" in err
    code, _, err = typed("models", "cnn3", "--picture", tmp_path / "cnn3.gif")
    assert code == 2
    assert "use a file name that ends in .svg or .png" in err


def test_models_refuses_an_unknown_name_and_no_classes(typed: Typed):
    code, _, err = typed("models", "resnet81")
    assert code == 2
    assert "did you mean resnet18" in err
    assert typed("models", "--classes", 0)[0] == 2
