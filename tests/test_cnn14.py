"""CNN14: PANNs' numbers at full size, its whole state dict, windows, feature fusion, training."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any, get_args
from zlib import crc32

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pivot.audio.mel import log_mel, mel_bank
from pivot.audio.views import pack
from pivot.encoders import encoder_class
from pivot.encoders.cnn14 import Cnn14, published, published_front_end
from pivot.encoders.fusion import fusion_module
from pivot.encoders.weights import UnknownWeights
from pivot.errors import ModelError
from pivot.settings.encoders import Cnn14Settings, Fusion, own_front_end
from pivot.settings.front_ends import HtkDbSettings, SlaneyDbSettings

Weights = dict[str, Tensor]
KINDS = get_args(Fusion)
LATE = [kind for kind in KINDS if "_2d" in kind]
BANK = "logmel_extractor.melW"
SIZES = (64, 128, 256, 512, 1024, 2048)
MELS, FRAMES = 17, 45  # neither is a multiple of a step of the convolutions


def far(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max() / b.detach().abs().max())


def settings(fusion: Any = "none", dropout: float = 0.0) -> Cnn14Settings:
    return Cnn14Settings(channels=(8, 12, 16), fusion=fusion, dropout=dropout, dropout_out=dropout)


def encoder(fusion: str = "none", dropout: float = 0.0) -> Cnn14:
    """Tiny encoder in eval mode, whose batch norms are not those of the start."""
    kind = SlaneyDbSettings if fusion == "none" else HtkDbSettings
    views = {} if fusion == "none" else {"views": "fusion"}
    audio = kind.model_validate({"num_frames": FRAMES, "num_mel_bins": MELS, **views})
    net = Cnn14.start(None, settings(fusion, dropout), audio, seed=3)
    generator = torch.Generator().manual_seed(5)
    for name, value in net.state_dict().items():
        if name.endswith("running_mean"):
            value.copy_(0.2 * torch.rand(value.shape, generator=generator) - 0.1)
        if name.endswith("running_var"):
            value.copy_(0.05 + 0.1 * torch.rand(value.shape, generator=generator))
    return net.eval()


def sounds(count: int, *shape: int, seed: int = 0) -> Tensor:
    shape = shape or (FRAMES, MELS)
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def views(longer: list[bool], seed: int = 0) -> Tensor:
    """Encoder input of fusion (B, 4, T + 1, M): four times the one log-mel if not longer."""
    x = sounds(len(longer), 4, FRAMES, MELS, seed=seed)
    for number, is_longer in enumerate(longer):
        if not is_longer:
            x[number] = x[number, :1]
    shares = torch.tensor([[1.0, 1.0, 1.0, 1.0] if it else [1.0, 0.0, 0.0, 0.0] for it in longer])
    return pack(x, shares)


# ---- PANNs' numbers and weights --------------------------------------------------------------


def layout(channels: tuple[int, ...] = SIZES, mels: int = 64, classes: int = 527) -> Weights:
    """PANNs' state dict without values: 84 tensors."""
    found: dict[str, tuple[int, ...]] = {
        "spectrogram_extractor.stft.conv_real.weight": (513, 1, 1024),
        "spectrogram_extractor.stft.conv_imag.weight": (513, 1, 1024),
        BANK: (513, mels),
        "fc1.weight": (channels[-1], channels[-1]),
        "fc1.bias": (channels[-1],),
        "fc_audioset.weight": (classes, channels[-1]),
        "fc_audioset.bias": (classes,),
    }
    norms = {"bn0": mels}
    for number, (inside, outside) in enumerate(
        zip((1, *channels), channels, strict=False), start=1
    ):
        block = f"conv_block{number}"
        found[f"{block}.conv1.weight"] = (outside, inside, 3, 3)
        found[f"{block}.conv2.weight"] = (outside, outside, 3, 3)
        norms |= {f"{block}.bn1": outside, f"{block}.bn2": outside}
    for name, size in norms.items():
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.{part}"] = (size,)
        found[f"{name}.num_batches_tracked"] = ()
    return {name: torch.zeros(()).expand(shape) for name, shape in found.items()}


def tiny_file(bank: Tensor | None = None) -> Weights:
    weights = layout((2, 3, 4, 5, 6, 7), classes=3)
    return weights | {BANK: mel_bank(SlaneyDbSettings()).float() if bank is None else bank}


def by_formula(name: str, shape: torch.Size) -> Tensor:
    """Weights of the goldens' README."""
    wave = np.sin(np.arange(shape.numel()) * 0.7548776662466927 + crc32(name.encode()) % 1000)
    if name.endswith("running_var"):
        wave = 1 + 0.25 * wave
    elif len(shape) == 1 and name.endswith("weight"):
        wave = 1 + 0.1 * wave
    elif len(shape) >= 2:
        wave *= 1.4 * (2 / shape[1:].numel()) ** 0.5
    else:
        wave *= 0.05
    return torch.from_numpy(wave).float().reshape(shape)


def test_numbers_of_panns_at_full_size(goldens: Path) -> None:
    with np.load(goldens / "distill" / "encoders.npz") as file:
        golden = {k: torch.tensor(file[k]) for k in file.files if k.startswith(("cnn14", "front"))}
        wave = torch.tensor(file["wave/x32"])
    weights = {
        name: value if name.endswith("tracked") or "extractor" in name
        else by_formula(name, value.shape)
        for name, value in layout().items()
    }  # fmt: skip
    weights[BANK] = golden["frontend/cnn14_melW_32k"]
    assert len(weights) == 84
    assert round(sum(value.numel() for value in weights.values()) / 1e4) == 8185  # 81.85 M
    found, own, left = published(weights)
    assert found == Cnn14Settings() and len(own) == 79
    assert left == [name for name in weights if "extractor" in name or "audioset" in name]
    net = Cnn14.from_weights(own, {}, found, SlaneyDbSettings()).eval()
    with torch.no_grad():
        features = net(golden["frontend/cnn14_logmel_32k"][:, 0])  # (1, 201, 64)
        logits = F.linear(features, weights["fc_audioset.weight"], weights["fc_audioset.bias"])
        heard = net(
            log_mel(wave, SlaneyDbSettings.model_validate(published_front_end(weights)))[None]
        )
    assert far(features, golden["cnn14/embedding"]) < 1e-5
    assert far(logits.sigmoid(), golden["cnn14/clipwise"]) < 1e-5
    assert far(heard, golden["cnn14/embedding"]) < 1e-4
    assert net.dim == 2048 and net.grid == (31,)


@pytest.mark.parametrize(
    ("rate", "high", "hop"),
    [(32000, 14000, 320), (44100, 14000, 320), (48000, 14000, 480), (48000, 8000, 480),
     (48000, 18000, 480), (16000, 8000, 160)],
)  # fmt: skip
def test_the_bank_of_a_file_sets_the_front_end(rate: int, high: int, hop: int) -> None:
    bank = mel_bank(SlaneyDbSettings(sample_rate=rate, high_freq=high)).float()
    front_end = SlaneyDbSettings.model_validate(published_front_end(tiny_file(bank)))
    assert front_end == SlaneyDbSettings(sample_rate=rate, hop=hop, high_freq=high, bank_rate=rate)
    # CLAP hears 44100 Hz through it
    clap = front_end.model_copy(update={"sample_rate": 44100})
    assert far(mel_bank(clap).float(), bank) < 1e-6


def test_another_mel_matrix_is_refused() -> None:
    bank = mel_bank(SlaneyDbSettings()).float()
    for wrong in (bank * 1.0001, bank.roll(1, 0), torch.zeros(513, 64), torch.rand(513, 64)):
        for ask in (published, published_front_end):
            with pytest.raises(ModelError, match=r"logmel_extractor\.melW"):
                ask(tiny_file(wrong))
    with pytest.raises(ModelError, match="32 mel bins, bn0 has 64"):
        published(tiny_file(mel_bank(SlaneyDbSettings(num_mel_bins=32)).float()))
    for broken in ({}, {BANK: torch.zeros(513)}, {BANK: torch.zeros(1, 64)}):
        weights = {k: v for k, v in tiny_file().items() if k != BANK} | broken
        with pytest.raises(ModelError, match=r"have no logmel_extractor\.melW"):
            published(weights)


def test_files_that_do_not_fit() -> None:
    def refused(weights: Mapping[str, Tensor]) -> str:
        with pytest.raises(ModelError) as caught:
            published(weights)
        assert "PANNs" in str(caught.value) and "\n" not in str(caught.value)
        return str(caught.value)

    good = tiny_file()
    gone = "conv_block3.bn2.running_var"
    assert gone in refused({k: v for k, v in good.items() if k != gone})
    for name, shape in (
        ("conv_block2.bn1.bias", (4,)),
        ("conv_block4.bn2.weight", (9,)),
        ("conv_block5.conv2.weight", (6, 6, 3)),
        ("bn0.weight", ()),
        ("spectrogram_extractor.stft.conv_imag.weight", (512, 1, 1024)),
    ):
        message = refused(good | {name: torch.zeros(shape)})
        assert name in message and str(shape) in message
    with pytest.raises(UnknownWeights, match="PANNs") as unknown:
        published(good | {"att_block.att.weight": torch.zeros(1)})
    assert unknown.value.names == ["att_block.att.weight"]
    with pytest.raises(UnknownWeights):  # of another family
        published({"cls_token": torch.zeros(1, 1, 768), "blocks.0.norm1.weight": torch.zeros(768)})
    # Cnn10 has four blocks of the same names
    assert "conv_block5" in refused({k: v for k, v in good.items() if "block5" not in k})
    # a class head may be gone
    assert published({k: v for k, v in good.items() if "audioset" not in k})[0].channels[0] == 2


@pytest.mark.parametrize("kind", [kind for kind in KINDS[1:] if "textbook" not in kind])
def test_fusion_is_told_by_the_names(kind: Any) -> None:
    with torch.device("meta"):
        whole = Cnn14(Cnn14Settings(fusion=kind), HtkDbSettings(views="fusion"))
    # LAION has the 1D kinds' parts beside the blocks
    weights = {k.removeprefix("mel_fusion."): v for k, v in whole.state_dict().items()}
    found, own, left = published(weights)
    assert found == Cnn14Settings(fusion=kind) and left == []
    assert own.keys() == whole.state_dict().keys()
    assert published_front_end(weights) == own_front_end(found) | {"num_mel_bins": 64}
    mixed = {"fusion_model.local_att.0.weight", "mel_conv2d.0.weight", "mel_conv1d.0.weight"}
    mixed &= weights.keys()
    for name in mixed:
        with pytest.raises(ModelError, match=name.replace(".", r"\.")):
            published({k: v for k, v in weights.items() if k != name})


# ---- as an encoder ---------------------------------------------------------------------------


def test_the_table_has_it() -> None:
    assert encoder_class("cnn14") is Cnn14 and Cnn14.KIND == "cnn14"


def test_weights_at_the_start_depend_on_the_seed() -> None:
    one, same, other = (
        Cnn14.start(None, settings(), SlaneyDbSettings(), seed).state_dict() for seed in (3, 3, 4)
    )
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not torch.equal(one["fc1.weight"], other["fc1.weight"])


@torch.no_grad()
def test_tokens_windows_and_lengths() -> None:
    net, x = encoder(), sounds(6)
    tokens = net.embed_tokens(x)
    assert tokens.shape == (6, 11, 16) and net.grid == (11,)
    assert (tokens > 0).float().mean() > 0.5  # the tests below are of something

    def pooled(frames: Tensor) -> Tensor:
        return F.relu(net.fc1(frames.max(0).values + frames.mean(0)))

    assert far(net(x), torch.stack([pooled(each) for each in tokens])) < 1e-6
    assert torch.equal(net.window_features(x), net(x))
    shares = torch.tensor([[1.0, 1.0, 0.3], [0.4, 0.0, 0.0]])
    packed = pack(x.unflatten(0, (2, 3)), shares)
    together = net.embed_tokens(packed)
    assert far(together, tokens.reshape(2, 33, 16)) < 1e-6
    wanted = [pooled(together[0, : ceil(2.3 * 11)]), pooled(together[1, : ceil(0.4 * 11)])]
    assert far(net(packed), torch.stack(wanted)) < 1e-6
    one = pack(x[:, None], torch.ones(6, 1))
    assert far(net(one), net(x)) < 1e-6
    assert torch.equal(net.resized(20)(x[:, :20]), net(x[:, :20]))
    assert net.resized(20).grid == (5,) and not net.resized(20).training


@pytest.mark.parametrize("fusion", KINDS)
@torch.no_grad()
def test_a_sound_alone_and_in_any_batch(fusion: str) -> None:
    net = encoder(fusion)
    x = sounds(6) if fusion == "none" else views([True, False, True, False, False, True])
    together = net(x)
    assert together.shape == (6, 16) and torch.equal(together, net(x))
    for rows in ([0], [1], [3, 4], [5, 1, 0], [2, 0, 5], [4, 4, 4]):
        assert far(net(x[rows]), together[rows]) < 1e-6


@pytest.mark.parametrize("fusion", KINDS)
def test_three_steps_of_training(fusion: str) -> None:
    net = encoder(fusion).train()
    x = sounds(4) if fusion == "none" else views([True, False, True, False])
    target = sounds(4, 16, seed=1).abs()
    optimizer, losses = torch.optim.Adam(net.parameters(), lr=2e-3), []
    for _ in range(4):
        loss = (net(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[3] < losses[2] < losses[1] < losses[0]


def test_dropout_only_in_training() -> None:
    net, x = encoder(dropout=0.5), sounds(4)
    assert torch.equal(net(x), net(x))
    net.train()
    assert not torch.equal(net(x), net(x))


@pytest.mark.parametrize("fusion", KINDS)
def test_layers_hold_every_parameter_once(fusion: str) -> None:
    net = encoder(fusion)
    before, blocks, after = net.layers()
    assert len(blocks) == 3 and list(after) == [net.fc1]
    parts = [id(p) for module in (*before, *blocks, *after) for p in module.parameters()]
    assert sorted(parts) == sorted(id(p) for p in net.parameters())


def test_inputs_that_do_not_fit() -> None:
    net = encoder()
    for shape in ((2, MELS, FRAMES), (2, 46, MELS), (FRAMES, MELS), (2, 3, FRAMES + 1, 16)):
        with pytest.raises(ModelError, match="cnn14"):
            net(torch.zeros(shape))
    with pytest.raises(ModelError, match="at least 4 frames"):
        net(torch.zeros(2, 3, MELS))
    with pytest.raises(ModelError, match="4 views of a sound, not 3"):
        encoder("aff_2d")(torch.zeros(2, 3, FRAMES + 1, MELS))
    with pytest.raises(ModelError, match="at least 32 frames and mel bins"):
        Cnn14(Cnn14Settings(), SlaneyDbSettings(num_frames=31))


# ---- feature fusion --------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", LATE)
@torch.no_grad()
def test_fusion_written_out(fusion: str) -> None:
    """The spec's own words, sound by sound, without the encoder's code."""
    net, x = encoder(fusion), views([True, False, True])
    weights = net.state_dict()
    fuse = fusion_module(fusion, 8).eval()
    part = "fusion_model."
    fuse.load_state_dict({k[len(part) :]: v for k, v in weights.items() if k.startswith(part)})

    def norm(name: str, value: Tensor) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(value, *(weights[f"{name}.{part}"] for part in names))

    def block(number: int, value: Tensor, pool: int) -> Tensor:
        for n in (1, 2):
            kernel = weights[f"conv_block{number}.conv{n}.weight"]
            value = norm(f"conv_block{number}.bn{n}", F.conv2d(value, kernel, padding=1)).relu()
        return F.avg_pool2d(value, pool)

    for number, longer in enumerate((True, False, True)):
        normed = norm("bn0", x[number, :, :-1].transpose(1, 2)).transpose(1, 2)  # (4, T, M)
        value = block(1, normed[:1, None], 2)  # (1, 8, 22, 8)
        if longer:
            kernel, bias = weights["mel_conv2d.0.weight"], weights["mel_conv2d.0.bias"]
            each = [
                norm("mel_conv2d.1", F.conv2d(view[None, None], kernel, bias, (6, 2), 2)).relu()
                for view in normed[1:]
            ]
            assert each[0].shape == (1, 8, 8, 9)  # three of 8 frames for 22, 9 bins for 8
            value = fuse(value, torch.cat(each, dim=2)[:, :, :22, :8])
        value = block(3, block(2, value, 2), 1).mean(3)[0]
        features = F.linear(
            value.max(1).values + value.mean(1), weights["fc1.weight"], weights["fc1.bias"]
        ).relu()
        assert far(net(x)[number], features) < 1e-5


@torch.no_grad()
def test_ten_seconds_fuse_167_frames_of_each_window() -> None:
    audio = HtkDbSettings(views="fusion")
    net = Cnn14.start(None, Cnn14Settings(channels=(4, 4), fusion="aff_2d"), audio, seed=1).eval()
    assert net.mel_conv2d(torch.zeros(1, 1, 1001, 64)).shape == (1, 4, 167, 32)
    assert net.embed_tokens(torch.zeros(1, 4, 1002, 64)).shape == (1, 500, 4)


@pytest.mark.parametrize("fusion", ["aff_1d", "iaff_1d", "daf_1d", "channel_map"])
@torch.no_grad()
def test_early_fusion_is_of_normed_log_mels(fusion: str) -> None:
    net: Any = encoder(fusion)
    x = views([True, False, True])
    mels = x[:, :, :-1].flatten(0, 1).mT
    normed = net.bn0(mels).mT.unflatten(0, (3, 4))  # (3, 4, T, M)
    if net.mel_fusion is not None:
        one = net.mel_fusion(normed, torch.tensor([True, False, True]))
        assert one.shape == (3, 1, FRAMES, MELS) and torch.equal(one[1], normed[1, :1])
        normed = one
    assert net.conv_block1.conv1.weight.shape[1] == normed.shape[1]
    value = net.conv_block3(net.conv_block2(net.conv_block1(normed))).mean(3)
    features = net.fc1(value.max(2).values + value.mean(2)).relu()
    assert far(net(x), features) < 1e-6


@pytest.mark.parametrize("fusion", ["none", "aff_2d", "aff_1d"])
def test_stripes_only_in_training(fusion: str) -> None:
    x = sounds(4) if fusion == "none" else views([True, False, True, False])
    for stripes in (True, False):
        plain = encoder(fusion)
        chosen = plain.settings.model_copy(update={"stripes": stripes})
        net = Cnn14.from_weights(plain.state_dict(), {}, chosen, plain.audio).eval()
        assert torch.equal(net(x), plain(x))
        net.train()
        assert torch.equal(net(x), net(x)) != stripes


@pytest.mark.parametrize("fusion", [*LATE, "aff_1d", "iaff_1d", "iaff_1d_textbook", "daf_1d"])
@torch.no_grad()
def test_a_sound_that_is_not_longer_is_not_fused(fusion: str) -> None:
    net, plain = encoder(fusion), encoder()
    fusing = ("mel_conv", "fusion", "mel_fusion")
    own = {k: v for k, v in net.state_dict().items() if not k.startswith(fusing)}
    plain.load_state_dict(own)
    x = views([False, False, True])
    features = net(x)
    assert far(features[:2], plain(x[:2, 0, :-1])) < 1e-6
    assert far(features[2], plain(x[2:, 0, :-1])[0]) > 1e-3


@pytest.mark.parametrize("fusion", KINDS[1:-1])
def test_training_with_one_longer_sound_or_none(fusion: str) -> None:
    for longer in ([False, True, False], [True], [False, False]):
        net = encoder(fusion).train()
        sides = "mel_conv2d" if net.mel_fusion is None else "mel_fusion.mel_conv1d"
        conv: Any = net.get_submodule(f"{sides}.0")
        norm: Any = net.get_submodule(f"{sides}.1")
        before = norm.running_mean.clone()
        features = net(views(longer))
        features.square().sum().backward()
        assert features.isfinite().all()
        # every parameter, or processes that train together would wait for it
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
        assert torch.equal(before, norm.running_mean) != any(longer)
        assert (conv.weight.grad.abs().sum() > 0) == any(longer)
