"""Zero-shot and retrieval by hand and by brute force; `pivot evaluate` and its mistakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pivot import metrics
from pivot.embeddings import embed
from pivot.embeddings.store import as_stored
from pivot.errors import DataError, RunError, StoreError, UserError
from pivot.evaluation import evaluate
from pivot.evaluation.geometry import space_of
from pivot.evaluation.retrieval import (
    image_audio,
    pivot_shares,
    pivotability,
    pivotable,
    retrieval,
)
from pivot.evaluation.zero_shot import label_vectors, labels_of, zero_shot, zero_shot_accuracy
from pivot.model import Pivot, load
from pivot.settings import Embed, Evaluate
from tests import toy
from video_prep.shards import ShardFolder

EYE = np.eye(4, dtype=np.float32)


def unit(count: int, seed: int, dim: int = 12) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((count, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


# ---- zero-shot -------------------------------------------------------------------------------


def test_zero_shot_by_hand() -> None:
    audio = EYE[[0, 0, 1, 2, 3]]
    truth = [(0,), (1,), (1,), (2,), ()]
    found = zero_shot(audio, EYE[:3], truth, ["a", "b", "c"])
    assert found["accuracy"] == 0.75 and found["n"] == 4 and found["unlabelled"] == 1
    assert found["per_class"] == {"a": 1.0, "b": 0.5, "c": 1.0}
    assert found["chance"] == pytest.approx(1 / 3) and found["classes"] == 3
    assert found["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]


def _at_least(scores: np.ndarray, truth: np.ndarray) -> list[np.ndarray]:
    """For each true item the items that score no less: their share of true ones is averaged."""
    return [scores >= score for score in scores[truth]]


def test_zero_shot_of_several_labels_is_map() -> None:
    audio, text = unit(30, 1), unit(5, 2)
    truth = [tuple(np.flatnonzero(row)) for row in np.random.default_rng(3).random((30, 5)) < 0.4]
    found = zero_shot(audio, text, truth, list("abcde"))
    rows = [i for i, own in enumerate(truth) if own]
    table = np.array([[c in truth[i] for c in range(5)] for i in rows])
    scores = audio[rows] @ text.T
    expected = metrics.mean_average_precision(scores, table)
    assert found["map"] == pytest.approx(expected) and found["n"] == len(rows)
    one = [np.mean([table[better, c].mean() for better in _at_least(scores[:, c], table[:, c])])
           for c in range(5)]  # fmt: skip
    assert list(found["per_class"].values()) == pytest.approx(one)
    nearest = (audio[rows] @ text.T).argmax(axis=1)
    assert found["nearest_is_one"] == pytest.approx(table[np.arange(len(rows)), nearest].mean())
    assert "accuracy" not in found


def test_labels_without_clips_are_named() -> None:
    """One label a clip: they stay as wrong answers. Several: the mean is over the others."""
    audio = EYE[[0, 3, 2]]
    found = zero_shot(audio, EYE, [(0,), (0,), (2,)], list("abcd"))
    assert found["classes_without_clips"] == ["b", "d"] and found["classes"] == 4
    assert found["accuracy"] == pytest.approx(2 / 3) and found["chance"] == 0.25
    assert found["per_class"] == {"a": 0.5, "c": 1}
    found = zero_shot(EYE[[0, 2]], EYE, [(0, 2), (2,)], list("abcd"))
    # of a the first clip is best; of c the second, then the first: both right
    assert found["map"] == 1 and found["per_class"] == {"a": 1, "c": 1}
    assert found["classes_without_clips"] == ["b", "d"] and found["nearest_is_one"] == 1


def test_zero_shot_ties_go_to_the_first_label() -> None:
    found = zero_shot(EYE[[2]], EYE[:2], [(0,)], ["a", "b"])
    assert found["accuracy"] == 1


# ---- retrieval -------------------------------------------------------------------------------


def test_retrieval_by_hand() -> None:
    audio = EYE[:3]
    text = np.array([[0.9, 0.1, 0, 0], [0, 0.2, 0.9, 0], [0, 0.8, 0, 0.1], [0.5, 0, 0.6, 0]])
    owners = [0, 0, 1, 2]  # clip 0 has two captions
    found = retrieval(audio, text.astype(np.float32), owners)
    # audio 0 ranks its captions 0 and 3-1: best 0; audio 1 finds caption 2 first; audio 2 scores
    # captions .9 (1) and .6 (3): rank 1
    assert found["audio_to_text"]["r1"] == pytest.approx(2 / 3)
    assert found["audio_to_text"]["r5"] == 1 and found["audio_to_text"]["medr"] == 1
    # captions 0, 2, 3 find their clip first; caption 1 prefers clips 2 and 1
    assert found["text_to_audio"]["r1"] == 0.75 and found["text_to_audio"]["queries"] == 4
    assert found["map10"] == pytest.approx((1 + 1 / 3 + 1 + 1) / 4)
    assert found["clips"] == 3 and found["captions"] == 4


def test_five_captions_by_brute_force() -> None:
    """Every detail of the reference's retrieval_eval, by sorting lists: ties of equal captions."""
    clips, texts = 60, 300
    audio, text = unit(clips, 5, 4), unit(texts, 6, 4)
    owners = [i // 5 for i in range(texts)]
    text[7] = text[250]  # the same sentence for two clips: the lower index stands first
    found = retrieval(audio, text, owners)
    scores = (audio.astype(np.float64) @ text.astype(np.float64).T).astype(np.float32)
    best, gold_in_5, mean_ap = [], [], []
    for i in range(clips):
        order = sorted(range(texts), key=lambda j, i=i: (-scores[i, j], j))
        places = sorted(order.index(j) for j in range(texts) if owners[j] == i)
        best.append(places[0])
        gold_in_5.append(sum(place < 5 for place in places) / 5)
        mean_ap.append(sum((n + 1) / (p + 1) for n, p in enumerate(places) if p < 10) / 5)
    to_text = found["audio_to_text"]
    assert to_text["queries"] == clips
    for k in (1, 5, 10, 50):
        assert to_text[f"r{k}"] == pytest.approx(sum(rank < k for rank in best) / clips)
    assert to_text["medr"] == sorted(best)[(clips - 1) // 2] + 1
    assert to_text["meanr"] == pytest.approx(sum(best) / clips + 1)
    assert to_text["map10"] == pytest.approx(sum(mean_ap) / clips)
    assert to_text["precision_at_5"] == pytest.approx(sum(gold_in_5) / clips)
    assert to_text["precision_at_1"] == to_text["r1"]
    ranks = []
    for j in range(texts):
        order = sorted(range(clips), key=lambda i, j=j: (-scores[i, j], i))
        ranks.append(order.index(owners[j]))
    to_audio = found["text_to_audio"]
    assert to_audio["queries"] == texts
    for k in (1, 5, 10, 50):
        assert to_audio[f"r{k}"] == pytest.approx(sum(rank < k for rank in ranks) / texts)
    assert to_audio["medr"] == sorted(ranks)[(texts - 1) // 2] + 1
    assert to_audio["meanr"] == pytest.approx(sum(ranks) / texts + 1)
    expected = sum(1 / (rank + 1) for rank in ranks if rank < 10) / texts
    assert found["map10"] == pytest.approx(expected) == to_audio["map10"]


def test_retrieval_golden(goldens: Path) -> None:
    data = np.load(goldens / "distill" / "salsa.npz")
    audio, text = data["metrics/audio"], data["metrics/text"]
    audio, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (audio, text))
    found = retrieval(audio, text, data["metrics/gt_audio_of_caption"].tolist())
    for k in (1, 5, 10):
        golden = float(data[f"metrics/R{k}"])
        assert found["text_to_audio"][f"r{k}"] == pytest.approx(golden, abs=1e-6)
    assert found["map10"] == pytest.approx(float(data["metrics/mAP10"]), abs=1e-6)


def test_salsas_numbers_from_its_similarities(goldens: Path) -> None:
    """mAP@10 with one relevant sound a caption: 1 / rank where that is at most 10, else 0."""
    data = np.load(goldens / "distill" / "salsa.npz")
    gold = data["metrics/gt_audio_of_caption"]
    rows = metrics.relevant_ranks(data["metrics/sim_caption_by_audio"], [[int(i)] for i in gold])
    assert metrics.map_at_10(rows) == pytest.approx(float(data["metrics/mAP10"]), abs=1e-7)
    best = np.concatenate(rows) + 1
    assert metrics.map_at_10(rows) == pytest.approx(np.mean(np.where(best <= 10, 1 / best, 0)))
    for k in (1, 5, 10):
        golden = float(data[f"metrics/R{k}"])
        assert metrics.recall_at(best - 1, k) == pytest.approx(golden, abs=1e-7)


def test_retrieval_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    audio, text = unit(20, 1), unit(100, 2)
    owners = np.random.default_rng(4).integers(0, 18, 100).tolist()  # 18, 19 have no caption
    whole = retrieval(audio, text, owners)
    monkeypatch.setattr("pivot.evaluation.retrieval.BLOCK_SCORES", 150)
    assert retrieval(audio, text, owners) == whole
    assert whole["audio_to_text"]["queries"] == len(set(owners))
    relevant = [[c] for c in owners]
    ranks = metrics.ranks(text @ audio.T, relevant)
    assert whole["text_to_audio"]["meanr"] == pytest.approx(ranks.mean() + 1)


def test_image_audio_and_pivotability_by_hand() -> None:
    found = image_audio(EYE, EYE[[0, 1, 3, 2]], ["x", "x", "y", "z"])
    assert found["image_to_audio"]["r1"] == 0.5 and found["audio_to_image"]["r5"] == 1
    assert found["image_by_labels"]["precision"] == 0.5
    assert found["audio_by_labels"]["recall"] == pytest.approx((0.5 + 0.5) / 4)
    text = np.repeat(EYE, 5, axis=0)  # five captions of each clip, all where its image is
    owners = np.repeat(np.arange(4), 5).tolist()
    reached = pivotability(EYE[[0, 1, 3, 2]], EYE, text, owners)
    assert reached["1"] == 0.5 and reached["5"] == 1
    assert list(reached) == [str(k) for k in (*range(1, 11), 15, 20, 30, 50)]


def test_pivotability_by_brute_force() -> None:
    clips, owners = 12, [i for i in range(12) for _ in range(5)]
    audio, image, text = unit(clips, 1, 4), unit(clips, 2, 4), unit(60, 3, 4)
    shares = pivot_shares(audio, image, text, owners)
    for k in (1, 3, 5, 10):
        for clip in range(clips):
            images = sorted(range(clips), key=lambda i, c=clip: -(audio[c] @ image[i]))[:k]
            reached = {
                j
                for i in images
                for j in sorted(range(60), key=lambda j, i=i: -(image[i] @ text[j]))[:5]
            }
            own = {j for j in range(60) if owners[j] == clip}
            assert shares[k][clip] == len(reached & own) / 5
    assert pivotability(audio, image, text, owners)["3"] == shares[3].mean()
    counted = pivotable({5: np.array([0.2, 0.6, 3 / 5, 0.8, 0.59]), 6: np.array([1.0] * 5)})
    assert counted["count"] == {"5": 3, "6": 5} and counted["share"] == {"5": 0.6, "6": 1}
    assert counted["clips"] == 5 and counted["at_least"] == 0.6


def test_clips_without_labels_are_not_alike() -> None:
    """An empty label set says nothing: such a clip is neither asked nor a candidate."""
    images, sounds = EYE[[0, 1, 2, 3]], EYE[[0, 1, 3, 2]]
    found = image_audio(images, sounds, ["x", "x", "", ""])
    assert found["labelled"] == 2 and found["clips"] == 4
    assert found["image_by_labels"]["precision"] == 1
    assert found["image_by_labels"] == image_audio(EYE[:2], EYE[:2], ["x", "x"])["image_by_labels"]
    assert found["image_to_audio"]["r1"] == 0.5  # plain retrieval is among all
    assert "image_by_labels" not in image_audio(EYE, EYE, [(), (), (), ()])


def test_label_sets_against_loops() -> None:
    """Spec 7.4: the partner is a candidate and right; means over clips and over label sets."""
    image, audio = unit(40, 8, 5), unit(40, 9, 5)
    sets = [("a", "b", "a b", "c")[n % 7 % 4] for n in range(40)]
    found = image_audio(image, audio, sets)["audio_by_labels"]
    hits, recalls = [], []
    for i in range(40):
        nearest = max(range(40), key=lambda j, i=i: audio[i] @ image[j])
        hits.append(float(sets[nearest] == sets[i]))
        recalls.append(hits[-1] / sets.count(sets[i]))
    assert found["precision"] == pytest.approx(np.mean(hits))
    assert found["recall"] == pytest.approx(np.mean(recalls))
    for key, values in (("group_precision", hits), ("group_recall", recalls)):
        groups = [np.mean([values[i] for i in range(40) if sets[i] == s]) for s in set(sets)]
        assert found[key] == pytest.approx(np.mean(groups))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: zero_shot(EYE, EYE, [(0,)], list("abcd")), "4 sounds for 1 truths"),
        (lambda: zero_shot(EYE, EYE, [()] * 4, list("abcd")), "no clip has a label"),
        (lambda: retrieval(EYE, EYE, [0, 1]), "4 caption vectors for 2"),
        (lambda: retrieval(EYE, EYE, [0, 1, 2, 4]), "belongs to clip 4"),
        (lambda: retrieval(EYE * np.nan, EYE, [0, 1, 2, 3]), "NaN"),
        (lambda: image_audio(EYE, EYE[:2]), "not of the same clips"),
        (lambda: image_audio(EYE, EYE, ["x"]), "1 label sets for 4"),
        (lambda: image_audio(EYE, EYE * np.nan), "NaN"),
        (lambda: zero_shot(EYE * np.nan, EYE, [(0,)] * 4, list("abcd")), "not finite"),
        (lambda: zero_shot(EYE, EYE, [(0,), (4,), (1,), (1,)], list("abcd")), "of class 4"),
        (lambda: pivot_shares(EYE, EYE * np.nan, EYE, [0, 1, 2, 3]), "not finite"),
    ],
)
def test_bad_arrays_are_named(call: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        call()


# ---- pivot evaluate --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    toy.toy_shards(folder / "shards", clips=9)
    toy.toy_model(folder)
    images = {"what": "image", "data": str(folder / "shards"), "out": str(folder / "frames")}
    embed.run(Embed(**images, model=str(folder / "model")))
    return folder


@pytest.fixture(scope="module")
def model(world: Path) -> Pivot:
    return load(world / "model")


def settings(world: Path, out: Path, **values: Any) -> Evaluate:
    common = {"model": str(world / "model"), "shards": str(world / "shards"), "out": str(out)}
    return Evaluate(**(common | {"device": "cpu"} | values))


def results_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text())


def test_everything_is_measured_and_recorded(
    world: Path, tmp_path: Path, model: Pivot, capsys: Any
) -> None:
    assert evaluate.run(settings(world, tmp_path / "a", images=str(world / "frames"))) == 0
    found, shards = results_of(tmp_path / "a"), ShardFolder(world / "shards")
    labels = ["bell", "car", "cat", "dog"]
    assert found["data"]["labels"] == labels == labels_of(shards)
    expected = zero_shot_accuracy(model, shards, labels, "the sound of")
    assert found["zero_shot"] == json.loads(json.dumps(expected))
    audio = embed.embed_audio(model, shards)
    images = as_stored(embed.embed_frame(shards, model.clip, 0))
    captions = [text for i in range(9) for text in shards.captions(i)]
    text = embed.embed_texts(model.clip, captions)
    owners = np.repeat(np.arange(9), 2).tolist()
    assert found["retrieval"] == retrieval(audio, text, owners)
    assert found["retrieval_clip_image"] == retrieval(images, text, owners)
    assert found["pivotability"] == pivotability(audio, images, text, owners)
    assert found["image_audio"]["clips"] == 9 and "image_by_labels" in found["image_audio"]
    assert found["clip_image_zero_shot"]["n"] == 9
    assert found["command"] == "evaluate" and found["settings"]["prompt"] == "the sound of"
    assert found["data"]["shards"]["fingerprint"] == shards.fingerprint
    assert found["data"]["model"]["audio_hash"] == model.audio_hash and found["versions"]
    said = capsys.readouterr().out
    assert "zero-shot accuracy in %" in said and "Oracle: text to image" in said
    assert found["pivotable"] == pivotable(pivot_shares(audio, images, text, owners))
    assert found["dataset"]["name"] is None and found["dataset"]["measured"] == 9
    assert found["captions_per_clip"] == {"2": 9} and found["compat"]["name"] == "none"
    bare = zero_shot_accuracy(model, shards, labels, "")
    assert found["zero_shot_without_prompt"] == json.loads(json.dumps(bare))
    assert found["geometry"] == space_of(audio, images, text, owners)
    assert "folds" not in found and found["figures"] == ["per_class.png", "pivotability.png"]
    # without a store the frames are encoded on the way, to the same numbers
    assert evaluate.run(settings(world, tmp_path / "b")) == 0
    for key in ("zero_shot", "clip_image_zero_shot", "retrieval", "image_audio", "pivotability"):
        assert results_of(tmp_path / "b")[key] == found[key]


def test_label_lists_captions_files_and_dot(world: Path, tmp_path: Path, model: Pivot) -> None:
    (tmp_path / "labels.csv").write_text(
        "index,mid,display_name\n0,x,Dog\n1,y,Cat\n2,z,Bell\n3,w,Car\n"
    )
    (tmp_path / "c.csv").write_text(
        "file_name,caption_1,caption_2\nclip0.wav,a dog,dog\nno.wav,x,y\n"
    )
    job = settings(
        world, tmp_path / "a", score="dot", prompt="",
        labels=str(tmp_path / "labels.csv"), captions=str(tmp_path / "c.csv"),
    )  # fmt: skip
    assert evaluate.run(job) == 0
    found = results_of(tmp_path / "a")
    assert found["data"]["captions"]["count"] == 2 and found["data"]["captions"]["left_out"] == 2
    assert found["retrieval"]["clips"] == 1
    labels = ["Dog", "Cat", "Bell", "Car"]
    with torch.no_grad():
        raw = model.clip.model.encode_text(model.clip.tokenize(labels)).numpy()
    np.testing.assert_allclose(label_vectors(model.clip, labels, "", "dot"), raw, atol=1e-5)
    assert (
        found["zero_shot"]["confusion"]
        == zero_shot(
            embed.embed_audio(model, ShardFolder(world / "shards")),
            raw,
            [(i % 4,) for i in range(9)],
            labels,
        )["confusion"]
    )


def test_an_interrupted_evaluation_is_done_again_and_a_finished_one_kept(
    world: Path, tmp_path: Path
) -> None:
    job = settings(world, tmp_path / "a")
    assert evaluate.run(job) == 0
    first = results_of(tmp_path / "a")
    with pytest.raises(RunError, match="in use"):
        evaluate.run(job)
    (tmp_path / "a" / "results.json").unlink()
    assert evaluate.run(job) == 0
    assert results_of(tmp_path / "a")["zero_shot"] == first["zero_shot"]


def test_mistakes_are_named_before_anything_is_written(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "labels.txt").write_text("dog\ncat\nbell\n")
    (tmp_path / "twice.json").write_text('{"dog": 0, "Dog": 1}')
    (tmp_path / "c.csv").write_text("id,caption\nelsewhere,a dog\n")
    toy.toy_shards(tmp_path / "others", clips=3, first=20)
    images = {"what": "image", "data": str(tmp_path / "others"), "out": str(tmp_path / "frames")}
    embed.run(Embed(**images, model=str(world / "model")))
    cases: list[tuple[dict[str, Any], type[UserError], str]] = [
        ({"labels": str(tmp_path / "labels.txt")}, DataError, 'clip clip3 has the label "car"'),
        ({"labels": str(tmp_path / "none.txt")}, DataError, "does not exist"),
        ({"captions": str(tmp_path / "c.csv")}, DataError, "belongs to a clip"),
        ({"images": str(tmp_path / "frames")}, StoreError, "stale"),
        ({"images": str(world / "shards")}, StoreError, "not an embedding store"),
        ({"model": str(tmp_path / "none")}, UserError, "no model"),
        ({"shards": str(tmp_path / "none")}, UserError, "not a folder"),
        ({"prompt": "{} {}"}, UserError, "braces"),
    ]
    for values, error, words in cases:
        with pytest.raises(error, match=words):
            evaluate.run(settings(world, out, **values))
        assert not (out / "results.json").exists()
        shutil.rmtree(out, ignore_errors=True)


def test_sounds_alone_without_labels_cannot_be_measured(world: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    toy.toy_shards(bare, clips=3, frames=0)
    assert evaluate.run(settings(world, tmp_path / "a", shards=str(bare))) == 0
    found = results_of(tmp_path / "a")
    assert "image_audio" not in found and "pivotability" not in found and "zero_shot" in found
