"""A publisher's state dict to an encoder's own: names, shapes, and what is left over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from pivot.encoders.weights import UnknownWeights
from pivot.errors import ModelError

HEAD = 64  # numbers of an attention head in every published ViT; shapes do not tell it


def take_over(
    family: str,
    weights: Mapping[str, Tensor],
    encoder: nn.Module,
    spell: Callable[[str], str],
    left: tuple[str, ...],
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> tuple[dict[str, Tensor], list[str]]:
    """A publisher's `weights` under the names of `encoder`, and the names that are left over.

    encoder: may be on the meta device, only names and shapes are read. spell: the encoder's name
    of a weight -> the publisher's. left: beginnings of names of known parts that the encoder has
    not. shapes: by publisher's name, where a tensor has another shape there. ModelError names the
    first weight that is unknown, missing or of another shape, as the publisher spells it.
    """
    own = {name: spell(name) for name in encoder.state_dict()}
    wanted = {own[name]: tuple(value.shape) for name, value in encoder.state_dict().items()}
    wanted |= {name: tuple(shape) for name, shape in (shapes or {}).items()}
    over = [name for name in weights if name not in wanted and name.startswith(left)]
    if unknown := weights.keys() - wanted.keys() - set(over):
        raise UnknownWeights(family, unknown)
    for name, shape in sorted(wanted.items()):
        size_of(family, weights, name, shape)
    return {name: weights[theirs] for name, theirs in own.items()}, over


def size_of(
    family: str, weights: Mapping[str, Tensor], name: str, shape: Sequence[int | None]
) -> tuple[int, ...]:
    """Shape of the weight `name`, which must be `shape`; None: any number."""
    found = tuple(weights[name].shape) if name in weights else None
    if found is None:
        raise ModelError(f"these weights are not all of {family}: {name} is missing")
    if len(found) != len(shape) or any(
        s not in (None, n) for s, n in zip(shape, found, strict=True)
    ):
        wanted = f"({', '.join('any' if n is None else str(n) for n in shape)})"
        raise ModelError(f"{name} of {family} should be {wanted}, the file has {found}")
    return found


def depth_of(weights: Mapping[str, Tensor], prefix: str) -> int:
    """Blocks that are numbered from 0 after `prefix`, such as "blocks."; at least 1."""
    numbers = [n.removeprefix(prefix).split(".")[0] for n in weights if n.startswith(prefix)]
    return 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)
