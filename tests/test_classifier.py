"""Supervised classification: head, weights, mixup, folds, what trains, the command."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F

from pivot.classification.batches import ClassBatches, ClassOrder, weighted_draws
from pivot.classification.classifier import load_classifier
from pivot.classification.command import prepare, run
from pivot.classification.folds import fold_splits, stratified
from pivot.classification.head import Head, classification_loss, train_last
from pivot.classification.labels import Labelled, clip_weights, target_of, targets
from pivot.classification.measure import measured
from pivot.classification.mixup import FirstFrames, MixRule, mixed, one_channel
from pivot.classification.results import at_common_epoch, combined, per_fold, summary
from pivot.classification.split import train_split
from pivot.data import measure
from pivot.errors import DataError, ModelError, SettingsError
from pivot.model import load
from pivot.settings import (
    AdamSettings,
    AudioSettings,
    LarsSettings,
    LossSettings,
    MaskSettings,
    MeasureFbank,
    MuonSettings,
    TrainClassifier,
)
from pivot.training.fit import fit
from tests.toy import AUDIO, KINDS, MASK, tone, toy_model
from video_prep.shards import FORMAT, ShardFolder, content_fingerprint
from video_prep.storage.shard_writer import write_shard

NO_MASK = MaskSettings(time=0, freq=0)


def labelled_shards(
    path: Path,
    clips: int = 48,
    folds: int | None = 3,
    first: int = 0,
    facts: dict[int, dict[str, Any]] | None = None,
    long: int = 5,
) -> Path:
    """Toy tones with a label and a fold each, (number // kinds) % folds + 1; `facts` overrides."""
    path.mkdir(parents=True)
    kinds = list(KINDS)
    with write_shard(path, 0, "plan") as shard:
        for number in range(first, first + clips):
            sound = io.BytesIO()
            wave = tone(kinds[number % len(kinds)], number, 0.6 if number % long == 0 else 0.33)
            soundfile.write(sound, wave, 8000, format="FLAC")
            about: dict[str, Any] = {
                "id": f"clip{number}",
                "labels": [kinds[number % len(kinds)]],
                "captions": [],
            }
            if folds:
                about["fold"] = number // len(kinds) % folds + 1
            about |= (facts or {}).get(number, {})
            members = {"flac": sound.getvalue(), "json": json.dumps(about).encode()}
            shard.add({"id": about["id"], "key": about["id"], "flags": []}, members)
    index = json.loads((path / "shard-00000.json").read_text())
    manifest = {
        "format": FORMAT,
        "plan": "plan",
        "num_frames": 0,
        "fingerprint": content_fingerprint([index["sha256"]]),
        "shards": [{"name": "shard-00000", "sha256": index["sha256"], "clips": clips}],
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    measure.run(MeasureFbank(shards=str(path), audio=AUDIO))
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained model and labelled shards in three folds."""
    folder = tmp_path_factory.mktemp("classes")
    toy_model(folder)
    labelled_shards(folder / "shards")
    return folder


def settings_of(world: Path, out: Path, **more: Any) -> TrainClassifier:
    """Settings that learn the tones in seconds."""
    values: dict[str, Any] = {
        "out": str(out),
        "shards": str(world / "shards"),
        "model": str(world / "model"),
        "batch_size": 8,
        "epochs": 6,
        "optim": AdamSettings(lr=3e-3),
        "mask": NO_MASK,
        "validation": 0.25,
        "precision": "fp32",
        "device": "cpu",
        "log_every": 1,
    }
    return TrainClassifier(**values | more)


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


# ---- head and losses ------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["cross_entropy", "bce"])
def test_steps_are_those_of_plain_torch(world: Path, tmp_path: Path, target: str) -> None:
    """Five steps with Adam against LayerNorm, Linear, scale and loss written out with torch."""
    settings = settings_of(
        world, tmp_path / "run", target=target, max_steps=5, optim=AdamSettings(lr=1e-3),
        mask=MASK, epochs=2, warmup_epochs=0.5,
    )  # fmt: skip
    job, splits = prepare(settings)
    task, batches = job.task(splits[0]), job.batches(splits[0])
    encoder = job.task(splits[0]).encoder
    norm, linear = torch.nn.LayerNorm(16), torch.nn.Linear(16, 4, bias=target != "bce")
    linear.load_state_dict(task.head.linear.state_dict())
    scale = torch.nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))
    params = [*encoder.parameters(), *norm.parameters(), *linear.parameters(), scale]
    groups = [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": 1e-7},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.Adam(groups, lr=1e-3, betas=(0.9, 0.999))
    expected = []
    for step in range(5):
        cosine = (1 + np.cos(np.pi * (step - 1) / 4)) / 2  # after a warm-up of int(3 / 2) steps
        share = cosine + 0.001 * (1 - cosine) if step else 0.0
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * share
        batch = batches[step]
        logits = scale.exp() * linear(norm(encoder(batch.fbank)))
        if target == "bce":
            p = torch.sigmoid(logits)
            loss = -(batch.targets * p.log() + (1 - batch.targets) * (1 - p).log()).mean()
        else:
            loss = F.nll_loss(logits.log_softmax(1), batch.targets.argmax(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    fitted = fit(task, batches, settings)
    np.testing.assert_allclose([row["loss"] for row in fitted.rows], expected, rtol=2e-5)
    np.testing.assert_allclose(task.head.scale().item(), scale.exp().item(), rtol=1e-5)
    np.testing.assert_allclose(task.head.linear.weight.detach(), linear.weight.detach(), atol=2e-6)


def test_head_by_kind() -> None:
    norm = Head("norm", 512, 10, "cross_entropy", LossSettings(), 7)
    assert {n: tuple(p.shape) for n, p in norm.named_parameters()} == {
        "norm.weight": (512,), "norm.bias": (512,), "linear.weight": (10, 512),
        "linear.bias": (10,), "scale.log_scale": (),
    }  # fmt: skip
    assert norm.scale is not None
    assert norm.scale().item() == pytest.approx(1 / 0.07)
    assert Head("norm", 512, 10, "bce", LossSettings(), 7).linear.bias is None
    plain = Head("linear", 512, 10, "bce", LossSettings(), 7)
    assert [name for name, _ in plain.named_parameters()] == ["linear.weight", "linear.bias"]
    x = 5 * torch.randn(3, 512, generator=torch.Generator().manual_seed(0)) + 1
    torch.testing.assert_close(plain(x), x @ plain.linear.weight.T + plain.linear.bias)
    centred = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    expected = (centred @ norm.linear.weight.T + norm.linear.bias) / 0.07
    torch.testing.assert_close(norm(x), expected, rtol=1e-5, atol=1e-5)
    again, other = (Head("linear", 512, 10, "bce", LossSettings(), 7, fold) for fold in (0, 1))
    assert torch.equal(again.linear.weight, plain.linear.weight)
    assert not torch.equal(other.linear.weight, plain.linear.weight)
    assert plain.linear.weight.abs().max() <= 512**-0.5


def test_losses_by_hand() -> None:
    logits = torch.tensor([[0.0, np.log(3.0)], [np.log(3.0), 0.0]], dtype=torch.float32)
    targets = torch.tensor([[0.0, 1.0], [0.25, 0.75]])
    cross = (-np.log(3 / 4) - 0.25 * np.log(3 / 4) - 0.75 * np.log(1 / 4)) / 2
    assert classification_loss(logits, targets, "cross_entropy").item() == pytest.approx(cross)
    terms = [np.log(2), -np.log(3 / 4), -0.25 * np.log(3 / 4) - 0.75 * np.log(1 / 4), np.log(2)]
    assert classification_loss(logits, targets, "bce").item() == pytest.approx(np.mean(terms))


# ---- what trains ----------------------------------------------------------------------------

LAST = {"ln_post.weight", "ln_post.bias", "proj"}


@pytest.mark.parametrize("last", [0, 1, 2, "all"])
def test_only_the_last_layers_move(world: Path, tmp_path: Path, last: Any) -> None:
    settings = settings_of(world, tmp_path, last_layers=last, max_steps=3, warmup_epochs=0)
    job, splits = prepare(settings)
    task = job.task(splits[0])
    before = {name: value.clone() for name, value in task.state_dict().items()}
    fit(task, job.batches(splits[0]), settings)
    moved = {name for name, value in task.state_dict().items() if not value.equal(before[name])}
    encoder = {name for name, _ in task.encoder.named_parameters()}
    wanted = encoder if last == "all" else set()
    if last in (1, 2):
        first = 2 - last
        wanted = LAST | {
            name for name in encoder
            if name.startswith("transformer.resblocks.") and int(name.split(".")[2]) >= first
        }  # fmt: skip
    head = {f"head.{name}" for name, _ in task.head.named_parameters()}
    assert moved == {f"encoder.{name}" for name in wanted} | head
    for name, parameter in task.encoder.named_parameters():
        assert (parameter.grad is not None) == (name in wanted), name


def test_frozen_parts_are_in_eval_mode(world: Path, tmp_path: Path) -> None:
    job, splits = prepare(settings_of(world, tmp_path, last_layers=1))
    task = job.task(splits[0]).train()
    blocks = task.encoder.transformer.resblocks
    assert task.training and task.head.training and blocks[1].training
    assert task.encoder.ln_post.training
    assert not any(m.training for m in [*blocks[0].modules(), task.encoder.conv1])
    with pytest.raises(SettingsError, match="--last-layers 3 is more than the encoder's 2 blocks"):
        train_last(task.encoder, 3)


def test_unequal_parts_of_processes_weigh_as_their_clips(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of the losses of three processes' parts, one of them empty, is the whole loss."""
    job, splits = prepare(settings_of(world, tmp_path))
    task, batches = job.task(splits[0]), job.batches(splits[0])
    whole = batches[0]
    task.loss(whole).backward()
    gradient = task.head.linear.weight.grad.clone()
    monkeypatch.setattr("pivot.classification.task.mean_of_processes", lambda x: x * 0 + 8 / 3)
    task.zero_grad()
    for rows in ([0, 1, 2, 3, 4], [5, 6, 7], []):
        part = type(whole)(*(values[rows] for values in whole))
        (task.loss(part) / 3).backward()
    torch.testing.assert_close(task.head.linear.weight.grad, gradient, rtol=1e-5, atol=1e-6)


# ---- labels and weights ---------------------------------------------------------------------


def test_weights_by_hand() -> None:
    classes = [(0,), (0,), (0, 1), (1,), (0, 2)]
    rare = 1000 / 5, 1000 / 3, 1000 / 2  # counts 4, 2, 1
    rows = [rare[0], rare[0], rare[0] + rare[1], rare[1], rare[0] + rare[2]]
    np.testing.assert_allclose(clip_weights(classes), rows, rtol=1e-12)


def test_balanced_draws_follow_the_weights() -> None:
    weights = np.array([1.0, 3.0] + [0.0] * 398)
    drawn = np.concatenate([weighted_draws(5, epoch, weights) for epoch in range(10)])
    assert drawn.shape == (4000,) and set(drawn.tolist()) == {0, 1}
    assert abs(np.mean(drawn) - 0.75) < 0.03
    assert not np.array_equal(weighted_draws(5, 0, weights), weighted_draws(5, 1, weights))
    order = ClassOrder(400, 64, 5, weights)
    assert order.per_epoch == 7
    batches = [order(m) for m in range(7, 14)]
    assert {epoch for epoch, _, _ in batches} == {1}
    assert np.array_equal(np.concatenate([p for _, p, _ in batches]), weighted_draws(5, 1, weights))
    assert np.array_equal(np.concatenate([k for _, _, k in batches]), np.arange(400))


def test_an_epoch_has_each_clip_once() -> None:
    order = ClassOrder(21, 4, 3)
    assert order.per_epoch == 6  # the last batch has one clip, and is kept
    found = [order(m) for m in range(6)]
    assert sorted(np.concatenate([p for _, p, _ in found]).tolist()) == list(range(21))
    assert all(np.array_equal(p, k) for _, p, k in found)
    with pytest.raises(DataError, match="3 training clips are fewer than --batch-size 4"):
        ClassOrder(3, 4, 3)


def test_target_follows_the_labels(tmp_path: Path) -> None:
    one = labelled_shards(tmp_path / "one", 4)
    many = labelled_shards(tmp_path / "many", 4, facts={2: {"labels": ["dog", "bell"]}})
    data = [Labelled.of(ShardFolder(path), list(KINDS)) for path in (one, many)]
    assert target_of("auto", data[0]) == "cross_entropy"
    assert target_of("bce", data[0]) == "bce"
    assert target_of("auto", *data) == "bce"
    with pytest.raises(DataError, match=r"clip clip2 of .*many has 2 labels"):
        target_of("cross_entropy", *data)
    assert targets(data[1].classes, 4).tolist()[2] == [1, 0, 1, 0]
    assert target_of("auto", data[1]) == "bce"


# ---- mixup ----------------------------------------------------------------------------------


def test_mixture_by_hand() -> None:
    first = np.array([[1.0, -1.0, 2.0, -2.0]], np.float32)
    longer = np.array([[4.0, 0.0, -4.0, 8.0, -8.0]], np.float32)
    whole = 0.25 * first + 0.75 * longer[:, :4]
    np.testing.assert_allclose(mixed(first, longer, 0.25), whole - whole.mean(), rtol=1e-6)
    shorter = np.array([[2.0, -2.0]], np.float32)
    whole = 0.25 * first + 0.75 * np.array([[2.0, -2.0, 0.0, 0.0]])
    np.testing.assert_allclose(mixed(first, shorter, 0.25), whole - whole.mean(), rtol=1e-6)


def test_one_channel_comes_before_its_mean() -> None:
    wave = np.array([[100, 300], [5000, 9000]], np.int16)
    native = AudioSettings(sample_rate="native")
    found, rate = one_channel(wave, 8000, native)
    np.testing.assert_allclose(found, [[-100 / 32768, 100 / 32768]], rtol=1e-6)
    assert rate == 8000
    mean = native.model_copy(update={"channel": "mean"})
    np.testing.assert_allclose(one_channel(wave, 8000, mean)[0] * 32768, [[-1050, 1050]], rtol=1e-6)
    long = np.tile(wave, 4000)
    assert one_channel(long, 8000, native, 16000)[0].shape == (1, 16000)


def test_mixtures_are_drawn_from_seed_epoch_and_clip() -> None:
    rule = MixRule(0.5, 10.0, 30, 3)
    drawn = [rule(epoch, key) for epoch in range(100) for key in range(30)]
    found = [mix for mix in drawn if mix is not None]
    assert abs(len(found) / len(drawn) - 0.5) < 0.03
    shares = np.array([mix.share for mix in found])
    assert abs(shares.mean() - 0.5) < 0.01
    assert abs(shares.var() - 1 / 84) < 0.001  # of Beta(10, 10): 1 / (4 * 21)
    assert {mix.partner for mix in found} == set(range(30))
    assert rule(4, 7) == MixRule(0.5, 10.0, 30, 3)(4, 7)
    assert any(rule(4, key) != rule(5, key) for key in range(9))
    assert MixRule(0.0, 10.0, 30, 3)(0, 0) is None


def test_mixed_batches(world: Path, tmp_path: Path) -> None:
    """FBANK of the mixed waveforms and mixed labels, computed again from the sounds."""
    settings = settings_of(world, tmp_path, mixup=0.5, seed=5)
    job, splits = prepare(settings)
    batches = job.batches(splits[0])
    shards, front_end = job.data.shards, job.model.front_end
    seen = {"mixed": 0, "alone": 0}
    for m in range(batches.per_epoch):
        _, positions, keys = batches.order(m)
        batch = batches[m]
        for row, (position, key) in enumerate(zip(positions, keys, strict=True)):
            mix = batches.mix(0, int(key))
            waves, labels = [], []
            for place in [int(position)] + ([mix.partner] if mix else []):
                wave, rate = shards.sound(batches.clips[place])
                own = wave[0].astype(np.float64) / 32768
                waves.append(own - own.mean())
                labels.append(np.eye(4)[batches.classes[place][0]])
            if mix is None:
                seen["alone"] += 1
                np.testing.assert_array_equal(batch.targets[row], labels[0])
                continue
            seen["mixed"] += 1
            partner = np.resize(np.append(waves[1], np.zeros(len(waves[0]))), len(waves[0]))
            both = mix.share * waves[0] + (1 - mix.share) * partner
            target = mix.share * labels[0] + (1 - mix.share) * labels[1]
            np.testing.assert_allclose(batch.targets[row], target, rtol=1e-6)
            if front_end.needs_crop(len(both), rate):
                continue  # its window is drawn
            wanted = front_end(both[None].astype(np.float32), rate)
            np.testing.assert_allclose(batch.fbank[row], wanted, atol=2e-3)
    assert min(seen.values()) > 5
    again = job.batches(splits[0])
    assert all(a.equal(b) for a, b in zip(batches[1], again[1], strict=True))
    parts = [batches.part(1, rank, 3) for rank in range(3)]
    for name in ("fbank", "targets"):
        assert torch.cat([getattr(part, name) for part in parts]).equal(getattr(batches[1], name))


def test_first_frames_are_the_references() -> None:
    """Channel 0, then its mean; the first frames; zeros before normalising (raw_zero)."""
    from torchaudio.compliance import kaldi

    from pivot.audio.frontend import Norm

    settings = AudioSettings(num_frames=50, num_mel_bins=32, sample_rate="native", pad="raw_zero")
    front_end = FirstFrames(settings, Norm(mean=-4.0, std=5.0, source="test"))
    rng = np.random.default_rng(4)
    for samples in (9000, 4000):
        wave = rng.integers(-9000, 9000, (2, samples)).astype(np.int16) + np.int16(500)
        own = torch.from_numpy(wave[:1].astype(np.float32) / 32768)
        rows = kaldi.fbank(
            own - own.mean(), sample_frequency=8000, htk_compat=True, use_energy=False,
            window_type="hanning", num_mel_bins=32, dither=0.0, frame_shift=10,
        )[:50]  # fmt: skip
        padded = torch.cat([rows, torch.zeros(50 - len(rows), 32)])
        torch.testing.assert_close(
            front_end(wave, 8000), (padded + 4.0) / 5.0, rtol=1e-4, atol=1e-3
        )
    assert not front_end.needs_crop(10**9, 8000)


# ---- folds ----------------------------------------------------------------------------------


def test_folds_test_each_clip_once(world: Path) -> None:
    data = Labelled.of(ShardFolder(world / "shards"), sorted(KINDS))
    splits = fold_splits(data, (), 0.25, 9)
    assert [split.fold for split in splits] == [1, 2, 3]
    assert sorted(i for split in splits for i in split.test) == list(range(48))
    for split in splits:
        everything = [*split.train, *split.validation, *split.test]
        assert sorted(everything) == list(range(48))
        counts = np.bincount([data.classes[i][0] for i in split.validation])
        assert counts.tolist() == [2, 2, 2, 2]  # a quarter of the 8 clips of each class
    again, other = (fold_splits(data, (2,), 0.25, seed)[0] for seed in (9, 10))
    assert again == splits[1] and other.validation != again.validation
    assert [s.validation for s in fold_splits(data, (), 0.0, 9)] == [[], [], []]


def test_stratified_counts_the_rarest_label() -> None:
    classes = [(0,)] * 20 + [(0, 1)] * 4 + [(2,)] * 2 + [(3,)]
    drawn = stratified(classes, 0.25, np.random.default_rng(1))
    assert [sum(drawn[:20]), sum(drawn[20:24]), sum(drawn[24:26]), sum(drawn[26:])] == [5, 1, 1, 0]


def row(epoch: int, accuracy: float) -> dict[str, Any]:
    right = round(accuracy * 10)
    table = [[right, 10 - right], [0, 10]]
    return {"epoch": epoch, "accuracy": accuracy, "n": 20, "per_class": {}, "confusion": table}


def test_statistics_of_folds_by_hand() -> None:
    facts = {"training": {"training_seconds": 1.5}}
    folds = [{"fold": f, **row(3, a), **facts} for f, a in ((1, 0.9), (2, 0.6), (3, 0.6))]
    found = combined(folds, "accuracy", ["a", "b"])
    assert found["mean"] == found["accuracy"] == pytest.approx(0.7)
    assert found["deviation"] == pytest.approx(np.sqrt(0.02))  # of the population: / 3
    assert found["per_class"] == {"a": pytest.approx(21 / 30), "b": 1.0}
    assert found["pooled"] == pytest.approx(51 / 60)
    assert found["n"] == 60 and found["training_seconds"] == 4.5
    one = combined([{"fold": None, **row(3, 0.9), **facts}], "accuracy", ["a", "b"])
    assert one["mean"] == 0.9 and one["deviation"] is None


def test_a_data_set_that_is_not_complete_is_named() -> None:
    facts = {"training": {"training_seconds": 1.5}}
    found = combined([{"fold": f, **row(3, 0.9), **facts} for f in (1, 2)], "accuracy", ["a", "b"])
    found["chosen_on"] = "validation"
    esc = {"name": "ESC-50", "official": 2000, "listed": 60, "present": 40}
    assert summary(found, "accuracy", esc, "out") == (
        "ESC-50: accuracy 90.00 +- 0.00 % (2 folds, 40 clips); checkpoint chosen on validation; "
        "only 40 of 2,000 clips are here -> out"
    )
    for whole in (None, esc | {"present": 2000}, esc | {"official": None}):
        assert "only" not in summary(found, "accuracy", whole, "out")


def test_epoch_of_the_best_sum_and_best_epoch_of_each_fold() -> None:
    """The reference's two reports, on its own kind of table: folds x epochs."""
    table = [[0.1, 0.5, 0.4], [0.9, 0.5, 0.7], [0.1, 0.3, 0.2]]
    folds = []
    for number, scores in enumerate(table, 1):
        rows = [row(epoch, score) for epoch, score in enumerate(scores, 1)]
        best = rows[int(np.argmax(scores))]
        folds.append({"fold": number, **best, "by_epoch": rows})
    common = at_common_epoch(folds, "accuracy")  # sums 1.1, 1.3, 1.3: the earlier
    assert [(one["fold"], one["epoch"], one["accuracy"]) for one in common] == [
        (1, 2, 0.5), (2, 2, 0.5), (3, 2, 0.3),
    ]  # fmt: skip
    each = per_fold(folds, "accuracy")
    assert [one["epoch"] for one in each["folds"]] == [2, 1, 2]
    assert each["mean"] == pytest.approx(np.mean([0.5, 0.9, 0.3]))
    assert each["deviation"] == pytest.approx(np.std([0.5, 0.9, 0.3]))


def test_numbers_of_logits_by_hand() -> None:
    logits = np.array([[3, 1, 0], [2, 1, 0], [0, 1, 2], [5, 0, 1]], np.float32)
    found = measured(logits, [(0,), (1,), (2,), (0,)], ["a", "b", "c"], "cross_entropy")
    assert found["accuracy"] == 0.75
    assert found["per_class"] == {"a": 1.0, "b": 0.0, "c": 1.0}
    assert found["confusion"] == [[2, 0, 0], [1, 0, 0], [0, 0, 1]]
    found = measured(logits, [(0,), (0, 2), (2,), (2,)], ["a", "b", "c"], "bce")
    a = (1 / 2 + 2 / 3) / 2  # found at ranks 2 and 3
    c = (1 + 1 + 3 / 4) / 3  # at ranks 1 and 2, and tied at the last, 3 of 4
    assert found["per_class"] == {"a": pytest.approx(a), "c": pytest.approx(c)}
    assert found["map"] == pytest.approx((a + c) / 2)
    assert found["classes_without_clips"] == ["b"] and "accuracy" not in found
    with pytest.raises(DataError, match="NaN"):
        measured(logits * np.nan, [(0,)] * 4, ["a", "b", "c"], "bce")


# ---- the command ----------------------------------------------------------------------------


def test_it_learns_the_tones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_model(tmp_path)
    labelled_shards(tmp_path / "shards", 160, folds=None)
    labelled_shards(tmp_path / "test", 40, folds=None, first=160)
    settings = settings_of(
        tmp_path, tmp_path / "out", test=str(tmp_path / "test"), epochs=7, batch_size=16,
        optim=MuonSettings(lr=0.02), mask=MASK, validation=0.1,
    )  # fmt: skip
    assert run(settings) == 0
    results = read(tmp_path / "out")
    assert results["accuracy"] > 0.9, results["confusion"]
    assert results["n"] == 40 and results["deviation"] is None
    assert results["chosen_on"] == "validation"
    assert results["folds"][0]["validation"]["n"] == 16
    assert results["data"]["labels"] == sorted(KINDS)
    assert results["data"]["test"]["clips"] == 40
    assert "of 40 clips; checkpoint chosen on validation" in capsys.readouterr().out
    classifier = load_classifier(tmp_path / "out")
    shards = ShardFolder(tmp_path / "test", sound=True)
    scores = classifier.predict([shards.sound(i) for i in range(40)])
    assert scores.shape == (40, 4) and scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)
    answers = [sorted(KINDS).index(shards.labels(i)[0]) for i in range(40)]
    assert np.mean(scores.argmax(1) == answers) == results["accuracy"]
    assert load(tmp_path / "out").audio_hash == classifier.model.audio_hash


def test_folds_and_several_labels(world: Path, tmp_path: Path) -> None:
    """BCE, mixup and balanced draws together; map, its folds, and probabilities a label."""
    more = {i: {"labels": ["dog", "bell"]} for i in (0, 4, 8, 12)}
    labelled_shards(tmp_path / "shards", 24, folds=2, facts=more)
    settings = settings_of(
        world, tmp_path / "out", shards=str(tmp_path / "shards"), epochs=2, mixup=0.5,
        balanced=True, last_layers=1, head="linear", keep_epochs=2, validation=0.0,
    )  # fmt: skip
    assert run(settings) == 0
    results = read(tmp_path / "out")
    assert results["target"] == "bce" and "accuracy" not in results
    assert (
        results["mean"]
        == results["map"]
        == pytest.approx(np.mean([fold["map"] for fold in results["folds"]]))
    )
    assert results["deviation"] == pytest.approx(np.std([f["map"] for f in results["folds"]]))
    assert results["chosen_on"] == "nothing: the last epoch is taken"
    assert [fold["epoch"] for fold in results["folds"]] == [2, 2]
    assert set(results["per_class"]) == set(KINDS)
    trained = results["trained_parameters"]["encoder"]
    assert 0 < trained["trained"] < trained["of"]
    kept = load_classifier(tmp_path / "out" / "fold-2" / "models" / "epoch-0002")
    scores = kept.predict([(tone("dog", 3, 0.4), 8000), (tone("cat", 4, 1.0), 8000)])
    assert scores.shape == (2, 4) and (scores > 0).all() and (scores < 1).all()
    np.testing.assert_allclose(
        kept.logits([(tone("dog", 3, 0.4), 8000)])[0], np.log(scores[0] / (1 - scores[0])),
        rtol=1e-3, atol=1e-4,
    )  # fmt: skip
    assert kept.predict([]).shape == (0, 4)
    assert not list((tmp_path / "out").glob("fold-*/checkpoints"))


class _Killed(Exception):
    pass


@pytest.mark.parametrize("when", ["in a fold", "between folds", "before the results"])
def test_resume_is_exact(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Killed and resumed, the folds, the rows and the models are those of one run, bit for bit."""
    settings = settings_of(
        world, tmp_path / "whole", folds=(1, 3), epochs=3, mixup=0.5, mask=MASK,
        checkpoint_every=2, last_layers=1,
    )  # fmt: skip
    assert run(settings) == 0
    part, count = ClassBatches.part, iter(range(10**6))

    def dies(self: ClassBatches, m: int, rank: int, processes: int) -> Any:
        if when == "in a fold" and next(count) == 9 + 5:  # fold 3, after its first epoch
            raise _Killed
        return part(self, m, rank, processes)

    def dies_between(job: Any, split: Any, folder: Any) -> Any:
        if when == "between folds" and split.fold == 3:
            raise _Killed
        return train_split(job, split, folder)

    def dies_last(*_: Any) -> Any:
        raise _Killed

    killed = settings.model_copy(update={"out": str(tmp_path / "killed")})
    with monkeypatch.context() as patch:
        patch.setattr(ClassBatches, "part", dies)
        patch.setattr("pivot.classification.command.train_split", dies_between)
        if when == "before the results":
            patch.setattr("pivot.classification.command.summary", dies_last)
            patch.setattr("pivot.classification.command.combined", dies_last)
        with pytest.raises(_Killed):
            run(killed)
    assert (tmp_path / "killed" / "fold-1" / "results.json").exists()
    assert not (tmp_path / "killed" / "results.json").exists()
    changed = (tmp_path / "killed" / "fold-1" / "results.json").stat().st_mtime_ns
    assert run(killed.model_copy(update={"resume": True})) == 0
    assert (tmp_path / "killed" / "fold-1" / "results.json").stat().st_mtime_ns == changed
    first, second = read(tmp_path / "whole"), read(tmp_path / "killed")
    free = ("settings", "seconds", "training_seconds")
    assert all(first[key] == second[key] for key in first if key not in free)
    for fold in ("fold-1", "fold-3"):
        rows = [(tmp_path / run_ / fold / "validation.jsonl") for run_ in ("whole", "killed")]
        assert rows[0].read_text() == rows[1].read_text()
        for name in ("model.safetensors", "classifier.safetensors"):
            files = [tmp_path / run_ / fold / "model" / name for run_ in ("whole", "killed")]
            assert files[0].read_bytes() == files[1].read_bytes()
    assert run(killed.model_copy(update={"resume": True})) == 0  # finished: nothing to do


def test_compat_chooses_on_the_test_fold_and_says_so(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(world, tmp_path / "out", compat="vip_ant", epochs=4)
    assert run(settings) == 0
    results = read(tmp_path / "out")
    assert results["chosen_on"] == "test fold (compat vip_ant)"
    assert "chosen on test fold (compat vip_ant), so these numbers are too good" in (
        capsys.readouterr().out
    )
    assert all(s["validation"] == 0 and s["train"] == 32 for s in results["data"]["splits"])
    table = []
    for fold in (1, 2, 3):
        lines = (tmp_path / "out" / f"fold-{fold}" / "validation.jsonl").read_text().splitlines()
        table.append([json.loads(line)["accuracy"] for line in lines])
    scores = np.array(table)
    assert scores.shape == (3, 4)
    best = int(scores.sum(0).argmax())
    assert results["mean"] == pytest.approx(scores[:, best].mean())
    assert results["deviation"] == pytest.approx(scores[:, best].std())
    assert [fold["epoch"] for fold in results["folds"]] == [best + 1] * 3
    each = results["best_of_each_fold"]
    assert each["mean"] == pytest.approx(scores.max(1).mean())
    assert [fold["epoch"] for fold in each["folds"]] == (scores.argmax(1) + 1).tolist()
    assert results["model"]["score"] == scores.max()


def test_compat_with_several_labels_hears_the_first_frames(world: Path, tmp_path: Path) -> None:
    """As the reference's AudioSet classifiers; a saved one goes on doing so."""
    test = labelled_shards(tmp_path / "test", 8, folds=None, first=48)
    settings = settings_of(
        world, tmp_path / "out", test=str(test), target="bce", compat="vip_ant", epochs=2
    )
    assert run(settings) == 0
    results = read(tmp_path / "out")
    assert results["chosen_on"] == "test clips (compat vip_ant)"
    assert "best_of_each_fold" not in results and results["accuracy"] <= 1  # one label each
    scores = [fold["map"] for fold in results["folds"]]
    assert scores == [results["map"]] == [results["model"]["score"]]
    classifier = load_classifier(tmp_path / "out")
    front_end = classifier.model.front_end
    assert isinstance(front_end, FirstFrames)
    wave = np.concatenate([tone("dog", 50, 0.5), tone("car", 51, 2.0)])
    start = tone("dog", 50, 0.5)
    mean = front_end(wave, 8000) - front_end(start, 8000)
    assert mean.abs().max() < 0.1  # but for the mean of the whole sound, its start alone is heard
    plain = prepare(settings_of(world, tmp_path / "other", target="bce"))[0].model.front_end
    assert not isinstance(plain, FirstFrames)


def test_a_clip_and_lars_to_start_with(world: Path, tmp_path: Path) -> None:
    """Without a model the encoder starts from CLIP; LARS gives matrices and the rest two rates."""
    settings = settings_of(
        world, tmp_path / "out", model="", clip={"model": str(world / "clip")}, audio=AUDIO,
        encoder={"stride": (8, 8), "kernel": "load_mean"}, folds=(2,), max_steps=2,
        optim=LarsSettings(lr_weight=1.0, lr_bias=0.024), warmup_epochs=0,
    )  # fmt: skip
    assert run(settings) == 0
    fold = read(tmp_path / "out" / "fold-2")["fold"]
    peaks = fold["training"]["peak_rates"]
    assert peaks == {"weights": pytest.approx(8 / 256), "biases": pytest.approx(0.024 * 8 / 256)}
    assert fold["epoch"] == 1  # two of its three steps


def test_another_length(world: Path, tmp_path: Path) -> None:
    job, splits = prepare(settings_of(world, tmp_path, num_frames=48))
    assert job.batches(splits[0])[0].fbank.shape == (8, 48, 32)
    assert job.task(splits[0]).encoder.audio.num_frames == 48


# ---- bad input ------------------------------------------------------------------------------


def refused(settings: TrainClassifier) -> str:
    """The one line with which the settings are refused, before a run folder is made."""
    with pytest.raises((DataError, SettingsError, ModelError)) as found:
        run(settings)
    assert not Path(settings.out).exists()
    text = str(found.value)
    assert "\n" not in text
    return text


def test_what_is_excluded_tests_but_does_not_train(world: Path, tmp_path: Path) -> None:
    ids = tmp_path / "left.txt"
    ids.write_text("clip0\nclip20\n")
    whole = prepare(settings_of(world, tmp_path / "out"))[1]
    job, splits = prepare(settings_of(world, tmp_path / "out", exclude=(str(ids),)))
    named = [job.data.shards.ids[clip] for clip in job.data.clips]
    out = {named.index("clip0"), named.index("clip20")}
    for old, new in zip(whole, splits, strict=True):
        assert new.test == old.test
        assert new.train == [i for i in old.train if i not in out]
        assert new.validation == [i for i in old.validation if i not in out]
    assert sum(len(old.train) + len(old.validation) for old in whole) == 4 + sum(
        len(new.train) + len(new.validation) for new in splits
    )


def test_settings_that_do_not_fit(world: Path, tmp_path: Path) -> None:
    def said(**more: Any) -> str:
        return refused(settings_of(world, tmp_path / "out", **more))

    assert "--last-layers 3 is more than the encoder's 2 blocks; take at most 2" in said(
        last_layers=3
    )
    assert "24 training clips are fewer than --batch-size 25" in said(batch_size=25)
    assert "--folds 4: the clips of" in said(folds=(4,))
    assert "have the folds 1, 2, 3" in said(folds=(4,))
    assert "48 of 48 training clips" in said(test=str(world / "shards"))
    assert "--folds and --test exclude each other" in said(test=str(world / "shards"), folds=(1,))
    assert "model is missing" in said(model="")
    assert "set --audio.num-frames" in said(
        model="", clip={"model": str(world / "clip")}, num_frames=64
    )
    assert "smaller than one patch" in said(num_frames=4)
    labels = tmp_path / "labels.txt"
    labels.write_text("dog\ncat\nbell\n")
    assert 'has the label "car", which is not in the list' in said(labels=str(labels))


def test_shards_that_do_not_fit(world: Path, tmp_path: Path) -> None:
    def said(name: str, *, folds: int | None = 3, **more: Any) -> str:
        path = tmp_path / name
        labelled_shards(path, 24, folds, facts=more.pop("facts", None))
        return refused(settings_of(world, tmp_path / "out", shards=str(path), **more))

    text = said("none", folds=None)
    assert "have no folds; give --test SHARDS, or prepare the data set from its own folder" in text
    assert "all clips of" in said("one", folds=1) and "give --test SHARDS" in said("uno", folds=1)
    text = said("some", facts={5: {"fold": None}})
    assert "1 of 24 clips" in text and "have no fold, such as 'clip5'" in text
    only = {number: {"labels": ["drum"]} for number in (0, 1)}  # both of fold 1
    text = said("rare", facts=only)
    assert "fold 1 tests 1 classes of which no clip is left to train on, such as 'drum'" in text
    two = {7: {"labels": ["dog", "cat"]}}
    text = said("two", facts=two, target="cross_entropy")
    assert "clip clip7" in text and "has 2 labels" in text and "--target bce" in text
    bare = {number: {"labels": []} for number in range(24)}
    assert "has a label; give labelled clips" in said("bare", facts=bare)


def test_a_folder_that_is_no_classifier(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a model without a classifier; make one with pivot"):
        load_classifier(world / "model")
    out = tmp_path / "out"
    assert run(settings_of(world, out, folds=(1,), epochs=1, validation=0.0)) == 0
    about = out / "model" / "classifier.json"
    whole = about.read_text()
    about.write_text(whole.replace('"bell",', ""))
    with pytest.raises(ModelError, match=r"classifier.safetensors does not fit its classifier"):
        load_classifier(out)
    about.write_text(whole[:50])
    with pytest.raises(ModelError, match="cannot be read"):
        load_classifier(out)
    about.write_text(whole)
    weights = out / "model" / "classifier.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ModelError, match="copy the folder again"):
        load_classifier(out)
    weights.unlink()
    with pytest.raises(ModelError, match="copy the folder again"):
        load_classifier(out)


def test_labels_that_no_clip_has_are_left_out_and_named(world: Path, tmp_path: Path) -> None:
    names = ["drum", "car", "bell", "whale", "cat", "dog"]
    (tmp_path / "labels.txt").write_text("\n".join(names))
    job, splits = prepare(settings_of(world, tmp_path, labels=str(tmp_path / "labels.txt")))
    assert job.data.labels == job.test.labels == ["car", "bell", "cat", "dog"]
    assert job.unused == ["drum", "whale"]
    assert job.task(splits[0]).head.linear.out_features == 4
    shards = job.data.shards
    for clip, own in zip(job.data.clips, job.data.classes, strict=True):
        assert [job.data.labels[c] for c in own] == list(shards.labels(clip))


def test_clips_without_a_label_are_counted(world: Path, tmp_path: Path) -> None:
    bare = {number: {"labels": []} for number in (3, 9)}
    labelled_shards(tmp_path / "shards", 24, 2, facts=bare)
    settings = settings_of(
        world, tmp_path / "out", shards=str(tmp_path / "shards"), epochs=1, validation=0.0
    )
    assert run(settings) == 0
    results = read(tmp_path / "out")
    assert results["data"]["unlabelled"] == 2 and results["data"]["clips"] == 22
    assert results["n"] == 22
