"""Checks of a store in a bucket: its contract, probed anew, and its clock."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial

from cifarray.backends.base import Check, Result, failed, passed
from cifarray.store import Store
from cifarray.store.contract import TRAITS, Contract
from cifarray.store.layout import CONTRACT_FILE
from cifarray.store.probe import probe
from cifarray.store.s3_connection import Connection
from cifarray.store.s3_errors import place, translated

MOST_SKEW_S = 30.0
"""Ages of runs are shown by clocks, which should agree; nothing is decided by them."""


@dataclass
class Bucket:
    """A store in a bucket, and what its server has answered."""

    store: Store
    at: Connection = field(init=False)
    contract: Contract = field(init=False)

    def __post_init__(self) -> None:
        self.at = Connection(self.store.uri, self.store.endpoint)


def reach(bucket: Bucket) -> Result:
    """It answers and lets its objects be listed."""
    bucket.at.check()
    return passed(f"{bucket.store.uri} at {place(bucket.at)}")


def contract(bucket: Bucket) -> Result:
    """Ask the server everything anew, and keep the answers for all later processes."""
    bucket.contract = probe(bucket.at)
    server = bucket.contract.server or "a server without a name"
    return passed(f"{server}, probed now; kept in {bucket.store.uri}/{CONTRACT_FILE}")


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
        return failed(f"it gives no time ({there})", "use another store")
    skew = (datetime.now(UTC) - moment.astimezone(UTC)).total_seconds()
    if abs(skew) > MOST_SKEW_S:
        way = "ahead of" if skew > 0 else "behind"
        return failed(
            f"this machine's clock is {abs(skew):.0f} s {way} the store's",
            "set both by NTP: heartbeats and signatures carry the time",
        )
    return passed(f"within {max(1.0, abs(skew)):.0f} s of this machine's")


REACH, CONTRACT = "store", "store: contract"
BUCKET_CHECKS: tuple[Check[Bucket], ...] = (
    Check(REACH, reach),
    Check(CONTRACT, contract, needs=REACH),
    *(
        Check(f"store: {name.replace('_', ' ')}", partial(trait, name), needs=CONTRACT)
        for name in TRAITS
    ),
    Check("store: clock", clock, needs=REACH),
)
