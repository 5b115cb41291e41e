"""Mining: the union over frames by hand, the four rules, real pools, foreign stores refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pivot.data.captions import read_captions
from pivot.data.pairs import read_pairs
from pivot.embeddings import embed
from pivot.embeddings.sources import middle_frame
from pivot.embeddings.store import EmbeddingStore
from pivot.embeddings.writer import StoreWriter
from pivot.encoders.clip import load_clip
from pivot.errors import DataError, SettingsError, StoreError, UserError
from pivot.mining import curate, union
from pivot.mining.curate import mine
from pivot.mining.labels import label_captions
from pivot.settings import ClipSettings, Embed, MineCaptions
from tests import toy
from tests.store_work import IDENTITY
from tests.tiny import tiny_clip_folder

POOL = ["a dog barks", "a red bell rings", "the sound of rain", "a dog barks", "a blue car", "cat"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    toy.toy_shards(folder / "shards", clips=6)
    clip = toy.toy_clip(folder / "clip")
    images = Embed(what="image", data=str(folder / "shards"), out=str(folder / "frames"), clip=clip)
    assert embed.run(images) == 0
    (folder / "pool.txt").write_text("\n".join(POOL) + "\n")
    return folder


def settings(world: Path, out: Path, **values: Any) -> MineCaptions:
    common = {"images": str(world / "frames"), "captions": str(world / "pool.txt"), "out": str(out)}
    return MineCaptions(**(common | {"device": "cpu"} | values))


def rotated(*degrees: float) -> np.ndarray:
    """Unit vectors in the plane."""
    turn = np.deg2rad(degrees)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1).astype(np.float32)


# ---- arrays ----------------------------------------------------------------------------------


def test_the_union_over_frames_keeps_the_best_score() -> None:
    texts = rotated(0, 10, 40, 90)
    images = rotated(1, 12, 80, 44).reshape(2, 2, 2)  # two clips of two frames
    found = mine(images, texts, k=2)
    # clip 0: frame at 1 finds 0 and 1, frame at 12 finds 1 and 0; best of each is 1 and 2 degrees
    # clip 1: frame at 80 finds 3 and 2, frame at 44 finds 2 and 1
    assert found.clip.tolist() == [0, 0, 1, 1, 1]
    assert found.caption.tolist() == [0, 1, 2, 3, 1]
    expected = np.cos(np.deg2rad([1, 2, 4, 10, 34]))
    np.testing.assert_allclose(found.score, expected, atol=1e-6)
    middle = mine(images, texts, k=1, frames="middle")  # of two frames the first
    assert middle.clip.tolist() == [0, 1] and middle.caption.tolist() == [0, 3]


def test_middle_frame() -> None:
    assert [middle_frame(n) for n in (1, 2, 3, 4, 5)] == [0, 0, 1, 1, 2]


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    images, texts = rng.standard_normal((50, 3, 8)), rng.standard_normal((40, 8))
    images = images / np.linalg.norm(images, axis=2, keepdims=True)
    whole = mine(images, texts, k=4)
    monkeypatch.setattr(union, "CLIPS", 7)
    parts = mine(images.astype(np.float16).astype(np.float64), texts, k=4)
    again = mine(images, texts, k=4)
    np.testing.assert_array_equal(again.caption, whole.caption)
    np.testing.assert_array_equal(again.clip, whole.clip)
    assert len(parts.clip) > 50
    keys = list(zip(whole.clip, -whole.score, whole.caption, strict=True))
    assert keys == sorted(keys) and len({(c, j) for c, _, j in keys}) == len(keys)
    with pytest.raises(DataError, match="clips, frames, d"):
        mine(images[:, 0], texts, k=1)


# ---- the command -----------------------------------------------------------------------------


def test_pivot_rule(world: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "pairs.parquet"
    assert curate.run(settings(world, out, top_k=2, prompt="a photo of")) == 0
    pairs = read_pairs(out)
    store = EmbeddingStore.open(world / "frames")
    clip = load_clip(ClipSettings(model=str(world / "clip")))
    folded = list(dict.fromkeys(POOL))  # the second "a dog barks" is folded
    texts = embed.embed_texts(clip, folded, "a photo of")
    found = mine(store.float32(), texts, 2)
    assert pairs.audio_ids == [store.ids[i] for i in found.clip]
    assert pairs.captions == [folded[j] for j in found.caption]
    np.testing.assert_allclose(pairs.scores, found.score, atol=1e-6)
    assert pairs.meta["rule"] == "pivot" and pairs.meta["captions"]["count"] == 5
    assert pairs.meta["clip"]["weights_hash"] == clip.weights_hash
    said = capsys.readouterr().out
    assert f"{len(pairs)} pairs of 6 of 6 clips" in said and "median" in said
    assert curate.run(settings(world, tmp_path / "m.parquet", top_k=1, frames="middle")) == 0
    assert len(read_pairs(tmp_path / "m.parquet")) == 6
    assert curate.run(settings(world, tmp_path / "all.parquet", top_k=99)) == 0
    assert len(read_pairs(tmp_path / "all.parquet")) == 6 * 5


def test_a_text_store_serves_as_captions(world: Path, tmp_path: Path) -> None:
    clip = {"model": str(world / "clip")}
    embed.run(
        Embed(what="text", data=str(world / "pool.txt"), out=str(tmp_path / "texts"), clip=clip)
    )
    curate.run(settings(world, tmp_path / "a.parquet", captions=str(tmp_path / "texts")))
    curate.run(settings(world, tmp_path / "b.parquet"))
    a, b = read_pairs(tmp_path / "a.parquet"), read_pairs(tmp_path / "b.parquet")
    assert a.audio_ids == b.audio_ids and set(a.captions) == set(b.captions)
    with pytest.raises(StoreError, match="prompt"):
        curate.run(
            settings(
                world, tmp_path / "c.parquet", captions=str(tmp_path / "texts"), prompt="a photo of"
            )
        )


def test_random_rule_is_seeded_and_never_gives_a_clip_its_own(world: Path, tmp_path: Path) -> None:
    def draw(name: str, **values: Any) -> list[tuple[str, str]]:
        job = settings(world, tmp_path / name, rule="random", top_k=3, **values)
        assert curate.run(job) == 0
        pairs = read_pairs(tmp_path / name)
        assert all(np.isnan(pairs.scores))
        return list(zip(pairs.audio_ids, pairs.captions, strict=True))

    first = draw("a.parquet")
    assert first == draw("b.parquet") != draw("c.parquet", seed=7)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert len(first) == 18 == len(set(first))
    own = tmp_path / "own.jsonl"
    rows = [{"id": f"clip{i}", "caption": f"caption {i}"} for i in range(6)]
    own.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for clip, caption in draw("d.parquet", captions=str(own)):
        assert clip.removeprefix("clip") != caption.removeprefix("caption ")


def test_gold_rule_takes_the_clips_own_captions(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "gold.parquet"
    assert curate.run(settings(world, out, rule="gold", captions=str(world / "shards"))) == 0
    pairs = read_pairs(out)
    captions = read_captions(world / "shards")
    assert pairs.audio_ids == [caption.clip for caption in captions]
    assert pairs.captions == [caption.text for caption in captions]


def test_empty_captions_are_counted(world: Path, tmp_path: Path, capsys: Any) -> None:
    pool = tmp_path / "pool.csv"
    pool.write_text("id,caption\nx,a bell\ny,\n")
    assert curate.run(settings(world, tmp_path / "p.parquet", captions=str(pool))) == 0
    assert "1 empty captions left out" in capsys.readouterr().out


def test_a_pool_of_several_files(world: Path, tmp_path: Path, capsys: Any) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    (pool / "b.txt").write_text("cat\na blue car\n")
    (pool / "a.txt").write_text("a dog barks\n")
    assert curate.run(settings(world, tmp_path / "p.parquet", captions=str(pool), top_k=9)) == 0
    pairs = read_pairs(tmp_path / "p.parquet")
    assert set(zip(pairs.caption_ids, pairs.captions, strict=True)) == {
        ("a.txt:0", "a dog barks"), ("b.txt:0", "cat"), ("b.txt:1", "a blue car"),
    }  # fmt: skip
    assert "1 of a.txt, 2 of b.txt" in capsys.readouterr().err


# ---- layouts and lists of clips --------------------------------------------------------------


def test_frames_are_listed_as_the_authors_list_them(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "AC_cap.csv"
    assert curate.run(settings(world, out, top_k=2)) == 0
    assert curate.run(settings(world, tmp_path / "p.parquet", top_k=2)) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [name for name, _ in lines] == [
        f"clip{i}.p0.{toy.FRAMES}_{k + 1:02d}" for i in range(6) for k in range(toy.FRAMES)
    ]
    store = EmbeddingStore.open(world / "frames")
    folded = list(dict.fromkeys(POOL))
    texts = embed.embed_texts(load_clip(ClipSettings(model=str(world / "clip"))), folded)
    best = np.argsort(-(store.float32() @ texts.T), axis=2)[:, :, :2].reshape(-1, 2)
    ids = [str(POOL.index(text)) for text in folded]  # line numbers of the pool
    assert [listed for _, listed in lines] == [[int(ids[j]) for j in row] for row in best]
    assert (tmp_path / "AC_map.csv").read_text() == "".join(
        f"[{own}, {json.dumps(text)}]\n" for own, text in zip(ids, folded, strict=True)
    )
    listed, table = read_pairs(out), read_pairs(tmp_path / "p.parquet")
    assert set(zip(listed.audio_ids, listed.captions, strict=True)) == set(
        zip(table.audio_ids, table.captions, strict=True)
    )
    assert len(listed) == len(table) and listed.meta["rule"] == "pivot" == listed.rules[0]
    middle = tmp_path / "middle_cap.csv"
    assert curate.run(settings(world, middle, top_k=1, frames="middle")) == 0
    assert middle.read_text().count(f".p0.{toy.FRAMES}_01") == 6 == len(read_pairs(middle))
    data = out.read_bytes()
    assert curate.run(settings(world, out, top_k=2)) == 0 and out.read_bytes() == data


def test_only_the_clips_of_a_list(world: Path, tmp_path: Path, capsys: Any) -> None:
    ids = tmp_path / "ids.csv"
    ids.write_text("file_name\nclip4.wav\nnobody\nclip1\nclip4\n")
    for rule, captions in [("pivot", "pool.txt"), ("random", "pool.txt"), ("gold", "shards")]:
        values = {"rule": rule, "captions": str(world / captions), "top_k": 2}
        assert curate.run(settings(world, tmp_path / "all.csv", **values)) == 0
        assert curate.run(settings(world, tmp_path / "some.csv", ids=str(ids), **values)) == 0
        assert "1 of 4 ids" in (told := capsys.readouterr().err) and "nobody" in told
        whole, part = read_pairs(tmp_path / "all.csv"), read_pairs(tmp_path / "some.csv")
        rows = zip(whole.audio_ids, whole.captions, strict=True)
        assert [row for row in rows if row[0] in ("clip1", "clip4")] == list(
            zip(part.audio_ids, part.captions, strict=True)
        )
        assert part.meta["only"] == {"ids": str(ids), "listed": 4, "clips": 2}
    ids.write_text("file_name\nnobody\n")
    with pytest.raises(DataError, match=r"no clip of --ids .* \(such as nobody\)"):
        curate.run(settings(world, tmp_path / "none.csv", ids=str(ids)))


def test_label_pairs(world: Path, tmp_path: Path, capsys: Any) -> None:
    values = {"rule": "labels", "prompt": "the sound of"}
    out = tmp_path / "gl.parquet"
    assert curate.run(settings(world, out, captions=str(world / "shards"), **values)) == 0
    pairs = read_pairs(out)
    kinds = [list(toy.KINDS)[i % 4] for i in range(6)]
    assert pairs.audio_ids == [f"clip{i}" for i in range(6)]
    assert pairs.captions == [f"the sound of {kind}" for kind in kinds]
    assert pairs.caption_ids == kinds and set(pairs.rules) == {"labels"}
    assert pairs.meta["labels"] == sorted(toy.KINDS)
    assert "6 pairs of 6 of 6 clips with 4 of 4 captions" in capsys.readouterr().out
    table = tmp_path / "labels.csv"
    table.write_text('id,labels\nclip2.wav,"Dog_bark;Speech, music;dog bark"\nelse,Cat\n')
    assert curate.run(settings(world, out, captions=str(table), **values)) == 0
    assert read_pairs(out).captions == ["the sound of dog bark", "the sound of speech, music"]
    assert curate.run(settings(world, out, captions=str(table), joined=True, rule="labels")) == 0
    joined = read_pairs(out)
    assert joined.audio_ids == ["clip2"] and joined.captions == ["dog bark, speech, music"]


def test_labels_of_clips_from_the_fields_own_tables(tmp_path: Path, realdata: Path) -> None:
    def found(path: Path) -> list[tuple[str | None, str]]:
        return [(caption.clip, caption.text) for caption in label_captions(str(path), "", False)]

    segments = tmp_path / "balanced.csv"
    segments.write_text('# Segments\n# YTID, start\nabc, 0.0, 10.0, "/m/09x0r,/m/0bt9lr"\n')
    index = tmp_path / "src.csv"
    index.write_text('{"id": "abc", "labels": ["/m/09x0r", "/m/0bt9lr"]}\n')
    for path in (segments, index):
        with pytest.raises(DataError, match=r"label /m/09x0r has no name; put ontology\.json"):
            found(path)
    ontology = (realdata / "labels" / "audioset" / "ontology.json").read_bytes()
    (tmp_path / "ontology.json").write_bytes(ontology)
    assert found(segments) == found(index) == [("abc", "speech"), ("abc", "dog")]
    index.write_text('{"id": "abc", "labels": ["/m/nothing"]}\n')
    with pytest.raises(DataError, match="line 1: label /m/nothing is not in"):
        found(index)
    official = found(realdata / "labels" / "audioset" / "eval_segments.csv")
    assert len(official) == 51804 and len({label for _, label in official}) == 527
    assert official[0] == ("--4gqARaEJE", "domestic animals, pets")
    (tmp_path / "esc50.csv").write_text("filename,fold,target,category\n1-1.wav,1,0,sea_waves\n")
    assert found(tmp_path / "esc50.csv") == [("1-1.wav", "sea waves")]
    for text, words in [
        ("id,label\nx\n", "row 2 has 1 cells"),
        ("id,label\nx,Speech, music\n", "row 2 has 3 cells instead of 2; labels are sep"),
        ("id,sound\nx,y\n", "no column of clip ids and of labels"),
        ("id,label\nx, \n", "holds no label"),
    ]:
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(DataError, match=words):
            found(tmp_path / "bad.csv")


# ---- real pools ------------------------------------------------------------------------------


def test_the_pool_of_audiocaps_against_plain_numpy(
    realdata: Path, tmp_path: Path, capsys: Any
) -> None:
    """AC: 49,838 real captions with made-up embeddings, top 10 of each of four frames, union."""
    captions = read_captions(realdata / "captions" / "audiocaps_v1" / "train.csv")
    rng = np.random.default_rng(4)
    texts = unit(rng.standard_normal((len(captions), 1, 16)))
    clips = [f"clip {i}" for i in range(30)]
    frames = unit(rng.standard_normal((len(clips), 4, 16)))
    about = {**IDENTITY, "dim": 16, "clip": {"weights_hash": "abc"}}
    made = StoreWriter(
        tmp_path / "texts", about | {"what": "text"}, [c.id for c in captions],
        texts=[c.text for c in captions],
    )  # fmt: skip
    made.add(texts, len(texts))
    made.finish()
    made = StoreWriter(tmp_path / "frames", about | {"what": "image", "rows": 4}, clips)
    made.add(frames, len(frames))
    made.finish()
    job = MineCaptions(
        images=str(tmp_path / "frames"), captions=str(tmp_path / "texts"), device="cpu",
        out=str(tmp_path / "AC_cap.csv"),
    )  # fmt: skip
    assert curate.run(job) == 0
    whole = EmbeddingStore.open(tmp_path / "texts")
    first = list({text: i for i, text in reversed(list(enumerate(whole.texts or [])))}.values())
    pool = sorted(first)  # equal sentences once, as they come
    keys = whole.float32()[pool, 0].astype(np.float64)
    expected = set()
    for name, four in zip(clips, EmbeddingStore.open(tmp_path / "frames").float32(), strict=True):
        near = np.argsort(-(four.astype(np.float64) @ keys.T), axis=1, kind="stable")[:, :10]
        expected |= {(name, whole.ids[pool[j]]) for j in near.ravel()}
    pairs = read_pairs(tmp_path / "AC_cap.csv")
    assert set(zip(pairs.audio_ids, pairs.caption_ids, strict=True)) == expected
    assert len(pairs) == len(expected) and len(pool) < len(captions)
    assert f"{len(pairs):,} pairs of 30 of 30 clips" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "AC_cap.csv").read_text().splitlines()]
    assert len(lines) == 120 and all(len(ids) == 10 for _, ids in lines)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def test_rows_of_texts(world: Path, tmp_path: Path) -> None:
    """What counts is the sentence that was embedded, however prompt and text share it."""
    plain, prompted = tmp_path / "plain", tmp_path / "prompted"
    for out, prompt in ((plain, ""), (prompted, "the sound of")):
        job = {"what": "text", "data": str(world / "pool.txt"), "prompt": prompt}
        embed.run(Embed(**job, out=str(out), clip={"model": str(world / "clip")}))
    store = EmbeddingStore.open(prompted)
    assert store.texts == POOL and store.ids == [str(i) for i in range(6)]
    assert store.rows_of_texts(["cat", "a dog barks"], "the sound of").tolist() == [5, 0]
    assert store.rows_of_texts(["the sound of cat"]).tolist() == [5]
    with pytest.raises(StoreError, match=r'lacks 1 of 2 .* "rain" \(it was made with the prompt'):
        store.rows_of_texts(["the sound of cat", "rain"])
    assert EmbeddingStore.open(plain).rows_of_texts(["rain"], "the sound of").tolist() == [2]
    with pytest.raises(StoreError, match="holds frames, not sentences"):
        EmbeddingStore.open(world / "frames").rows_of_texts(["cat"])


def test_mistakes_are_named_and_leave_nothing(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "p.parquet"
    other = str(tiny_clip_folder(tmp_path / "other", seed=5))
    (tmp_path / "long.txt").write_text("bell " * 40)
    (tmp_path / "empty.txt").write_text("")
    cases: list[tuple[dict[str, Any], type[UserError], str]] = [
        ({"images": str(tmp_path)}, StoreError, "not an embedding store"),
        ({"images": str(tmp_path / "none")}, StoreError, "does not exist"),
        ({"captions": str(tmp_path / "none.txt")}, DataError, "does not exist"),
        ({"captions": str(tmp_path / "empty.txt")}, DataError, "is empty"),
        ({"captions": str(tmp_path / "long.txt")}, DataError, "longer than"),
        ({"clip": {"model": other}}, StoreError, "another encoder"),
        ({"rule": "gold"}, DataError, "belongs to a clip"),
        ({"prompt": "{} {}"}, SettingsError, "braces"),
        ({"joined": True}, SettingsError, "--joined is for --rule labels"),
    ]
    with pytest.raises(SettingsError, match=r"must end in \.parquet"):
        curate.run(settings(world, tmp_path / "pairs.txt"))
    for values, error, words in cases:
        with pytest.raises(error, match=words):
            curate.run(settings(world, out, **values))
    assert not out.exists() and (not out.parent.exists() or not list(out.parent.iterdir()))
    text = {"what": "text", "data": str(world / "pool.txt"), "clip": {"model": other}}
    embed.run(Embed(**text, out=str(tmp_path / "texts")))
    with pytest.raises(StoreError, match="holds sentences, not frames"):
        curate.run(settings(world, out, images=str(tmp_path / "texts")))
    with pytest.raises(StoreError, match="another encoder"):
        curate.run(settings(world, out, captions=str(tmp_path / "texts")))
