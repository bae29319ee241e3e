"""Checks of a store: a bucket's contract, probed again, and its clock; a directory's use."""

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path

from cifarray.backends.base import Check, Result, failed, passed
from cifarray.backends.local.checks import existing
from cifarray.errors import StoreError
from cifarray.store import Store
from cifarray.store.contract import TRAITS, Contract
from cifarray.store.layout import CONTRACT_FILE
from cifarray.store.s3_connection import Connection
from cifarray.store.s3_contract import probe
from cifarray.store.s3_errors import place, translated

REACH, CONTRACT, CLOCK = "store", "store: contract", "store: clock"
MOST_SKEW_S = 30.0
"""Ages of runs are shown by clocks, which should agree; nothing is decided by them."""


def trait_name(name: str) -> str:
    """Name of the check of one answer of the contract."""
    return f"store: {name.replace('_', ' ')}"


@dataclass
class Bucket:
    """A store in a bucket, and what its server has answered."""

    store: Store
    at: Connection = field(init=False)
    contract: Contract = field(init=False)

    def __post_init__(self) -> None:
        self.at = Connection(self.store.uri, self.store.endpoint, self.store.access)


def reach(bucket: Bucket) -> Result:
    """It answers and lets its objects be listed."""
    bucket.at.check()
    return passed(f"{bucket.store.uri} at {place(bucket.at)}")


def contract(bucket: Bucket) -> Result:
    """Ask the server everything again, and keep the answers for all later processes."""
    bucket.contract = probe(bucket.at)
    server = bucket.contract.server or "a server without a name"
    return passed(f"{server}, probed now; recorded in {bucket.store.uri}/{CONTRACT_FILE}")


def trait(name: str, bucket: Bucket) -> Result:
    """One answer: what it means for cifarray."""
    answer = bucket.contract.answers[name]
    meaning = TRAITS[name][answer.value]
    finding = f"{meaning.text} ({answer.said})" if answer.said else meaning.text
    if meaning.danger:
        finding = f"{finding}, so that {meaning.danger}"
    return failed(finding, meaning.remedy) if meaning.remedy else passed(finding)


def clock(bucket: Bucket) -> Result:
    """This machine's clock and the server's agree."""
    with translated(bucket.at):
        answer = bucket.at.client.head_bucket(Bucket=bucket.at.bucket)
    there = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    try:
        moment = parsedate_to_datetime(there)
    except (TypeError, ValueError):
        return failed(f"it sends no time ({there})", "use another store")
    skew = (datetime.now(UTC) - moment.astimezone(UTC)).total_seconds()
    if abs(skew) > MOST_SKEW_S:
        way = "ahead of" if skew > 0 else "behind"
        return failed(
            f"this machine's clock is {abs(skew):.0f} s {way} the store's",
            "synchronize both clocks with NTP: heartbeats and signatures depend on them",
        )
    return passed(f"within {max(1.0, abs(skew)):.0f} s of this machine's")


def directory(store: Store) -> Result:
    """A store in a directory takes objects, gives them back and lets one writer win."""
    root = Path(store.uri)
    if not root.exists():
        parent = existing(root)
        if not os.access(parent, os.W_OK):
            return failed(
                f"{root} cannot be created in {parent}", "name another folder in CIFARRAY_STORE"
            )
        return passed(f"{root} is created when something is first stored")
    key = f"doctor/{secrets.token_hex(6)}/object"
    try:
        store.check()
        first = store.create(key, b"first")
        if first is None or store.create(key, b"second") is not None:
            return failed("two writers could both win", "use a directory on a local disk")
        if store.replace(key, b"third", first) is None or store.read(key) != b"third":
            return failed(
                "it returns different bytes than were written", "use a directory on a local disk"
            )
    finally:
        with suppress(StoreError):
            store.delete_folder(key.rpartition("/")[0])
    return passed(f"{root}: writing, reading, deleting and exclusive creation work")


def store_checks(store: Store) -> list[Check]:
    """Those that fit a store; the contract of a bucket's server is probed again."""
    if not store.uri.startswith("s3://"):
        return [Check(REACH, partial(directory, store))]
    bucket = Bucket(store)
    return [
        Check(REACH, partial(reach, bucket)),
        Check(CONTRACT, partial(contract, bucket), needs=REACH),
        *(Check(trait_name(name), partial(trait, name, bucket), needs=CONTRACT) for name in TRAITS),
        Check(CLOCK, partial(clock, bucket), needs=REACH),
    ]


BUCKET_CHECKS = (REACH, CONTRACT, *map(trait_name, TRAITS), CLOCK)
"""Names of the checks of a bucket."""
