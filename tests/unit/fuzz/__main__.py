"""`python -m tests.unit.fuzz FIRST [LAST]`: try these inputs, one process for all."""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.unit.fuzz.kinds import KINDS
from tests.unit.fuzz.mutation import Mutator
from tests.unit.fuzz.samples import Samples, make_samples
from tests.unit.fuzz.watching import Watch, own_home

UNMADE = (RecursionError, UnicodeError, TypeError, OSError)
"""What the writers of YAML, JSON, zips and torch files say of a value that none of them holds."""


def main() -> int:
    """Try inputs FIRST to LAST; 1 where any of them is more than a sentence."""
    parser = argparse.ArgumentParser(prog="python -m tests.unit.fuzz", description=__doc__)
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int, nargs="?", help="FIRST alone where it is left out")
    parser.add_argument("--kind", choices=[*KINDS], help="inputs of one kind alone")
    parser.add_argument("--show", action="store_true", help="say how each input ended")
    options = parser.parse_args()
    last = options.first if options.last is None else options.last
    names, seconds, failed, unmade = list(KINDS), Counter[str](), 0, 0
    with tempfile.TemporaryDirectory(prefix="cifarray-fuzz-") as scratch, own_home(Path(scratch)):
        samples = make_samples(Path(scratch) / "samples")
        watch = Watch(Path(scratch) / "marker")
        for number in range(options.first, last + 1):
            name = names[number % len(names)]
            if options.kind in (None, name):
                began = time.process_time()
                try:
                    problem = _try(number, name, samples, watch, Path(scratch))
                except UNMADE:
                    unmade += 1
                    continue
                seconds[name] += time.process_time() - began
                if options.show:
                    print(f"{number} {name}: {' '.join(watch.outcome.split())[:200]}")
                if problem:
                    failed += 1
                    print(f"input {number}, {name}: {problem}", flush=True)
                    print(f"again: .venv/bin/python -m tests.unit.fuzz {number}\n", flush=True)
    slowest = ", ".join(f"{name} {spent:.0f} s" for name, spent in seconds.most_common(5))
    tried = last + 1 - options.first
    print(f"{failed} of {tried} inputs failed, {unmade} could not be made; slowest: {slowest}")
    return 1 if failed else 0


def _try(number: int, name: str, samples: Samples, watch: Watch, scratch: Path) -> str:
    with tempfile.TemporaryDirectory(dir=scratch, prefix="input-") as folder:
        action = KINDS[name](samples, Mutator(number), Path(folder), watch.marker)
        return watch.run(action)


if __name__ == "__main__":
    sys.exit(main())
