"""Closing the modality gap: by hand, against loops, and `pivot evaluate --gap`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from pivot import metrics
from pivot.audio.frontend import FrontEnd, Norm
from pivot.embeddings import embed
from pivot.embeddings.store import EmbeddingStore
from pivot.encoders import build_audio
from pivot.encoders.clip import load_clip
from pivot.errors import DataError, SettingsError, StoreError
from pivot.evaluation import evaluate
from pivot.evaluation.gap import closing, whitening
from pivot.evaluation.zero_shot import zero_shot
from pivot.model import Pivot, load
from pivot.settings import Embed, Evaluate
from tests import toy
from video_prep.prepare import run_audio
from video_prep.settings import PrepareAudio
from video_prep.shards import ShardFolder


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def cones(n: int, dim: int = 12, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Partners in two cones: what they share, noise, and a direction of each modality's own."""
    rng = np.random.default_rng(7)
    shared, far = rng.standard_normal((n, dim)), 6 * np.eye(dim)[:2]
    sounds = shared + noise * rng.standard_normal((n, dim)) + far[0]
    texts = shared + noise * rng.standard_normal((n, dim)) + far[1]
    return unit(sounds), unit(texts)


# ---- arrays ----------------------------------------------------------------------------------


def test_centring_by_hand() -> None:
    rows = {"a": np.array([[1, 0], [0, 1]], np.float32), "b": np.array([[0, -1], [0, 1]])}
    close = closing("centre", rows)
    assert close.means["a"].tolist() == [0.5, 0.5] and close.means["b"].tolist() == [0, 0]
    half = 0.5**0.5
    assert np.allclose(close("a", rows["a"]), [[half, -half], [-half, half]])
    assert np.allclose(close("b", np.array([[0, 3.0]], np.float32)), [[0, 1]])
    assert close.matrix is None and close("a", rows["a"]).dtype == np.float32


def test_the_gap_is_closed_and_partners_are_found() -> None:
    sounds, texts = cones(400)
    assert metrics.modality_gap(sounds, texts) > 1
    before = metrics.recall_at(metrics.ranks(texts @ sounds.T, [[i] for i in range(400)]), 1)
    for how in ("centre", "whiten"):
        close = closing(how, {"audio": sounds, "text": texts})
        a, t = close("audio", sounds), close("text", texts)
        assert metrics.modality_gap(a, t) < 0.1
        assert np.allclose(np.linalg.norm(a, axis=1), 1, atol=1e-6)
        after = metrics.recall_at(metrics.ranks(t @ a.T, [[i] for i in range(400)]), 1)
        assert after > before


def test_whitened_rows_have_no_direction_of_their_own() -> None:
    """Rows of stretched directions, whitened wholly: their covariance is the identity."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((200, 5)) @ (rng.standard_normal((5, 5)) * [5, 2, 1, 1, 0.3])
    x -= x.mean(axis=0)
    matrix = whitening(iter([x[:70], x[70:]]), 0)
    assert np.allclose(matrix, matrix.T)
    assert np.allclose(np.cov((x @ matrix).T, bias=True), np.eye(5))


def test_whitening_in_part_against_loops() -> None:
    x = np.random.default_rng(2).standard_normal((9, 6)) * [3, 1, 1, 1, 1, 1]
    x -= x.mean(axis=0)
    c = sum(np.outer(row, row) for row in x) / 9
    half = 0.5 * c + 0.5 * np.trace(c) / 6 * np.eye(6)
    matrix = whitening([x], 0.5)
    assert np.allclose(matrix @ half @ matrix, np.eye(6))
    alike = whitening([x], 1)
    assert np.allclose(alike, np.eye(6) * (np.trace(c) / 6) ** -0.5)
    few = whitening([x[:3] - x[:3].mean(axis=0)], 0)  # three rows in six dimensions
    assert np.isfinite(few).all()


def test_one_map_for_all_modalities() -> None:
    """Whitening each by its own covariance would turn them against each other; blocks join."""
    sounds, texts = cones(300)
    close = closing("whiten", {"audio": sounds, "text": texts[:40]}, 0.2)
    own = [sounds - sounds.mean(axis=0), texts[:40] - texts[:40].mean(axis=0)]
    matrix = whitening([np.concatenate(own).astype(np.float64)], 0.2)
    assert close.matrix is not None and np.allclose(close.matrix, matrix, rtol=1e-3)
    moved = (texts.astype(np.float64) - texts[:40].mean(axis=0)) @ matrix
    assert np.allclose(close("text", texts), unit(moved), atol=1e-4)
    wholly = closing("whiten", {"audio": sounds, "text": texts}, 1)
    centred = closing("centre", {"audio": sounds, "text": texts})
    assert np.allclose(wholly("text", texts), centred("text", texts), atol=1e-6)


@pytest.mark.parametrize(
    "rows, words",
    [
        ({"audio": np.eye(3), "text": np.eye(3)[:1]}, "1 text vectors have no mean"),
        ({"audio": np.eye(3), "text": np.eye(3) * np.nan}, "text vectors hold NaN"),
        ({"audio": np.ones((4, 3))}, "all vectors of a modality are the same"),
    ],
)
def test_rows_without_a_mean_that_tells(rows: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(DataError, match=words):
        closing("whiten", {name: own.astype(np.float32) for name, own in rows.items()})


def test_a_vector_that_is_the_mean_has_no_direction() -> None:
    close = closing("centre", {"text": np.eye(3, dtype=np.float32)})
    mean = np.full((1, 3), 1 / 3, np.float32)
    with pytest.raises(DataError, match=r"1 of 4 text vectors \(the first: 0\)"):
        close("text", np.concatenate([mean, np.eye(3, dtype=np.float32)]))
    with pytest.raises(DataError, match="1 of 1 text vectors"):
        close("text", mean * np.nan)


# ---- pivot evaluate --gap --------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test shards with frames, labels and captions; training shards; a model; stores of both."""
    folder = tmp_path_factory.mktemp("gap")
    clip = load_clip(toy.toy_clip(folder / "clip"))
    random = toy.ENCODER.model_copy(update={"init": "random"})
    norm = Norm(mean=-5.0, std=4.0, source="toy")
    for name, seed in {"model": 2, "models/epoch-0001": 1, "models/epoch-0002": 2}.items():
        audio = build_audio(clip, random, toy.AUDIO, seed)
        Pivot(clip, audio, FrontEnd(toy.AUDIO, norm)).save(folder / name)
    toy.toy_shards(folder / "test", clips=8)
    toy.toy_shards(folder / "train", clips=6, first=20)
    toy.toy_shards(folder / "sounds", clips=5, first=40, frames=0)
    for what in ("audio", "image"):
        store = {"what": what, "data": str(folder / "train"), "out": str(folder / what)}
        embed.run(Embed(**store, model=str(folder / "model"), device="cpu"))
    (folder / "captions.txt").write_text("a dog\na cat\nthe sound of rain\na car\n")
    store = {"what": "text", "data": str(folder / "captions.txt"), "out": str(folder / "text")}
    embed.run(Embed(**store, model=str(folder / "model"), device="cpu"))
    return folder


def measured(world: Path, out: Path, shards: str = "test", **values: Any) -> dict[str, Any]:
    job = {"model": str(world), "shards": str(world / shards), "out": str(out), "device": "cpu"}
    assert evaluate.run(Evaluate(**(job | {"figures": False} | values))) == 0
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


@pytest.mark.parametrize("how", ["centre", "whiten"])
def test_results_with_the_gap_closed_and_open(world: Path, tmp_path: Path, how: Any) -> None:
    """Numbers are of the moved vectors; those of `open` are what evaluate says without --gap."""
    plain = measured(world, tmp_path / "plain")
    found = measured(world, tmp_path / "a", gap=how)
    assert found.keys() - plain.keys() == {"gap"}
    gap = found["gap"]
    assert gap["how"] == how and gap.get("shrink") == {"whiten": 0.5}.get(how)
    assert gap["open"]["zero_shot"] == plain["zero_shot"]["accuracy"]
    assert gap["open"]["geometry"] == plain["geometry"]
    assert found["geometry"]["gap"]["audio_text"] < 0.5 < plain["geometry"]["gap"]["audio_text"]
    own, shards = load(world / "model"), ShardFolder(world / "test")
    audio = embed.embed_audio(own, shards)
    labels = sorted(toy.KINDS)
    words = embed.embed_texts(own, labels, "the sound of")
    texts = [text for n in range(8) for text in shards.captions(n)]
    rows = {
        "audio": audio,
        "image": embed.embed_frame(shards, own.require_clip(), 0)
        .astype(np.float16)
        .astype(np.float32),
        "captions": embed.embed_texts(own, texts),
        "labels": words,
        "bare": embed.embed_texts(own, labels),
    }
    close = closing(how, {name: unit(x) for name, x in rows.items()})
    truth = [(labels.index(shards.labels(n)[0]),) for n in range(8)]
    expected = zero_shot(close("audio", audio), close("labels", words), truth, labels)
    assert found["zero_shot"]["per_class"] == expected["per_class"]
    hits = close("captions", rows["captions"]) @ close("audio", audio).T
    r1 = np.mean(hits.argmax(axis=1) == np.repeat(np.arange(8), 2))
    assert found["retrieval"]["text_to_audio"]["r1"] == pytest.approx(r1)


def test_the_source_of_the_means_is_named(world: Path, tmp_path: Path, capsys: Any) -> None:
    own = measured(world, tmp_path / "a", gap="centre")["gap"]["from"]
    assert own["audio"]["source"] == "the clips measured, without their labels"
    assert own["audio"]["rows"] == 8 and own["captions"]["rows"] == 16
    assert own["labels"] == {"source": "the label names in words, each once", "rows": 4}
    said = capsys.readouterr().out
    assert "modality gap closed by centring" in said and "mean of labels: the label names" in said
    given = measured(world, tmp_path / "b", gap="centre", gap_from=(str(world / "train"),))["gap"]
    assert given["from"]["audio"] == {
        "source": "sounds of shards",
        "path": str(world / "train"),
        "fingerprint": ShardFolder(world / "train").fingerprint,
        "rows": 6,
    }
    assert given["from"]["captions"]["source"] == "captions of shards"
    assert given["from"]["labels"] == given["from"]["captions"]


def test_stores_and_shards_give_the_same_means(world: Path, tmp_path: Path) -> None:
    """A store of the same sounds, frames and captions, but for float16."""
    store = {"what": "text", "data": str(world / "train"), "out": str(tmp_path / "text")}
    embed.run(Embed(**store, model=str(world / "model"), device="cpu"))
    stores = (str(world / "audio"), str(world / "image"), str(tmp_path / "text"))
    one = measured(world, tmp_path / "a", gap="centre", gap_from=stores)
    two = measured(world, tmp_path / "b", gap="centre", gap_from=(str(world / "train"),))
    for key in ("gap", "spread"):
        assert one["geometry"][key] == pytest.approx(two["geometry"][key], abs=2e-3)
    assert one["gap"]["from"]["audio"]["source"] == "store of sounds"
    assert one["gap"]["from"]["labels"]["prompt"] == ""


def test_which_clip_has_which_label_moves_nothing(world: Path, tmp_path: Path) -> None:
    """The same sounds under shuffled labels: the same vectors, so the same geometry."""
    lines = ["path,id,labels"]
    for n in range(8):
        wave = toy.tone(list(toy.KINDS)[n % 4], n, 0.4)
        soundfile.write(tmp_path / f"s{n}.wav", wave, 8000, subtype="PCM_16")
    spaces = []
    for name, shift in (("x", 0), ("y", 1)):
        rows = [f"s{n}.wav,s{n},{list(toy.KINDS)[(n + shift) % 4]}" for n in range(8)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines + rows) + "\n")
        out = tmp_path / name
        settings = PrepareAudio(source=f"{out}.csv", out=str(out), workers=1)
        assert run_audio(settings) == 0
        job = {"model": str(world), "shards": str(out), "out": f"{out}-gap", "device": "cpu"}
        assert evaluate.run(Evaluate(**job, figures=False, gap="whiten")) == 0
        spaces.append(json.loads((tmp_path / f"{name}-gap" / "results.json").read_text()))
    assert spaces[0]["geometry"] == spaces[1]["geometry"]
    assert spaces[0]["zero_shot"]["confusion"] != spaces[1]["zero_shot"]["confusion"]


def test_kept_models_are_closed_each_by_its_own_means(world: Path, tmp_path: Path) -> None:
    found = measured(world, tmp_path / "a", gap="centre", checkpoints=True)
    rows = {row["epoch"]: row for row in found["checkpoints"]}
    assert rows[2]["zero_shot"] == found["zero_shot"]["accuracy"]
    assert rows[2]["geometry"] == found["geometry"]
    alone = {"model": str(world / "models/epoch-0001"), "gap": "centre"}
    assert rows[1]["geometry"] == measured(world, tmp_path / "b", **alone)["geometry"]


@pytest.mark.parametrize(
    "sources, error, words",
    [
        (["audio"], SettingsError, "names no frames, which are measured here"),
        (["audio", "image"], SettingsError, "names no texts, .* pivot embed text"),
        (["audio", "train"], SettingsError, "names sounds twice"),
        (["captions.txt"], SettingsError, "neither a store .* nor a folder of shards"),
        (["sounds"], SettingsError, "names no frames"),
        (["none"], SettingsError, "neither a store"),
    ],
)
def test_sources_that_do_not_do(
    world: Path, tmp_path: Path, sources: list[str], error: Any, words: str
) -> None:
    with pytest.raises(error, match=words):
        given = tuple(str(world / name) for name in sources)
        measured(world, tmp_path / "a", gap="centre", gap_from=given)
    assert not (tmp_path / "a").exists()


def test_a_store_of_another_model_or_with_nan_is_refused(world: Path, tmp_path: Path) -> None:
    other = {"model": str(world / "models/epoch-0001"), "gap": "centre"}
    with pytest.raises(StoreError, match="made by another encoder"):
        measured(world, tmp_path / "a", gap_from=(str(world / "audio"),), **other)
    store = {"what": "audio", "data": str(world / "train"), "out": str(tmp_path / "audio")}
    embed.run(Embed(**store, model=str(world / "model"), device="cpu"))
    vectors = np.load(tmp_path / "audio" / "vectors.npy")
    vectors[2, 0, 3] = np.nan
    np.save(tmp_path / "audio" / "vectors.npy", vectors)
    assert len(EmbeddingStore.open(tmp_path / "audio")) == 6
    sources = (str(tmp_path / "audio"), str(world / "image"), str(world / "text"))
    with pytest.raises(DataError, match="audio vectors hold NaN"):
        measured(world, tmp_path / "b", gap="centre", gap_from=sources)


def test_settings_that_contradict_each_other() -> None:
    base = {"model": "m", "shards": "s", "out": "o"}
    for values in ({"gap_from": ("x",)}, {"gap": "centre", "score": "dot"},
                   {"gap": "whiten", "compat": "vip_ant"}):  # fmt: skip
        with pytest.raises(ValueError, match="--gap"):
            Evaluate(**base, **values)
