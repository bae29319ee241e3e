"""Two processes of one machine meet on its loopback, and nothing of theirs listens elsewhere."""

import multiprocessing
import os
import sys
from multiprocessing.connection import Connection

import pytest
import torch
import torch.distributed as dist

from cifarray.training.distributed import listen_on_loopback, use_loopback
from tests.listening import is_loopback, listening_on


def member(rank: int, port: int, pipe: Connection) -> None:
    """One rank: it meets the other, adds up a number, and waits to be looked at."""
    if rank == 0:
        port = listen_on_loopback()
        pipe.send(port)
    dist.init_process_group("gloo", init_method=use_loopback(port), rank=rank, world_size=2)
    total = torch.tensor([rank + 1])
    dist.all_reduce(total)
    pipe.send((int(total), os.environ["MASTER_ADDR"]))
    pipe.recv()
    dist.destroy_process_group()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_group_of_one_machine_listens_on_loopback_alone() -> None:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = zip(*(spawn.Pipe() for _ in range(2)), strict=True)
    first = spawn.Process(target=member, args=(0, 0, theirs[0]))
    first.start()
    second = spawn.Process(target=member, args=(1, ours[0].recv(), theirs[1]))
    second.start()
    try:
        assert [pipe.recv() for pipe in ours] == [(3, "127.0.0.1")] * 2
        assert first.pid is not None and second.pid is not None
        found = listening_on([first.pid, second.pid])
        assert found and all(is_loopback(address) for address in found)
        for pipe in ours:
            pipe.send("go")
        for process in (first, second):
            process.join(30)
            assert process.exitcode == 0
    finally:
        for process in (first, second):
            process.kill()
