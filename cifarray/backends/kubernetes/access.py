"""A cluster's store as this machine reaches it: by a port-forward, with keys from a Secret."""

import base64
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from cifarray.backends.kubernetes.client import Kube, RefusedError
from cifarray.backends.kubernetes.forward import forwarded, ready_pod
from cifarray.backends.kubernetes.pods import of_kubernetes
from cifarray.errors import ClusterError, StoreRefusedError
from cifarray.spec.profile import Profile, StoreSpec

STORE_PORT = 7070
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@contextmanager
def reached_store(profile: Profile, kube: Kube) -> Iterator[StoreSpec]:
    """The profile's store with an endpoint that answers here, until the context ends.

    The keys go into this process' environment, where boto3 and pyarrow find them.
    Raises: ClusterError, StoreError where nobody gives keys.
    """
    spec = of_kubernetes(profile)
    use_keys(kube, spec.store_secret)
    if spec.store_service is None:
        yield profile.store
        return
    selector = service_selector(kube, spec.store_service)
    find = partial(ready_pod, kube, selector, f"the store {spec.store_service}")
    find()
    with forwarded(kube, find, STORE_PORT) as port:
        yield profile.store.model_copy(update={"endpoint": f"http://127.0.0.1:{port}"})


def use_keys(kube: Kube, secret: str) -> None:
    """Take the store's keys from the Secret, or leave those that the environment has."""
    try:
        found = kube.get("Secret", secret)
    except RefusedError as error:
        if error.code != 403:
            raise
        if all(os.environ.get(name) for name in KEYS):
            return
        raise StoreRefusedError(
            f"the Secret {secret} with the store's keys is not yours to read; ask for the Role "
            "cifarray-submitter, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    if found is None:
        return
    keys = decoded(found)
    os.environ |= {name: keys[name] for name in KEYS if name in keys}
    os.environ.pop("AWS_PROFILE", None)
    os.environ.pop("AWS_SESSION_TOKEN", None)


def decoded(secret: Mapping[str, Any] | None) -> dict[str, str]:
    """A Secret's values as text; none of one that is not there."""
    data = (secret or {}).get("data") or {}
    return {name: base64.b64decode(value).decode() for name, value in data.items()}


def service_selector(kube: Kube, service: str) -> dict[str, str]:
    """The labels of the pods behind a Service. Raises: ClusterError."""
    found = kube.get("Service", service)
    if found is None:
        raise ClusterError(
            f"there is no Service {service} in namespace {kube.namespace} of {kube.context}; "
            "`cifarray cluster up --cluster PROFILE` makes it"
        )
    return dict(found["spec"].get("selector") or {})
