"""The TCP sockets on which processes of this machine listen, as Linux tells of them."""

import ipaddress
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

LISTENS = "0A"


def listening_on(pids: Iterable[int]) -> set[str]:
    """The addresses on which these processes listen."""
    inodes = {inode for pid in pids for inode in _sockets_of(pid)}
    return {address for inode, address in _listening() if inode in inodes}


def is_loopback(address: str) -> bool:
    """Whether no other machine reaches the address."""
    found = ipaddress.ip_address(address)
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def _sockets_of(pid: int) -> Iterator[str]:
    try:
        links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return
    for link in links:
        if found := re.match(r"socket:\[(\d+)\]", link):
            yield found.group(1)


def _listening() -> Iterator[tuple[str, str]]:
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            raw = fields[1].partition(":")[0]
            words = (bytes.fromhex(raw[at : at + 8])[::-1] for at in range(0, len(raw), 8))
            if fields[3] == LISTENS:
                yield fields[9], str(ipaddress.ip_address(b"".join(words)))
