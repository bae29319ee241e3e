"""What a job may say about the weights that its network begins with; no torch on import."""

from cifarray.errors import JobError
from cifarray.models.backbones import is_backbone, published_config
from cifarray.spec.job import ModelSpec


def check_beginning(spec: ModelSpec) -> None:
    """Refuse weights that nobody has, and a head that would be trained on a random backbone.

    Raises: JobError.
    """
    if spec.weights == "timm":
        _check_published(spec.name)
    if spec.frozen and spec.weights == "none":
        raise JobError(
            f"model.frozen trains the head of {spec.name} alone, and with model.weights none its "
            "backbone would stay random; set model.weights to timm, a file or run:ID"
        )
    if spec.features is not None and not spec.frozen:
        raise JobError(
            f"model.features {spec.features} computes the outputs of a backbone once, so that it "
            "cannot learn; set model.frozen=true beside it"
        )


def _check_published(name: str) -> None:
    if not is_backbone(name):
        raise JobError(
            f"model.weights timm are for timm's networks, and {name} is none; give a file, "
            "s3://bucket/file or run:ID"
        )
    config = published_config(name)
    if config is None or not config.has_weights:
        raise JobError(
            f"timm publishes no weights of {name}; give model.weights as a file or run:ID, or "
            "choose another network"
        )
