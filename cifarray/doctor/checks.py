"""Which checks a profile gets, in which order; the registry of those on Kubernetes."""

from collections.abc import Iterator
from contextlib import ExitStack

from cifarray.backends.base import FAILED, PASSED, Check, Finding, Result, carry_out, skipped
from cifarray.backends.kubernetes import checks as cluster
from cifarray.backends.kubernetes import checks as pods
from cifarray.backends.kubernetes.access import reached_store
from cifarray.backends.kubernetes.checks import Site
from cifarray.backends.local.checks import DIRECTORY_CHECKS, MACHINE_CHECKS, Here
from cifarray.doctor.store import BUCKET_CHECKS, Bucket
from cifarray.errors import CifarrayError
from cifarray.spec.profile import Profile
from cifarray.store import Store

API = "API server"
CLUSTER_CHECKS: tuple[Check[Site], ...] = (
    Check(API, cluster.api_server),
    Check("rights", cluster.rights, needs=API),
    Check("KubeRay's kinds", cluster.definitions, needs=API),
    Check("KubeRay's operator", cluster.operator, needs=API),
    Check("Pod Security", cluster.pod_security, needs=API),
    Check("Ray versions", cluster.ray_versions, needs="KubeRay's kinds"),
    Check("token", cluster.auth_token, needs=API),
    Check("pull secret", cluster.pull_secret, needs=API),
    Check("GPUs", pods.gpu_capacity, needs=API),
    Check("quota", pods.quota, needs=API),
    Check("DNS", pods.dns, needs=API),
    Check("drain", pods.drain, needs="KubeRay's kinds"),
    Check("shared memory", pods.shared_memory, needs="KubeRay's kinds"),
)


def diagnose(profile: Profile, local_store: Store) -> Iterator[Finding]:
    """Carry out every check that fits the profile, one after the other.

    `local_store` is the one to look at for profiles of kind local.
    """
    if profile.kind == "local":
        yield from carry_out(MACHINE_CHECKS, Here(profile, local_store))
        yield from diagnose_store(profile, local_store)
        return
    site, answers = Site(profile), False
    for found in carry_out(CLUSTER_CHECKS, site):
        answers = answers or (found.check == API and found.result.outcome == PASSED)
        yield found
    if not answers:
        yield from _all_skipped(f"`{API}` has to pass first")
        return
    with ExitStack() as stack:
        try:
            spec = stack.enter_context(reached_store(profile, site.kube))
        except CifarrayError as error:
            yield Finding(BUCKET_CHECKS[0].name, Result(FAILED, str(error)))
            yield from _all_skipped(f"`{BUCKET_CHECKS[0].name}` has to pass first", start=1)
            return
        yield from diagnose_store(profile, Store.open(spec.uri, spec.endpoint))


def diagnose_store(profile: Profile, store: Store) -> Iterator[Finding]:
    """Carry out the checks of one store; the contract of a bucket's server is probed anew."""
    if store.uri.startswith("s3://"):
        yield from carry_out(BUCKET_CHECKS, Bucket(store))
    else:
        yield from carry_out(DIRECTORY_CHECKS, Here(profile, store))


def names(profile: Profile) -> list[str]:
    """The names of the checks that a profile may get."""
    own = CLUSTER_CHECKS if profile.kind == "kubernetes" else MACHINE_CHECKS
    return [*(each.name for each in own), *(each.name for each in BUCKET_CHECKS)]


def _all_skipped(reason: str, start: int = 0) -> Iterator[Finding]:
    for check in BUCKET_CHECKS[start:]:
        yield Finding(check.name, skipped(reason))
