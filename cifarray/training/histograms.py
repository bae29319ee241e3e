"""What a network holds between two epochs: how its weights, gradients and activations spread.

It is seen in a copy of the network, with the same few images every time, in eval mode: training
goes on as if nobody had looked, and what differs between epochs is the network alone.
Shapes: N images, C channels, H and W their height and width, K classes.
"""

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cifarray.data.augment.normalize import Normalize
from cifarray.data.shard import Shard

PROBED_IMAGES = 64
BINS = 64
MOST_COUNTED_IN_FLOATS = 1 << 24
"""torch counts in the type of the values, and 32-bit floats do not count any further."""
RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.Threshold)
"""Layers that make zeros on purpose; their share is the sparsity of what follows."""


class Probe(NamedTuple):
    """A network to look into, and the images to do it with."""

    network: nn.Module
    """A copy, in eval mode."""
    images_NCHW: Tensor
    """As the network sees them."""
    labels_N: Tensor

    @classmethod
    def of(cls, network: nn.Module, shard: Shard, normalize: Normalize) -> "Probe":
        """A probe of the network as it is now, with the first images of a shard."""
        rows = next(shard.in_order(PROBED_IMAGES))
        return cls(deepcopy(network).eval(), normalize(rows.images_NCHW), rows.labels_N)


class Histogram(NamedTuple):
    """How many values lie between limits, in the words of TensorBoard's writer."""

    min: float
    max: float
    num: int
    sum: float
    sum_squares: float
    bucket_limits: list[float]
    """Upper ends; a bucket begins where the one before it ends."""
    bucket_counts: list[float]


@dataclass(frozen=True)
class Insides:
    """What was seen, by tag."""

    histograms: dict[str, Histogram] = field(default_factory=dict)
    sparsity: dict[str, float] = field(default_factory=dict)
    """Shares of zeros, 0 to 1."""

    def add(self, tag: str, values: Tensor) -> None:
        """Count a tensor's values; one without a finite value leaves nothing."""
        if (counted := histogram(values)) is not None:
            self.histograms[tag] = counted


def look_inside(probe: Probe) -> Insides:
    """Histograms of every weight, its gradient and every layer's output, and the shares of zeros.

    The gradients are those of the mean cross-entropy over the images. Layers are those that hold no
    others; one that a pass calls several times has a histogram per call.
    """
    seen = Insides()
    _watch_layers(probe.network, seen)
    logits_NK = probe.network(probe.images_NCHW)
    named = dict(probe.network.named_parameters())
    learnt = {name: weight for name, weight in named.items() if weight.requires_grad}
    loss = cross_entropy(logits_NK, probe.labels_N)
    gradients = torch.autograd.grad(loss, list(learnt.values()), allow_unused=True)
    for name, gradient in zip(learnt, gradients, strict=True):
        if gradient is not None:
            seen.add(f"gradients/{name}", gradient)
    for name, weight in named.items():
        seen.add(f"weights/{name}", weight)
        seen.sparsity[f"sparsity_of_weights/{name}"] = _share_of_zeros(weight)
    return seen


def histogram(values: Tensor) -> Histogram | None:
    """Equal buckets from the least to the largest finite value; None without any."""
    exact = torch.float64 if values.numel() > MOST_COUNTED_IN_FLOATS else torch.float32
    flat = values.detach().flatten().to(exact)
    if len(flat) and not flat.sum().isfinite():
        flat = flat[flat.isfinite()]
    if not len(flat):
        return None
    low, high = (end.item() for end in flat.aminmax())
    pad = 0.0 if low < high else 1e-3 * max(abs(low), 1e-6)  # equal values need a bucket too
    edges = torch.linspace(low - pad, high + pad, BINS + 1, dtype=torch.float64).tolist()
    counts = torch.histc(flat, BINS, edges[0], edges[-1])
    return Histogram(
        min=low,
        max=high,
        num=len(flat),
        sum=flat.sum(dtype=torch.float64).item(),
        sum_squares=torch.linalg.vector_norm(flat, dtype=torch.float64).square().item(),
        bucket_limits=edges[1:],
        bucket_counts=counts.tolist(),
    )


def _watch_layers(network: nn.Module, seen: Insides) -> None:
    """Count outputs as they pass: the next layer may write its own over them."""
    calls: Counter[str] = Counter()
    names = {layer: name for name, layer in network.named_modules() if not any(layer.children())}

    def watch(layer: nn.Module, _: object, output: object) -> None:
        if not isinstance(output, Tensor):
            return
        calls[names[layer]] += 1
        call = calls[names[layer]]
        tag = names[layer] if call == 1 else f"{names[layer]}/call_{call}"
        seen.add(f"activations/{tag}", output)
        if isinstance(layer, RECTIFIERS):
            seen.sparsity[f"sparsity_of_activations/{tag}"] = _share_of_zeros(output)

    for layer in names:
        layer.register_forward_hook(watch)


def _share_of_zeros(values: Tensor) -> float:
    return 1.0 - values.count_nonzero().item() / max(1, values.numel())
