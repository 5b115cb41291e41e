"""What every audio encoder has to keep, whatever its body: checks that their tests share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pivot.audio.views import pack
from pivot.encoders.audio_encoder import AudioEncoder
from pivot.encoders.weights import UnknownWeights
from pivot.errors import ModelError

Published = Callable[[Mapping[str, Tensor]], tuple[Any, dict[str, Tensor], list[str]]]


def far(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


def recorded(goldens: Path, name: str) -> dict[str, Tensor]:
    """What was recorded of an encoder in distill/encoders.npz, by the names after `name/`."""
    with np.load(goldens / "distill" / "encoders.npz") as file:
        names = [whole for whole in file.files if whole.startswith(f"{name}/")]
        return {whole.removeprefix(f"{name}/"): torch.tensor(file[whole]) for whole in names}


def sounds(encoder: AudioEncoder, number: int, frames: int | None = None) -> Tensor:
    """Random log-mel of the encoder's windows, or of fewer frames."""
    shape = (number, frames or encoder.audio.num_frames, encoder.audio.num_mel_bins)
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def check_state_dict(encoder: AudioEncoder) -> None:
    """The state dict, the settings and the front end make the encoder again."""
    again = type(encoder).from_weights(
        encoder.state_dict(), encoder.facts(), encoder.settings, encoder.audio
    )
    x = sounds(encoder, 2)
    assert torch.equal(again.eval()(x), encoder.eval()(x))
    name = next(iter(encoder.state_dict()))
    lacks = {k: v for k, v in encoder.state_dict().items() if k != name}
    with pytest.raises(ModelError, match=f"do not fit the {encoder.KIND} encoder: {name} should"):
        type(encoder).from_weights(lacks, {}, encoder.settings, encoder.audio)


def check_batch_invariance(encoder: AudioEncoder) -> None:
    """A sound's features are the same alone, among others and twice."""
    encoder.eval()
    x = sounds(encoder, 5)
    windows = pack(
        sounds(encoder, 6).unflatten(0, (3, 2)), torch.tensor([[1, 1], [1, 0.3], [1, 0]])
    )
    with torch.no_grad():
        for batch in (x, windows):
            together = encoder(batch)
            assert torch.equal(encoder(batch), together)
            alone = torch.cat([encoder(sound[None]) for sound in batch])
            assert together.shape == (len(batch), encoder.dim)
            assert far(alone, together) <= 1e-6


def check_windows(encoder: AudioEncoder) -> None:
    """Of several windows: the mean of the tokens, in time's order, as far as the sound goes."""
    encoder.eval()
    views = sounds(encoder, 6).unflatten(0, (2, 3))
    shares = torch.tensor([[1.0, 0.25, 0.0], [1.0, 1.0, 1.0]])
    with torch.no_grad():
        found = encoder(pack(views, shares))
        tokens = [torch.cat([encoder.window_tokens(v[None])[0] for v in sound]) for sound in views]
        one = len(tokens[0]) // 3
        heard = -(-5 * one // 4)  # 1.25 windows, upwards
        expected = torch.stack([tokens[0][:heard].mean(0), tokens[1].mean(0)])
    assert far(found, expected) <= 1e-6
    assert far(encoder.embed_tokens(pack(views, shares)), torch.stack(tokens)) <= 1e-6


def check_training(encoder: AudioEncoder, rate: float = 1e-3) -> None:
    """Three steps, the last under bfloat16, lower a contrastive loss; every parameter is in it."""
    torch.manual_seed(3)
    x, targets = sounds(encoder, 6), torch.randn(6, encoder.dim)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=rate)

    def loss() -> Tensor:
        features = F.normalize(encoder(x).float(), dim=-1)
        return F.cross_entropy(10 * features @ F.normalize(targets, dim=-1).T, torch.arange(6))

    encoder.eval()
    before = loss().item()
    encoder.train()
    for step in range(3):
        with torch.autocast("cpu", torch.bfloat16, enabled=step == 2):
            found = loss()
        optimizer.zero_grad()
        found.backward()
        for name, value in encoder.named_parameters():
            assert value.grad is not None and value.grad.isfinite().all(), name
            assert value.grad.any(), name
        optimizer.step()
    encoder.eval()
    assert loss().item() < before


def check_layers(encoder: AudioEncoder, loose: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Before, blocks and after share no weight and have all but the `loose` ones."""
    before, blocks, after = encoder.layers()
    assert len(blocks) == encoder.settings.depth
    found = [p for module in [*before, *blocks, *after] for p in module.parameters()]
    names = {id(value): name for name, value in encoder.named_parameters()}
    assert len({id(p) for p in found}) == len(found)
    assert set(names.values()) - {names[id(p)] for p in found} == loose


def check_refusals(published: Published, weights: dict[str, Tensor], name: str, other: str) -> None:
    """Foreign, missing, left-over and misshapen weights are named; `name` is one of them.

    `other` is the name of the first weight of another family's file.
    """
    with pytest.raises(UnknownWeights, match=r"does not have: extra\.bias, extra\.weight") as found:
        published(weights | {"extra.weight": torch.zeros(1), "extra.bias": torch.zeros(1)})
    assert found.value.names == ["extra.bias", "extra.weight"]
    with pytest.raises(ModelError, match=rf"{name} is missing"):
        published({k: v for k, v in weights.items() if k != name})
    with pytest.raises(ModelError, match=rf"{name} of .* should be .*, the file has \(3, 5\)"):
        published(weights | {name: torch.zeros(3, 5)})
    with pytest.raises(ModelError, match=f"{other} is missing"):
        published({"bn0.weight": torch.zeros(64), "conv_block1.conv1.weight": torch.zeros(64, 1)})


def check_all(make: Callable[[], AudioEncoder], *loose: set[str]) -> None:
    """All checks that need nothing but encoders; `loose` is for `check_layers`."""
    check_state_dict(make())
    check_batch_invariance(make())
    check_windows(make())
    check_layers(make(), *loose)
    check_training(make())
