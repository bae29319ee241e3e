"""The command that lists datasets: the catalog's, and what else is prepared in the store."""

from typing import TYPE_CHECKING, Any

from cifarray.cli import output
from cifarray.cli.data import described, images_of
from cifarray.cli.options import ClusterOption, EndpointOption, JsonOption, StoreOption, open_store

if TYPE_CHECKING:
    from cifarray.data.catalog import DatasetEntry
    from cifarray.data.manifest import Manifest

COLUMNS = ("name", "images", "classes", "train", "test", "download", "prepared")


def datasets(
    store: StoreOption = None,
    endpoint: EndpointOption = None,
    cluster: ClusterOption = "local",
    json: JsonOption = False,
) -> None:
    """List the datasets that cifarray knows, and which of them are prepared in the store.

    Example: cifarray datasets --store s3://bucket/cifarray
    """
    from cifarray.data.catalog import DATASETS
    from cifarray.data.manifest import latest_digest, load_manifest
    from cifarray.errors import DatasetError
    from cifarray.store import layout

    opened = open_store(store, endpoint, cluster)
    names = [*DATASETS, *sorted(set(opened.folders(layout.DATASETS)) - set(DATASETS))]
    found = []
    for name in names:
        try:
            manifest = load_manifest(opened, name) if latest_digest(opened, name) else None
        except DatasetError as error:  # the others are there all the same
            output.warn(str(error))
            manifest = None
        if name in DATASETS:
            known = _published(DATASETS[name])
        elif manifest is not None:
            known = _own(manifest)
        else:  # half of a dataset, which is none
            continue
        found.append(known | {"prepared": described(opened, manifest) if manifest else None})
    if json:
        output.print_json(found)
    else:
        output.print_table(COLUMNS, [_listed(known) for known in found])


def _published(entry: "DatasetEntry") -> dict[str, Any]:
    return {
        "name": entry.name,
        "title": entry.title,
        "shape": list(entry.shape) if entry.shape else None,
        "classes": len(entry.classes),
        "coarse_classes": len(entry.coarse_classes),
        "published_rows": dict(entry.rows),
        "download_bytes": sum(file.size_bytes for file in entry.archives),
        "homepage": entry.homepage,
    }


def _own(manifest: "Manifest") -> dict[str, Any]:
    """The same of images of the user's own, which nobody has published."""
    return {
        "name": manifest.name,
        "title": manifest.title,
        "shape": list(manifest.shape) if manifest.shape else None,
        "classes": len(manifest.classes),
        "coarse_classes": len(manifest.coarse_classes),
        "published_rows": {},
        "download_bytes": 0,
        "homepage": None,
    }


def _listed(known: dict[str, Any]) -> list[object]:
    rows, prepared = known["published_rows"], known["prepared"]
    there = None
    if prepared:
        held = " + ".join(f"{count:,}" for count in prepared["rows"].values())
        there = f"{prepared['digest'][:12]} ({held} rows)"
    download = known["download_bytes"]
    return [
        known["name"],
        images_of(known["shape"]),
        known["classes"],
        f"{rows['train']:,}" if rows else None,
        f"{rows['test']:,}" if rows else None,
        output.size(download) if download else None,
        there,
    ]
