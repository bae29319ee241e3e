"""What Ray costs: an epoch under Ray Train against the bare loop, and the wait for the first step.

    python -m benchmarks.ray_path --archive cifar-100-python.subset.tar.gz [--n 5]

Both sides train the same job with one worker and the same threads, and alternate. An epoch is the
time between two records: under Ray it includes checkpoint, upload and report. The wait is from
`cifarray submit` to the first epoch's begin, on a node that runs already and once on a fresh one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

EPOCHS = 5
JOB = """
kind: train
dataset: {name: cifar100, labels: coarse}
augment: {horizontal_flip: {p: 0.5}, padded_crop: {padding: 4}}
model: {name: cnn3}
optimizer: {name: sgd, lr: 0.05, momentum: 0.9}
train: {epochs: EPOCHS, global_batch_size: 256}
""".replace("EPOCHS", str(EPOCHS))


def cifarray(*arguments: str) -> str:
    """Run a command of the CLI and return what it prints."""
    command = [str(Path(sys.executable).with_name("cifarray")), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout


def bare_epochs(store: str, job: str, threads: int) -> list[float]:
    """Seconds of each epoch after the first, without Ray."""
    command = [sys.executable, "-m", "benchmarks.bare", store, job, str(threads)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8")
    seconds: list[float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def ray_epochs(store: str, job: str, profile: str) -> tuple[list[float], float]:
    """Seconds of each epoch after the first under Ray Train, and of the wait for the first."""
    started = datetime.now().timestamp()
    run = json.loads(cifarray("submit", job, "--store", store, "--cluster", profile, "--json"))
    attempt = Path(store, "runs", run["run_id"], "attempts", "1", "metrics.jsonl")
    records: list[dict[str, Any]] = [json.loads(line) for line in attempt.open(encoding="utf-8")]
    stamps = [datetime.fromisoformat(record["ended_at"]).timestamp() for record in records]
    return [b - a for a, b in pairwise(stamps)], stamps[0] - records[0]["epoch_s"] - started


def main() -> None:
    """Alternate the two sides n times and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--n", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CIFARRAY_STATE_DIR"] = f"{folder}/state"
        store, job, profile = f"{folder}/store", f"{folder}/job.yaml", f"{folder}/one.yaml"
        Path(job).write_text(JOB, "utf-8")
        threads = f"threads_per_worker: {options.threads}\n"
        Path(profile).write_text(f"kind: local\nworkers: 1\n{threads}", "utf-8")
        cifarray("data", "prepare", "cifar100", "--archive", str(options.archive), "--store", store)
        bare: list[float] = []
        under_ray: list[float] = []
        waits: list[float] = []
        try:
            for number in range(options.n):
                bare.append(statistics.median(bare_epochs(store, job, options.threads)))
                epochs, wait = ray_epochs(store, job, profile)
                under_ray.append(statistics.median(epochs))
                waits.append(wait)
                print(
                    f"{number + 1}: {bare[-1]:.2f} {under_ray[-1]:.2f} {wait:.1f}", file=sys.stderr
                )
        finally:
            cifarray("cluster", "down")
    ratios = [ray / alone for ray, alone in zip(under_ray, bare, strict=True)]
    print(f"n = {options.n}, {options.threads} threads, one worker, {EPOCHS} epochs")
    print("| what | median | min | max |")
    print("|---|---|---|---|")
    for what, values in {
        "epoch, bare loop, s": bare,
        "epoch under Ray Train, s": under_ray,
        "under Ray / bare": ratios,
        "submit to first epoch, node running, s": waits[1:],
    }.items():
        median = statistics.median(values)
        print(f"| {what} | {median:.3g} | {min(values):.3g} | {max(values):.3g} |")
    print(f"| submit to first epoch, node started by it, s | {waits[0]:.3g} (n = 1) | | |")


if __name__ == "__main__":
    main()
