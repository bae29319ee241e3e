"""Changes the package in one place at a time and checks whether a test notices: `make mutate`.

A sample of mutants is drawn from the modules that decide about correctness. Each is tried against
the unit tests that run its line, which one run of them under coverage tells; what no test notices
is printed, unless `scripts/equivalent_mutants.txt` says why it changes nothing.
"""

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

from coverage import CoverageData

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "cifarray"
BUILD = REPOSITORY / "build" / "mutate"
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.txt")
AREAS = (
    "training", "runs", "store", "metrics.py", "data/split.py", "data/shard.py",
    "backends/submit.py", "backends/kubernetes/pods.py", "backends/kubernetes/rayjob.py",
)  # fmt: skip
MOST_TESTS = 60
"""Tests tried per mutant: those that run few other lines come first."""
PATIENCE_S = 240
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Add,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change of one module."""

    module: str
    """Path below the package."""
    line: int
    before: str
    after: str
    source: str
    """The whole module as changed."""

    @property
    def change(self) -> str:
        """What is changed, wherever it stands in the module by now."""
        return f"{self.module}: {self.before} -> {self.after}"

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.before} -> {self.after}"


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Every change of a module that this script knows how to make."""
    source = path.read_text("utf-8")
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if not hasattr(node, "lineno"):
            continue
        for changed in _changes(node):
            before, after = ast.unparse(node), ast.unparse(changed)
            lines = source.splitlines(keepends=True)
            yield Mutant(
                str(path.relative_to(PACKAGE)),
                node.lineno,
                _short(before),
                _short(after),
                _replaced(lines, node, after),
            )


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in COMPARISONS:
            yield _with(node, ops=[COMPARISONS[type(operator)]()])
        case ast.BoolOp(op=operator):
            yield _with(node, op=ast.Or() if isinstance(operator, ast.And) else ast.And())
        case ast.BinOp(op=operator) if type(operator) in OPERATORS and _is_number(node):
            yield _with(node, op=OPERATORS[type(operator)]())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.IfExp(test=test):
            yield _with(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield ast.Constant(value + 1)
        case ast.Call(keywords=[*keywords]) if keywords:
            for number in range(len(keywords)):
                yield _with(node, keywords=[*keywords[:number], *keywords[number + 1 :]])
        case ast.Expr(value=ast.Call()) | ast.Raise():
            yield ast.Pass()
        case ast.Return(value=ast.expr()):
            yield ast.Return(ast.Constant(None))


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _is_number(node: ast.BinOp) -> bool:
    """Whether this is, as far as visible, no concatenation of texts or types."""
    return not any(
        isinstance(part, ast.JoinedStr | ast.List | ast.Tuple)
        or (isinstance(part, ast.Constant) and not isinstance(part.value, int | float))
        for part in (node.left, node.right)
    )


def _replaced(lines: list[str], node: ast.AST, after: str) -> str:
    """The source with a node's text replaced; columns count bytes."""
    assert isinstance(node, ast.stmt | ast.expr)
    assert node.end_lineno is not None and node.end_col_offset is not None
    first, last = lines[node.lineno - 1].encode(), lines[node.end_lineno - 1].encode()
    replaced = first[: node.col_offset].decode() + after + last[node.end_col_offset :].decode()
    return "".join((*lines[: node.lineno - 1], replaced, *lines[node.end_lineno :]))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 100 else f"{line[:97]}..."


def measure_coverage() -> CoverageData:
    """Which test runs which line; kept below build/ until a source or a test is newer."""
    kept = BUILD / "coverage"
    newest = max(
        path.stat().st_mtime
        for folder in (PACKAGE, REPOSITORY / "tests")
        for path in folder.rglob("*.py")
    )
    if not kept.is_file() or kept.stat().st_mtime < newest:
        BUILD.mkdir(parents=True, exist_ok=True)
        settings = BUILD / "coveragerc"
        settings.write_text(
            "[run]\ndynamic_context = test_function\nsource = cifarray\n"
            f"data_file = {kept}\nconcurrency = thread\n",
            encoding="utf-8",
        )
        tests = ("-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", "tests/unit")
        command = (sys.executable, "-m", "coverage", "run", f"--rcfile={settings}", *tests)
        subprocess.run(command, cwd=REPOSITORY, check=True)
    data = CoverageData(str(kept))
    data.read()
    return data


class Tests:
    """Which tests run a line of the package."""

    def __init__(self, data: CoverageData) -> None:
        self._data = data
        self._by_file: dict[str, dict[int, list[str]]] = {}
        self._breadth: Counter[str] = Counter()
        for file in data.measured_files():
            for contexts in data.contexts_by_lineno(file).values():
                self._breadth.update(contexts)

    def of(self, mutant: Mutant) -> list[str]:
        """Node ids of the tests that run the mutant's line, the narrowest first."""
        file = str(PACKAGE / mutant.module)
        if file not in self._by_file:
            self._by_file[file] = self._data.contexts_by_lineno(file)
        names = {name for name in self._by_file[file].get(mutant.line, ()) if name}
        narrow_first = sorted(names, key=lambda name: (self._breadth[name], name))
        return [node for name in narrow_first if (node := _node_id(name))][:MOST_TESTS]


def _node_id(context: str) -> str | None:
    """`tests.unit.runs.test_run.test_x` as pytest names it; None for what is no test."""
    module, _, function = context.rpartition(".")
    path = Path(*module.split(".")).with_suffix(".py")
    is_test = function.startswith("test_") and (REPOSITORY / path).is_file()
    return f"{path}::{function}" if is_test else None


class Copies:
    """Copies of the checkout, each used by one mutant at a time."""

    def __init__(self, folder: Path, number: int) -> None:
        self._free: Queue[Path] = Queue()
        left_out = shutil.ignore_patterns(".git", ".venv*", "build", "__pycache__", ".*_cache")
        for place in range(number):
            copied = folder / str(place)
            shutil.copytree(REPOSITORY, copied, ignore=left_out, symlinks=True)
            self._free.put(copied)

    @contextmanager
    def lent(self) -> Iterator[Path]:
        """A copy that nobody else uses meanwhile."""
        copied = self._free.get()
        try:
            yield copied
        finally:
            self._free.put(copied)


def survives(mutant: Mutant, tests: list[str], copies: Copies) -> bool:
    """Whether every one of the tests passes with the change made in a copy of the checkout."""
    with copies.lent() as folder:
        file = folder / "cifarray" / mutant.module
        file.write_text(mutant.source, "utf-8")
        command = (sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests)
        try:
            ended = subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(folder)},  # for the processes that tests start
                capture_output=True,
                timeout=PATIENCE_S,
            )
        except subprocess.TimeoutExpired:
            return False
        finally:
            shutil.copyfile(PACKAGE / mutant.module, file)
        return ended.returncode == 0


def equivalent() -> set[str]:
    """Mutants without an observable effect, as `module: before -> after`."""
    lines = EQUIVALENT.read_text("utf-8").splitlines() if EQUIVALENT.exists() else []
    return {line for line in lines if line and not line.startswith("#")}


def main() -> None:
    """Draw a sample, try it, print what survived and the score; exit code 1 below the goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=300, help="mutants to try")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--goal", type=float, default=0.95, help="share that tests must notice")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--only", nargs="*", default=AREAS, help="modules below cifarray/")
    options = parser.parse_args()
    places = [PACKAGE / area for area in options.only]
    files = [
        file for place in places for file in (place.rglob("*.py") if place.is_dir() else [place])
    ]
    everything = [mutant for file in sorted(files) for mutant in mutants_of(file)]
    drawn = random.Random(options.seed).sample(everything, min(options.sample, len(everything)))
    known, tests = equivalent(), Tests(measure_coverage())
    tried = [mutant for mutant in drawn if mutant.change not in known]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        copies = Copies(Path(folder), options.jobs)

        def survived(mutant: Mutant) -> bool:
            reaching = tests.of(mutant)
            alive = not reaching or survives(mutant, reaching, copies)
            if alive:
                print(f"{'survived' if reaching else 'not run'}: {mutant}", flush=True)
            return alive

        alive = sum(pool.map(survived, tried))
    score = 1 - alive / len(tried)
    print(
        f"{len(tried) - alive} of {len(tried)} mutants noticed ({score:.1%}); "
        f"{len(drawn) - len(tried)} more are equivalent; drawn from {len(everything)}"
    )
    sys.exit(score < options.goal)


if __name__ == "__main__":
    main()
