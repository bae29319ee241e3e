"""Asks a container registry for the digest of an image's tag, over the Registry HTTP API V2."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

from cifarray.proxies import is_loopback

TIMEOUT_S = 30
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
EXACT = re.compile(
    r"(?P<name>[a-z0-9][\w.-]*(:\d+)?(/[a-z0-9._-]+)*)"
    r"(:(?P<tag>\w[\w.-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)


class RegistryError(Exception):
    """A registry did not name a digest; one sentence says why."""


@dataclass(frozen=True)
class Image:
    """An image's name with its exact tag, digest, or both."""

    name: str
    tag: str | None = None
    digest: str | None = None

    @staticmethod
    def parse(text: str) -> "Image":
        """Read NAME:TAG or NAME@DIGEST. Raises: RegistryError for any tag that moves, or none."""
        found = EXACT.fullmatch(text)
        if found is None or found["tag"] == "latest" or not (found["tag"] or found["digest"]):
            raise RegistryError(
                f"image '{text}' names no exact version; write it as in "
                "registry.example.org/cifarray:0.1.0"
            )
        return Image(found["name"], found["tag"], found["digest"])

    @property
    def host(self) -> str | None:
        """The registry; None for a name that any machine may hold an image of."""
        first, slash, _ = self.name.partition("/")
        return first if slash and ("." in first or ":" in first or first == "localhost") else None

    @property
    def repository(self) -> str:
        """The name without its registry."""
        return self.name.partition("/")[2] if self.host else self.name


def digest_of(image: Image) -> str:
    """The digest that the registry has the image's tag at. Raises: RegistryError."""
    assert image.host
    # Docker Hub's images are named after one host and served by another.
    host = "registry-1.docker.io" if image.host == "docker.io" else image.host
    scheme = "http" if is_loopback(f"//{host}") else "https"
    url = f"{scheme}://{host}/v2/{image.repository}/manifests/{image.tag}"
    headers = {"Accept": ", ".join(MANIFESTS)}
    try:
        try:
            body, told = _get(url, headers)
        except HTTPError as error:
            if error.code != 401:
                raise
            challenge = error.headers.get("WWW-Authenticate", "")
            headers["Authorization"] = _authorization(challenge, image.host)
            body, told = _get(url, headers)
    except HTTPError as error:
        raise RegistryError(f"{url} answers {error.code} {error.reason}") from error
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise RegistryError(f"{url} does not answer: {reason}") from error
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    if told.get("Docker-Content-Digest", digest) != digest:
        raise RegistryError(f"{url} sends content that does not match its digest")
    return digest


def _get(url: str, headers: Mapping[str, str]) -> tuple[bytes, Any]:
    with urlopen(Request(url, headers=dict(headers)), timeout=TIMEOUT_S) as answer:
        return answer.read(), answer.headers


def _authorization(challenge: str, host: str) -> str:
    """What a registry's challenge asks for: a token of its token server, or the user's password."""
    kind, _, rest = challenge.partition(" ")
    login = _login(host)
    if kind.lower() == "basic" and login:
        return f"Basic {login}"
    asked = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    realm = asked.pop("realm", "")
    server = urlsplit(realm)
    # A password must not leave in the clear, whatever the registry says.
    safe = server.scheme == "https" or (server.scheme == "http" and is_loopback(realm))
    if kind.lower() != "bearer" or not safe:
        raise RegistryError(f"registry {host} requires a login; run: docker login {host}")
    headers = {"Authorization": f"Basic {login}"} if login else {}
    answer = json.loads(_get(f"{realm}?{urlencode(asked)}", headers)[0])
    return f"Bearer {answer.get('token') or answer['access_token']}"


def _login(host: str) -> str | None:
    """What `docker login` has noted for a registry, where it notes it in its file."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        logins: dict[str, dict[str, str]] = json.loads(
            (folder / "config.json").read_text(encoding="utf-8")
        ).get("auths", {})
    except (OSError, ValueError):
        return None
    names = ("https://index.docker.io/v1/",) if host == "docker.io" else (host, f"https://{host}")
    return next((logins[name]["auth"] for name in names if logins.get(name, {}).get("auth")), None)
