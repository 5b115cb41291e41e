"""Checkpoints of every family become models: same numbers, every tensor accounted for."""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    BertConfig,
    BertModel,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    RobertaConfig,
    RobertaModel,
)

from pivot.audio.mel import mel_bank
from pivot.audio.views import pack
from pivot.encoders import atst, passt
from pivot.encoders.cnn14 import Cnn14
from pivot.errors import ModelError, UserError
from pivot.model import load
from pivot.released.command import run
from pivot.released.families import FAMILIES
from pivot.released.files import read_released
from pivot.released.inert import read_torch_file
from pivot.settings import ImportCheckpoint
from pivot.settings.encoders import Cnn14Settings
from pivot.settings.front_ends import SlaneyDbSettings
from tests.tiny import SPECIAL, WORDS, write_tokenizer

State = dict[str, Tensor]
TEXTS = ["a dog barks", "the sound of rain", "bell ."]
TEXT = {
    "vocab_size": len(SPECIAL) + len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 110,
    "pad_token_id": 0,
}
BERT = {"bert": (BertConfig, BertModel), "roberta": (RobertaConfig, RobertaModel)}
STFT = "spectrogram_extractor.stft.conv_"


def command(file: Path, out: Path, **values: Any) -> ImportCheckpoint:
    return ImportCheckpoint(checkpoint=str(file), out=str(out), **values)


def hears(model: Any) -> Any:
    """Settings of a model's front end, of whichever kind."""
    return model.front_end.settings


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def varied(module: Any, seed: int = 0) -> Any:
    """Fill what starts as 0 or 1 (norms, biases, running statistics), so that a mix-up shows."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if value.is_floating_point() and value.ndim < 2:
            value.add_(0.1 * torch.rand(value.shape, generator=generator))
        elif value.is_floating_point() and "table" in name:
            value.copy_(torch.randn(value.shape, generator=generator))
    return module.eval()


def text_model(folder: Path, kind: str, **changes: Any) -> tuple[Path, Any]:
    """A folder with config and tokenizer alone, and a random model of that config."""
    config, model = BERT[kind]
    folder.mkdir()
    settings = config(**TEXT | changes)
    settings.save_pretrained(folder)
    write_tokenizer(folder, WORDS, 100)
    return folder, varied(model(settings), 5)


def extractors(**hears: Any) -> State:
    """The front end that PANNs and HTS-AT keep among their weights."""
    bank = SlaneyDbSettings(**hears)
    bins = bank.n_fft // 2 + 1
    found = {f"{STFT}{part}.weight": torch.zeros(bins, 1, bank.n_fft) for part in ("real", "imag")}
    return found | {"logmel_extractor.melW": mel_bank(bank).float()}


def under(prefix: str, weights: State) -> State:
    return {prefix + name: value for name, value in weights.items()}


# ---- models of sound and text -----------------------------------------------------------------


def clap(fused: bool) -> Any:
    """A small CLAP of transformers: HTSAT of 8 to 64 numbers, RoBERTa of 32, a space of 16."""
    torch.manual_seed(3)
    audio = {
        "patch_embeds_hidden_size": 8, "hidden_size": 64, "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 2, 2], "enable_fusion": fused, "fusion_type": "aff_2d",
        "num_classes": 3,
    }  # fmt: skip
    config = ClapConfig(audio_config=audio, text_config=TEXT, projection_dim=16)
    model = varied(ClapModel(config))
    model.logit_scale_a.data.fill_(2.5)
    return model


EXTRACTOR = {
    "feature_extractor_type": "ClapFeatureExtractor", "feature_size": 64, "frequency_min": 50,
    "frequency_max": 14000, "hop_length": 480, "fft_window_size": 1024, "nb_max_samples": 480000,
    "sampling_rate": 48000, "padding": "repeatpad",
}  # fmt: skip


def hf_folder(folder: Path, model: Any, safe: bool = True, **changes: Any) -> Path:
    folder.mkdir()
    model.config.save_pretrained(folder)
    write_tokenizer(folder, WORDS, 100)
    fused = model.config.audio_config.enable_fusion
    about = EXTRACTOR | {"truncation": "fusion" if fused else "rand_trunc"} | changes
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    if safe:
        save_file(weights, folder / "model.safetensors")
    else:
        torch.save(weights, folder / "pytorch_model.bin")
    return folder


def as_laion(weights: State, prefix: str = "module.") -> State:
    """Names of transformers as LAION's, and all that their files have beside them."""
    found: State = {}
    for name, value in weights.items():
        if "audio_encoder" in name:
            name = name.replace("audio_model.audio_encoder.", "audio_branch.")
            name = name.replace("batch_norm.", "bn0.").replace("layernorm_before", "norm1")
            name = name.replace("layernorm_after", "norm2").replace("intermediate.dense", "mlp.fc1")
            name = name.replace("attention.output.dense", "attn.proj")
            name = name.replace("output.dense", "mlp.fc2").replace("attention.self", "attn")
        name = name.replace("text_model.", "text_branch.")
        name = name.replace("projection.linear1", "projection.0")
        name = name.replace("projection.linear2", "projection.2")
        found[name] = value
    for name in [n for n in found if ".attn.query." in n]:
        parts = [found.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        found[name.replace("query", "qkv")] = torch.cat(parts)
    found["audio_branch.layers.0.blocks.0.attn_mask"] = torch.zeros(64, 64, 64)
    found["audio_branch.head.weight"] = noise(527, 527)
    found["audio_branch.tscam_conv.bias"] = noise(527)
    found |= under("audio_branch.", extractors(sample_rate=48000, hop=480))
    for side in ("audio", "text"):
        found |= {f"{side}_transform.sequential.{i}.weight": noise(16, 16) for i in (0, 3)}
    return under(prefix, found)


def features(found: Any) -> Tensor:
    """Unit vectors of what transformers returns."""
    vectors = found if isinstance(found, Tensor) else found.pooler_output
    return F.normalize(vectors.detach(), dim=-1)


def check_clap(out: Path, theirs: Any, fused: bool) -> Any:
    """The model in `out` against transformers' ClapModel, in sound, text and scale."""
    model = load(out)
    views = noise(3, 4, 1001, 64, seed=7) * 20 - 40
    longer = torch.tensor([False, True, False])
    views[~longer] = views[~longer][:, :1]
    shares = longer[:, None].float().expand(3, 4).clone()
    shares[:, 0] = 1
    with torch.no_grad():
        if fused:
            wanted = theirs.get_audio_features(input_features=views, is_longer=longer[:, None])
            found = model.encode_fbank(pack(views, shares))
        else:
            wanted = theirs.get_audio_features(input_features=views[:, :1])
            found = model.encode_fbank(views[:, 0])
    assert float((found - features(wanted)).abs().max()) < 1e-5
    tokens = model.text.tokenize(TEXTS)  # type: ignore[union-attr]
    texts = model.encode_text(TEXTS)
    assert float((texts - features(theirs.get_text_features(**tokens))).abs().max()) < 1e-5
    assert model.scale == pytest.approx(math.exp(2.5)) and model.clip is None
    heard = hears(model)
    assert (heard.sample_rate, heard.hop, heard.low_freq, heard.num_frames) == (
        48000,
        480,
        50,
        1001,
    )
    assert heard.fill == "repeatpad" and heard.kind == ("htk_db" if fused else "slaney_db")
    return model


def check_sound(out: Path, theirs: Any, folder: Path) -> None:
    """A sound of 1.3 s all the way, against transformers' extractor and model."""
    sound = noise(62400, seed=9).numpy() / 10
    heard = ClapFeatureExtractor.from_pretrained(str(folder))(
        sound, sampling_rate=48000, return_tensors="pt"
    )
    heard["is_longer"][:] = False  # theirs is true for one short sound of each call
    with torch.no_grad():
        wanted = features(theirs.get_audio_features(**heard))
    found = load(out).encode_audio([(sound, 48000)])
    assert float((found - wanted).abs().max()) < 1e-5


@pytest.mark.parametrize("fused", [False, True])
def test_clap_of_hugging_face_and_of_laion(fused: bool, tmp_path: Path, capsys: Any) -> None:
    """One set of weights in both layouts, against transformers' own forward pass."""
    theirs = clap(fused)
    run(command(hf_folder(tmp_path / "hf", theirs, safe=fused), tmp_path / "a"))
    check_clap(tmp_path / "a", theirs, fused)
    check_sound(tmp_path / "a", theirs, tmp_path / "hf")
    prefix = "module." if fused else ""
    names = as_laion(theirs.state_dict(), prefix)
    content = {"epoch": 3, "name": "x", "state_dict": names, "optimizer": {"lr": 1}}
    torch.save(content, tmp_path / "630k.pt")
    text, _ = text_model(tmp_path / "roberta", "roberta", layer_norm_eps=1e-12, type_vocab_size=1)
    capsys.readouterr()
    run(command(tmp_path / "630k.pt", tmp_path / "b", text={"model": str(text)}))
    check_clap(tmp_path / "b", theirs, fused)
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and "LAION-CLAP" in line and "text_transform" in line
    results = json.loads((tmp_path / "b" / "results.json").read_text())
    assert results["loaded"]["audio_projection"] == results["loaded"]["text_projection"] == 4
    left = results["left_out"]
    assert results["family"] == "laion-clap" and not results["unknown"]
    assert {"logit_scale_t", "text_transform.sequential.3.weight"} <= set(left)
    assert results["weights"] + len(left) == len(names)  # every tensor is accounted for


def test_extractor_of_hugging_face_counts(tmp_path: Path) -> None:
    """Its class default, 0 Hz, is meant where the file says no frequency_min."""
    theirs = clap(False)
    folder = hf_folder(tmp_path / "hf", theirs, frequency_min=20, nb_max_samples=240000)
    run(command(folder / "model.safetensors", tmp_path / "a", audio_only=True))
    heard = hears(load(tmp_path / "a"))
    assert (heard.low_freq, heard.num_frames) == (20, 501)
    (folder / "preprocessor_config.json").unlink()
    run(command(folder, tmp_path / "b", audio_only=True))
    assert load(tmp_path / "b").front_end.settings.low_freq == 50
    about = json.loads((folder / "config.json").read_text())
    about["text_config"]["projection_hidden_act"] = "gelu"
    (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(ModelError, match="projection_hidden_act gelu"):
        run(command(folder, tmp_path / "c", audio_only=True))
    other = hf_folder(tmp_path / "other", theirs, truncation="fusion")
    with pytest.raises(ModelError, match=r"truncation fusion.*has no feature fusion"):
        run(command(other, tmp_path / "c"))


def cnn14(seed: int = 0) -> Cnn14:
    torch.manual_seed(seed)
    settings = Cnn14Settings(channels=(4, 4, 8, 8, 16, 24))
    return varied(Cnn14(settings, SlaneyDbSettings()))


def panns(encoder: Cnn14) -> State:
    head = {"fc_audioset.weight": noise(527, 24), "fc_audioset.bias": noise(527)}
    return encoder.state_dict() | extractors() | head


def residual(prefix: str, d_in: int, d_out: int, seed: int) -> State:
    shapes = {"linear1.weight": (d_out, d_in), "linear2.weight": (d_out, d_out)}
    shapes |= {"layer_norm.weight": (d_out,), "layer_norm.bias": (d_out,)}  # type: ignore[dict-item]
    return {f"{prefix}.projection.{n}": noise(*s, seed=seed) for n, s in shapes.items()}


def projected(x: Tensor, weights: State, prefix: str) -> Tensor:
    """Microsoft's projection, by hand."""
    w = {n.removeprefix(f"{prefix}.projection."): v for n, v in weights.items()}
    first = x @ w["linear1.weight"].T
    both = first + F.gelu(first) @ w["linear2.weight"].T
    y = F.layer_norm(both, both.shape[-1:], w["layer_norm.weight"], w["layer_norm.bias"])
    return F.normalize(y, dim=-1)


def microsoft(encoder: State, text: State, d_in: int, text_width: int = 32) -> State:
    weights = under("audio_encoder.base.", encoder) | under("caption_encoder.base.", text)
    weights |= residual("audio_encoder", d_in, 12, 1)
    return (
        weights
        | residual("caption_encoder", text_width, 12, 2)
        | {"logit_scale": torch.tensor(3.0)}
    )


def test_microsoft_clap_2022(tmp_path: Path) -> None:
    folder, bert = text_model(tmp_path / "bert", "bert")
    encoder = cnn14()
    weights = microsoft(panns(encoder), bert.state_dict(), 24)
    weights["caption_encoder.base.embeddings.position_ids"] = torch.arange(110)[None]
    torch.save({"model": weights}, tmp_path / "CLAP_weights_2022.pth")
    run(command(tmp_path / "CLAP_weights_2022.pth", tmp_path / "out", text={"model": str(folder)}))
    model = load(tmp_path / "out")
    x = noise(2, 690, 64) * 10 - 30
    with torch.no_grad():
        wanted = projected(encoder(x), weights, "audio_encoder")
        tokens = model.text.tokenize(TEXTS)  # type: ignore[union-attr]
        first = bert(**tokens).last_hidden_state[:, 0]
    assert float((model.encode_fbank(x) - wanted).abs().max()) < 1e-5
    texts = projected(first, weights, "caption_encoder")
    assert float((model.encode_text(TEXTS) - texts).abs().max()) < 1e-5
    heard = hears(model)
    assert (heard.sample_rate, heard.bank_rate, heard.hop, heard.num_frames) == (
        44100,
        32000,
        320,
        690,
    )
    assert heard.fill == "repeat" and model.scale == pytest.approx(math.exp(3))
    sound = np.sin(np.arange(30000) / 7).astype(np.float32)
    assert model.encode_audio([(sound, 22050)]).shape == (1, 12)


def test_microsoft_clap_2023_without_its_text_encoder(tmp_path: Path) -> None:
    """GPT-2 is refused by name; the audio encoder comes alone, with the mel bank of the file."""
    theirs = clap(False)
    names = as_laion(theirs.state_dict(), "")
    htsat = {n.removeprefix("audio_branch."): v for n, v in names.items() if "audio_branch" in n}
    htsat |= extractors(sample_rate=44100, high_freq=8000.0)
    gpt2 = {"wte.weight": noise(8, 4), "h.0.attn.bias": torch.ones(1, 1, 4, 4)}
    weights = microsoft(under("htsat.", htsat), gpt2, 64, 4)
    torch.save({"model": weights}, tmp_path / "CLAP_weights_2023.pth")
    file = tmp_path / "CLAP_weights_2023.pth"
    with pytest.raises(ModelError, match=r"does not have \(GPT-2\); --audio-only"):
        run(command(file, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    run(command(file, tmp_path / "out", audio_only=True))
    model = load(tmp_path / "out")
    x = noise(2, 965, 64) * 10 - 30
    with torch.no_grad():
        pooled = theirs.audio_model(input_features=x[:, None]).pooler_output
    wanted = projected(pooled, weights, "audio_encoder")
    assert float((model.encode_fbank(x) - wanted).abs().max()) < 1e-5
    heard = hears(model)
    assert (heard.sample_rate, heard.bank_rate, heard.high_freq) == (44100, None, 8000)
    assert heard.num_frames == 965
    with pytest.raises(ModelError, match="knows no text"):
        model.encode_text(TEXTS)


@pytest.fixture
def golden(goldens: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """Encoders of 48 numbers and 3 heads; published ones have 64 numbers a head."""
    for module in (passt, atst):
        monkeypatch.setattr(module, "HEAD", 16)
    with np.load(goldens / "distill" / "encoders.npz") as file:
        return {name: torch.tensor(file[name]) for name in file.files}


def below(golden: State, prefix: str) -> State:
    return {n.removeprefix(prefix): v for n, v in golden.items() if n.startswith(prefix)}


@pytest.mark.parametrize(("kind", "out"), [
    ("passt", "features"), ("atst", "scene"), ("mn", "features"),
])  # fmt: skip
def test_salsa(kind: str, out: str, golden: State, tmp_path: Path) -> None:
    """Its 1 / |tau| is the scale; texts go through lower case and without punctuation."""
    folder, roberta = text_model(tmp_path / "roberta", "roberta")
    inner = "model.model." if kind == "passt" else "model."
    weights = under(f"audio_embedding_model.{inner}", below(golden, f"{kind}/sd/"))
    width = golden[f"{kind}/{out}"].shape[1]
    weights |= under("sentence_embedding_model.", roberta.state_dict())
    for name, size in (("audio", width), ("sentence", 32)):
        weights |= {
            f"project_{name}.0.weight": noise(10, size),
            f"project_{name}.0.bias": noise(10),
        }
    weights |= {"tau": torch.tensor([0.05]), "timing_tau": torch.ones(1), "audio_token": noise(3)}
    weights |= {"posencode.w": noise(2), "posencode.pe": noise(2)}
    content = {
        "state_dict": weights,
        "hyper_parameters": argparse.Namespace(lr=1e-3, where=tmp_path),
    }
    torch.save(content, tmp_path / "salsa.ckpt")
    run(command(tmp_path / "salsa.ckpt", tmp_path / "out", text={"model": str(folder)}))
    model = load(tmp_path / "out")
    w, b = weights["project_audio.0.weight"], weights["project_audio.0.bias"]
    wanted = F.normalize(golden[f"{kind}/{out}"] @ w.T + b, dim=-1)
    x = golden[f"{kind}/input"][:, 0].mT
    assert float((model.encode_fbank(x) - wanted).abs().max()) < 1e-5
    assert model.scale == pytest.approx(20)
    assert torch.equal(model.encode_text(["A dog!"]), model.encode_text(["a dog"]))
    with torch.no_grad():
        first = roberta(**model.text.tokenize(TEXTS)).last_hidden_state[:, 0]  # type: ignore[union-attr]
    sentences = first @ weights["project_sentence.0.weight"].T + weights["project_sentence.0.bias"]
    assert float((model.encode_text(TEXTS) - F.normalize(sentences, dim=-1)).abs().max()) < 1e-5


# ---- audio encoders alone ---------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("family", "kind", "out"), [
    ("passt", "passt", "features"), ("efficientat", "mn", "features"), ("atst", "atst", "scene"),
])  # fmt: skip
def test_goldens_through_a_file(
    family: str, kind: str, out: str, legacy: bool, golden: State, tmp_path: Path
) -> None:
    """The publishers' own code and names on random weights, in files of today and before 1.6."""
    weights = below(golden, f"{kind}/sd/")
    torch.save(weights, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    run(command(tmp_path / "a.pt", tmp_path / "out"))
    model = load(tmp_path / "out")
    wanted = F.normalize(golden[f"{kind}/{out}"], dim=-1)
    found = model.encode_fbank(golden[f"{kind}/input"][:, 0].mT)
    assert float((found - wanted).abs().max()) < 1e-5
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["family"] == family
    assert results["weights"] + len(results["left_out"]) == len(weights)


@pytest.mark.parametrize("prefix", [
    "model.teacher.encoder.", "encoder.encoder.frame_encoder.", "encoder.encoder.", "",
])  # fmt: skip
def test_atst_in_files_of_lightning(prefix: str, golden: State, tmp_path: Path) -> None:
    weights = below(golden, "atst/sd/")
    if "teacher" in prefix:
        norm = {n.replace("norm_frame", "norm"): v for n, v in weights.items()}
        student = under("model.student.encoder.", {n: v + 1 for n, v in norm.items()})
        weights = under(prefix, norm) | student | {f"{prefix}cls_token": noise(1, 1, 48)}
    else:
        weights = under(prefix, weights) | {"head.weight": noise(3, 48)}
    torch.save({"state_dict": weights, "hyper_parameters": {}}, tmp_path / "a.ckpt")
    run(command(tmp_path / "a.ckpt", tmp_path / "out"))
    found = load(tmp_path / "out").encode_fbank(golden["atst/input"][:, 0].mT)
    assert float((found - F.normalize(golden["atst/scene"], dim=-1)).abs().max()) < 1e-5


def panns_file(path: Path, weights: State, legacy: bool = True) -> Path:
    """As PANNs save: numbers of numpy beside the weights."""
    sampler = {"indexes": np.arange(5), "pointer": np.int64(3), "state": np.random.RandomState(1)}
    content = {"iteration": 600000, "model": weights, "sampler": sampler}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize("legacy", [False, True])
def test_panns(legacy: bool, tmp_path: Path) -> None:
    encoder = cnn14()
    file = panns_file(tmp_path / "Cnn14_mAP=0.431.pth", panns(encoder), legacy)
    run(command(file, tmp_path / "out"))
    model = load(tmp_path / "out")
    x = noise(2, 1001, 64) * 10 - 30
    with torch.no_grad():
        wanted = F.normalize(encoder(x), dim=-1)
    assert float((model.encode_fbank(x) - wanted).abs().max()) < 1e-6
    heard = hears(model)
    assert (heard.sample_rate, heard.bank_rate, heard.high_freq) == (32000, None, 14000)
    run(command(file, tmp_path / "faster", sample_rate=44100, num_frames=690))
    heard = hears(load(tmp_path / "faster"))
    assert (heard.sample_rate, heard.bank_rate, heard.num_frames) == (44100, 32000, 690)


def test_htsat_of_audioset(tmp_path: Path) -> None:
    """Its authors' Lightning file: 32000 Hz, as its mel matrix says, and class heads."""
    theirs = clap(False)
    names = as_laion(theirs.state_dict(), "")
    own = {n.removeprefix("audio_branch."): v for n, v in names.items() if "audio_branch" in n}
    weights = under("sed_model.", own | extractors())
    torch.save({"state_dict": weights, "epoch": 1}, tmp_path / "HTSAT_AudioSet_Saved_1.ckpt")
    run(command(tmp_path / "HTSAT_AudioSet_Saved_1.ckpt", tmp_path / "out"))
    model, x = load(tmp_path / "out"), noise(2, 1001, 64) * 10 - 30
    with torch.no_grad():
        wanted = features(theirs.audio_model(input_features=x[:, None]))
    assert float((model.encode_fbank(x) - wanted).abs().max()) < 1e-5
    heard = hears(model)
    assert (heard.sample_rate, heard.hop, heard.bank_rate) == (32000, 320, None)


def test_ast_of_hugging_face(tmp_path: Path) -> None:
    config = ASTConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=256
    )
    theirs = varied(ASTForAudioClassification(config))
    theirs.save_pretrained(tmp_path / "ast")
    run(command(tmp_path / "ast", tmp_path / "out"))
    model, x = load(tmp_path / "out"), noise(2, 1024, 128)
    with torch.no_grad():
        wanted = features(theirs.audio_spectrogram_transformer(x))
    assert float((model.encode_fbank(x) - wanted).abs().max()) < 1e-5
    assert hears(model).num_frames == 1024 and model.front_end.norm.source == "ast"


# ---- every tensor is accounted for ------------------------------------------------------------


def test_left_over_names_are_refused_or_listed(tmp_path: Path, capsys: Any) -> None:
    weights = panns(cnn14()) | {"adapter.weight": noise(2), "conv_block9.x": noise(2)}
    file = panns_file(tmp_path / "a.pth", weights)
    with pytest.raises(
        ModelError, match=r"PANNs does not have: adapter.weight, conv_block9.x; --ig"
    ):
        run(command(file, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    run(command(file, tmp_path / "out", ignore_unknown=True))
    assert "left out 2 weights" in capsys.readouterr().err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["unknown"] == ["adapter.weight", "conv_block9.x"]
    theirs = as_laion(clap(False).state_dict()) | {"module.image_branch.weight": noise(2)}
    theirs["module.audio_branch.layers.0.blocks.0.adapter"] = noise(2)
    torch.save({"state_dict": theirs}, tmp_path / "b.pt")
    for left in (False, True):
        words = "audio_branch.layers.0.blocks.0.adapter" if not left else ""
        if words:
            with pytest.raises(ModelError, match=words):
                run(command(tmp_path / "b.pt", tmp_path / "two", audio_only=True))
        else:
            run(command(tmp_path / "b.pt", tmp_path / "two", audio_only=True, ignore_unknown=True))
    unknown = json.loads((tmp_path / "two" / "results.json").read_text())["unknown"]
    assert unknown == ["audio_branch.layers.0.blocks.0.adapter", "image_branch.weight"]


def test_missing_misshapen_and_broken_weights(tmp_path: Path) -> None:
    folder, bert = text_model(tmp_path / "bert", "bert")
    small, _ = text_model(tmp_path / "small", "bert", hidden_size=16)
    whole = microsoft(panns(cnn14()), bert.state_dict(), 24)
    word = "caption_encoder.base.embeddings.word_embeddings.weight"
    cases: list[tuple[dict[str, Any], Path, str]] = [
        ({"audio_encoder.base.fc1.bias": None}, folder, "fc1.bias"),
        ({"audio_encoder.base.fc1.bias": noise(3)}, folder, r"fc1.bias .*should be \(24"),
        ({"audio_encoder.projection.linear1.weight": None}, folder, "lacks audio_encoder.proj"),
        ({"audio_encoder.projection.linear2.weight": noise(3, 3)}, folder, "does not fit: second"),
        (
            {"caption_encoder.projection.layer_norm.bias": None},
            folder,
            "lacks caption_encoder.proj",
        ),
        (
            {"caption_encoder.base.encoder.layer.1.output.dense.bias": None},
            folder,
            "does not fit the",
        ),
        ({word: None}, folder, "text encoder that Pivot does not have"),
        ({word: noise(9, 32)}, folder, "does not fit the text model"),
        ({}, small, "name the one that it started from with --text.model"),
        ({"logit_scale": None}, folder, "has no logit_scale"),
        ({"logit_scale": torch.tensor(50.0)}, folder, "makes no sense as a scale"),
        ({"logit_scale": torch.tensor(math.nan)}, folder, "NaN or infinite values in logit_scale"),
        ({"audio_encoder.base.logmel_extractor.melW": noise(513, 64)}, folder, "melW"),
    ]
    for number, (changes, text, words) in enumerate(cases):
        weights = {n: v for n, v in (whole | changes).items() if v is not None}
        torch.save({"model": weights}, tmp_path / f"{number}.pth")
        with pytest.raises(UserError, match=words) as caught:
            run(command(tmp_path / f"{number}.pth", tmp_path / "out", text={"model": str(text)}))
        assert "\n" not in str(caught.value) and str(tmp_path / f"{number}.pth") in str(
            caught.value
        )
        assert not (tmp_path / "out").exists(), words


def test_families_and_settings_that_do_not_belong_together(golden: State, tmp_path: Path) -> None:
    file = panns_file(tmp_path / "panns.pth", panns(cnn14()))
    torch.save(below(golden, "passt/sd/"), tmp_path / "passt.pt")
    torch.save({"something": noise(2)}, tmp_path / "other.pt")
    torch.save({"state_dict": {"audio_encoder.conv1.weight": noise(2), "audio_encoder.layer1.0.x":
                               noise(2)}}, tmp_path / "wav2clip.pt")  # fmt: skip
    torch.save({"audio.fbsp.m": noise(2)}, tmp_path / "audioclip.pt")
    torch.save(as_laion(clap(False).state_dict()), tmp_path / "laion.pt")
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (file, {"family": "passt"}, "no checkpoint of PaSST.*time_new_pos_embed.*looks like panns"),
        (file, {"family": "vip-ant"}, "no checkpoint of VIP-ANT: .*looks like panns"),
        (tmp_path / "other.pt", {"family": "atst"}, "it is of no family that Pivot knows"),
        (tmp_path / "other.pt", {}, r"of no family that Pivot knows \(something\)"),
        (tmp_path / "wav2clip.pt", {}, "of Wav2CLIP: its encoder is a ResNet-18"),
        (tmp_path / "audioclip.pt", {}, "of AudioCLIP: its encoder is ESResNeXt-FBSP"),
        (tmp_path / "laion.pt", {}, "--text.model is missing.*roberta-base.*--audio-only"),
        (file, {"text": {"model": "x"}}, "--text says nothing to a checkpoint of the family panns"),
        (file, {"stride": (16, 16)}, "--stride says nothing"),
        (tmp_path / "passt.pt", {"sample_rate": 16000}, "--sample-rate 16000 goes with a Slaney"),
        (file, {"sample_rate": 22050}, "hears 16000 or 32000"),
    ]
    for path, values, words in cases:
        with pytest.raises(UserError, match=words) as caught:
            run(command(path, tmp_path / "out", **values))
        assert "\n" not in str(caught.value) and not (tmp_path / "out").exists(), words


def test_every_family_has_its_flag() -> None:
    families = ImportCheckpoint.model_fields["family"].annotation
    assert set(families.__args__) == {"auto", "vip-ant", *FAMILIES}  # type: ignore[union-attr]


# ---- files that are not what they should be ---------------------------------------------------


class Evil:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("where", ["beside", "weight", "state of a Namespace"])
def test_a_file_that_runs_something_is_refused(where: str, legacy: bool, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    evil = Evil(os.system, f"touch {canary}")
    content: dict[str, Any] = {"model": panns(cnn14()), "sampler": {}}
    if where == "weight":
        content["model"]["fc1.bias"] = evil
    else:
        content["sampler"] = evil if where == "beside" else argparse.Namespace(a=[evil])
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError, match=r"wants to use (posix|nt)\.system.*nothing was imported"):
        run(command(tmp_path / "a.pth", tmp_path / "out"))
    assert not canary.exists() and not (tmp_path / "out").exists()
    torch.load(tmp_path / "a.pth", weights_only=False)
    assert canary.exists()  # the file does do harm where it is trusted


def cut(path: Path, keep: float = 0.6) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    return path


def test_downloads_that_went_wrong(golden: State, tmp_path: Path) -> None:
    weights = below(golden, "passt/sd/")
    for name, legacy in (("zip", False), ("legacy", True)):
        torch.save(weights, tmp_path / f"{name}.pt", _use_new_zipfile_serialization=not legacy)
        cut(tmp_path / f"{name}.pt")
    (tmp_path / "early.pt").write_bytes((tmp_path / "legacy.pt").read_bytes()[:100])
    save_file(weights, tmp_path / "a.safetensors")
    cut(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{not json.......")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "page.pth").write_text("\n<!DOCTYPE html><html>Too many requests</html>")
    (tmp_path / "lfs.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha")
    (tmp_path / "noise.pt").write_bytes(bytes(range(200)))
    (tmp_path / "folder").mkdir()
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "model.safetensors.index.json").write_text("{}")
    cases = {
        "zip.pt": "cut short", "legacy.pt": "cut short", "early.pt": "damaged",
        "a.safetensors": "no whole file of safetensors", "b.safetensors": "no whole file of safet",
        "empty.pt": "is empty", "page.pth": "is a web page", "lfs.safetensors": "git lfs pull",
        "noise.pt": "no file of torch.save", "gone.pt": "No such file", "folder": "has neither",
        "parts": "in several files",
    }  # fmt: skip
    for name, words in cases.items():
        with pytest.raises(ModelError, match=words) as caught:
            run(command(tmp_path / name, tmp_path / "out"))
        assert "\n" not in str(caught.value) and name in str(caught.value)
        assert not (tmp_path / "out").exists()


def test_files_of_before_1_6_hold_the_same(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    saved = {"view": base[1:3, ::2], "turned": base.T, "none": torch.empty(0, 3), "base": base}
    saved |= {str(kind): torch.ones(3).to(kind) for kind in (torch.bfloat16, torch.int64)}
    torch.save(saved, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    found = read_torch_file(tmp_path / "a.pt")
    assert found.keys() == saved.keys()
    for name, value in saved.items():
        assert torch.equal(found[name], value) and found[name].dtype == value.dtype, name


def test_any_damage_to_a_file_of_before_1_6_is_one_line(tmp_path: Path) -> None:
    """A few hundred changed bytes: data or a ModelError comes out, nothing else."""
    content = {"model": {"a": noise(2), "b": noise(3).half()}, "n": np.arange(3), "x": Path("a")}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    whole, rng, refused = (tmp_path / "a.pt").read_bytes(), np.random.default_rng(1), 0
    for _ in range(300):
        data = bytearray(whole)
        data[rng.integers(len(data))] = rng.integers(256)
        (tmp_path / "b.pt").write_bytes(data)
        try:
            read_torch_file(tmp_path / "b.pt")
        except ModelError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 30


def test_settings_beside_weights_come_as_data(tmp_path: Path) -> None:
    beside = argparse.Namespace(lr=0.1, data=Path("/data/x"), deep=argparse.Namespace(a=(1, 2)))
    content = {"state_dict": {"module.a": noise(2)}, "args": beside, "best": np.float64(3.5),
               "optimizer": {"state": noise(4)}, "optimizer_states": [1]}  # fmt: skip
    torch.save(content, tmp_path / "a.pt")
    found = read_released(tmp_path / "a.pt")
    assert found.content["args"] == {"lr": 0.1, "data": "/data/x", "deep": {"a": (1, 2)}}
    assert found.content["best"] is None and not {"optimizer", "optimizer_states"} & set(
        found.content
    )
    assert list(found.weights) == ["a"]
