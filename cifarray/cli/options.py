"""Options that several commands share, and the store that they name."""

import os
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from cifarray.cli import output
from cifarray.cli.output import console, print_json

if TYPE_CHECKING:
    from cifarray.spec.profile import Profile
    from cifarray.store import Store

__all__ = [
    "ClusterOption",
    "EndpointOption",
    "JsonOption",
    "QuietOption",
    "RunArgument",
    "RunsArgument",
    "StoreOption",
    "VerboseOption",
    "YesOption",
    "console",
    "named_cluster",
    "open_store",
    "print_json",
    "store_words",
]


_through_clusters: "list[tuple[Store, str]]" = []
"""Stores that this command reaches through a cluster, and how another command does so too."""


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
        help="Local directory or s3://bucket/prefix  [default: $CIFARRAY_STORE, or the profile's "
        "store]",
        show_default=False,
    ),
]
EndpointOption = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        metavar="URL",
        help="Address of an S3-compatible server  [default: $AWS_ENDPOINT_URL, or the profile's "
        "endpoint]",
        show_default=False,
    ),
]
ClusterOption = Annotated[
    str,
    typer.Option("--cluster", metavar="PROFILE", help="Cluster profile, or a path to a YAML file."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
VerboseOption = Annotated[
    bool, typer.Option("-v", "--verbose", help="Print more.", callback=_verbose)
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only data and errors.", callback=_quiet)
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, or a unique beginning of it.")
]
RunsArgument = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Ids of runs, or unique beginnings of them.")
]


def open_store(store: str | None, endpoint: str | None, cluster: str = "local") -> "Store":
    """The store that flag, environment or cluster profile names, in this order.

    Nothing is touched, but a profile on Kubernetes may require a port-forward to its store.

    Raises: JobError for an unknown profile, StoreError for a URI of an unknown kind.
    """
    from cifarray.spec.load import load_profile
    from cifarray.store import Access, Store
    from cifarray.store.address import endpoint_of_environment, region_of_environment

    profile = load_profile(cluster)
    if profile.store_is_inside:
        return _kubernetes_store(profile, cluster, store, endpoint)
    uri = store or os.environ.get("CIFARRAY_STORE") or profile.store.uri
    endpoint = endpoint or endpoint_of_environment() or profile.store.endpoint
    return Store.open(uri, endpoint, Access(region_of_environment() or profile.store.region))


def named_cluster(cluster: str) -> "Profile":
    """The profile that --cluster names. Raises: JobError for an unknown one."""
    from cifarray.spec.load import load_profile

    return load_profile(cluster)


def _kubernetes_store(
    profile: "Profile", cluster: str, uri: str | None, endpoint: str | None
) -> "Store":
    """The store of a profile on Kubernetes: the shell's store variables do not apply to it.

    Raises: ClusterError, StoreError.
    """
    from cifarray.backends.kubernetes.access import for_this_command, reached_store
    from cifarray.backends.kubernetes.backend import open_cluster
    from cifarray.store import Access, Store

    if endpoint is not None:
        return Store.open(uri or profile.store.uri, endpoint, Access(profile.store.region))
    reached = for_this_command(reached_store(profile, open_cluster(profile).kube))
    opened = Store.open(uri or reached.uri, reached.endpoint, reached.access)
    _through_clusters.append((opened, f" --cluster {shlex.quote(cluster)}"))
    return opened


def store_words(store: "Store") -> str:
    """What a command needs so that it uses this store; empty for the one it uses anyway."""
    for opened, words in _through_clusters:
        if opened == store:
            return words
    if store == open_store(None, None):
        return ""
    endpoint = f" --endpoint {shlex.quote(store.endpoint)}" if store.endpoint else ""
    return f" --store {shlex.quote(store.uri)}{endpoint}"
