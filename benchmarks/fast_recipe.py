"""How much of the published recipe's time `train-cifar100-fast` takes, on this machine.

    python -m benchmarks.fast_recipe --store STORE [--n 3] [--threads 2]

Epochs of both jobs alternate, each pair in processes of their own, on the whole of CIFAR-100, which
has to be in the store; each job's time is its epochs times the seconds of one.
"""

import argparse
import json
import statistics
import subprocess
import sys

from cifarray.spec.load import load_job

FAST, PUBLISHED = "train-cifar100-fast", "train-cifar100-cnn3"


def epoch_s(store: str, job: str, threads: int) -> float:
    """Seconds of the job's second epoch; those before it warm up."""
    schedule = ("schedule.warmup_epochs=0",) if job == FAST else ()
    command = [sys.executable, "-m", "benchmarks.bare", store, job, str(threads), *schedule]
    done = subprocess.run(
        [*command, "train.epochs=2"], check=True, stdout=subprocess.PIPE, encoding="utf-8"
    )
    return float(json.loads(done.stdout.splitlines()[-1])[0])


def main() -> None:
    """Alternate the jobs n times and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", required=True)
    parser.add_argument("--n", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    measured: dict[str, list[float]] = {FAST: [], PUBLISHED: []}
    for number in range(options.n):
        for job, seconds in measured.items():
            seconds.append(epoch_s(options.store, job, options.threads))
            print(f"{number + 1}/{options.n} {job}: {seconds[-1]:.1f} s", file=sys.stderr)
    epochs = {job: load_job(job).train.epochs or 0 for job in measured}
    ratios = [
        epochs[FAST] * fast / (epochs[PUBLISHED] * published)
        for fast, published in zip(measured[FAST], measured[PUBLISHED], strict=True)
    ]
    print(f"n = {options.n}, {options.threads} threads")
    print("| job | epochs | an epoch, s, median | min | max | the whole, s |")
    print("|---|---|---|---|---|---|")
    for job, seconds in measured.items():
        median = statistics.median(seconds)
        print(
            f"| {job} | {epochs[job]} | {median:.1f} | {min(seconds):.1f} | {max(seconds):.1f} "
            f"| {epochs[job] * median:,.0f} |"
        )
    print(f"fast / published: {statistics.median(ratios):.3f}, {min(ratios):.3f} to", end=" ")
    print(f"{max(ratios):.3f}")


if __name__ == "__main__":
    main()
