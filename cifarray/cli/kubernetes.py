"""What `cluster up`, `down` and `status` do where the profile is of kind kubernetes."""

import shlex
from typing import TYPE_CHECKING, Any

from cifarray.cli import output
from cifarray.cli.stopping import stop_jobs
from cifarray.errors import ClusterError, InputError

if TYPE_CHECKING:
    from cifarray.backends.kubernetes.backend import KubernetesCluster
    from cifarray.backends.kubernetes.teardown import Found, Removed
    from cifarray.backends.ray_jobs.client import RayJobs
    from cifarray.spec.profile import Profile

POD_COLUMNS = ("pod", "role", "state", "ready", "restarts", "node", "waits for")
QUOTA_COLUMNS = ("quota", "resource", "used", "hard")


def up(profile: "Profile", named: str, overlay: str | None, force: bool, as_json: bool) -> None:
    """Apply an overlay's objects and wait until what they make is ready."""
    from dataclasses import asdict

    from cifarray.backends.kubernetes.backend import open_cluster
    from cifarray.backends.kubernetes.manifests import DEFAULT_OVERLAY, for_profile
    from cifarray.backends.kubernetes.setup import apply_all, await_ready, head_of_another_image

    chosen = overlay or DEFAULT_OVERLAY
    documents = for_profile(chosen, profile)
    cluster = open_cluster(profile)
    kube = cluster.kube
    output.say(f"applying {len(documents)} objects of overlay {chosen} to {cluster.address} ...")
    try:
        applied = apply_all(kube, documents, output.say, force)
        output.say(
            f"{len(applied.created)} made, {len(applied.changed)} changed, "
            f"{len(applied.unchanged)} as they were"
        )
        for name in applied.changed:
            output.detail(f"changed {name}")
        await_ready(kube, documents, output.say)
    except KeyboardInterrupt:
        output.say("interrupted: what was applied stays, and the same command goes on from there")
        raise
    for document in documents:
        if document["kind"] == "RayCluster" and (left := head_of_another_image(kube, document)):
            output.warn(left)
    if as_json:
        described = {"context": kube.context, "namespace": kube.namespace, "overlay": chosen}
        output.print_json({**described, **asdict(applied)})
        return
    output.print_line(f"ready: {cluster.address}")
    words = f" --cluster {shlex.quote(named)}"
    output.say(f"next: cifarray submit tune-digits --prepare{words}; `cifarray doctor{words}`")


def down(
    profile: "Profile",
    yes: bool,
    delete_store: bool | None,
    remove_finalizers: bool,
    as_json: bool,
) -> None:
    """End the runs and delete what `up` made; the store only when that is asked for."""
    from dataclasses import asdict

    from cifarray.backends.kubernetes.backend import open_cluster
    from cifarray.backends.kubernetes.teardown import survey, take_down

    cluster = open_cluster(profile)
    found = survey(cluster.kube)
    jobs, live = _shared_jobs(cluster, found)
    if not _agreed(cluster, found, live, yes):
        return
    keep_store = bool(found.claims) and not _store_goes(found, yes, delete_store)
    try:
        if jobs:
            stop_jobs(jobs, live)
        removed = take_down(cluster.kube, found, keep_store, remove_finalizers, output.say)
    except KeyboardInterrupt:
        output.say("interrupted: what is gone stays gone, and the same command goes on from there")
        raise
    if as_json:
        output.print_json({**asdict(removed), "stopped_jobs": live})
        return
    _show_removed(removed)


def status(profile: "Profile", as_json: bool) -> None:
    """Versions, RayCluster, pods, quota, queue, GPUs and runs."""
    from cifarray.backends.kubernetes.backend import open_cluster
    from cifarray.backends.kubernetes.overview import overview

    cluster = open_cluster(profile)
    seen = overview(cluster.kube, cluster.spec)
    if as_json:
        output.print_json({"profile": profile.name, **seen})
        return
    for name, value in _head_lines(seen):
        output.print_line(f"{name:<11}{value}")
    if seen["pods"]:
        output.print_line()
        output.print_table(POD_COLUMNS, map(_pod_row, seen["pods"]))
    if seen["quota"]:
        output.print_line()
        rows = [[each[name] for name in QUOTA_COLUMNS] for each in seen["quota"]]
        output.print_table(QUOTA_COLUMNS, rows)


def _shared_jobs(
    cluster: "KubernetesCluster", found: "Found"
) -> tuple["RayJobs | None", list[str]]:
    """The Jobs API of the long-lived RayCluster, and the runs that are on it."""
    from dataclasses import replace

    from cifarray.backends.kubernetes.access import head_labels, ready_pod
    from cifarray.backends.ray_jobs.client import RayJobs

    if cluster.spec.ray_cluster not in found.clusters:
        return None, []
    shared = replace(cluster, spec=cluster.spec.model_copy(update={"mode": "ray-jobs"}))
    try:
        ready_pod(cluster.kube, head_labels(cluster.spec.ray_cluster), "its head")
        jobs = shared.jobs(patience_s=5.0)
        assert isinstance(jobs, RayJobs)
        return jobs, [job.id for job in jobs.live_jobs()]
    except ClusterError as error:
        output.detail(f"which runs are on the RayCluster cannot be asked: {error}")
        return None, []


def _agreed(cluster: "KubernetesCluster", found: "Found", live: list[str], yes: bool) -> bool:
    goes = [f"RayJob {name}" for name in found.rayjobs] + [f"job {name}" for name in live]
    runs = f"ends {', '.join(goes)} and " if goes else ""
    if yes:
        return True
    if not output.can_ask():
        raise InputError(
            f"this {runs}deletes what cifarray has in {cluster.address}; say --yes to do that"
        )
    question = f"this {runs}deletes what cifarray has in {cluster.address}: go on?"
    return output.ask(question)


def _store_goes(found: "Found", yes: bool, delete_store: bool | None) -> bool:
    if delete_store is not None or yes or not output.can_ask():
        return bool(delete_store)
    claims = ", ".join(found.claims)
    question = f"delete the volume claim {claims} too, with every dataset and run in it?"
    return output.ask(question)


def _show_removed(removed: "Removed") -> None:
    for word, names in (("ended RayJob", removed.ended), ("deleted", removed.deleted)):
        for name in names:
            output.print_line(f"{word} {name}")
    for name in removed.kept:
        output.print_line(f"kept {name}")
    if any(name.startswith("PersistentVolumeClaim") for name in removed.kept):
        output.say("the store's volume is kept, with its keys; --delete-store deletes both")
    if not removed.deleted and not removed.ended:
        output.print_line("nothing of cifarray is there")


def _head_lines(seen: dict[str, Any]) -> list[tuple[str, str]]:
    hidden, versions = seen["hidden"], seen["versions"]
    lines = [
        ("cluster", f"{seen['context']} at {seen['server']}, Kubernetes {versions['kubernetes']}"),
        ("namespace", seen["namespace"]),
        ("operator", _operator_words(versions["kuberay"], hidden.get("kuberay"))),
        ("RayCluster", _ray_cluster_words(seen["ray_cluster"], hidden.get("ray_cluster"))),
        ("Ray here", versions["ray"]),
        ("GPUs", _gpu_words(seen["gpus"], hidden.get("gpus"))),
        ("gang", seen["gang"]),
    ]
    if queue := seen["queue"]:
        words = f"{queue['waiting']} waiting, {queue['admitted']} admitted"
        lines.append(("queue", f"{queue['name']}: {words if queue['exists'] else 'not there'}"))
    for run in seen["runs"] or ():
        told = f": {run['message']}" if run["message"] else ""
        lines.append(("run", f"{run['run']} ({run['status'].lower()}{told})"))
    for what in sorted({"pods", "quota", "queue", "runs"} & hidden.keys()):
        lines.append((what, f"not shown ({hidden[what]})"))
    return lines


def _operator_words(operators: list[dict[str, Any]] | None, why: str | None) -> str:
    if operators is None:
        return f"not shown ({why})"
    if not operators:
        return "none runs; install KubeRay's operator 1.7 or newer"
    return ", ".join(
        f"KubeRay {each['version']} in namespace {each['namespace']}"
        + ("" if each["ready"] else " (not ready)")
        for each in operators
    )


def _ray_cluster_words(found: dict[str, Any] | None, why: str | None) -> str:
    if found is None:
        return f"not shown ({why})" if why else "none; `cifarray cluster up` makes it"
    groups = "".join(
        f", {each['replicas']} of {each['max']} {each['name']}" for each in found["groups"]
    )
    state = "ready" if found["ready"] else "not ready"
    return f"{found['name']} {state}, Ray {found['ray_version']}{groups}"


def _gpu_words(found: dict[str, Any] | None, why: str | None) -> str:
    if found is None:
        return f"not shown ({why})"
    return f"{found['capacity']} on {found['nodes']} nodes, {found['held']} held here"


def _pod_row(pod: dict[str, Any]) -> list[object]:
    ready = f"{pod['ready']}/{pod['containers']}"
    role = f"{pod['role']} of {pod['run']}" if pod["run"] else pod["role"]
    return [
        pod["name"],
        role,
        pod["state"],
        ready,
        pod["restarts"],
        pod["node"],
        pod["reason"].partition(": ")[0] or None,
    ]
