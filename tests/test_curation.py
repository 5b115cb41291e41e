"""DU, DS, ADS and mixed mining: goldens pair for pair, exact cuts, refusals before writing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pivot.data.pairs import read_pairs
from pivot.embeddings import embed
from pivot.embeddings import match as matching
from pivot.embeddings.store import EmbeddingStore
from pivot.embeddings.writer import StoreWriter
from pivot.errors import DataError, SettingsError, StoreError, UserError
from pivot.mining import curate, hits, nearness
from pivot.mining.hits import Hits
from pivot.mining.nearness import Limits, near_labels, near_pairs
from pivot.mining.rounds import joined
from pivot.settings import Embed, MineCaptions
from tests import toy
from tests.tiny import tiny_clip_folder

LABELS = ["dog", "cat", "rain", "bell", "wind"]


def store(path: Path, what: str, vectors: np.ndarray, **more: Any) -> str:
    """Write a store of one vector an item, by text encoder "text" of the model "sound"."""
    texts, model = more.pop("texts", None), {"audio_hash": "sound", "text_hash": "text"}
    rows = vectors[:, None] if vectors.ndim == 2 else vectors
    about: dict[str, Any] = {
        "what": what,
        "weights_hash": "text" if what == "text" else "sound",
        "clip": None,
    }
    about |= {"prompt": "", "dim": rows.shape[2], "rows": rows.shape[1], "model": model}
    about |= {"data": {"path": "here", "fingerprint": "f"}, **more.pop("about", {})}
    ids = more.pop("ids", None) or [f"{what}{i}" for i in range(len(rows))]
    made = StoreWriter(path, about, ids, texts=texts)
    made.add(rows, len(rows))
    assert made.finish() is not None
    return str(path)


def texts_of(count: int) -> list[str]:
    return [f"caption {i}" for i in range(count)]


def unit(count: int, dim: int, seed: int) -> np.ndarray:
    x = np.random.default_rng([seed, count]).standard_normal((count, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture
def golden(goldens: Path) -> dict[str, np.ndarray]:
    data = np.load(goldens / "distill" / "clap_curation.npz")
    return {k.removeprefix("curation/"): data[k] for k in data if k.startswith("curation/")}


@pytest.fixture
def teacher(golden: dict[str, np.ndarray], tmp_path: Path) -> dict[str, str]:
    """The goldens' embeddings as stores of one teacher, and captions with clips in a csv."""
    texts = texts_of(len(golden["text_emb"]))
    rows = "".join(f"{text},clip {i}\n" for i, text in enumerate(texts))
    (tmp_path / "train.csv").write_text("caption,id\n" + rows)
    prompted = {"prompt": "this is a sound of"}
    return {
        "audio": store(tmp_path / "audio", "audio", golden["audio_emb"]),
        "text": store(tmp_path / "text", "text", golden["text_emb"], texts=texts),
        "labels": store(
            tmp_path / "labels", "text", golden["label_emb"], texts=LABELS, about=prompted
        ),
        "train": str(tmp_path / "train.csv"),
    }


def mined(tmp_path: Path, name: str = "out.parquet", **values: Any) -> Any:
    out = tmp_path / name
    assert curate.run(MineCaptions(out=str(out), device="cpu", **values)) == 0
    return read_pairs(out)


# ---- goldens ---------------------------------------------------------------------------------


def test_du_is_the_goldens_pair_for_pair(
    teacher: dict[str, str], golden: dict[str, np.ndarray], tmp_path: Path, capsys: Any
) -> None:
    pairs = mined(
        tmp_path, images=teacher["audio"], captions=teacher["text"], rule="du",
        threshold=float(golden["du_threshold"]),
    )  # fmt: skip
    expected = {(f"audio{i}", f"text{j}") for i, j in golden["du_pairs"]}
    assert set(zip(pairs.audio_ids, pairs.caption_ids, strict=True)) == expected
    assert len(pairs) == 23 and set(pairs.rules) == {"du"} and min(pairs.scores) >= 0.5
    assert list(dict.fromkeys(pairs.audio_ids)) == [
        f"audio{i}" for i in dict.fromkeys(golden["du_pairs"][:, 0].tolist())
    ]
    meta = pairs.meta
    assert meta["threshold"] == 0.5 and meta["pairs"] == 23 and meta["rule"] == "du"
    assert meta["teacher"]["store"]["weights_hash"] == "sound"
    assert meta["teacher"]["captions"]["weights_hash"] == "text"
    assert meta["settings"]["threshold"] == 0.5 and "versions" in meta
    assert "23 of 1,200 pairs reach a cosine of 0.5" in capsys.readouterr().out


def test_ds_keeps_the_goldens_rows(
    teacher: dict[str, str], golden: dict[str, np.ndarray], tmp_path: Path
) -> None:
    threshold = float(golden["ds_threshold"])
    kept, score = near_labels(golden["text_emb"], golden["label_emb"], threshold)
    assert kept.tolist() == golden["ds_keep"].tolist() and score.shape == (30,)
    common: dict[str, Any] = {
        "rule": "ds",
        "labels": teacher["labels"],
        "label_threshold": threshold,
    }
    pairs = mined(tmp_path, images=teacher["text"], captions=teacher["train"], **common)
    assert pairs.audio_ids == [f"clip {i}" for i in golden["ds_keep"]]
    assert pairs.captions == [f"caption {i}" for i in golden["ds_keep"]]
    np.testing.assert_allclose(pairs.scores, score[golden["ds_keep"]], atol=5e-4)
    assert pairs.meta["labels"]["names"] == LABELS and set(pairs.rules) == {"ds"}
    # the same of a pairs file, by the audio store of the teacher, repeated rows kept
    rows = [{"audio_id": f"c{i}", "caption_id": "x", "caption": f"caption {i}"} for i in range(30)]
    lines = "".join(json.dumps(row) + "\n" for row in [*rows, *rows])
    (tmp_path / "pairs.jsonl").write_text(lines)
    again = mined(
        tmp_path, images=teacher["audio"], captions=str(tmp_path / "pairs.jsonl"),
        texts=teacher["text"], **common,
    )  # fmt: skip
    assert again.audio_ids == [f"c{i}" for i in golden["ds_keep"]] * 2


def test_ads_is_du_with_the_captions_of_ds(
    teacher: dict[str, str], golden: dict[str, np.ndarray], tmp_path: Path
) -> None:
    common: dict[str, Any] = {
        "rule": "ads", "threshold": 0.5, "labels": teacher["labels"],
        "label_threshold": float(golden["ds_threshold"]), "images": teacher["audio"],
    }  # fmt: skip
    pairs = mined(tmp_path, captions=teacher["text"], **common)
    near = set(golden["ds_keep"].tolist())
    expected = {(f"audio{i}", f"text{j}") for i, j in golden["du_pairs"].tolist() if j in near}
    assert set(zip(pairs.audio_ids, pairs.caption_ids, strict=True)) == expected
    assert len(expected) == len(pairs) and set(pairs.rules) == {"ads"}
    assert pairs.meta["labels"]["captions_kept"] == 9


# ---- thresholds, caps ------------------------------------------------------------------------


def brute(sounds: np.ndarray, captions: np.ndarray) -> np.ndarray:
    return (sounds.astype(np.float64) @ captions.T.astype(np.float64)).astype(np.float32)


def found(near: Any) -> list[tuple[int, int]]:
    blocks = list(near.hits)
    return [(int(h["sound"]), int(h["caption"])) for block in blocks for h in block]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that some hundreds of pairs take every path."""
    for module, name, value in (
        (hits, "AT_ONCE", 100), (nearness, "AT_ONCE", 100), (nearness, "SAMPLE", 20),
        (nearness, "KEYS", 16), (matching, "HELD", 300), (matching, "QUERY_BLOCK", 32),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)


def test_a_number_and_a_quantile_are_exact(small: None, tmp_path: Path) -> None:
    sounds, captions = unit(150, 12, 1), unit(60, 12, 2)
    sounds[40:60] = sounds[:20]  # equal scores: the first sounds win
    score = brute(sounds, captions)
    order = np.argsort(-score.ravel(), kind="stable")
    for number in (1, 7, 333, 9000):
        near = near_pairs(sounds, captions, Limits(wanted=number), tmp_path)
        assert set(found(near)) == {divmod(int(i), 60) for i in order[:number]}
        assert near.threshold == score.ravel()[order[number - 1]]
    for quantile in (0.0, 0.5, 0.97, 1.0):
        near = near_pairs(sounds, captions, Limits(quantile=quantile), tmp_path)
        least = np.quantile(score.astype(np.float64), quantile)
        reach = int((score >= least).sum())
        assert reach - 40 <= len(near.hits) <= reach  # equal scores at the edge are cut
        assert set(found(near)) <= set(zip(*map(np.ndarray.tolist, np.nonzero(score >= least)),
                                           strict=True))  # fmt: skip


def test_pairs_are_by_sound_then_score(small: None, tmp_path: Path) -> None:
    sounds, captions = unit(90, 8, 3), unit(50, 8, 4)
    near = near_pairs(sounds, captions, Limits(threshold=0.2), tmp_path)
    score = brute(sounds, captions)
    expected = [
        (i, j)
        for i in range(90)
        for j in np.argsort(-score[i], kind="stable")
        if score[i, j] >= 0.2
    ]
    assert found(near) == expected and near.before_caps == len(expected)


def test_caps_by_caption_and_by_sound(small: None, tmp_path: Path) -> None:
    sounds, captions = unit(120, 6, 5), unit(30, 6, 6)
    score = brute(sounds, captions)
    limits = Limits(threshold=0.3, max_per_caption=4, max_per_audio=2)
    pairs = found(near_pairs(sounds, captions, limits, tmp_path))
    kept = np.zeros(score.shape, bool)
    for j in range(30):  # a caption's nearest sounds, then a sound's nearest captions of those
        best = np.argsort(-score[:, j], kind="stable")[:4]
        kept[best, j] = score[best, j] >= 0.3
    for i in range(120):
        near = [j for j in np.argsort(-score[i], kind="stable") if kept[i, j]]
        kept[i, near[2:]] = False
    assert set(pairs) == set(zip(*map(np.ndarray.tolist, np.nonzero(kept)), strict=True))
    alone = found(near_pairs(sounds, captions, Limits(threshold=0.3, max_per_audio=1), tmp_path))
    assert alone == [(i, int(score[i].argmax())) for i in range(120) if score[i].max() >= 0.3]
    top = found(near_pairs(sounds, captions, Limits(top_k=3, wanted=50), tmp_path))
    three = np.sort(score, axis=1)[:, -3:].ravel()
    assert len(top) == 50 and score[tuple(np.array(top).T)].min() == np.sort(three)[-50]


def test_a_rank_is_exact_among_scores_of_both_signs(tmp_path: Path) -> None:
    score = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    score[:50] = score[50]
    held = Hits(tmp_path)
    held.add(np.arange(5000), np.zeros(5000, int), score)
    for rank in (1, 40, 2500, 5000):
        assert held.score_of_rank(rank) == np.sort(score)[-rank]
    assert not list(tmp_path.iterdir())  # the file has no name


# ---- refusals --------------------------------------------------------------------------------


def test_too_many_pairs_are_counted_before_anything_is_written(
    teacher: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out" / "du.parquet"
    common: dict[str, Any] = {"images": teacher["audio"], "captions": teacher["text"], "rule": "du"}
    many: dict[str, Any] = {**common, "most": 1000, "out": str(out), "device": "cpu"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"threshold": -1.0}, r"1,200 pairs would be kept, more than --most 1,000; nothing is"),
        ({"wanted": 1100}, r"1,100 of 1,200 pairs would"),
        ({"quantile": 0.1}, r"1,080 of 1,200 pairs would"),
        ({"top_k": 30}, r"1,200 pairs would"),
    ]
    for values, words in cases:
        with pytest.raises(SettingsError, match=words):
            curate.run(MineCaptions(**many, **values))
    assert not out.parent.exists() or not list(out.parent.iterdir())
    assert len(mined(tmp_path, **common, threshold=-1.0, most=1200)) == 1200


def test_a_hopeless_threshold_is_refused_by_a_sample(small: None, tmp_path: Path) -> None:
    sounds, captions = unit(400, 8, 7), unit(60, 8, 8)
    limits = Limits(threshold=-0.9, most=5000)
    with pytest.raises(
        SettingsError, match=r"about 2\d,\d{3} pairs .* sample .*\(--threshold 0\.\d"
    ):
        near_pairs(sounds, captions, limits, tmp_path)
    suggested = Limits(threshold=0.4, most=5000)
    assert len(near_pairs(sounds, captions, suggested, tmp_path).hits) <= 5000


def test_nothing_near_is_an_error_that_says_how_near(
    teacher: dict[str, str], golden: dict[str, np.ndarray], tmp_path: Path
) -> None:
    best = brute(golden["audio_emb"], golden["text_emb"]).max()
    du: dict[str, Any] = {"images": teacher["audio"], "captions": teacher["text"], "rule": "du"}
    with pytest.raises(DataError, match=rf"keeps none of 1,200 pairs; .* cosine of {best:.2f}"):
        mined(tmp_path, **du, threshold=0.999)
    ds: dict[str, Any] = {"images": teacher["text"], "captions": teacher["train"], "rule": "ds"}
    with pytest.raises(DataError, match="keeps none of 30 captions"):
        mined(tmp_path, **ds, labels=teacher["labels"], label_threshold=0.999)
    assert not (tmp_path / "out.parquet").exists()


def test_foreign_and_damaged_stores_are_named(
    teacher: dict[str, str], golden: dict[str, np.ndarray], tmp_path: Path
) -> None:
    texts, text = texts_of(30), golden["text_emb"]
    other = {"weights_hash": "else", "model": {"audio_hash": "e", "text_hash": "else"}}
    strange = store(tmp_path / "strange", "text", text, texts=texts, about=other)
    wide = store(tmp_path / "wide", "text", unit(30, 20, 1), texts=texts)
    prompted = store(tmp_path / "p", "text", text, texts=texts, about={"prompt": "the sound of"})
    twice = store(tmp_path / "twice", "audio", golden["audio_emb"], ids=["same", "same"] * 20)
    damaged = store(tmp_path / "damaged", "audio", golden["audio_emb"])
    vectors = np.load(tmp_path / "damaged" / "vectors.npy")
    vectors[7] = np.nan
    np.save(tmp_path / "damaged" / "vectors.npy", vectors)
    cases: list[tuple[dict[str, Any], type[UserError], str]] = [
        ({"captions": strange}, StoreError, "different models"),
        ({"captions": wide}, StoreError, "20 dimensions"),
        ({"captions": prompted}, StoreError, "prompt"),
        ({"images": twice}, StoreError, "id same 40 times"),
        ({"images": damaged}, DataError, "vector of audio7 "),
        ({"images": teacher["text"]}, StoreError, "holds sentences, not sounds"),
        ({"captions": teacher["train"]}, SettingsError, "text encoder of its own"),
        ({"labels": teacher["labels"]}, SettingsError, "--labels is not for --rule du"),
        ({"quantile": 0.5}, SettingsError, "exclude each other"),
        ({"threshold": None}, SettingsError, "which pairs count"),
        ({"threshold": None, "wanted": 1201}, SettingsError, "1,201 of only 1,200"),
        ({"rule": "ads"}, SettingsError, "needs --labels"),
        ({"rule": "pivot"}, SettingsError, "--threshold is for --rule du, ds or ads"),
        (
            {"rule": "ads", "labels": teacher["text"], "label_threshold": 0.1},
            StoreError,
            'with the prompt "", not "this is a sound of"',
        ),
    ]
    common: dict[str, Any] = {"images": teacher["audio"], "captions": teacher["text"], "rule": "du"}
    for values, error, words in cases:
        with pytest.raises(error, match=words):
            mined(tmp_path, **{**common, "threshold": 0.5, **values})
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("c.csv", "caption,id\ncaption 3,x\ncaption 4,y\n", None),
        ("c.tsv", "a.wav\ta dog\nb.wav\ta cat\n", "no caption column among a.wav"),
        ("c.txt", "caption 3\ncaption 4\n", "need the clip"),
        ("c.jsonl", '{"id": "x", "caption": ""}\n', "empty caption"),
    ],
)
def test_captions_of_ds_need_a_header_and_clips(
    teacher: dict[str, str], tmp_path: Path, name: str, content: str, words: str | None
) -> None:
    (tmp_path / name).write_text(content)
    values: dict[str, Any] = {"rule": "ds", "labels": teacher["labels"], "label_threshold": -1.0}
    values |= {"images": teacher["text"], "captions": str(tmp_path / name)}
    if words is None:
        assert mined(tmp_path, **values).audio_ids == ["x", "y"]
        return
    with pytest.raises(DataError, match=words):
        mined(tmp_path, **values)


def test_equal_captions_are_folded_and_clips_can_be_listed(tmp_path: Path) -> None:
    texts = ["rain", "wind", "rain", "bell"]
    vectors = unit(4, 8, 1)
    vectors[2] = vectors[0]
    captions = store(tmp_path / "text", "text", vectors, texts=texts)
    sounds = store(tmp_path / "audio", "audio", unit(50, 8, 2))
    (tmp_path / "ids.txt").write_text("audio31\naudio4\n")
    pairs = mined(
        tmp_path, images=sounds, captions=captions, rule="du", top_k=9,
        ids=str(tmp_path / "ids.txt"),
    )  # fmt: skip
    assert set(zip(pairs.audio_ids, pairs.caption_ids, strict=True)) == set(
        itertools.product(("audio4", "audio31"), ("text0", "text1", "text3"))
    )
    score = EmbeddingStore.open(sounds).float32()[31, 0] @ vectors[3]
    own = dict(zip(zip(pairs.audio_ids, pairs.caption_ids, strict=True), pairs.scores, strict=True))
    assert own["audio31", "text3"] == pytest.approx(score, abs=1e-3)


def test_a_model_with_frozen_text_needs_no_text_store(tmp_path: Path) -> None:
    """The CLIP that the audio store names embeds captions and labels, as a text store has them."""
    toy.toy_shards(tmp_path / "shards", clips=8)
    model = str(toy.toy_model(tmp_path))
    audio, pool = str(tmp_path / "sounds"), tmp_path / "pool.txt"
    pool.write_text("a dog\na bell\nthe sound of a car\na dog\n")
    shards = str(tmp_path / "shards")
    embed.run(Embed(what="audio", data=shards, out=audio, model=model, device="cpu"))
    texts = str(tmp_path / "texts")
    embed.run(Embed(what="text", data=str(pool), out=texts, model=model, device="cpu"))
    common: dict[str, Any] = {"images": audio, "rule": "du", "wanted": 9}
    file = mined(tmp_path, "a.parquet", captions=str(pool), **common)
    held = mined(tmp_path, "b.parquet", captions=texts, **common)
    both = mined(tmp_path, "c.parquet", captions=str(pool), texts=texts, **common)
    named = mined(tmp_path, "d.parquet", captions=str(pool), model=model, **common)
    assert file.audio_ids == held.audio_ids == both.audio_ids == named.audio_ids
    assert file.captions == held.captions == both.captions == named.captions
    store, vectors = EmbeddingStore.open(audio), EmbeddingStore.open(texts).float32()[:3, 0]
    score = brute(store.float32()[:, 0], vectors)
    assert min(held.scores) == np.sort(score.ravel())[-9]
    again = mined(tmp_path, "e.parquet", captions=str(tmp_path / "b.parquet"), **common)
    assert set(zip(again.audio_ids, again.captions, strict=True)) == set(
        zip(held.audio_ids, held.captions, strict=True)
    )
    # labels of shards, by the CLIP; the clips' own captions
    near = {"rule": "ds", "images": audio, "captions": shards, "labels": shards}
    rows = mined(tmp_path, "f.parquet", **near, label_threshold=-1.0)
    assert len(rows) == 16 and rows.meta["labels"]["names"] == list(toy.KINDS)
    other = str(toy.toy_model(tmp_path / "other", init="random"))
    assert mined(tmp_path, "g.parquet", captions=str(pool), model=other, **common).captions
    with pytest.raises(StoreError, match="another text encoder"):
        mined(tmp_path, captions=str(pool), clip={"model": strange_clip(tmp_path)}, **common)


def strange_clip(folder: Path) -> str:
    return str(tiny_clip_folder(folder / "strange", seed=5))


# ---- rounds ----------------------------------------------------------------------------------


def test_mixed_mining_is_the_weighted_sum_of_both(tmp_path: Path) -> None:
    frames = unit(36, 10, 1).reshape(12, 3, 10)
    texts, sounds, own = unit(20, 10, 2), unit(12, 6, 3), unit(20, 6, 4)
    names = [f"c{i}" for i in range(12)]
    clip = {"clip": {"weights_hash": "clip"}, "weights_hash": "clip", "model": None}
    images = store(tmp_path / "frames", "image", frames, ids=names, about=clip)
    captions = store(tmp_path / "clip", "text", texts, texts=texts_of(20), about=clip)
    reverse = store(tmp_path / "audio", "audio", sounds[::-1], ids=names[::-1])
    model = store(tmp_path / "own", "text", own, texts=texts_of(20))
    common: dict[str, Any] = {"images": images, "captions": captions, "top_k": 4}
    for mix in (0.0, 0.3, 1.0):
        pairs = mined(tmp_path, **common, audio=reverse, texts=model, mix=mix)
        score = (1 - mix) * (frames @ texts.T) + mix * (sounds @ own.T)[:, None]
        wanted = {
            (f"c{i}", f"text{j}")
            for i in range(12) for f in range(3) for j in np.argsort(-score[i, f])[:4]
        }  # fmt: skip
        assert set(zip(pairs.audio_ids, pairs.caption_ids, strict=True)) == wanted
        listed = score >= np.sort(score, axis=2)[:, :, -4:-3]  # the frames that list a caption
        best = np.where(listed, score, -1).max(axis=1)
        expected = [
            best[int(a[1:]), int(c[4:])]
            for a, c in zip(pairs.audio_ids, pairs.caption_ids, strict=True)
        ]
        np.testing.assert_allclose(pairs.scores, expected, atol=1e-3)
    assert pairs.meta["audio"]["weights_hash"] == "sound" and pairs.meta["settings"]["mix"] == 1.0
    plain = mined(tmp_path, **common)
    alone = mined(tmp_path, **common, audio=reverse, texts=model, mix=0.0)
    assert plain.caption_ids == alone.caption_ids and "mix" not in plain.meta["settings"]
    with pytest.raises(SettingsError, match="text encoder of its own"):
        mined(tmp_path, **common, audio=reverse)
    with pytest.raises(SettingsError, match="--texts needs --audio"):
        mined(tmp_path, **common, texts=model)
    with pytest.raises(SettingsError, match="--audio is for --rule pivot"):
        mined(tmp_path, **common, rule="random", audio=reverse)
    few = store(tmp_path / "few", "audio", sounds[:5], ids=names[:5])
    with pytest.raises(DataError, match=r"lacks 7 of 12 clips of .*, the first c5"):
        mined(tmp_path, **common, audio=few, texts=model)


def test_joined_vectors_keep_unit_length() -> None:
    both = joined(unit(5, 4, 1), unit(5, 7, 2), 0.25)
    assert both.shape == (5, 11) and both.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, atol=1e-6)
