"""The kubeconfig of whoever calls, and which of its contexts leads to a run's cluster."""

import os
from typing import Any

from cifarray.errors import ClusterError


def kubeconfig() -> str:
    """Its file, or several with the system's separator.

    The client library reads the variable when it is first imported, which may be long ago.
    """
    from kubernetes import config

    return os.environ.get("KUBECONFIG") or str(config.KUBE_CONFIG_DEFAULT_LOCATION)


def load(settings: Any, wanted: str | None) -> str:
    """Fill a client's settings from a context, or from the current one; its name.

    Raises: ClusterError.
    """
    import yaml
    from kubernetes import config
    from kubernetes.config.config_exception import ConfigException

    file = kubeconfig()
    try:
        context = wanted or str(config.list_kube_config_contexts(file)[1]["name"])
        config.load_kube_config(file, context, settings)
    except (ConfigException, yaml.YAMLError, OSError, KeyError, TypeError) as error:
        named = f" with a context {wanted}" if wanted else ""
        told = " ".join(str(error).split()).rstrip(".")
        raise ClusterError(
            f"no kubeconfig{named} is in reach ({told}); set KUBECONFIG, or kubernetes.context"
            " in the cluster profile to a name that `kubectl config get-contexts` lists"
        ) from error
    return context


def has_context(name: str) -> bool:
    """Whether this kubeconfig has a context of this name."""
    return name in _contexts()[0]


def current_context() -> str | None:
    """The context that this kubeconfig uses where none is named."""
    return _contexts()[1]


def _contexts() -> tuple[list[str], str | None]:
    """All contexts, and the current one; none of a kubeconfig that cannot be read."""
    import yaml
    from kubernetes import config
    from kubernetes.config.config_exception import ConfigException

    try:
        found, current = config.list_kube_config_contexts(kubeconfig())
        return [str(each["name"]) for each in found], str(current["name"])
    except (ConfigException, yaml.YAMLError, OSError, KeyError, TypeError):
        return [], None
