"""Whether a state dict is that of a module: what stands between the two, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from pivot.errors import ModelError

SHOWN = 4  # names of weights in an error


class UnknownWeights(ModelError):
    """A publisher's file has `names` that its family has not; `import-checkpoint` may drop them."""

    def __init__(self, family: str, names: Iterable[str]) -> None:
        self.names = sorted(names)
        super().__init__(f"weights that {family} does not have: {few(self.names)}")


def few(names: Iterable[str]) -> str:
    """The first names of some, and how many more there are: "a, b, c, d and 12 more"."""
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


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
