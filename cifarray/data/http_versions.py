"""Which version of a remote file a local one is: the server's own tags, kept beside it."""

import json
from collections.abc import Mapping
from pathlib import Path

from cifarray.spec.bounds import parse_json

TAGS = ("ETag", "Last-Modified")


def notes_of(path: Path) -> Path:
    """Where the tags of a downloaded file, or of a part of one, are kept."""
    return path.with_name(f"{path.name}.json")


def note(path: Path, headers: Mapping[str, str | None]) -> None:
    """Keep the tags of an answer; weak ones are left out, since no transfer resumes from them."""
    tags = {name: headers.get(name) or "" for name in TAGS}
    strong = {name: tag for name, tag in tags.items() if tag and not tag.startswith("W/")}
    notes_of(path).write_text(json.dumps(strong), encoding="utf-8")


def read_notes(path: Path) -> dict[str, str]:
    """The kept tags; none where nothing sound is kept."""
    try:
        kept = parse_json(notes_of(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    tags = kept if isinstance(kept, dict) else {}
    found = {name: tags.get(name) for name in TAGS}
    return {name: tag for name, tag in found.items() if isinstance(tag, str) and tag.isprintable()}
