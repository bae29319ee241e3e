"""Renders the overlays of k8s/ with kubectl's kustomize: `make manifests`.

Writes k8s/rendered/OVERLAY.yaml, which are part of the wheel, and k8s/cifarray.yaml, which is what
`kubectl apply -f k8s/` applies: the overlay gpu.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cifarray.backends.kubernetes.manifests import job_name
from cifarray.digests import content_sha256, file_sha256
from cifarray.proxies import is_loopback, spare_loopback

Document = dict[str, Any]

K8S = Path(__file__).resolve().parents[1] / "k8s"
TABLE = K8S / "components" / "images" / "kustomization.yaml"
RENDERED = K8S / "rendered"
FLAT = K8S / "cifarray.yaml"
OVERLAYS = ("local", "gpu", "external-s3")
DEFAULT = "gpu"
SOURCES = ("base", "overlays", "components/images")
OWN_IMAGE = "cifarray"
EXACT = re.compile(
    r"(?P<name>[a-z0-9][\w.-]*(:\d+)?(/[a-z0-9._-]+)*)"
    r"(:(?P<tag>\w[\w.-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
TOOLS = {
    "skopeo": ("inspect --no-tags --format {{.Digest}}", "--tls-verify=false", "docker://"),
    "crane": ("digest", "--insecure", ""),
    "docker": ("buildx imagetools inspect --format {{.Manifest.Digest}}", "", ""),
}
"""What asks a registry for a digest: its command, its option for one without TLS, and what it
writes before an image's name. Each knows the logins of `docker login`."""


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


def digest_of(image: Image) -> str:
    """The digest that the registry has the image's tag at. Raises: RegistryError."""
    name = next(filter(shutil.which, TOOLS), None)
    if name is None:
        raise RegistryError(
            f"asking a registry for a digest requires one of {', '.join(TOOLS)}; install skopeo"
        )
    command, insecure, prefix = TOOLS[name]
    options = [insecure] if insecure and is_loopback(f"//{image.host}") else []
    asked = [name, *command.split(), *options, f"{prefix}{image.name}:{image.tag}"]
    ended = subprocess.run(asked, capture_output=True, encoding="utf-8")
    digest = ended.stdout.strip()
    if ended.returncode or not DIGEST.fullmatch(digest):
        told = (ended.stderr.strip() or digest).splitlines()
        raise RegistryError(f"`{shlex.join(asked)}` names no digest: {' '.join(told[-1:])}")
    return digest


def kubectl_problem() -> str | None:
    """Why kubectl cannot render here; None if it can."""
    wanted = "no kubectl with kustomize 5 found"
    if shutil.which("kubectl") is None:
        return f"{wanted}; install kubectl >= 1.27"
    asked = subprocess.run(
        ["kubectl", "version", "--client", "-o", "json"], capture_output=True, encoding="utf-8"
    )
    try:
        version = str(json.loads(asked.stdout)["kustomizeVersion"])
    except (ValueError, KeyError):
        version = (
            "none"  # kubectl before 1.24 has a kustomize that is too old and reports no version
        )
    major = re.match(r"v(\d+)", version)
    return None if major and int(major[1]) >= 5 else f"{wanted} but {version}; install >= 1.27"


def render(
    overlay: str, components: Sequence[str] = (), image: Image | None = None
) -> list[Document]:
    """The manifests of an overlay with optional components, in the order to apply them in."""
    with tempfile.TemporaryDirectory() as folder:
        # kustomize takes folders by relative paths alone.
        there = Path(os.path.relpath(K8S, Path(folder).resolve()))
        kustomization: Document = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "sortOptions": {"order": "fifo"},
            "resources": [str(there / "overlays" / overlay)],
            "components": [str(there / "components" / name) for name in components],
        }
        if image:
            replaced = {"name": OWN_IMAGE, "newName": image.name}
            replaced |= {"newTag": image.tag} if image.tag else {}
            replaced |= {"digest": image.digest} if image.digest else {}
            kustomization["images"] = [replaced]
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), "utf-8")
        ended = subprocess.run(
            ["kubectl", "kustomize", folder], capture_output=True, encoding="utf-8"
        )
    if ended.returncode:
        raise SystemExit(f"error: overlay {overlay} cannot be rendered: {ended.stderr.strip()}")
    documents = [document for document in yaml.load_all(ended.stdout, yaml.CSafeLoader) if document]
    return [_named(_in_reading_order(document)) for document in documents]


def as_text(overlay: str, documents: Iterable[Document]) -> str:
    """Manifests as a file that says where it comes from."""
    origin = f"k8s/overlays/{overlay}"
    head = f"# Rendered by `make manifests` from {origin}: change the sources and render again.\n"
    head += f"# sources: {sources_digest()}\n"
    return head + yaml.safe_dump_all(documents, sort_keys=False, width=120)


def sources_digest(folder: Path = K8S) -> str:
    """A digest of all sources of the rendered files, which shows outdated ones."""
    files = (path for name in SOURCES for path in sorted((folder / name).rglob("*.yaml")))
    return content_sha256(
        "".join(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n" for path in files)
    )


def fill_digests(table: Path = TABLE) -> None:
    """Ask the registries for the digests of the table's images and write them into it."""
    text = table.read_text(encoding="utf-8")
    for entry in yaml.safe_load(text)["images"]:
        image = Image(entry["name"], str(entry["newTag"]))
        if image.host is None:
            print(f"{image.name}:{image.tag} names no registry, so it gets no digest")
            continue
        digest = digest_of(image)
        print(f"{image.name}:{image.tag} is {digest}")
        pattern = rf"(- name: {re.escape(image.name)}\n(?:  (?!digest).*\n)*  digest: ).*"
        text = re.sub(pattern, rf"\g<1>{digest}", text)
    table.write_text(text, encoding="utf-8")


def _named(document: Document) -> Document:
    if document["kind"] == "Job":
        document["metadata"]["name"] = job_name(document)
    return document


def _in_reading_order(document: Document) -> Document:
    first = ("apiVersion", "kind", "metadata")
    return {key: document[key] for key in (*first, *(key for key in document if key not in first))}


def main() -> int:
    """Write the rendered files, or print one overlay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", help="another image than cifarray's own, as NAME:TAG")
    parser.add_argument("--digests", action="store_true", help="ask registries for digests first")
    parser.add_argument("--show", choices=OVERLAYS, help="print an overlay and write nothing")
    parser.add_argument(
        "--with", dest="components", action="append", default=[], choices=("kueue", "monitoring")
    )
    options = parser.parse_args()
    spare_loopback()
    if problem := kubectl_problem():
        raise SystemExit(f"error: {problem}")
    try:
        image = Image.parse(options.image) if options.image else None
        if options.digests:
            fill_digests()
            if image and image.host and not image.digest:
                image = Image(image.name, image.tag, digest_of(image))
    except RegistryError as error:
        raise SystemExit(f"error: {error}") from error
    if options.show:
        print(as_text(options.show, render(options.show, options.components, image)), end="")
        return 0
    RENDERED.mkdir(exist_ok=True)
    for overlay in OVERLAYS:
        text = as_text(overlay, render(overlay, options.components, image))
        (RENDERED / f"{overlay}.yaml").write_text(text, encoding="utf-8")
        if overlay == DEFAULT:
            FLAT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
