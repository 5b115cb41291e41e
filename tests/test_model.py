"""Pivot: encoding, batch invariance, saving and loading, and every way a model can be wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

import pivot
from pivot.audio.frontend import FrontEnd, Norm
from pivot.embeddings.embed import run as embed
from pivot.embeddings.store import EmbeddingStore
from pivot.encoders import build_audio
from pivot.encoders.clip import load_clip
from pivot.errors import DataError, ModelError, StoreError, UserError
from pivot.model import FACTS, WEIGHTS, Pivot, load
from pivot.settings import AudioSettings, ClipSettings, Embed, VitSettings
from tests import toy
from tests.tiny import tiny_clip_folder

RATE = 16000
AUDIO = AudioSettings(num_frames=50, num_mel_bins=32, norms="vip_ant")


def make(clip_folder: Path, seed: int = 1, audio: AudioSettings = AUDIO) -> Pivot:
    clip = load_clip(ClipSettings(model=str(clip_folder)))
    encoder = build_audio(clip, VitSettings(stride=(4, 6), kernel="load_sum"), audio, seed)
    return Pivot(clip, encoder, FrontEnd(audio, Norm(-4.0, 5.0, "test")), scale=12.5)


def wave(seed: int, seconds: float = 0.4) -> np.ndarray:
    noise = np.random.default_rng([5, seed]).standard_normal((1, int(seconds * RATE)))
    return (0.1 * noise).astype(np.float32)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip_folder(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def model(clip_folder: Path) -> Pivot:
    return make(clip_folder)


@pytest.fixture(scope="module")
def saved(model: Pivot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "model"
    model.save(folder, steps=3, command="pretrain-va")
    return folder


def test_audio_embeddings(model: Pivot) -> None:
    sounds = [(wave(i, 0.3 + 0.05 * i), RATE) for i in range(11)]  # shorter and longer than 0.5 s
    whole = model.encode_audio(sounds)
    assert whole.shape == (11, 16) and whole.dtype == torch.float32 and not whole.requires_grad
    assert torch.allclose(whole.norm(dim=1), torch.ones(11), atol=1e-6)
    for i in (0, 7, 10):
        assert torch.equal(model.encode_audio([sounds[i]])[0], whole[i])
    x = torch.stack([model.front_end(*sound) for sound in sounds])
    assert torch.equal(model.encode_fbank(x), whole)
    raw = torch.nn.functional.normalize(model.audio(x), dim=-1).detach()
    assert torch.allclose(raw, whole, atol=1e-6)
    assert model.encode_audio([]).shape == model.encode_fbank(x[:0]).shape == (0, 16)


def test_audio_is_encoded_outside_autocast_and_training_goes_on(model: Pivot) -> None:
    sound = [(wave(1), RATE)]
    expected = model.encode_audio(sound)
    model.audio.train()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.encode_audio(sound), expected)
    assert model.audio.training
    assert all(p.grad is None and p.requires_grad for p in model.audio.parameters())


def test_sound_files(model: Pivot, tmp_path: Path) -> None:
    samples = (wave(3) * 32767).astype(np.int16)
    path = tmp_path / "bell.wav"
    soundfile.write(path, samples.T, RATE)
    found = model.encode_audio([path, str(path), (samples, RATE), (samples[0], RATE)])
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert torch.equal(found[0], found[3])


def test_bad_sounds_are_named(model: Pivot, tmp_path: Path) -> None:
    good = (wave(1), RATE)
    nan = wave(1)
    nan[0, 5] = np.nan
    cases: list[tuple[Any, str]] = [
        ((nan, RATE), "sound 1: "),
        ((wave(1), 0), "sound 1: .*rate 0"),
        ((wave(1, 0.01), RATE), "sound 1: .*shorter than one window"),
        ((wave(1)[:, :0], RATE), "sound 1: .*without samples"),
        (wave(1), "sound 1 is neither a path nor a pair"),
        (tmp_path / "missing.wav", "missing.wav"),
    ]
    for sound, words in cases:
        with pytest.raises(UserError, match=words) as error:
            model.encode_audio([good, sound])
        assert "\n" not in str(error.value)
    with pytest.raises(DataError, match=r"give \['bell.wav'\]"):
        model.encode_audio("bell.wav")


def test_save_and_load(model: Pivot, saved: Path) -> None:
    sounds, texts = [(wave(i), RATE) for i in range(3)], ["a dog", "bell"]
    for path in (saved, saved.parent, str(saved.parent)):  # the folder, or its run
        again = load(path)
        assert torch.equal(again.encode_audio(sounds), model.encode_audio(sounds))
        assert torch.equal(again.encode_text(texts), model.encode_text(texts))
        assert again.audio_hash == model.audio_hash and again.scale == 12.5
        assert again.front_end.settings == AUDIO
        assert again.front_end.norm == model.front_end.norm
    assert pivot.load is load and pivot.Pivot is Pivot
    about = json.loads((saved / FACTS).read_text())
    assert about["facts"] == {"steps": 3, "command": "pretrain-va"}
    assert about["clip"]["weights_hash"] == model.clip.weights_hash
    assert sorted(p.name for p in saved.iterdir()) == sorted([FACTS, WEIGHTS])


def test_saving_twice_replaces_the_whole(clip_folder: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        encoder = make(clip_folder, seed)
        torch.nn.init.constant_(encoder.audio.proj, float(seed))
        encoder.save(tmp_path / "model")
    assert float(load(tmp_path / "model").audio.proj.detach()[0, 0]) == 2.0
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_audio_hash_says_what_changes_an_embedding(clip_folder: Path) -> None:
    base = make(clip_folder)
    hashes = {base.audio_hash}
    for update in ({"pad": "raw_zero"}, {"crop": "vip_ant"}, {"low_freq": 30.0}):
        hashes.add(make(clip_folder, audio=AUDIO.model_copy(update=update)).audio_hash)
    base.front_end.norm = Norm(-4.0, 5.5, "test")
    hashes.add(base.audio_hash)
    torch.nn.init.zeros_(base.audio.class_embedding)
    hashes.add(base.audio_hash)
    assert len(hashes) == 6
    assert make(clip_folder).audio_hash in hashes


def test_a_moved_clip_is_named(model: Pivot, saved: Path, tmp_path: Path) -> None:
    elsewhere = tiny_clip_folder(tmp_path / "same")
    assert load(saved, clip=ClipSettings(model=str(elsewhere))).audio_hash == model.audio_hash
    other = tiny_clip_folder(tmp_path / "other", seed=9)
    with pytest.raises(ModelError, match="another CLIP than"):
        load(saved, clip=ClipSettings(model=str(other)))


def test_another_length(saved: Path, model: Pivot, tmp_path: Path) -> None:
    longer = load(saved, num_frames=90)
    assert longer.front_end.settings.num_frames == longer.audio.audio.num_frames == 90
    assert longer.audio_hash != model.audio_hash
    assert torch.equal(
        longer.audio.positional_embedding, model.audio.resized(90).positional_embedding
    )
    sound = (wave(3, 1.0), RATE)
    assert longer.front_end(*sound).shape == (90, 32)
    x = longer.front_end(*sound)[None]
    wanted = torch.nn.functional.normalize(longer.audio(x), dim=-1).detach()
    assert torch.allclose(longer.encode_audio([sound]), wanted, atol=1e-6)
    assert not torch.allclose(wanted, model.encode_audio([sound]), atol=1e-3)
    assert load(saved, num_frames=50).audio_hash == load(saved).audio_hash == model.audio_hash
    longer.save(tmp_path / "longer")
    assert load(tmp_path / "longer").audio_hash == longer.audio_hash
    with pytest.raises(ModelError, match="smaller than one patch"):
        load(saved, num_frames=7)


def test_a_store_belongs_to_one_length(tmp_path: Path) -> None:
    shards, folder = str(toy.toy_shards(tmp_path / "shards", clips=4)), toy.toy_model(tmp_path)
    embed(Embed(what="audio", data=shards, model=str(folder), out=str(tmp_path / "store")))
    store = EmbeddingStore.open(tmp_path / "store")
    store.require(what="audio", weights_hash=load(folder).audio_hash)
    with pytest.raises(StoreError, match="embed again"):
        store.require(what="audio", weights_hash=load(folder, num_frames=40).audio_hash)


def test_how_shorter_sounds_are_met_is_no_part_of_the_hash(model: Pivot, tmp_path: Path) -> None:
    """Models saved before the setting was there keep their hash; a sliced one has its own."""
    settings = model.audio.settings.model_copy(update={"positions": "slice6"})
    facts, weights = model.audio.shape.facts, model.audio.state_dict()
    sliced = type(model.audio).from_weights(weights, facts, settings, AUDIO)
    same = Pivot(model.clip, sliced, model.front_end, model.scale)
    assert same.audio_hash == model.audio_hash
    same.save(tmp_path / "m")
    with pytest.raises(ModelError, match="slice6"):
        load(tmp_path / "m", num_frames=45)  # 10 of 11 rows
    short = load(tmp_path / "m", num_frames=20)  # 4 of 11
    assert short.audio_hash != model.resized(20).audio_hash


def rewrite(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        about = json.loads((folder / FACTS).read_text())
        about.update(changes)
        (folder / FACTS).write_text(json.dumps(about))

    return change


def swap(**changes: torch.Tensor | None) -> Any:
    def change(folder: Path) -> None:
        weights = {**load_file(folder / WEIGHTS), **changes}
        kept = {name: value for name, value in weights.items() if value is not None}
        save_file(kept, folder / WEIGHTS)

    return change


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:4000])


AUDIO_LONGER = {**AUDIO.model_dump(), "num_frames": 60}
BROKEN: dict[str, tuple[str, Any]] = {
    "no facts": ("has no model.json: half a model", lambda f: (f / FACTS).unlink()),
    "no weights": ("has no model.safetensors: half", lambda f: (f / WEIGHTS).unlink()),
    "cut weights": ("damaged", cut),
    "not json": ("cannot be read", lambda f: (f / FACTS).write_text("{")),
    "not a model": ("cannot be read", lambda f: (f / FACTS).write_text("[]")),
    "newer": ("has format 4 .* install a newer Pivot", rewrite(format=4)),
    "unknown setting": ("written by another version", rewrite(encoder={"window": 3})),
    "no scale": ("no finite scale", rewrite(scale=None)),
    "no norm": ("written by another version", rewrite(norm=None)),
    "longer": (
        r"positional_embedding should be \(71, 64\), .*\(56, 64\)",
        rewrite(audio=AUDIO_LONGER),
    ),
    "kernel": (r"conv1.weight should be \(64, 3, 8, 8\)", rewrite(encoder={"stride": [4, 6]})),
    "lacking": ("ln_post.bias should be .*nothing of that name", swap(**{"ln_post.bias": None})),
    "extra": ("head should be nothing of that name", swap(head=torch.zeros(2))),
    "no conv": ("no conv1.weight", swap(**{"conv1.weight": None})),
    "swapped": ("does not belong", swap(class_embedding=torch.zeros(64))),
    "other clip": ("another CLIP", lambda f: tiny_clip_folder(f.parent / "clip", seed=4)),
    "lost clip": ("does not exist", lambda f: shutil.rmtree(f.parent / "clip")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_refuses_broken_models(name: str, tmp_path: Path) -> None:
    words, damage = BROKEN[name]
    folder = tmp_path / "model"
    make(tiny_clip_folder(tmp_path / "clip")).save(folder)
    load(folder)
    damage(folder)
    with pytest.raises(ModelError, match=words) as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_refuses_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the folder does not exist"):
        load(tmp_path / "nothing")
    with pytest.raises(ModelError, match="neither a model folder nor a run"):
        load(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ModelError, match="finish it with --resume"):
        load(tmp_path)


def test_refuses_an_encoder_of_another_space(clip_folder: Path, tmp_path: Path) -> None:
    model = make(clip_folder)
    model.audio.proj = torch.nn.Parameter(torch.zeros(64, 8))
    weights = model.audio.state_dict()
    facts, settings = model.audio.shape.facts, model.audio.settings
    narrow = type(model.audio).from_weights(weights, facts, settings, AUDIO)
    with pytest.raises(ModelError, match="gives 8 numbers and CLIP"):
        Pivot(model.clip, narrow, model.front_end)
    with pytest.raises(ModelError, match="NaN or infinite"):
        torch.nn.init.constant_(model.audio.class_embedding, float("nan"))
        model.encode_fbank(torch.zeros(1, 50, 32))


def test_a_failed_save_leaves_the_old_model(saved: Path, model: Pivot, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "model"))
    with pytest.raises(TypeError):
        model.save(folder, fact=object())
    assert load(folder).audio_hash == model.audio_hash
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
