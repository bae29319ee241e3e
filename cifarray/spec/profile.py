"""A cluster profile: where a job runs and what a worker gets there, never which model."""

from typing import Literal

from pydantic import Field

from cifarray.spec.record import Record


class StoreSpec(Record):
    """The root that holds everything: a local directory or s3://bucket/prefix."""

    uri: str = "./store"
    endpoint: str | None = None
    """Address of an S3-compatible server; None means AWS."""


class Profile(Record):
    """Where a job runs: how many workers, what each gets, and how the cluster is reached."""

    name: str
    kind: Literal["local"]
    description: str = ""
    workers: int = Field(default=2, ge=1)
    """The most Train workers that fit; a run takes all of them unless told otherwise."""
    cpus_per_worker: float = Field(default=0.5, ge=0.0)
    """Logical CPUs that Ray reserves. Leave one free: Ray Data reads on it."""
    gpus_per_worker: float = Field(default=0.0, ge=0.0)
    threads_per_worker: int | None = Field(default=None, ge=1)
    """torch's threads in each worker; None: cores of the node / workers on it."""
    cache_bytes_per_worker: int = Field(default=4 << 30, ge=0)
    """A shard up to this size stays on the worker's device; a larger one streams each epoch."""
    max_failures: int = Field(default=3, ge=0)
    """How often a dead worker is replaced before the run fails."""
    worker_start_timeout_s: float = Field(default=300.0, gt=0.0)
    store: StoreSpec = StoreSpec()
    address: str | None = None
    """GCS address (host:port) of a node that the user started; None: cifarray starts its own."""
    dashboard: str | None = None
    """Dashboard and Jobs API of that node, as http://host:port."""
