"""Options that several commands share, and the store that they name."""

import os
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from cifarray.cli import output
from cifarray.cli.output import console, print_json

if TYPE_CHECKING:
    from cifarray.store import Store

__all__ = [
    "ClusterOption",
    "EndpointOption",
    "JsonOption",
    "QuietOption",
    "RunArgument",
    "StoreOption",
    "VerboseOption",
    "YesOption",
    "console",
    "open_store",
    "print_json",
    "store_words",
]


def _quiet(value: bool) -> bool:
    if value:
        output.set_level(output.QUIET)
    return value


def _verbose(value: bool) -> bool:
    if value:
        output.set_level(output.VERBOSE)
    return value


StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URI",
        help="Local directory or s3://bucket/prefix  [default: $CIFARRAY_STORE, or the profile's]",
        show_default=False,
    ),
]
EndpointOption = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        metavar="URL",
        help="Address of an S3-compatible server  [default: $AWS_ENDPOINT_URL, or the profile's]",
        show_default=False,
    ),
]
ClusterOption = Annotated[
    str,
    typer.Option("--cluster", metavar="PROFILE", help="Cluster profile, or a path to a YAML file."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
VerboseOption = Annotated[
    bool, typer.Option("-v", "--verbose", help="Say more.", callback=_verbose)
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print data and errors only.", callback=_quiet)
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, or enough of its start.")
]


def open_store(store: str | None, endpoint: str | None, cluster: str = "local") -> "Store":
    """The store that flag, environment or cluster profile names, in this order; touches nothing.

    Raises: JobError for an unknown profile, StoreError for a URI of an unknown kind.
    """
    from cifarray.spec.load import load_profile
    from cifarray.store import Store

    profile = load_profile(cluster)
    uri = store or os.environ.get("CIFARRAY_STORE") or profile.store.uri
    environment = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return Store.open(uri, endpoint or environment or profile.store.endpoint)


def store_words(store: "Store") -> str:
    """What a command needs so that it uses this store; empty for the one it uses anyway."""
    if store == open_store(None, None):
        return ""
    endpoint = f" --endpoint {shlex.quote(store.endpoint)}" if store.endpoint else ""
    return f" --store {shlex.quote(store.uri)}{endpoint}"
