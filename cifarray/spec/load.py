"""Loads job and profile files, applies `--set a.b=c`, and explains errors in one sentence."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cifarray.errors import JobError
from cifarray.spec.bounds import MOST_YAML_CHARACTERS, BoundedLoader, parse_yaml
from cifarray.spec.job import Job
from cifarray.spec.profile import Profile
from cifarray.spec.record import Record, plain_types

R = TypeVar("R", bound=Record)
SHOWN_CHARACTERS = 200
"""Of a value that is refused."""


class _Yaml(BoundedLoader):
    """Reads 1e-3 as a number, as in YAML 1.2; PyYAML's YAML 1.1 reads it as text."""


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


class _Readable(yaml.SafeDumper):
    """Writes multi-line texts as blocks, and repeated values in full instead of as aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Readable.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def _shipped(folder: str) -> Traversable:
    """The folder below the package in a wheel, at the top of the tree in a checkout."""
    inside = resources.files("cifarray") / folder
    return inside if inside.is_dir() else Path(__file__).parents[2] / folder


def _names(folder: str) -> list[str]:
    files = (entry.name for entry in _shipped(folder).iterdir())
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))


def job_names() -> list[str]:
    """Names of the jobs that come with cifarray."""
    return _names("jobs")


def profile_names() -> list[str]:
    """Names of the cluster profiles that come with cifarray."""
    return _names("cluster")


def load_job(name_or_path: str, sets: Sequence[str] = ()) -> Job:
    """Read a shipped job or a job file and apply every `a.b=c`.

    Raises: JobError with the field, the value and what is allowed.
    """
    name, values = _read("jobs", "job", name_or_path)
    for item in sets:
        path, _, text = item.partition("=")
        if not _ or not path:
            raise JobError(f"--set {item} is not of the form field=value, as in train.epochs=3")
        check_field(Job, path)
        takes_any_text = _annotation_at(Job, path) is str  # so that none of it is read as YAML
        _assign(values, path.split("."), text if takes_any_text else _parse(path, text))
    return _validate(Job, {"name": name, **values}, f"job {name}")


def load_profile(name_or_path: str) -> Profile:
    """Read a shipped cluster profile or a profile file. Raises: JobError."""
    name, values = _read("cluster", "cluster profile", name_or_path)
    profile = _validate(Profile, {"name": name, **values}, f"cluster profile {name}")
    if unread := profile.unread_fields:
        raise JobError(
            f"cluster profile {name}: mode ray-jobs does not use {', '.join(unread)}; leave it "
            "out, or set kubernetes.mode to rayjob"
        )
    return profile


def with_fields(job: Job, fields: Mapping[str, Any]) -> Job:
    """The job with other values at dotted paths, validated again. Raises: JobError."""
    values = job.model_dump(mode="json")
    for path, value in fields.items():
        check_field(Job, path)
        _assign(values, path.split("."), value)
    return _validate(Job, values, f"job {job.name}")


def read_field(job: Job, path: str) -> Any:
    """The value at a dotted path; None if a record on the way is off."""
    value: Any = job
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
    return value


def to_yaml(record: BaseModel) -> str:
    """A record as YAML, fields in their declared order."""
    return yaml.safe_dump(record.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def dump_yaml(*documents: Any) -> str:
    """Plain values as YAML for people: texts of several lines as blocks, nothing by reference."""
    return yaml.dump_all(documents, Dumper=_Readable, sort_keys=False, allow_unicode=True)


def check_field(root: type[BaseModel], path: str) -> None:
    """Refuse a dotted path that is not a field of the record, and name similar ones."""
    try:
        _annotation_at(root, path)
    except KeyError as error:
        raise JobError(
            f"unknown field '{path}'; {nearest(path, sorted(fields_of(root)))}"
        ) from error


def types_of(root: type[BaseModel], path: str) -> set[Any]:
    """The types that the field at a dotted path takes; none for a path into a mapping."""
    annotation = _annotation_at(root, path)
    return set() if annotation is None else plain_types(annotation)


def fields_of(root: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted path of a record type down to its single values."""
    paths = []
    for name, field in root.model_fields.items():
        inner = _record_in(field.annotation)
        paths += fields_of(inner, f"{prefix}{name}.") if inner else [prefix + name]
    return paths


def nearest(name: str, choices: Iterable[str]) -> str:
    """The part of a message that names the closest choices."""
    known = list(choices)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    tail = name.rpartition(".")[2]
    close += [c for c in known if c.rpartition(".")[2] == tail and c not in close][:3]
    return f"did you mean {' or '.join(close)}?" if close else f"choose from: {', '.join(known)}"


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> str:
    """The sentence for a name that is in no registry."""
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"unknown {kind} '{name}'; choose from: {', '.join(known)}{hint}"


def _read(folder: str, kind: str, name_or_path: str) -> tuple[str, dict[str, Any]]:
    source: Traversable
    if name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path:
        source = Path(name_or_path)
    else:
        if name_or_path not in _names(folder):
            raise JobError(
                unknown_name(kind, name_or_path, _names(folder)) + "; or give a path to a YAML file"
            )
        source = _shipped(folder) / f"{name_or_path}.yaml"
    what = f"{kind} file {name_or_path}"
    try:
        values = parse_yaml(_text(source, kind, name_or_path), _Yaml)
    except ValueError as error:
        raise JobError(f"{what} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise JobError(f"{what} has no fields; see jobs/ for examples")
    return str(values.pop("name", Path(source.name).stem)), values


def _text(source: Traversable, kind: str, name: str) -> str:
    try:
        if not source.is_file():
            raise JobError(f"no {kind} file at {name}")
        with source.open(encoding="utf-8") as file:
            text = file.read(MOST_YAML_CHARACTERS + 1)
    except OSError as error:
        raise JobError(
            f"{kind} file {name} cannot be read: {error.strerror}; give another path"
        ) from error
    if len(text) > MOST_YAML_CHARACTERS:
        raise JobError(f"{kind} file {name} is too long: at most {MOST_YAML_CHARACTERS} characters")
    return text


def _parse(path: str, text: str) -> Any:
    if not text.strip():
        raise JobError(f"--set {path}= has no value; write {path}=null to set no value")
    try:
        return parse_yaml(text, _Yaml)
    except ValueError as error:
        problem = getattr(error.__cause__, "problem", None) or error
        raise JobError(f"--set {path}: {_shown(text)} is not a YAML value: {problem}") from error


def _assign(values: dict[str, Any], parts: list[str], value: Any) -> None:
    if parts[:2] == ["sweep", "space"] and len(parts) > 3:  # its keys are dotted paths themselves
        dotted = parts[2:]
        if not isinstance(value, dict):  # of one kind; a mapping is a whole domain
            value = {dotted.pop(): value}
        parts = ["sweep", "space", ".".join(dotted)]
    *way, last = parts
    for part in way:
        if not isinstance(values.get(part), dict):
            values[part] = {}
        values = values[part]
    values[last] = value


def _annotation_at(root: type[BaseModel], path: str) -> Any:
    """The annotation of the field at a dotted path; None for a path into a mapping.

    Raises: KeyError where no field answers to the path.
    """
    name, _, rest = path.partition(".")
    annotation = root.model_fields[name].annotation
    if not rest:
        return annotation
    inner = _record_in(annotation)
    if inner is not None:
        return _annotation_at(inner, rest)
    if "dict" not in str(annotation):  # as in model.args and sweep.space
        raise KeyError(path)
    return None


def _record_in(annotation: Any) -> type[BaseModel] | None:
    options = (annotation, *getattr(annotation, "__args__", ()))
    found = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
    return found[0] if found and "dict" not in str(annotation) else None


def _validate(kind: type[R], values: dict[str, Any], what: str) -> R:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise JobError(
            f"{what}: " + "; ".join(_sentence(kind, e) for e in error.errors())
        ) from error


def _sentence(kind: type[BaseModel], error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown field '{path}'; {nearest(path, sorted(fields_of(kind)))}"
    if error["type"] == "missing":
        return f"{path} is missing"
    text = error["msg"].removeprefix("Value error, ")
    text = text[:1].lower() + text[1:]
    given = error["input"]
    shown = "" if isinstance(given, dict) else f" (given {_shown(given)})"
    return f"{path}: {text}{shown}" if path else text


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
