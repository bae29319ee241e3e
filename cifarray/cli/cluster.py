"""Commands on clusters: the Ray node of this machine, or a namespace of a Kubernetes cluster."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifarray.cli import kubernetes, output
from cifarray.cli.options import ClusterOption, JsonOption, QuietOption, VerboseOption, YesOption
from cifarray.cli.stopping import stop_jobs
from cifarray.errors import InputError

if TYPE_CHECKING:
    from cifarray.backends.choice import Cluster
    from cifarray.spec.profile import Profile

OverlayOption = Annotated[
    str | None,
    typer.Option(
        "--overlay",
        metavar="NAME",
        help="Which of the manifests that come with cifarray: gpu, local or external-s3.",
        show_default="gpu",
    ),
]
ImageOption = Annotated[
    str | None,
    typer.Option("--image", help="Image to run instead of the one rendered.", show_default=False),
]
RenderedForOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="NAME",
        help="Profile of kind kubernetes to render for.",
        show_default=False,
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force-conflicts", help="Kubernetes: take over fields that somebody else manages."
    ),
]
DeleteStoreOption = Annotated[
    bool | None,
    typer.Option(
        "--delete-store/--keep-store",
        help="Kubernetes: delete the store's volume claim too, with every dataset and run.",
        show_default="ask; keep it with --yes",
    ),
]
FinalizersOption = Annotated[
    bool,
    typer.Option(
        "--remove-finalizers",
        help="Kubernetes: free RayJobs that wait for an operator which does not answer.",
    ),
]

app = typer.Typer(
    help="Start, end and look at this machine's Ray node, or a namespace on Kubernetes.",
    rich_markup_mode=None,
)


@app.command()
def render(
    overlay: OverlayOption = None, image: ImageOption = None, cluster: RenderedForOption = None
) -> None:
    """Print the Kubernetes manifests: as they came with cifarray, or as a profile wants them.

    With --cluster it is what `cluster up` applies: the profile's image, namespace and store.

    \b
    Example:  cifarray cluster render --overlay local | kubectl apply -f -
    """
    from cifarray.backends.kubernetes.manifests import (
        DEFAULT_OVERLAY,
        as_yaml,
        for_profile,
        manifests,
        overlay_text,
        with_image,
    )
    from cifarray.spec.load import load_profile

    chosen = overlay or DEFAULT_OVERLAY
    if cluster is not None:
        profile = load_profile(cluster)
        if profile.kind != "kubernetes":
            raise InputError(f"cluster profile {profile.name} is not of kind kubernetes")
        documents = for_profile(chosen, profile)
        text = as_yaml(with_image(documents, image) if image else documents)
    else:
        text = as_yaml(manifests(chosen, image)) if image else overlay_text(chosen)
    print(text, end="")


@app.command()
def up(
    cluster: ClusterOption = "local",
    overlay: OverlayOption = None,
    force_conflicts: ForceOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Start a Ray node on this machine, or set up a namespace on Kubernetes; waits until ready.

    \b
    Example:  cifarray cluster up
              cifarray cluster up --cluster kubernetes --overlay local
    """
    from cifarray.backends.choice import Cluster, given_cluster, reach
    from cifarray.spec.load import load_profile

    profile = load_profile(cluster)
    if profile.kind == "kubernetes":
        kubernetes.up(profile, cluster, overlay, force_conflicts, json)
        return
    _refuse_for_local(profile, {"--overlay": overlay, "--force-conflicts": force_conflicts})
    given = given_cluster(profile)
    if given is not None:
        raise InputError(
            f"cluster profile {profile.name} names the node {given.address}, which you start "
            "and end yourself"
        )
    reached = reach(profile, output.say)
    assert isinstance(reached, Cluster)
    _show(reached, json)


@app.command()
def down(
    cluster: ClusterOption = "local",
    yes: YesOption = False,
    delete_store: DeleteStoreOption = None,
    remove_finalizers: FinalizersOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """End the Ray node that cifarray started, or what it set up on Kubernetes, and nothing else.

    \b
    Example:  cifarray cluster down
              cifarray cluster down --cluster kubernetes --keep-store
    """
    from cifarray.backends.choice import find_own
    from cifarray.backends.local.node import end_node
    from cifarray.errors import ClusterError
    from cifarray.spec.load import load_profile

    profile = load_profile(cluster)
    if profile.kind == "kubernetes":
        kubernetes.down(profile, yes, delete_store, remove_finalizers, json)
        return
    own_options = {"--delete-store": delete_store, "--remove-finalizers": remove_finalizers}
    _refuse_for_local(profile, own_options)
    found = find_own(profile.name)
    jobs = found.jobs(patience_s=5.0) if found else None
    try:
        live = [job.id for job in jobs.live_jobs()] if jobs else []
        others = [f"program {name}" for name in jobs.live_drivers()] if jobs else []
    except ClusterError as error:  # it is busy or stopped, and may be at work
        output.warn(str(error))
        jobs, live, others = None, [], ["whatever runs on a node that does not answer"]
    if (live or others) and not _agreed([*live, *others], yes):
        return
    if jobs:
        stop_jobs(jobs, live)
    ended = end_node()
    if json:
        output.print_json({"ended": ended is not None, "stopped_jobs": live})
    elif ended:
        output.print_line(f"ended the Ray node at {ended.dashboard}")
    else:
        output.print_line("no Ray node of ours runs on this machine")


@app.command()
def status(
    cluster: ClusterOption = "local", json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """Say whether the cluster answers, where, and what runs on it.

    \b
    Example:  cifarray cluster status
              cifarray cluster status --cluster kubernetes
    """
    from cifarray.backends.choice import find_own, given_cluster
    from cifarray.spec.load import load_profile

    profile = load_profile(cluster)
    if profile.kind == "kubernetes":
        kubernetes.status(profile, json)
        return
    found = given_cluster(profile) or find_own(profile.name)
    if found is not None:
        _show(found, json)
    elif json:
        output.print_json(None)
    else:
        output.print_line("no Ray node of ours runs on this machine; `submit` starts one by itself")


def _refuse_for_local(profile: "Profile", options: Mapping[str, object]) -> None:
    for option, value in options.items():
        if value not in (None, False):
            raise InputError(
                f"{option} is for profiles of kind kubernetes, and {profile.name} is of kind "
                f"{profile.kind}; name one with --cluster"
            )


def _show(cluster: "Cluster", as_json: bool) -> None:
    """Raises: ClusterError if a node that the profile names does not answer."""
    from cifarray.backends.local.state import token_path

    jobs = cluster.jobs(patience_s=5.0)
    described: dict[str, Any] = {
        "profile": cluster.profile,
        "address": cluster.address,
        "dashboard": cluster.dashboard,
        "own": cluster.own,
        "ray_version": jobs.version().get("ray_version"),
        "token_file": str(token_path()) if cluster.own else None,
        "jobs": [{"id": job.id, "status": job.status} for job in jobs.live_jobs()],
    }
    if as_json:
        output.print_json(described)
        return
    output.print_line(f"dashboard  {cluster.dashboard}")
    if cluster.own:
        output.print_line(f"token      in {token_path()}")
    output.print_line(f"address    {cluster.address} (Ray {described['ray_version']})")
    for job in described["jobs"]:
        output.print_line(f"job        {job['id']} ({job['status'].lower()})")
    if not described["jobs"]:
        output.print_line("jobs       none")


def _agreed(live: list[str], yes: bool) -> bool:
    question = f"this stops {', '.join(live)}: go on?"
    if yes:
        return True
    if not output.can_ask():
        raise InputError(f"the node is at work: {', '.join(live)}; say --yes to stop that")
    return output.ask(question)
