"""What stands at a run's end: which checkpoint is its own, and its report.

An attempt writes both into its own folder, where an older one that wakes up again hurts nobody, and
copies them to the run's only after the run has finished by its hand.
"""

import io
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq

from cifarray.data.labels import learnt_labels
from cifarray.data.left_out import summed
from cifarray.data.manifest import Manifest, load_manifest
from cifarray.data.rows import read_images
from cifarray.reporting.inputs import SPLITS, images_per_s
from cifarray.reporting.layers import Layer
from cifarray.reporting.pictures import LARGEST_SIDE
from cifarray.reporting.report import Mistake, ReportDataset, ReportInputs, write_report
from cifarray.reporting.scores import Predictions
from cifarray.runs import Attempt, Run, read_metrics, write_index
from cifarray.spec.job import Job
from cifarray.store import Store
from cifarray.store.layout import BEST_FILE, EVALUATION, OUTCOME_FILE, REPORT
from cifarray.training.ray_tune import SweepResult

MISTAKES_SHOWN = 24


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
    inputs = ReportInputs(
        spec=spec,
        dataset=report_dataset(manifest, spec.job),
        model_parameters=outcome["parameters"],
        world_size=outcome["world_size"],
        threads=outcome["threads"],
        hardware=outcome["hardware"],
        images_per_s=images_per_s(history),
        duration_s=_seconds_since(spec.submitted_at),
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
    """Make what the attempt has closed with the run's own. Its run must have finished by it."""
    run.store.copy_folder(attempt.place.key(REPORT), run.key(REPORT))
    run.store.write(run.key(BEST_FILE), run.store.read(attempt.place.key(BEST_FILE)))


def report_dataset(manifest: Manifest, job: Job) -> ReportDataset:
    """What the report says of the dataset, with the class names of the labels that were learnt."""
    labels = learnt_labels(job.dataset, manifest)
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


def _seconds_since(text: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds()
