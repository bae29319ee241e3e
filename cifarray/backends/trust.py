"""Trust in the store's records: a record never decides where credentials are sent.

Whoever may write to the store writes a run's status.json and job.yaml, and with them addresses,
contexts, namespaces, jobs and the code that a run names. A recorded place is used only if the user
has named it: in the profile of --cluster, in a profile that comes with cifarray, or when the run
was submitted from here. What the user's own profile says is used then, not what the record says.

Which runs were submitted from here is a list in the user's own folder, which no store reaches. A
run counts as one only while its job.yaml has the bytes that were written then.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from cifarray.backends.base import PATIENCE_S, Backend
from cifarray.backends.choice import backend_of, recorded_class
from cifarray.backends.kubernetes.backend import may_be_context
from cifarray.backends.kubernetes.rayjob import NAME_LENGTH, rayjob_name
from cifarray.backends.local.backend import LocalBackend
from cifarray.backends.local.state import append_private, read_node
from cifarray.digests import content_sha256
from cifarray.errors import ClusterError, InputError, KeyMissingError, UntrustedError
from cifarray.models.registry import is_user_network
from cifarray.runs import Run
from cifarray.runs.run import read_spec, spec_bytes
from cifarray.spec.bounds import parse_json
from cifarray.spec.load import load_profile, profile_names
from cifarray.spec.profile import KubernetesSpec, Profile, StoreSpec
from cifarray.spec.run import RunSpec
from cifarray.store.layout import SPEC_FILE
from cifarray.user_folders import state_folder

MOST_SUBMISSIONS = 1000
"""How many RayJobs of a run with shortened names can be distinguished from other runs' jobs."""
ALLOW = "give --cluster PROFILE with a profile that names it, if you trust it"
SUBMITTED_FILE = "submitted.jsonl"


def recorded_backend(
    run: Run,
    record: Mapping[str, Any] | None,
    named: Profile | None = None,
    patience_s: float = PATIENCE_S,
) -> Backend | None:
    """The cluster that a run's status names; None if it names none or our node has ended.

    `named` is the profile of --cluster. Raises: UntrustedError for a cluster or a job that the
    user has not named, ClusterError for a record that names no cluster, StoreError.
    """
    if record is None:
        return None
    refuse_foreign_job(run.id, record)
    dashboard = record.get("dashboard")
    if not isinstance(dashboard, str):
        return None
    if recorded_class(record).own:
        profile = Profile(name=str(record.get("profile")), kind="local")
        return LocalBackend.find(profile, dashboard)
    return _naming_backend(run, record, named, patience_s)


def _naming_backend(
    run: Run, record: Mapping[str, Any], named: Profile | None, patience_s: float = PATIENCE_S
) -> Backend:
    """The backend of the user profile that names what a run's status names.

    The context of --cluster wins over a recorded one.
    """
    refuse_foreign_job(run.id, record)
    for own in _own_profiles(run, named):
        if found := backend_of(own).recorded_as(record, own is named, patience_s):
            return found
    raise UntrustedError(
        f"run {run.id} is recorded {recorded_class(record).place_of(record)}, which none of your "
        f"cluster profiles names; {ALLOW}"
    )


def refuse_foreign_job(run_id: str, record: Mapping[str, Any]) -> None:
    """Raise UntrustedError where a run's record names a job that is not one of the run's."""
    job_id = record.get("job_id")
    if job_id is not None and not is_job_of(run_id, job_id):
        raise UntrustedError(
            f"run {run_id} is recorded as job {job_id}, which is not a job of this run; submit "
            "the run again, and check who else writes to the store"
        )


def is_job_of(run_id: str, job_id: object) -> bool:
    """Whether a job has the name of one of the run's submissions."""
    if not isinstance(job_id, str):
        return False
    if re.fullmatch(re.escape(run_id) + r"-[1-9]\d{0,8}(\.\d{1,9})?", job_id, re.ASCII):
        return True
    is_cut = len(job_id) <= NAME_LENGTH < len(run_id) + 1 + len(str(MOST_SUBMISSIONS))
    numbers = range(1, MOST_SUBMISSIONS + 1) if is_cut else ()
    return any(rayjob_name(run_id, number) == job_id for number in numbers)


def shown_dashboard(run: Run, record: Mapping[str, Any], named: Profile | None) -> str | None:
    """Where a person sees the run's dashboard; a recorded text is never shown as a command.

    Raises: UntrustedError, ClusterError, StoreError.
    """
    dashboard = record.get("dashboard")
    if not isinstance(dashboard, str):
        return None
    if recorded_class(record).own:
        node = read_node()
        return node.dashboard if node is not None and node.dashboard == dashboard else None
    return _naming_backend(run, record, named).dashboard_of(run.id)


def resumed_profile(
    run: Run, named: Profile | None, uri: str | None = None, endpoint: str | None = None
) -> Profile:
    """The profile to go on with: sizes as job.yaml records them, every address the user's own.

    `uri` and `endpoint` are what the command says of the store, which the pods of a profile on
    Kubernetes use too. Raises: InputError, StoreError.
    """
    recorded = run.spec().profile
    if backend_of(recorded).own:
        return recorded
    typed = {"uri": uri, "endpoint": endpoint} if named and named.kubernetes else {}
    given = {name: value for name, value in typed.items() if value}
    for own in _own_profiles(run, named):
        mine = own.model_copy(update={"store": own.store.model_copy(update=given)})
        if _differing(mine, recorded, explicit=own is named) == []:
            where = ("address", "dashboard", "kubernetes", "store")
            return recorded.model_copy(update={name: getattr(mine, name) for name in where})
    hint = ""
    if named is not None and named.kind == recorded.kind:
        mine = named.model_copy(update={"store": named.store.model_copy(update=given)})
        hint = f" (profile {named.name} differs in {', '.join(_differing(mine, recorded, True))})"
    raise InputError(
        f"job.yaml of run {run.id} asks for {_asked(recorded)}, which matches none of your "
        f"cluster profiles{hint}; {ALLOW}, or submit its job again"
    )


def code_of(spec: RunSpec) -> list[str]:
    """What a run executes that its record brings or names, in words; empty for cifarray's own."""
    brought = []
    if spec.code is not None:
        brought.append(f"the code that it brings (sha256 {spec.code.sha256[:12]})")
    if is_user_network(spec.job.model.name):
        brought.append(f"the network {spec.job.model.name}")
    if spec.job.sweep is not None:
        brought.append("the state of its search, a pickle of Ray Tune")
    return brought


def _own_profiles(run: Run, named: Profile | None) -> Iterator[Profile]:
    """What the user has named, the most explicit first."""
    if named is not None:
        yield named
    if (spec := submitted_spec(run)) is not None:
        yield _with_context(spec.profile, submitted_context(run.id))
    for name in profile_names():
        yield load_profile(name)


def _with_context(own: Profile, context: str | None) -> Profile:
    """The profile with the context that was current when the run went to its cluster."""
    if own.kubernetes is None or own.kubernetes.context is not None or context is None:
        return own
    section = own.kubernetes.model_copy(update={"context": context})
    return own.model_copy(update={"kubernetes": section})


def _differing(own: Profile, recorded: Profile, explicit: bool) -> list[str]:
    """The fields in which a profile of the user's is another place than the recorded one.

    A profile that the command names may also give other pods in that place.
    """
    if own.kind != recorded.kind:
        return ["kind"]
    pairs: dict[str, tuple[object, object]] = {
        name: (getattr(own, name), getattr(recorded, name)) for name in ("address", "dashboard")
    }
    if own.kubernetes is not None and recorded.kubernetes is not None:
        pairs |= {
            f"store.{name}": (getattr(own.store, name), getattr(recorded.store, name))
            for name in StoreSpec.model_fields
        }
        place = ("mode", "namespace", "ray_cluster")
        fields = place if explicit else tuple(KubernetesSpec.model_fields)
        mine, theirs = own.kubernetes, recorded.kubernetes
        pairs |= {f"kubernetes.{n}": (getattr(mine, n), getattr(theirs, n)) for n in fields}
        pairs.pop("kubernetes.context", None)
        if not explicit and not may_be_context(mine.context, theirs.context):
            return ["kubernetes.context"]
    return [name for name, (mine, theirs) in pairs.items() if mine != theirs]


def _asked(recorded: Profile) -> str:
    if recorded.kubernetes is None:
        return f"the Ray node {recorded.address} with dashboard {recorded.dashboard}"
    section, store = recorded.kubernetes, recorded.store
    return (
        f"namespace {section.namespace} with image {section.image} and store {store.uri}"
        f" at {store.endpoint or 'AWS'}"
    )


def remember_submission(spec: RunSpec) -> None:
    """Note a run that is submitted now; if no folder is writable, `resume` asks about it."""
    _append(_of_job(spec.run_id, spec_bytes(spec)))


def remember_context(run_id: str, context: str) -> None:
    """Note with which context of this kubeconfig a run was submitted."""
    _append({"run_id": run_id, "context": context})


def submitted_spec(run: Run) -> RunSpec | None:
    """The run's job.yaml, if it is the one that was submitted from here. Raises: StoreError."""
    known = _entries()
    if not any(entry.get("run_id") == run.id for entry in known):
        return None
    try:
        data = run.store.read(run.key(SPEC_FILE))
    except KeyMissingError:
        return None
    return read_spec(run.id, data) if _of_job(run.id, data) in known else None


def submitted_context(run_id: str) -> str | None:
    """The context by which a run last went to its cluster from here."""
    contexts = [entry.get("context") for entry in _entries() if entry.get("run_id") == run_id]
    return next((context for context in reversed(contexts) if context), None)


def _of_job(run_id: str, data: bytes) -> dict[str, str]:
    return {"run_id": run_id, "job_sha256": content_sha256(data)}


def _append(entry: dict[str, str]) -> None:
    with suppress(ClusterError, OSError):
        append_private(state_folder() / SUBMITTED_FILE, json.dumps(entry) + "\n")


def _entries() -> list[dict[str, str]]:
    """All notes; a line that was not written completely is ignored."""
    try:
        text = (state_folder() / SUBMITTED_FILE).read_text("utf-8", "replace")
    except (ClusterError, OSError):
        return []
    found = []
    for line in text.splitlines():
        with suppress(ValueError):
            found.append(parse_json(line))
    return [entry for entry in found if isinstance(entry, dict)]
