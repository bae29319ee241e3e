"""Fetch the weights that timm publishes: from the Hub's cache on this machine, else from the Hub.

The Hub's own client tries for most of a minute before it says that there is no network; here one
request of a few seconds finds that out first.
"""

from pathlib import Path
from typing import Any

from cifarray.errors import JobError
from cifarray.models.backbones import PREFIX, published_config
from cifarray.models.weights import BACKBONE, Weights

FILE = "model.safetensors"
REACH_S = 10.0
"""How long the Hub may take to answer at all."""


def published_weights(name: str) -> Weights:
    """The weights of a network such as timm/resnet50, for its backbone; downloaded if need be.

    Raises: JobError with what to do where the network does not allow it.
    """
    import timm

    config = published_config(name)
    file = _file(name, config) if config.hf_hub_id else None
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
            f"({_in_short(error)}); give a file of them as model.weights"
        ) from error
    return {f"{BACKBONE}{key}": tensor for key, tensor in backbone.state_dict().items()}


def _file(name: str, config: Any) -> Path:
    """The file in the Hub's cache. Raises: JobError if it is not there and cannot be fetched."""
    from huggingface_hub import constants, get_session, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    repository, _, revision = config.hf_hub_id.partition("@")
    wanted = {
        "repo_id": repository,
        "revision": revision or None,
        "filename": config.hf_hub_filename or FILE,
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
            f"{wanted['filename']} of {constants.ENDPOINT}/{repository} where there is a network, "
            "and give its path as model.weights"
        ) from error


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
