"""A store's contract: which features a server has, and what cifarray does about each.

`probe.py` asks a server, once; the answers are kept beside the data, where every later process
reads them in one request.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cifarray.proxies import is_loopback

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Meaning:
    """What one answer means for a server, and what cifarray does about it."""

    text: str
    remedy: str = ""
    """Empty where cifarray works with it."""
    danger: str = ""
    """What would happen to data; nothing is written to a server with this answer."""


@dataclass(frozen=True)
class Answer:
    """What a server did, and its own message if it refused."""

    value: str
    said: str = ""


OTHER_STORE = "use another store"
LOST = "data would be lost"
TWO_WRITERS = (
    "two submissions with the same name, or two attempts of one run, would overwrite each other"
)
UNSEEN = "existing runs, checkpoints and datasets would be taken for missing"
EXTENDED_ATTRIBUTES = (
    "the gateway's volume does not support extended attributes: use another storage class, or "
    "the gateway's --sidecar as described in docs/kubernetes.md"
)

TRAITS: Mapping[str, Mapping[str, Meaning]] = {
    "objects": {
        "honest": Meaning("what was written can be read back, whole and by range"),
        "wrong": Meaning("it returns different bytes than were written", OTHER_STORE, LOST),
    },
    "listing": {
        "honest": Meaning("listings show what was just written, by pages and by folders"),
        "late": Meaning("its listings lag behind what is written or deleted", OTHER_STORE, UNSEEN),
        "wrong": Meaning("its listings by pages or folders are incomplete", OTHER_STORE, UNSEEN),
        "refused": Meaning("it refuses ListObjectsV2", OTHER_STORE, UNSEEN),
    },
    "create": {
        "obeyed": Meaning("it obeys If-None-Match: *"),
        "ignored": Meaning("it ignores If-None-Match: *", OTHER_STORE, TWO_WRITERS),
        "refused": Meaning("it refuses If-None-Match: *", OTHER_STORE, TWO_WRITERS),
    },
    "replace": {
        "obeyed": Meaning("it obeys If-Match"),
        "of what is there": Meaning(
            "it it obeys If-Match for an existing object, but creates a missing one; cifarray "
            "checks first whether it exists"
        ),
        "ignored": Meaning("it ignores If-Match", OTHER_STORE, TWO_WRITERS),
        "refused": Meaning("it refuses If-Match", OTHER_STORE, TWO_WRITERS),
    },
    "addressing": {
        "both": Meaning("it accepts the bucket in the path and in the host name"),
        "path": Meaning("it accepts the bucket in the path"),
        "virtual": Meaning("it accepts the bucket only in the host name; cifarray puts it there"),
    },
    "checksums": {
        "taken": Meaning("it accepts boto3's checksum headers; cifarray sends none"),
        "refused": Meaning("it refuses boto3's checksum headers; cifarray sends none"),
        "required": Meaning("it requires checksum headers; cifarray sends them"),
    },
    "delete": {
        "done": Meaning("a deleted object is gone"),
        "ignored": Meaning(
            "a deleted object is still there", "allow deletion in this bucket, or use another one"
        ),
        "refused": Meaning(
            "it refuses to delete an object",
            "allow these credentials to delete objects: cleaning up checkpoints, `delete` and "
            "`prune` require it",
        ),
    },
    "delete_many": {
        "batch": Meaning("it deletes a thousand objects in one request"),
        "content-md5": Meaning("DeleteObjects requires Content-MD5; cifarray sends it"),
        "one by one": Meaning(
            "it does not support DeleteObjects; cifarray deletes objects one by one"
        ),
        "unknown": Meaning("not tried, since no object can be deleted"),
    },
    "multipart": {
        "taken": Meaning("it accepts multipart uploads"),
        "refused": Meaning(
            "it does not support multipart uploads; cifarray sends each object in one request"
        ),
    },
    "copy": {
        "done": Meaning("it copies objects on the server"),
        "refused": Meaning("it does not copy objects; cifarray reads and writes them"),
    },
    "metadata": {
        "kept": Meaning("content type and metadata are kept"),
        "lost": Meaning("content type and metadata of an object are lost", EXTENDED_ATTRIBUTES),
    },
}
"""Everything that is asked of a server. The first meaning of each is AWS S3's own."""


@dataclass(frozen=True)
class Contract:
    """One server's answers for one store."""

    uri: str
    endpoint: str | None
    server: str
    """What the server calls itself in its Server header."""
    probed_at: str
    answers: Mapping[str, Answer] = field(default_factory=dict)
    """By trait; empty if the credentials may not probe."""

    def value(self, trait: str) -> str:
        """The answer to one question; AWS S3's own where it is not known."""
        answer = self.answers.get(trait)
        return answer.value if answer else next(iter(TRAITS[trait]))

    def rows(self) -> Iterator[tuple[str, Answer, Meaning]]:
        """Trait, answer and its meaning, in the order of TRAITS."""
        for trait, answer in self.answers.items():
            yield trait, answer, TRAITS[trait][answer.value]

    def refusal(self) -> str | None:
        """Why nothing may be written to this server, in one sentence; None if it is safe."""
        lacks = [
            (f"{meaning.text}{f' ({answer.said})' if answer.said else ''}", meaning.danger)
            for _, answer, meaning in self.rows()
            if meaning.danger
        ]
        if not lacks:
            return None
        dangers = list(dict.fromkeys(danger for _, danger in lacks))
        return (
            f"cannot write to {self.uri} at {self.endpoint or 'AWS S3'}: "
            f"{' and '.join(text for text, _ in lacks)}, so that {' and '.join(dangers)}; "
            f"{OTHER_STORE}; `{self.command}` shows what a server supports"
        )

    @property
    def command(self) -> str:
        """The command that probes the server again and shows the table."""
        endpoint = f" --endpoint {shlex.quote(self.endpoint)}" if self.endpoint else ""
        return f"cifarray doctor --store {shlex.quote(self.uri)}{endpoint}"

    def to_record(self) -> dict[str, Any]:
        """What is kept beside the data."""
        return {
            "schema_version": SCHEMA_VERSION,
            "uri": self.uri,
            "endpoint": self.endpoint,
            "server": self.server,
            "probed_at": self.probed_at,
            "answers": {
                trait: {"value": answer.value, "said": answer.said}
                for trait, answer in self.answers.items()
            },
        }


def of_record(record: Any, uri: str, endpoint: str | None, server: str) -> Contract | None:
    """The kept contract; None if it is damaged, of another schema, or of another server or store.

    An endpoint on loopback may be a port-forward to any other, under a new port each time: such a
    record is given with the address under which it was made.
    """
    try:
        answers = {
            trait: Answer(str(kept["value"]), str(kept["said"]))
            for trait, kept in record["answers"].items()
        }
        contract = Contract(
            record["uri"], record["endpoint"], record["server"], str(record["probed_at"]), answers
        )
        known = all(answer.value in TRAITS[trait] for trait, answer in answers.items())
        if record["schema_version"] != SCHEMA_VERSION or not known or set(answers) != set(TRAITS):
            return None
    except (TypeError, KeyError, AttributeError):
        return None
    ends = contract.endpoint, endpoint
    # A port-forward has an address of this machine.
    same_place = ends[0] == ends[1] or any(isinstance(at, str) and is_loopback(at) for at in ends)
    same_server = contract.server == server and same_place
    return contract if contract.uri == uri and same_server else None
