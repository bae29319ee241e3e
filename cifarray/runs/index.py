"""Indexes (files.json and checkpoint.json), which list a folder's files and make it valid."""

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass

from cifarray.errors import KeyMissingError, StoreDamagedError
from cifarray.store import Store, is_key
from cifarray.store.keys import joined
from cifarray.store.layout import INDEX_FILE, PROOF_FILE


@dataclass(frozen=True)
class Listed:
    """What an index says of one file."""

    size_bytes: int
    sha256: str


def write_index(store: Store, prefix: str, leave_out: Collection[str] = ()) -> None:
    """Write `files.json`: sizes and sha256 of everything below `prefix`; so it has to come last.

    Files of a checkpoint keep the digest that its checkpoint.json took before they were uploaded.
    """
    start = len(prefix) + 1 if prefix else 0
    sizes = {entry.key[start:]: entry.size_bytes for entry in store.list(prefix)}
    proven = _proven(store, prefix, sizes)
    files = {}
    for name, size in sizes.items():
        if name == INDEX_FILE or name in leave_out:
            continue
        listed = proven.get(name)
        try:
            known = listed is not None and listed.size_bytes == size
            digest = listed.sha256 if listed and known else store.sha256(joined(prefix, name))
        except KeyMissingError:  # deleted since the listing, as Ray does with old checkpoints
            continue
        files[name] = {"size_bytes": size, "sha256": digest}
    store.write_json(joined(prefix, INDEX_FILE), {"schema_version": 1, "files": files})


def _proven(store: Store, prefix: str, names: Iterable[str]) -> dict[str, Listed]:
    """What the checkpoints below a prefix list of their own files."""
    proven: dict[str, Listed] = {}
    for name in names:
        folder, _, last = name.rpartition("/")
        if last == PROOF_FILE:
            with suppress(KeyMissingError, StoreDamagedError):
                listed = read_index(store, joined(prefix, folder), PROOF_FILE)
                proven |= {joined(folder, inner): each for inner, each in listed.items()}
    return proven


def read_index(store: Store, prefix: str, index: str = INDEX_FILE) -> dict[str, Listed]:
    """What `files.json` or `checkpoint.json` of a folder lists.

    Raises: KeyMissingError without one, StoreDamagedError for one that is damaged.
    """
    key = joined(prefix, index)
    content = store.read_json(key)
    try:
        listed = {
            name: Listed(int(entry["size_bytes"]), str(entry["sha256"]))
            for name, entry in content["files"].items()
        }
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
        raise StoreDamagedError(
            f"{key} in {store.uri} is damaged: it contains no list of files"
        ) from error
    for name in listed:
        if not is_key(name):
            raise StoreDamagedError(f"{key} in {store.uri} is damaged: it lists {name!r}")
    return listed


def check_index(store: Store, prefix: str, deep: bool = True, index: str = INDEX_FILE) -> list[str]:
    """What differs from the index: one sentence per file; nothing means that the folder is valid.

    `deep` compares bytes by sha256, else only that every file is there with its size. With
    `index="checkpoint.json"` it checks a checkpoint's folder. Works on a pulled copy too.
    """
    try:
        listed = read_index(store, prefix, index)
    except KeyMissingError:
        return [f"{joined(prefix, index)} is missing"]
    except StoreDamagedError as error:
        return [str(error)]
    start = len(prefix) + 1 if prefix else 0
    sizes = {entry.key[start:]: entry.size_bytes for entry in store.list(prefix)}
    return [
        problem
        for name, expected in sorted(listed.items())
        if (problem := _problem(store, joined(prefix, name), sizes.get(name), expected, deep))
    ]


def _problem(store: Store, key: str, size: int | None, expected: Listed, deep: bool) -> str | None:
    if size is None:
        return f"{key} is missing"
    if size != expected.size_bytes:
        return f"{key} has {size} bytes instead of {expected.size_bytes}"
    if deep and store.sha256(key) != expected.sha256:
        return f"{key} differs from what was written (sha256)"
    return None
