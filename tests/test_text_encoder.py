"""Models with a text encoder of their own: projections, bodies, folders, stores and training."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    RobertaConfig,
    RobertaModel,
)

from pivot.audio.frontend import FrontEnd, Norm
from pivot.embeddings.embed import embed_texts
from pivot.embeddings.embed import run as embed
from pivot.embeddings.store import EmbeddingStore
from pivot.encoders import TEXT_ENCODERS, build_audio, text_encoder_class
from pivot.encoders.clip import load_clip
from pivot.encoders.hf_text import HfText
from pivot.encoders.projection import ProjectedAudio, Projection, build_projection
from pivot.encoders.sentence import TextEncoder
from pivot.errors import DataError, ModelError, RunError, SettingsError
from pivot.model import Pivot, load
from pivot.settings import ClipSettings, Embed, TrainAt
from pivot.settings.parts import ProjectionSettings, TextSettings
from pivot.training.commands import train_at
from tests import toy
from tests.tiny import SPECIAL, WORDS, write_tokenizer

TEXTS = ["a dog", "the sound of a bell", "rain", "a red car , the drum", "bird rings ."]
SIZES = {
    "vocab_size": len(SPECIAL) + len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
    "pad_token_id": 0,
}
KINDS = {"bert": (BertConfig, BertModel), "roberta": (RobertaConfig, RobertaModel)}
RESIDUAL = ProjectionSettings(kind="residual")


def write_model(folder: Path, kind: str = "bert", seed: int = 0, **changes: Any) -> Path:
    """Write a random text model of two layers and a word-level tokenizer."""
    config, model = KINDS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model(config(**SIZES | changes)).save_pretrained(folder)
    write_tokenizer(folder, WORDS, 24)
    return folder


def hf(folder: Path, **changes: Any) -> TextSettings:
    return TextSettings(kind="hf", model=str(folder), **{"max_tokens": 12} | changes)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def clip_settings(tmp_path_factory: pytest.TempPathFactory) -> ClipSettings:
    return toy.toy_clip(tmp_path_factory.mktemp("clip"))


def make(clip: ClipSettings, text: TextSettings, dim: int | None = 24, seed: int = 1) -> Pivot:
    """A CLAP of the toy sizes: projections on both sides, no CLIP; dim None: in CLIP's space."""
    frozen = load_clip(clip)
    audio: Any = build_audio(frozen, toy.ENCODER, toy.AUDIO, seed)
    if dim is not None:
        audio = ProjectedAudio.of(audio, RESIDUAL.model_copy(update={"dim": dim}), seed)
    own = TextEncoder.start(text, frozen, audio.dim, seed)
    front_end = FrontEnd(toy.AUDIO, Norm(mean=-5.0, std=4.0, source="toy"))
    return Pivot(frozen if dim is None else None, audio, front_end, 9.0, own)


# ---- projections ----------------------------------------------------------------------------


def formula(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Weights of the goldens, see their README."""
    w = np.sin(np.arange(np.prod(shape)) * 0.7548776662466927 + zlib.crc32(name.encode()) % 1000)
    if len(shape) == 1:
        w = 1 + 0.1 * w if name.endswith("weight") else 0.05 * w
    else:
        w = 1.4 * w * np.sqrt(2 / shape[1])
    return torch.tensor(w.reshape(shape), dtype=torch.float32)


def test_residual_projection_is_the_papers(goldens: Path) -> None:
    numbers = np.load(goldens / "distill" / "encoders.npz")
    projection = Projection("residual", 2048, 1024).eval()
    theirs = {"first": "linear1", "second": "linear2", "norm": "layer_norm"}
    state = {}
    for name, value in projection.state_dict().items():
        part, kind = name.split(".")
        state[name] = formula(f"{theirs[part]}.{kind}", tuple(value.shape))
    projection.load_state_dict(state)
    found = projection(torch.tensor(numbers["cnn14/embedding"])).detach().numpy()
    assert np.abs(found - numbers["cnn14/projection"]).max() < 2e-6


def test_projection_formulas() -> None:
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    same = Projection("none", 6, 6)
    assert torch.equal(same(x), x) and not list(same.parameters())
    linear = build_projection(ProjectionSettings(kind="linear"), 6, 4, 3, 0)
    weight, bias = linear.state_dict().values()
    assert torch.allclose(linear(x), x @ weight.T + bias, atol=1e-6)
    block = build_projection(RESIDUAL, 6, 4, 3, 0).eval()
    first, second = (block.state_dict()[f"{name}.weight"] for name in ("first", "second"))
    y = x @ first.T
    y = y + 0.5 * y * (1 + torch.erf(y / 2**0.5)) @ second.T
    y = (y - y.mean(1, keepdim=True)) / (y.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(block(x), y, atol=1e-5)
    assert not torch.equal(block.train()(x), block(x))  # dropout
    mlp = build_projection(ProjectionSettings(kind="mlp"), 6, 4, 3, 0)
    v, b, w, c = mlp.state_dict().values()
    assert torch.allclose(mlp(x), (x @ v.T + b).clamp_min(0) @ w.T + c, atol=1e-6)
    assert list(mlp.state_dict()) == [
        f"{name}.{kind}" for name in ("first", "second") for kind in ("weight", "bias")
    ]
    with pytest.raises(ModelError, match="features of 6 numbers do not fit a space of 4"):
        Projection("none", 6, 4)


def test_projections_start_by_seed_and_side() -> None:
    before = torch.random.get_rng_state()
    start = [
        build_projection(RESIDUAL, 6, 4, *key).first.weight for key in ((3, 0), (3, 1), (4, 0))
    ]
    again = build_projection(RESIDUAL, 6, 4, 3, 0).first.weight
    assert torch.equal(start[0], again) and torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(start[0], start[1]) and not torch.equal(start[0], start[2])


# ---- transformers models --------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pooling", ["cls", "mean", "pooler"])
def test_features_are_the_models(kind: str, pooling: Any, tmp_path: Path) -> None:
    """Against transformers by hand, with the tokenizer's own filling up."""
    folder = write_model(tmp_path, kind)
    text = TextEncoder.start(hf(folder, pooling=pooling), None, 32, 1)
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = AutoModel.from_pretrained(folder).eval()(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        )
    states, mask = found.last_hidden_state, tokens["attention_mask"][..., None]
    wanted = {
        "cls": states[:, 0],
        "mean": (states * mask).sum(1) / mask.sum(1),
        "pooler": found.pooler_output,
    }[pooling]
    vectors = text.encode(TEXTS)
    assert vectors.dtype == torch.float32 and not vectors.requires_grad
    assert torch.allclose(vectors, F.normalize(wanted, dim=1), atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(text.eval()(text.tokenize(TEXTS)), wanted, atol=1e-5)
    used = {name for name, p in text.named_parameters() if p.requires_grad}
    text.train()(text.tokenize(TEXTS)).square().sum().backward()
    assert used == {name for name, p in text.named_parameters() if p.grad is not None}


def test_a_text_does_not_depend_on_its_neighbours(bert: Path) -> None:
    text = TextEncoder.start(hf(bert, projection=RESIDUAL), None, 24, 1).train()
    whole = text.encode([*TEXTS, *TEXTS])
    assert whole.shape == (10, 24) and torch.allclose(whole.norm(dim=1), torch.ones(10), atol=1e-6)
    for i, one in enumerate(TEXTS):
        assert torch.equal(text.encode([one])[0], whole[i])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(text.encode(TEXTS), whole[:5])
    assert text.training and text.encode([]).shape == (0, 24)
    assert [value.shape for value in text.tokenize([]).values()] == [(0, 0), (0, 0)]
    assert text(text.tokenize([""])).shape == (1, 24)


def test_normalisation_of_texts(bert: Path) -> None:
    texts = ["A Dog, rings!", "a dog rings"]
    lower, salsa = (
        TextEncoder.start(hf(bert, normalise=n), None, 32, 1) for n in ("lower", "salsa")
    )
    assert torch.equal(*salsa.encode(texts))
    a, b = lower.encode(texts)
    assert not torch.allclose(a, b, atol=1e-3)
    ids = salsa.tokenize(["The Bird's, RAIN-car."])["input_ids"]  # "birds" is no word
    words = {word: len(SPECIAL) + i for i, word in enumerate(WORDS)}
    assert ids.tolist() == [[1, words["the"], 3, 3, 2]]


def test_long_texts(bert: Path) -> None:
    long = " ".join(["dog"] * 11)
    with pytest.raises(
        DataError, match=r"text of 13 tokens is longer than the 12 of text\.max_tok"
    ):
        TextEncoder.start(hf(bert), None, 32, 1).tokenize(["a dog", long])
    cut = TextEncoder.start(hf(bert, too_long="cut"), None, 32, 1)
    ten = " ".join(["dog"] * 10)
    assert torch.equal(*cut.encode([long, ten]))
    with pytest.raises(DataError, match="give \\['rain'\\]"):
        cut.encode("rain")
    with pytest.raises(DataError, match="must be a string, not 3"):
        cut.encode(["rain", 3])  # type: ignore[list-item]


def without(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


def five_tokens(folder: Path) -> None:
    """What transformers makes up offline: the special tokens and nothing else."""
    write_tokenizer(folder, ["<mask>"])


def all_files(*names: str) -> Any:
    return lambda folder: [(folder / name).unlink() for name in names]


def drop_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def halve(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:3000])


BROKEN: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "five tokens": ("has 5 tokens .* its model 22", five_tokens, {}),
    "no tokenizer": (
        "no tokenizer that can be read",
        all_files("tokenizer.json", "tokenizer_config.json"),
        {},
    ),
    "other tokenizer": ("has 24 tokens", lambda f: write_tokenizer(f, [*WORDS, "x", "y"]), {}),
    "no config": ("has no config.json", without("config.json"), {}),
    "no weights": ("could not be loaded", without("model.safetensors"), {}),
    "a weight less": ("lacks 1 of the weights of BertModel", drop_weight, {}),
    "half a file": ("could not be loaded", halve, {}),
    "unknown kind": (
        "no text model that transformers knows",
        lambda f: (f / "config.json").write_text('{"model_type": "clarinet"}'),
        {},
    ),
    "too many tokens": ("cannot read 30 tokens at once", lambda f: None, {"max_tokens": 30}),
    "no folder": ("does not exist; give a folder or a hub id", shutil.rmtree, {}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_refuses_broken_text_models(name: str, tmp_path: Path) -> None:
    words, damage, changes = BROKEN[name]
    folder = write_model(tmp_path / "bert")
    TextEncoder.start(hf(folder), None, 32, 1)
    damage(folder)
    with pytest.raises(ModelError, match=words) as error:
        TextEncoder.start(hf(folder, **changes), None, 32, 1)
    assert "\n" not in str(error.value)


def test_a_pooler_that_the_weights_lack_starts_by_seed(tmp_path: Path) -> None:
    """roberta-base has none in its file, and LAION-CLAP trains it from there."""
    folder = write_model(tmp_path, "roberta")
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("pooler")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    settings = hf(folder, pooling="pooler")
    a, b, other = (TextEncoder.start(settings, None, 32, seed) for seed in (1, 1, 2))
    assert a.hash == b.hash != other.hash
    (note,) = a.notes
    assert "lack pooler.dense.weight: its pooler starts at random (LAION-CLAP's did)" in note
    stays = settings.model_copy(update={"freeze": True, "projection": RESIDUAL})
    assert (
        "at random and stays so, as text.freeze says"
        in TextEncoder.start(stays, None, 24, 1).notes[0]
    )
    assert not TextEncoder.start(hf(folder), None, 32, 1).notes


# ---- tokenizers as BERT and RoBERTa come --------------------------------------------------------


def write_words(folder: Path, kind: str) -> Path:
    """Write a model with the plain files: vocab.txt, or vocab.json and merges.txt."""
    folder.mkdir()
    if kind == "bert":
        words = [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            "[MASK]",
            *"a the dog bell rain ##s , .".split(),
        ]
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    else:
        merges = ["d o", "do g", "\u0120 do", "\u0120do g", "b e"]
        pieces = [*sorted(set("\u0120abdeglnorst,.")), *(pair.replace(" ", "") for pair in merges)]
        words = ["<s>", "<pad>", "</s>", "<unk>", *dict.fromkeys(pieces), "<mask>"]
        (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    config, model = KINDS[kind]
    padding = {
        "vocab_size": len(words),
        "pad_token_id": words.index(words[0 if kind == "bert" else 1]),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model(config(**SIZES | padding)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pooling", ["cls", "mean", "pooler"])
def test_plain_tokenizer_files(kind: str, pooling: Any, tmp_path: Path) -> None:
    """Features are those of transformers with all that its tokenizer gives, filled up to 20.

    LAION-CLAP fills up to 77; BERT's tokenizer also gives token_type_ids, all 0 for one sentence.
    """
    folder, texts = write_words(tmp_path / kind, kind), ["a dog", "the bells, rain.", "dog dog"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(tokenizer).__name__.lower().startswith(kind)
    tokens = tokenizer(texts, padding="max_length", max_length=20, return_tensors="pt")
    assert ("token_type_ids" in tokens) == (kind == "bert")
    with torch.no_grad():
        found = AutoModel.from_pretrained(folder).eval()(**tokens)
    states, mask = found.last_hidden_state, tokens["attention_mask"][..., None]
    wanted = {
        "cls": states[:, 0],
        "mean": (states * mask).sum(1) / mask.sum(1),
        "pooler": found.pooler_output,
    }[pooling]
    text = TextEncoder.start(hf(folder, pooling=pooling, max_tokens=20), None, 32, 1).eval()
    ids = text.tokenize(texts)["input_ids"]
    assert ids.tolist() == [row[: ids.shape[1]] for row in tokens["input_ids"].tolist()]
    with torch.no_grad():
        assert torch.allclose(text(text.tokenize(texts)), wanted, atol=1e-5)
    assert torch.allclose(text.encode(texts), F.normalize(wanted, dim=1), atol=1e-5)
    text.save(tmp_path / "saved")
    again = TextEncoder.restore(text.facts(), tmp_path / "saved", text.state_dict())
    assert torch.equal(again.encode(texts), text.encode(texts))


def of_another(folder: Path) -> None:
    """A RoBERTa beside BERT's vocab.txt, of which its tokenizer knows nothing."""
    roberta = write_words(folder.parent / "other", "roberta")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(roberta / name, folder / name)


@pytest.mark.parametrize(("kind", "damage", "words"), [
    ("bert", without("vocab.txt"), "no tokenizer that can be read"),
    ("bert", of_another, "has 5 tokens .* or the vocabulary is not there"),
    ("roberta", without("merges.txt"), "no tokenizer that can be read"),
    ("roberta", without("vocab.json"), "no tokenizer that can be read"),
], ids=["no vocab.txt", "other class", "no merges", "no vocab.json"])  # fmt: skip
def test_no_tokenizer_is_made_up(kind: str, damage: Any, words: str, tmp_path: Path) -> None:
    folder = write_words(tmp_path / kind, kind)
    damage(folder)
    with pytest.raises(ModelError, match=words) as error:
        TextEncoder.start(hf(folder), None, 32, 1)
    assert "\n" not in str(error.value)


# ---- what concerns training alone ---------------------------------------------------------------


def test_dropout_of_a_text_model(bert: Path, tmp_path: Path) -> None:
    """All of it, in layers and attention, and none of it in features, hashes and old files."""
    own, set_, none = (
        TextEncoder.start(hf(bert, dropout=p), None, 32, 1) for p in (None, 0.3, 0.0)
    )

    def rates(text: TextEncoder) -> set[float]:
        return {m.p for m in text.modules() if isinstance(m, torch.nn.Dropout)}

    assert (rates(own), rates(set_), rates(none)) == ({0.1}, {0.3}, {0.0})
    assert own.hash == set_.hash and torch.equal(own.encode(TEXTS), set_.encode(TEXTS))
    tokens = own.tokenize(TEXTS)
    assert torch.equal(none.train()(tokens), none(tokens))
    with torch.random.fork_rng(devices=[]):
        assert not torch.equal(set_.train()(tokens), set_(tokens))
    assert "dropout" not in own.facts()["settings"] and "freeze" not in own.facts()["settings"]
    assert none.facts()["settings"]["dropout"] == 0.0
    set_.save(tmp_path / "saved")
    again = TextEncoder.restore(set_.facts(), tmp_path / "saved", set_.state_dict())
    assert rates(again) == {0.3} and again.settings == set_.settings
    back = again.trained_as(hf(bert))
    assert back is not None and rates(back) == {0.1} and back.settings == hf(bert)
    assert again.trained_as(hf(bert, pooling="mean")) is None
    for module in own.body.model.modules():  # a model whose dropout lies elsewhere
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Dropout):
                setattr(module, name, torch.nn.Identity())
    for layer in own.body.model.encoder.layer:
        layer.attention.self.dropout.p = 0.0
    with pytest.raises(
        ModelError, match=r"\(bert\) has no dropout that can be set; leave out text"
    ):
        HfText(own.body.model, own.body.tokenizer, hf(bert, dropout=0.2))


@pytest.mark.parametrize("kind", ["hf", "clip"])
def test_a_frozen_text_model(kind: str, bert: Path, clip_settings: ClipSettings) -> None:
    """Its projection trains alone; the model stays in eval mode, without dropout."""
    settings = hf(bert, freeze=True, projection={"kind": "mlp"})
    if kind == "clip":
        settings = TextSettings(kind="clip", freeze=True, projection={"kind": "mlp"})
    text = TextEncoder.start(settings, load_clip(clip_settings), 24, 1).train()
    tokens = text.tokenize(TEXTS)
    assert torch.equal(text(tokens), text(tokens)) and text.projection.training
    text(tokens).square().sum().backward()
    trained = {name for name, p in text.named_parameters() if p.grad is not None}
    assert trained == {
        f"projection.{n}.{p}" for n in ("first", "second") for p in ("weight", "bias")
    }
    assert trained == {name for name, p in text.named_parameters() if p.requires_grad}
    free = text.trained_as(settings.model_copy(update={"freeze": False}))
    assert free is not None and all(p.requires_grad for p in free.parameters())
    assert free.hash == text.hash


def test_settings_that_do_not_fit(bert: Path, clip_settings: ClipSettings) -> None:
    for changes in (
        {"kind": "hf"},
        {"kind": "clip", "model": "bert"},
        {"kind": "frozen", "projection": RESIDUAL},
        {"kind": "clip", "dropout": 0.1},
        {"kind": "clip", "freeze": True},
        {"kind": "frozen", "freeze": True},
    ):
        with pytest.raises(ValidationError):
            TextSettings(**changes)
    with pytest.raises(ValidationError, match="dim 9 needs a projection"):
        ProjectionSettings(dim=9)
    with pytest.raises(ModelError, match="features of 32 numbers do not fit a space of 16"):
        make(clip_settings, hf(bert), dim=None)
    with pytest.raises(ModelError, match=r"projection.dim 40 is not the 16"):
        wide = ProjectionSettings(kind="linear", dim=40)
        make(clip_settings, hf(bert, projection=wide), dim=None)
    with pytest.raises(ModelError, match="copies a CLIP and there is none"):
        TextEncoder.start(TextSettings(kind="clip"), None, 16, 1)
    with pytest.raises(ModelError, match="no text encoder of kind 'gru'; there are: clip, hf"):
        text_encoder_class("gru")
    assert sorted(TEXT_ENCODERS) == ["clip", "hf"]


# ---- a copy of CLIP's own -------------------------------------------------------------------


def test_the_copy_of_clip_starts_as_clip(clip_settings: ClipSettings) -> None:
    frozen = load_clip(clip_settings)
    text = TextEncoder.start(TextSettings(kind="clip"), frozen, 16, 1)
    assert torch.allclose(text.encode(TEXTS), frozen.encode_text(TEXTS), atol=1e-6)
    assert not any("visual" in name or "logit" in name for name in text.state_dict())
    before = frozen.encode_text(TEXTS)
    text(text.tokenize(TEXTS)).square().sum().backward()
    assert all(p.grad is not None for p in text.parameters())
    with torch.no_grad():
        for p in text.parameters():
            p.add_(0.1 * torch.sin(torch.arange(p.numel())).view(p.shape))
    assert torch.equal(frozen.encode_text(TEXTS), before)
    assert not torch.allclose(text.encode(TEXTS), before, atol=1e-2)
    with pytest.raises(DataError, match="longer than the 16"):
        text.tokenize(["dog " * 20])


# ---- models and folders ---------------------------------------------------------------------


def same(a: Pivot, b: Pivot) -> None:
    x = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(2))
    assert torch.equal(a.encode_text(TEXTS), b.encode_text(TEXTS))
    assert torch.equal(a.encode_fbank(x), b.encode_fbank(x))
    assert (a.audio_hash, a.text_hash, a.clip_hash) == (b.audio_hash, b.text_hash, b.clip_hash)


@pytest.mark.parametrize("kind", ["bert", "roberta", "clip"])
def test_save_and_load_without_a_clip(
    kind: str, clip_settings: ClipSettings, tmp_path: Path
) -> None:
    text = TextSettings(kind="clip", projection=RESIDUAL)
    if kind != "clip":
        folder = write_model(tmp_path / "source", kind)
        text = hf(folder, projection=RESIDUAL, pooling="mean", normalise="lower")
    model = make(clip_settings, text)
    model.save(tmp_path / "model", steps=2)
    if kind != "clip":
        shutil.rmtree(tmp_path / "source")  # the model has what it needs
    again = load(tmp_path / "model")
    same(model, again)
    assert again.clip is None and again.dim == 24 and again.scale == 9.0
    assert again.text is not None and again.text.settings == text
    shorter = again.resized(24)
    assert shorter.text is again.text and shorter.audio_hash != again.audio_hash
    with pytest.raises(ModelError, match="no CLIP for pictures"):
        again.encode_image([])
    again.save(tmp_path / "twice")
    same(model, load(tmp_path / "twice"))


def test_save_and_load_in_clips_space(
    bert: Path, clip_settings: ClipSettings, tmp_path: Path
) -> None:
    linear = ProjectionSettings(kind="linear")
    for name, text in {
        "bert": hf(bert, projection=linear),
        "clip": TextSettings(kind="clip"),
    }.items():
        model = make(clip_settings, text, dim=None)
        model.save(tmp_path / name)
        again = load(tmp_path / name)
        same(model, again)
        assert again.clip is not None and again.clip_hash != again.text_hash
        assert embed_texts(again, TEXTS).shape == embed_texts(again.clip, TEXTS).shape == (5, 16)


def test_a_model_without_either_is_as_before(tmp_path: Path) -> None:
    """Format 1, two files, and no new key: an older Pivot reads it, and we read an older one's."""
    folder = toy.toy_model(tmp_path)
    about = json.loads((folder / "model.json").read_text())
    assert about["format"] == 1 and sorted(p.name for p in folder.iterdir()) == [
        "model.json", "model.safetensors",
    ]  # fmt: skip
    assert list(about) == [
        "format", "pivot", "clip", "audio", "norm", "encoder", "visual", "grid", "scale",
        "audio_hash", "facts",
    ]  # fmt: skip
    model = load(folder)
    assert model.text is None and model.text_hash == model.clip_hash and model.dim == 16


def rewrite(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        about = json.loads((folder / "model.json").read_text())
        about["text"] |= changes
        (folder / "model.json").write_text(json.dumps(about))

    return change


def swap(folder: Path) -> None:
    weights = load_file(folder / "text.safetensors")
    weights["projection.norm.bias"] += 0.5
    save_file(weights, folder / "text.safetensors")


def lack(folder: Path) -> None:
    weights = load_file(folder / "text.safetensors")
    del weights["projection.norm.bias"]
    save_file(weights, folder / "text.safetensors")


DAMAGED: dict[str, tuple[str, Any]] = {
    "no weights": ("has no text.safetensors: half a model", without("text.safetensors")),
    "lacking": ("projection.norm.bias should be .*nothing of that name", lack),
    "swapped": ("text.safetensors does not belong", swap),
    "no hash": ("does not belong", rewrite(hash=None)),
    "other settings": ("says nothing usable", rewrite(settings={"kind": "hf", "layers": 3})),
    "tokenizer": (
        "not what the model was trained",
        lambda f: write_tokenizer(f / "text", WORDS[::-1]),
    ),
    "no tokenizer": ("no tokenizer that can be read", without("text/tokenizer.json")),
    "no config": ("could not be loaded|no text model", without("text/config.json")),
}


@pytest.fixture(scope="module")
def clap(bert: Path, clip_settings: ClipSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clap") / "model"
    make(clip_settings, hf(bert, projection=RESIDUAL)).save(folder)
    return folder


@pytest.mark.parametrize("name", DAMAGED)
def test_refuses_damaged_models(name: str, clap: Path, tmp_path: Path) -> None:
    words, damage = DAMAGED[name]
    folder = Path(shutil.copytree(clap, tmp_path / "model"))
    damage(folder)
    with pytest.raises(ModelError, match=words) as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_what_no_model_can_be(bert: Path, clip_settings: ClipSettings, clap: Path) -> None:
    model = make(clip_settings, hf(bert, projection=RESIDUAL))
    with pytest.raises(ModelError, match="is an audio encoder alone and knows no text"):
        Pivot(None, model.audio, model.front_end).encode_text(["a dog"])
    narrow = TextEncoder.start(hf(bert, projection=RESIDUAL), None, 20, 1)
    with pytest.raises(ModelError, match="gives 24 numbers and the text encoder 20"):
        Pivot(None, model.audio, model.front_end, text=narrow)
    with pytest.raises(ModelError, match=r"has no CLIP; leave out --clip\.model"):
        load(clap, clip=clip_settings)


# ---- stores ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.toy_shards(tmp_path_factory.mktemp("data") / "shards", clips=16)


def test_stores_of_one_model_know_each_other(
    clap: Path, shards: Path, clip_settings: ClipSettings, tmp_path: Path
) -> None:
    captions = tmp_path / "captions.txt"
    captions.write_text("\n".join(TEXTS) + "\n")
    plain = toy.toy_model(tmp_path)
    made = {
        "sounds": ("audio", shards, clap),
        "texts": ("text", captions, clap),
        "plain sounds": ("audio", shards, plain),
        "plain texts": ("text", captions, plain),
        "frames": ("image", shards, plain),
    }
    stores = {}
    for name, (what, data, run) in made.items():
        out = str(tmp_path / name)
        embed(Embed(what=what, data=str(data), model=str(run), out=out))
        stores[name] = EmbeddingStore.open(out)
    own_clip = ClipSettings(model=str(tmp_path / "clip"))
    embed(Embed(what="text", data=str(captions), clip=own_clip, out=str(tmp_path / "of clip")))
    stores["of clip"] = EmbeddingStore.open(tmp_path / "of clip")
    model = load(clap)
    sounds, texts = stores["sounds"], stores["texts"]
    assert sounds.manifest["weights_hash"] == model.audio_hash and sounds.dim == 24
    assert texts.manifest["weights_hash"] == model.text_hash and texts.manifest["clip"] is None
    hashes = {"audio_hash": model.audio_hash, "text_hash": model.text_hash}
    assert sounds.manifest["model"] == texts.manifest["model"] == hashes
    found = texts.float32()[:, 0]
    assert np.abs(found - model.encode_text(TEXTS).numpy()).max() < 1e-3
    assert "model" not in stores["of clip"].manifest
    families = [{"sounds", "texts"}, {"plain sounds", "plain texts", "frames", "of clip"}]
    for a in stores:
        for b in stores:
            one = any(a in family and b in family for family in families)
            assert stores[a].same_model(stores[b]) == one, (a, b)
    with pytest.raises(ModelError, match="no CLIP for pictures"):
        embed(Embed(what="image", data=str(shards), model=str(clap), out=str(tmp_path / "no")))


# ---- training -------------------------------------------------------------------------------


def at_settings(shards: Path, tmp_path: Path, name: str, **changes: Any) -> TrainAt:
    gold = tmp_path / "gold.jsonl"
    if not gold.exists():
        toy.write_gold(gold, range(16))
    given: dict[str, Any] = {
        "shards": str(shards),
        "pairs": str(gold),
        "out": str(tmp_path / name),
        "clip": {"model": str(tmp_path / "clip")},
        "audio": toy.AUDIO,
        "encoder": toy.ENCODER,
        "mask": toy.MASK,
        "batch_size": 8,
        "epochs": 6,
        "warmup_epochs": 0,
        "optim": {"kind": "adam", "lr": 1e-3},
        "loss": {"reduction": "mean"},
        "precision": "fp32",
        "device": "cpu",
        "log_every": 1,
    }
    return TrainAt(**given | changes)


def losses(run: str) -> list[float]:
    lines = (Path(run) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_train_a_teacher_with_both_sides(shards: Path, tmp_path: Path) -> None:
    toy.toy_clip(tmp_path / "clip")
    low: dict[str, Any] = {"hidden_dropout_prob": 0.02, "attention_probs_dropout_prob": 0.02}
    bert = write_model(tmp_path / "bert", initializer_range=0.1, **low)
    block: dict[str, Any] = {"kind": "residual", "dropout": 0.02}
    settings = at_settings(
        shards,
        tmp_path,
        "run",
        text=hf(bert, pooling="mean", projection=block).model_dump(),
        project={**block, "dim": 24},
        epochs=12,
        mask={"time": 0, "freq": 0},
        optim={"kind": "adam", "lr": 5e-4},
    )
    train_at(settings)
    model, found = load(settings.out), losses(settings.out)
    assert model.clip is None and model.dim == 24 and model.text is not None
    assert len(found) == 24 and np.mean(found[-4:]) < 0.9 * np.mean(found[:4])
    start = make(ClipSettings(model=str(tmp_path / "clip")), settings.text, seed=settings.seed)
    for side in ("audio", "text"):
        moved = getattr(model, side).state_dict()
        for name, value in getattr(start, side).state_dict().items():
            # the softmax does not feel a shift by the keys' bias
            still = "key.bias" in name
            assert still or not torch.equal(value, moved[name]), f"{side} {name} did not train"
    results = json.loads((Path(settings.out) / "results.json").read_text())
    assert results["text_hash"] == model.text_hash and results["audio_hash"] == model.audio_hash


def test_a_teacher_resumes_exactly(bert: Path, shards: Path, tmp_path: Path) -> None:
    """Dropout on both sides, stopped and gone on with: the same losses and the same weights."""
    toy.toy_clip(tmp_path / "clip")
    both: dict[str, Any] = {
        "text": hf(bert, projection=RESIDUAL).model_dump(),
        "project": {"kind": "residual", "dim": 24},
        "checkpoint_every": 1,
        "epochs": 3,
        "accumulate": 2,
        "batch_size": 4,
    }
    whole, part = (at_settings(shards, tmp_path, name, **both) for name in ("whole", "part"))
    train_at(whole)
    killed_after(part, 4)
    train_at(part.model_copy(update={"resume": True}))
    assert len(losses(whole.out)) == 6 and losses(part.out) == losses(whole.out)
    same(load(whole.out), load(part.out))


def killed_after(settings: TrainAt, steps: int) -> None:
    """Train, and die when step `steps` has been checkpointed."""
    from pivot.training import journal

    written = []
    save = journal.save_checkpoint

    def die(path: Path, state: dict[str, Any]) -> None:
        save(path, state)
        written.append(state["step"])
        if state["step"] == steps:
            raise RunError("killed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "save_checkpoint", die)
        with pytest.raises(RunError, match="killed"):
            train_at(settings)
    assert written[-1] == steps


def test_a_copy_of_clip_trains_on_from_a_run(shards: Path, tmp_path: Path) -> None:
    """--model with frozen captions, then --model of that with both sides, by its own settings."""
    toy.toy_clip(tmp_path / "clip")
    first = at_settings(shards, tmp_path, "first", epochs=1, text={"kind": "clip"})
    train_at(first)
    model = load(first.out)
    assert model.clip is not None and model.text is not None
    assert not torch.equal(model.encode_text(TEXTS), model.clip.encode_text(TEXTS))
    second = at_settings(
        shards, tmp_path, "second", epochs=1, model=first.out, clip=ClipSettings(), grad_cache=3
    )
    train_at(second)
    again = load(second.out)
    assert again.text_hash not in (model.text_hash, model.clip_hash)
    assert again.clip_hash == model.clip_hash
    for changes, words in (
        ({"text": {"kind": "clip", "normalise": "lower"}}, "--text is not what"),
        ({"project": {"kind": "linear", "dim": 20}}, "20 numbers"),
    ):
        with pytest.raises((SettingsError, ModelError), match=words):
            train_at(at_settings(shards, tmp_path, "third", model=first.out, clip=ClipSettings(),
                                 **changes))  # fmt: skip
    assert not (tmp_path / "third").exists()


def test_refuses_terms_that_cannot_be(bert: Path, shards: Path, clap: Path, tmp_path: Path) -> None:
    toy.toy_clip(tmp_path / "clip")
    frames = {"audio_text": 0, "image_audio": 1}
    text = hf(bert, projection=RESIDUAL).model_dump()
    with pytest.raises(SettingsError, match="trains nothing without text terms"):
        train_at(at_settings(shards, tmp_path, "run", text=text, terms=frames))
    with pytest.raises(SettingsError, match="need a CLIP"):
        terms = {"audio_text": 1, "image_audio": 1}
        train_at(at_settings(shards, tmp_path, "run", model=str(clap), clip={}, terms=terms))
    long = tmp_path / "long.jsonl"
    rows = [{"id": f"clip{i}", "caption": "dog " * (1 + 19 * i)} for i in range(2)]
    long.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="longer than the 12"):
        train_at(at_settings(shards, tmp_path, "run", text=text, pairs=str(long), batch_size=2))
    assert not (tmp_path / "run").exists()
