"""Whether a state dict is that of a module: what stands between the two, in words."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def misfit(module: nn.Module, weights: Mapping[str, Tensor]) -> str | None:
    """The first tensor, by name, that one of the two lacks or has in another shape; None: they fit.

    It reads "conv1.weight should be (4, 1, 2, 2), the file has nothing of that name".
    """
    own = module.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        expected = tuple(own[name].shape) if name in own else "nothing of that name"
        found = tuple(weights[name].shape) if name in weights else "nothing of that name"
        if expected != found:
            return f"{name} should be {expected}, the file has {found}"
    return None
