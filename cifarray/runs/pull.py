"""Download a run to a local folder: checkpoints, report, records and logs, all verified."""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cifarray.digests import content_sha256, file_sha256
from cifarray.errors import InputError, KeyMissingError, StoreDamagedError
from cifarray.metrics import best, epoch_value
from cifarray.runs.index import Listed, read_index
from cifarray.runs.run import Run
from cifarray.spec.bounds import parse_yaml
from cifarray.store import index_last, is_index, to_json
from cifarray.store.layout import (
    ATTEMPTS,
    BEST_FILE,
    CHECKPOINTS,
    EVENTS,
    INDEX_FILE,
    LEASE_FILE,
    LOG_FILE,
    METRICS_FILE,
    PAGE_FILE,
    PROOF_FILE,
    REPORT,
    SPEC_FILE,
    TRIALS,
    locate,
)

PART = re.compile(r"\.[0-9a-f]{12}\.part$")


@dataclass(frozen=True)
class PullPlan:
    """What is to be fetched; names are relative to the run's folder."""

    run: Run
    sizes: dict[str, int]
    listed: dict[str, Listed]
    """What the indexes in the store say of these files, where one does."""
    checkpoints: dict[str, str]
    """`best` and `last`: their folders, those that there are."""
    missing: list[str]
    """Files that the index of a checkpoint or of the report lists but the store no longer has."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all files, whether they are here already or not."""
        return sum(self.sizes.values())


@dataclass
class Pulled:
    """What is in the folder now."""

    run_id: str
    folder: Path
    files: dict[str, Listed] = field(default_factory=dict)
    fetched_bytes: int = 0
    checkpoints: dict[str, Path] = field(default_factory=dict)
    report: Path | None = None
    problems: list[str] = field(default_factory=list)
    """One sentence for each file that the store no longer has as it was written."""


@dataclass(frozen=True)
class _Proof:
    """What checkpoint.json of a folder says."""

    folder: str
    epoch: int
    step: int
    value: float | None


def chosen_checkpoints(run: Run, names: Iterable[str]) -> dict[str, str]:
    """`best` and `last` of the newest attempt, those that there are; of a sweep the best trial's.

    Best is the one that best.json names, before there is that file the best by the job's metric.
    `names` are the run's files, relative to its folder, as the answer is.
    """
    newest, metric = run.newest_attempt(), run.objective()
    trials: dict[str, str] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        found = locate(run.key(name))
        if file == PROOF_FILE and found and found.place.attempt == newest:
            trials[folder] = found.place.trial or ""
    proofs = [proof for folder in trials if (proof := _read_proof(run, folder, metric))]
    if not proofs:
        return {}
    chosen = _named_best(run)
    if chosen not in trials:
        in_order = sorted(proofs, key=lambda proof: (trials[proof.folder], proof.epoch))
        chosen = (best(in_order, metric, lambda proof: proof.value) or in_order[0]).folder
    alike = [proof for proof in proofs if trials[proof.folder] == trials[chosen]]
    last = max(alike, key=lambda p: (p.epoch, p.step, p.folder), default=None)
    return {"best": chosen, "last": last.folder if last else chosen}


def _named_best(run: Run) -> str | None:
    try:
        content = run.store.read_json(run.key(BEST_FILE))
    except (KeyMissingError, StoreDamagedError):
        return None
    named = content.get("checkpoint") if isinstance(content, dict) else None
    return named if isinstance(named, str) else None


def _read_proof(run: Run, folder: str, metric: str) -> _Proof | None:
    """What checkpoint.json says; None if it is damaged."""
    try:
        content: dict[str, Any] = run.store.read_json(run.key(folder, PROOF_FILE))
        value = epoch_value(content.get("metrics", {}), metric)
        return _Proof(folder, int(content["epoch"]), int(content.get("step", 0)), value)
    except (KeyMissingError, StoreDamagedError, TypeError, ValueError, KeyError, AttributeError):
        return None


def plan_pull(run: Run) -> PullPlan:
    """Choose the files: records, curves, logs and report, and of the checkpoints best and last.

    Of attempts before the newest, which may still write, the logs.
    """
    start = len(run.prefix) + 1
    sizes = {entry.key[start:]: entry.size_bytes for entry in run.store.list(run.prefix)}
    checkpoints = chosen_checkpoints(run, sizes)
    folders, newest = set(checkpoints.values()), run.newest_attempt()
    has_report = f"{REPORT}/{INDEX_FILE}" in sizes
    wanted = {
        name: size
        for name, size in sizes.items()
        if name.rpartition("/")[0] in folders or _is_wanted(run, name, newest, has_report)
    }
    listed: dict[str, Listed] = {}
    for name in sorted(sizes, key=len):  # what a deeper index says of a file counts
        folder = name.rpartition("/")[0]
        if is_index(name) and (name.endswith(f"/{INDEX_FILE}") or folder in folders):
            listed |= _listed(run, folder, name.rpartition("/")[2])
    proven = (*folders, REPORT)
    missing = [n for n in listed if n not in sizes and n.startswith(tuple(f"{f}/" for f in proven))]
    return PullPlan(run, wanted, listed, checkpoints, sorted(missing))


def _is_wanted(run: Run, name: str, newest: int, has_report: bool) -> bool:
    """Whether a file that belongs to none of the chosen checkpoints is pulled."""
    found = locate(run.key(name))
    assert found is not None, "it is below the run"
    place, part = found.place, found.part
    if place.attempt is None:
        return part not in (ATTEMPTS, LEASE_FILE, INDEX_FILE)
    if place.trial is not None:
        return place.attempt == newest and part in (METRICS_FILE, EVENTS)
    if place.attempt != newest:
        return part == LOG_FILE
    if has_report and part in (REPORT, BEST_FILE):  # what has become the run's own
        return False
    return part not in (CHECKPOINTS, TRIALS, INDEX_FILE)


def _listed(run: Run, folder: str, index: str) -> dict[str, Listed]:
    try:
        entries = read_index(run.store, run.key(folder), index)
    except (KeyMissingError, StoreDamagedError):
        return {}
    return {f"{folder}/{name}": listed for name, listed in entries.items()}


def pull(
    run: Run,
    target: Path,
    plan: PullPlan | None = None,
    advance: Callable[[int], None] | None = None,
) -> Pulled:
    """Fetch what the plan names into `target`, laid out as in the store.

    What an earlier, cut pull has brought is not fetched again. `files.json`, written last, lists
    everything, so that `check_index(Store.open(target), "")` proves the copy. `advance` is told of
    bytes. Raises: InputError if the folder holds something else.
    """
    plan = plan or plan_pull(run)
    _refuse_other_content(run, target)
    pulled = Pulled(run.id, target)
    damaged = {_indexed_folder(plan, name) for name in plan.missing}
    pulled.problems += [f"{run.key(name)} is missing in {run.store.uri}" for name in plan.missing]
    # job.yaml, which tells whose folder this is, comes first; what makes a folder valid, last.
    in_order = sorted(index_last(list(plan.sizes)), key=lambda name: name != SPEC_FILE)
    for name in in_order:
        if is_index(name) and name.rpartition("/")[0] in damaged:
            continue  # an index makes its folder valid
        try:
            pulled.files[name] = _bring(plan, name, target, advance or (lambda _: None), pulled)
        except (KeyMissingError, _Damaged) as problem:
            damaged.add(_indexed_folder(plan, name))
            pulled.problems.append(str(problem))
    for kind, folder in plan.checkpoints.items():
        if f"{folder}/{PROOF_FILE}" in pulled.files:
            pulled.checkpoints[kind] = target / folder
    page = target / REPORT / PAGE_FILE
    pulled.report = page if f"{REPORT}/{INDEX_FILE}" in pulled.files and page.exists() else None
    if not pulled.problems:
        _drop_parts(target)
    _write_index(pulled)
    return pulled


class _Damaged(Exception):
    """A file whose bytes in the store are not those that were written."""


def _bring(
    plan: PullPlan, name: str, target: Path, advance: Callable[[int], None], pulled: Pulled
) -> Listed:
    """Have one file here, and say what it is."""
    path, expected = _inside(target, name), plan.listed.get(name)
    if expected and path.is_file() and _fingerprint(path) == expected:
        advance(plan.sizes[name])
        return expected
    for _ in range(2):  # bytes may also have been damaged on the way, or by a second pull
        told: list[int] = []

        def tell(amount: int, told: list[int] = told) -> None:
            told.append(amount)
            advance(amount)

        plan.run.store.download(plan.run.key(name), path, tell)
        found = _fingerprint(path)
        pulled.fetched_bytes += sum(told[1:])  # the first is what an earlier pull has left
        if expected is None or found == expected:
            return found
        path.unlink()
        advance(-found.size_bytes)
    raise _Damaged(f"{plan.run.key(name)} in {plan.run.store.uri} is damaged: its sha256 differs")


def _indexed_folder(plan: PullPlan, name: str) -> str:
    """The folder whose index lists this file."""
    folders = [f for f in (*plan.checkpoints.values(), REPORT) if name.startswith(f"{f}/")]
    return max(folders, key=len, default=name)


def _inside(target: Path, name: str) -> Path:
    path = target / name
    if not path.parent.resolve().is_relative_to(target.resolve()):
        raise InputError(f"refused to write {path}: a link leads out of {target}")
    return path


def _refuse_other_content(run: Run, target: Path) -> None:
    try:
        if target.is_dir() and not _is_of(run, target):
            raise InputError(
                f"{target} contains something other than run {run.id}; give a new folder: "
                f"`cifarray pull {run.id} DIR`"
            )
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write into {target}: {error.strerror}; give another folder: "
            f"`cifarray pull {run.id} DIR`"
        ) from error


def _is_of(run: Run, target: Path) -> bool:
    """Whether the folder is empty, or what an earlier pull of this run has left."""
    if all(PART.search(path.name) for path in target.iterdir()):
        return True
    try:
        owner: Any = parse_yaml((target / SPEC_FILE).read_bytes())["run_id"]
    except (OSError, TypeError, KeyError, ValueError):
        return False
    return bool(owner == run.id)


def _fingerprint(path: Path) -> Listed:
    return Listed(os.path.getsize(path), file_sha256(path))


def _drop_parts(target: Path) -> None:
    """Remove what cut transfers of files that have changed since have left."""
    for path in target.rglob("*.part"):
        if PART.search(path.name) and path.is_file():
            path.unlink()


def _write_index(pulled: Pulled) -> None:
    files = {
        name: {"size_bytes": listed.size_bytes, "sha256": listed.sha256}
        for name, listed in sorted(pulled.files.items())
    }
    content = to_json({"schema_version": 1, "files": files})
    written = pulled.folder / f"{INDEX_FILE}.{content_sha256(content)[:12]}.part"
    written.write_bytes(content)
    os.replace(written, pulled.folder / INDEX_FILE)
