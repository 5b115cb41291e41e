"""Stores and `pivot embed`: whole, resumable, and refused when stale, foreign or damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from pivot.embeddings import embed, writer
from pivot.embeddings.store import EmbeddingStore, as_stored, is_store
from pivot.embeddings.writer import StoreWriter
from pivot.errors import DataError, NothingUsableError, SettingsError, StoreError, UserError
from pivot.model import Pivot
from pivot.settings import Embed
from tests import toy
from tests.store_work import IDENTITY, ids, vectors
from video_prep.shards import ShardFolder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    made = StoreWriter(tmp_path / "store", IDENTITY, ids(6))
    made.add(vectors(6), 6)
    made.finish()
    return tmp_path / "store"


# ---- reading and writing ---------------------------------------------------------------------


def test_what_is_written_comes_back(store: Path) -> None:
    found = EmbeddingStore.open(store)
    assert found.ids == ids(6) and len(found) == 6 and found.dim == 4 and found.rows == 1
    assert found.vectors.dtype == np.float16 and isinstance(found.vectors, np.memmap)
    np.testing.assert_allclose(found.float32(), vectors(6), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(found.float32(), axis=2), 1, atol=1e-6)
    np.testing.assert_array_equal(found.float32(), as_stored(vectors(6)))
    np.testing.assert_array_equal(found.select(["-id 4", "-id 0"]), found.float32()[[4, 0]])
    assert found.manifest["count"] == 6 and found.manifest["failed"] == 0
    assert sorted(p.name for p in store.iterdir()) == ["ids.json", "manifest.json", "vectors.npy"]
    np.testing.assert_array_equal(np.load(store / "vectors.npy"), found.vectors)


def test_a_killed_writer_goes_on_and_gives_the_same_bytes(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PART_ITEMS", 2)
    path, whole = tmp_path / "again", vectors(6)
    first = StoreWriter(path, IDENTITY, ids(6))
    first.add(whole[:2], 2)
    first.add(whole[2:3], 1)  # not yet in a part: lost with the process
    assert is_store(path)
    with pytest.raises(StoreError, match="not finished"):
        EmbeddingStore.open(path)
    moved = {**IDENTITY, "data": {"path": "elsewhere", "fingerprint": "f"}}
    second = StoreWriter(path, moved, ids(6))
    assert second.next == 2
    second.add(whole[2:], 4)
    second.finish()
    for name in ("vectors.npy", "ids.json"):
        assert (path / name).read_bytes() == (store / name).read_bytes()
    third = StoreWriter(path, IDENTITY, ids(6))
    assert third.finished and third.next == 6 and len(third.finish()) == 6


def test_failures_are_kept_beside_the_rest(tmp_path: Path) -> None:
    made = StoreWriter(tmp_path / "s", IDENTITY, ids(4))
    made.add(vectors(2), 3, [0, 2], [{"id": "-id 1", "error": "bad"}])
    made.add(vectors(1), 1)
    found = made.finish()
    assert found.ids == ["-id 0", "-id 2", "-id 3"] and found.manifest["failed"] == 1
    assert json.loads((tmp_path / "s" / "failures.jsonl").read_text())["error"] == "bad"
    with pytest.raises(StoreError, match="lacks 1 of 2 ids, the first -id 1"):
        found.select(["-id 0", "-id 1"])


@pytest.mark.parametrize(
    "change, words",
    [
        ({"weights_hash": "other"}, "another encoder"),
        ({"prompt": "the sound of"}, "another prompt"),
        ({"data": {"path": "here", "fingerprint": "g"}}, "another content of the data"),
        ({"what": "text"}, "another kind of data"),
    ],
)
def test_a_store_of_other_settings_is_not_gone_on_with(
    store: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    StoreWriter(tmp_path / "begun", IDENTITY, ids(6))
    for path in (store, tmp_path / "begun"):
        with pytest.raises(StoreError, match=words):
            StoreWriter(path, {**IDENTITY, **change}, ids(6))
    with pytest.raises(StoreError, match="another"):
        StoreWriter(store, IDENTITY, ids(5))


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="in use"):
        StoreWriter(tmp_path / "used", IDENTITY, ids(2))
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="is a file"):
        StoreWriter(tmp_path / "file", IDENTITY, ids(2))


@pytest.mark.parametrize(
    "expected, words",
    [
        ({"what": "image"}, "holds sounds, not frames"),
        ({"weights_hash": "f" * 64}, "another encoder"),
        ({"fingerprint": "g"}, "is stale"),
        ({"prompt": "the sound of"}, "with the prompt"),
    ],
)
def test_require_refuses_by_name(store: Path, expected: dict[str, str], words: str) -> None:
    with pytest.raises(StoreError, match=words):
        EmbeddingStore.open(store).require(**expected)


def test_damage_is_named(store: Path) -> None:
    EmbeddingStore.open(store).require(what="audio", weights_hash="abc", fingerprint="f", prompt="")
    whole = (store / "vectors.npy").read_bytes()
    (store / "vectors.npy").write_bytes(whole[:-8])
    with pytest.raises(StoreError, match="truncated"):
        EmbeddingStore.open(store)
    (store / "vectors.npy").write_bytes(b"")
    with pytest.raises(StoreError, match="truncated"):
        EmbeddingStore.open(store)
    (store / "vectors.npy").write_bytes(whole)
    (store / "ids.json").write_text('["a"]')
    with pytest.raises(StoreError, match="1 ids"):
        EmbeddingStore.open(store)
    (store / "ids.json").write_text("[")
    with pytest.raises(StoreError, match="damaged"):
        EmbeddingStore.open(store)
    (store / "manifest.json").write_text('{"format": "pivot store 99"}')
    with pytest.raises(StoreError, match="not an embedding store of this Pivot"):
        EmbeddingStore.open(store)
    (store / "manifest.json").unlink()
    with pytest.raises(StoreError, match="not an embedding store"):
        EmbeddingStore.open(store)
    with pytest.raises(StoreError, match="does not exist"):
        EmbeddingStore.open(store / "none")


def test_vectors_that_are_no_unit_vectors_are_refused(tmp_path: Path) -> None:
    made = StoreWriter(tmp_path / "s", IDENTITY, ids(3))
    wrong = vectors(3)
    wrong[1, 0, 0] = np.nan
    with pytest.raises(StoreError, match="-id 1"):
        made.add(wrong, 3)
    with pytest.raises(StoreError, match="-id 0"):
        made.add(2 * vectors(3), 3)


# ---- pivot embed -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    toy.toy_shards(folder / "shards", clips=7)
    toy.toy_model(folder)
    return folder


def settings(world: Path, out: Path, what: str, data: Path | None = None, **values: Any) -> Embed:
    where = str(data or world / "shards")
    return Embed(what=what, data=where, out=str(out), **({"device": "cpu"} | values))


def test_embed_image_by_clip_and_by_model(world: Path, tmp_path: Path, model: Pivot) -> None:
    clip = {"model": str(world / "clip")}
    assert embed.run(settings(world, tmp_path / "a", "image", clip=clip, batch_size=3)) == 0
    assert embed.run(settings(world, tmp_path / "b", "image", model=str(world / "model"))) == 0
    a, b = EmbeddingStore.open(tmp_path / "a"), EmbeddingStore.open(tmp_path / "b")
    np.testing.assert_array_equal(a.vectors, b.vectors)
    shards = ShardFolder(world / "shards")
    assert a.vectors.shape == (7, 2, 16) and a.ids == shards.ids
    direct = embed.embed_images(shards, model.clip)
    np.testing.assert_array_equal(as_stored(direct), a.float32())
    np.testing.assert_array_equal(direct[:, 1], embed.embed_frame(shards, model.clip, 1))
    a.require(what="image", weights_hash=model.clip.weights_hash, fingerprint=shards.fingerprint)
    assert a.manifest["clip"]["model"] == str(world / "clip")


def test_embed_audio_of_shards_equals_encode_audio(
    world: Path, tmp_path: Path, model: Pivot
) -> None:
    out = tmp_path / "s"
    assert embed.run(settings(world, out, "audio", model=str(world / "model"))) == 0
    shards = ShardFolder(world / "shards")
    direct = model.encode_audio([shards.sound(i) for i in range(7)]).numpy()
    np.testing.assert_array_equal(EmbeddingStore.open(out).float32()[:, 0], as_stored(direct))
    np.testing.assert_array_equal(direct, embed.embed_audio(model, shards, batch_size=2))


def test_a_killed_embed_goes_on(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    job = settings(world, tmp_path / "s", "audio", model=str(world / "model"), batch_size=2)
    embed.run(settings(world, tmp_path / "whole", "audio", model=str(world / "model")))
    monkeypatch.setattr(writer, "PART_ITEMS", 2)
    decode, seen = ShardFolder.decode_sound, []

    def dying(self: Any, i: int, data: bytes) -> Any:
        seen.append(i)
        if i == 5:
            raise KeyboardInterrupt
        return decode(self, i, data)

    monkeypatch.setattr(ShardFolder, "decode_sound", dying)
    with pytest.raises(KeyboardInterrupt):
        embed.run(job)
    monkeypatch.setattr(
        ShardFolder, "decode_sound", lambda s, i, data: seen.append(i) or decode(s, i, data)
    )
    assert embed.run(job) == 0
    assert "going on after 4 of 7" in capsys.readouterr().err
    assert seen == [0, 1, 2, 3, 4, 5, 4, 5, 6]
    for name in ("vectors.npy", "ids.json"):
        assert (tmp_path / "s" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert embed.run(job) == 0 and "complete already" in capsys.readouterr().err


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    folder = tmp_path / "sounds"
    (folder / "deep").mkdir(parents=True)
    soundfile.write(folder / "a.wav", toy.tone("dog", 1, 0.4), 8000)
    soundfile.write(folder / "deep" / "b.flac", toy.tone("bell", 2, 0.4), 8000)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is no sound")
    soundfile.write(folder / "short.wav", toy.tone("dog", 1, 0.001), 8000)
    return folder


def test_bad_sound_files_are_named_and_cost_only_themselves(
    world: Path, sounds: Path, tmp_path: Path, capsys: Any
) -> None:
    job = settings(world, tmp_path / "s", "audio", sounds, model=str(world / "model"))
    assert embed.run(job) == 0
    store = EmbeddingStore.open(tmp_path / "s")
    assert store.ids == ["a", "deep/b"] and store.manifest["failed"] == 3
    rows = [json.loads(line) for line in (tmp_path / "s/failures.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rows} == {"empty", "short", "text"}
    assert "3 of 5 could not be used" in capsys.readouterr().out
    soundfile.write(sounds / "a.wav", toy.tone("cat", 1, 0.4), 8000)
    with pytest.raises(StoreError, match="another content"):
        embed.run(job)


def test_nothing_usable_is_its_own_error(world: Path, sounds: Path, tmp_path: Path) -> None:
    for good in ("a.wav", "deep/b.flac"):
        (sounds / good).unlink()
    job = settings(world, tmp_path / "s", "audio", sounds, model=str(world / "model"))
    with pytest.raises(NothingUsableError, match="none of 3"):
        embed.run(job)
    assert [p.name for p in (tmp_path / "s").iterdir()] == ["failures.jsonl"]
    with pytest.raises(NothingUsableError):
        embed.run(job)  # the folder can be used again


def test_embed_text_of_captions_and_labels(
    world: Path, tmp_path: Path, model: Pivot, capsys: Any
) -> None:
    (tmp_path / "c.csv").write_text("id,caption\nx,a dog barks\ny,\nz,a bell rings\n")
    job = settings(
        world, tmp_path / "s", "text", tmp_path / "c.csv",
        model=str(world / "model"), prompt="the sound of",
    )  # fmt: skip
    assert embed.run(job) == 0
    assert "row 3: empty caption" in capsys.readouterr().err
    store = EmbeddingStore.open(tmp_path / "s").require(what="text", prompt="the sound of")
    assert store.texts == ["a dog barks", "a bell rings"] and store.ids == ["x#0", "z#0"]
    direct = embed.embed_texts(model.clip, store.texts, "the sound of")
    np.testing.assert_array_equal(store.float32()[:, 0], as_stored(direct))
    (tmp_path / "labels.json").write_text('{"dog": 0, "bell": 1}')
    embed.run(
        settings(
            world, tmp_path / "l", "text", tmp_path / "labels.json", model=str(world / "model")
        )
    )
    assert EmbeddingStore.open(tmp_path / "l").texts == ["dog", "bell"]


def test_a_sentence_that_is_too_long_leaves_no_store(world: Path, tmp_path: Path) -> None:
    texts, out = tmp_path / "texts.txt", tmp_path / "s"
    texts.write_text("a dog\n" * 80 + "dog " * 90 + "\n")
    for source in ({"clip": {"model": str(world / "clip")}}, {"model": str(world / "model")}):
        with pytest.raises(DataError, match="longer than the 16"):
            embed.run(settings(world, out, "text", texts, batch_size=8, **source))
        assert not out.exists()


def test_embed_mistakes(world: Path, tmp_path: Path) -> None:
    clip, model = {"model": str(world / "clip")}, str(world / "model")
    out = tmp_path / "s"
    with pytest.raises(SettingsError, match="needs --model"):
        embed.run(settings(world, out, "audio", clip=clip))
    with pytest.raises(SettingsError, match=r"needs --clip\.model or --model"):
        embed.run(settings(world, out, "image"))
    with pytest.raises(SettingsError, match="give one of them"):
        embed.run(settings(world, out, "image", clip=clip, model=model))
    with pytest.raises(UserError, match="no-shards"):
        embed.run(settings(world, out, "image", tmp_path / "no-shards", clip=clip))
    with pytest.raises(UserError, match="does not exist"):
        embed.run(settings(world, out, "audio", tmp_path / "nothing", model=model))
    (tmp_path / "long.txt").write_text("bell " * 40)
    with pytest.raises(DataError, match="longer than"):
        embed.run(settings(world, out, "text", tmp_path / "long.txt", clip=clip))
    toy.toy_shards(tmp_path / "audio-only", clips=2, frames=0)
    with pytest.raises(DataError, match="holds sounds only"):
        embed.run(settings(world, out, "image", tmp_path / "audio-only", clip=clip))
    shutil.rmtree(out, ignore_errors=True)


@pytest.fixture(scope="module")
def model(world: Path) -> Pivot:
    from pivot.model import load

    return load(world / "model")
