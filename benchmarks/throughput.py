"""Images/s of our worker against a plain script and against torchvision with a DataLoader.

    python -m benchmarks.throughput --archive cifar-100-python.subset.tar.gz [--n 5]

Sides alternate, each measurement is a process of its own; prints medians, spread and ratios.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

SIDES = {
    "cifarray": ["cifarray"],
    "plain script": ["plain"],
    "plain script, channels_last": ["plain", "--channels-last"],
    "DataLoader, 0 workers": ["loader", "--workers", "0"],
    "DataLoader, 1 worker": ["loader", "--workers", "1"],
    "DataLoader, 2 workers": ["loader", "--workers", "2"],
    "DataLoader, 1 worker, channels_last": ["loader", "--workers", "1", "--channels-last"],
    "DataLoader, 2 workers, channels_last": ["loader", "--workers", "2", "--channels-last"],
}


def measure(arguments: list[str]) -> dict[str, float]:
    """One training in its own process."""
    command = [sys.executable, "-m", "benchmarks.sides", *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Alternate the sides n times and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--n", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    common = ["--archive", str(options.archive), "--threads", str(options.threads)]
    measured: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number in range(options.n):
        for side, arguments in SIDES.items():
            measured[side].append(measure([*arguments, *common, "--seed", str(number)]))
            print(f"{number + 1}/{options.n} {side}: {measured[side][-1]}", file=sys.stderr)
    ours = statistics.median(figures["images_per_s"] for figures in measured["cifarray"])
    print(f"n = {options.n}, {options.threads} threads; images/s after the first epoch")
    print("| side | median | min | max | cifarray is | test top-1, mean |")
    print("|---|---|---|---|---|---|")
    for side, figures in measured.items():
        speeds = [each["images_per_s"] for each in figures]
        median, top1 = statistics.median(speeds), statistics.mean(f["test_top1"] for f in figures)
        print(
            f"| {side} | {median:,.0f} | {min(speeds):,.0f} | {max(speeds):,.0f} "
            f"| {ours / median:.2f} times as fast | {top1:.3f} |"
        )


if __name__ == "__main__":
    main()
