"""From what a person typed to a run in the store: checked, resolved and recorded."""

import io
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cifarray.backends import checks as preflight
from cifarray.backends.checks_of_sweeps import candidates
from cifarray.backends.kubernetes.record import applied_record
from cifarray.backends.pretrained import Beginning, find_beginning
from cifarray.backends.submissions import remember_submission
from cifarray.data.image_checks import held_shape
from cifarray.data.manifest import Manifest, load_manifest
from cifarray.data.selection import Selection
from cifarray.errors import JobError, StoreError
from cifarray.models.code import code_sha256, pack_code
from cifarray.models.registry import is_own
from cifarray.runs import Run, new_run_id
from cifarray.spec.job import Job
from cifarray.spec.load import with_fields
from cifarray.spec.profile import Profile
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
