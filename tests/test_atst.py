"""ATST-Frame: recorded frames, the average over windows as SALSA's, its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pivot.audio.views import pack
from pivot.encoders.atst import Atst, published
from pivot.encoders.audio_encoder import AudioEncoder
from pivot.errors import ModelError
from pivot.settings.encoders import AtstSettings
from pivot.settings.front_ends import HtkDbSettings
from tests import encoder_checks as checks
from tests.encoder_checks import far, sounds

SMALL = AtstSettings(width=32, depth=2, heads=2)
AUDIO = HtkDbSettings(num_mel_bins=16, num_frames=81)  # 20 tokens


def small() -> Atst:
    return Atst.start(None, SMALL, AUDIO, 1)


def layout(width: int = 768, depth: int = 12) -> dict[str, tuple[int, ...]]:
    """ATST-Frame's encoder: names and shapes."""
    d = width
    shapes: dict[str, tuple[int, ...]] = {
        "mask_embed": (1, 1, d), "pos_embed": (1, 251, d),
        "patch_embed.patch_embed.weight": (d, 256), "patch_embed.patch_embed.bias": (d,),
    }  # fmt: skip
    for n in range(depth):
        sizes = {"norm1": (d,), "attn.qkv": (3 * d, d), "attn.proj": (d, d), "norm2": (d,)}
        for part, size in {**sizes, "mlp.fc1": (4 * d, d), "mlp.fc2": (d, 4 * d)}.items():
            shapes[f"blocks.{n}.{part}.weight"] = size
            if part != "attn.qkv":
                shapes[f"blocks.{n}.{part}.bias"] = size[:1]
    return shapes | {"norm_frame.weight": (d,), "norm_frame.bias": (d,)}


@pytest.fixture(scope="module")
def golden(goldens: Path) -> dict[str, Tensor]:
    return checks.recorded(goldens, "atst")


def test_recorded_frames(golden: dict[str, Tensor]) -> None:
    weights = {name[3:]: value for name, value in golden.items() if name.startswith("sd/")}
    settings, own, left = published(weights)
    assert settings == AtstSettings(width=48, depth=2, heads=1) and left == ["mask_embed"]
    settings = settings.model_copy(update={"heads": 3})
    encoder = Atst.from_weights(own, {}, settings, HtkDbSettings()).eval()
    x = golden["input"][0].mT  # 201 frames: 50 of 250 tokens
    assert encoder.grid == (250,)
    assert far(encoder.embed_tokens(x), golden["frames"]) <= 1e-5
    assert far(encoder(x), golden["scene"]) <= 1e-5  # the recorded scene is the mean of the frames
    assert far(encoder.resized(201)(x), golden["scene"]) <= 1e-5


def test_counts_of_the_published_file() -> None:
    shapes = layout()
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    assert len(weights) == 138
    assert sum(value.numel() for value in weights.values()) / 1e6 == pytest.approx(85.42, abs=0.01)
    settings, own, left = published(weights)
    assert settings == AtstSettings() and len(own) == 137 and left == ["mask_embed"]


def test_teacher_of_the_pre_training() -> None:
    """Its last norm is `norm`, and it has a class token that no frame sees."""
    shapes = layout(64, 1) | {"cls_token": (1, 1, 64)}
    weights = {name: torch.randn(shape) for name, shape in shapes.items()}
    teacher = {name.replace("norm_frame", "norm"): value for name, value in weights.items()}
    _, own, left = published(weights)
    _, same, over = published(teacher)
    assert set(left) == set(over) == {"cls_token", "mask_embed"}
    assert all(torch.equal(own[name], same[name]) for name in own)
    both = weights | {"norm.weight": torch.zeros(64), "norm.bias": torch.zeros(64)}
    _, same, over = published(both)
    assert torch.equal(own["body.norm.weight"], same["body.norm.weight"])
    assert set(over) == {"cls_token", "mask_embed", "norm.weight", "norm.bias"}


class Identity(AudioEncoder):
    """Gives a window back as `number` tokens."""

    KIND = "identity"
    number = 1

    def window_tokens(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), self.number, -1)


@pytest.mark.parametrize(("number", "name"), [(1, "one_token"), (4, "four_tokens")])
def test_average_over_windows_as_salsa(goldens: Path, number: int, name: str) -> None:
    with np.load(goldens / "distill" / "salsa.npz") as file:
        wave, share = (torch.tensor(file[f"snippets/{n}"]) for n in ("wave", "audio_length"))
        expected = torch.tensor(file[f"snippets/{name}_per_snippet"])
    shares = (3 * share[:, None] - torch.arange(3)).clamp(0, 1)  # of 3 windows, one by one
    encoder = Identity(None, HtkDbSettings(num_mel_bins=1, num_frames=32))
    encoder.number = number
    assert far(encoder(pack(wave.reshape(3, 3, 32, 1), shares)), expected) <= 1e-6


def test_what_every_encoder_keeps() -> None:
    checks.check_all(small)


def test_branches_are_left_out_in_training_only() -> None:
    encoder = Atst.start(None, SMALL.model_copy(update={"drop_path": 0.5}), AUDIO, 1)
    x = sounds(encoder, 8)
    assert torch.equal(encoder.eval()(x), small().eval()(x))
    assert far(encoder.train()(x), small().eval()(x)) > 1e-3


def test_refuses() -> None:
    weights = {name: torch.zeros(shape) for name, shape in layout(64, 1).items()}
    kernel = "patch_embed.patch_embed.weight"
    checks.check_refusals(published, weights, "blocks.0.attn.qkv.weight", kernel)
    checks.check_refusals(published, weights, "pos_embed", kernel)
    with pytest.raises(
        ModelError, match=r"weight of ATST-Frame should be \(64, 192\), .*\(64, 200\)"
    ):
        published(weights | {kernel: torch.zeros(64, 200)})
    with pytest.raises(ModelError, match="smaller than one patch"):
        small()(sounds(small(), 1, 3))
    with pytest.raises(ModelError, match=r"knows 20 positions in time, .* 84 frames need 21"):
        small().resized(84)
    assert small().resized(83).grid == (20,)
