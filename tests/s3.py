"""An S3 server over HTTP for tests: moto's on a free port, or the one CIFARRAY_TEST_S3 names."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

import boto3
from botocore.config import Config

from cifarray.store import Store

SERVE = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address=sys.argv[1], port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
STANDARD_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@dataclass(frozen=True)
class S3Server:
    """Where a server answers, and keys that it takes."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket_prefix: str = field(default_factory=lambda: f"cifarray-{secrets.token_hex(3)}")

    @property
    def environment(self) -> dict[str, str]:
        """The standard AWS variables with which every client finds this server, and no other."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def new_bucket(self) -> str:
        """Make an empty bucket and return its name."""
        name = f"{self.bucket_prefix}-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=name)
        return name

    def delete_buckets(self) -> None:
        """Remove every bucket that this session has made."""
        for bucket in self.client().list_buckets()["Buckets"]:
            if bucket["Name"].startswith(f"{self.bucket_prefix}-"):
                Store.open(f"s3://{bucket['Name']}", self.endpoint).delete_folder("")
                self.client().delete_bucket(Bucket=bucket["Name"])

    def new_store(self, prefix: str = "stores/one") -> Store:
        """A store in a bucket of its own; `environment` has to be set for it to be used."""
        return Store.open(f"s3://{self.new_bucket()}/{prefix}", self.endpoint)

    @cache  # noqa: B019 (a server lives as long as the session)
    def client(self, service: str = "s3"):  # type: ignore[no-untyped-def]
        """A boto3 client with this server's keys."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )


@contextmanager
def serve_s3() -> Iterator[S3Server]:
    """The server that CIFARRAY_TEST_S3 names, with the keys in the environment, or moto's."""
    if named := os.environ.get("CIFARRAY_TEST_S3"):
        key, secret = (os.environ[name] for name in STANDARD_VARIABLES[:2])
        server = S3Server(named.rstrip("/"), key, secret)
        yield server
        server.delete_buckets()
        return
    with serve_moto() as endpoint:
        key, secret = (os.environ.get(name, "tests") for name in STANDARD_VARIABLES[:2])
        yield S3Server(endpoint, key, secret)


@contextmanager
def serve_s3_with_credentials() -> Iterator[S3Server]:
    """A server that refuses wrong keys: of moto one that has been given a user first."""
    if os.environ.get("CIFARRAY_TEST_S3"):
        with serve_s3() as server:
            yield server
        return
    with serve_moto(INITIAL_NO_AUTH_ACTION_COUNT="3") as endpoint:
        iam = S3Server(endpoint, "bootstrap", "bootstrap").client("iam")
        iam.create_user(UserName="owner")
        iam.put_user_policy(UserName="owner", PolicyName="all", PolicyDocument=ALLOW_ALL)
        key = iam.create_access_key(UserName="owner")["AccessKey"]
        yield S3Server(endpoint, key["AccessKeyId"], key["SecretAccessKey"])


ALLOW_ALL = """{
  "Version": "2012-10-17",
  "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]
}"""


@contextmanager
def serve_moto(host: str = "127.0.0.1", **environment: str) -> Iterator[str]:
    """Run moto's server in a process of its own, which ends with this one; yields its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, host],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdin and process.stdout
    try:
        port = process.stdout.readline().strip()
        assert port, "moto's server did not start; is moto[server] installed?"
        yield f"http://{host}:{port}"
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
