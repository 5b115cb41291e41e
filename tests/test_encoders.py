"""Encoders: the audio ViT against the authors' numbers and open_clip's ViT, and the frozen CLIP."""

from __future__ import annotations

import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pivot.bench import train
from pivot.encoders import ENCODERS, build_audio, encoder_class
from pivot.encoders.clip import FrozenClip, load_clip
from pivot.encoders.vit import AudioVit
from pivot.encoders.vit_shape import VisualFacts, resize_positions
from pivot.errors import DataError, ModelError, SettingsError, UserError
from pivot.settings import AudioSettings, Bench, ClipSettings, LarsSettings, VitSettings
from pivot.training.optim import build_optimizer
from tests.tiny import tiny_clip_folder, tiny_config, write_clip

Golden = dict[str, Tensor]
KEYS = {  # the authors' module names -> open_clip's
    "encoder.": "transformer.",
    "pre_encoder.conv1": "conv1",
    "pre_encoder.ln": "ln_pre",
    "post_encoder.ln": "ln_post",
    "post_encoder.proj": "proj",
    "misc.": "",
}


def far(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


@pytest.fixture(scope="module")
def tiny(goldens: Path) -> Golden:
    with np.load(goldens / "vip_ant" / "tiny_tower.npz") as file:
        return {k: torch.tensor(file[k]) for k in file.files if file[k].dtype.kind != "U"}


def visual(tiny: Golden) -> Golden:
    return {name[3:]: value for name, value in tiny.items() if name.startswith("sd/")}


def audio_vit(tiny: Golden, frames: int = 100, **settings: Any) -> AudioVit:
    settings = {"stride": (4, 6), **settings}
    audio = AudioSettings(num_frames=frames, num_mel_bins=32)
    return AudioVit.from_clip(visual(tiny), 1, VitSettings(**settings), audio, seed=1)


# ---- the audio ViT against the authors' numbers ---------------------------------------------


def test_tokens_and_features(tiny: Golden) -> None:
    vit, x = audio_vit(tiny), tiny["fbank"][:, 0]
    assert vit.grid == (24, 5)
    assert far(vit.positional_embedding, tiny["pos_100"]) < 1e-6
    tokens = vit.tokens(x)
    assert far(tokens, tiny["tokens_100"]) < 1e-5
    assert far(vit.transformer(tokens), tiny["encoded_100"]) < 1e-5
    assert far(vit(x), tiny["feat_100"]) < 1e-5
    assert far(F.normalize(vit(x), dim=-1), tiny["featn_100"]) < 1e-5


def test_gradients(tiny: Golden, goldens: Path) -> None:
    vit = audio_vit(tiny)
    (F.normalize(vit(tiny["fbank"][:, 0]), dim=-1) * tiny["cot"]).sum().backward()

    def gradient(theirs: str) -> Tensor:
        old = next(key for key in KEYS if theirs.startswith(key))
        found = vit.get_parameter(KEYS[old] + theirs.removeprefix(old)).grad
        assert found is not None
        return found

    for name in (name for name in tiny if name.startswith("grad/")):
        expected = tiny[name]
        assert far(gradient(name[5:]), expected) < 1e-5 * float(expected.abs().max()), name
    with np.load(goldens / "vip_ant" / "tiny_tower.npz") as file:
        names, norms = file["grad_norms_names"], file["grad_norms"]
    assert len(names) == len(list(vit.parameters()))
    for name, norm in zip(names, norms, strict=True):
        assert float(gradient(str(name)).norm()) == pytest.approx(norm, rel=1e-5), name


def test_other_lengths(tiny: Golden) -> None:
    vit, longer = audio_vit(tiny), tiny["fbank180"][:, 0]
    assert far(vit(tiny["fbank"][:2, 0, :52]), tiny["feat_52_fed_to_100"]) < 1e-5
    resized = vit.resized(180)
    assert far(resized.positional_embedding, tiny["pos_180"]) < 1e-6
    assert far(resized(longer), tiny["feat_180"]) < 1e-5
    direct = audio_vit(tiny, frames=180)
    assert far(direct.positional_embedding, tiny["pos_180_direct"]) < 1e-6
    assert far(direct(longer), tiny["feat_180_direct"]) < 1e-5
    assert far(vit.resized(100)(tiny["fbank"][:, 0]), tiny["feat_100"]) < 1e-5


def test_shorter_by_slicing(tiny: Golden) -> None:
    """The reference's rows 6 to 17 of 24; what is not shorter is resized or copied whatever."""
    vit = audio_vit(tiny, positions="slice6")
    short = vit.resized(52)
    assert short.grid == (12, 5) and short.audio.num_frames == 52
    assert torch.equal(short.positional_embedding, tiny["pos_52"])
    assert far(short(tiny["fbank"][:2, 0, :52]), tiny["feat_52"]) < 1e-5
    grid = vit.positional_embedding[1:].unflatten(0, vit.grid)
    assert torch.equal(short.positional_embedding[1:], grid[6:18].flatten(0, 1))
    other = vit.resized(52, positions="bilinear").positional_embedding
    assert torch.equal(other, audio_vit(tiny).resized(52).positional_embedding)
    assert far(other, short.positional_embedding) > 0.01
    assert far(vit.resized(180).positional_embedding, tiny["pos_180"]) < 1e-6
    assert torch.equal(vit.resized(101).positional_embedding, vit.positional_embedding)
    assert vit.resized(76).grid == (18, 5)  # the last 18 of 24 rows
    with pytest.raises(ModelError, match=r"skips 6 rows of a grid of 24 x 5, .* no 19 x 5"):
        vit.resized(80)


@pytest.mark.parametrize("stride", [(4, 4), (8, 8), (16, 12)])
def test_strides(tiny: Golden, stride: tuple[int, int]) -> None:
    vit, name = audio_vit(tiny, stride=stride), f"stride{stride[0]}x{stride[1]}"
    assert far(vit.positional_embedding, tiny[f"pos_{name}"]) < 1e-6
    assert far(vit(tiny["fbank"][:, 0]), tiny[f"feat_{name}"]) < 1e-5


def test_kernels(tiny: Golden) -> None:
    x = tiny["fbank"][:, 0]
    assert far(audio_vit(tiny, kernel="load_mean")(x), tiny["feat_100"]) < 1e-5
    assert audio_vit(tiny).conv1.weight.shape[1] == 3
    summed = audio_vit(tiny, kernel="load_sum")
    assert summed.conv1.weight.shape[1] == 1
    # the sum over channels is what CLIP does with a grey picture
    assert far(summed.conv1.weight[:, 0], visual(tiny)["conv1.weight"].sum(1)) < 1e-6


@pytest.mark.parametrize("channels", ["equal", "independent"])
def test_mean_kernel_under_lars(tiny: Golden, channels: str) -> None:
    """One step: the mean kernel of three moves |W| / (sqrt(3) |mean W|) times as far as its own."""
    weights, x = visual(tiny), tiny["fbank"][:, 0]
    noise = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    kernel = noise[:, :1].expand(-1, 3, -1, -1) if channels == "equal" else noise
    weights["conv1.weight"] = 0.02 * kernel
    moved = {}
    for rule in ("runtime_mean", "load_mean"):
        settings, audio = VitSettings(stride=(4, 6), kernel=rule), AudioSettings(num_frames=100)
        audio = audio.model_copy(update={"num_mel_bins": 32})
        vit = AudioVit.from_clip(weights, 1, settings, audio, seed=1)
        before = vit.conv1.weight.detach().mean(1)
        lars = build_optimizer(vit.named_parameters(), LarsSettings(weight_decay=0), 256)
        (F.normalize(vit(x), dim=-1) * tiny["cot"]).sum().backward()
        lars.step()
        moved[rule] = vit.conv1.weight.detach().mean(1) - before
    norm = weights["conv1.weight"].norm()
    formula = float(norm / (3**0.5 * weights["conv1.weight"].mean(1).norm()))
    ratio = float(moved["runtime_mean"].norm() / moved["load_mean"].norm())
    assert ratio == pytest.approx(formula, rel=1e-3)
    assert ratio == pytest.approx({"equal": 1.0, "independent": 3**0.5}[channels], rel=0.02)
    direction = F.cosine_similarity(*(value.flatten() for value in moved.values()), dim=0)
    assert float(direction) == pytest.approx(1, abs=1e-5)


def test_frozen_clip_meets_both_goldens(tiny: Golden, goldens: Path, tmp_path: Path) -> None:
    with np.load(goldens / "vip_ant" / "tiny_text.npz") as file:
        text = {name: torch.tensor(file[name]) for name in file.files}
    config = tiny_config(96, head_width=64)
    config["text_cfg"] |= {"heads": 1, "pool_type": "argmax"}
    weights = {f"visual.{name}": value for name, value in visual(tiny).items()}
    weights |= {name[3:]: value for name, value in text.items() if name.startswith("sd/")}
    weights["logit_scale"] = torch.tensor(2.6593)
    words = [f"word{i}" for i in range(96)]
    clip = load_clip(ClipSettings(model=str(write_clip(tmp_path, config, words, weights))))
    assert far(clip.model.encode_text(text["ids"]), text["feat"]) < 1e-5
    assert far(clip.model.encode_image(tiny["image"]), tiny["image_feat"]) < 1e-5


# ---- the audio ViT against open_clip --------------------------------------------------------


def test_vit_b_32_sizes() -> None:
    clip = open_clip.create_model("ViT-B-32-quickgelu")
    settings, audio = VitSettings(), AudioSettings()
    vit = AudioVit.from_clip(clip.visual.state_dict(), 12, settings, audio, seed=1)
    assert vit.grid == (61, 5)
    assert sum(p.numel() for p in vit.parameters()) == 88_045_824
    with torch.no_grad():
        assert vit.tokens(torch.zeros(1, 1000, 128)).shape == (1, 306, 768)
    assert vit.resized(1800).grid == (111, 5)
    assert vit.resized(500, "slice6").grid == (30, 5)  # rows 6 to 35 of 61
    again = AudioVit.from_weights(vit.state_dict(), 12, settings, audio)
    assert again.grid == (61, 5) and torch.equal(again.proj, vit.proj)


VARIANTS: dict[str, dict[str, Any]] = {
    "quick": {},
    "gelu": {"quick_gelu": False},
    "average": {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
    "average_before": {"pool_type": "avg"},
    "layer_scale": {"ls_init_value": 0.3},
    "oblong": {"image_size": (40, 24)},
    "wide_mlp": {"mlp_ratio": 3.0, "head_width": 16, "layers": 1},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_equals_open_clip_where_it_can(name: str, tmp_path: Path) -> None:
    """With the stride of CLIP's patches the FBANK is a grey picture that open_clip can read."""
    clip = load_clip(ClipSettings(model=str(tiny_clip_folder(tmp_path, **VARIANTS[name]))))
    tall, wide = clip.image_size
    audio = AudioSettings(num_frames=tall, num_mel_bins=wide)
    x = torch.randn(3, tall, wide, generator=torch.Generator().manual_seed(1))
    for kernel, gain in (("runtime_mean", 1 / 3), ("load_sum", 1.0)):
        vit = build_audio(clip, VitSettings(stride=(8, 8), kernel=kernel), audio, seed=1)
        expected = clip.model.encode_image(gain * x[:, None].expand(-1, 3, -1, -1))
        assert far(vit(x), expected) < 1e-5


def test_same_features_by_every_path(tiny: Golden) -> None:
    vit, x = audio_vit(tiny), tiny["fbank"][:, 0]
    expected = vit(x)
    for patches in ("conv", "unfold"):
        for attention in ("explicit", "fused"):
            assert far(vit.use(patches=patches, attention=attention)(x), expected) < 1e-5


def test_bf16_trains_close_to_fp32(tiny: Golden) -> None:
    vit, x = audio_vit(tiny), tiny["fbank"][:, 0]
    with torch.autocast("cpu", torch.bfloat16):
        features = vit(x)
    features.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in vit.parameters())
    cosine = F.cosine_similarity(features.float(), tiny["feat_100"])
    assert float(cosine.detach().min()) > 0.999


def test_random_start(tiny: Golden) -> None:
    before = torch.get_rng_state()
    a, b, c = (
        AudioVit.from_clip(visual(tiny), 1, VitSettings(init="random"), a, seed)
        for a, seed in ((AudioSettings(num_mel_bins=32), s) for s in (1, 1, 2))
    )
    assert torch.equal(before, torch.get_rng_state())
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name])
        spread = value.ndim > 1 or name == "class_embedding" or "mlp" in name
        assert spread == (not torch.equal(value, c.state_dict()[name])), name
    assert float(a.positional_embedding.detach().std()) == pytest.approx(64**-0.5, rel=0.1)
    assert a.audio.num_frames == 1000


def test_random_start_is_torchs(tiny: Golden) -> None:
    """Spread of every kind of tensor as torch starts that layer, for 3 channels and for 1."""
    torch.manual_seed(1)
    attention, wide = torch.nn.MultiheadAttention(64, 1), torch.nn.Linear(64, 256)
    back, block = torch.nn.Linear(256, 64), "transformer.resblocks.1."
    for kernel, channels in (("runtime_mean", 3), ("load_mean", 1)):
        found = audio_vit(tiny, init="random", kernel=kernel).state_dict()
        theirs = {
            "conv1.weight": torch.nn.Conv2d(channels, 64, 8, bias=False).weight,
            f"{block}attn.in_proj_weight": attention.in_proj_weight,
            f"{block}attn.in_proj_bias": attention.in_proj_bias,
            f"{block}attn.out_proj.weight": attention.out_proj.weight,
            f"{block}attn.out_proj.bias": attention.out_proj.bias,
            f"{block}mlp.c_fc.weight": wide.weight,
            f"{block}mlp.c_fc.bias": wide.bias,
            f"{block}mlp.c_proj.weight": back.weight,
            f"{block}mlp.c_proj.bias": back.bias,
            f"{block}ln_1.weight": torch.ones(64),
            "ln_post.bias": torch.zeros(64),
            "positional_embedding": 64**-0.5 * torch.randn(121, 64),
            "proj": 64**-0.5 * torch.randn(64, 16),
        }
        for name, parameter in theirs.items():
            value = parameter.detach()
            assert found[name].shape == value.shape, name
            assert float(found[name].std()) == pytest.approx(float(value.std()), rel=0.15), name
            if "emb" not in name and name != "proj":  # bounded: uniform, or constant
                limits = float(found[name].abs().max()), float(value.abs().max())
                assert limits[0] == pytest.approx(limits[1], rel=0.06), name


def test_fresh_projection(tiny: Golden) -> None:
    fresh = audio_vit(tiny, fresh_projection=True).state_dict()
    for name, value in audio_vit(tiny).state_dict().items():
        assert torch.equal(value, fresh[name]) == (name != "proj"), name


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2, 101, 32), "up to 100 frames"),
        ((2, 100, 31), "32 mel bins"),
        ((100, 32), r"not \(100, 32\)"),
        ((2, 7, 32), "smaller than one patch"),
    ],
)
def test_refuses_input(tiny: Golden, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        audio_vit(tiny)(torch.zeros(shape))


def test_refuses_weights(tiny: Golden) -> None:
    settings, audio = VitSettings(), AudioSettings(num_mel_bins=32)
    weights = visual(tiny)
    with pytest.raises(ModelError, match="smaller than one patch"):
        AudioVit.from_clip(weights, 1, settings, AudioSettings(num_mel_bins=7), 1)
    with pytest.raises(ModelError, match="5 heads do not divide"):
        AudioVit.from_clip(weights, 5, settings, audio, 1)
    with pytest.raises(ModelError, match="no plain ViT"):
        AudioVit.from_clip(weights | {"attn_pool.query": torch.zeros(1)}, 1, settings, audio, 1)
    with pytest.raises(ModelError, match="no class_embedding"):
        AudioVit.from_clip({"conv1.weight": torch.zeros(3)}, 1, settings, audio, 1)
    short = weights | {"positional_embedding": torch.zeros(16, 64)}
    with pytest.raises(ModelError, match="15 positions are no square grid"):
        AudioVit.from_clip(short, 1, settings, audio, 1)
    with pytest.raises(ModelError, match="kind 'cnn'; there are: vit"):
        encoder_class("cnn")
    assert set(ENCODERS) == {"vit", "ast", "passt", "atst", "mobilenet", "cnn14", "htsat"}


@pytest.mark.parametrize("pool", ["tok", "avg"])
def test_patches_as_tokens(tiny: Golden, pool: Any) -> None:
    """Each patch of the last block by itself: a mean over them is what an average pool gives."""
    facts = VisualFacts(1, pool=pool)
    audio = AudioSettings(num_frames=100, num_mel_bins=32)
    vit = AudioVit.from_clip(visual(tiny), facts, VitSettings(stride=(4, 6)), audio, seed=1)
    x = torch.randn(2, 100, 32, generator=torch.Generator().manual_seed(4))
    tokens = vit.embed_tokens(x)
    assert tokens.shape == (2, vit.grid[0] * vit.grid[1], vit.dim)
    last = vit.transformer(vit.tokens(x))
    assert far(tokens[1, 7], vit.ln_post(last[1, 8]) @ vit.proj) <= 1e-5
    if pool == "avg":
        assert far(tokens.mean(1), vit(x)) <= 1e-5


def test_layers_have_all_but_the_class_token_and_the_positions(tiny: Golden) -> None:
    vit = audio_vit(tiny)
    before, blocks, after = vit.layers()
    found = [p for module in [*before, *blocks, *after] for p in module.parameters()]
    names = {id(value): name for name, value in vit.named_parameters()}
    loose = set(names.values()) - {names[id(value)] for value in found}
    assert loose == {"class_embedding", "positional_embedding"}
    assert [names[id(p)] for m in after for p in m.parameters()] == [
        "ln_post.weight", "ln_post.bias", "proj",
    ]  # fmt: skip
    assert len(vit.state_dict()) == len(audio_vit(tiny).state_dict())


def test_positions_against_a_hand_calculation() -> None:
    """2 x 1 cells to 4 x 1: weights 1, 3/4, 1/4, 0 of the first (half-pixel centres)."""
    table = torch.tensor([[9.0], [0.0], [4.0]])
    found = resize_positions(table, (2, 1), (4, 1))
    assert found.flatten().tolist() == [9.0, 0.0, 1.0, 3.0, 4.0]


# ---- the frozen CLIP ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip_folder(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(folder: Path) -> FrozenClip:
    return load_clip(ClipSettings(model=str(folder)))


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng([7, count])
    return [Image.fromarray(rng.integers(0, 255, (50, 40, 3), np.uint8)) for _ in range(count)]


def test_clip_equals_open_clip(clip: FrozenClip, folder: Path) -> None:
    name = f"local-dir:{folder}"
    model, _, transform = open_clip.create_model_and_transforms(name)
    images, texts = pictures(3), ["the sound of a Dog .", "zebra", ""]
    batch = torch.stack([transform(image) for image in images])
    assert torch.equal(torch.stack([clip.preprocess(image) for image in images]), batch)
    tokens = open_clip.get_tokenizer(name)(texts)
    assert torch.equal(clip.tokenize(texts), tokens)
    with torch.no_grad():
        expected = model.eval().encode_image(batch, normalize=True)
        assert far(clip.encode_image(images), expected) < 1e-6
        expected = model.encode_text(tokens, normalize=True)
        assert far(clip.encode_text(texts), expected) < 1e-6


def test_embeddings_do_not_depend_on_the_batch(clip: FrozenClip) -> None:
    images, texts = pictures(19), ["a dog", "the bell rings", "rain"] * 4
    with torch.autocast("cpu", torch.bfloat16):
        whole = clip.encode_image(images)
    words = clip.encode_text(texts)
    for start, end in ((0, 1), (3, 4), (2, 13), (18, 19)):
        assert torch.equal(clip.encode_image(images[start:end]), whole[start:end])
        assert torch.equal(clip.encode_text(texts[start:end]), words[start:end])
    assert whole.dtype == torch.float32 and not whole.requires_grad
    assert far(whole.norm(dim=1), torch.ones(19)) < 1e-6
    assert clip.encode_image([]).shape == clip.encode_text([]).shape == (0, 16)


def test_clip_is_frozen_and_leaves_the_generator_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    clip = load_clip(ClipSettings(model=str(folder)))
    assert torch.equal(before, torch.get_rng_state())
    assert not clip.model.training
    assert not any(p.requires_grad for p in clip.model.parameters())
    assert (clip.dim, clip.image_size, clip.context_length) == (16, (32, 32), 16)


def test_no_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    load_clip(ClipSettings(model=str(folder))).encode_text(["a dog"])


def test_weights_hash(clip: FrozenClip, folder: Path, tmp_path: Path) -> None:
    same = load_clip(ClipSettings(model=f"local-dir:{folder}"))
    assert same.weights_hash == clip.weights_hash and len(clip.weights_hash) == 64
    other = load_clip(ClipSettings(model=str(tiny_clip_folder(tmp_path / "seed", seed=1))))
    gelu = load_clip(ClipSettings(model=str(tiny_clip_folder(tmp_path / "g", quick_gelu=False))))
    assert len({clip.weights_hash, other.weights_hash, gelu.weights_hash}) == 3


def test_long_text_is_named(clip: FrozenClip) -> None:
    clip.encode_text(["a " * 14])
    with pytest.raises(DataError, match=r"17 tokens is longer than the 16 .*'a dog a dog"):
        clip.encode_text(["bell", "a dog " * 7 + "barks"])
    with pytest.raises(DataError, match=r"\['a dog'\]"):
        clip.encode_text("a dog")
    with pytest.raises(DataError, match="must be a string, not 3"):
        clip.encode_text(["a", 3])  # type: ignore[list-item]
    with pytest.raises(DataError, match="PIL image, not str"):
        clip.encode_image(["dog.jpg"])  # type: ignore[list-item]


def test_long_text_of_the_bpe_tokenizer(tmp_path: Path) -> None:
    config = tiny_config(0)
    del config["text_cfg"]["hf_tokenizer_name"]
    config["text_cfg"] |= {"vocab_size": 49408, "pool_type": "argmax", "width": 8, "heads": 1}
    weights = open_clip.CLIP(**config).state_dict()
    clip = load_clip(ClipSettings(model=str(write_clip(tmp_path, config, [], weights))))
    assert clip.encode_text(["dog " * 14]).shape == (1, 16)
    with pytest.raises(DataError, match="17 tokens is longer than the 16"):
        clip.encode_text(["dog " * 15])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "no CLIP is named; give --clip.model"),
        ({"model": "ViT-B32"}, "no model 'ViT-B32'; nearest: ViT-B-32"),
        ({"model": "ViT-B-32"}, "random weights; add --clip.pretrained"),
        ({"model": "ViT-B-32", "pretrained": "opnai"}, "neither a file nor a tag.*openai"),
        ({"model": "ViT-B-32", "pretrained": "openai"}, "use --clip.model ViT-B-32-quickgelu"),
        ({"model": "ViT-B-32-quickgelu", "pretrained": "laion2b_s34b_b79k"}, "one of ViT-B-32"),
        ({"model": "./nothing"}, "nothing does not exist"),
        ({"model": "local-dir:nothing"}, "nothing does not exist"),
        ({"model": __file__}, "is a file"),
        ({"model": "tiny-world", "pretrained": "openai"}, "tiny-world brings its own weights"),
    ],
)
def test_refuses_names(settings: dict[str, str], words: str) -> None:
    with pytest.raises((SettingsError, ModelError), match=words) as error:
        load_clip(ClipSettings(**settings))
    assert "\n" not in str(error.value)


def test_refuses_damaged_folders(folder: Path, tmp_path: Path) -> None:
    def damaged(name: str, damage: Any) -> ClipSettings:
        copy = Path(shutil.copytree(folder, tmp_path / name))
        damage(copy)
        return ClipSettings(model=str(copy))

    def widen(copy: Path) -> None:
        config = json.loads((copy / "open_clip_config.json").read_text())
        config["model_cfg"]["vision_cfg"]["width"] = 96
        (copy / "open_clip_config.json").write_text(json.dumps(config))

    def cut(copy: Path) -> None:
        weights = copy / "open_clip_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000])

    cases = {
        "has no open_clip_config.json": lambda c: (c / "open_clip_config.json").unlink(),
        "cannot be read": lambda c: (c / "open_clip_config.json").write_text("{"),
        "has no model_cfg": lambda c: (c / "open_clip_config.json").write_text("{}"),
        "has no weights": lambda c: (c / "open_clip_model.safetensors").unlink(),
        "another architecture.*size mismatch": widen,
        "could not be loaded": cut,
        "could not be loaded.*tokenizer": lambda c: (c / "tokenizer.json").unlink(),
    }
    for number, (words, damage) in enumerate(cases.items()):
        with pytest.raises(ModelError, match=words) as error:
            load_clip(damaged(str(number), damage))
        assert "\n" not in str(error.value)


def test_refuses_weight_files(folder: Path, tmp_path: Path) -> None:
    files = {
        "positional_embedding has": folder / "open_clip_model.safetensors",
        "not a readable weights file": tmp_path / "empty.safetensors",
        "is not a readable|more than plain": tmp_path / "text.pt",
        "more than plain weights": tmp_path / "object.pt",
    }
    files["not a readable weights file"].write_bytes(b"")
    files["is not a readable|more than plain"].write_text("not weights")
    torch.save({"code": Path("x")}, files["more than plain weights"])
    for words, path in files.items():
        with pytest.raises(ModelError, match=words):
            load_clip(ClipSettings(model="ViT-B-32", pretrained=str(path)))


def test_no_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise FileNotFoundError("Failed to download file (x). Last error:\n offline")

    monkeypatch.setattr("open_clip.factory.download_pretrained_from_hf", fail)
    with pytest.raises(ModelError, match="could not be downloaded") as e:
        load_clip(ClipSettings(model="hf-hub:nobody/nothing"))
    assert "\n" not in str(e.value)


def test_refuses_other_image_encoders(tmp_path: Path) -> None:
    more = {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 4}
    pooled = load_clip(ClipSettings(model=str(tiny_clip_folder(tmp_path / "a", **more))))
    with pytest.raises(UserError, match="pools by attention"):
        pooled.visual_facts()
    resnet = {"layers": [1, 1, 1, 1], "width": 8}
    network = load_clip(ClipSettings(model=str(tiny_clip_folder(tmp_path / "b", **resnet))))
    with pytest.raises(UserError, match="is not a ViT"):
        network.visual_facts()


def test_facts_of_openai() -> None:
    assert VisualFacts(12) == VisualFacts(12, "quick_gelu", "tok", False, None, 1e-5)


def test_bench_prints_every_rung(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = replace(train.VIT_B_32, width=24, layers=1, hidden=32, facts=VisualFacts(2))
    monkeypatch.setattr(train, "VIT_B_32", small)
    threads = torch.get_num_threads()
    figures = train.bench(Bench(what="train", seconds=0.01, threads=1))
    assert torch.get_num_threads() == threads
    rows, printed = figures["rows"], capsys.readouterr().out
    assert len(rows) == len(train.LADDER) and all(row["name"] in printed for row in rows)
    assert rows[0]["forward_ratio"] == rows[0]["train_ratio"] == 1
    assert all(row["forward"] > 0 and row["train"] > 0 for row in rows)
