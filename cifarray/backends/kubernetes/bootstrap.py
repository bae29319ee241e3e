"""What the two Jobs of k8s/base/bootstrap.yaml do: make the store's keys once, and its bucket.

    python -m cifarray.backends.kubernetes.bootstrap {secrets,bucket}

Both may run again at any time; they then change nothing.
"""

import argparse
import json
import os
import secrets
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from cifarray.backends.kubernetes.access import decoded
from cifarray.backends.kubernetes.client import AlreadyExistsError, Kube
from cifarray.errors import CifarrayError, StoreAwayError, StoreRefusedError
from cifarray.timers import Deadline

ROOT, RUNS = "cifarray-store-root", "cifarray-store"
ROOT_NAME, RUNS_NAME = "cifarray-root", "cifarray"
USERS_FILE = "users.json"
"""How the gateway's folder of accounts calls its list of users."""
GATEWAY_PATIENCE_S = 120.0


def make_secrets(kube: Kube) -> None:
    """Create the root's Secret, which includes the runs' key, and then the runs' Secret from it."""
    root = _read(kube, ROOT) or _make(kube, ROOT, root_secret())
    users = json.loads(root[USERS_FILE])["accessAccounts"]
    if _read(kube, RUNS) is None:
        _make(kube, RUNS, runs_secret(users[RUNS_NAME]["secret"]))


def root_secret() -> dict[str, str]:
    """Fresh keys of the gateway's root, and its list of users: one, for the runs."""
    user = {
        "access": RUNS_NAME,
        "secret": secrets.token_urlsafe(32),
        "role": "user",
        "userID": 0,
        "groupID": 0,
        "projectID": 0,
    }
    return {
        "ROOT_ACCESS_KEY": ROOT_NAME,
        "ROOT_SECRET_KEY": secrets.token_urlsafe(32),
        USERS_FILE: json.dumps({"accessAccounts": {RUNS_NAME: user}}),
    }


def runs_secret(secret: str) -> dict[str, str]:
    """What runs use: the store's keys under AWS's own names, and their Ray clusters' token."""
    return {
        "AWS_ACCESS_KEY_ID": RUNS_NAME,
        "AWS_SECRET_ACCESS_KEY": secret,
        "auth_token": secrets.token_urlsafe(32),
    }


def make_bucket(uri: str, endpoint: str, owner: str) -> None:
    """Make the store's bucket and give it to the runs' user. Raises: StoreError."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    bucket = uri.removeprefix("s3://").partition("/")[0]
    settings = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
    client = boto3.client("s3", endpoint_url=endpoint, config=settings)
    away: BotoCoreError | None = None
    for _ in Deadline(GATEWAY_PATIENCE_S).looks(2.0):
        try:
            client.create_bucket(Bucket=bucket)
            print(f"created bucket {bucket}", flush=True)
            break
        except ClientError as error:
            if error.response["Error"]["Code"] in (
                "BucketAlreadyOwnedByYou",
                "BucketAlreadyExists",
            ):
                print(f"bucket {bucket} exists", flush=True)
                break
            raise StoreRefusedError(
                f"bucket {bucket} cannot be created at {endpoint}: {error}"
            ) from error
        except BotoCoreError as error:  # the gateway may still be starting
            away = error
    else:
        raise StoreAwayError(f"the store at {endpoint} does not answer: {away}") from away
    _give(endpoint, bucket, owner)


def _give(endpoint: str, bucket: str, owner: str) -> None:
    """The gateway's own call for a bucket's owner, signed as S3 requests are."""
    import boto3
    import urllib3
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest

    query = urlencode({"bucket": bucket, "owner": owner})
    request = AWSRequest("PATCH", f"{endpoint}/change-bucket-owner/?{query}")
    session = boto3.session.Session()
    region = session.region_name or "us-east-1"
    S3SigV4Auth(session.get_credentials().get_frozen_credentials(), "s3", region).add_auth(request)
    answer = urllib3.request("PATCH", request.url, headers=dict(request.headers.items()))
    if answer.status >= 300:
        text = answer.data.decode("utf-8", "replace")[:300]
        raise StoreRefusedError(
            f"bucket {bucket} cannot be given to {owner}: {answer.status} {text}"
        )
    print(f"bucket {bucket} belongs to {owner}", flush=True)


def _read(kube: Kube, name: str) -> dict[str, str] | None:
    found = kube.get("Secret", name)
    return None if found is None else decoded(found)


def _make(kube: Kube, name: str, values: Mapping[str, str]) -> dict[str, str]:
    manifest: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "cifarray"}},
        "type": "Opaque",
        "stringData": dict(values),
    }
    try:
        kube.create(manifest)
        print(f"created Secret {name}", flush=True)
        return dict(values)
    except AlreadyExistsError:  # another Job created it first
        made = _read(kube, name)
        if made is None:
            raise
        return made


def main() -> int:
    """Do one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("secrets", "bucket"))
    try:
        if parser.parse_args().what == "secrets":
            make_secrets(Kube.inside())
        else:
            given = os.environ
            make_bucket(
                given["CIFARRAY_STORE"],
                given["AWS_ENDPOINT_URL_S3"],
                given["CIFARRAY_BUCKET_OWNER"],
            )
    except CifarrayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
