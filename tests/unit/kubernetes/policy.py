"""What every pod of the project has to keep to, as rules over plain objects.

They hold for pods that manifests will make and for pods that an API server has, alike.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cifarray.spec.quantity import amount
from tests.unit.kubernetes.ray_pods import AUTOSCALER, Pod

Rule = Callable[[Pod], Iterator[str]]

VOLUMES = ("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "projected", "secret")
"""Kinds of volume that the restricted Pod Security Standard lets in, with the one below."""
CLAIM = "persistentVolumeClaim"
PROFILES = ("RuntimeDefault", "Localhost")
FOR_ROOTS = ("hostNetwork", "hostPID", "hostIPC")
IMAGE = re.compile(r"[^\s:@]+(:\d+/[^\s:@]+)?(:(?P<tag>[\w][\w.-]*))?(@sha256:[0-9a-f]{64})?")
SECRET_NAME = re.compile(
    r"(^|_)(ACCESS_KEY(_ID)?|SECRET\w*|PASSWORD|PASSWD|TOKEN|API_?KEY|PRIVATE_KEY)$", re.IGNORECASE
)
SECRET_VALUE = re.compile(
    r"://[^/\s:@]+:[^/\s@]+@|-----BEGIN [A-Z ]*PRIVATE KEY|\bAKIA[0-9A-Z]{16}\b"
)
DRAIN_S = 30
"""`ray start --block` drains for so long when it is told to end."""
MAKES_SECRETS = "secrets"
"""Value of cifarray/role of the one pod, Ray's autoscaler aside, that speaks to the API server."""
KUBERAYS_LOGS = "ray-logs"
TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"


def restricted(pod: Pod) -> Iterator[str]:
    """The restricted Pod Security Standard, with every user named."""
    whole = pod.spec.get("securityContext", {})
    yield from (f"sets {name}" for name in FOR_ROOTS if pod.spec.get(name))
    if whole.get("sysctls") or whole.get("windowsOptions", {}).get("hostProcess"):
        yield "changes the node's own settings"
    for volume in pod.spec.get("volumes", ()):
        kinds = set(volume) - {"name"}
        if not kinds <= {*VOLUMES, CLAIM}:
            yield f"has volume {volume['name']} of a forbidden kind"
    for container in pod.containers:
        own = container.get("securityContext", {})
        for problem in _unlocked({**whole, **own}, own):
            yield f"container {container['name']} {problem}"
        if any(port.get("hostPort") for port in container.get("ports", ())):
            yield f"container {container['name']} takes a port of the node"


def _unlocked(context: dict[str, Any], own: dict[str, Any]) -> Iterator[str]:
    """What of a container's security context is not as restricted wants it."""
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        yield "may run as root"
    if context.get("seccompProfile", {}).get("type") not in PROFILES:
        yield "has no seccomp profile"
    if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
        yield "may gain privileges"
    capabilities = own.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        yield "keeps capabilities"
    if own.get("procMount", "Default") != "Default":
        yield "sees the node's processes"


def read_only_root(pod: Pod) -> Iterator[str]:
    """No container writes to its image."""
    for container in pod.containers:
        if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
            yield f"container {container['name']} may write to its root file system"


def resources(pod: Pod) -> Iterator[str]:
    """Every container says what it takes at least and at most, of CPU and of memory."""
    for container in pod.containers:
        said = container.get("resources", {})
        for bound in ("requests", "limits"):
            missing = {"cpu", "memory"} - set(said.get(bound, {}))
            if missing:
                names = " and ".join(sorted(missing))
                yield f"container {container['name']} has no {bound} of {names}"


def no_plain_secrets(pod: Pod) -> Iterator[str]:
    """Secrets come from Secret objects alone."""
    for container in pod.containers:
        for variable in container.get("env", ()):
            name, value = variable["name"], str(variable.get("value") or "")
            if (SECRET_NAME.search(name) and value) or SECRET_VALUE.search(value):
                yield f"container {container['name']} has {name} in plain text"
        for word in [*container.get("command", ()), *container.get("args", ())]:
            if SECRET_VALUE.search(word):
                yield f"container {container['name']} has a secret on its command line"


def images(pod: Pod) -> Iterator[str]:
    """Images have an exact tag or a digest, and are not asked for again."""
    for container in pod.containers:
        found = IMAGE.fullmatch(container["image"])
        exact = found and ("@" in container["image"] or found["tag"] not in (None, "latest"))
        if not exact:
            yield f"container {container['name']} has image {container['image']}, which may move"
        pulls = container.get("imagePullPolicy")
        if pulls != "IfNotPresent":
            yield f"container {container['name']} pulls its image {pulls}"


def volumes(pod: Pod) -> Iterator[str]:
    """What is mounted exists, and what exists is mounted."""
    existing = {volume["name"] for volume in pod.spec.get("volumes", ())}
    mounted = set()
    for container in pod.containers:
        mounts = container.get("volumeMounts", ())
        mounted |= {mount["name"] for mount in mounts}
        for path in {mount["mountPath"] for mount in mounts}:
            if sum(mount["mountPath"] == path for mount in mounts) > 1:
                yield f"container {container['name']} mounts two volumes at {path}"
    yield from (f"mounts {name}, which is no volume" for name in sorted(mounted - existing))
    yield from (f"has volume {name}, which nobody mounts" for name in sorted(existing - mounted))
    for volume in pod.spec.get("volumes", ()):
        ours = "emptyDir" in volume and volume["name"] != KUBERAYS_LOGS
        if ours and "sizeLimit" not in (volume["emptyDir"] or {}):
            yield f"has volume {volume['name']} without a limit"


def probe_ports(pod: Pod) -> Iterator[str]:
    """A probe that names a port means one of its own container."""
    for container in pod.containers:
        names = {port.get("name") for port in container.get("ports", ())}
        for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
            asked = container.get(probe, {})
            target = asked.get("httpGet") or asked.get("tcpSocket") or {}
            if isinstance(target.get("port"), str) and target["port"] not in names:
                yield f"container {container['name']} is probed at port {target['port']}"


def no_token(pod: Pod) -> Iterator[str]:
    """Nothing but the autoscaler and the Job that makes Secrets has a token of the API server."""
    if pod.labels.get("cifarray/role") == MAKES_SECRETS:
        return
    if pod.spec.get("automountServiceAccountToken") is not False:
        yield "may mount its service account's token"
    with_token = {
        volume["name"]
        for volume in pod.spec.get("volumes", ())
        for source in volume.get("projected", {}).get("sources", ())
        if "serviceAccountToken" in source
    }
    for container in pod.containers:
        for mount in container.get("volumeMounts", ()):
            told = mount["name"] in with_token or mount["mountPath"] == TOKEN_FOLDER
            if told and container["name"] != AUTOSCALER:
                yield f"container {container['name']} mounts a token"


def ray_memory(pod: Pod) -> Iterator[str]:
    """Ray's object store fits the shared memory, which fits the container's memory."""
    if not pod.of_ray:
        return
    shared = {
        volume["name"]: volume["emptyDir"].get("sizeLimit")
        for volume in pod.spec.get("volumes", ())
        if (volume.get("emptyDir") or {}).get("medium") == "Memory"
    }
    ray = pod.spec["containers"][0]
    size = next(
        (
            shared.get(m["name"])
            for m in ray.get("volumeMounts", ())
            if m["mountPath"] == "/dev/shm"
        ),
        None,
    )
    memory = ray.get("resources", {}).get("limits", {}).get("memory")
    if not size:
        yield "has no bounded shared memory at /dev/shm"
    elif memory and amount(size) > amount(memory) / 2:
        yield f"gives {size} of its {memory} to shared memory"


def ends_in_time(pod: Pod) -> Iterator[str]:
    """A Ray pod gets longer to end than its drain takes, with room for a checkpoint's upload."""
    grace_s = pod.spec.get("terminationGracePeriodSeconds", 30)
    if pod.of_ray and grace_s < DRAIN_S + 60:
        yield f"has {grace_s} s to end, and Ray's drain takes {DRAIN_S} s"


POD_RULES: dict[str, Rule] = {
    "restricted": restricted,
    "read-only root": read_only_root,
    "resources": resources,
    "no plain secrets": no_plain_secrets,
    "images": images,
    "volumes": volumes,
    "probe ports": probe_ports,
    "no token": no_token,
    "ray memory": ray_memory,
    "ends in time": ends_in_time,
}


def findings(pods: Iterable[Pod]) -> list[str]:
    """What the pods break, a line each: rule, pod, problem."""
    return [
        f"{name}: {pod.where} {problem}"
        for pod in pods
        for name, rule in POD_RULES.items()
        for problem in rule(pod)
    ]
