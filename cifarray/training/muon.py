"""Muon for matrices and AdamW for every other parameter, as one optimizer.

"Muon: An optimizer for hidden layers in neural networks", https://kellerjordan.github.io/posts/muon/.
The weight of a convolution is a matrix too: a row for each output channel, which torch.optim.Muon
does not take. An update is scaled as in "Muon is Scalable for LLM Training",
https://arxiv.org/abs/2502.16982: a learning rate and a weight decay for AdamW fit both rules.

Shapes: R rows, C columns of a matrix.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

RMS_OF_ADAMW = 0.2
"""About what an update by AdamW has, per unit of the learning rate."""
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


class Muon(Optimizer):
    """Splits each group of parameters in two; `rule` says by which one a group is updated."""

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        groups = []
        for group in params:
            matrices = [weight for weight in group["params"] if is_matrix(weight)]
            others = [weight for weight in group["params"] if not is_matrix(weight)]
            for rule, weights in (("muon", matrices), ("adamw", others)):
                if weights:
                    groups.append({**group, "params": weights, "rule": rule})
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "betas": betas,
            "eps": eps,
        }
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient by the rule of its group."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            (self._step_muon if group["rule"] == "muon" else self._step_adamw)(weights, group)
        return loss

    def _step_muon(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        lr, momentum = group["lr"], group["momentum"]
        for weight in weights:
            state, gradient = self.state[weight], weight.grad
            assert gradient is not None
            if not state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            mean = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
            update_RC = orthogonalized(gradient.lerp(mean, momentum).flatten(1))
            scale = RMS_OF_ADAMW * max(update_RC.shape) ** 0.5
            weight.mul_(1 - lr * group["weight_decay"])
            weight.add_(update_RC.view(weight.shape), alpha=-lr * scale)

    def _step_adamw(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        for weight in weights:
            if not self.state[weight]:
                self.state[weight] = {
                    "step": torch.zeros(()),
                    "exp_avg": torch.zeros_like(weight),
                    "exp_avg_sq": torch.zeros_like(weight),
                }
        states = [self.state[weight] for weight in weights]
        beta1, beta2 = group["betas"]
        adamw(
            weights,
            [weight.grad for weight in weights if weight.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def is_matrix(weight: Tensor) -> bool:
    """Whether a parameter has several rows and columns, where convolutions have a row a channel."""
    return weight.ndim >= 2 and min(weight.shape[0], weight.shape[1:].numel()) > 1


def orthogonalized(matrix_RC: Tensor) -> Tensor:
    """The matrix with singular values near 1, in bfloat16: five Newton-Schulz steps."""
    a, b, c = NEWTON_SCHULZ
    is_tall = matrix_RC.shape[0] > matrix_RC.shape[1]
    x = (matrix_RC.T if is_tall else matrix_RC).bfloat16()
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x
