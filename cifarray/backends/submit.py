"""Hand a recorded run to a cluster: one job of the Ray Jobs API per attempt."""

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from cifarray.backends.choice import Cluster
from cifarray.backends.environment import job_environment
from cifarray.backends.evidence import Witness
from cifarray.backends.kubernetes.backend import KubernetesCluster
from cifarray.backends.kubernetes.launching import (
    end_earlier,
    launch_rayjob,
    next_rayjob,
    remove_ended,
)
from cifarray.backends.kubernetes.record import dashboard_of_run
from cifarray.backends.local.node import RUN_SLOT, common_environment
from cifarray.backends.ray_jobs.client import RayJobs
from cifarray.backends.submissions import remember_context
from cifarray.errors import ClusterError
from cifarray.runs import Run
from cifarray.spec.profile import Profile, StoreSpec

JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray's own name for how the Jobs API tells a driver of its runtime environment."""


def launch(run: Run, profile: Profile, cluster: Cluster | KubernetesCluster) -> str:
    """Submit the run's next attempt; the job's id. The run names the cluster before the job runs.

    Raises: ClusterError, StoreError.
    """
    if isinstance(cluster, KubernetesCluster):
        remember_context(run.id, cluster.kube.context)
    if isinstance(cluster, KubernetesCluster) and not cluster.shared:
        return _launch_rayjob(run, profile, cluster)
    jobs = cluster.jobs()
    assert isinstance(jobs, RayJobs)
    job_id = _free_id(run, jobs)
    _reopen(run, cluster.record(job_id))
    jobs.submit(
        entrypoint(run.id, seen_from(run, profile), cluster.is_here),
        job_id,
        job_environment(profile, run.store, cluster.is_here),
        {"run_id": run.id},
        # A node of ours carries out one run at a time: each takes all the machine's cores.
        resources={RUN_SLOT: 1.0} if cluster.own else {},
    )
    return job_id


def _launch_rayjob(run: Run, profile: Profile, cluster: KubernetesCluster) -> str:
    name, submission = next_rayjob(run, cluster)
    end_earlier(run, cluster)  # before the run is open again to whichever driver comes
    dashboard = dashboard_of_run(cluster.spec, run.id)
    _reopen(run, {**cluster.record(name), "dashboard": dashboard})
    launch_rayjob(run, profile, cluster, submission)
    with suppress(ClusterError):  # the run is on its way: the next submission clears away too
        remove_ended(cluster.kube, cluster.spec.keep_ended_s)
    return name


def seen_from(run: Run, profile: Profile) -> StoreSpec:
    """The run's store as its driver reaches it: not through a port-forward of this machine's."""
    return profile.store if profile.kind == "kubernetes" else run.store.spec


def entrypoint(run_id: str, store: StoreSpec, here: bool) -> str:
    """The driver's command line; `exec` makes it the process that a stop asks to end."""
    python = sys.executable if here else "python"
    words = [python, "-m", "cifarray.driver", run_id, "--store", store.uri]
    if store.endpoint:
        words += ["--endpoint", store.endpoint]
    return f"exec {shlex.join(words)}"


def enter(run: Run, profile: Profile, cluster: Cluster) -> None:
    """Make this very process the driver of the run: `ray.init()` will join the cluster.

    Raises: ClusterError if a node of ours is busy with another run.
    """
    live = cluster.jobs().live_jobs() if cluster.own else []
    if live:
        raise ClusterError(
            f"this machine's node is busy with job {live[0].id}; wait for it, "
            "or use `cifarray submit`, which queues behind it"
        )
    environment = job_environment(profile, run.store, cluster.is_here)
    os.environ |= environment | {"RAY_ADDRESS": cluster.address}
    if cluster.own:
        os.environ |= common_environment()
    # Workers live in the node's processes, not in this one: they get their part of it so.
    os.environ[JOB_CONFIG] = json.dumps(
        {"runtime_env": {"env_vars": environment}, "metadata": {"run_id": run.id}}
    )
    _reopen(run, cluster.record(None))


def give_up(runs: Iterable[Run], error: BaseException, profile: Profile | None = None) -> None:
    """Close runs that no job will carry out, because of this error.

    What is not pending was never opened for a job: it stays as it is, and so does one that somebody
    else has submitted at this moment. `profile` is the one that they were to go to.
    """
    for run in runs:
        status = run.status()
        if status.state != "pending":
            continue
        if isinstance(error, Exception):
            if Witness(profile).evidence(run, status).alive:
                continue
            run.mark_failed(f"it could not be submitted: {error}")
        else:
            run.mark_stopped("it was interrupted while it was being submitted")


def _reopen(run: Run, cluster: dict[str, Any]) -> None:
    """Show the run as waiting for its next attempt, of which nothing has been heard yet."""
    fresh: dict[str, Any] = dict.fromkeys(("error", "ended_at", "heartbeat_at", "progress"))
    run.change_status(
        lambda status: dataclasses.replace(status, state="pending", cluster=cluster, **fresh)
    )


def _free_id(run: Run, jobs: RayJobs) -> str:
    """`<run>-<attempt>`, or with a further number where an attempt ended before it began."""
    number = max([*run.attempt_numbers(), run.status().attempts], default=0) + 1
    job_id, again = f"{run.id}-{number}", 1
    while jobs.find(job_id) is not None:
        again += 1
        job_id = f"{run.id}-{number}.{again}"
    return job_id
