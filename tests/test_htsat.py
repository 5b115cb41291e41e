"""HTSAT: transformers' numbers, fusion, sounds alone and in batches, publishers' weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import ClapAudioConfig, ClapAudioModel

from pivot.audio.views import pack
from pivot.encoders.fusion import fusion_module
from pivot.encoders.htsat import Htsat, published
from pivot.encoders.htsat_fusion import MelFusion, PatchEmbedding, with_stripes
from pivot.encoders.weights import UnknownWeights
from pivot.errors import ModelError
from pivot.settings.encoders import HtsatSettings
from pivot.settings.front_ends import HtkDbSettings

DEPTHS, HEADS = (1, 2, 1), (1, 2, 4)
FUSIONS = ["aff_2d", "iaff_2d", "iaff_2d_textbook", "daf_2d"]
FUSIONS += ["aff_1d", "iaff_1d", "iaff_1d_textbook", "daf_1d", "channel_map"]
BY_LENGTH = FUSIONS[:-1]  # channel_map sees four views of every sound


def front_end(fusion: str, frames: int = 251, mels: int = 16) -> HtkDbSettings:
    views: Any = "one" if fusion == "none" else "fusion"
    return HtkDbSettings(num_mel_bins=mels, num_frames=frames, views=views)


def small(fusion: str = "none", **more: Any) -> Htsat:
    """Encoder of three stages over 251 frames of 16 mel bins, folded to 64 x 64."""
    sizes: dict[str, Any] = {"width": 8, "depths": DEPTHS, "heads": HEADS, "spec_size": 64}
    settings = HtsatSettings(**(sizes | {"fusion": fusion} | more))
    return Htsat.start(None, settings, front_end(fusion), 0)


def sounds(n: int, fusion: str, longer: list[int] = [], frames: int = 251) -> Tensor:  # noqa: B006
    """Encoder input of n random sounds, those of the numbers in `longer` with four views."""
    torch.manual_seed(1)
    if fusion == "none":
        return torch.randn(n, frames, 16)
    views = torch.randn(n, 4, frames, 16)
    shares = torch.tensor([1.0, 0, 0, 0]).repeat(n, 1)
    shares[longer] = 1
    short = shares[:, 1] == 0
    views[short] = views[short][:, :1]
    return pack(views, shares)


@torch.no_grad()
def scatter(model: torch.nn.Module) -> None:
    """Random numbers in weights and running statistics, none of them 0 or 1."""
    for p in model.parameters():
        p.normal_(std=0.3 if p.ndim > 1 else 0.2)
    for name, value in model.named_buffers():
        if name.endswith("running_mean"):
            value.normal_()
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)


def of_transformers(fused: bool) -> ClapAudioModel:
    """A whole fold of 256 x 256, four stages, few channels."""
    config = ClapAudioConfig(
        patch_embeds_hidden_size=8,
        hidden_size=64,
        depths=(1, 2, 2, 1),
        num_attention_heads=(1, 2, 2, 4),
        enable_fusion=fused,
        fusion_type="aff_2d",
    )
    torch.manual_seed(0)
    model = ClapAudioModel(config).eval()
    scatter(model)
    return model


@pytest.mark.parametrize("fusion", ["none", "aff_2d"])
def test_features_and_tokens_are_those_of_transformers(fusion: str) -> None:
    theirs = of_transformers(fusion != "none")
    settings, weights, left = published(theirs.state_dict())
    assert settings == HtsatSettings(
        width=8, depths=(1, 2, 2, 1), heads=(1, 2, 2, 4), fusion=fusion
    )
    assert left == []
    audio = front_end(fusion, 1001, 64)
    ours = Htsat.from_weights(weights, {}, settings, audio).eval()
    views = torch.randn(3, 1 if fusion == "none" else 4, 1001, 64)
    longer = torch.tensor([True, False, True])
    x = views[:, 0]
    if fusion != "none":
        x = pack(views, torch.where(longer[:, None], 1.0, torch.tensor([1.0, 0, 0, 0])))
    with torch.no_grad():
        wanted = theirs(views, is_longer=longer)
        features, tokens = ours(x), ours.embed_tokens(x)
    assert (ours.dim, ours.grid) == (64, (32, 2)) and tokens.shape == (3, 64, 64)
    torch.testing.assert_close(features, wanted.pooler_output, rtol=0, atol=1e-6)
    map_of_time = wanted.last_hidden_state.permute(0, 3, 2, 1).flatten(1, 2)  # (B, 32 * 2, D)
    torch.testing.assert_close(tokens, map_of_time, rtol=0, atol=1e-6)


def test_tokens_follow_the_time_of_the_sound() -> None:
    encoder = small().eval()
    x = sounds(1, "none")
    changed = x.clone()
    changed[:, 200:] += 3  # the last fifth
    with torch.no_grad():
        apart = (encoder.embed_tokens(x) - encoder.embed_tokens(changed)).abs().sum(-1)[0]
    assert encoder.grid == (16, 1)
    assert apart[13:].min() > 4 * apart[:9].max()


# ---- fusion -------------------------------------------------------------------------------------


def test_windows_lie_side_by_side_in_the_2d_kinds() -> None:
    for kind in FUSIONS[:4]:
        embedding = PatchEmbedding(8, kind).eval()
        scatter(embedding)
        torch.manual_seed(2)
        images = torch.randn(3, 4, 64, 64)
        longer = torch.tensor([False, True, True])
        with torch.no_grad():
            whole = embedding.proj(images[:, :1])
            thirds = [embedding.mel_conv2d(images[:, i : i + 1]) for i in (1, 2, 3)]
            assert thirds[0].shape == (3, 8, 16, 5)  # 64 // 12 columns of a window
            local = torch.cat([*thirds, torch.zeros(3, 8, 16, 1)], 3)
            fused = embedding.fusion_model(whole, local)
            maps = torch.where(longer[:, None, None, None], fused, whole)
            wanted = F.layer_norm(
                maps.flatten(2).mT, (8,), embedding.norm.weight, embedding.norm.bias
            )
            torch.testing.assert_close(embedding(images, longer), wanted, rtol=0, atol=1e-6)
            plain = embedding(images)
        torch.testing.assert_close(plain[0], wanted[0], rtol=0, atol=1e-6)
        assert (plain[1] - wanted[1]).abs().max() > 0.01


def test_published_width_of_the_2d_kinds() -> None:
    embedding = PatchEmbedding(96, "aff_2d")
    assert embedding.mel_conv2d.weight.shape == (96, 1, 4, 12)
    assert embedding.mel_conv2d(torch.zeros(1, 1, 256, 256)).shape == (1, 96, 64, 21)
    assert embedding(torch.zeros(2, 4, 256, 256), torch.tensor([1, 0])).shape == (2, 4096, 96)


def test_channel_map_embeds_four_views_at_once() -> None:
    embedding = PatchEmbedding(8, "channel_map")
    images = torch.randn(2, 4, 16, 16)
    assert embedding.proj.weight.shape == (8, 4, 4, 4)
    maps = F.conv2d(images, embedding.proj.weight, embedding.proj.bias, stride=4)
    wanted = embedding.norm(maps.flatten(2).transpose(1, 2))
    torch.testing.assert_close(embedding(images, torch.tensor([True, False])), wanted)


def test_windows_lie_one_behind_the_other_in_the_1d_kinds() -> None:
    for kind in FUSIONS[4:8]:
        module = MelFusion(64, kind).eval()
        scatter(module)
        torch.manual_seed(2)
        views = torch.randn(2, 4, 1001, 64)
        with torch.no_grad():
            thirds = [module.mel_conv1d(views[1:, i].mT) for i in (1, 2, 3)]
            assert thirds[0].shape == (1, 64, 334)
            local = torch.cat(thirds, 2)[..., :1001]
            wanted = module.fusion_model(views[1:, 0].mT, local).mT
            found = module(views, torch.tensor([False, True]))
            nobody = module(views, torch.tensor([False, False]))
        assert found.shape == (2, 1, 1001, 64)
        torch.testing.assert_close(found[1], wanted, rtol=0, atol=1e-6)
        assert torch.equal(found[0, 0], views[0, 0]) and torch.equal(nobody[:, 0], views[:, 0])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_sound_is_the_same_alone_and_in_any_batch(fusion: str) -> None:
    encoder = small(fusion)
    scatter(encoder)
    encoder.eval()
    x = sounds(5, fusion, longer=[1, 4])
    with torch.no_grad():
        together = encoder(x)
        alone = torch.cat([encoder(one[None]) for one in x])
        without_longer = encoder(x[[0, 2, 3]])
        twice = encoder(x)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    torch.testing.assert_close(together[[0, 2, 3]], without_longer, rtol=0, atol=1e-6)
    assert torch.equal(together, twice)


@pytest.mark.parametrize("fusion", BY_LENGTH)
def test_views_matter_for_longer_sounds_alone(fusion: str) -> None:
    encoder = small(fusion)
    scatter(encoder)
    encoder.eval()
    x = sounds(2, fusion, longer=[1])
    other = x.clone()
    other[:, 1:, :-1] += torch.randn(2, 3, 251, 16)
    with torch.no_grad():
        apart = (encoder(x) - encoder(other)).abs().amax(1)
        mel = encoder(x[:, 0, :-1])  # a plain log-mel is that of a sound that is not longer
    assert apart[0] == 0 and apart[1] > 1e-4
    torch.testing.assert_close(mel[0], encoder(x)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("fusion", BY_LENGTH)
@pytest.mark.parametrize("longer", [[], [2]])
def test_every_parameter_has_a_gradient_in_any_batch(fusion: str, longer: list[int]) -> None:
    encoder = small(fusion).train()
    before = {n: b.clone() for n, b in encoder.named_buffers()}
    encoder(sounds(3, fusion, longer)).square().sum().backward()
    of_fusion = []
    for name, p in encoder.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name
        if "fusion_model" in name or "mel_conv" in name:
            of_fusion.append(p.grad.abs().sum().item())
    assert any(of_fusion) == bool(longer)
    moved = {n for n, b in encoder.named_buffers() if not torch.equal(b, before[n])}
    assert "audio_encoder.batch_norm.running_mean" in moved
    norms = any("fusion_model" in n or "mel_conv" in n for n in moved)
    assert norms == (bool(longer) and fusion != "daf_2d")  # which has no batch norm


# ---- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", ["none", *FUSIONS])
def test_three_steps_decrease_a_loss(fusion: str) -> None:
    encoder = small(fusion, drop_path=0.0, stripes=False).train()
    x, wanted = sounds(4, fusion, longer=[0, 3]), torch.randn(4, encoder.dim)
    optimizer = torch.optim.Adam(encoder.parameters(), 3e-3)
    losses = []
    for _ in range(4):
        loss = F.mse_loss(encoder(x), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True) and losses[3] < 0.97 * losses[0]


def test_stripes_hide_frames_and_bins_of_each_sound() -> None:
    torch.manual_seed(0)
    hidden = with_stripes(torch.ones(150, 2, 1001, 64)) == 0
    assert torch.equal(hidden, hidden[:, :1].expand_as(hidden))  # the same in each view
    frames, bins = hidden[:, 0].all(2).sum(1), hidden[:, 0].all(1).sum(1)
    assert frames.max() <= 2 * 63 and bins.max() <= 2 * 7
    assert abs(frames.float().mean() - 2 * 31.5) < 8 and abs(bins.float().mean() - 2 * 3.5) < 1.5
    assert hidden[:, 0].sum() == sum(
        f * 64 + b * 1001 - f * b for f, b in zip(frames.tolist(), bins.tolist(), strict=True)
    )
    assert len({tuple(row.tolist()) for row in hidden[:50, 0, :, 0]}) > 40
    assert (with_stripes(torch.ones(50, 1, 3, 2)) != 0).flatten(1).any()


def test_stripes_and_drop_path_are_of_training_alone() -> None:
    encoder, x = small(drop_path=0.5), sounds(3, "none")
    with torch.no_grad():
        torch.manual_seed(0)
        first, second = encoder.eval()(x), encoder(x)
        assert torch.equal(first, second)
        striped = small(drop_path=0.0).train()
        assert not torch.equal(striped(x), striped(x))
        plain = small(drop_path=0.0, stripes=False).train()
        assert torch.equal(plain(x), plain(x))


def test_drop_path_grows_over_the_blocks_and_is_of_both_halves() -> None:
    encoder = small(drop_path=0.3)
    blocks = [b for stage in encoder.audio_encoder.layers for b in stage.blocks]
    rates = [getattr(b.drop_path, "drop_prob", 0.0) for b in blocks]
    torch.testing.assert_close(torch.tensor(rates), torch.linspace(0, 0.3, 4))
    halves = [getattr(b.output.dropout, "drop_prob", 0.0) for b in blocks]
    assert halves == rates
    block = blocks[3].train()
    torch.manual_seed(0)
    x = torch.randn(400, 16, 32)
    left_out = (block(x, (4, 4))[0] == x).flatten(1).all(1).float().mean()
    assert abs(left_out - 0.3 * 0.3) < 0.05  # neither half was there


def test_bfloat16_trains_and_is_near_float32() -> None:
    for fusion in ("aff_2d", "aff_1d"):
        encoder, x = small(fusion).eval(), sounds(3, fusion, longer=[1])
        with torch.autocast("cpu", torch.bfloat16):
            features = encoder(x)
            encoder.train()(x).float().square().sum().backward()
        torch.testing.assert_close(features.float(), encoder.eval()(x), rtol=0.1, atol=0.1)


# ---- sizes --------------------------------------------------------------------------------------


def test_start_depends_on_the_seed_alone() -> None:
    settings, audio = small().settings, front_end("none")
    state = torch.random.get_rng_state()
    one, same, other = (Htsat.start(None, settings, audio, seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.random.get_rng_state())
    name = "audio_encoder.layers.0.blocks.0.attention.self.query.weight"
    assert torch.equal(one.state_dict()[name], same.state_dict()[name])
    assert not torch.equal(one.state_dict()[name], other.state_dict()[name])


@pytest.mark.parametrize("side, mels, frames", [(32, 16, 64), (64, 32, 100), (128, 16, 1000)])
def test_other_squares(side: int, mels: int, frames: int) -> None:
    settings = HtsatSettings(width=8, depths=DEPTHS, heads=HEADS, spec_size=side, fusion="aff_2d")
    encoder = Htsat.start(None, settings, front_end("aff_2d", frames, mels), 0).eval()
    scatter(encoder)
    assert encoder.grid == (side // mels * side // 16, mels // 16)
    x = pack(torch.randn(2, 4, frames, mels), torch.ones(2, 4))
    with torch.no_grad():
        assert encoder.embed_tokens(x).shape == (2, (side // 16) ** 2, 32)
        assert encoder(x).shape == (2, encoder.dim) and encoder(x).std() > 0
    settings, weights, _ = published(encoder.state_dict())
    assert settings == encoder.settings
    copy = Htsat.from_weights(weights, {}, settings, encoder.audio).eval()
    torch.testing.assert_close(copy(x), encoder(x), rtol=0, atol=0)


def test_resized_keeps_weights_and_shorter_mels_are_stretched() -> None:
    encoder, x = small().eval(), sounds(2, "none", frames=100)
    shorter = encoder.resized(100)
    with torch.no_grad():
        torch.testing.assert_close(shorter(x), encoder(x), rtol=0, atol=0)
        stretched = F.interpolate(x[:, None], (256, 16), mode="bicubic", align_corners=True)[:, 0]
        longest = encoder.resized(256)
        body = encoder.audio_encoder.batch_norm  # mean 0 and variance 1 so far: nothing to undo
        assert body.running_mean.abs().max() == 0
        torch.testing.assert_close(longest(stretched), shorter(x), rtol=0, atol=1e-4)
    with pytest.raises(ModelError, match=r"num_frames 257 does not fit a square .* at most 256"):
        encoder.resized(257)


def test_layers_are_all_of_the_encoder() -> None:
    encoder = small("aff_1d")
    before, blocks, after = encoder.layers()
    assert len(blocks) == sum(DEPTHS)
    found = [p for m in (*before, *blocks, *after) for p in m.parameters()]
    assert {id(p) for p in found} == {id(p) for p in encoder.parameters()}
    assert len(found) == len(list(encoder.parameters()))
    stages = encoder.audio_encoder.layers
    assert stages[1].downsample in blocks[2].children()
    assert stages[0].downsample in blocks[0].children()


@pytest.mark.parametrize(
    "more, said",
    [
        ({"heads": (4, 8)}, "encoder.heads .* needs one number for each of 3 stages"),
        ({"heads": (1, 3, 4)}, "3 heads do not share 16 numbers of a token in stage 2 evenly"),
        ({"depths": (1, 1, 1, 1), "heads": (1, 1, 1, 1)}, "num_mel_bins 16 .* multiple of 32"),
        ({"spec_size": 72}, "spec_size 72 needs to be a multiple of audio.num_mel_bins 16"),
        ({"spec_size": 32}, "num_frames 251 does not fit a square of encoder.spec_size 32"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        small(**more)


def test_input_of_another_shape_is_refused() -> None:
    with pytest.raises(ModelError, match="takes 4 views of a sound, not 3"):
        small("aff_2d")(torch.zeros(2, 3, 252, 16))
    with pytest.raises(ModelError, match=r"the htsat encoder takes log-mel"):
        small()(torch.zeros(2, 251, 64))
    with pytest.raises(ModelError, match=r"audio.views fusion needs encoder.fusion"):
        Htsat(small().settings, front_end("aff_2d"))


def test_several_windows_are_averaged_as_far_as_the_sound_goes() -> None:
    encoder = small().eval()
    windows = torch.randn(1, 2, 251, 16)
    with torch.no_grad():
        tokens = encoder.window_tokens(windows[0])  # (2, 16, D)
        features = encoder(pack(windows, torch.tensor([[1.0, 0.25]])))
    wanted = torch.cat([tokens[0], tokens[1, :4]]).mean(0)
    torch.testing.assert_close(features[0], wanted, rtol=0, atol=1e-6)


# ---- publishers' weights ------------------------------------------------------------------------


def laion(width: int, depths: tuple[int, ...], heads: tuple[int, ...], fused: bool) -> Any:
    """LAION's full layout, names and shapes written down from the specification."""
    found: dict[str, tuple[int, ...]] = {}

    def pair(name: str, *shape: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = shape, shape[:1]

    def norm(name: str, channels: int) -> None:
        pair(name, channels)
        found[f"{name}.running_mean"] = found[f"{name}.running_var"] = (channels,)
        found[f"{name}.num_batches_tracked"] = ()

    for part in ("real", "imag"):
        found[f"spectrogram_extractor.stft.conv_{part}.weight"] = (513, 1, 1024)
    found["logmel_extractor.melW"] = (513, 64)
    norm("bn0", 64)
    pair("patch_embed.proj", width, 1, 4, 4)
    pair("patch_embed.norm", width)
    if fused:
        pair("patch_embed.mel_conv2d", width, 1, 4, 12)
        for branch, first in (("local_att", 0), ("global_att", 1)):
            name = f"patch_embed.fusion_model.{branch}"
            pair(f"{name}.{first}", width // 4, width, 1, 1)
            norm(f"{name}.{first + 1}", width // 4)
            pair(f"{name}.{first + 3}", width, width // 4, 1, 1)
            norm(f"{name}.{first + 4}", width)
    for i, (depth, n) in enumerate(zip(depths, heads, strict=True)):
        own, side = width * 2**i, 64 // 2**i
        for j in range(depth):
            name = f"layers.{i}.blocks.{j}"
            pair(f"{name}.norm1", own)
            found[f"{name}.attn.relative_position_bias_table"] = (225, n)
            found[f"{name}.attn.relative_position_index"] = (64, 64)
            pair(f"{name}.attn.qkv", 3 * own, own)
            pair(f"{name}.attn.proj", own, own)
            pair(f"{name}.norm2", own)
            pair(f"{name}.mlp.fc1", 4 * own, own)
            pair(f"{name}.mlp.fc2", own, 4 * own)
            if j % 2 and side > 8:
                found[f"{name}.attn_mask"] = (side * side // 64, 64, 64)
        if i < len(depths) - 1:
            found[f"layers.{i}.downsample.reduction.weight"] = (2 * own, 4 * own)
            pair(f"layers.{i}.downsample.norm", 4 * own)
    last = width * 2 ** (len(depths) - 1)
    pair("norm", last)
    pair("tscam_conv", 527, last, 2, 3)
    pair("head", 527, 527)
    return found


SIZES = {"tiny": (96, (2, 2, 6, 2)), "base": (128, (2, 2, 12, 2)), "large": (256, (2, 2, 12, 2))}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fused", [False, True])
def test_laions_layout_in_every_size(size: str, fused: bool) -> None:
    width, depths = SIZES[size]
    layout = laion(width, depths, (4, 8, 16, 32), fused)
    weights = {name: torch.empty(shape, device="meta") for name, shape in layout.items()}
    settings, own, left = published(weights)
    kinds: dict[bool, Any] = {False: "none", True: "aff_2d"}
    assert settings == HtsatSettings(size=size, fusion=kinds[fused])
    parts = {"spectrogram_extractor", "logmel_extractor", "tscam_conv", "head", "layers"}
    assert {name.split(".")[0] for name in left} == parts
    assert all(name.endswith("attn_mask") for name in left if name.startswith("layers"))
    with torch.device("meta"):
        encoder = Htsat(settings, front_end(settings.fusion, 1001, 64))
    assert own.keys() == encoder.state_dict().keys()
    if size == "tiny" and not fused:
        of_training = [n for n in layout if not n.endswith(("_index", "_mask", "tracked"))]
        of_training = [n for n in of_training if "running" not in n]
        values = sum(weights[n].numel() for n in of_training)
        assert round(values / 1e6, 1) == 31.3
        heads = [n for n in of_training if n in left]
        own_values = sum(p.numel() for p in encoder.parameters())
        assert own_values + sum(weights[n].numel() for n in heads) == values


def as_laion(model: ClapAudioModel) -> dict[str, Tensor]:
    """Weights of transformers under LAION's names, with the parts that are left out."""
    found: dict[str, Tensor] = {}
    for name, value in model.audio_encoder.state_dict().items():
        for own, theirs in (
            ("batch_norm.", "bn0."), ("layernorm_before", "norm1"), ("layernorm_after", "norm2"),
            ("attention.output.dense", "attn.proj"), ("attention.self", "attn"),
            ("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"),
        ):  # fmt: skip
            name = name.replace(own, theirs)
        if ".attn.query." in name:
            found[name.replace("query", "qkv")] = value
        elif ".attn.key." in name or ".attn.value." in name:
            whole = name.replace("key", "qkv").replace("value", "qkv")
            found[whole] = torch.cat([found[whole], value])
        else:
            found[name] = value
    return found | {"head.bias": torch.zeros(527), "logmel_extractor.melW": torch.zeros(513, 64)}


@pytest.mark.parametrize("fused", [False, True])
def test_laions_names_give_the_same_encoder_as_those_of_transformers(fused: bool) -> None:
    model = of_transformers(fused)
    settings, own, _ = published(model.state_dict())
    bare = {n: w for n, w in as_laion(model).items() if "relative_position_index" not in n}
    settings_too, own_too, left = published(bare)
    assert settings == settings_too and own.keys() == own_too.keys()
    assert all(torch.equal(own[name], own_too[name]) for name in own)
    assert sorted(left) == ["head.bias", "logmel_extractor.melW"]


@pytest.mark.parametrize("fusion", ["aff_1d", "iaff_1d", "daf_1d", "iaff_2d", "daf_2d"])
def test_kind_of_fusion_is_read_from_laions_names(fusion: str) -> None:
    encoder = small(fusion)
    own = encoder.state_dict()
    assert published(own)[0].fusion == fusion
    model = of_transformers(False)
    weights = as_laion(model)
    modules = {"mel_conv1d": MelFusion(64, fusion)} if "1d" in fusion else {}
    if modules:
        weights |= modules["mel_conv1d"].state_dict()
    else:
        fused = PatchEmbedding(8, fusion).state_dict()
        weights |= {f"patch_embed.{n}": w for n, w in fused.items()}
    settings, state, _ = published(weights)
    assert settings.fusion == fusion
    names = [n for n in weights if "fusion_model" in n or "mel_conv" in n]
    start = "mel_fusion." if modules else "audio_encoder."
    assert all(torch.equal(state[f"{start}{n}"], weights[n]) for n in names) and names


def test_weights_that_are_not_htsats_are_refused() -> None:
    good = as_laion(of_transformers(True))
    with pytest.raises(ModelError, match=r"not all of HTSAT: patch_embed.proj.weight is missing"):
        published({"conv_block1.conv1.weight": torch.zeros(64, 1, 3, 3)})
    with pytest.raises(ModelError, match=r"patch_embed.proj.weight of HTSAT should be .*16, 16\)"):
        published({"patch_embed.proj.weight": torch.zeros(768, 1, 16, 16)})
    with pytest.raises(UnknownWeights, match=r"layers.0.blocks.0.attn.gate") as unknown:
        published(good | {"layers.0.blocks.0.attn.gate": torch.zeros(1)})
    assert list(unknown.value.names) == ["layers.0.blocks.0.attn.gate"]
    short = {n: w for n, w in good.items() if n != "layers.1.blocks.1.mlp.fc2.bias"}
    with pytest.raises(ModelError, match=r"HTSAT: layers.1.blocks.1.mlp.fc2.bias is missing"):
        published(short)
    narrow = good | {"layers.1.blocks.0.attn.qkv.weight": torch.zeros(45, 16)}
    with pytest.raises(ModelError, match=r"qkv.weight \(key\) of HTSAT should be \(16, 16\)"):
        published(narrow)


def test_fused_weights_do_not_load_into_an_encoder_without_fusion() -> None:
    fused = small("aff_2d").state_dict()
    with pytest.raises(ModelError, match="the weights do not fit the htsat encoder"):
        Htsat.from_weights(fused, {}, small().settings, front_end("none"))
    assert fusion_module("aff_2d", 8).state_dict().keys() <= {
        name.removeprefix("audio_encoder.patch_embed.fusion_model.") for name in fused
    }
