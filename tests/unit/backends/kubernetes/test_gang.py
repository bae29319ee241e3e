"""Who starts a run's pods together: what profile and cluster say, and what is written."""

import re

import pytest

from cifarray.backends.kubernetes.client import Kube
from cifarray.backends.kubernetes.pods import Gang, find_gang, named_gang
from cifarray.backends.kubernetes.rayjob import launch_rayjob, rayjob, run_objects
from cifarray.errors import JobError
from cifarray.runs import Run
from cifarray.spec.profile import GangScheduler, KubernetesSpec
from cifarray.store import Store
from tests.unit.backends.kubernetes.api_server import Answer, ApiServer
from tests.unit.backends.kubernetes.kube_requests import (
    JOB_ID,
    RAYJOBS,
    recorded_run,
    request,
)
from tests.unit.kubernetes.ray_schemas import problems

QUEUES = "/apis/kueue.x-k8s.io/v1beta2/namespaces/cifarray/localqueues"
WRITTEN: dict[GangScheduler, dict[str, str]] = {
    "kueue": {"kueue.x-k8s.io/queue-name": "team-a"},
    "volcano": {"volcano.sh/queue-name": "team-a"},
    "yunikorn": {
        "ray.io/gang-scheduling-enabled": "true",
        "yunikorn.apache.org/app-id": JOB_ID,
        "yunikorn.apache.org/queue": "team-a",
    },
}
"""The labels of a RayJob that KubeRay's and the schedulers' own documentation names."""


def put_queues(api: ApiServer, *names: str) -> None:
    for name in names:
        api.put(f"{QUEUES}/{name}")


def found(kube: Kube, **fields: str) -> Gang:
    return find_gang(kube, KubernetesSpec.model_validate(fields))


@pytest.mark.parametrize(("scheduler", "labels"), WRITTEN.items())
def test_a_rayjob_carries_the_labels_of_its_scheduler_and_of_no_other(
    scheduler: GangScheduler, labels: dict[str, str]
):
    manifest = rayjob(request(gang=scheduler, queue="team-a"), 1)
    ours = re.compile(r"cifarray/|app\.kubernetes\.io/")
    written = manifest["metadata"]["labels"]
    theirs = {name: written[name] for name in written if not ours.match(name)}
    assert theirs == labels
    assert manifest["spec"].get("suspend", False) is (scheduler == "kueue")
    assert len(run_objects(request(gang=scheduler, queue="team-a"), 1)) == 2
    assert problems(manifest) == []


def test_scheduler_plugins_get_a_group_of_head_and_workers_that_comes_before_the_rayjob():
    asked = request(gang="scheduler-plugins", scheduler_name="scheduler-plugins-scheduler")
    _, group, job = run_objects(asked, 1)
    assert (group["kind"], group["spec"]) == ("PodGroup", {"minMember": 3})
    cluster = job["spec"]["rayClusterSpec"]
    for pods in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        labels = pods["template"]["metadata"]["labels"]
        assert labels["scheduling.x-k8s.io/pod-group"] == group["metadata"]["name"]
        assert pods["template"]["spec"]["schedulerName"] == "scheduler-plugins-scheduler"
    assert problems(job) == []


def test_nobody_schedules_a_gang_unless_told_to():
    assert named_gang(KubernetesSpec()) == Gang("none")
    plain = rayjob(request(), 1)
    assert rayjob(request(gang="none"), 1)["metadata"] == plain["metadata"]
    assert "schedulerName" not in str(plain)


def test_auto_takes_the_queue_that_the_profile_names(kube: Kube, api: ApiServer):
    assert found(kube, queue="team-a") == Gang("kueue", "team-a")
    assert api.asked == []


def test_auto_takes_the_only_queue_of_the_namespace_and_chooses_between_none(
    api: ApiServer, kube: Kube
):
    assert found(kube) == Gang("none")
    put_queues(api, "team-a")
    assert found(kube) == Gang("kueue", "team-a")
    put_queues(api, "team-b")
    assert found(kube) == Gang("none")


@pytest.mark.parametrize(
    ("group", "scheduler"),
    [("scheduling.volcano.sh", "volcano"), ("scheduling.x-k8s.io", "scheduler-plugins")],
)
def test_auto_takes_the_scheduler_whose_api_group_the_cluster_has(
    api: ApiServer, kube: Kube, group: str, scheduler: GangScheduler
):
    api.put(f"/apis/{group}")
    assert found(kube) == Gang(scheduler)
    assert found(kube, gang="none") == Gang("none")
    put_queues(api, "team-a")
    assert found(kube) == Gang("kueue", "team-a")


def test_auto_leaves_a_scheduler_alone_whose_group_the_caller_may_not_make(
    api: ApiServer, kube: Kube
):
    api.put("/apis/scheduling.x-k8s.io")
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    api.script(f"POST {path}", Answer(201, {"status": {"allowed": False}}))
    assert found(kube) == Gang("none")


def test_who_may_not_list_queues_submits_without_one(api: ApiServer, kube: Kube):
    put_queues(api, "team-a")
    api.forbid(f"GET {QUEUES}")
    assert found(kube) == Gang("none")


@pytest.mark.parametrize(
    ("names", "words"), [((), "the namespace has none"), (("a", "b"), "one of a, b")]
)
def test_kueue_without_a_queue_to_name_is_refused(
    api: ApiServer, kube: Kube, names: tuple[str, ...], words: str
):
    put_queues(api, *names)
    with pytest.raises(JobError, match=words):
        found(kube, gang="kueue")


def test_a_submission_is_written_for_what_the_cluster_has(api: ApiServer, kube: Kube, store: Store):
    put_queues(api, "team-a")
    run: Run = recorded_run(store)
    launch_rayjob(run, run.spec().profile, kube, 1)
    made = api.objects[f"{RAYJOBS}/{JOB_ID}"]
    assert WRITTEN["kueue"].items() <= made["metadata"]["labels"].items()
    assert made["spec"]["suspend"] is True


def test_a_partial_allocation_is_given_back_after_the_profiles_time():
    def waits(**fields: object) -> int:
        return int(rayjob(request(**fields), 1)["spec"]["preRunningDeadlineSeconds"])

    assert waits(max_wait_s=900, retries=2) == 300
    assert waits(max_wait_s=900, retries=2, partial_wait_s=120) == 120
    assert waits(max_wait_s=900, retries=2, partial_wait_s=800) == 300
    assert KubernetesSpec(mode="ray-jobs", max_wait_s=900).cluster_wait_s == 900
    assert KubernetesSpec(mode="ray-jobs", partial_wait_s=120).cluster_wait_s == 120
