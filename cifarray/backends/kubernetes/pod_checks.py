"""Checks of what pods of runs need: room in quota and nodes, DNS, time to end, shared memory."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from cifarray.backends.base import Result, failed, passed, skipped
from cifarray.backends.kubernetes.client import RefusedError
from cifarray.backends.kubernetes.pods import GPU, worker_template
from cifarray.backends.kubernetes.site import OBJECT_STORE, Group, Site

DRAIN_S = 30
"""How long `ray start --block` drains a node after SIGTERM."""
UPLOAD_S = 30
"""What a checkpoint's upload is given after that, at least."""
DEFAULT_GRACE_S = 30
RAYS_SHARE = Decimal("0.3")
"""Of a node's memory, which Ray's object store takes where nothing else is said."""
DNS_PORT = 53
DNS_POLICY = "dns"


def gpu_capacity(site: Site) -> Result:
    """The nodes that workers may use have the GPUs of a whole run."""
    each = int(site.profile.gpus_per_worker)
    if not each:
        return skipped(f"workers of profile {site.profile.name} ask for no GPU")
    wanted = each * site.profile.workers
    selector = worker_template(site.profile, {})["spec"].get("nodeSelector") or {}
    sizes = [_gpus(node) for node in site.kube.list("Node", selector) if not _is_closed(node)]
    fitting = sum(size // each * each for size in sizes)
    among = f" among those labelled {_words(selector)}" if selector else ""
    if fitting < wanted:
        return failed(
            f"{sum(sizes)} GPUs on {sum(map(bool, sizes))} nodes{among}, and a run of "
            f"{site.profile.workers} workers takes {wanted}, {each} on a node at a time",
            "add nodes (or take no notice where the cluster adds them by itself), or lower workers "
            "in the profile",
        )
    return passed(
        f"{sum(sizes)} GPUs on {sum(map(bool, sizes))} nodes{among}, a run takes {wanted}"
    )


def quota(site: Site) -> Result:
    """A run of the profile's size fits into what the namespace's quotas leave."""
    quotas = site.kube.list("ResourceQuota")
    if not quotas:
        return skipped(f"namespace {site.spec.namespace} has no quota")
    shared = site.spec.mode == "ray-jobs"
    if shared and site.ray_cluster is None:
        return failed(
            f"there is no RayCluster {site.spec.ray_cluster}", "`cifarray cluster up` makes it"
        )
    groups = site.shared_groups()[1:] if shared else site.run_groups()
    wanted = needs(groups, growth=shared)
    lacking, short = [], False
    for each in quotas:
        status = each.get("status") or {}
        for resource, hard in (status.get("hard") or each["spec"].get("hard") or {}).items():
            need = wanted.get(resource, Decimal(0))
            left = amount(hard) - amount((status.get("used") or {}).get(resource, "0"))
            if need > left:
                short = short or need > amount(hard)
                lacking.append(
                    f"{resource}: {need.normalize():f} needed, {left.normalize():f} left of {hard}"
                )
    what = "the RayCluster at its maximum" if shared else f"a run of {site.profile.workers} workers"
    if not lacking:
        return passed(f"there is room for {what}")
    remedy = (
        "raise the quota or make the profile's pods smaller or fewer"
        if short
        else ("wait for what runs now (`cifarray cluster status`), or raise the quota")
    )
    return failed(f"there is no room for {what}: {'; '.join(lacking)}", remedy)


def dns(site: Site) -> Result:
    """Pods may ask for names although the namespace denies all other ways out."""
    try:
        policies = site.kube.list("NetworkPolicy")
    except RefusedError as error:
        if error.code != 403:
            raise
        found = site.kube.get("NetworkPolicy", DNS_POLICY)  # the one that may be read
        policies = [found] if found else []
        if not policies:
            return failed(
                f"there is no NetworkPolicy {DNS_POLICY}", "`cifarray cluster up` makes it"
            )
    out = [each for each in policies if _holds_all(each) and "Egress" in _types(each)]
    if not out:
        return passed("no policy of the namespace keeps pods from asking for names")
    for policy in out:
        if _lets_names_out(policy):
            return passed(f"NetworkPolicy {policy['metadata']['name']} lets names be asked for")
    return failed(
        f"NetworkPolicy {out[0]['metadata']['name']} denies all pods the way out, and none lets "
        "them ask for names (port 53, UDP and TCP)",
        "`cifarray cluster up` makes the policy dns",
    )


def drain(site: Site) -> Result:
    """Pods that end have time for Ray's drain and a checkpoint's upload."""
    least = DRAIN_S + UPLOAD_S
    graces = {
        group.name: int(group.pod.get("terminationGracePeriodSeconds") or DEFAULT_GRACE_S)
        for group in (*site.run_groups(), *site.shared_groups())
    }
    short = [f"{name} has {grace} s" for name, grace in graces.items() if grace < least]
    if short:
        return failed(
            f"{', '.join(short)} to end in, and Ray's drain takes {DRAIN_S} s before a checkpoint "
            "is uploaded",
            f"set terminationGracePeriodSeconds to {least} or more; `cifarray cluster up` sets 120",
        )
    return passed(f"pods have {min(graces.values())} s or more, and the drain takes {DRAIN_S} s")


def shared_memory(site: Site) -> Result:
    """Ray's object store fits into /dev/shm, and that into the pod's memory."""
    troubles = [
        trouble
        for group in (*site.run_groups(), *site.shared_groups())
        for trouble in _shm_troubles(group)
    ]
    if troubles:
        return failed(
            "; ".join(troubles),
            "raise worker_shm, head_shm or the memory in the profile, or the RayCluster's",
        )
    return passed("the object store fits into /dev/shm, and that into the memory, of every pod")


def needs(groups: Iterable[Group], growth: bool = False) -> dict[str, Decimal]:
    """What pods of these groups count for in a quota; with `growth` only those yet to come."""
    total: defaultdict[str, Decimal] = defaultdict(Decimal)
    for group in groups:
        number = group.most - (group.now if growth else 0)
        total["pods"] += number
        for side in ("requests", "limits"):
            for resource, text in group.container["resources"].get(side, {}).items():
                total[f"{side}.{resource}"] += amount(text) * number
    plain = {name: total[f"requests.{name}"] for name in ("cpu", "memory")}
    return {**total, **plain, "count/pods": total["pods"]}


def amount(quantity: object) -> Decimal:
    """A Kubernetes quantity as a number: 500m -> 0.5, 4Gi -> 4294967296."""
    from kubernetes.utils.quantity import parse_quantity

    return Decimal(parse_quantity(quantity))


def _shm_troubles(group: Group) -> list[str]:
    mounts = {each["mountPath"]: each["name"] for each in group.container.get("volumeMounts") or ()}
    volumes = {each["name"]: each for each in group.pod.get("volumes") or ()}
    shm = (volumes.get(mounts.get("/dev/shm", "")) or {}).get("emptyDir") or {}
    if shm.get("medium") != "Memory":
        return [f"{group.name} has no /dev/shm of its own"]
    limit = (group.container["resources"].get("limits") or {}).get("memory")
    memory = amount(limit) if limit else None
    size = amount(shm["sizeLimit"]) if shm.get("sizeLimit") else memory
    if size is None:
        return []
    given = group.start.get(OBJECT_STORE)
    store = amount(given) if given else (memory or Decimal(0)) * RAYS_SHARE
    troubles = []
    if store > size:
        troubles.append(f"{group.name}: {_gib(store)} of objects in {_gib(size)} of /dev/shm")
    if memory is not None and size >= memory:
        troubles.append(f"{group.name}: {_gib(size)} of /dev/shm in {_gib(memory)} of memory")
    return troubles


def _gib(value: Decimal) -> str:
    return f"{value / 2**30:.1f} GiB"


def _gpus(node: Mapping[str, Any]) -> int:
    return int((node["status"].get("allocatable") or {}).get(GPU, 0))


def _is_closed(node: Mapping[str, Any]) -> bool:
    return bool(node.get("spec", {}).get("unschedulable"))


def _words(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items())


def _holds_all(policy: Mapping[str, Any]) -> bool:
    selector = policy["spec"].get("podSelector") or {}
    return not any(selector.values())


def _types(policy: Mapping[str, Any]) -> list[str]:
    spec = policy["spec"]
    return list(spec.get("policyTypes") or (["Ingress"] + ["Egress"] * ("egress" in spec)))


def _lets_names_out(policy: Mapping[str, Any]) -> bool:
    allowed = {
        port.get("protocol", "TCP")
        for rule in policy["spec"].get("egress") or ()
        for port in rule.get("ports") or ({"port": DNS_PORT}, {"port": DNS_PORT, "protocol": "UDP"})
        if port.get("port", DNS_PORT) == DNS_PORT
    }
    return {"TCP", "UDP"} <= allowed
