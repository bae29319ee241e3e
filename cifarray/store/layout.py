"""The layout of a store: defines each key and file name of the bucket.

    datasets/NAME/LATEST                                names the digest in use
    datasets/NAME/DIGEST12/SPLIT/part-00000.parquet
    datasets/NAME/DIGEST12/manifest.json                written last
    features/DATASET/DIGEST12/KEY12/{about.json, SPLIT/part-*.parquet}
    runs/RUN/job.yaml                                   what was submitted
    runs/RUN/{code.zip, weights.safetensors, validation.parquet}
    runs/RUN/status.json
    runs/RUN/lease.json                                 which attempt is in charge
    runs/RUN/best.json                                  names the checkpoint of a finished run
    runs/RUN/report/...                                 files.json written last
    runs/RUN/attempts/N/driver.log
    runs/RUN/attempts/N/{waiting.json, failures/TIME.json, post-mortem.json}
    runs/RUN/attempts/N/trials/...                      of a sweep: Tune's files, a folder per trial
    runs/RUN/attempts/N/files.json                      written last
    <attempt or trial>/metrics.jsonl
    <attempt or trial>/checkpoints/NAME/{state.pt, checkpoint.json}     the latter written last
    <attempt or trial>/tensorboard/...
    <attempt or trial>/evaluation/SPLIT.parquet
    <attempt or trial>/outcome.json
    <trial>/{trial.json, ended.json}
    .cifarray-contract.json                             what the server was found to do

Folders are distinguished by the file that makes them valid, which is copied last and deleted first.
"""

from dataclasses import dataclass, replace

RESERVED = ".cifarray-"
"""Begins the names of a store's own files: its contract; on disk claims and unfinished writes."""
CONTRACT_FILE = f"{RESERVED}contract.json"

DATASETS = "datasets"
LATEST_FILE = "LATEST"
MANIFEST_FILE = "manifest.json"

FEATURES = "features"
ABOUT_FILE = "about.json"

RUNS = "runs"
SPEC_FILE = "job.yaml"
CODE_FILE = "code.zip"
WEIGHTS_FILE = "weights.safetensors"
VALIDATION_FILE = "validation.parquet"
STATUS_FILE = "status.json"
LEASE_FILE = "lease.json"
BEST_FILE = "best.json"
REPORT = "report"
REPORT_FILE = "report.json"
PAGE_FILE = "report.html"
INDEX_FILE = "files.json"

ATTEMPTS = "attempts"
LOG_FILE = "driver.log"
WAITING_FILE = "waiting.json"
"""What the attempt's workers wait for, as far as that can be written."""
FAILURES = "failures"
"""A record for each time that workers failed."""
POST_MORTEM_FILE = "post-mortem.json"

TRIALS = "trials"
TRIAL_FILE = "trial.json"
ENDED_FILE = "ended.json"

METRICS_FILE = "metrics.jsonl"
OUTCOME_FILE = "outcome.json"
EVALUATION = "evaluation"
EVENTS = "tensorboard"
CURVES_FILE = "events.out.tfevents.scalars"
GRAPH_FILE = "events.out.tfevents.graph"
HISTOGRAMS_FILE = "events.out.tfevents.histograms"
"""Followed by the epoch's number. TensorBoard reads every file with `tfevents` in its name."""
CHECKPOINTS = "checkpoints"
STATE_FILE = "state.pt"
PROOF_FILE = "checkpoint.json"

INDEX_NAMES = frozenset({PROOF_FILE, INDEX_FILE, MANIFEST_FILE})
"""Files that make their folder valid."""


@dataclass(frozen=True)
class Place:
    """The folder of a run, of one of its attempts, or of a trial of that attempt."""

    run: str
    attempt: int | None = None
    trial: str | None = None

    @property
    def prefix(self) -> str:
        """Its key prefix."""
        parts = [RUNS, self.run]
        if self.attempt is not None:
            parts += [ATTEMPTS, str(self.attempt)]
        if self.trial is not None:
            parts += [TRIALS, self.trial]
        return "/".join(parts)

    def key(self, *parts: str) -> str:
        """The key of something in it."""
        return "/".join((self.prefix, *parts))

    def of_attempt(self, number: int) -> "Place":
        """The folder of an attempt of the same run."""
        return Place(self.run, number)

    def of_trial(self, trial_id: str) -> "Place":
        """The folder of a trial of the same attempt."""
        return replace(self, trial=trial_id)

    @property
    def without_trial(self) -> "Place":
        """The attempt's folder, of a trial's too."""
        return replace(self, trial=None)


@dataclass(frozen=True)
class Located:
    """What a key below a run is."""

    place: Place
    """The innermost run, attempt or trial that contains it."""
    part: str
    """The file or folder directly in that place."""
    rest: str = ""
    """What follows below that folder; empty for a file."""


def locate(key: str) -> Located | None:
    """Where a key of a run lies; None for a key that lies below no run.

    The inverse of `Place.key`: nobody else takes keys apart.
    """
    top, _, below = key.partition("/")
    run, _, inside = below.partition("/")
    if top != RUNS or not inside:
        return None
    place, names = Place(run), inside.split("/")
    if names[0] == ATTEMPTS and len(names) > 2 and (number := attempt_number(names[1])) is not None:
        place, names = place.of_attempt(number), names[2:]
        if names[0] == TRIALS and len(names) > 2:
            place, names = place.of_trial(names[1]), names[2:]
    return Located(place, names[0], "/".join(names[1:]))


def attempt_number(name: str) -> int | None:
    """The number of the attempt whose folder has this name; None for any other name."""
    return int(name) if name.isdecimal() and str(int(name)) == name else None


def run_folder(path: str) -> str:
    """The folder that is a run's copy, of a path below it; empty for the folder looked into."""
    before, attempts, _ = f"/{path}".partition(f"/{ATTEMPTS}/")
    return before.strip("/") if attempts else ""


def locate_dataset(key: str) -> tuple[str, str] | None:
    """(name, first 12 digits of the digest) of the dataset that a key lies in; None for others."""
    top, *parts = key.split("/")
    return (parts[0], parts[1]) if top == DATASETS and len(parts) > 2 else None


def dataset_prefix(name: str, digest: str) -> str:
    """The folder of a dataset, from its digest or the first 12 digits of it."""
    return f"{DATASETS}/{name}/{digest[:12]}"


def manifest_key(name: str, digest: str) -> str:
    """Where a dataset's manifest lies."""
    return f"{dataset_prefix(name, digest)}/{MANIFEST_FILE}"


def latest_key(name: str) -> str:
    """Where the digest in use is named."""
    return f"{DATASETS}/{name}/{LATEST_FILE}"


def features_prefix(dataset: str, digest: str, key: str) -> str:
    """The folder of one backbone's outputs; `key` is the sha256 of what they depend on."""
    return f"{FEATURES}/{dataset}/{digest[:12]}/{key[:12]}"
