"""The contract of a bucket's server: kept beside the data, and probed where none is kept."""

import dataclasses
import threading

from botocore.exceptions import ClientError

from cifarray.errors import StoreAwayError, StoreError, StoreRefusedError
from cifarray.proxies import is_loopback
from cifarray.spec.bounds import parse_json
from cifarray.store.contract import Contract, of_record
from cifarray.store.keys import joined, to_json
from cifarray.store.layout import CONTRACT_FILE
from cifarray.store.probe import Probe, server_name
from cifarray.store.s3_connection import Connection
from cifarray.store.s3_errors import LOST_RACE, error_code, is_denied, translated

_known: dict[tuple[str, str | None], Contract] = {}
_lock = threading.Lock()


def agreed(at: Connection) -> Contract:
    """The contract of the store: kept beside the data, or else probed now and kept.

    What was refused before is asked again, since a server may have been replaced. Credentials that
    may not probe get a contract without answers, and the server's own word when they write.

    Raises: StoreRefusedError, in one sentence, if the server is not safe to write to; StoreError.
    """
    with _lock:
        contract = _known.get((at.uri, at.endpoint)) or kept(at)
        if contract is None or contract.refusal() or not _still_holds(at, contract):
            try:
                contract = probe(at)
            except StoreRefusedError as error:
                if not is_denied(error.__cause__):
                    raise
                return Contract(at.uri, at.endpoint, "", "")
        if (refusal := contract.refusal()) is not None:
            raise StoreRefusedError(refusal)
        _adapt(at, contract)
        _known[at.uri, at.endpoint] = contract
        return contract


def kept(at: Connection) -> Contract | None:
    """The contract that lies beside the data, by one request; None if none can be used.

    Raises: StoreAwayError.
    """
    try:
        with translated(at):
            answer = at.client.get_object(Bucket=at.bucket, Key=_record_name(at))
            record = parse_json(answer["Body"].read())
    except StoreAwayError:
        raise
    except (StoreError, ValueError):
        return None
    contract = of_record(record, at.uri, at.endpoint, server_name(answer))
    if contract is not None:
        _adapt(at, contract)
    return contract


def _still_holds(at: Connection, contract: Contract) -> bool:
    """Whether what was probed under another address is as safe under this one.

    A port-forward has a new address each time, and any server may stand behind it: two writes of
    the same record, neither of which may take place, tell at once.
    """
    if contract.endpoint == at.endpoint:
        return True
    record = to_json(contract.to_record())
    for condition in ({"IfNoneMatch": "*"}, {"IfMatch": '"cifarray"'}):
        try:
            with translated(at):
                at.client.put_object(
                    Bucket=at.bucket, Key=_record_name(at), Body=record, **condition
                )
        except StoreAwayError:
            raise
        except StoreError as error:
            cause = error.__cause__
            if not isinstance(cause, ClientError) or error_code(cause) not in LOST_RACE:
                return False
        else:
            return False
    if not is_loopback(at.endpoint):  # what all others use: they need not ask so
        _keep(at, dataclasses.replace(contract, endpoint=at.endpoint))
    return True


def probe(at: Connection) -> Contract:
    """Ask the server everything again, remove what that wrote, and keep the answers.

    Raises: StoreError.
    """
    contract = Probe(at).contract()
    _keep(at, contract)
    return contract


def _keep(at: Connection, contract: Contract) -> None:
    record = to_json(contract.to_record())
    with translated(at):
        at.client.put_object(Bucket=at.bucket, Key=_record_name(at), Body=record)


def _adapt(at: Connection, contract: Contract) -> None:
    if contract.value("checksums") == "required":
        at.send_checksums()


def _record_name(at: Connection) -> str:
    return joined(at.prefix, CONTRACT_FILE)
