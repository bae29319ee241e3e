"""From a submission to a recorded run, and from a recorded run to its cluster."""

import dataclasses
import io
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cifarray.backends import checks as preflight
from cifarray.backends.checks import candidates
from cifarray.backends.choice import Cluster
from cifarray.backends.environment import job_environment
from cifarray.backends.kubernetes.backend import KubernetesCluster, applied_record, dashboard_of_run
from cifarray.backends.kubernetes.launching import (
    end_earlier,
    launch_rayjob,
    next_rayjob,
    remove_ended,
)
from cifarray.backends.local.node import RUN_SLOT, common_environment
from cifarray.backends.observe import Witness
from cifarray.backends.pretrained import Beginning, find_beginning
from cifarray.backends.ray_jobs.client import RayJobs
from cifarray.backends.trust import remember_context, remember_submission
from cifarray.data.image_checks import held_shape
from cifarray.data.manifest import Manifest, load_manifest
from cifarray.data.selection import Selection
from cifarray.errors import ClusterError, JobError, StoreError
from cifarray.models.code import code_sha256, pack_code
from cifarray.models.registry import is_own
from cifarray.runs import Run, new_run_id
from cifarray.spec.job import Job
from cifarray.spec.load import with_fields
from cifarray.spec.profile import Profile, StoreSpec
from cifarray.spec.run import CodeSpec, RunRequest, RunSpec, WeightsSpec
from cifarray.store import Store
from cifarray.store.layout import CODE_FILE, SPEC_FILE, VALIDATION_FILE, WEIGHTS_FILE, Place
from cifarray.training.reads import decides, unread_fields, unset


@dataclass(frozen=True)
class Plan:
    """A checked job and the profile that it is to run on; nothing is written yet."""

    job: Job
    profile: Profile
    workers: int | None = None
    code: Path | None = None
    best_of: dict[str, Any] | None = None

    @property
    def world_size(self) -> int:
        """The workers of the run; for a sweep, of its last evaluation."""
        return self.workers or self.profile.workers

    def with_seed(self, seed: int) -> "Plan":
        """The same plan with another seed."""
        return replace(self, job=with_fields(self.job, {"seed": seed}))


def plan(
    job: Job,
    profile: Profile,
    *,
    workers: int | None = None,
    code: Path | None = None,
    best_of: Run | None = None,
    sets: Sequence[str] = (),
    store: Store | None = None,
) -> Plan:
    """Check a job against its profile, with a sweep's best fields where they are asked for.

    `sets` are the fields that were typed: they win over those of the sweep. `store` holds the
    dataset, if it is one of the user's own.

    Raises: JobError, StoreError.
    """
    source = None
    if best_of is not None:
        source, own = best_fields(best_of), job.model.name
        job = _with_best(job, source["params"], {item.partition("=")[0] for item in sets})
        if is_own(job.model.name) and job.model.name != own:
            raise JobError(
                f"--best-of {best_of.id}: its best trial has the network {job.model.name}, which "
                f"is code outside cifarray; say --set model.name={job.model.name} to execute it"
            )
    preflight.check(job, profile, workers, code, store)
    return Plan(job, profile, workers, code, source)


def _with_best(job: Job, params: Mapping[str, Any], typed: set[str]) -> Job:
    """The job with a sweep's best values, and without what these leave unread in it."""
    taken = {
        path: value
        for path, value in params.items()
        if not any(f"{path}.".startswith(f"{field}.") for field in typed)
    }
    job = with_fields(job, taken)
    replaced = {path.partition(".")[0] for path in taken if decides(path)}
    unread = (path for path in unread_fields(job) if path not in typed)
    return unset(job, [p for p in unread if p in taken or p.partition(".")[0] in replaced])


def best_fields(run: Run) -> dict[str, Any]:
    """The swept fields of a sweep's best trial: {"run_id", "trial_id", "params"}.

    Raises: JobError if the run is no sweep.
    """
    report = run.report()
    trials: Sequence[Mapping[str, Any]] = report.get("trials") or []
    best = [trial for trial in trials if trial["id"] == report.get("best_trial_id")]
    if not best:
        raise JobError(f"--best-of {run.id}: it is no sweep; give a run of kind tune")
    return {"run_id": run.id, "trial_id": best[0]["id"], "params": dict(best[0]["parameters"])}


def check_data(plan: Plan, store: Store, manifest: Manifest) -> Selection:
    """The run's rows of a prepared dataset, checked. Raises: JobError."""
    workers = preflight.check_workers(plan.job, plan.profile, plan.workers)
    return preflight.select(store, manifest, plan.job, workers)


def check_beginning(plan: Plan, store: Store, manifest: Manifest, selection: Selection) -> None:
    """Hold the weights that the job names against its network; timm's are not downloaded for it.

    Raises: JobError, CheckpointError, RunNotFoundError, StoreError.
    """
    if plan.job.model.weights != "timm":
        with tempfile.TemporaryDirectory(prefix="cifarray-weights-") as folder:
            _find_beginning(plan, store, manifest, selection, Path(folder))


def _find_beginning(
    plan: Plan, store: Store, manifest: Manifest, selection: Selection, folder: Path
) -> Beginning | None:
    classes, first = len(selection.labels.classes), next(iter(candidates(plan.job)))
    shape = held_shape(manifest.name, manifest.shape, first.preprocess)
    return find_beginning(plan.job, store, shape, classes, folder)


def request(plan: Plan, manifest: Manifest | None, name: str | None = None) -> RunRequest:
    """What is asked for, of the dataset as it is if that is known."""
    return RunRequest(
        run_id=name or new_run_id(plan.job.name),
        job=plan.job,
        profile=plan.profile,
        workers=plan.workers,
        submitted_at=preflight.utc_now(),
        versions=preflight.versions(),
        dataset_digest=manifest.digest if manifest else None,
        best_of=plan.best_of,
    )


def record_request(store: Store, asked: RunRequest) -> Run:
    """The run of a request; recorded now unless somebody has done so. Raises: JobError, StoreError.

    A driver does this on a cluster that was given the request and nothing else: where nobody has
    recorded on which RayJob the run is, it is the one that was applied.
    """
    run = Run(store, asked.run_id)
    if not store.exists(run.key(SPEC_FILE)):
        plan = Plan(asked.job, asked.profile, asked.workers, None, asked.best_of)
        manifest = load_manifest(store, asked.job.dataset.name, asked.dataset_digest)
        run, _ = _create(plan, store, manifest, asked)
    if asked.profile.kind == "kubernetes" and run.status().cluster is None:
        record = applied_record(asked)
        run.change_status(lambda status: replace(status, cluster=status.cluster or record))
    return run


def create(plan: Plan, store: Store, manifest: Manifest, name: str | None = None) -> Run:
    """Record the run, with its code, its weights and its validation rows.

    Raises: JobError, CheckpointError, RunNotFoundError, StoreError.
    """
    run, spec = _create(plan, store, manifest, request(plan, manifest, name))
    remember_submission(spec)
    return run


def _create(plan: Plan, store: Store, manifest: Manifest, asked: RunRequest) -> tuple[Run, RunSpec]:
    selection = check_data(plan, store, manifest)
    packed = pack_code(plan.code) if plan.code else None
    with tempfile.TemporaryDirectory(prefix="cifarray-weights-") as folder:
        beginning = _find_beginning(plan, store, manifest, selection, Path(folder))
        spec = _spec(plan, manifest, selection, asked, packed, beginning)
        run = Run.create(store, spec)
        try:
            if packed:
                store.write(run.key(CODE_FILE), packed)
            if beginning:
                store.upload(beginning.path, run.key(WEIGHTS_FILE))
            store.write(run.key(VALIDATION_FILE), _as_parquet(selection))
        except StoreError as error:
            with suppress(StoreError):  # the same that failed just now
                run.mark_failed(f"it could not be recorded: {error}")
            raise
    return run, spec


def _spec(
    plan: Plan,
    manifest: Manifest,
    selection: Selection,
    asked: RunRequest,
    packed: bytes | None,
    beginning: Beginning | None,
) -> RunSpec:
    prefix, code, weights = Place(asked.run_id).prefix, None, None
    if packed:
        code = CodeSpec(key=f"{prefix}/{CODE_FILE}", sha256=code_sha256(packed))
    if beginning:
        key = f"{prefix}/{WEIGHTS_FILE}"
        weights = WeightsSpec(
            key=key,
            source=beginning.source,
            sha256=beginning.sha256,
            fresh=beginning.fresh,
        )
    return RunSpec(
        run_id=asked.run_id,
        job=plan.job,
        profile=plan.profile,
        world_size=plan.world_size,
        dataset_digest=manifest.digest,
        validation_rows=len(selection.validation_row_ids),
        validation_sha256=selection.validation_sha256,
        submitted_at=asked.submitted_at,
        versions=asked.versions,
        code=code,
        weights=weights,
        best_of=plan.best_of,
    )


def _as_parquet(selection: Selection) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.table({"row_id": selection.validation_row_ids}), sink, compression="zstd")
    return sink.getvalue()


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
    name, submission = next_rayjob(run, cluster.kube)
    end_earlier(run, cluster.kube)  # before the run is open again to whichever driver comes
    dashboard = dashboard_of_run(cluster.spec, run.id)
    _reopen(run, {**cluster.record(name), "dashboard": dashboard})
    launch_rayjob(run, profile, cluster.kube, submission)
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
