"""Of the checkpoints in a store only whole ones count, newest or best first."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cifarray.errors import CheckpointError, StoreDamagedError, StoreError
from cifarray.store import Store
from cifarray.training.checkpoint import read_state, write_checkpoint
from cifarray.training.checkpoint_store import (
    best_good,
    checkpoint_name,
    fetch,
    keep,
    newest_good,
    stored_checkpoints,
)
from cifarray.training.trainer import Trainer
from tests.holding_proxy import Fault, HoldingProxy, Request, holding_proxy
from tests.s3 import S3Server

FOLDER = "runs/r/attempts/1"
TOP1 = {1: 0.5, 2: 0.9, 3: 0.7}
LOSS = {1: 0.4, 2: 0.6, 3: 0.5}


@pytest.fixture(scope="module")
def state() -> dict[str, Any]:
    """Something to save; what it holds is all the same to a store."""
    return {"weights": [1.0] * 100}


Put = Callable[..., str]


@pytest.fixture
def put(store: Store, state: dict[str, Any], tmp_path: Path) -> Put:
    """Puts a checkpoint into the store and tells its key."""

    def put_checkpoint(epoch: int, folder: str = FOLDER, **metrics: Any) -> str:
        figures = {"validation.top1": TOP1[epoch], "validation.loss": LOSS[epoch]}
        record = {"epoch": epoch, "step": 10 * epoch, **figures, **metrics}
        here = tmp_path / f"epoch-{epoch}"
        write_checkpoint(here, {**state, "epoch": epoch}, record)
        key = f"{folder}/checkpoints/ray/epoch_{epoch:06d}"
        for path in here.iterdir():
            store.upload(path, f"{key}/{path.name}")
        return key

    return put_checkpoint


def flip_a_byte(store: Store, key: str) -> None:
    content = bytearray(store.read(f"{key}/state.pt"))
    content[len(content) // 2] ^= 1
    store.write(f"{key}/state.pt", bytes(content))


DAMAGES: dict[str, Callable[[Store, str], None]] = {
    "a flipped byte": flip_a_byte,
    "a missing state": lambda store, key: store.delete([f"{key}/state.pt"]),
    "a missing proof": lambda store, key: store.delete([f"{key}/checkpoint.json"]),
    "a proof that is no JSON": lambda store, key: store.write(f"{key}/checkpoint.json", b"{"),
    "a proof of nothing": lambda store, key: store.write(f"{key}/checkpoint.json", b"[]"),
}


def test_without_checkpoints_there_is_none(store: Store, tmp_path: Path):
    assert stored_checkpoints(store, FOLDER) == []
    assert newest_good(store, FOLDER, tmp_path) is None
    assert best_good(store, FOLDER, "validation.top1", tmp_path) is None


def test_the_newest_is_that_of_the_latest_epoch(store: Store, put: Put, tmp_path: Path):
    keys = {epoch: put(epoch) for epoch in (2, 3, 1)}
    found = stored_checkpoints(store, FOLDER)
    assert [(c.key, c.epoch) for c in found] == [(keys[3], 3), (keys[2], 2), (keys[1], 1)]
    newest = newest_good(store, FOLDER, tmp_path)
    assert newest is not None
    assert newest.key == keys[3]
    assert newest.metrics["step"] == 30


@pytest.mark.parametrize(("metric", "epoch"), [("validation.top1", 2), ("validation.loss", 1)])
def test_the_best_is_that_of_the_highest_top1_or_the_lowest_loss(
    store: Store, put: Put, tmp_path: Path, metric: str, epoch: int
):
    keys = {epoch: put(epoch) for epoch in (1, 2, 3)}
    best = best_good(store, FOLDER, metric, tmp_path)
    assert best is not None
    assert best.key == keys[epoch]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_checkpoints_are_passed_over(
    store: Store, put: Put, tmp_path: Path, damage: Callable[[Store, str], None]
):
    keys = {epoch: put(epoch) for epoch in (1, 2, 3)}
    damage(store, keys[3])
    newest = newest_good(store, FOLDER, tmp_path / "a")
    assert newest is not None
    assert newest.key == keys[2]
    damage(store, keys[2])
    best = best_good(store, FOLDER, "validation.top1", tmp_path / "b")
    assert best is not None
    assert best.key == keys[1]
    damage(store, keys[1])
    assert newest_good(store, FOLDER, tmp_path / "c") is None
    assert best_good(store, FOLDER, "validation.top1", tmp_path / "d") is None


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_of_equals_the_first_is_the_best(store: Store, put: Put, tmp_path: Path):
    for epoch in (1, 2, 3):
        put(epoch, **{"validation.top1": 0.8})
    best = best_good(store, FOLDER, "validation.top1", tmp_path)
    assert best is not None
    assert best.epoch == 1


@pytest.mark.parametrize("store", ["local"], indirect=True)
@pytest.mark.parametrize("value", [float("nan"), None, "high"])
def test_a_value_that_is_no_number_is_never_the_best(
    store: Store, put: Put, tmp_path: Path, value: object
):
    put(1)
    put(3, **{"validation.top1": value})
    best = best_good(store, FOLDER, "validation.top1", tmp_path)
    assert best is not None
    assert best.epoch == 1


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_checkpoints_of_other_folders_are_not_looked_at(store: Store, put: Put, tmp_path: Path):
    put(3, folder="runs/r/attempts/2")
    put(2, folder="runs/r/attempts/10")
    mine = put(1)
    newest = newest_good(store, FOLDER, tmp_path)
    assert newest is not None
    assert newest.key == mine


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_fetching_says_which_checkpoint_is_damaged_or_gone(store: Store, put: Put, tmp_path: Path):
    key = put(1)
    flip_a_byte(store, key)
    with pytest.raises(CheckpointError, match="is damaged"):
        fetch(store, key, tmp_path / "a")
    store.delete([f"{key}/state.pt"])
    with pytest.raises(CheckpointError, match=f"checkpoint {key} cannot be read: "):
        fetch(store, key, tmp_path / "b")


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_a_fetched_checkpoint_has_the_same_bytes(
    store: Store, trained: Callable[..., Trainer], tmp_path: Path
):
    trainer = trained()
    write_checkpoint(tmp_path / "one", trainer.state(), trainer.history[-1])
    for path in (tmp_path / "one").iterdir():
        store.upload(path, f"{FOLDER}/c/{path.name}")
    folder = fetch(store, f"{FOLDER}/c", tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert read_state(folder)["step"] == trainer.history[-1]["step"]


def test_of_kept_checkpoints_the_best_and_the_last_remain(
    store: Store, state: dict[str, Any], tmp_path: Path
):
    history: list[dict[str, Any]] = []
    remaining = []
    for epoch, top1 in enumerate((0.5, 0.9, 0.7, 0.9, 0.1), start=1):
        history.append({"epoch": epoch, "step": 10 * epoch, "validation.top1": top1})
        _keep(store, state, history)
        remaining.append([checkpoint.epoch for checkpoint in stored_checkpoints(store, FOLDER)])
    assert remaining == [[1], [2], [3, 2], [4, 2], [5, 2]]
    for found in stored_checkpoints(store, FOLDER):
        fetch(store, found.key, tmp_path / str(found.epoch))


def _keep(store: Store, state: dict[str, Any], history: list[dict[str, Any]]) -> None:
    epoch = history[-1]["epoch"]
    whole = {**state, "epoch": epoch, "history": history}
    keep(store, FOLDER, checkpoint_name(epoch, "ab12"), whole, "validation.top1")


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[HoldingProxy]:
    with holding_proxy(s3.endpoint) as proxy:
        yield proxy


FULL = Fault("answer", 507, "InsufficientStorage")
DENIED = Fault("answer", 403, "AccessDenied")
GONE = Fault("answer", 404, "NoSuchBucket")


@pytest.mark.parametrize("fault", [FULL, DENIED, GONE], ids=["507", "403", "404"])
@pytest.mark.parametrize("file", ["state.pt", "checkpoint.json"])
def test_a_checkpoint_that_does_not_arrive_costs_none_of_the_others(
    s3: S3Server,
    proxy: HoldingProxy,
    state: dict[str, Any],
    tmp_path: Path,
    file: str,
    fault: Fault,
):
    """As on a store that is full: best and last stay until the new one is whole."""
    store = Store.open(s3.new_store().uri, proxy.address).patient(0.3)
    tops = (0.5, 0.9, 0.7, 0.8)
    history = [
        {"epoch": epoch, "step": 10 * epoch, "validation.top1": top1}
        for epoch, top1 in enumerate(tops, start=1)
    ]
    for epochs in (1, 2, 3):
        _keep(store, state, history[:epochs])
    proxy.fault = lambda asked: fault if asked.method == "PUT" and file in asked.path else None
    with pytest.raises(StoreError):
        _keep(store, state, history)
    proxy.fault = lambda asked: None
    assert [found.epoch for found in stored_checkpoints(store, FOLDER)] == [3, 2]
    newest = newest_good(store, FOLDER, tmp_path / "newest")
    assert newest is not None
    assert newest.epoch == 3
    _keep(store, state, history)
    assert [found.epoch for found in stored_checkpoints(store, FOLDER)] == [4, 2]


def test_a_checkpoint_whose_upload_stays_without_bytes_costs_none_of_the_others(
    s3: S3Server, proxy: HoldingProxy, state: dict[str, Any]
):
    """The server says that it has them, as one did behind which the disk was full."""
    inner = s3.new_store()
    store = Store.open(inner.uri, proxy.address).patient(0.3)
    history = [
        {"epoch": epoch, "step": epoch, "validation.top1": 0.1 * epoch} for epoch in (1, 2, 3)
    ]
    _keep(store, state, history[:1])
    key = f"{FOLDER}/checkpoints/{checkpoint_name(2, 'ab12')}/state.pt"

    def lose(asked: Request) -> None:
        if asked.method == "GET" and "list-type" in asked.path and inner.exists(key):
            inner.delete([key])

    proxy.fault = lose
    with pytest.raises(
        StoreDamagedError, match=r"epoch 2 is not complete in .*state.pt is missing"
    ):
        _keep(store, state, history[:2])
    assert [found.epoch for found in stored_checkpoints(store, FOLDER)][-1] == 1


def test_an_old_checkpoint_that_may_not_be_deleted_ends_no_training(
    s3: S3Server, proxy: HoldingProxy, state: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    store = Store.open(s3.new_store().uri, proxy.address).patient(0.3)
    history = [
        {"epoch": epoch, "step": epoch, "validation.top1": 0.1 * epoch} for epoch in (1, 2, 3)
    ]
    proxy.fault = lambda asked: DENIED if asked.deletes else None
    for epochs in (1, 2, 3):
        _keep(store, state, history[:epochs])
    assert [found.epoch for found in stored_checkpoints(store, FOLDER)] == [3, 2, 1]
    assert "warning: the old checkpoint " in capsys.readouterr().out
