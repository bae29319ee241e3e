"""What a source holds and its dataset does not, counted by reason.

Readers report every file, row and column that they skip to one counter; the
manifest keeps what it counted.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from cifarray.errors import ArchiveError
from cifarray.spec.record import Record

MOST_LOST = 0.01
"""The share of a class that may be left out without `--accept-loss`."""
MOST_ENTRIES = 5_000
"""Entries that are distinguished: names in an archive are a stranger's, and may be without end."""
MOST_TEXT = 120
LOST = ("image",)
"""Kinds that are counted against a class."""
INCOMPLETE = ("image", "split", "absent")
"""Kinds that make a dataset less than its source."""

Kind = Literal["image", "split", "absent", "class", "column", "frame", "file", "litter"]
"""An image or row of a split in use; one of no split or of one that is not used; what is listed or
numbered and not there; a class without images; a column; frames after the first of an image; a file
that is not an image; a hidden or system file, a readme or a link (`litter` in manifests)."""
KIND_WORDS: Mapping[Kind, tuple[str, str]] = {
    "image": ("image", "images"),
    "split": ("image", "images"),
    "absent": ("missing", "missing"),
    "class": ("class", "classes"),
    "column": ("column", "columns"),
    "frame": ("image", "images"),
    "file": ("file", "files"),
    "litter": ("file", "files"),
}


class LeftOut(Record):
    """How often one thing was left out for one reason."""

    kind: Kind
    reason: str = Field(min_length=1, max_length=200)
    split: str | None = None
    """The source's name of the split; None if there is none."""
    class_name: str | None = None
    count: Annotated[int, Field(ge=1)]
    example: str = ""
    """The first of them."""


class LeftOutCounter:
    """Counts what readers leave out."""

    def __init__(self, *, accept_loss: bool = False) -> None:
        self.accept_loss = accept_loss
        self._counts: Counter[tuple[Kind, str, str | None, str | None]] = Counter()
        self._examples: dict[tuple[Kind, str, str | None, str | None], str] = {}

    def add(
        self,
        kind: Kind,
        reason: str,
        *,
        split: str | None = None,
        class_name: str | None = None,
        count: int = 1,
        example: str = "",
    ) -> None:
        """So many were left out for this reason."""
        if count < 1:
            return
        key = (kind, _text(reason), _named(split), _named(class_name))
        if key not in self._counts and len(self._counts) >= MOST_ENTRIES:
            key = (
                kind,
                "other reasons",
                _named(split),
                _named(class_name) if kind in LOST else None,
            )
        self._counts[key] += count
        self._examples.setdefault(key, _text(example))

    def entries(self) -> tuple[LeftOut, ...]:
        """What was counted: lost images first, then by reason, split and class."""
        order = list(KIND_WORDS)
        keys = sorted(
            self._counts, key=lambda key: (order.index(key[0]), *(part or "" for part in key[1:]))
        )
        return tuple(
            LeftOut(
                kind=key[0],
                reason=key[1],
                split=key[2],
                class_name=key[3],
                count=self._counts[key],
                example=self._examples[key],
            )
            for key in keys
        )

    def images(self) -> int:
        """Images of the splits in use that were left out."""
        return sum(count for key, count in self._counts.items() if key[0] in LOST)

    def incomplete(self) -> bool:
        """Whether the source, or what it lists, holds images that the dataset does not."""
        return any(key[0] in INCOMPLETE for key in self._counts)

    def refuse_losses(self, archive: str, kept: Mapping[str, Mapping[str, int]]) -> None:
        """Refuse where more than MOST_LOST of a class, or of a split, is left out unasked.

        `kept` counts the rows of each class of each split. Raises: ArchiveError.
        """
        if self.accept_loss:
            return
        lost: Counter[tuple[str, str | None]] = Counter()
        for (kind, _, split, class_name), count in self._counts.items():
            if kind in LOST and split is not None:
                lost[split, class_name] += count
        shares = {}
        for (split, class_name), count in lost.items():
            rows = kept.get(split, {})
            whole = count + (sum(rows.values()) if class_name is None else rows.get(class_name, 0))
            if count > MOST_LOST * whole:
                shares[split, class_name] = (count / whole, count, whole)
        if not shares:
            return
        (split, class_name), (_, count, whole) = max(
            shares.items(), key=lambda item: (item[1][0], item[1][1])
        )
        what = f"class {class_name[:80]!r} in {split}" if class_name else f"split {split}"
        more = f", and more than 1 % of {len(shares) - 1} more" * (len(shares) > 1)
        raise ArchiveError(
            f"{archive}: {count:,} of {whole:,} images of {what} would be left out{more} "
            f"({self._reasons(split, class_name)}); fix the archive, or accept the loss with "
            "--accept-loss"
        )

    def _reasons(self, split: str, class_name: str | None) -> str:
        found = {
            key[1]: self._examples[key]
            for key in sorted(self._counts, key=lambda key: -self._counts[key])
            if key[0] in LOST and key[2:] == (split, class_name)
        }
        texts = [
            reason + f", such as {example}" * bool(example) for reason, example in found.items()
        ]
        return "; ".join(texts[:3]) + f"; {len(texts) - 3} more reasons" * (len(texts) > 3)


def summed(entries: Iterable[LeftOut]) -> list[dict[str, Any]]:
    """The entries over all classes, for a table: kind, reason, split, count, classes, example."""
    rows: dict[tuple[str, str, str | None], dict[str, Any]] = {}
    for entry in entries:
        row = rows.setdefault(
            (entry.kind, entry.reason, entry.split),
            {
                "kind": entry.kind,
                "reason": entry.reason,
                "split": entry.split,
                "count": 0,
                "classes": 0,
                "example": entry.example,
            },
        )
        row["count"] += entry.count
        row["classes"] += entry.class_name is not None
    return list(rows.values())


def as_json(entries: Iterable[LeftOut] | None) -> list[dict[str, Any]] | None:
    """The entries for `--json`; None if nothing was counted."""
    return None if entries is None else [entry.model_dump(mode="json") for entry in entries]


def in_words(row: Mapping[str, Any]) -> str:
    """A row of `summed` in words, as in '3 files of train: not an image: .txt (a/b.txt)'."""
    one, many = KIND_WORDS[row["kind"]]
    of = f" of {row['split']}" * bool(row["split"])
    if row["kind"] == "column":
        return str(row["reason"]).replace(" left out:", "") + of
    classes = f" in {row['classes']} classes" * (row["classes"] > 1 and one != "class")
    example = f" ({row['example']})" * bool(row["example"])
    what = one if row["count"] == 1 else many
    return f"{row['count']:,} {what}{of}{classes}: {row['reason']}{example}"


def _named(name: str | None) -> str | None:
    return None if name is None else _text(name)


def _text(text: str) -> str:
    """At most MOST_TEXT characters, of which each shows."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return shown if len(shown) <= MOST_TEXT else f"...{shown[3 - MOST_TEXT :]}"
