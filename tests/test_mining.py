"""Mining: the union over frames by hand, the three rules, and foreign stores refused."""

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
from pivot.encoders.clip import load_clip
from pivot.errors import DataError, SettingsError, StoreError, UserError
from pivot.mining import curate
from pivot.mining.curate import mine
from pivot.settings import ClipSettings, Embed, MineCaptions
from tests import toy
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
    monkeypatch.setattr(curate, "CLIPS", 7)
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
    ]
    with pytest.raises(SettingsError, match=r"must end in \.parquet"):
        curate.run(settings(world, tmp_path / "pairs.csv"))
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
