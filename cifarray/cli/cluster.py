"""Commands on the Ray node of this machine: cluster up, cluster down, cluster status."""

import time
from typing import TYPE_CHECKING, Any

import typer

from cifarray.cli import output
from cifarray.cli.options import ClusterOption, JsonOption, QuietOption, VerboseOption, YesOption
from cifarray.errors import ClusterError, InputError

if TYPE_CHECKING:
    from cifarray.submit.cluster import Cluster
    from cifarray.submit.jobs_api import RayJobs

STOP_TIMEOUT_S = 75.0

app = typer.Typer(
    help="Start, end and look at the Ray node of this machine.", rich_markup_mode=None
)


@app.command()
def up(
    cluster: ClusterOption = "local",
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Start a Ray node on this machine, if it has none of ours yet.

    \b
    Example:  cifarray cluster up
    """
    from cifarray.spec.load import load_profile
    from cifarray.submit.cluster import given_cluster, reach

    profile = load_profile(cluster)
    given = given_cluster(profile)
    if given is not None:
        raise InputError(
            f"cluster profile {profile.name} names the node {given.address}, which you start "
            "and end yourself"
        )
    _show(reach(profile, output.say), json)


@app.command()
def down(yes: YesOption = False, json: JsonOption = False, quiet: QuietOption = False) -> None:
    """End the Ray node that cifarray started, and nothing else.

    \b
    Example:  cifarray cluster down
    """
    from cifarray.submit.cluster import find_own
    from cifarray.submit.local_node import end_node

    cluster = find_own("local")
    jobs = cluster.jobs() if cluster else None
    live = [job.id for job in jobs.live_jobs()] if jobs else []
    programs = [f"program {name}" for name in jobs.live_drivers()] if jobs else []
    if (live or programs) and not _agreed([*live, *programs], yes):
        return
    if jobs:
        _stop_jobs(jobs, live)
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
    """
    from cifarray.spec.load import load_profile
    from cifarray.submit.cluster import find_own, given_cluster

    profile = load_profile(cluster)
    found = given_cluster(profile) or find_own(profile.name)
    if found is not None:
        _show(found, json)
    elif json:
        output.print_json(None)
    else:
        output.print_line("no Ray node of ours runs on this machine; `submit` starts one by itself")


def _show(cluster: "Cluster", as_json: bool) -> None:
    """Raises: ClusterError if a node that the profile names does not answer."""
    from cifarray.submit.node_state import token_path

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
    return typer.confirm(question, default=False, err=True)


def _stop_jobs(jobs: "RayJobs", live: list[str]) -> None:
    """Let drivers close their runs before the node goes."""
    for job_id in live:
        output.say(f"stopping {job_id} ...")
        jobs.stop(job_id)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    try:
        while live and jobs.live_jobs() and time.monotonic() < deadline:
            time.sleep(0.5)
    except ClusterError as error:
        output.warn(str(error))
