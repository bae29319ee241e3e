"""One attempt of a run: it takes the lease, continues an earlier attempt, and ends with a report.

Each attempt writes only into its own folder, so that an older attempt that resumes unexpectedly
does no harm. It copies what it builds on before it starts, and copies its report and its choice of
a checkpoint to the run's folder only after the run has finished.
"""

import io
import os
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import ray

from cifarray.backends.local.processes import this_process
from cifarray.data.left_out import summed
from cifarray.data.manifest import Manifest, load_manifest
from cifarray.data.parquet import read_images
from cifarray.data.ray_dataset import keep_shared_actors_here
from cifarray.data.split import learned_labels
from cifarray.driver.capacity import ensure_capacity
from cifarray.driver.heartbeat import WaitsFor, in_time, watched
from cifarray.driver.log import kept_log
from cifarray.driver.post_mortem import keep_post_mortem
from cifarray.errors import CifarrayError, ClusterError, KeyMissingError, LeaseLostError, StoreError
from cifarray.report.build import write_report
from cifarray.report.html import LARGEST_SIDE
from cifarray.report.inputs import SPLITS, Mistake, ReportDataset, ReportInputs, images_per_s
from cifarray.report.network import Layer
from cifarray.report.scores import Predictions
from cifarray.runs import ENDED, Attempt, Run, read_metrics, write_index
from cifarray.runs.failures.causes import find_cause
from cifarray.runs.metrics_log import write_metrics
from cifarray.spec.job import Job
from cifarray.spec.profile import Profile
from cifarray.store import Store
from cifarray.store.layout import (
    BEST_FILE,
    CHECKPOINTS,
    EVALUATION,
    LOG_FILE,
    OUTCOME_FILE,
    PROOF_FILE,
    REPORT,
    STATE_FILE,
    TRIALS,
)
from cifarray.store.patience import PERSON_S
from cifarray.training.checkpoint_store import (
    StoredCheckpoint,
    best_good,
    newest_good,
    stored_checkpoints,
)
from cifarray.training.ray_train import evaluate, train
from cifarray.training.ray_tune import SweepResult, sweep
from cifarray.training.tensorboard import carry_histograms
from cifarray.training.worker import Work

PROCESS_ENVIRONMENT = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else each line of a worker is in the log twice
    "RAY_DATA_USAGE_DISABLED": "1",  # its actor would stay on a worker's node after the run
}
"""Of every process of a run, beside RAY_ADDRESS: Train's own actors look the node up by it, and
find the wrong one where two run."""
STOPPED = 128 + signal.SIGTERM
"""Exit code of a driver that was told to stop, as a shell has it."""
TRIES = 10
"""How often an attempt that still runs may change what is being copied."""
MISTAKES_SHOWN = 24


def execute(run: Run) -> int:
    """Execute one attempt; the exit code: 0 if the run finished, STOPPED if told to, else 1."""
    waits_for = WaitsFor()
    store = run.store.patient(run.spec().profile.store_patience_s, waits_for.store)
    run = Run(store, run.id)
    state = run.status().state
    if state in ENDED:  # KubeRay submits a job again when it failed, or when its head went
        print(
            f"run {run.id} has already ended ({state}); `cifarray resume` starts it again",
            flush=True,
        )
        return 0 if state == "finished" else 1
    attempt = run.take_charge(f"{socket.gethostname()}:{os.getpid()}", this_process())
    with kept_log(run.store, attempt.place.key(LOG_FILE)) as log, _stoppable():
        print(f"run {run.id}, attempt {attempt.number}", flush=True)
        try:
            with attempt.keep_alive():
                carry_over(run, attempt)  # before any reader reads its folder
                attempt.begin()
                with in_time(run.spec().profile), watched(attempt, run.spec(), waits_for):
                    _run_attempt(run, attempt, waits_for.capacity)
            attempt.close("finished")
            publish(run, attempt)
            return 0
        except LeaseLostError as error:
            print(f"error: {error}", flush=True)
        except (KeyboardInterrupt, SystemExit):  # the latter while ray.init() runs
            store.shorten(PERSON_S)  # the command that stopped the run waits for its end
            _close(attempt, "stopped", None)
            return STOPPED
        except CifarrayError as error:
            keep_post_mortem(run, attempt, error, log)
            _close(attempt, "failed", str(error))
        except Exception as error:
            traceback.print_exc()
            keep_post_mortem(run, attempt, error, log)
            _close(attempt, "failed", str(find_cause(error)))
        return 1


def _run_attempt(run: Run, attempt: Attempt, tell: Callable[[str], None]) -> None:
    spec = run.spec()
    _connect(spec.profile)
    keep_shared_actors_here()
    ensure_capacity(spec, tell)
    work = Work(run.store.spec, spec, attempt.place)
    if spec.job.sweep is None:
        train(work)
        close_with_report(run, attempt, None)
    else:
        result = sweep(work)
        evaluate(replace(work, params=result.best.params), result.checkpoint.key)
        close_with_report(run, attempt, result)


def _connect(profile: Profile) -> None:
    """Join the node that the Jobs API or `cifarray run` names, never another one."""
    address = os.environ.get("RAY_ADDRESS") or profile.address
    if not address:
        raise ClusterError("no Ray node is given; set RAY_ADDRESS, or use `cifarray submit`")
    if not ray.is_initialized():
        ray.init(
            address=address,
            runtime_env={"env_vars": {"RAY_ADDRESS": address, **PROCESS_ENVIRONMENT}},
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ray.init() sets one of its own


@contextmanager
def _stoppable() -> Iterator[None]:
    """Turn SIGTERM into KeyboardInterrupt, so that a stopped run closes as stopped.

    It is the only exception of a signal handler that ends a wait within Ray.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _close(attempt: Attempt, state: str, error: str | None) -> None:
    if error:
        print(f"error: {error}", file=sys.stderr, flush=True)
    try:
        attempt.close("failed" if state == "failed" else "stopped", error)
    except LeaseLostError as lost:
        print(f"error: {lost}", flush=True)
    except CifarrayError as failed:
        print(f"error: the end of the run could not be recorded: {failed}", flush=True)


def carry_over(run: Run, attempt: Attempt) -> None:
    """Copy what an earlier attempt reached into this one's folder, before this one starts.

    Of a training: the newest and the best whole checkpoint, the history and the histograms. Of a
    sweep: Tune's whole folder. An attempt that never started has at most a part of it.
    """
    job, newest = run.spec().job, run.newest_attempt()
    for number in sorted((n for n in run.attempt_numbers() if n <= newest), reverse=True):
        earlier = run.place.of_attempt(number).prefix
        if job.sweep is not None:
            copied = _copy_sweep(run.store, earlier, attempt.prefix)
        else:
            copied = _copy_training(run.store, earlier, attempt.prefix, job.metric, number)
        if copied:
            print(f"continuing from attempt {number}: {copied}", flush=True)
            return


def _copy_sweep(store: Store, earlier: str, prefix: str) -> str:
    for tries_left in reversed(range(TRIES)):
        trials = store.folders(f"{earlier}/{TRIALS}")
        if not trials:
            return ""
        try:
            store.copy_folder(f"{earlier}/{TRIALS}", f"{prefix}/{TRIALS}")
        except KeyMissingError:  # deleted since it was listed
            if not tries_left:
                raise
        else:
            return f"{len(trials)} trials"
    raise AssertionError("the last try returns or raises")


def _copy_training(store: Store, earlier: str, prefix: str, metric: str, number: int) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        newest, best = _fetch_newest_and_best(store, earlier, metric, Path(scratch))
        for found in {found.key: found for found in (best, newest) if found}.values():
            assert found.folder
            name = found.key.rpartition("/")[2]
            for file in (STATE_FILE, PROOF_FILE):  # the checked bytes, not what is there now
                target = f"{prefix}/{CHECKPOINTS}/from-attempt-{number}/{name}/{file}"
                store.upload(found.folder / file, target)
    if newest is None:
        return ""
    with suppress(StoreError):  # the checkpoint holds its history too
        records = read_metrics(store, earlier)
        write_metrics(store, prefix, (r for r in records if r["epoch"] <= newest.epoch))
        carry_histograms(store, earlier, prefix, newest.epoch)
    return f"epoch {newest.epoch}"


def _fetch_newest_and_best(
    store: Store, earlier: str, metric: str, scratch: Path
) -> tuple[StoredCheckpoint | None, StoredCheckpoint | None]:
    """The newest and the best whole checkpoint, fetched while the list of all stays the same."""
    for number in range(TRIES):
        seen = stored_checkpoints(store, earlier)
        newest = newest_good(store, earlier, scratch / f"newest-{number}")
        best = best_good(store, earlier, metric, scratch / f"best-{number}")
        if stored_checkpoints(store, earlier) == seen:
            break
    return newest, best


def close_with_report(run: Run, attempt: Attempt, result: SweepResult | None) -> None:
    """Name the attempt's checkpoint in best.json and write the report, the report's index last."""
    store, spec = run.store, run.spec()
    outcome = store.read_json(attempt.place.key(OUTCOME_FILE))
    trial_id = result.best.id if result else None
    checkpoint = outcome["checkpoint"].removeprefix(f"{run.prefix}/")
    store.write_json(
        attempt.place.key(BEST_FILE),
        {"checkpoint": checkpoint, "epoch": outcome["epoch"], "trial_id": trial_id},
    )
    manifest = load_manifest(store, spec.job.dataset.name, spec.dataset_digest)
    history = result.best.history if result else read_metrics(store, attempt.prefix)
    predictions = {split: _read_predictions(store, attempt, split) for split in SPLITS}
    submitted_at = datetime.fromisoformat(spec.submitted_at)
    inputs = ReportInputs(
        spec=spec,
        dataset=report_dataset(manifest, spec.job),
        model_parameters=outcome["parameters"],
        world_size=outcome["world_size"],
        threads=outcome["threads"],
        hardware=outcome["hardware"],
        images_per_s=images_per_s(history),
        duration_s=(datetime.now(UTC) - submitted_at).total_seconds(),
        history=history,
        predictions=predictions,
        best_epoch=outcome["epoch"],
        input_shape=tuple(outcome["input_shape"]),
        layers=[Layer.from_mapping(layer) for layer in outcome["layers"]],
        mistakes=_mistakes(store, manifest, predictions["test"]),
        trials=[trial.as_dict() for trial in result.trials] if result else None,
        best_trial_id=trial_id,
    )
    with tempfile.TemporaryDirectory() as folder:
        write_report(Path(folder), inputs)
        for path in sorted(Path(folder).iterdir()):
            store.upload(path, attempt.place.key(REPORT, path.name))
    write_index(store, attempt.place.key(REPORT))


def publish(run: Run, attempt: Attempt) -> None:
    """Copy the report and best.json of the attempt to its run, which must have finished.

    It has finished whether this works or not: readers find the attempt's own files too.
    """
    try:
        run.store.copy_folder(attempt.place.key(REPORT), run.key(REPORT))
        run.store.write(run.key(BEST_FILE), run.store.read(attempt.place.key(BEST_FILE)))
    except CifarrayError as error:
        print(f"warning: the report stays in {attempt.prefix}: {error}", flush=True)


def report_dataset(manifest: Manifest, job: Job) -> ReportDataset:
    """The report's part on the dataset, with the names of the classes that were learned."""
    labels = learned_labels(job.dataset, manifest)
    return ReportDataset(
        name=manifest.name,
        title=manifest.title,
        digest=manifest.digest,
        classes=labels.classes,
        coarse_classes=labels.coarse_classes,
        fine_to_coarse=labels.fine_to_coarse,
        left_out=None if manifest.left_out is None else tuple(summed(manifest.left_out)),
    )


def _read_predictions(store: Store, attempt: Attempt, split: str) -> Predictions:
    content = store.read(attempt.place.key(EVALUATION, f"{split}.parquet"))
    return Predictions.from_table(pq.read_table(io.BytesIO(content)))


def _mistakes(store: Store, manifest: Manifest, test: Predictions) -> list[Mistake]:
    chosen = test.most_confident_mistakes(MISTAKES_SHOWN)
    images = read_images(store, manifest, "test", test.row_ids[chosen], LARGEST_SIDE)
    return [
        Mistake(
            row_id=int(test.row_ids[place]),
            label=int(test.labels[place]),
            prediction=int(test.predictions[place]),
            probability=float(test.probabilities[place]),
            image=image,
        )
        for place, image in zip(chosen.tolist(), images, strict=True)
    ]
