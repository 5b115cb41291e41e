"""PaSST: recorded features, patchout against timm's DeiT, positions that are cut, its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor

from pivot.encoders.passt import Passt, published
from pivot.errors import ModelError
from pivot.settings.encoders import PasstSettings
from pivot.settings.front_ends import HtkLogSettings
from tests import encoder_checks as checks
from tests.encoder_checks import far, sounds

SMALL = PasstSettings(width=32, depth=2, heads=2, patchout_time=3, patchout_freq=1)
AUDIO = HtkLogSettings(num_mel_bins=64, num_frames=200)  # 4 rows x 12 columns


def small(settings: PasstSettings = SMALL, audio: HtkLogSettings = AUDIO) -> Passt:
    return Passt.start(None, settings, audio, 1)


def layout(width: int = 768, depth: int = 12, classes: int = 527) -> dict[str, tuple[int, ...]]:
    """PaSST's file: names and shapes."""
    d = width
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, d), "dist_token": (1, 1, d), "new_pos_embed": (1, 2, d),
        "freq_new_pos_embed": (1, d, 8, 1), "time_new_pos_embed": (1, d, 1, 62),
        "patch_embed.proj.weight": (d, 1, 16, 16), "patch_embed.proj.bias": (d,),
    }  # fmt: skip
    for n in range(depth):
        sizes = {"norm1": (d,), "attn.qkv": (3 * d, d), "attn.proj": (d, d), "norm2": (d,)}
        for part, size in {**sizes, "mlp.fc1": (4 * d, d), "mlp.fc2": (d, 4 * d)}.items():
            shapes[f"blocks.{n}.{part}.weight"] = size
            shapes[f"blocks.{n}.{part}.bias"] = size[:1]
    for part, size in {
        "norm": (d,), "head.0": (d,), "head.1": (classes, d), "head_dist": (classes, d),
    }.items():  # fmt: skip
        shapes |= {f"{part}.weight": size, f"{part}.bias": size[:1]}
    return shapes


@pytest.fixture(scope="module")
def golden(goldens: Path) -> dict[str, Tensor]:
    return checks.recorded(goldens, "passt")


def test_recorded_features_of_a_short_clip(golden: dict[str, Tensor]) -> None:
    weights = {name[3:]: value for name, value in golden.items() if name.startswith("sd/")}
    settings, own, left = published(weights)
    assert settings == PasstSettings(width=48, depth=2, heads=1)
    assert len(left) == 6 and all(name.startswith("head") for name in left)
    settings = settings.model_copy(update={"heads": 3})
    encoder = Passt.from_weights(own, {}, settings, HtkLogSettings()).eval()
    x = golden["input"][0].mT  # 201 frames: 12 of the 62 columns
    assert far(encoder(x), golden["features"]) <= 1e-5
    assert far(encoder.resized(201)(x), golden["features"]) <= 1e-5
    assert far(encoder.window_tokens(x)[:, 0], golden["features"]) <= 1e-5


def test_counts_of_the_published_file() -> None:
    shapes = layout()
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    assert len(weights) == 159
    assert sum(value.numel() for value in weights.values()) / 1e6 == pytest.approx(86.12, abs=0.01)
    settings, own, left = published(weights)
    assert settings == PasstSettings() and len(own) == 153 and len(left) == 6


@pytest.mark.parametrize(("step", "grid"), [(10, (12, 99)), (12, (10, 83)), (20, (6, 50))])
def test_step_of_the_patches_is_read(step: int, grid: tuple[int, int]) -> None:
    shapes = layout(64, 1) | {
        "freq_new_pos_embed": (1, 64, grid[0], 1), "time_new_pos_embed": (1, 64, 1, grid[1]),
    }  # fmt: skip
    settings, _, _ = published({name: torch.zeros(shape) for name, shape in shapes.items()})
    assert settings.stride == (step, step)


def deit(encoder: Passt, x: Tensor, seed: int | None) -> Tensor:
    """The same features by timm's DeiT with one table of positions, patches left out by hand."""
    rows, columns = encoder.cells[1], encoder.cells[0]
    size = (encoder.audio.num_mel_bins, encoder.audio.num_frames // 16 * 16)
    other = VisionTransformerDistilled(
        img_size=size, in_chans=1, embed_dim=encoder.dim, depth=2, num_heads=2, num_classes=0
    )
    own = {name.removeprefix("body."): value for name, value in encoder.state_dict().items()}
    freq, time = own.pop("patch_drop.freq"), own.pop("patch_drop.time")
    own["dist_token"] = own.pop("reg_token")
    patches = torch.stack(
        [freq[0, :, f, 0] + time[0, :, 0, t] for f in range(rows) for t in range(columns)]
    )
    own["pos_embed"] = torch.cat([own.pop("patch_drop.tokens"), patches[None]], dim=1)
    other.load_state_dict(own)
    tokens = other._pos_embed(other.patch_embed(x[:, : size[1]].mT[:, None]))
    if seed is not None:
        torch.manual_seed(seed)
        kept = set(torch.randperm(columns)[: columns - 3].tolist())
        kept_rows = set(torch.randperm(rows)[: rows - 1].tolist())
        places = [
            f * columns + t
            for f in range(rows)
            for t in range(columns)
            if t in kept and f in kept_rows
        ]
        tokens = torch.cat([tokens[:, :2], tokens[:, 2:][:, places]], dim=1)
    return other.norm(other.blocks(tokens))[:, :2].mean(1)


def test_patchout_leaves_out_whole_columns_and_rows_in_training_only() -> None:
    encoder = small()
    x = sounds(encoder, 3)
    torch.manual_seed(5)
    trained = encoder.train()(x)
    assert far(trained, deit(encoder, x, 5)) <= 1e-6
    assert far(encoder.eval()(x), deit(encoder, x, None)) <= 1e-6
    assert far(trained, encoder(x)) > 1e-3
    before = torch.random.get_rng_state()
    encoder(x)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_tokens_of_the_salsa_setting() -> None:
    """15 columns and 2 rows of 62 x 8 leave 282 patches, and the two tokens."""
    settings = PasstSettings(width=32, depth=1, heads=2, patchout_time=15, patchout_freq=2)
    encoder = small(settings, HtkLogSettings())
    assert encoder.cells == (62, 8)
    x = sounds(encoder, 2)
    assert encoder.train().tokens(x).shape == (2, 284, 32)
    assert encoder.eval().tokens(x).shape == (2, 2 + 8 * 62, 32)


def test_positions_of_shorter_windows() -> None:
    encoder = small().eval()
    x = sounds(encoder, 2, 120)  # 7 columns
    short = encoder.resized(120)
    assert short.state_dict()["body.patch_drop.time"].shape == (1, 32, 1, 7)
    assert torch.equal(short(x), encoder(x))
    changed = small()
    changed.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        changed.body.patch_drop.time[..., 7:] += 1
    assert torch.equal(changed.eval()(x), encoder(x))
    with pytest.raises(
        ModelError, match=r"knows 12 positions in time, .* 400 frames need 25; .*windows"
    ):
        encoder.resized(400)
    encoder.train()
    with torch.no_grad():
        encoder.body.patch_drop.time.zero_()
        encoder.body.patch_drop.time[..., 5:] = 1  # where a short clip lies is drawn in training
        drawn = torch.stack([encoder(x[:1])[0] for _ in range(8)])
    assert len(drawn.unique(dim=0)) > 1


def test_what_every_encoder_keeps() -> None:
    checks.check_all(small, {"body.cls_token", "body.reg_token"})


def test_refuses() -> None:
    weights = {name: torch.zeros(shape) for name, shape in layout(64, 1, 5).items()}
    checks.check_refusals(published, weights, "blocks.0.mlp.fc2.weight", "cls_token")
    with pytest.raises(ModelError, match=r"3 heads do not divide the passt encoder's width 32"):
        small(SMALL.model_copy(update={"heads": 3}))
    with pytest.raises(ModelError, match=r"patchout of 12 columns .* window of 12 x 4 patches"):
        small(SMALL.model_copy(update={"patchout_time": 12}))
    with pytest.raises(ModelError, match="15 frames x 64 mel bins is smaller than one patch"):
        small()(sounds(small(), 1, 15))
    with pytest.raises(ModelError, match=r"up to 200 frames, 64 mel bins.* not \(2, 201, 64\)"):
        small()(torch.zeros(2, 201, 64))


def test_weights_at_the_start_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = small().state_dict()
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    two = small().state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    other = Passt.start(None, SMALL, AUDIO, 2).state_dict()
    assert not torch.equal(other["body.patch_drop.time"], one["body.patch_drop.time"])
