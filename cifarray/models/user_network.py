"""User-defined networks: find their factory, import it, try the network on blank images.

Code runs only when a job or a command names it; a checkpoint never brings any. Importing this
module imports no torch.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cifarray.errors import JobError
from cifarray.spec.load import unknown_name

if TYPE_CHECKING:
    from torch import nn

MAX_SOURCE_BYTES = 1 << 20
"""Size of the file that defines a network; Python's parser uses a hundred times as much memory."""
TRIED_IMAGES = 2
"""BatchNorm needs two values per channel while it learns."""
SHOWN = 6
_FACTORY = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)", re.ASCII)
_FOLDER_OF: dict[str, Path] = {}
"""Which code folder a top-level module of the user's was imported from, in this process."""


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


def check_network(name: str, model: object, num_classes: int, shape: tuple[int, int, int]) -> None:
    """Pass blank images through the network, in evaluation and in training mode.

    It also gives lazy layers their shapes before DDP. Neither its buffers nor torch's random state
    change. Raises: JobError if it takes no images of `shape` (H, W, C), or gives no logits.
    """
    import torch
    from torch import nn

    if not isinstance(model, nn.Module):
        raise JobError(f"{name} returned {type(model).__name__}, not a torch.nn.Module")
    was_training = model.training
    try:
        with torch.no_grad():
            _try(name, model.eval(), 1, num_classes, shape, "")
            with _state_kept(model):
                _try(name, model.train(), TRIED_IMAGES, num_classes, shape, " in training mode")
    finally:
        model.train(was_training)


def unused_parameters(model: nn.Module, num_classes: int, shape: tuple[int, int, int]) -> list[str]:
    """Names of the parameters that learn and get no gradient from a step of blank images.

    DDP waits for the gradient of each of them, and raises at the second step.
    """
    import torch
    from torch.nn import functional

    height, width, channels = shape
    was_training, some = model.training, next(model.parameters(), None)
    if some is None:
        return []
    images_NCHW = torch.zeros(TRIED_IMAGES, channels, height, width, device=some.device)
    labels_N = torch.arange(TRIED_IMAGES, device=some.device) % num_classes
    with _state_kept(model), torch.enable_grad():
        functional.cross_entropy(model.train()(images_NCHW), labels_N).backward()
        unused = [n for n, w in model.named_parameters() if w.requires_grad and w.grad is None]
        model.zero_grad(set_to_none=True)
    model.train(was_training)
    return unused


def check_unused(
    name: str, model: nn.Module, num_classes: int, shape: tuple[int, int, int], workers: int
) -> None:
    """Refuse parameters that get no gradient if DDP waits for one; else warn.

    Raises: JobError.
    """
    unused = unused_parameters(model, num_classes, shape)
    if not unused:
        return
    shown = ", ".join(unused[:SHOWN]) + (f" and {len(unused) - SHOWN} more" * (len(unused) > SHOWN))
    told = f"parameters of {name} are not used in producing the loss: {shown}"
    if workers == 1:
        print(f"warning: {told}; they keep their initial values", flush=True)
        return
    raise JobError(
        f"{told}; with {workers} workers DDP waits for their gradients: remove these layers, set "
        "requires_grad=False on their parameters, or train on one worker"
    )


def _try(
    name: str,
    model: nn.Module,
    images: int,
    num_classes: int,
    shape: tuple[int, int, int],
    mode: str,
) -> None:
    import torch

    height, width, channels = shape
    try:
        logits_NK: Any = model(torch.zeros(images, channels, height, width))
    except Exception as error:
        raise JobError(
            f"{name} does not accept images of {channels}x{height}x{width}{mode}: "
            f"{in_one_line(error)}"
        ) from error
    if not isinstance(logits_NK, torch.Tensor) or tuple(logits_NK.shape) != (images, num_classes):
        got = getattr(logits_NK, "shape", type(logits_NK).__name__)
        got = list(got) if isinstance(got, torch.Size) else got
        raise JobError(f"{name} must return logits of [images, {num_classes}], not {got}{mode}")


@contextmanager
def _state_kept(model: nn.Module) -> Iterator[None]:
    """Undo what a trial pass changes: buffers such as running statistics, and random state."""
    import torch

    devices = {w.device for w in model.parameters() if w.device.type == "cuda"}
    before = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    with torch.random.fork_rng(devices=list(devices)):
        yield
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name in before and before[name].shape == buffer.shape:
                buffer.copy_(before[name])


def in_one_line(error: Exception) -> str:
    """An error of the user's code, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _parsed(source: Path) -> ast.Module:
    """A file's syntax tree. Raises: JobError if Python cannot parse it."""
    try:
        with source.open("rb") as file:
            content = file.read(MAX_SOURCE_BYTES + 1)
        if len(content) > MAX_SOURCE_BYTES:
            raise JobError(
                f"{source} is larger than {MAX_SOURCE_BYTES >> 20} MiB; put the network into a "
                "separate file"
            )
        return ast.parse(content, str(source))
    except OSError as error:
        raise JobError(f"{source} cannot be read: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        raise JobError(f"{source} is not Python: {' '.join(str(error).split())}") from error
    except (RecursionError, MemoryError) as error:
        raise JobError(
            f"{source} is nested too deeply for Python's parser; split its large expressions"
        ) from error


def _split(name: str) -> tuple[str, str]:
    match = _FACTORY.fullmatch(name)
    if match is None:
        raise JobError(
            f"model '{name}' is not of the form package.module:factory, "
            "as in my_networks.wide:wide_cnn"
        )
    return match[1], match[2]


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
    """Put the folder first on sys.path, and forget a module of this name from an earlier folder."""
    folder, top = str(code), module.partition(".")[0]
    is_here = (code / top).is_dir() or (code / f"{top}.py").is_file()  # else it is an installed one
    if is_here and top in sys.modules and _FOLDER_OF.get(top) != code:
        if top not in _FOLDER_OF:
            raise JobError(
                f"module {top} of code folder {folder} has the name of a module that is already "
                f"loaded, {sys.modules[top]!r}; rename it"
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
