"""From a submission to a recorded run, and from a recorded run to its cluster."""

import io
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cifarray.backends.base import Backend
from cifarray.backends.checks import (
    candidates,
    check,
    check_workers,
    select,
    utc_now,
    versions,
)
from cifarray.backends.choice import backend_of
from cifarray.backends.observe import EvidenceCollector
from cifarray.backends.pretrained import PretrainedWeights, find_weights
from cifarray.backends.trust import remember_context, remember_submission
from cifarray.data.manifest import Manifest, load_manifest
from cifarray.data.split import Selection
from cifarray.digests import content_sha256
from cifarray.errors import JobError, StoreError
from cifarray.models.registry import is_user_network
from cifarray.models.user_code import pack_code
from cifarray.runs import Run, new_run_id
from cifarray.spec.augment import held_shape
from cifarray.spec.job import Job
from cifarray.spec.load import with_fields
from cifarray.spec.profile import Profile
from cifarray.spec.run import CodeSpec, RunRequest, RunSpec
from cifarray.store import Store
from cifarray.store.layout import CODE_FILE, SPEC_FILE, VALIDATION_FILE, WEIGHTS_FILE, Place
from cifarray.training.trials import decides, unread_fields, unset


@dataclass(frozen=True)
class Submission:
    """A checked job, where it will run and under which id; nothing is written yet."""

    job: Job
    profile: Profile
    workers: int | None = None
    code: Path | None = None
    best_of: dict[str, Any] | None = None
    name: str | None = None
    """The run's id; None: made of the job's name, the date and the time."""

    @property
    def world_size(self) -> int:
        """The workers of the run; for a sweep, of its last evaluation."""
        return self.workers or self.profile.workers

    def seeds(self, number: int) -> "list[Submission]":
        """This many submissions, each with the next seed."""
        first = self.job.seed
        return [
            replace(self, job=with_fields(self.job, {"seed": first + n}), name=name)
            for n, name in enumerate(run_names(self.name, number))
        ]


def run_names(name: str | None, number: int) -> list[str | None]:
    """The ids of this many runs under one name."""
    if name is None or number == 1:
        return [name] * number
    return [f"{name}-{n}" for n in range(1, number + 1)]


def plan(
    job: Job,
    profile: Profile,
    *,
    workers: int | None = None,
    code: Path | None = None,
    best_of: Run | None = None,
    sets: Sequence[str] = (),
    store: Store | None = None,
    name: str | None = None,
) -> Submission:
    """Check a job against its profile, with a sweep's best fields if they are asked for.

    `sets` are the fields given on the command line, which override those of the sweep. `store`
    holds the dataset, if it is one of the user.

    Raises: JobError, StoreError.
    """
    source = None
    if best_of is not None:
        source, own = best_fields(best_of), job.model.name
        job = _with_best(job, source["params"], {item.partition("=")[0] for item in sets})
        if is_user_network(job.model.name) and job.model.name != own:
            raise JobError(
                f"--best-of {best_of.id}: its best trial uses the network {job.model.name}, "
                f"which is code outside cifarray; add --set model.name={job.model.name} to allow "
                "it"
            )
    check(job, profile, workers, code, store)
    return Submission(job, profile, workers, code, source, name)


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

    Raises: JobError if the run is not a sweep.
    """
    report = run.report()
    trials: Sequence[Mapping[str, Any]] = report.get("trials") or []
    best = [trial for trial in trials if trial["id"] == report.get("best_trial_id")]
    if not best:
        raise JobError(f"--best-of {run.id}: this run is not a sweep; give a run of kind tune")
    return {"run_id": run.id, "trial_id": best[0]["id"], "params": dict(best[0]["parameters"])}


def check_data(submission: Submission, store: Store, manifest: Manifest) -> Selection:
    """The run's rows of a prepared dataset, checked. Raises: JobError."""
    workers = check_workers(submission.job, submission.profile, submission.workers)
    return select(store, manifest, submission.job, workers)


def check_weights(
    submission: Submission, store: Store, manifest: Manifest, selection: Selection
) -> None:
    """Check the weights that the job names against its network; timm's are not downloaded for this.

    Raises: JobError, CheckpointError, RunNotFoundError, StoreError.
    """
    if submission.job.model.weights != "timm":
        with tempfile.TemporaryDirectory(prefix="cifarray-weights-") as folder:
            _find_weights(submission, store, manifest, selection, Path(folder))


def _find_weights(
    submission: Submission, store: Store, manifest: Manifest, selection: Selection, folder: Path
) -> PretrainedWeights | None:
    classes, first = len(selection.labels.classes), next(iter(candidates(submission.job)))
    shape = held_shape(manifest.name, manifest.shape, first.preprocess)
    return find_weights(submission.job, store, shape, classes, folder)


def request(submission: Submission, manifest: Manifest | None) -> RunRequest:
    """The request for a run, with the dataset's current digest if that is known."""
    return RunRequest(
        run_id=submission.name or new_run_id(submission.job.name),
        job=submission.job,
        profile=submission.profile,
        workers=submission.workers,
        submitted_at=utc_now(),
        versions=versions(),
        dataset_digest=manifest.digest if manifest else None,
        best_of=submission.best_of,
    )


def record_request(store: Store, asked: RunRequest) -> Run:
    """The run of a request, recorded if it is not yet. Raises: JobError, StoreError.

    A driver does this on a cluster that was given the request and nothing else: if no RayJob is
    recorded for the run, it is the one that was applied.
    """
    run = Run(store, asked.run_id)
    if not store.exists(run.key(SPEC_FILE)):
        submission = Submission(asked.job, asked.profile, asked.workers, None, asked.best_of)
        manifest = load_manifest(store, asked.job.dataset.name, asked.dataset_digest)
        run, _ = _create(submission, store, manifest, asked)
    record = backend_of(asked.profile).applied_record(asked)
    if record is not None and run.status().cluster is None:
        run.change_status(lambda status: replace(status, cluster=status.cluster or record))
    return run


def create(submission: Submission, store: Store, manifest: Manifest) -> Run:
    """Record the run, with its code, its weights and its validation rows.

    Raises: JobError, CheckpointError, RunNotFoundError, StoreError.
    """
    run, spec = _create(submission, store, manifest, request(submission, manifest))
    remember_submission(spec)
    return run


def _create(
    submission: Submission, store: Store, manifest: Manifest, asked: RunRequest
) -> tuple[Run, RunSpec]:
    selection = check_data(submission, store, manifest)
    packed = pack_code(submission.code) if submission.code else None
    with tempfile.TemporaryDirectory(prefix="cifarray-weights-") as folder:
        weights = _find_weights(submission, store, manifest, selection, Path(folder))
        prefix = Place(asked.run_id).prefix
        spec = RunSpec(
            run_id=asked.run_id,
            job=asked.job,
            profile=asked.profile,
            world_size=asked.world_size,
            dataset_digest=manifest.digest,
            validation_rows=len(selection.validation_row_ids),
            validation_sha256=selection.validation_sha256,
            submitted_at=asked.submitted_at,
            versions=asked.versions,
            code=CodeSpec(key=f"{prefix}/{CODE_FILE}", sha256=content_sha256(packed))
            if packed
            else None,
            weights=weights.spec(f"{prefix}/{WEIGHTS_FILE}") if weights else None,
            best_of=asked.best_of,
        )
        run = Run.create(store, spec)
        try:
            if packed:
                store.write(run.key(CODE_FILE), packed)
            if weights:
                store.upload(weights.path, run.key(WEIGHTS_FILE))
            store.write(run.key(VALIDATION_FILE), _as_parquet(selection))
        except StoreError as error:
            with suppress(StoreError):  # the same error as just now
                run.mark_failed(f"the run could not be recorded: {error}")
            raise
    return run, spec


def _as_parquet(selection: Selection) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.table({"row_id": selection.validation_row_ids}), sink, compression="zstd")
    return sink.getvalue()


def launch(run: Run, backend: Backend) -> str:
    """Submit the run's next attempt; the job's id. The run names the cluster before the job runs.

    Raises: ClusterError, StoreError.
    """
    if backend.context is not None:
        remember_context(run.id, backend.context)
    return backend.submit(run)


def give_up(runs: Iterable[Run], error: BaseException, profile: Profile | None = None) -> None:
    """Close runs that no job will execute, because of this error.

    A run that is not pending stays unchanged, and so does one that somebody else has just
    submitted. `profile` is the one for which they were submitted.
    """
    for run in runs:
        status = run.status()
        if status.state != "pending":
            continue
        if isinstance(error, Exception):
            if EvidenceCollector(profile).evidence(run, status).alive:
                continue
            run.mark_failed(f"the run could not be submitted: {error}")
        else:
            run.mark_stopped("the submission was interrupted")
