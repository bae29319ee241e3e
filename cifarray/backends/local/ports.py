"""Free ports for a Ray node, none that the system gives to outgoing connections."""

import random
import socket

from cifarray.errors import ClusterError

FIRST, LAST = 20000, 32000
"""Above Ray's own worker ports (10002 to 19999), below Linux's outgoing ones (32768 on)."""
TRIES = 1000


def free_ports(count: int) -> list[int]:
    """So many different ports that nobody listens on. Raises: ClusterError."""
    found: list[int] = []
    for port in random.sample(range(FIRST, LAST), TRIES):
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise ClusterError(f"found only {len(found)} free ports of {count} from {FIRST} to {LAST}")


def is_free(port: int) -> bool:
    """Whether one could listen on the port, on loopback and on every interface."""
    for host in ("127.0.0.1", ""):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True
