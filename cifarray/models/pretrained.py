"""Pretrained weights: read from a file without executing code, downloaded from timm, loaded.

A file is safetensors, or what `torch.save` made of a state dict: of the same network, of one with
another head, or one that timm publishes. Those are in the Hub's cache on this machine, or are
downloaded: the Hub's own client tries for most of a minute before it says that there is not a
network, and one request of a few seconds finds that out first.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifarray.errors import JobError
from cifarray.models.timm_backbone import PREFIX, published_config
from cifarray.models.timm_classifier import TimmClassifier
from cifarray.models.torch_files import read_torch_file
from cifarray.spec.job import ModelSpec

Weights = dict[str, Tensor]
MOST_BYTES = 8 << 30
"""Of a file of weights; the largest that timm publishes have four GiB."""
WRAPPERS = ("model", "state_dict")
"""Keys below which a file may hold the state dict: ours, and the usual one."""
SHOWN_KEYS = 3
BACKBONE_KEYS, HEAD_KEYS = "backbone.", "head."
"""How the keys of the two parts of a timm classifier begin."""
AUXILIARY = "AuxLogits."
"""Of Inception's published weights: a second classifier, for training alone."""
HUB_FILE = "model.safetensors"
REACH_S = 10.0
"""How long the Hub may take to answer at all."""


@dataclass(frozen=True)
class Match:
    """The weights that a network takes from a file."""

    weights: Weights
    fresh: tuple[str, ...]
    """The network's weights that keep their random values: those of its head, or none."""


def read_weights(path: Path, source: str) -> Weights:
    """The tensors of a file, on the CPU; `source` is how a person calls it.

    Raises: JobError.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise JobError(f"weights {source} are larger than {MOST_BYTES >> 30} GiB")
        found = _tensors(path)
    except OSError as error:
        raise JobError(f"weights {source} cannot be read: {error.strerror or error}") from error
    for wrapper in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict) or not found or not all(map(_is_weight, found.items())):
        raise JobError(f"weights {source} are not a state dict (only names and tensors)")
    if unusable := [name for name, tensor in found.items() if not _is_plain(tensor)]:
        raise JobError(
            f"weights {source} contain {unusable[0]} as {found[unusable[0]].dtype}, "
            f"{found[unusable[0]].layout}; give dense tensors of real numbers"
        )
    if sum(tensor.numel() * tensor.element_size() for tensor in found.values()) > MOST_BYTES:
        raise JobError(f"weights {source} are larger than {MOST_BYTES >> 30} GiB in memory")
    return found


def _is_plain(tensor: Tensor) -> bool:
    dense = tensor.layout == torch.strided and not tensor.is_meta
    return dense and not tensor.is_quantized and not tensor.is_complex()


def _tensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"  # as torch.save has written them since 2020
    try:
        return read_torch_file(path) if is_zip else load_file(path)
    except SafetensorError as error:
        raise JobError(
            f"{path.name} contains no readable weights ({error}); give safetensors, or a state "
            "dict written by torch.save"
        ) from error
    except OSError:
        raise
    except Exception as error:
        raise JobError(
            f"{path.name} contains more than tensors, or is damaged; give safetensors, or a "
            "state dict written by torch.save"
        ) from error


def _is_weight(item: tuple[object, object]) -> bool:
    name, value = item
    return isinstance(name, str) and isinstance(value, Tensor)


def match_weights(network: nn.Module, name: str, weights: Weights, source: str) -> Match:
    """What the network called `name` takes of these weights: all of them, or all but the head's.

    The head is what comes last: a backbone's own, of other networks the last linear layer. Where
    any weight of it is missing or of another shape, because it is for other classes, it stays
    fresh as a whole. Raises: JobError if the rest differs, with the first keys that do.
    """
    if isinstance(network, TimmClassifier) and not any(
        key.startswith(BACKBONE_KEYS) for key in weights
    ):
        weights = _from_timm(name, weights)
    wanted = {key: tensor.shape for key, tensor in network.state_dict().items()}
    given = {key: tensor.shape for key, tensor in weights.items()}
    differing = [key for key in wanted.keys() | given.keys() if wanted.get(key) != given.get(key)]
    # BatchNorm's count of batches changes nothing, and many files lack it.
    differing = [k for k in differing if k in given or not k.endswith("num_batches_tracked")]
    head = _head_of(network)
    if wrong := sorted(key for key in differing if not head or not key.startswith(head)):
        raise JobError(
            f"weights {source} do not fit network {name}: {_in_words(wrong, wanted, given)}; give "
            f"those of {name}"
        )
    fresh = tuple(key for key in wanted if differing and key.startswith(head))
    taken = {key: weights[key] for key in wanted if key in weights and key not in fresh}
    return Match(taken, fresh)


def misfit_in_words(network: nn.Module, weights: Weights) -> str:
    """Why a network does not take exactly these weights; empty if it does."""
    wanted = {key: tensor.shape for key, tensor in network.state_dict().items()}
    given = {key: tensor.shape for key, tensor in weights.items()}
    differing = sorted(key for key in wanted.keys() | given if wanted.get(key) != given.get(key))
    if differing:
        return _in_words(differing, wanted, given)
    unusable = [key for key, tensor in weights.items() if not _is_plain(tensor)]
    return (
        f"{unusable[0]} is {weights[unusable[0]].dtype}, {weights[unusable[0]].layout}"
        if unusable
        else ""
    )


def load_pretrained(network: nn.Module, spec: ModelSpec, path: Path | None) -> None:
    """Put the weights of a file into the network, if `model.weights` names any. Raises: JobError.

    Weights that the file lacks stay unchanged: see `match_weights`.
    """
    if spec.weights == "none":
        return
    if path is None:
        raise JobError(f"the run has no copy of model.weights {spec.weights}; submit it again")
    match = match_weights(network, spec.name, read_weights(path, spec.weights), spec.weights)
    network.load_state_dict(match.weights, strict=False)


def _from_timm(name: str, weights: Weights) -> Weights:
    """A published file's weights as a backbone's, without its classifier."""
    config = published_config(name)
    classifier = getattr(config, "classifier", None) or ()
    names = (classifier,) if isinstance(classifier, str) else classifier
    dropped = (*(f"{layer}." for layer in names), AUXILIARY)
    kept = (key for key in weights if not key.startswith(dropped))
    return {f"{BACKBONE_KEYS}{key}": weights[key] for key in kept}


def _head_of(network: nn.Module) -> str:
    """How the keys of the network's head begin; empty if it has none."""
    if isinstance(network, TimmClassifier):
        return HEAD_KEYS
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return f"{linear[-1]}." if linear else ""


def _in_words(
    wrong: Iterable[str], wanted: Mapping[str, torch.Size], given: Mapping[str, torch.Size]
) -> str:
    """The first keys that are missing, unexpected and of another shape, and how many there are."""
    kinds: dict[str, list[str]] = {"missing": [], "unexpected": [], "of another shape": []}
    for key in wrong:
        if key not in given:
            kinds["missing"].append(key)
        elif key not in wanted:
            kinds["unexpected"].append(key)
        else:
            shapes = f"{list(given[key])}, not {list(wanted[key])}"
            kinds["of another shape"].append(f"{key} {shapes}")
    return "; ".join(
        f"{kind} {', '.join(keys[:SHOWN_KEYS])}"
        + (f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else "")
        for kind, keys in kinds.items()
        if keys
    )


def published_weights(name: str) -> Weights:
    """The weights of a network such as timm/resnet50, for its backbone; downloaded if need be.

    Raises: JobError with what to do where the network does not allow it.
    """
    import timm

    config = published_config(name)
    file = _hub_file(name, config) if config.hf_hub_id else None
    overlay = {"file": str(file)} if file else None  # the few that are not on the Hub: timm itself
    try:
        backbone = timm.create_model(
            name.removeprefix(PREFIX),
            pretrained=True,
            pretrained_cfg_overlay=overlay,
            num_classes=0,
        )
    except Exception as error:  # a damaged file, or no way to its address
        raise JobError(
            f"timm's weights of {name} cannot be loaded from {file or config.url} "
            f"({_in_short(error)}); give a file with them as model.weights"
        ) from error
    return {f"{BACKBONE_KEYS}{key}": tensor for key, tensor in backbone.state_dict().items()}


def _hub_file(name: str, config: Any) -> Path:
    """The file in the Hub's cache. Raises: JobError if it is not there and cannot be fetched."""
    from huggingface_hub import constants, get_session, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    repository, _, revision = config.hf_hub_id.partition("@")
    wanted = {
        "repo_id": repository,
        "revision": revision or None,
        "filename": config.hf_hub_filename or HUB_FILE,
    }
    try:
        return Path(hf_hub_download(**wanted, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    try:
        get_session().head(constants.ENDPOINT, timeout=REACH_S)
        return Path(hf_hub_download(**wanted))
    except Exception as error:  # of the client, of the library below it, of the system
        raise JobError(
            f"timm's weights of {name} cannot be downloaded ({_in_short(error)}); fetch "
            f"{wanted['filename']} of {constants.ENDPOINT}/{repository} on a machine with "
            "network access, and give its path as model.weights"
        ) from error


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
