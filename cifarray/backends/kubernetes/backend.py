"""A namespace of a Kubernetes cluster: runs as RayJobs, or as jobs of a long-lived RayCluster."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any, ClassVar, NoReturn

from pydantic import ValidationError

from cifarray.backends.base import (
    PATIENCE_S,
    Backend,
    Check,
    CommandOutput,
    Reporter,
    SubmittedJob,
    Teardown,
    Unrecorded,
    reopen,
)
from cifarray.backends.kubernetes.access import (
    HEAD,
    dashboard_command,
    for_this_command,
    forwarded,
    head_labels,
    reached_store,
    ready_pod,
    token,
)
from cifarray.backends.kubernetes.client import Kube, current_context, has_context
from cifarray.backends.kubernetes.jobs import (
    RayJobRuns,
    SharedRayJobs,
    explain_ray_cluster,
    explain_rayjob,
    why_unanswered,
)
from cifarray.backends.kubernetes.manifests import (
    DEFAULT_OVERLAY,
    Manifest,
    for_profile,
    with_image,
    with_pods_of,
)
from cifarray.backends.kubernetes.pods import HEAD_PORTS, Gang, find_gang, named_gang, of_kubernetes
from cifarray.backends.kubernetes.rayjob import (
    RUN_LABEL,
    end_earlier,
    launch_rayjob,
    next_rayjob,
    rayjob_name,
    remove_companions_of,
    remove_ended,
    run_label,
    run_objects,
)
from cifarray.backends.ray_jobs.backend import ASK_PATIENCE_S, LOOK_PATIENCE_S, submit_job
from cifarray.errors import ClusterError, InputError, JobError
from cifarray.runs import Run, Status
from cifarray.spec.profile import KubernetesSpec, Profile, StoreSpec
from cifarray.spec.run import RunRequest
from cifarray.store import Store

KIND = "kubernetes"
"""What a run's record of its cluster says in `kind`; others have none."""
CHECK_PATIENCE_S = 10.0


class KubernetesBackend(Backend):
    """What both modes have in common; a run's status records enough to find the cluster again."""

    answers_as: ClassVar[str] = "Kubernetes"
    outlives_its_run: ClassVar[bool] = True
    shared: ClassVar[bool] = False
    """Whether runs go to the long-lived RayCluster."""

    def __init__(
        self,
        profile: Profile,
        kube: Kube | None = None,
        *,
        dashboard: str | None = None,
        certain: bool = True,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`dashboard` is the address of a long-lived RayCluster; None: through a port-forward."""
        self.profile = profile
        self.spec = of_kubernetes(profile)
        self._given_dashboard = dashboard
        self._certain = certain
        self._patience_s = patience_s
        if kube is not None:
            self.kube = kube

    @cached_property
    def kube(self) -> Kube:
        """The namespace. Raises: ClusterError if no kubeconfig leads to it."""
        return Kube.open(self.spec, self._patience_s)

    @property
    def address(self) -> str:
        return f"namespace {self.kube.namespace} of {self.kube.context}"

    @property
    def dashboard(self) -> str:
        """Ray's dashboard: its address, or how to see it."""
        command = dashboard_command(self.spec.namespace, head_labels(self.spec.ray_cluster))
        return self._given_dashboard or command

    @property
    def certain(self) -> bool:
        """Whether this kubeconfig's context is certainly the one that a run recorded."""
        return self._certain

    @property
    def context(self) -> str | None:
        return self.kube.context

    def record(self, job_id: str | None) -> dict[str, Any]:
        return cluster_record(
            self.profile.name, self.spec, self.kube.context, self.dashboard, job_id
        )

    def recorded_as(
        self, record: Mapping[str, Any], explicit: bool, patience_s: float = PATIENCE_S
    ) -> Backend | None:
        """The user's section in the mode of the run; Secrets, images and contexts stay the user's.

        Contexts have other names in other people's kubeconfigs: with a recorded one that this
        lacks, and no profile that the command names, it may be another cluster.
        """
        if record.get("kind") != KIND:
            return None
        recorded, dashboard = recorded_section(record), record.get("dashboard")
        mode, context = MODES[recorded.mode], recorded.context
        if not (
            self.spec.namespace == recorded.namespace
            and mode.is_same_cluster(self.spec, recorded)
            and (not _is_address(dashboard) or self.profile.dashboard == dashboard)
            and (explicit or may_be_context(self.spec.context, context))
        ):
            return None
        spec = self.spec.model_copy(update={"mode": recorded.mode})
        return mode(
            self.profile.model_copy(update={"kubernetes": spec}),
            dashboard=self.profile.dashboard if _is_address(dashboard) else None,
            certain=explicit or context is None or has_context(context),
            patience_s=patience_s,
        )

    @staticmethod
    def is_same_cluster(mine: KubernetesSpec, recorded: KubernetesSpec) -> bool:
        """Whether runs of two sections of one namespace go to the same Ray cluster."""
        return True

    @classmethod
    def place_of(cls, record: Mapping[str, Any]) -> str:
        """Where a record says that a run is, in words. Raises: ClusterError."""
        recorded, dashboard = recorded_section(record), record.get("dashboard")
        named = [f"in namespace {recorded.namespace}"]
        if recorded.context:
            named.append(f"of context {recorded.context}")
        named += MODES[recorded.mode]._place(recorded)
        if _is_address(dashboard):
            named.append(f"with dashboard {dashboard}")
        return " ".join(named)

    @staticmethod
    def _place(recorded: KubernetesSpec) -> list[str]:
        return []

    def applied_record(self, request: RunRequest) -> dict[str, Any]:
        """The manifest of a run's first RayJob: `submit --dry-run` prints it."""
        job_id = rayjob_name(request.run_id, 1)
        dashboard = dashboard_of_run(self.spec, request.run_id)
        return cluster_record(self.profile.name, self.spec, self.spec.context, dashboard, job_id)

    def start(self, reporter: Reporter) -> None:
        """Check that it can be reached; `cifarray cluster up` sets it up."""
        _ = self.kube

    def refuse_entry(self) -> NoReturn:
        """A driver runs in a pod."""
        raise InputError(
            f"`run` trains in this process, but profile {self.profile.name} is a Kubernetes "
            "cluster; use `cifarray submit`"
        )

    def enter(self, run: Run) -> dict[str, str]:
        self.refuse_entry()

    def rayjobs(self) -> RayJobRuns:
        """The RayJobs of its namespace, which may be there in either mode."""
        return RayJobRuns(self.kube, self.spec, self.certain)

    def stop(self, run: Run, job_id: str, reporter: Reporter) -> Status:
        """Record the end first: a driver whose pod ends has no time for it."""
        run.mark_stopped("stopped by `cifarray stop`")
        self.jobs(ASK_PATIENCE_S).stop(job_id)
        self._remove_companions(run)
        return run.status()

    def end_leftover(self, run: Run, job_id: str) -> bool:
        """End what an earlier `stop` left running."""
        jobs = self.jobs(ASK_PATIENCE_S)
        job = jobs.find(job_id)
        is_live = job is not None and not job.ended
        if is_live:
            jobs.stop(job_id)
        self._remove_companions(run)
        return is_live

    def find_unrecorded(self, run_id: str) -> Unrecorded | None:
        """The run whose RayJob somebody applied."""
        job = self.rayjobs().of_run(run_id)
        if (
            job is None or job.status == "SUCCEEDED"
        ):  # its driver did start: the run was deleted since
            return None
        state = "failed" if job.ended else "pending"
        why = (lambda: job.message) if job.ended else partial(self.rayjobs().why_pending, job.id)
        stop = partial(self._stop_applied, run_id, job)
        return Unrecorded(run_id, self.profile.name, state, why, stop)

    def _stop_applied(self, run_id: str, job: SubmittedJob) -> None:
        """Delete the RayJob and what was applied with it."""
        if job.ended:
            raise InputError(
                f"RayJob {job.id} of run {run_id} ended before its driver started "
                f"({job.message}): nothing to stop"
            )
        self.rayjobs().stop(job.id)
        remove_companions_of(self.kube, run_id)

    def _remove_companions(self, run: Run) -> None:
        """Delete what was made for a run's RayJobs."""

    def with_store(self, uri: str | None, endpoint: str | None) -> Profile:
        """With the store that was typed: pods reach it by the profile's endpoint, not by ours."""
        typed = {"uri": uri, "endpoint": endpoint}
        given = {name: value for name, value in typed.items() if value}
        store = self.profile.store.model_copy(update=given)
        return self.profile.model_copy(update={"store": store})

    @contextmanager
    def reached_store(self) -> Iterator[Store]:
        """By a port-forward, with keys from the Secret."""
        with reached_store(self.profile, self.kube) as store:
            yield store

    def drivers_store(self, run: Run) -> StoreSpec:
        return self.profile.store

    def checks(self, open_store: Callable[[], Store]) -> Sequence[Check]:
        from cifarray.backends.kubernetes.checks import Site, cluster_checks

        looking = type(self)(
            self.profile, dashboard=self._given_dashboard, patience_s=CHECK_PATIENCE_S
        )
        return cluster_checks(Site(looking))

    def manifests(self, overlay: str | None, image: str | None = None) -> list[Manifest]:
        """An overlay's objects with the profile's image, namespace, registry and store."""
        found = for_profile(overlay or DEFAULT_OVERLAY, self.profile)
        return with_image(found, image) if image else found

    def up(self, overlay: str | None, force: bool, reporter: Reporter) -> CommandOutput:
        """Apply an overlay's objects and wait until what they make is ready."""
        from cifarray.backends.kubernetes.setup import set_up

        chosen, documents = overlay or DEFAULT_OVERLAY, self.manifests(overlay)
        reporter.say(f"applying {len(documents)} objects of overlay {chosen} to {self.address} ...")
        applied = set_up(self.kube, documents, force, reporter)
        data = {"context": self.kube.context, "namespace": self.spec.namespace, "overlay": chosen}
        return CommandOutput({**data, **asdict(applied)}, [f"ready: {self.address}"])

    def down(
        self, delete_store: bool | None, remove_finalizers: bool, reporter: Reporter
    ) -> Teardown:
        """What cifarray has in the namespace, and what runs there."""
        from cifarray.backends.kubernetes.teardown import planned, survey

        found = survey(self.kube)
        jobs, live = None, list[str]()
        if self.spec.ray_cluster in found.clusters:
            try:
                ready_pod(self.kube, head_labels(self.spec.ray_cluster), "its head")
                jobs = self.shared_jobs(LOOK_PATIENCE_S)
                live = [job.id for job in jobs.live_jobs()]
            except ClusterError as error:
                jobs = None
                reporter.detail(f"the runs on the RayCluster are unknown: {error}")
        what = f"deletes everything that cifarray created in {self.address}"
        return planned(self.kube, what, found, jobs, live, remove_finalizers, reporter)

    def status(self) -> CommandOutput:
        """Versions, RayCluster, pods, quota, queue, GPUs and runs."""
        from cifarray.backends.kubernetes.overview import overview, shown

        return shown(self.profile.name, overview(self.kube, self.spec, self.gang()))

    def gang(self) -> Gang:
        """Who would start a run's pods together now; a profile that leaves it open says so."""
        return Gang()

    def shared_jobs(self, patience_s: float) -> SharedRayJobs:
        """The Jobs API of the long-lived RayCluster, which may be there in either mode."""
        secret, name = token(self.kube, self.spec), self.spec.ray_cluster
        return SharedRayJobs(self.kube, name, self._jobs_address(), secret, patience_s)

    def _jobs_address(self) -> str:
        if self._given_dashboard:
            return self._given_dashboard
        labels = head_labels(self.spec.ray_cluster)
        find = partial(ready_pod, self.kube, labels, f"RayCluster {self.spec.ray_cluster}")
        port = for_this_command(forwarded(self.kube, find, HEAD_PORTS["dashboard"]))
        return f"http://127.0.0.1:{port}"


class RayJobBackend(KubernetesBackend):
    """Mode rayjob: each run has its own Ray cluster."""

    makes_objects: ClassVar[bool] = True

    def dashboard_of(self, run_id: str) -> str | None:
        """How a person sees the dashboard of the run's own cluster."""
        return self._given_dashboard or dashboard_of_run(self.spec, run_id)

    def submit(self, run: Run) -> str:
        """Create the run's next RayJob."""
        name, submission = next_rayjob(run, self.kube)
        end_earlier(run, self.kube)  # before the run is open again to whichever driver comes
        dashboard = dashboard_of_run(self.spec, run.id)
        reopen(run, {**self.record(name), "dashboard": dashboard})
        launch_rayjob(run, self.profile, self.kube, submission)
        with suppress(ClusterError):  # the run is on its way: the next submission clears away too
            remove_ended(self.kube, self.spec.keep_ended_s)
        return name

    def objects(self, request: RunRequest) -> list[dict[str, Any]]:
        """The RayJob, and the policy of its pods."""
        return run_objects(request, 1)

    def gang(self) -> Gang:
        try:
            return find_gang(self.kube, self.spec)
        except JobError:
            return named_gang(self.spec)

    def jobs(self, patience_s: float = PATIENCE_S) -> RayJobRuns:
        return self.rayjobs()

    def explain(self, job_id: str) -> str:
        """What the RayJob's pods lack, or why they died."""
        found = self.kube.get("RayJob", job_id)
        return "" if found is None else explain_rayjob(self.kube, found)

    def why_ended(self, job_id: str) -> str:
        """Why its pods died."""
        return self.explain(job_id)

    def clear_away(self, run: Run, status: Status, job_id: str) -> str:
        """Of a run that has ended, delete its retries and what was made for it."""
        deleted = status.state != "finished" and self.rayjobs().stop_if_live(job_id)
        self._remove_companions(run)
        return f"deleted RayJob {job_id}, which KubeRay would have retried" if deleted else ""

    def _remove_companions(self, run: Run) -> None:
        remove_companions_of(self.kube, run.id)


class RayClusterBackend(KubernetesBackend):
    """Mode ray-jobs: runs are jobs of the namespace's long-lived RayCluster."""

    answers_as: ClassVar[str] = "the RayCluster's head"
    shared: ClassVar[bool] = True

    @staticmethod
    def is_same_cluster(mine: KubernetesSpec, recorded: KubernetesSpec) -> bool:
        """Whether they name one RayCluster."""
        return mine.ray_cluster == recorded.ray_cluster

    @staticmethod
    def _place(recorded: KubernetesSpec) -> list[str]:
        return [f"on RayCluster {recorded.ray_cluster}"]

    def dashboard_of(self, run_id: str) -> str | None:
        """That of the RayCluster."""
        return self.dashboard

    def submit(self, run: Run) -> str:
        """Submit a job to the RayCluster's head."""
        return submit_job(self, self.jobs(), run)

    def jobs(self, patience_s: float = PATIENCE_S) -> SharedRayJobs:
        """The Jobs API of the RayCluster's head."""
        return self.shared_jobs(patience_s)

    def explain(self, job_id: str) -> str:
        """What the RayCluster's pods lack, or why they died."""
        return explain_ray_cluster(self.kube, self.spec.ray_cluster)

    def why_unanswered(self) -> str:
        """Why the head does not answer."""
        return why_unanswered(self.kube, self.spec.ray_cluster)

    def manifests(self, overlay: str | None, image: str | None = None) -> list[Manifest]:
        """As in any mode, plus the RayCluster with the profile's pods. Raises: JobError."""
        cpus = self.spec.cpus_of_a_worker
        if self.profile.cpus_per_worker >= cpus:
            raise JobError(
                f"cluster profile {self.profile.name}: cpus_per_worker "
                f"{self.profile.cpus_per_worker:g} leaves no CPU for Ray Data: Ray counts {cpus} "
                "CPUs in a worker's pod; lower it, or raise kubernetes.worker_cpu (or "
                "worker_cpu_limit, where that is given)"
            )
        found = with_pods_of(self.profile, super().manifests(overlay))
        return with_image(found, image) if image else found


MODES: dict[str, type[RayJobBackend] | type[RayClusterBackend]] = {
    "rayjob": RayJobBackend,
    "ray-jobs": RayClusterBackend,
}


def open_cluster(profile: Profile) -> RayJobBackend | RayClusterBackend:
    """The backend of a profile on Kubernetes. Raises: JobError for a dashboard of no use."""
    mode = MODES[of_kubernetes(profile).mode]
    if profile.dashboard and not _is_address(profile.dashboard):
        raise JobError(
            f"cluster profile {profile.name}: dashboard {profile.dashboard} is not http://host:port"
        )
    if profile.dashboard and not mode.shared:
        raise JobError(
            f"cluster profile {profile.name} sets dashboard, but in mode rayjob each run has its "
            "own; leave it out, or set kubernetes.mode to ray-jobs"
        )
    return mode(profile, dashboard=profile.dashboard)


def cluster_record(
    profile: str,
    spec: KubernetesSpec,
    context: str | None,
    dashboard: str,
    job_id: str | None,
) -> dict[str, Any]:
    """The record of a job; no secret. A driver does not know which context people use."""
    section = spec.model_dump(mode="json", exclude_defaults=True, exclude={"context"})
    return {
        "profile": profile,
        "kind": KIND,
        "address": f"namespace {spec.namespace}" + (f" of {context}" if context else ""),
        "dashboard": dashboard,
        "job_id": job_id,
        "own": False,
        "kubernetes": section | ({"context": context} if context else {}),
    }


def recorded_section(record: Mapping[str, Any]) -> KubernetesSpec:
    """The namespace that a run's status names. Raises: ClusterError."""
    try:
        return KubernetesSpec.model_validate(record.get("kubernetes") or {})
    except ValidationError as error:
        raise ClusterError(
            "the run's record does not say which cluster the run is on "
            f"({error.errors()[0]['msg']}); submit it again"
        ) from error


def may_be_context(mine: str | None, recorded: str | None) -> bool:
    """Whether a recorded context is the user's, or a name from somebody else's kubeconfig."""
    if recorded is None or not has_context(recorded):
        return True
    return recorded == (mine or current_context())


def dashboard_of_run(spec: KubernetesSpec, run_id: str) -> str:
    """How a person sees the dashboard of a run's own cluster."""
    return dashboard_command(spec.namespace, {RUN_LABEL: run_label(run_id), **HEAD})


def _is_address(dashboard: object) -> bool:
    return isinstance(dashboard, str) and dashboard.startswith(("http://", "https://"))
