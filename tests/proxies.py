"""A proxy on loopback that answers 502 to everything and remembers what it was asked."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cifarray.proxies import EXCEPTIONS
from tests.loopback import answering

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@contextmanager
def refusing_proxy() -> Iterator[tuple[str, list[str]]]:
    """Its address, and the requests up to now."""
    asked: list[str] = []

    def refuse(request: str) -> tuple[int, dict[str, str], bytes]:
        asked.append(request)
        return 502, {}, b"this proxy knows nobody"

    with answering(refuse) as address:
        yield address, asked


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A shell whose variables name such a proxy; what it was asked."""
    with refusing_proxy() as (address, asked):
        for name in VARIABLES:
            monkeypatch.setenv(name, address)
        for name in EXCEPTIONS:
            monkeypatch.setenv(name, "")  # so that it comes back as it was
            monkeypatch.delenv(name)
        yield asked
