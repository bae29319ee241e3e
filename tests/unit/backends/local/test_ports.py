"""Free ports are free, different, and none that the system gives away by itself."""

import socket

from cifarray.backends.local.node import FIRST_PORT, LAST_PORT, free_ports, is_free


def test_ports_are_different_and_within_the_range() -> None:
    ports = free_ports(11)
    assert len(set(ports)) == 11
    assert all(FIRST_PORT <= port < LAST_PORT and is_free(port) for port in ports)


def test_the_range_avoids_rays_workers_and_outgoing_connections() -> None:
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        first_outgoing = int(file.read().split()[0])
    assert 19999 < FIRST_PORT < LAST_PORT <= max(first_outgoing, 32000)


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    for host in ("127.0.0.1", ""):
        with socket.create_server((host, 0)) as listener:
            assert not is_free(listener.getsockname()[1])
