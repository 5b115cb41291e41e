"""LAION-CLAP's protocols: its retrieval numbers and prompt, linear probes, supervised training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from pivot import metrics
from pivot.audio.frontend import make_front_end
from pivot.audio.views import pack, unpack
from pivot.classification import folds as parts
from pivot.classification.classifier import load_classifier
from pivot.classification.command import prepare, run
from pivot.classification.head import Head, classification_loss
from pivot.classification.labels import Labelled, metric_of
from pivot.classification.measure import measured
from pivot.classification.mixup import FirstFrames, mixed_inputs
from pivot.embeddings import embed
from pivot.encoders import build_audio
from pivot.encoders.projection import ProjectedAudio
from pivot.errors import DataError, ModelError, SettingsError
from pivot.evaluation import evaluate, search
from pivot.evaluation.retrieval import label_ranks, retrieval
from pivot.evaluation.windows import embed_measured
from pivot.model import Pivot, load
from pivot.settings import AdamSettings, Embed, Evaluate, LossSettings, Search
from pivot.settings.parts import HearsSettings, ProjectionSettings
from pivot.training.fit import fit
from tests import toy
from tests.test_classifier import labelled_shards, read, settings_of
from tests.test_encoder_trainings import SMALL
from video_prep.shards import ShardFolder

# ---- retrieval ------------------------------------------------------------------------------


def vectors(clips: int = 12, seed: int = 3) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Sounds, five captions of each that lie near them, and whose they are."""
    rng = np.random.default_rng(seed)
    audio = rng.standard_normal((clips, 8))
    text = np.repeat(audio, 5, axis=0) + 1.2 * rng.standard_normal((5 * clips, 8))
    audio, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (audio, text))
    return audio.astype(np.float32), text.astype(np.float32), np.repeat(range(clips), 5).tolist()


def test_map_in_the_order_of_the_captions() -> None:
    assert metrics.laion_map_at_10([[0, 1, 2, 3, 4]]) == 1
    assert metrics.laion_map_at_10([[4, 3, 2, 1, 0]]) == pytest.approx(8.7 / 5)  # no more is there
    # found at ranks 9 and 1 from 1, as first and second; the other three beyond ten
    assert metrics.laion_map_at_10([[30, 8, 10, 0, 99]]) == pytest.approx((1 / 9 + 2 / 1) / 5)
    assert metrics.map_at_10([[30, 8, 10, 0, 99]]) == pytest.approx((1 / 1 + 2 / 9) / 5)
    assert metrics.laion_map_at_10([[2], [10]]) == metrics.map_at_10([[2], [10]])  # one caption
    rng = np.random.default_rng(1)
    for _ in range(50):
        row = rng.permutation(20)[:5]
        assert metrics.laion_map_at_10([row]) >= metrics.map_at_10([row]) - 1e-12
    with pytest.raises(DataError, match="no ranks"):
        metrics.laion_map_at_10([])


def test_median_rank_is_the_floor_of_the_middle() -> None:
    assert metrics.laion_median_rank([0, 1, 4, 9, 10, 200]) == 7  # floor(6.5) + 1
    assert metrics.median_rank([0, 1, 4, 9, 10, 200]) == 5
    assert metrics.laion_median_rank([2, 0, 7]) == 3 == metrics.median_rank([2, 0, 7])


def test_retrieval_by_sorting_everything() -> None:
    """Five captions a sound, ranks by argsort, as the spec of LAION-CLAP's evaluation reads."""
    audio, text, owners = vectors()
    found = retrieval(audio, text, owners, "laion")
    scores = audio @ text.T
    ranks = np.empty(scores.shape, int)
    for row, order in zip(ranks, np.argsort(-scores, axis=1, kind="stable"), strict=True):
        row[order] = np.arange(len(order))
    of_clip = np.array([ranks[i, 5 * i : 5 * i + 5] for i in range(len(audio))])
    total = 0.0
    for row in of_clip:
        kept = row[row < 10]
        total += sum(j / (rank + 1) for j, rank in enumerate(kept, 1)) / 5
    to_text, best = found["audio_to_text"], of_clip.min(1)
    assert to_text["map10"] == pytest.approx(total / len(audio))
    assert to_text["medr"] == math.floor(np.median(best)) + 1
    assert to_text["meanr"] == pytest.approx(best.mean() + 1)
    assert to_text["r5"] == np.mean(best < 5)
    back = np.array([(scores[:, j] > scores[own, j]).sum() for j, own in enumerate(owners)])
    to_audio = found["text_to_audio"]
    assert to_audio["queries"] == 60 and to_audio["r1"] == np.mean(back < 1)
    assert to_audio["map10"] == pytest.approx(np.mean(np.where(back < 10, 1 / (back + 1), 0)))
    assert to_audio["medr"] == math.floor(np.median(back)) + 1
    usual = retrieval(audio, text, owners)
    assert usual["audio_to_text"]["map10"] == pytest.approx(metrics.map_at_10(list(of_clip)))
    assert usual["audio_to_text"]["map10"] < to_text["map10"]
    same = ("r1", "r5", "r10", "r50", "meanr", "queries", "precision_at_5")
    assert all(usual["audio_to_text"][key] == to_text[key] for key in same)


def test_a_perfect_result_scores_more_than_one() -> None:
    """Its five captions stand first, but not in the order in which they are written."""
    audio = np.eye(4, 9, dtype=np.float32)
    near = np.array([0.5, 0.9, 0.7, 0.8, 0.6])
    text = np.zeros((20, 9), np.float32)
    for j in range(20):
        text[j, j // 5], text[j, 8] = near[j % 5], (1 - near[j % 5] ** 2) ** 0.5
    owners = [j // 5 for j in range(20)]
    # 0.9 stands first, the others after it: ranks 5, 1, 3, 2, 4 as the captions are written
    expected = (1 / 5 + 2 / 1 + 3 / 3 + 4 / 2 + 5 / 4) / 5
    laion = retrieval(audio, text, owners, "laion")["audio_to_text"]
    assert laion["map10"] == pytest.approx(expected) and expected > 1
    assert retrieval(audio, text, owners)["audio_to_text"]["map10"] == 1


def test_ranks_of_labels() -> None:
    words = np.eye(4, dtype=np.float32)
    audio = np.array([[0.9, 0.1, 0, 0], [0.5, 0.4, 0.3, 0], [0, 0, 0, 1]], np.float32)
    found = label_ranks(audio, words, [(0,), (2,), ()])
    assert found["r1"] == 0.5 and found["r5"] == 1 and found["queries"] == 2
    assert found["medr"] == 2 and found["meanr"] == 2  # ranks 1 and 3: floor of 1 (from 0), + 1
    assert found["map10"] == pytest.approx((1 + 1 / 3) / 2)


# ---- pivot evaluate --compat laion ----------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model, labelled shards in three folds, and captions of five of their clips."""
    folder = tmp_path_factory.mktemp("world")
    toy.toy_model(folder)
    labelled_shards(folder / "shards", 24)
    rows = [
        {"id": f"clip{i}", "caption": f"{kind} {'abcde'[j]}"}
        for i, kind in enumerate(("dog", "cat", "bell", "car", "tone"))
        for j in range(5)
    ]
    (folder / "five.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_evaluate_as_laion(world: Path, tmp_path: Path, capsys: Any) -> None:
    base = {"model": str(world / "model"), "shards": str(world / "shards"), "device": "cpu"}
    base |= {"captions": str(world / "five.jsonl"), "figures": False}
    found = {}
    for name in ("laion", "none"):
        assert evaluate.run(Evaluate(**base, out=str(tmp_path / name), compat=name)) == 0
        found[name] = read(tmp_path / name)
    laion, usual = found["laion"], found["none"]
    assert laion["settings"]["prompt"] == "This is a sound of {}."
    assert usual["settings"]["prompt"] == "the sound of" and "ranks" not in usual["zero_shot"]
    said = {"name", "score", "zero_shot", "labels", "ranks", "folds"}
    assert set(laion["compat"]) == said | {"audio_to_text", "text_to_audio", "median"}
    model, shards = load(world / "model"), ShardFolder(world / "shards")
    assert laion["zero_shot"]["ranks"]["r1"] == laion["zero_shot"]["accuracy"]
    labels = [f"This is a sound of {kind}." for kind in ("bell", "car", "cat", "dog")]
    words = embed.embed_texts(model, labels)
    audio = embed.embed_audio(model, shards)
    answers = ["bell car cat dog".split().index(shards.labels(i)[0]) for i in range(24)]
    assert laion["zero_shot"]["accuracy"] == np.mean((audio @ words.T).argmax(1) == answers)
    lines = (world / "five.jsonl").read_text().splitlines()
    text = embed.embed_texts(model, [json.loads(line)["caption"] for line in lines])
    owners = np.repeat(range(5), 5).tolist()
    for name in ("laion", "none"):
        assert found[name]["retrieval"] == retrieval(audio[:5], text, owners, name)
    printed = capsys.readouterr().out
    assert '"This is a sound of {}."' in printed and printed.count("as LAION-CLAP's code") == 1


def test_what_does_not_go_with_laion() -> None:
    base = {"model": "m", "shards": "s", "out": "o", "compat": "laion"}
    assert Evaluate(**base, prompt="a sound of").prompt == "a sound of"
    assert Evaluate(**base, prompt="").prompt == ""
    with pytest.raises(ValueError, match="leave out --score dot and --compat"):
        Evaluate(**base, gap="centre")
    with pytest.raises(SettingsError, match="--compat laion takes the cosine"):
        evaluate.rules_of(Evaluate(**base, score="dot"), False, None)
    audioset = evaluate.rules_of(Evaluate(**base), True, "AudioSet")
    assert audioset.words(["Speech", "Dog bark"]) == ["Speech", "Dog bark"]


# ---- area under the ROC ---------------------------------------------------------------------


def test_area_by_counting_pairs() -> None:
    rng = np.random.default_rng([4, 2])
    for levels in (3, 1000):
        scores, truth = rng.integers(0, levels, (40, 3)) / levels, rng.random((40, 3)) < 0.4
        areas = []
        for c in range(3):
            true, other = scores[truth[:, c], c], scores[~truth[:, c], c]
            wins = (true[:, None] > other).mean() + (true[:, None] == other).mean() / 2
            assert metrics.roc_auc(scores[:, c], truth[:, c]) == pytest.approx(wins)
            areas.append(wins)
        assert metrics.mean_roc_auc(scores, truth) == pytest.approx(np.mean(areas))
    assert metrics.roc_auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == 0.75
    assert metrics.roc_auc([1, 1, 1], [0, 1, 0]) == 0.5
    assert math.isnan(metrics.roc_auc([1, 2], [1, 1]))
    table = [[0.9, 0.1], [0.2, 0.3]]
    assert metrics.mean_roc_auc(table, [[1, 0], [0, 0]]) == 1  # the second class has no true item
    with pytest.raises(DataError, match="no class has both"):
        metrics.mean_roc_auc(table, [[1, 0], [1, 0]])


def test_metrics_that_are_asked_for() -> None:
    logits = np.array([[3, 1, 0], [2, 1, 0], [0, 1, 2], [5, 0, 1]], np.float32)
    one = [(0,), (1,), (2,), (0,)]
    usual = measured(logits, one, ["a", "b", "c"], "cross_entropy")
    assert "mauc" not in usual and "map" not in usual
    found = measured(logits, one, ["a", "b", "c"], "cross_entropy", "mauc")
    # a: 5 and 3 over 2 and 0; b: its 1 ties with two of three others, and beats one; c: 2 over all
    assert found["mauc"] == pytest.approx((1 + (1 + 2 / 2) / 3 + 1) / 3)
    assert {k: v for k, v in found.items() if k != "mauc"} == usual
    found = measured(logits, one, ["a", "b", "c"], "mse", "accuracy")
    assert found["accuracy"] == 0.75 and found["confusion"] == usual["confusion"]
    several = measured(logits, [(0,), (0, 2), (2,), (2,)], ["a", "b", "c"], "bce", "mauc")
    assert {"map", "mauc", "per_class"} <= set(several) and "accuracy" not in several


# ---- heads and losses -----------------------------------------------------------------------


def test_mlp_head_by_hand() -> None:
    head = Head("mlp", 16, 3, "bce", LossSettings(), 7)
    assert {n: tuple(p.shape) for n, p in head.named_parameters()} == {
        "first.weight": (1024, 16), "first.bias": (1024,),
        "linear.weight": (3, 1024), "linear.bias": (3,),
    }  # fmt: skip
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    hidden = (x @ head.first.weight.T + head.first.bias).clamp(min=0)
    expected = hidden @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(head.eval()(x), expected)
    torch.manual_seed(3)
    dropped = head.train()(x)
    torch.manual_seed(3)
    kept = torch.nn.functional.dropout(hidden, 0.1)
    torch.testing.assert_close(dropped, kept @ head.linear.weight.T + head.linear.bias)
    assert head.first.weight.abs().max() <= 1 / 4 and head.linear.weight.abs().max() <= 1 / 32
    plain = Head("linear", 16, 3, "bce", LossSettings(), 7)
    assert not any(isinstance(m, torch.nn.Dropout) for m in plain.modules())


def test_squared_error_by_hand() -> None:
    logits = torch.tensor([[0.5, 2.0], [-1.0, 1.0]])
    targets = torch.tensor([[0.0, 1.0], [0.25, 0.75]])
    expected = (0.25 + 1 + 1.25**2 + 0.0625) / 4
    assert classification_loss(logits, targets, "mse").item() == pytest.approx(expected)


def test_the_metric_follows_the_labels(tmp_path: Path) -> None:
    many = {2: {"labels": ["dog", "bell"]}}
    paths = labelled_shards(tmp_path / "a", 4), labelled_shards(tmp_path / "b", 4, facts=many)
    one, several = (Labelled.of(ShardFolder(path), list(toy.KINDS)) for path in paths)
    assert metric_of("auto", "cross_entropy", one) == metric_of("auto", "mse", one) == "accuracy"
    assert metric_of("auto", "bce", one) == metric_of("auto", "mse", one, several) == "map"
    assert metric_of("mauc", "bce", several) == "mauc"
    with pytest.raises(SettingsError, match=r"clip clip2 of .*has several labels, so there is no"):
        metric_of("accuracy", "bce", one, several)


# ---- mixing what the encoder sees -----------------------------------------------------------


def test_mixed_inputs_by_hand() -> None:
    a, b = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    shares = torch.tensor([0.25, 1.0, 0.5])
    found = mixed_inputs(a, b, shares)
    for i, share in enumerate(shares):
        torch.testing.assert_close(found[i], share * a[i] + (1 - share) * b[i])
    own = pack(a[:, None], torch.tensor([[1.0], [0.3], [0.2]]))
    other = pack(b[:, None], torch.tensor([[0.5], [1.0], [0.6]]))
    views, heard = unpack(mixed_inputs(own, other, shares))
    torch.testing.assert_close(views[:, 0], found)
    torch.testing.assert_close(heard[:, 0], torch.tensor([1.0, 0.3, 0.6]))  # the second is alone


def test_each_clip_is_mixed_with_the_one_at_the_mirrored_place(world: Path, tmp_path: Path) -> None:
    """Masked first; each with a share of its own; the same in any number of processes."""
    values: dict[str, Any] = {"mixup": 0.6, "mixup_of": "spectrogram", "mixup_beta": 0.5, "seed": 5}
    values |= {"mask": toy.MASK, "batch_size": 5}
    job, splits = prepare(settings_of(world, tmp_path, **values))
    plain, _ = prepare(settings_of(world, tmp_path, **values | {"mixup": 0.0}))
    batches, alone = job.batches(splits[0]), plain.batches(splits[0])
    drawn = []
    for m in range(batches.per_epoch):
        own, found = alone[m], batches[m]
        shares = batches.mix.mirrored(0, batches.order(m)[2])
        drawn += shares.tolist()
        for i, share in enumerate(shares.tolist()):
            for name in ("fbank", "targets"):
                mixed = share * getattr(own, name)[i] + (1 - share) * getattr(own, name).flip(0)[i]
                torch.testing.assert_close(getattr(found, name)[i], mixed)
        split = [batches.part(m, rank, 3) for rank in range(3)]
        for name in ("fbank", "targets"):
            assert torch.cat([getattr(p, name) for p in split]).equal(getattr(found, name))
    assert 0 < drawn.count(1.0) < len(drawn) and any(0 < share < 1 for share in drawn)


def test_mixed_waveforms_of_log_mel_keep_their_mean(world: Path, tmp_path: Path) -> None:
    encoder, audio = SMALL["passt"]
    settings = settings_of(world, tmp_path, model="", encoder=encoder, audio=audio, mixup=1.0)
    job, splits = prepare(settings)
    batches, shards = job.batches(splits[0]), job.data.shards
    _, positions, keys = batches.order(0)
    mix = batches.mix(0, int(keys[0]))
    assert mix is not None
    waves = [shards.sound(batches.clips[i])[0][0] / 32768 for i in (positions[0], mix.partner)]
    from video_prep.decoding.sound import resample

    first, second = (resample(wave[None].astype(np.float32), 8000, 32000) for wave in waves)
    partner = np.zeros_like(first)
    size = min(first.shape[1], second.shape[1])
    partner[:, :size] = second[:, :size]
    both = mix.share * first + (1 - mix.share) * partner
    rng = np.random.default_rng([settings.seed, 4102, 0, int(keys[0])])
    wanted = job.model.front_end(both.astype(np.float32), 32000, rng)
    torch.testing.assert_close(batches[0].fbank[0], wanted, atol=1e-3, rtol=1e-4)


# ---- official splits ------------------------------------------------------------------------


def named(path: Path, names: dict[int, str], clips: int = 16) -> Labelled:
    """Labelled clips without folds, whose list names their splits."""
    facts = {i: {"split": name} for i, name in names.items()}
    return Labelled.of(
        ShardFolder(labelled_shards(path, clips, None, facts=facts)), list(toy.KINDS)
    )


def test_the_lists_own_parts(tmp_path: Path) -> None:
    names = {i: ("train", "train", "val", "test")[i // 4] for i in range(16)}
    data = named(tmp_path / "all", names)
    assert parts.has_test_part(data) and parts.validation_part(data) == [8, 9, 10, 11]
    found = parts.own_split(data, "split", 1)
    assert (found.fold, found.train, found.validation, found.test) == (
        None, list(range(8)), list(range(8, 12)), list(range(12, 16))
    )  # fmt: skip
    share = parts.own_split(data, 0.25, 1)
    assert share.test == found.test and not set(share.train + share.validation) & set(share.test)
    assert len(share.validation) == 4
    dev = named(tmp_path / "dev", dict.fromkeys((0, 5, 10, 15), "val"))
    assert not parts.has_test_part(dev)
    split = parts.test_split(dev, data, "split", 1)
    assert split.validation == [0, 5, 10, 15] and len(split.train) == 12
    with pytest.raises(DataError, match=r"no clip of .* is of a split called val or valid or"):
        parts.test_split(named(tmp_path / "none", {}), data, "split", 1)
    lacks = named(tmp_path / "lacks", dict.fromkeys(range(0, 16, 4), "test"))  # every dog
    with pytest.raises(DataError, match="the test part has 1 classes of which no clip is left"):
        parts.own_split(lacks, 0.0, 1)


def test_only_one_part_is_measured(world: Path, tmp_path: Path, capsys: Any) -> None:
    named(tmp_path / "shards", {i: ("train", "test")[i % 4 // 2] for i in range(16)})
    base = {"model": str(world / "model"), "shards": str(tmp_path / "shards"), "device": "cpu"}
    base |= {"out": str(tmp_path / "out"), "figures": False}
    assert evaluate.run(Evaluate(**base, split="test")) == 0
    found = read(tmp_path / "out")
    assert found["zero_shot"]["n"] == 8 and found["zero_shot"]["classes"] == 4
    assert found["zero_shot"]["classes_without_clips"] == ["cat", "dog"]
    assert (found["dataset"]["present"], found["dataset"]["measured"]) == (16, 8)
    assert found["dataset"]["split"] == "test"
    assert "8 of 16 clips, those of its split test" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"--split eval: no clip .*; the splits there: test, train"):
        evaluate.run(Evaluate(**base, split="eval"))


def test_training_on_the_lists_own_parts(world: Path, tmp_path: Path, capsys: Any) -> None:
    names = {i: ("train", "train", "val", "test")[i // 4 % 4] for i in range(32)}
    named(tmp_path / "shards", names, 32)
    values = {"shards": str(tmp_path / "shards"), "epochs": 2, "metric": "mauc", "target": "bce"}
    assert run(settings_of(world, tmp_path / "out", validation="split", **values)) == 0
    results = read(tmp_path / "out")
    assert results["data"]["splits"] == [{"fold": None, "train": 16, "validation": 8, "test": 8}]
    assert results["mauc"] == results["mean"] and 0 <= results["map"] <= 1
    assert results["deviation"] is None and results["chosen_on"] == "validation"
    assert results["model"]["metric"] == "mauc"
    captured = capsys.readouterr()
    assert "mAUC" in captured.out and "--validation split" not in captured.err
    assert run(settings_of(world, tmp_path / "share", **values)) == 0
    assert "8 clips of" in (said := capsys.readouterr().err) and "set --validation split" in said
    vip_ant = settings_of(world, tmp_path / "test", compat="vip_ant", **values | {"target": "auto"})
    assert run(vip_ant) == 0
    results = read(tmp_path / "test")
    assert results["chosen_on"] == "test clips (compat vip_ant)"
    assert "best_of_each_fold" not in results


# ---- what the head sees, and what trains ----------------------------------------------------


def projected(world: Path, folder: Path) -> Path:
    """The model of `world` with an MLP behind its sounds; its space has 16 numbers."""
    model = load(world / "model")
    settings = ProjectionSettings(kind="mlp", dim=16)
    Pivot(model.clip, ProjectedAudio.of(model.audio, settings, 3), model.front_end).save(folder)
    return folder


@pytest.mark.parametrize("features", ["projected", "encoder"])
def test_linear_probe(world: Path, tmp_path: Path, features: str) -> None:
    """The head alone trains, on the features as they are; the encoder stays as it was."""
    model = projected(world, tmp_path / "model")
    settings = settings_of(
        world, tmp_path / "out", model=str(model), features=features, head="mlp", last_layers=0,
        folds=(1,), epochs=3, optim=AdamSettings(lr=1e-4), warmup_epochs=0,
    )  # fmt: skip
    assert run(settings) == 0
    results = read(tmp_path / "out")
    assert results["trained_parameters"]["encoder"]["trained"] == 0
    found, start = load_classifier(tmp_path / "out"), load(model)
    assert found.features == features and found.model.audio_hash == start.audio_hash
    waves = [(toy.tone("dog", 3, 0.3), 8000), (toy.tone("car", 4, 0.3), 8000)]
    x = torch.stack([start.fbank(wave) for wave in waves])
    source = start.audio if features == "projected" else start.audio.encoder
    with torch.no_grad():
        raw = source.eval()(x)
        expected = found.head(raw)
    assert (raw.norm(dim=1) - 1).abs().max() > 1e-3
    np.testing.assert_allclose(found.logits(waves), expected.numpy(), rtol=1e-4, atol=1e-5)
    about = json.loads((tmp_path / "out" / "model" / "classifier.json").read_text())
    assert about.get("features", "projected") == features and about["head"] == "mlp"


@pytest.mark.parametrize(
    ("features", "last"), [("projected", 1), ("encoder", 1), ("encoder", "all")]
)
def test_the_projection_trains_where_the_head_sees_it(
    world: Path, tmp_path: Path, features: str, last: Any
) -> None:
    model = projected(world, tmp_path / "model")
    settings = settings_of(
        world, tmp_path / "out", model=str(model), features=features, last_layers=last,
        max_steps=2, warmup_epochs=0,
    )  # fmt: skip
    job, splits = prepare(settings)
    task = job.task(splits[0])
    before = {name: value.clone() for name, value in task.state_dict().items()}
    fit(task, job.batches(splits[0]), settings)
    moved = {name for name, value in task.state_dict().items() if not value.equal(before[name])}
    projection = {name for name in before if name.startswith("encoder.projection")}
    assert bool(moved & projection) == (features == "projected")
    assert ("encoder.encoder.conv1.weight" in moved) == (last == "all")
    assert "encoder.encoder.proj" in moved and "head.linear.weight" in moved
    assert task.train().encoder.projection.training == (features == "projected")


def test_a_rate_for_the_encoder(world: Path, tmp_path: Path) -> None:
    """Adam's first step is as long as its rate."""
    rates = {}
    for factor in (1.0, 0.1):
        settings = settings_of(world, tmp_path, encoder_rate=factor, max_steps=1, warmup_epochs=0)
        job, splits = prepare(settings)
        task = job.task(splits[0])
        before = {name: value.clone() for name, value in task.named_parameters()}
        rates[factor] = fit(task, job.batches(splits[0]), settings).peak_rates
        moved = {n: float((p - before[n]).detach().abs().max()) for n, p in task.named_parameters()}
        assert moved["encoder.ln_post.bias"] == pytest.approx(3e-3 * factor, rel=1e-2)
        assert moved["head.linear.bias"] == pytest.approx(3e-3, rel=1e-2)
    assert rates[1.0] == {"weights": 3e-3, "biases": 3e-3}
    assert sorted(rates[0.1].values()) == pytest.approx([3e-4, 3e-4, 3e-3, 3e-3])


# ---- every kind of encoder ------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SMALL, "passt windows"])
def test_classifier_of_every_kind(name: str, world: Path, tmp_path: Path) -> None:
    """Fresh, with its own front end; its last block trains; saved, loaded and asked."""
    encoder, audio = SMALL[name.removesuffix(" windows")]
    if name.endswith("windows"):
        audio = audio | {"windows": 2}
    settings = settings_of(
        world, tmp_path / "out", model="", encoder=encoder, audio=audio, last_layers=1,
        clip={"model": str(world / "clip")} if name == "vit" else {}, head="linear",
        folds=(1,), max_steps=2, epochs=1, warmup_epochs=0, mixup=0.5, mixup_of="spectrogram",
        mask=toy.MASK,
    )  # fmt: skip
    job, splits = prepare(settings)
    batch = job.batches(splits[0])[0]
    assert batch.fbank.shape[1:] == job.model.front_end.shape
    assert batch.fbank.ndim == (4 if name.split()[-1] in ("windows", "fused") else 3)
    task = job.task(splits[0])
    before, blocks, after = task.encoder.layers()
    trains = {id(p) for module in (*blocks[-1:], *after) for p in module.parameters()}
    for parameter in task.encoder.parameters():
        assert parameter.requires_grad == (id(parameter) in trains)
    assert not any(module.training for part in before for module in task.train().modules()
                   if module is part)  # fmt: skip
    assert trains and len(trains) < len(list(task.encoder.parameters()))
    assert run(settings) == 0
    found = load_classifier(tmp_path / "out")
    assert (found.model.clip is None) == (name != "vit")
    waves = [(toy.tone("dog", 3, 0.3), 8000), (toy.tone("car", 4, 1.3), 8000)]
    scores = found.predict(waves)
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(found.predict(waves[1:])[0], scores[1], rtol=1e-6)
    again = settings.model_copy(update={"model": str(tmp_path / "out"), "out": str(tmp_path / "b")})
    assert prepare(again)[0].model.audio_hash == found.model.audio_hash


def test_running_statistics_of_a_probe_stand_still(world: Path, tmp_path: Path) -> None:
    encoder, audio = SMALL["mobilenet"]
    settings = settings_of(
        world, tmp_path, model="", encoder=encoder, audio=audio, last_layers=0, max_steps=2
    )
    job, splits = prepare(settings)
    task = job.task(splits[0])
    before = {name: value.clone() for name, value in task.encoder.state_dict().items()}
    fit(task, job.batches(splits[0]), settings)
    assert all(value.equal(before[name]) for name, value in task.encoder.state_dict().items())


def test_first_frames_are_of_fbank(world: Path, tmp_path: Path) -> None:
    encoder, audio = SMALL["passt"]
    settings = settings_of(
        world, tmp_path / "out", model="", encoder=encoder, audio=audio, target="bce",
        compat="vip_ant",
    )  # fmt: skip
    with pytest.raises(SettingsError, match="--compat vip_ant hears FBANK, and the model's audio"):
        run(settings)
    assert not (tmp_path / "out").exists()
    assert isinstance(FirstFrames.of(load(world / "model").front_end), FirstFrames)


# ---- models of sounds alone, and windows of log-mel -----------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PaSST without CLIP and text."""
    folder = tmp_path_factory.mktemp("alone") / "model"
    encoder, audio = SMALL["passt"]
    settings = HearsSettings(encoder=encoder, audio=audio)
    own = build_audio(None, settings.encoder, settings.audio, 3)
    Pivot(None, own, make_front_end(settings.audio)).save(folder)
    return folder


def test_a_model_that_knows_no_text(world: Path, alone: Path, tmp_path: Path) -> None:
    base = {"model": str(alone), "shards": str(world / "shards"), "device": "cpu"}
    out = tmp_path / "out"
    asked = Search(model=str(alone), text="a dog", where=str(world / "shards"), device="cpu")
    text = Embed(what="text", data=str(world / "five.jsonl"), out=str(out), model=str(alone))
    for call in (
        lambda: evaluate.run(Evaluate(**base, out=str(out))),
        lambda: search.run(asked),
        lambda: embed.run(text),
    ):
        with pytest.raises(ModelError, match="knows no text; train it with captions") as found:
            call()
        assert "\n" not in str(found.value)
    assert not out.exists()
    assert embed.embed_audio(load(alone), ShardFolder(world / "shards")).shape == (24, 32)


def test_a_sound_is_searched_with_a_model_that_knows_no_text(
    world: Path, alone: Path, tmp_path: Path
) -> None:
    import soundfile

    for i, kind in enumerate(toy.KINDS):
        soundfile.write(tmp_path / f"{kind}.wav", toy.tone(kind, i, 0.3), 8000)
    settings = Search(
        model=str(alone), text="", audio=str(tmp_path / "cat.wav"), where=str(tmp_path),
        out=str(tmp_path / "found.json"), device="cpu",
    )  # fmt: skip
    assert search.run(settings) == 0
    rows = json.loads((tmp_path / "found.json").read_text())["results"]
    assert rows[0]["name"].endswith("cat.wav") and rows[0]["score"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", ["passt", "htsat fused"])
def test_mean_of_windows_of_log_mel(kind: str, world: Path) -> None:
    """Windows as long as the encoder's, each embedded by itself, then averaged."""
    encoder, audio = SMALL[kind]
    settings = HearsSettings(encoder=encoder, audio=audio)
    own = build_audio(None, settings.encoder, settings.audio, 3).eval()
    model, shards = Pivot(None, own, make_front_end(settings.audio)), ShardFolder(world / "shards")
    asked = Evaluate(model="m", shards="s", out="o", crop="mean", batch_size=3)
    found = embed_measured(asked, model, shards.only([0, 1, 5]))
    rate = settings.audio.sample_rate
    size = math.ceil(model.front_end.window_samples(rate) / rate * 8000)
    for place, clip in enumerate((0, 1, 5)):
        wave, _ = shards.sound(clip)
        n = wave.shape[1]
        count = max(1, -(-n // size))
        starts = np.linspace(0, max(n - size, 0), count).round().astype(int)
        pieces = [(wave[:, s : s + size], 8000) for s in starts]
        expected = normalize(model.encode_audio(pieces).mean(0), dim=0)
        np.testing.assert_allclose(found[place], expected, atol=1e-6)
        assert count == (2 if clip in (0, 5) else 1)
