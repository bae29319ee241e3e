"""Networks of the user's own: find their factory, and carry the folder that holds it with a run.

The folder travels as a zip whose bytes depend on nothing but names and contents. Code runs only
when a job or a command names it; a checkpoint never brings any.
"""

import ast
import hashlib
import importlib
import io
import re
import stat
import sys
import zipfile
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from itertools import islice
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from cifarray.errors import CifarrayError, JobError
from cifarray.spec.load import unknown_name

MAX_CODE_BYTES = 16 << 20
MAX_CODE_FILES = 2000
MAX_SOURCE_BYTES = 1 << 20
"""Of the file that defines a network: Python's parser takes a hundred times as much memory."""
_FACTORY = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)", re.ASCII)
_CACHES = {"__pycache__", "node_modules"}
_FOLDER_OF: dict[str, Path] = {}
"""Which code folder a top-level module of the user's own was imported from, in this process."""


def pack_code(folder: Path) -> bytes:
    """A zip of the folder's files; hidden files, caches and virtual environments stay behind.

    Raises: JobError for a folder that cannot be read, is too large, or holds a link.
    """
    try:
        return _zipped(folder, _code_files(folder))
    except OSError as error:
        raise JobError(
            f"code folder {folder} cannot be read: {error.filename or folder}: {error.strerror}"
        ) from error


def _code_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise JobError(f"no code folder at {folder}; --code wants a folder of Python files")
    found = islice(_files(folder, folder), MAX_CODE_FILES + 1)
    files = sorted(found, key=lambda path: path.relative_to(folder).as_posix())
    _refuse_too_much(folder, files)
    if not any(path.suffix == ".py" for path in files):
        raise JobError(f"code folder {folder} holds no Python file; --code wants the folder above")
    return files


def _zipped(folder: Path, files: list[Path]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in files:
            name = path.relative_to(folder).as_posix()
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def code_sha256(archive: bytes) -> str:
    """What a run records of its code."""
    return hashlib.sha256(archive).hexdigest()


def unpack_code(archive: bytes, sha256: str, folder: Path) -> None:
    """Write a packed folder below `folder`, if its bytes are the recorded ones.

    Raises: JobError for other bytes, and for a member that is a link or leaves the folder.
    """
    if code_sha256(archive) != sha256:
        raise JobError(
            f"the run's code has sha256 {code_sha256(archive)}, but {sha256} was recorded; "
            "submit the run again with --code"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as packed:
            entries = packed.infolist()
            size_bytes = sum(entry.file_size for entry in entries)
            if size_bytes > MAX_CODE_BYTES or len(entries) > MAX_CODE_FILES:
                raise JobError(
                    f"the run's code is larger than {MAX_CODE_BYTES >> 20} MiB, or has more than "
                    f"{MAX_CODE_FILES} files"
                )
            for entry in entries:
                _check_member(entry)
            for entry in entries:
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(packed.read(entry))
    except CifarrayError:
        raise
    except Exception as error:  # of a damaged zip nearly anything
        raise JobError(
            f"the run's code cannot be unpacked: {' '.join(str(error).split())[:200]}; submit the "
            "run again with --code"
        ) from error


def check_factory(name: str, code: Path | None = None) -> None:
    """Refuse a `package.module:factory` that no file defines; nothing of it is run.

    Raises: JobError.
    """
    module, factory = _split(name)
    source = _find_source(module, code)
    if source is None:
        raise _no_module(name, module, code)
    if source.suffix != ".py":
        return
    names = _top_level_names(_parsed(source).body)
    if factory not in names and not names & {"*", "__getattr__"}:
        raise _no_factory(name, factory, module, sorted(names))


def import_factory(name: str, code: Path | None = None) -> Callable[..., Any]:
    """The object behind `package.module:factory`, from `code` first and else as installed.

    Raises: JobError for a module that is not there or fails, and for no such factory in it.
    """
    module_name, factory = _split(name)
    if code is not None:
        _put_first(code.resolve(), module_name)
    if _find_source(module_name, code) is None:
        raise _no_module(name, module_name, code)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        raise JobError(f"importing {module_name} failed: {type(error).__name__}: {text}") from error
    found = getattr(module, factory, None)
    if not callable(found):
        raise _no_factory(name, factory, module_name, _callables(module))
    return found  # type: ignore[no-any-return]


def _parsed(source: Path) -> ast.Module:
    """A file's syntax tree. Raises: JobError for what Python's parser does not take."""
    try:
        with source.open("rb") as file:
            content = file.read(MAX_SOURCE_BYTES + 1)
        if len(content) > MAX_SOURCE_BYTES:
            raise JobError(
                f"{source} is larger than {MAX_SOURCE_BYTES >> 20} MiB; put the network into a "
                "file of its own"
            )
        return ast.parse(content, str(source))
    except OSError as error:
        raise JobError(f"{source} cannot be read: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        raise JobError(f"{source} is not Python: {' '.join(str(error).split())}") from error
    except (RecursionError, MemoryError) as error:
        raise JobError(
            f"{source} is nested too deeply for Python's parser; write it with fewer brackets or "
            "operators in one expression"
        ) from error


def _split(name: str) -> tuple[str, str]:
    match = _FACTORY.fullmatch(name)
    if match is None:
        raise JobError(
            f"model '{name}' is not of the form package.module:factory, "
            "as in my_networks.wide:wide_cnn"
        )
    return match[1], match[2]


def _files(folder: Path, root: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.name in _CACHES or entry.suffix == ".pyc":
            continue
        if entry.is_symlink():
            raise JobError(f"code folder {root} holds a link, {entry}; put the file itself there")
        if entry.is_dir():
            if not (entry / "pyvenv.cfg").exists():
                yield from _files(entry, root)
        elif entry.is_file():
            yield entry
        else:
            raise JobError(f"code folder {root} holds {entry}, which is not a plain file")


def _refuse_too_much(folder: Path, files: list[Path]) -> None:
    sizes = {path: path.stat().st_size for path in files}
    if sum(sizes.values()) > MAX_CODE_BYTES or len(files) > MAX_CODE_FILES:
        largest = max(sizes, key=lambda path: sizes[path])
        raise JobError(
            f"code folder {folder} holds {len(files)} files or more, of {sum(sizes.values())} "
            f"bytes, the largest {largest.relative_to(folder)}; --code takes at most "
            f"{MAX_CODE_FILES} files of {MAX_CODE_BYTES >> 20} MiB together: give a folder with "
            "the code alone"
        )


def _check_member(entry: zipfile.ZipInfo) -> None:
    path = PurePosixPath(entry.filename)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    leaves = path.is_absolute() or ".." in path.parts or "\\" in entry.filename
    if leaves or ":" in entry.filename or entry.is_dir() or kind not in (0, stat.S_IFREG):
        raise JobError(
            f"the run's code holds {entry.filename!r}, which is a link, a folder or leaves the "
            "folder; submit the run again with --code"
        )


def _find_source(module: str, code: Path | None) -> Path | None:
    """The file that importing the module would read; parent packages are not run."""
    path = [str(code.resolve()), *sys.path] if code else list(sys.path)
    parts = module.split(".")
    origin: str | None = None
    for i in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: i + 1]), path)
        if spec is None:
            return None
        origin, path = spec.origin, list(spec.submodule_search_locations or [])
    return Path(origin) if origin else None


def _top_level_names(body: list[ast.stmt]) -> set[str]:
    names: set[str] = set()
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names.add(statement.name)
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.alias):
                names.add((node.asname or node.name).partition(".")[0])
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
    return names


def _put_first(code: Path, module: str) -> None:
    """Let the folder win on sys.path, and forget a module of this name from an earlier folder."""
    folder, top = str(code), module.partition(".")[0]
    is_here = (code / top).is_dir() or (code / f"{top}.py").is_file()  # else it is an installed one
    if is_here and top in sys.modules and _FOLDER_OF.get(top) != code:
        if top not in _FOLDER_OF:
            raise JobError(
                f"module {top} of code folder {folder} has the name of a module that is loaded "
                f"already, {sys.modules[top]!r}; rename it"
            )
        for name in [n for n in sys.modules if n == top or n.startswith(f"{top}.")]:
            del sys.modules[name]
    if is_here:
        _FOLDER_OF[top] = code
    if sys.path[0] != folder:
        sys.path[:] = [folder, *(entry for entry in sys.path if entry != folder)]
    importlib.invalidate_caches()


def _no_module(name: str, module: str, code: Path | None) -> JobError:
    where = (
        f"code folder {code} or among the installed packages" if code else "the installed packages"
    )
    hint = "" if code else ", or give its folder with --code DIR"
    return JobError(f"model '{name}': no module {module} in {where}; correct the name{hint}")


def _no_factory(name: str, factory: str, module: str, choices: list[str]) -> JobError:
    return JobError(f"model '{name}': {unknown_name(f'factory in {module}', factory, choices)}")


def _callables(module: ModuleType) -> list[str]:
    names = (name for name in vars(module) if not name.startswith("_"))
    return [name for name in names if callable(getattr(module, name))]
