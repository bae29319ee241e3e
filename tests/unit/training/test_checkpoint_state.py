"""A state with right checksums and wrong content is one sentence, and takes no memory for it."""

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cifarray.errors import CheckpointError
from cifarray.training.checkpoint import STATE_KEYS, load_checkpoint, read_state, write_checkpoint
from cifarray.training.trainer import Trainer
from tests.digit_sessions import Digits, small_job

ODD: list[Any] = [
    *(None, "x", "", -1, 2**70, 1e300, True, [], {}, [None], {"a": 1}, {3: "x"}, [[1, 2], [3]]),
    *(torch.zeros(3), {"a": torch.zeros(3)}, [10**6] * 3, ["x"] * 10, [-1] * 10, (0, 0, 0)),
]
MOST_MEMORY_MB = 1000

Mutate = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def trainer(digits: Digits) -> Trainer:
    trainer = digits.trainer(small_job())
    list(trainer.records())
    return trainer


@pytest.fixture(scope="module")
def state(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """As it was read from a folder."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder, trainer.state(), trainer.history[-1])
    found = copy.deepcopy(read_state(folder))
    shutil.rmtree(folder)
    return found


def signed(folder: Path, state: dict[str, Any]) -> Path:
    """A checkpoint of this state, with checksums that prove it."""
    plain = {key: value for key, value in state.items() if key != "schema_version"}
    write_checkpoint(folder, plain, {"epoch": 1, "step": 1})
    return folder


def outcome(folder: Path) -> str:
    """What loading says, in one sentence; empty if it loads."""
    try:
        load_checkpoint(folder)
    except CheckpointError as error:
        assert "\n" not in str(error)
        return str(error)
    return ""


@pytest.mark.parametrize("key", sorted(STATE_KEYS))
def test_a_key_of_another_kind_is_one_sentence(key: str, state: dict[str, Any], tmp_path: Path):
    refused = 0
    for number, value in enumerate(ODD):
        refused += bool(outcome(signed(tmp_path / str(number), {**state, key: value})))
    assert refused >= len(ODD) - 3  # None, true and numbers are some keys' own


CONTRADICTIONS: list[tuple[str, Mutate, str]] = [
    ("history", lambda s: s["history"][-1].update(epoch=9), "history ends with epoch 9, not 2"),
    ("metrics", lambda s: s["history"][-1].update(x=torch.zeros(1)), "history.*not a valid JSON"),
    (
        "gray",
        lambda s: s["preprocess"].update(mean=[0.1] * 2),
        "mean and std have different numbers of",
    ),
    (
        "colors",
        lambda s: s["preprocess"].update(mean=[0.1] * 3, std=[1.0] * 3),
        "different number of channels",
    ),
    (
        "shape",
        lambda s: s.update(input_shape=[8, 8, 3]),
        "does not fit network|different number of channels",
    ),
    (
        "label",
        lambda s: s.update(fine_to_coarse=[0] * 10),
        "names a superclass that does not exist",
    ),
    ("name", lambda s: s["dataset"].update(name=3), "dataset.name: input should be a valid string"),
    ("digest", lambda s: s["dataset"].update(digest="../x"), "dataset.digest: string should match"),
    ("classes", lambda s: s["classes"].pop(), "does not fit network cnn3: of another shape"),
    ("rng", lambda s: s["rng"][0].update(torch=torch.zeros(3)), "rng.0.*torch's is not a state"),
]


@pytest.mark.parametrize(
    ("mutate", "sentence"),
    [case[1:] for case in CONTRADICTIONS],
    ids=[c[0] for c in CONTRADICTIONS],
)
def test_a_state_that_contradicts_itself_is_refused(
    mutate: Mutate, sentence: str, state: dict[str, Any], tmp_path: Path
):
    changed = copy.deepcopy(state)
    mutate(changed)
    with pytest.raises(CheckpointError, match=f"(?i){sentence}"):
        load_checkpoint(signed(tmp_path, changed))


@pytest.mark.parametrize("side", [700, 4096, 100_000])
def test_a_shape_takes_no_memory_before_it_is_refused(
    side: int, state: dict[str, Any], tmp_path: Path
):
    """A process of its own tells what it held at most."""
    folder = signed(tmp_path, {**state, "input_shape": [side, side, 1]})
    code = (
        "import pathlib, sys\n"
        "from cifarray.errors import CheckpointError\n"
        "from cifarray.training.checkpoint import load_checkpoint\n"
        "try:\n"
        "    load_checkpoint(pathlib.Path(sys.argv[1]))\n"
        "except CheckpointError as error:\n"
        "    print(error)\n"
        "print(pathlib.Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )
    words = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    said, most_kb = done.stdout.splitlines()
    assert "does not fit network cnn3" in said or "input_shape" in said
    assert int(most_kb) < MOST_MEMORY_MB << 10


SPOILED: list[Mutate] = [
    lambda s: s["optimizer"]["param_groups"][0].update(lr="x"),
    lambda s: s["optimizer"]["param_groups"][0].pop("lr"),
    lambda s: s["optimizer"]["param_groups"][0].update(params=[0]),
    lambda s: s["optimizer"]["param_groups"][0].update(nesterov=True),
    lambda s: s["optimizer"].update(param_groups=[]),
    lambda s: s["optimizer"]["state"].update({99: {"momentum_buffer": torch.zeros(1)}}),
    lambda s: s["optimizer"]["state"].update({0: {"momentum_buffer": torch.zeros(7, 7)}}),
    lambda s: s["optimizer"]["state"].update({0: {"momentum_buffer": "x"}}),
    lambda s: s["history"][-1].pop("validation.top1"),
    lambda s: s["model"].update({next(iter(s["model"])): torch.zeros(7, 7)}),
]


@pytest.mark.parametrize("mutate", SPOILED)
def test_what_training_cannot_go_on_from_is_refused(
    mutate: Mutate, state: dict[str, Any], digits: Digits, tmp_path: Path
):
    changed = copy.deepcopy(state)
    mutate(changed)
    with pytest.raises(CheckpointError) as caught:
        digits.trainer(small_job()).restore(read_state(signed(tmp_path, changed)))
    assert "\n" not in str(caught.value)


def test_the_untouched_state_is_gone_on_from(state: dict[str, Any], digits: Digits, tmp_path: Path):
    resumed = digits.trainer(small_job())
    resumed.restore(read_state(signed(tmp_path, state)))
    assert resumed.history == state["history"]


def test_a_state_from_before_parameter_groups_is_gone_on_from(
    state: dict[str, Any], digits: Digits, tmp_path: Path
):
    """Its job lacks the fields, and what its optimizer saved is what ours saves without them."""
    changed = copy.deepcopy(state)
    for field in ("decay_norms", "groups"):
        del changed["job"]["optimizer"][field]
    assert "lr_scale" not in changed["optimizer"]["param_groups"][0]
    resumed = digits.trainer(small_job(train={"epochs": 2}))
    resumed.restore(read_state(signed(tmp_path, changed)))
    assert resumed.history == state["history"]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"files": {' + '"a": {' * 5000, "{}" * 3])
def test_a_proof_that_exhausts_a_parser_is_refused(
    text: str, state: dict[str, Any], tmp_path: Path
):
    folder = signed(tmp_path, state)
    (folder / "checkpoint.json").write_text(text)
    assert "checkpoint.json cannot be read" in outcome(folder)


def test_a_proof_that_lists_a_file_again_and_again_is_refused(
    state: dict[str, Any], tmp_path: Path
):
    folder = signed(tmp_path, state)
    proof = json.loads((folder / "checkpoint.json").read_text())
    (fingerprint,) = proof["files"].values()
    proof["files"] |= {f"{number}/state.pt": fingerprint for number in range(1000)}
    (folder / "checkpoint.json").write_text(json.dumps(proof))
    assert "it lists more than 100 files" in outcome(folder)
