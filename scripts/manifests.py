"""Renders the overlays of k8s/ with kubectl's kustomize: `make manifests`.

Writes k8s/rendered/OVERLAY.yaml, which are part of the wheel, and k8s/cifarray.yaml, which is what
`kubectl apply -f k8s/` applies: the overlay gpu.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from cifarray.backends.kubernetes.manifests import job_name
from cifarray.proxies import spare_loopback
from scripts.registry import Image, RegistryError, digest_of

Document = dict[str, Any]

K8S = Path(__file__).resolve().parents[1] / "k8s"
TABLE = K8S / "components" / "images" / "kustomization.yaml"
RENDERED = K8S / "rendered"
FLAT = K8S / "cifarray.yaml"
OVERLAYS = ("local", "gpu", "external-s3")
DEFAULT = "gpu"
SOURCES = ("base", "overlays", "components/images")
OWN_IMAGE = "cifarray"


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
    total = hashlib.sha256()
    for path in files:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return total.hexdigest()


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
