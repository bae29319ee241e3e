"""Makes loopback reachable directly, whatever proxy the environment names."""

import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

DIRECT = ("127.0.0.1", "localhost", "::1", "[::1]")
"""The last one for urllib, which compares an address with its brackets."""
EXCEPTIONS = ("no_proxy", "NO_PROXY")
"""Libraries read one or the other."""


def is_loopback(url: str | None) -> bool:
    """Whether a URL leads to this very machine."""
    host = urlsplit(url).hostname if url else None
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def loopback_exceptions(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that spare loopback the proxies of an environment; none where it names none."""
    if not any(name.lower().endswith("_proxy") for name in environment):
        return {}
    given = [environment.get(name, "") for name in EXCEPTIONS]
    hosts = [host.strip() for text in given for host in text.split(",") if host.strip()]
    spared = ",".join(dict.fromkeys((*hosts, *DIRECT)))
    return dict.fromkeys(EXCEPTIONS, "*" if "*" in hosts else spared)


def spare_loopback() -> None:
    """Let this process and its children reach loopback directly."""
    os.environ |= loopback_exceptions(os.environ)
