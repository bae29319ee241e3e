"""Where the workers of one machine meet: on its loopback, which no other machine reaches.

torch's own rendezvous listens on every interface, without a secret, and gloo and NCCL listen on
that of the host's name. Across machines they have to; there the network keeps strangers away.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import torch.distributed as dist
from torch.distributed.rendezvous import register_rendezvous_handler

SCHEME = "cifarray-loopback"
LOOPBACK = "127.0.0.1"
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_listening: list[socket.socket] = []
"""Rank 0's, from the moment it has a port until the store takes it over."""


def listen_on_loopback() -> int:
    """Begin to listen in the process of rank 0; the port."""
    for old in _listening:  # of a group that never came together
        old.close()
    _listening[:] = [socket.create_server((LOOPBACK, 0))]
    return int(_listening[0].getsockname()[1])


def use_loopback(port: int) -> str:
    """Let this process' group be one of loopback; the `init_method` to set it up with."""
    os.environ |= {"MASTER_ADDR": LOOPBACK, "MASTER_PORT": str(port)}
    interface = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if interface is not None:
        for name in INTERFACES:
            os.environ.setdefault(name, interface)
    with suppress(RuntimeError):  # by an earlier group of this process
        register_rendezvous_handler(SCHEME, _meet)
    return f"{SCHEME}://{LOOPBACK}:{port}"


def _meet(
    url: str, timeout: timedelta = timedelta(minutes=5), **_: Any
) -> Iterator[tuple[Any, int, int]]:
    """What torch calls with the address, to which it has added rank and world size."""
    place = urlsplit(url)
    query = dict(pair.split("=") for pair in place.query.split("&"))
    rank, world_size = int(query["rank"]), int(query["world_size"])
    listener = _listening.pop().detach() if rank == 0 else None
    store = dist.TCPStore(  # type: ignore[attr-defined]
        LOOPBACK, place.port or 0, world_size, rank == 0, timeout, master_listen_fd=listener
    )
    yield store, rank, world_size
    raise RuntimeError("a group of loopback cannot be set up twice with one address")
