"""A cluster's store as this machine reaches it: by a port-forward, with keys from a Secret."""

import base64
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from cifarray.errors import ClusterError, StoreRefusedError
from cifarray.spec.profile import Profile
from cifarray.store import Access, Store
from cifarray.submit.kubernetes.api import Kube, RefusedError
from cifarray.submit.kubernetes.forward import forwarded, ready_pod
from cifarray.submit.kubernetes.pods import of_kubernetes

STORE_PORT = 7070
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@contextmanager
def reached_store(profile: Profile, kube: Kube) -> Iterator[Store]:
    """The profile's store by an endpoint that answers here, until the context ends.

    Raises: ClusterError, StoreError where nobody gives keys.
    """
    spec, store = of_kubernetes(profile), profile.store
    access = store_access(kube, spec.store_secret, store.region)
    if spec.store_service is None:
        yield Store.open(store.uri, store.endpoint, access)
        return
    selector = service_selector(kube, spec.store_service)
    find = partial(ready_pod, kube, selector, f"the store {spec.store_service}")
    find()
    with forwarded(kube, find, STORE_PORT) as port:
        yield Store.open(store.uri, f"http://127.0.0.1:{port}", access)


def store_access(kube: Kube, secret: str, region: str | None) -> Access:
    """The store's keys from the Secret; without it, those that this process finds by itself."""
    try:
        found = kube.get("Secret", secret)
    except RefusedError as error:
        if error.code != 403:
            raise
        if all(os.environ.get(name) for name in KEYS):
            return Access(region)
        raise StoreRefusedError(
            f"the Secret {secret} with the store's keys is not yours to read; ask for the Role "
            "cifarray-submitter, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    keys = decoded(found)
    if not all(keys.get(name) for name in KEYS):
        return Access(region)
    return Access(region, *(keys[name] for name in KEYS))


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
