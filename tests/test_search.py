"""`pivot search`: text finds sounds, a sound finds captions and sounds; every place and mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from pivot.embeddings import embed
from pivot.errors import NothingUsableError, SettingsError, StoreError, UserError
from pivot.evaluation import search
from pivot.model import Pivot, load
from pivot.settings import Embed, Search
from tests import toy
from video_prep.shards import ShardFolder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    toy.toy_shards(folder / "shards", clips=6)
    toy.toy_model(folder)
    sounds = folder / "sounds"
    (sounds / "deep").mkdir(parents=True)
    for i, kind in enumerate(toy.KINDS):
        name = f"deep/{kind}.flac" if i == 3 else f"{kind}.wav"
        soundfile.write(sounds / name, toy.tone(kind, i, 0.4), 8000)
    (sounds / "broken.wav").write_text("this is no sound")
    for what, data in (("audio", "shards"), ("text", "captions.txt")):
        (folder / "captions.txt").write_text("a dog barks\na bell rings\na dog barks\nrain\n")
        job = {"what": what, "data": str(folder / data), "out": str(folder / f"{what}-store")}
        embed.run(Embed(**job, model=str(folder / "model")))
    return folder


@pytest.fixture(scope="module")
def model(world: Path) -> Pivot:
    return load(world / "model")


def settings(world: Path, text: str, where: str | Path, **values: Any) -> Search:
    place = str(world / where)
    base = {"model": str(world / "model"), "text": text, "where": place, "device": "cpu"}
    return Search(**(base | values))


def expected(query: np.ndarray, vectors: np.ndarray, names: list[str]) -> list[str]:
    order = np.argsort(-(vectors @ query), kind="stable")
    return [names[i] for i in order]


def found_in(out: Path) -> dict[str, Any]:
    return json.loads(out.read_text())


def test_text_among_sound_files(world: Path, tmp_path: Path, model: Pivot, capsys: Any) -> None:
    out = tmp_path / "found.json"
    job = settings(world, " a dog barks ", "sounds", k=3, prompt="the sound of", out=str(out))
    assert search.run(job) == 0
    names = ["bell.wav", "cat.wav", "deep/car.flac", "dog.wav"]
    vectors = model.encode_audio([world / "sounds" / name for name in names]).numpy()
    query = model.encode_text(["the sound of a dog barks"])[0].numpy()
    found = found_in(out)
    assert [row["name"] for row in found["results"]] == expected(query, vectors, names)[:3]
    assert [row["rank"] for row in found["results"]] == [1, 2, 3]
    assert found["results"][0]["score"] == pytest.approx(float((vectors @ query).max()), abs=1e-5)
    assert found["searched"] == 4 and found["failures"][0]["id"] == "broken"
    said = capsys.readouterr()
    assert said.out.splitlines()[0].split()[0] == "1" and "1 of 5 sounds" in said.err


def test_text_among_shards_and_their_store(world: Path, tmp_path: Path) -> None:
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    search.run(settings(world, "a bell", "shards", out=str(a)))
    search.run(settings(world, "a bell", "audio-store", out=str(b)))
    first, second = found_in(a)["results"], found_in(b)["results"]
    assert len(first) == len(second) == 6  # all of them: fewer than k
    assert [row["name"] for row in first] == [row["name"] for row in second]
    assert {row["name"] for row in first} == set(ShardFolder(world / "shards").ids)


def test_a_sound_finds_captions_and_sounds(
    world: Path, tmp_path: Path, model: Pivot, capsys: Any
) -> None:
    audio = str(world / "sounds" / "bell.wav")
    query = model.encode_audio([audio])[0].numpy()
    texts = ["a dog barks", "a bell rings", "rain"]
    wanted = expected(query, model.encode_text(texts).numpy(), texts)
    out = tmp_path / "a.json"
    search.run(settings(world, "", "captions.txt", audio=audio, out=str(out)))
    assert [row["name"] for row in found_in(out)["results"]] == wanted  # equal captions once
    search.run(settings(world, "", "text-store", audio=audio, k=4, out=str(out)))
    assert list(dict.fromkeys(row["name"] for row in found_in(out)["results"])) == wanted
    search.run(settings(world, "", "sounds", audio=audio, k=1, out=str(out)))
    assert found_in(out)["results"][0]["name"] == "bell.wav"
    assert found_in(out)["results"][0]["score"] == pytest.approx(1, abs=1e-5)
    search.run(settings(world, "", "audio-store", audio=audio, out=str(out)))
    assert len(found_in(out)["results"]) == 6


def test_mistakes_are_named(world: Path, tmp_path: Path) -> None:
    audio = str(world / "sounds" / "bell.wav")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.wav").write_bytes(b"")
    (tmp_path / "none").mkdir()
    (tmp_path / "world").mkdir()
    toy.toy_model(tmp_path / "world", init="random")
    cases: list[tuple[tuple[str, str | Path], dict[str, Any], type[UserError], str]] = [
        (("  ", "sounds"), {}, SettingsError, "the text is empty"),
        (("dog", "sounds"), {"audio": audio}, SettingsError, "not both"),
        (("", "sounds"), {"audio": audio, "prompt": "x"}, SettingsError, "--prompt"),
        (("", "sounds"), {"audio": str(tmp_path / "no.wav")}, UserError, "is not a file"),
        (("", "sounds"), {"audio": str(world / "sounds/broken.wav")}, UserError, "broken.wav"),
        (("dog", tmp_path / "missing"), {}, UserError, "does not exist"),
        (("dog", tmp_path / "none"), {}, UserError, "holds no"),
        (("dog", tmp_path / "bad"), {}, NothingUsableError, "none of 1 sounds"),
        (("dog", "text-store"), {}, StoreError, "holds sentences, not sounds"),
        (("dog " * 40, "sounds"), {}, UserError, "longer than"),
        (("dog", "sounds"), {"model": str(tmp_path / "missing")}, UserError, "no model"),
        (
            ("dog", "audio-store"),
            {"model": str(tmp_path / "world" / "model")},
            StoreError,
            "another encoder",
        ),
    ]
    for (text, where), values, error, words in cases:
        with pytest.raises(error, match=words):
            search.run(settings(world, text, where, **values))
