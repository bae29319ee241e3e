"""Communication between the ranks of a training, on loopback if they share a machine.

With a single rank nothing is sent. torch's own rendezvous listens on every interface, without a
secret, and gloo and NCCL listen on that of the host's name; `use_loopback` keeps all of it on the
loopback, which no other machine reaches. Across machines they have to listen; there the network
keeps strangers away.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import register_rendezvous_handler

T = TypeVar("T")

SCHEME = "cifarray-loopback"
LOOPBACK = "127.0.0.1"
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_listening: list[socket.socket] = []
"""Rank 0's, from the moment it has a port until the store takes it over."""


def world() -> tuple[int, int]:
    """(rank, world_size) of this process; (0, 1) outside a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The elementwise sum over all ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def gather(value: T) -> list[T]:
    """Every rank's value, by rank, on every rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def from_rank_0(value: T) -> T:
    """Rank 0's value, on every rank."""
    box = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def share_buffers(model: nn.Module) -> None:
    """Give every rank rank 0's buffers (BatchNorm's running statistics), which DDP lets drift."""
    if dist.is_initialized():
        with torch.no_grad():
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)


def listen_on_loopback() -> int:
    """Begin to listen in the process of rank 0; the port."""
    for old in _listening:  # of a group that never came together
        old.close()
    _listening[:] = [socket.create_server((LOOPBACK, 0))]
    return int(_listening[0].getsockname()[1])


def use_loopback(port: int) -> str:
    """Keep this process's group on the loopback; the `init_method` to set it up with."""
    os.environ |= {"MASTER_ADDR": LOOPBACK, "MASTER_PORT": str(port)}
    interface = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if interface is not None:
        for name in INTERFACES:
            os.environ.setdefault(name, interface)
    with suppress(RuntimeError):  # by an earlier group of this process
        register_rendezvous_handler(SCHEME, _rendezvous)
    return f"{SCHEME}://{LOOPBACK}:{port}"


def _rendezvous(
    url: str, timeout: timedelta = timedelta(minutes=5), **_: Any
) -> Iterator[tuple[Any, int, int]]:
    """What torch calls with the address, to which it has added rank and world size."""
    address = urlsplit(url)
    query = dict(pair.split("=") for pair in address.query.split("&"))
    rank, world_size = int(query["rank"]), int(query["world_size"])
    listener = _listening.pop().detach() if rank == 0 else None
    store = dist.TCPStore(  # type: ignore[attr-defined]
        LOOPBACK, address.port or 0, world_size, rank == 0, timeout, master_listen_fd=listener
    )
    yield store, rank, world_size
    raise RuntimeError("a process group on loopback cannot be set up twice with one address")
