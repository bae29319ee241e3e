"""The demo: tunes, then trains, on real handwritten digits, using only the command line."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CIFARRAY = str(Path(sys.executable).with_name("cifarray"))


def show(*arguments: str) -> None:
    """Run a command whose output is for the person who watches."""
    print(f"\n$ cifarray {' '.join(arguments)}", flush=True)
    if subprocess.run([CIFARRAY, *arguments], stdin=subprocess.DEVNULL).returncode:
        sys.exit(1)


def ask(*arguments: str) -> Any:
    """Run a command and return the JSON that it prints; its progress goes to the screen."""
    command = [CIFARRAY, *arguments, "--json"]
    print(f"\n$ cifarray {' '.join(command[1:])}", flush=True)
    started = time.monotonic()
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    if ended.returncode:
        sys.exit(ended.returncode)
    print(f"({time.monotonic() - started:.0f} s)", flush=True)
    return json.loads(ended.stdout)


def submit_and_pull(job: str, *options: str) -> tuple[str, str]:
    """Follow a job to its end and pull it; return its run's id and the path of its page."""
    run_id: str = ask("submit", job, *options)["run_id"]
    page: str = ask("pull", run_id, f"pulled/{run_id}")["report"]
    return run_id, page


def demonstrate() -> list[tuple[str, str]]:
    """Prepare the data, tune, and train with what the sweep found."""
    show("data", "prepare", "digits")
    sweep, sweep_page = submit_and_pull("tune-digits")
    return [(sweep, sweep_page), submit_and_pull("train-digits", "--best-of", sweep)]


def find_node() -> Any:
    """What `cluster status` knows of the Ray node on this machine; None if there is none."""
    command = [CIFARRAY, "cluster", "status", "--json"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE).stdout or "null")


def end_node(even_if_busy: bool) -> None:
    """End the Ray node, once the driver of the last run has left it."""
    for _ in range(30):
        node = find_node()
        if even_if_busy or not node or not node["jobs"]:
            break
        time.sleep(1)
    show("cluster", "down", *(["--yes"] if even_if_busy else []))


def main() -> None:
    """Run the demo on a new Ray node, unless one of cifarray runs already, and print a summary."""
    started = time.monotonic()
    found_node = find_node()
    runs: list[tuple[str, str]] = []
    try:
        runs = demonstrate()
    finally:
        if not found_node:
            # An interrupted run of ours may continue and ends with the node; others are not ours.
            end_node(even_if_busy=not runs)
    for run_id, _ in runs:
        show("report", run_id)
    print(f"\nThe demo took {time.monotonic() - started:.0f} s. Its reports, to open in a browser:")
    for _, page in runs:
        print(f"  {page}")
    print(f"The store now lists both runs: {CIFARRAY} runs")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
