"""Several hosts on one machine: network namespaces, each with an address on a common bridge."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

NETWORK = "10.231.77"
HERE = f"{NETWORK}.1"
"""This machine's own address on the bridge."""


def why_not() -> str:
    """Why no such host can be made here; empty if one can."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "network namespaces want root and iproute2"
    return ""


def ip(*words: str) -> None:
    """Run `ip`; it has to succeed."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@dataclass
class Hosts:
    """The hosts of one network."""

    bridge: str = field(default_factory=lambda: f"cifa{secrets.token_hex(3)}")
    names: list[str] = field(default_factory=list)

    def add(self) -> "Host":
        """One more host, with an address of its own."""
        number = len(self.names) + 1
        name, address = f"{self.bridge}-{number}", f"{NETWORK}.{10 + number}"
        ip("netns", "add", name)
        self.names.append(name)
        ip("link", "add", self.cable(name), "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", self.cable(name), "master", self.bridge, "up")
        for words in (
            ("addr", "add", f"{address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
        ):
            ip("-n", name, *words)
        return Host(self, name, address)

    def cable(self, name: str) -> str:
        """The end of a host's cable that is on the bridge."""
        return f"v{name.removeprefix('cifa')}"


@dataclass(frozen=True)
class Host:
    """One host."""

    network: Hosts
    name: str
    address: str

    def command(self, *words: str) -> list[str]:
        """The command line that runs something there."""
        return ["ip", "netns", "exec", self.name, *words]

    def cut_off(self) -> None:
        """Pull its cable: no packet comes or goes any more."""
        ip("link", "set", self.network.cable(self.name), "down")


@contextmanager
def hosts() -> Iterator[Hosts]:
    """A network without hosts; what is added to it goes with it."""
    network = Hosts()
    ip("link", "add", network.bridge, "type", "bridge")
    try:
        ip("addr", "add", f"{HERE}/24", "dev", network.bridge)
        ip("link", "set", network.bridge, "up")
        yield network
    finally:
        for name in network.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", network.bridge], check=False, capture_output=True)
