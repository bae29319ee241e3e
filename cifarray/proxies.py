"""Makes loopback reachable directly, whatever proxy the environment names."""

import ipaddress
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import httpx2

DIRECT = ("127.0.0.1", "localhost", "::1", "[::1]")
"""The last one for clients that compare an address with its brackets."""
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


def http_client(url: str) -> "httpx2.Client":
    """A client for this URL, which its proxy of HTTP_PROXY or HTTPS_PROXY is asked for.

    ALL_PROXY is left to others, as boto3 and aiohttp leave it: often it names a SOCKS proxy beside
    an HTTP one. Each request has a connection of its own, so nothing stays open between two.

    Raises: ValueError, httpx2.InvalidURL for a proxy that cannot be one.
    """
    import ssl

    import httpx2

    proxy = _proxy_of(url)
    if proxy and not proxy.startswith(("http://", "https://")):
        raise ValueError(f"the environment's proxy is of scheme {urlsplit(proxy).scheme}, not http")
    return httpx2.Client(
        proxy=proxy,
        trust_env=False,
        verify=ssl.create_default_context(),  # it knows SSL_CERT_FILE
        limits=httpx2.Limits(max_keepalive_connections=0),
    )


def _proxy_of(url: str) -> str | None:
    """The proxy that the environment names for a URL, with its scheme."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    if is_loopback(url) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxy = getproxies().get(parts.scheme)
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy
