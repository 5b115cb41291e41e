"""`pivot evaluate` on data sets as they come: folds, missing clips, ids, compat, checkpoints."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from pivot.audio.frontend import FrontEnd, Norm
from pivot.embeddings import embed
from pivot.embeddings.store import EmbeddingStore
from pivot.encoders import build_audio
from pivot.encoders.clip import load_clip
from pivot.encoders.sentence import TextEncoder
from pivot.errors import DataError, ModelError, RunError, SettingsError, StoreError
from pivot.evaluation import evaluate, plots, search
from pivot.evaluation.compat import rules_of
from pivot.evaluation.folds import fold_scores
from pivot.evaluation.zero_shot import label_vectors, zero_shot
from pivot.model import Pivot, load
from pivot.settings import Embed, Evaluate, Search
from pivot.settings.parts import TextSettings
from tests import toy
from video_prep.prepare import run_audio
from video_prep.settings import PrepareAudio
from video_prep.shards import ShardFolder

ESC = ("dog", "cat", "clock_tick")  # two are KINDS with a sound of their own


def prepare(source: Path, out: Path) -> Path:
    assert run_audio(PrepareAudio(source=str(source), out=str(out), workers=1)) == 0
    return out


def write_wave(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = list(toy.KINDS)[number % 4]
    soundfile.write(path, toy.tone(kind, number, 0.4), 8000, subtype="PCM_16")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a final model and three kept ones, the second the same as the final."""
    folder = tmp_path_factory.mktemp("model")
    clip = load_clip(toy.toy_clip(folder / "clip"))
    norm = Norm(mean=-5.0, std=4.0, source="toy")
    random = toy.ENCODER.model_copy(update={"init": "random"})
    for name, seed in {"models/epoch-0001": 1, "models/epoch-0002": 2, "models/epoch-0010": 3,
                       "model": 2}.items():  # fmt: skip
        audio = build_audio(clip, random, toy.AUDIO, seed)
        Pivot(clip, audio, FrontEnd(toy.AUDIO, norm)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def esc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ESC-50's own layout with 14 of its clips, 2 of which are missing; folds differ in size."""
    folder = tmp_path_factory.mktemp("esc") / "ESC-50-master"
    (folder / "meta").mkdir(parents=True)
    rows = [["filename", "fold", "target", "category", "esc10", "src_file", "take"]]
    for n in range(14):
        fold, target = (1, 2, 1, 3, 1)[n % 5], n % 3
        name = f"{fold}-{100 + n}-A-{target}.wav"
        rows.append([name, str(fold), str(target), ESC[target], "False", str(100 + n), "A"])
        if n not in (4, 9):
            write_wave(folder / "audio" / name, n)
    with (folder / "meta" / "esc50.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return prepare(folder, folder.parent / "shards")


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips with several labels, written in different orders; the last has none."""
    folder = tmp_path_factory.mktemp("several")
    labels = ("Dog;Rain", "Rain;Dog", "Car", "Bell;Car;Dog", "Rain", "")
    lines = ["path,id,labels"]
    for n, own in enumerate(labels):
        write_wave(folder / f"s{n}.wav", n)
        lines.append(f"{folder}/s{n}.wav,s{n},{own}")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return prepare(folder / "list.csv", folder / "shards")


@pytest.fixture(scope="module")
def framed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.toy_shards(tmp_path_factory.mktemp("framed") / "shards", clips=8)


def measured(model: Path, shards: Path, out: Path, **values: Any) -> dict[str, Any]:
    job = {"model": str(model), "shards": str(shards), "out": str(out), "device": "cpu"} | values
    assert evaluate.run(Evaluate(**job)) == 0
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


# ---- partial data sets and folds -------------------------------------------------------------


def test_a_partial_data_set_is_measured_counted_and_named(
    model: Path, esc: Path, tmp_path: Path, capsys: Any
) -> None:
    found = measured(model, esc, tmp_path / "a")
    expected = {"name": "ESC-50", "official": 2000, "listed": 14, "present": 12, "measured": 12}
    assert found["dataset"].items() >= expected.items() and found["zero_shot"]["n"] == 12
    said = capsys.readouterr().out
    assert "ESC-50: 12 of 2,000 clips" in said
    assert "only 3 of ESC-50's 50 classes are told apart" in said
    assert '"the sound of"' in said and "without the prompt" in said


def test_folds_are_pooled_and_averaged(model: Path, esc: Path, tmp_path: Path, capsys: Any) -> None:
    found = measured(model, esc, tmp_path / "a", pool="per_fold")
    own, shards = load(model), ShardFolder(esc)
    labels = sorted(name.replace("_", " ") for name in ESC)
    best = embed.embed_audio(own, shards) @ embed.embed_texts(own, labels, "the sound of").T
    right: dict[int, list[bool]] = {}
    for i, facts in enumerate(shards.all_facts()):
        truth = facts["labels"][0].replace("_", " ")
        right.setdefault(facts["fold"], []).append(labels[int(best[i].argmax())] == truth)
    assert {fold: len(own) for fold, own in right.items()} == {1: 6, 2: 3, 3: 3}
    shares = [sum(right[fold]) / len(right[fold]) for fold in (1, 2, 3)]
    folds = found["folds"]
    assert [row["accuracy"] for row in folds["folds"]] == pytest.approx(shares)
    assert folds["mean"] == pytest.approx(sum(shares) / 3)
    variance = sum((share - sum(shares) / 3) ** 2 for share in shares) / 3
    assert folds["deviation"] == pytest.approx(variance**0.5)
    assert (
        folds["pooled"]
        == found["zero_shot"]["accuracy"]
        == pytest.approx(sum(map(sum, right.values())) / 12)
    )
    assert folds["without_prompt"]["pooled"] == found["zero_shot_without_prompt"]["accuracy"]
    assert "the folds' mean is the score" in capsys.readouterr().out


def test_pooled_and_averaged_differ_where_folds_differ_in_size() -> None:
    eye = np.eye(3, dtype=np.float32)
    truth, folds = [(0,), (0,), (1,), (2,), ()], [1, 1, 1, 2, 2]
    found = fold_scores(eye[[0, 0, 1, 0, 1]], eye, truth, ["a", "b", "c"], folds)
    assert found is not None
    assert found["pooled"] == 0.75 and found["mean"] == 0.5 and found["deviation"] == 0.5
    assert [row["n"] for row in found["folds"]] == [3, 1] and found["without_fold"] == 0
    some = fold_scores(eye[[0, 0, 1]], eye, [(0,), (1,), (1,)], ["a", "b", "c"], [7, None, 7])
    assert some is not None and some["without_fold"] == 1
    assert some["mean"] == 1 and some["pooled"] == pytest.approx(2 / 3)
    assert fold_scores(eye, eye, [(0,), (1,), (2,)], ["a", "b", "c"], [None] * 3) is None
    assert fold_scores(eye, eye, [(0, 1), (1,), (2,)], ["a", "b", "c"], [1, 2, 3]) is None


def test_a_choice_of_clips_keeps_all_classes_as_answers(
    model: Path, esc: Path, tmp_path: Path, capsys: Any
) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("1-100-A-0.wav\n2-101-A-1\n9-9-A-9\n1-104-A-1\n2-101-A-1\n")
    found = measured(model, esc, tmp_path / "a", ids=str(ids))
    assert found["zero_shot"]["n"] == 2 and found["zero_shot"]["classes"] == 3
    assert found["zero_shot"]["classes_without_clips"] == ["clock tick"]
    asked = found["data"]["ids"]
    assert (asked["listed"], asked["of"], asked["repeated"], asked["unknown"]) == (5, 12, 1, 2)
    assert asked["unknown_ids"] == ["9-9-A-9", "1-104-A-1"]
    assert found["dataset"]["measured"] == 2 and found["dataset"]["present"] == 12
    said = capsys.readouterr().out
    assert "2 of 5 ids are not here: 9-9-A-9, 1-104-A-1" in said and "2 of 2,000 clips" in said
    ids.write_text("rPkCYq4Zjwk\n")
    with pytest.raises(DataError, match="list of another data set"):
        measured(model, esc, tmp_path / "b", ids=str(ids))


def test_ids_choose_frames_of_a_store_and_captions(
    model: Path, framed: Path, tmp_path: Path
) -> None:
    (tmp_path / "ids.csv").write_text("youtube_id\nclip6\nclip1\nclip3\n")
    store = {"what": "image", "data": str(framed), "out": str(tmp_path / "frames")}
    embed.run(Embed(**store, model=str(model)))
    ids = {"ids": str(tmp_path / "ids.csv")}
    found = measured(model, framed, tmp_path / "a", images=str(tmp_path / "frames"), **ids)
    assert found["image_audio"]["clips"] == found["retrieval"]["clips"] == 3
    assert found["retrieval"]["captions"] == 6 and found["data"]["captions"]["left_out"] == 10
    assert measured(model, framed, tmp_path / "b", **ids)["retrieval"] == found["retrieval"]
    images = EmbeddingStore.open(tmp_path / "frames").select(["clip1", "clip3", "clip6"])[:, 0]
    audio = embed.embed_audio(load(model), ShardFolder(framed))[[1, 3, 6]]
    first = (images @ audio.T).argmax(axis=1) == np.arange(3)
    assert found["image_audio"]["image_to_audio"]["r1"] == pytest.approx(first.mean())


def test_fewer_captions_than_five_are_counted(
    model: Path, framed: Path, tmp_path: Path, capsys: Any
) -> None:
    rows = [{"id": f"clip{n}.wav", "captions": [f"a dog {'a ' * k}" for k in range(5 - n % 3)]}
            for n in range(4)]  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps(rows))
    found = measured(model, framed, tmp_path / "a", captions=str(tmp_path / "c.json"))
    assert found["captions_per_clip"] == {"5": 2, "4": 1, "3": 1, "0": 4}
    assert found["retrieval"]["clips"] == 4 and found["retrieval"]["captions"] == 17
    assert found["data"]["captions"]["repeated"] == 17
    said = capsys.readouterr().out
    assert "captions: 2 clips have 5, 1 have 4, 1 have 3, 4 have 0" in said


# ---- labels ----------------------------------------------------------------------------------


def test_the_order_of_a_label_list_changes_nothing(model: Path, esc: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("dog\ncat\nclock_tick\n")
    (tmp_path / "b.txt").write_text("Clock tick\nDOG\ncat\n")
    one = measured(model, esc, tmp_path / "one", labels=str(tmp_path / "a.txt"))["zero_shot"]
    two = measured(model, esc, tmp_path / "two", labels=str(tmp_path / "b.txt"))["zero_shot"]
    assert one["accuracy"] == two["accuracy"]
    assert {k.lower(): v for k, v in two["per_class"].items()} == one["per_class"]


def test_a_label_list_of_another_data_set_is_refused(
    model: Path, esc: Path, tmp_path: Path
) -> None:
    (tmp_path / "other.csv").write_text("classID,class\n0,air_conditioner\n1,car_horn\n")
    with pytest.raises(DataError, match="which is not in the list"):
        measured(model, esc, tmp_path / "a", labels=str(tmp_path / "other.csv"))


def test_clips_with_several_labels(model: Path, several: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "ontology.txt").write_text("Music\nDog\nRain\nBell\nCar\nHeart murmur\n")
    labels = {"labels": str(tmp_path / "ontology.txt")}
    found = measured(model, several, tmp_path / "a", compat="vip_ant", **labels)
    kept = ["Dog", "Rain", "Bell", "Car"]
    assert found["data"]["labels"] == kept
    assert found["data"]["unused_labels"] == ["Music", "Heart murmur"]
    assert found["compat"]["score"] == "cosine" and "lower case" in found["compat"]["labels"]
    own = load(model)
    audio = embed.embed_audio(own, ShardFolder(several))
    words = embed.embed_texts(own, [name.lower() for name in kept], "the sound of")
    truth = [(0, 1), (1, 0), (3,), (2, 3, 0), (1,), ()]
    assert found["zero_shot"] == json.loads(json.dumps(zero_shot(audio, words, truth, kept)))
    assert found["zero_shot"]["unlabelled"] == 1 and found["zero_shot"]["n"] == 5
    said = capsys.readouterr().out
    assert "2 of 6 labels have no clip (Music, Heart murmur" in said and "mAP" in said
    with pytest.raises(DataError, match="several labels"):
        measured(model, several, tmp_path / "b", pool="per_fold")


def test_labels_that_are_ids_are_not_asked_for_in_words(
    model: Path, framed: Path, tmp_path: Path, capsys: Any
) -> None:
    write_wave(tmp_path / "s.wav", 1)
    lines = f"path,id,labels,captions\n{tmp_path}/s.wav,s,/m/09x0r,"
    (tmp_path / "a.csv").write_text(lines + "\n")
    (tmp_path / "b.csv").write_text(lines + "a dog\n")
    with pytest.raises(DataError, match="prepare the clips with --ontology"):
        measured(model, prepare(tmp_path / "a.csv", tmp_path / "a"), tmp_path / "one")
    found = measured(model, prepare(tmp_path / "b.csv", tmp_path / "b"), tmp_path / "two")
    assert "zero_shot" not in found and found["retrieval"]["clips"] == 1
    assert "/m/09x0r" in found["not_measured"]["zero_shot"]
    assert "no zero-shot classification" in capsys.readouterr().out


# ---- compat ----------------------------------------------------------------------------------


def test_compat_takes_texts_as_long_as_clip_makes_them(
    model: Path, esc: Path, tmp_path: Path
) -> None:
    found = measured(model, esc, tmp_path / "a", compat="vip_ant")
    assert found["compat"]["name"] == "vip_ant" and found["compat"]["score"] == "dot"
    assert set(found["compat"]) == {"name", "score", "zero_shot", "labels", "folds"}
    own, labels = load(model), sorted(name.replace("_", " ") for name in ESC)
    audio = embed.embed_audio(own, ShardFolder(esc))
    for key, prompt in (("zero_shot", "the sound of"), ("zero_shot_without_prompt", "")):
        raw = label_vectors(own, labels, prompt, "dot")
        assert np.abs(np.linalg.norm(raw, axis=1) - 1).max() > 0.01  # they are not unit vectors
        best = np.bincount((audio @ raw.T).argmax(axis=1), minlength=3)
        assert np.sum(found[key]["confusion"], axis=0).tolist() == best.tolist()


def test_compat_of_retrieval_by_label_set(
    model: Path, framed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pivot.evaluation.compat.FIRST_CLIPS", 5)
    found = measured(model, framed, tmp_path / "a", compat="vip_ant")
    assert found["image_audio"]["clips"] == 5 and found["retrieval"]["clips"] == 8
    assert {"label_sets", "image_audio", "audio_to_text", "caption_prompt"} <= set(found["compat"])
    assert measured(model, framed, tmp_path / "b")["image_audio"]["clips"] == 8


def test_rules() -> None:
    base = {"model": "m", "shards": "s", "out": "o"}
    here = rules_of(Evaluate(**base, compat="vip_ant"), True, None)
    assert here.label_set((2, 1)) != here.label_set((1, 2)) and here.first == 5184
    ours = rules_of(Evaluate(**base), True, None)
    assert ours.label_set((2, 1)) == ours.label_set((1, 2)) and not ours.label_set(())
    assert ours.words(["Child speech, kid"]) == ["Child speech, kid"] and ours.first is None
    audioset = rules_of(Evaluate(**base), True, "AudioSet")
    assert audioset.words(["Child speech, kid"]) == ["child speech, kid"]
    with pytest.raises(SettingsError, match="per_fold"):
        rules_of(Evaluate(**base, compat="vip_ant", pool="per_fold"), False, None)
    with pytest.raises(SettingsError, match="score dot"):
        rules_of(Evaluate(**base, compat="vip_ant", score="dot"), True, None)
    with pytest.raises(SettingsError, match="braces"):
        rules_of(Evaluate(**base, caption_prompt="{"), False, None)


# ---- models ----------------------------------------------------------------------------------


def test_kept_models_are_measured_as_each_would_be_alone(
    model: Path, framed: Path, tmp_path: Path, capsys: Any
) -> None:
    found = measured(model, framed, tmp_path / "a", checkpoints=True)
    rows = found["checkpoints"]
    assert [row["epoch"] for row in rows] == [1, 2, 10]
    for row in rows:
        name = model / "models" / f"epoch-{row['epoch']:04d}"
        alone = measured(name, framed, tmp_path / f"e{row['epoch']}", figures=False)
        assert alone["figures"] == [] and not list((tmp_path / f"e{row['epoch']}").glob("*.png"))
        assert row["zero_shot"] == alone["zero_shot"]["accuracy"]
        assert row["zero_shot_without_prompt"] == alone["zero_shot_without_prompt"]["accuracy"]
        for way in ("audio_to_text", "text_to_audio"):
            assert row["retrieval"][way].items() <= alone["retrieval"][way].items()
        assert row["geometry"] == alone["geometry"]
        assert row["image_audio"]["audio_by_labels"] == alone["image_audio"]["audio_by_labels"]
        assert row["pivotability"] == alone["pivotability"]["5"]
    assert rows[1]["zero_shot"] == found["zero_shot"]["accuracy"]
    best = found["best"]["text_to_audio_r1"]
    assert best["score"] == max(row["retrieval"]["text_to_audio"]["r1"] for row in rows)
    assert "optimistic" in found["best"]["chosen_on"]
    assert "3 kept models" in capsys.readouterr().out
    assert found["figures"] == ["per_class.png", "pivotability.png", "checkpoints.png"]
    assert all((tmp_path / "a" / name).read_bytes()[:4] == b"\x89PNG" for name in found["figures"])


def test_runs_without_kept_models_and_damaged_ones_are_named(
    model: Path, framed: Path, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="keep-epochs"):
        measured(toy.toy_model(tmp_path / "alone").parent, framed, tmp_path / "a", checkpoints=True)
    run = tmp_path / "run"
    load(model).save(run / "model")
    load(model).save(run / "models" / "epoch-0001")
    (run / "models" / "epoch-0001" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ModelError, match="damaged"):
        measured(run, framed, tmp_path / "b", checkpoints=True)


def test_more_frames_than_the_model_was_trained_with(
    model: Path, framed: Path, tmp_path: Path
) -> None:
    found = measured(model, framed, tmp_path / "a", num_frames=64)
    assert found["data"]["model"]["num_frames"] == 64
    longer = load(model, num_frames=64)
    audio = embed.embed_audio(longer, ShardFolder(framed))
    assert np.abs(audio - embed.embed_audio(load(model), ShardFolder(framed))).max() > 1e-3
    texts = [text for n in range(8) for text in ShardFolder(framed).captions(n)]
    scores = embed.embed_texts(longer, texts) @ audio.T
    own = np.repeat(np.arange(8), 2)
    hits = np.mean(scores.argmax(axis=1) == own)
    assert found["retrieval"]["text_to_audio"]["r1"] == pytest.approx(hits)


# ---- models with a text encoder of their own -------------------------------------------------


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """Run folders with and without a CLIP; the text encoder is not what its CLIP's is."""
    folder = tmp_path_factory.mktemp("clap")
    own = load(model)
    text = TextEncoder.start(TextSettings(kind="clip"), own.clip, own.dim, 1)
    with torch.no_grad():
        for weight in text.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    both = Pivot(own.clip, own.audio, own.front_end, text=text)
    both.save(folder / "both/model")
    Pivot(None, own.audio, own.front_end, text=text).save(folder / "alone/model")
    for epoch in (1, 2):
        both.save(folder / f"both/models/epoch-{epoch:04d}")
        with torch.no_grad():
            next(text.parameters()).mul_(1.5)
    return folder


def test_a_model_without_a_clip_is_measured_by_its_own_texts(
    clap: Path, framed: Path, tmp_path: Path
) -> None:
    found = measured(clap / "alone", framed, tmp_path / "a")
    assert "image_audio" not in found and "clip_image_zero_shot" not in found
    assert "pivotability" not in found and set(found["geometry"]["gap"]) == {"audio_text"}
    assert found["not_measured"] == {"image_audio": "the model has no CLIP, so no side for frames"}
    own, shards = load(clap / "alone"), ShardFolder(framed)
    about = found["data"]["model"]
    assert (about["clip_hash"], about["text_hash"]) == (None, own.text_hash)
    audio, labels = embed.embed_audio(own, shards), sorted(toy.KINDS)
    text = own.encode_text([f"the sound of {name}" for name in labels]).numpy()
    right = [labels[k] == shards.labels(n)[0] for n, k in enumerate((audio @ text.T).argmax(1))]
    assert found["zero_shot"]["accuracy"] == np.mean(right)
    texts = [caption for n in range(8) for caption in shards.captions(n)]
    hits = (own.encode_text(texts).numpy() @ audio.T).argmax(1) == np.repeat(np.arange(8), 2)
    assert found["retrieval"]["text_to_audio"]["r1"] == pytest.approx(hits.mean())
    closed = measured(clap / "alone", framed, tmp_path / "b", gap="centre")
    assert set(closed["gap"]["from"]) == {"audio", "captions", "labels", "labels_without_prompt"}
    both = measured(clap / "both", framed, tmp_path / "c")
    assert both["zero_shot"] == found["zero_shot"] and both["image_audio"]["clips"] == 8
    assert both["retrieval"] == found["retrieval"]


def test_kept_models_are_measured_by_the_texts_of_each(
    clap: Path, framed: Path, tmp_path: Path
) -> None:
    found = measured(clap / "both", framed, tmp_path / "a", checkpoints=True)
    rows = found["checkpoints"]
    assert rows[0]["text_hash"] != rows[1]["text_hash"]
    for row in rows:
        name = clap / f"both/models/epoch-{row['epoch']:04d}"
        alone = measured(name, framed, tmp_path / f"e{row['epoch']}", figures=False)
        assert row["geometry"] == alone["geometry"]
        assert row["zero_shot"] == alone["zero_shot"]["accuracy"]
    assert rows[0]["geometry"]["gap"] != rows[1]["geometry"]["gap"]


def test_what_a_model_without_a_clip_cannot_be_asked(
    clap: Path, framed: Path, tmp_path: Path
) -> None:
    store = {"what": "image", "data": str(framed), "out": str(tmp_path / "frames")}
    embed.run(Embed(**store, model=str(clap / "both")))
    for values, error, words in (
        ({"images": str(tmp_path / "frames")}, SettingsError, "has no CLIP, so no frames"),
        ({"score": "dot"}, SettingsError, "text encoder of its own"),
        ({"compat": "vip_ant"}, SettingsError, "text encoder of its own"),
    ):
        with pytest.raises(error, match=words):
            measured(clap / "alone", framed, tmp_path / "a", **values)
        assert not (tmp_path / "a").exists()
    (tmp_path / "list.csv").write_text("path,labels\ns.wav,/m/09x0r\n")
    write_wave(tmp_path / "s.wav", 1)
    (tmp_path / "captions.csv").write_text("id,caption\nother,a dog\n")
    shards = prepare(tmp_path / "list.csv", tmp_path / "s")
    with pytest.raises(DataError, match="prepare the clips with --ontology"):
        measured(clap / "alone", shards, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_search_uses_the_models_own_texts(clap: Path, framed: Path, tmp_path: Path) -> None:
    store = {"data": str(framed), "model": str(clap / "alone")}
    for what in ("audio", "text"):
        embed.run(Embed(what=what, out=str(tmp_path / what), **store))
    out = tmp_path / "found.json"
    job = {"model": str(clap / "alone"), "where": str(tmp_path / "audio"), "out": str(out)}
    assert search.run(Search(text="a dog", k=8, device="cpu", **job)) == 0
    own = load(clap / "alone")
    scores = (
        EmbeddingStore.open(tmp_path / "audio").float32()[:, 0]
        @ (own.encode_text(["a dog"]).numpy()[0])
    )
    names = [row["name"] for row in json.loads(out.read_text())["results"]]
    assert names == [f"clip{n}" for n in np.argsort(-scores, kind="stable")]
    sound = tmp_path / "s.wav"
    write_wave(sound, 1)
    job |= {"where": str(tmp_path / "text"), "model": str(clap / "both")}
    assert search.run(Search(text="", audio=str(sound), device="cpu", **job)) == 0
    with pytest.raises(StoreError, match="another encoder"):
        epoch = str(clap / "both/models/epoch-0002")
        search.run(Search(text="", audio=str(sound), device="cpu", **(job | {"model": epoch})))


# ---- damaged vectors, figures ----------------------------------------------------------------


def test_a_store_with_nan_gives_no_score(model: Path, framed: Path, tmp_path: Path) -> None:
    store = {"what": "image", "data": str(framed), "out": str(tmp_path / "frames")}
    embed.run(Embed(**store, model=str(model)))
    vectors = np.load(tmp_path / "frames" / "vectors.npy")
    vectors[3, 0, 5] = np.nan
    np.save(tmp_path / "frames" / "vectors.npy", vectors)
    with pytest.raises(StoreError, match="NaN or infinite values for 1 clips, such as clip3"):
        measured(model, framed, tmp_path / "a", images=str(tmp_path / "frames"))
    assert not (tmp_path / "a" / "results.json").exists()


def test_two_models_side_by_side(model: Path, esc: Path, framed: Path, tmp_path: Path) -> None:
    measured(model, esc, tmp_path / "one")
    measured(model, framed, tmp_path / "other-set")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "results.json").write_text('{"zero_shot": {}}')
    found = measured(model, esc, tmp_path / "two", beside=(str(tmp_path / "one"),))
    assert found["figures"] == ["per_class.png"]
    figure = plots.compare_classes(
        "two", found, plots.read_beside([str(tmp_path / "one" / "results.json")], "two")
    )
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["two", "one"]
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    drawn = sorted(found["zero_shot"]["per_class"].values(), reverse=True)
    assert widths == pytest.approx(drawn * 2)
    for name, words in (("bad", "no zero-shot classes"), ("none", "no zero-shot classes")):
        with pytest.raises(DataError, match=words):
            measured(model, esc, tmp_path / "three", beside=(str(tmp_path / name),))
    with pytest.raises(SettingsError, match="no-figures"):
        measured(model, esc, tmp_path / "x", beside=(str(tmp_path / "one"),), figures=False)
    with pytest.raises(DataError, match="called one"):
        plots.read_beside([str(tmp_path / "one")], "one")
    for other, labels, several, words in (
        ({"map": 0.1, "per_class": {"dog": 0.1}}, ["dog"], False, "another number"),
        ({"accuracy": 0.1, "per_class": {"dog": 0.1}}, ["dog"], True, "another number"),
        ({"accuracy": 0.1, "per_class": {"dog": 0.1}}, [], False, "another number"),
        ({"accuracy": 0.1, "per_class": {"siren": 0.1}}, ["dog"], False, "none of these classes"),
    ):
        with pytest.raises(DataError, match=words):
            plots.check_beside({"other": other}, labels, several)
    with pytest.raises(DataError, match="none of these classes"):
        (tmp_path / "siren").mkdir()
        strange = json.dumps({"zero_shot": {"accuracy": 0.1, "per_class": {"siren": 0.1}}})
        (tmp_path / "siren" / "results.json").write_text(strange)
        measured(model, esc, tmp_path / "four", beside=(str(tmp_path / "siren"),))
    assert not (tmp_path / "four").exists()


@pytest.mark.parametrize("classes, columns", [(1, 1), (24, 1), (25, 2), (180, 3)])
def test_long_lists_of_classes_go_into_columns(classes: int, columns: int) -> None:
    table = {f"class {n}": n / classes for n in range(classes)}
    figure = plots.classes_figure({"a": table, "b": {}}, "accuracy", 0.1)
    assert len(figure.axes) == columns
    drawn = [text.get_text() for ax in figure.axes for text in ax.get_yticklabels()]
    assert drawn == [f"class {n}" for n in reversed(range(classes))]
