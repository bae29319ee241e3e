"""Which checkpoint a person means, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from cifarray.errors import CheckpointError, InputError, RunNotFoundError
from cifarray.inference.find_checkpoint import open_checkpoint
from cifarray.runs import pull
from cifarray.spec.job import Job
from cifarray.store import Store
from cifarray.training.checkpoint import read_state, write_checkpoint
from tests.unit.inference.conftest import CHECKPOINT, JOB, Trained, no_store

NETWORK = """
from torch import nn

def net(num_classes, in_channels, image_size):
    pixels = in_channels * image_size[0] * image_size[1]
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, num_classes))
"""


@pytest.fixture
def pulled(trained: Trained, tmp_path: Path) -> Path:
    """The run as `pull` leaves it, in a folder of this test's own."""
    pull(trained.run, tmp_path / "pulled")
    return tmp_path / "pulled"


@pytest.fixture
def own_network(trained: Trained, tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint of a network of the user, and the folder of its code."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "own_net.py").write_text(NETWORK)
    state = read_state(trained.checkpoint)
    job = JOB.model_dump(mode="json") | {"model": {"name": "own_net:net"}}
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    state |= {"job": job, "model": network.state_dict()}
    write_checkpoint(tmp_path / "own", state, state["history"][-1])
    return tmp_path / "own", code


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_a_folder_a_file_in_it_a_pulled_run_and_a_run_give_the_same_network(
    trained: Trained, pulled: Path
):
    reference, _ = open_checkpoint(str(trained.checkpoint), no_store)
    for target in (trained.checkpoint / "state.pt", pulled, pulled / CHECKPOINT):
        found, origin = open_checkpoint(str(target), no_store)
        assert same_weights(found.model, reference.model)
        assert CHECKPOINT in origin
    for name in (trained.run.id, trained.run.id[:8]):
        found, origin = open_checkpoint(name, lambda: trained.store)
        assert same_weights(found.model, reference.model)
        assert origin == f"runs/{trained.run.id}/{CHECKPOINT}"
    assert not reference.model.training
    assert reference.job == JOB


def test_a_run_that_goes_on_gives_its_best_checkpoint_up_to_now(trained: Trained, pulled: Path):
    (pulled / "best.json").unlink()
    worse = pulled / CHECKPOINT.replace("000002", "000001")
    shutil.copytree(pulled / CHECKPOINT, worse)
    proof = json.loads((worse / "checkpoint.json").read_text())
    proof["metrics"]["validation.top1"] = 0.0
    (worse / "checkpoint.json").write_text(json.dumps(proof))
    assert open_checkpoint(str(pulled), no_store)[1] == str(pulled / CHECKPOINT)
    (pulled / CHECKPOINT / "state.pt").write_bytes(b"damaged")
    assert open_checkpoint(str(pulled), no_store)[1] == str(worse)


def test_a_run_without_a_whole_checkpoint_is_refused(pulled: Path):
    (pulled / "best.json").unlink()
    (pulled / CHECKPOINT / "checkpoint.json").unlink()
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        open_checkpoint(str(pulled), no_store)


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_a_damaged_checkpoint_is_refused_by_its_own_name(
    trained: Trained, tmp_path: Path, damage: str
):
    copy = tmp_path / "store"
    shutil.copytree(trained.store.path(), copy)
    state = copy / trained.run.prefix / CHECKPOINT / "state.pt"
    if damage == "missing":
        state.unlink()
    else:
        data = bytearray(state.read_bytes())
        data[len(data) // 2] ^= 1
        state.write_bytes(data)
    with pytest.raises(CheckpointError, match=CHECKPOINT):
        open_checkpoint(trained.run.id, lambda: Store.open(str(copy)))
    with pytest.raises(CheckpointError, match=CHECKPOINT):
        open_checkpoint(str(copy / trained.run.prefix), no_store)


@pytest.mark.parametrize("named", ["../../secret", "/etc", 3, None])
def test_a_best_json_that_leads_elsewhere_is_refused(pulled: Path, named: object):
    (pulled / "best.json").write_text(json.dumps({"checkpoint": named}))
    with pytest.raises(CheckpointError, match="names no checkpoint"):
        open_checkpoint(str(pulled), no_store)


def test_an_unknown_run_names_its_neighbors(trained: Trained):
    with pytest.raises(RunNotFoundError):
        open_checkpoint("digits-tset", lambda: trained.store)


@pytest.mark.parametrize("target", ["no/such/folder", "/no/such", "./missing"])
def test_a_path_that_is_not_there_is_refused_without_a_store(target: str):
    with pytest.raises(InputError):
        open_checkpoint(target, lambda: Store.open("elsewhere"))


def test_a_network_of_the_users_own_runs_only_from_the_folder_that_is_given(
    own_network: tuple[Path, Path], tmp_path: Path
):
    folder, code = own_network
    with pytest.raises(CheckpointError, match="give the folder that contains own_net with --code"):
        open_checkpoint(str(folder), no_store)
    with pytest.raises(CheckpointError, match="not in"):
        open_checkpoint(str(folder), no_store, tmp_path)
    found, _ = open_checkpoint(str(folder), no_store, code)
    assert found.model[1].out_features == 10


def test_a_checkpoint_that_names_a_function_of_an_installed_package_is_refused(
    own_network: tuple[Path, Path], tmp_path: Path
):
    folder, code = own_network
    state = read_state(folder)
    state["job"]["model"] = {"name": "subprocess:run", "args": {"args": ["touch", "ran"]}}
    Job.model_validate(state["job"])
    write_checkpoint(tmp_path / "evil", state, state["history"][-1])
    for given in (None, code):
        with pytest.raises(CheckpointError, match="subprocess:run is code outside cifarray"):
            open_checkpoint(str(tmp_path / "evil"), no_store, given)
    assert not Path("ran").exists()


def test_a_folder_of_several_pulled_runs_is_refused_with_their_names(pulled: Path):
    shutil.copytree(pulled, pulled.parent / "again")
    with pytest.raises(
        CheckpointError, match=r"contains several runs: again, pulled; give the fol"
    ):
        open_checkpoint(str(pulled.parent), no_store)


def test_a_folder_of_one_pulled_run_gives_what_that_run_chose(trained: Trained, pulled: Path):
    better = pulled / CHECKPOINT.replace("000002", "000001")
    shutil.copytree(pulled / CHECKPOINT, better)
    proof = json.loads((better / "checkpoint.json").read_text())
    proof["metrics"]["validation.top1"] = 1.0
    (better / "checkpoint.json").write_text(json.dumps(proof))
    assert open_checkpoint(str(pulled.parent), no_store)[1] == str(pulled / CHECKPOINT)


def test_a_target_that_cannot_be_looked_at_says_why():
    with pytest.raises(CheckpointError, match="cannot be read: File name too long; give another"):
        open_checkpoint("a" * 300, no_store)
