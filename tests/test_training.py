"""Training: batches as functions of the seed, exact resume, the two commands, mistakes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from pivot.audio.frontend import FrontEnd, resolve_norm
from pivot.data.batches import PairTable, va_batches
from pivot.data.choices import BatchOrder, CaptionChoice, FrameChoice
from pivot.data.pairs import Pairs, read_pairs
from pivot.data.stream import SoundItems
from pivot.embeddings import embed
from pivot.errors import DataError, RunError, SettingsError, StoreError, UserError
from pivot.model import load
from pivot.settings import (
    AdamWSettings,
    Embed,
    LarsSettings,
    LossSettings,
    MaskSettings,
    MuonSettings,
)
from pivot.training.commands import pretrain_va, train_at
from pivot.training.fit import resolve_precision
from pivot.training.partners import FramePartners
from tests import toy
from tests.toy_runs import Stop, at_settings, rows_of, stop_at, toy_world, va_settings, weights_of
from video_prep.shards import ShardFolder

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with shards, a tiny CLIP, gold pairs, and a VA model trained for a few steps."""
    folder = tmp_path_factory.mktemp("world")
    toy_world(folder)
    pretrain_va(va_settings(folder, folder / "va", max_steps=4))
    return folder


def sounds_of(folder: Path) -> SoundItems:
    front_end = FrontEnd(toy.AUDIO, resolve_norm(toy.AUDIO, folder))
    return SoundItems(ShardFolder(folder), front_end, cache_mb=16)


# ---- batches -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("clips", "size", "sizes"), [
    (20, 6, [6, 6, 6, 2]), (19, 6, [6, 6, 6]), (18, 6, [6, 6, 6]), (6, 6, [6]),
])  # fmt: skip
def test_an_epoch_is_a_permutation_cut_into_batches(clips, size, sizes) -> None:
    order = BatchOrder(clips, size, seed=3)
    assert order.per_epoch == len(sizes)
    epochs = []
    for epoch in range(2):
        found = [order(epoch * order.per_epoch + i) for i in range(order.per_epoch)]
        assert [len(positions) for _, positions in found] == sizes
        assert {e for e, _ in found} == {epoch}
        epochs.append(np.concatenate([positions for _, positions in found]))
        assert len(set(epochs[-1])) == sum(sizes)
    assert not np.array_equal(*epochs)
    again = BatchOrder(clips, size, seed=3)
    np.testing.assert_array_equal(again(order.per_epoch)[1], order(order.per_epoch)[1])


def test_frames_are_chosen_by_rule() -> None:
    positions = np.array([5, 0])
    assert FrameChoice("middle", 6, 4, 0)(0, positions).tolist() == [[21], [1]]
    assert FrameChoice("middle", 6, 3, 0)(0, positions).tolist() == [[16], [1]]
    assert FrameChoice("mean", 6, 2, 0)(0, positions).tolist() == [[10, 11], [0, 1]]
    every = np.arange(3000)
    drawn = FrameChoice("random", 3000, 4, 7)(1, every)[:, 0] - every * 4
    assert np.bincount(drawn, minlength=5).tolist()[4:] == [0]
    assert np.abs(np.bincount(drawn) / 3000 - 0.25).max() < 0.03
    other = FrameChoice("random", 3000, 4, 7)(2, every)[:, 0] - every * 4
    assert 0.1 < (drawn == other).mean() < 0.4


def test_captions_are_drawn_uniformly_from_the_clips_own() -> None:
    choice = CaptionChoice(np.array([0, 1, 4]), np.array([9, 2, 3, 4]), seed=1)
    drawn = [choice(epoch, np.array([1, 0]))[:, 0].tolist() for epoch in range(600)]
    assert {row[1] for row in drawn} == {9}
    counts = np.bincount([row[0] for row in drawn], minlength=5)[2:]
    assert counts.sum() == 600 and counts.min() > 150


def test_a_clip_has_the_same_masks_in_whatever_batch(world) -> None:
    mask = MaskSettings(time=10, freq=10)
    sounds = sounds_of(world / "shards")
    small, large = (va_batches(sounds, "mean", size, mask, 1) for size in (4, 10))

    def epoch(batches, number):
        found = {}
        for m in range(number * batches.per_epoch, (number + 1) * batches.per_epoch):
            for row, fbank in zip(batches[m].rows["image"], batches[m].fbank, strict=True):
                found[int(row[0])] = fbank
        return found

    first, second, next_one = epoch(small, 0), epoch(large, 0), epoch(small, 1)
    assert all(torch.equal(first[clip], second[clip]) for clip in first)
    assert sum(torch.equal(first[clip], next_one[clip]) for clip in first) < 3
    plain = va_batches(sounds, "mean", 20, MaskSettings(time=0, freq=0), 1)
    short = next(i for i in range(20) if i % 5)  # needs no crop
    rows = {
        int(r[0]) // toy.FRAMES: f
        for r, f in zip(plain[0].rows["image"], plain[0].fbank, strict=True)
    }
    assert torch.equal(rows[short], sounds.fbank(short))


def test_pairs_become_clips_and_unique_captions(world) -> None:
    sounds = sounds_of(world / "shards")
    pairs = Pairs(["clip7", "clip2", "clip7", "clip2"], ["b", "a", "a", "a"], [math.nan] * 4)
    table = PairTable.of(sounds, pairs)
    assert (table.clips, table.choice_rows, table.texts) == ([2, 7], [[1, 1], [0, 1]], ["b", "a"])
    batch = table.batches(sounds, 2, toy.MASK, 0)[0]
    assert batch.fbank.shape == (2, 32, 32) and batch.rows["text"].shape == (2, 1)
    with pytest.raises(DataError, match=r"name 2 clips .* the first 'other1'; take the shards"):
        PairTable.of(sounds, Pairs(["clip1", "other1", "x"], ["a", "b", "c"], [0.0] * 3))


# ---- training and its resumption ---------------------------------------------------------------


@pytest.mark.parametrize("values", [
    {"optim": MuonSettings()},
    {"optim": LarsSettings(), "accumulate": 3},
    {"optim": AdamWSettings(), "accumulate": 2, "frames": "mean", "precision": "bf16"},
], ids=["muon", "lars", "adamw"])  # fmt: skip
def test_a_resumed_run_equals_an_uninterrupted_one(world, tmp_path, monkeypatch, values) -> None:
    assert pretrain_va(va_settings(world, tmp_path / "whole", **values)) == 0
    settings = va_settings(world, tmp_path / "cut", **values)
    for call in (8 * settings.accumulate, 5 * settings.accumulate):  # at step 8, then 6 + 5 = 11
        with monkeypatch.context() as patch:
            stop_at(call, patch)
            with pytest.raises(Stop) if call > 5 * settings.accumulate else nullcontext():
                pretrain_va(settings)
        settings = settings.model_copy(update={"resume": True})
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
    assert weights_of(tmp_path / "cut") == weights_of(tmp_path / "whole")
    assert [row["step"] for row in rows_of(tmp_path / "cut")] == [2, 4, 6, 8, 10]


def test_a_run_killed_in_the_middle_goes_on_exactly(world, tmp_path, capsys) -> None:
    assert pretrain_va(va_settings(world, tmp_path / "whole")) == 0
    settings = va_settings(world, tmp_path / "cut")
    (tmp_path / "settings.json").write_text(settings.model_dump_json())
    program = f"""
import os, signal, torch
torch.set_num_threads({torch.get_num_threads()})
from pathlib import Path
from pivot.settings import PretrainVa
from pivot.training import commands, module
real, calls = module.contrastive, []
def dying(*arguments, **named):
    calls.append(1)
    if len(calls) == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **named)
module.contrastive = dying
text = Path({str(tmp_path / "settings.json")!r}).read_text()
commands.pretrain_va(PretrainVa.model_validate_json(text))
"""
    dead = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True)
    assert dead.returncode == -9, dead.stderr.decode()
    assert [row["step"] for row in rows_of(tmp_path / "cut")] == [2, 4, 6, 8]
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "epo')  # cut off while writing
    capsys.readouterr()
    pretrain_va(settings.model_copy(update={"resume": True}))
    assert "from step 6" in capsys.readouterr().err
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
    assert weights_of(tmp_path / "cut") == weights_of(tmp_path / "whole")


def test_ctrl_c_says_how_to_go_on(world, tmp_path, capsys, monkeypatch) -> None:
    stop_at(6, monkeypatch, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        pretrain_va(va_settings(world, tmp_path / "run"))
    said = capsys.readouterr().err
    assert "stopped at step 5 of 10; --resume goes on from step 3" in said


def test_workers_and_the_cache_change_nothing(world, tmp_path) -> None:
    for name, values in (("a", {}), ("b", {"workers": 1, "cache_mb": 0})):
        pretrain_va(va_settings(world, tmp_path / name, max_steps=5, **values))
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b")


@pytest.mark.parametrize("frames", ["random", "middle", "mean"])
def test_a_store_of_frames_trains_as_frames_do(world, tmp_path, frames) -> None:
    store = tmp_path / "store"
    embed.run(
        Embed(
            what="image",
            data=str(world / "shards"),
            out=str(store),
            clip={"model": str(world / "clip")},
        )
    )
    for name, images in (("live", None), ("stored", str(store))):
        settings = va_settings(world, tmp_path / name, frames=frames, images=images, max_steps=5)
        pretrain_va(settings)
    assert rows_of(tmp_path / "live") == rows_of(tmp_path / "stored")
    assert weights_of(tmp_path / "live") == weights_of(tmp_path / "stored")


def test_frames_on_the_fly_are_encoded_once(world) -> None:
    model = load(world / "va")
    partners = FramePartners(sounds_of(world / "shards"), model.clip)
    asked: list[int] = []
    real = model.clip.encode_image
    model.clip.encode_image = lambda images: (asked.append(len(images)), real(images))[1]  # type: ignore[method-assign]
    first = partners(torch.tensor([[3], [0]]))
    assert torch.equal(partners(torch.tensor([[0], [3]])), first.flip(0))
    partners(torch.tensor([[0], [7]]))
    assert asked == [2, 1]


def test_training_learns_the_toy_and_says_so_in_one_line(world, tmp_path, capsys) -> None:
    state = torch.get_rng_state()
    out = tmp_path / "at"
    capsys.readouterr()
    train_at(at_settings(world, out, max_steps=40, log_every=10, optim=AdamWSettings(lr=3e-3)))
    said = capsys.readouterr()
    assert torch.equal(state, torch.get_rng_state())  # nothing global was drawn or seeded
    lines = said.out.splitlines()
    assert len(lines) == 1 and lines[0].startswith("trained 40 steps on 20 clips in ")
    assert lines[0].endswith(f"-> {out / 'model'}")
    assert "weights" in said.err and "peak rate 0.003" in said.err and "ightning" not in said.err
    results = json.loads((out / "results.json").read_text())
    rows = rows_of(out)
    assert results["loss"] == rows[-1]["loss"] < 0.75 * rows[0]["loss"]
    assert results["steps"] == 40 and results["clips"] == 20
    assert results["peak_rates"] == {"weights": 0.003, "biases": 0.003}
    assert results["data"]["pairs"] == 40 and results["data"]["captions"] == 8
    assert load(out).scale == pytest.approx(results["scale"])


def test_rates_follow_the_schedule_and_scale_its_setting(world, tmp_path) -> None:
    loss = LossSettings(scale_init=20.0, learn_scale=False)
    pretrain_va(va_settings(world, tmp_path / "va", loss=loss, log_every=1, warmup_epochs=1))
    rows = rows_of(tmp_path / "va")
    assert [row["rates"]["matrices"] for row in rows[:5]] == pytest.approx(
        [0, 0.005, 0.01, 0.015, 0.02]
    )
    assert rows[5]["lr"] < 0.02
    assert all(row["scale"] == pytest.approx(20.0) for row in rows)
    assert [row["epoch"] for row in rows[:4]] == [0.25, 0.5, 0.75, 1.0]
    kept = at_settings(tmp_path, tmp_path / "at", shards=str(world / "shards"),
                       pairs=str(world / "gold.jsonl"), restart_scale=False, loss=loss)  # fmt: skip
    train_at(kept.model_copy(update={"loss": LossSettings(learn_scale=False), "max_steps": 2}))
    assert rows_of(tmp_path / "at")[0]["scale"] == pytest.approx(20.0)


def test_tensorboard_is_written_when_asked_for(world, tmp_path) -> None:
    pytest.importorskip("tensorboard")
    pretrain_va(va_settings(world, tmp_path / "va", max_steps=2, tensorboard=True))
    assert list((tmp_path / "va" / "tensorboard").glob("events.*"))


# ---- mistakes ----------------------------------------------------------------------------------


def test_a_used_folder_is_refused_and_a_finished_run_is_left_alone(world, tmp_path, capsys) -> None:
    with pytest.raises(RunError, match="is in use; name another folder, or add --resume"):
        pretrain_va(va_settings(world, world / "va"))
    before = weights_of(world / "va")
    settings = va_settings(world, world / "va", max_steps=4, resume=True)
    assert pretrain_va(settings) == 0 and "finished already" in capsys.readouterr().err
    assert weights_of(world / "va") == before
    with pytest.raises(RunError, match="started with another --batch-size"):
        pretrain_va(settings.model_copy(update={"batch_size": 5}))
    with pytest.raises(RunError, match="holds a run of `pivot pretrain-va`"):
        train_at(at_settings(world, world / "va", resume=True))


@pytest.mark.parametrize(("values", "error", "message"), [
    ({"batch_size": 21}, DataError, "20 clips are fewer than --batch-size 21; lower it"),
    ({"clip": {"model": ""}}, SettingsError, "--clip.model is missing"),
    ({"precision": "fp16"}, SettingsError, "fp16 needs a GPU, not cpu"),
    ({"shards": "no/such"}, UserError, "no/such is not a folder of shards"),
    ({"accumulate": 9, "max_steps": None, "epochs": 2}, SettingsError, "--accumulate 9 is more"),
    ({"images": "no/store"}, StoreError, "store no/store does not exist"),
])  # fmt: skip
def test_mistakes_of_pretrain_va_leave_no_folder(world, tmp_path, values, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        pretrain_va(va_settings(world, tmp_path / "out", **values))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_sounds_without_frames_are_refused(world, tmp_path) -> None:
    toy.toy_shards(tmp_path / "sounds", clips=6, frames=0)
    with pytest.raises(DataError, match="holds sounds without frames"):
        pretrain_va(va_settings(world, tmp_path / "out", shards=str(tmp_path / "sounds")))


@pytest.mark.parametrize(("pairs", "message"), [
    ('{"id": "clip99", "caption": "a dog"}\n', "name 1 clips that are not in"),
    ('{"id": "clip1", "caption": "' + "dog " * 40 + '"}\n', "is longer than the 16"),
    ("", "is empty"),
])  # fmt: skip
def test_mistakes_in_pairs_leave_no_folder(world, tmp_path, pairs, message) -> None:
    path = tmp_path / "pairs.jsonl"
    good = "".join(f'{{"id": "clip{i}", "caption": "a cat"}}\n' for i in range(8)) if pairs else ""
    path.write_text(good + pairs)
    with pytest.raises(DataError, match=message):
        train_at(at_settings(world, tmp_path / "out", pairs=str(path)))
    assert not (tmp_path / "out").exists()


def test_a_store_of_another_clip_or_of_fewer_clips_is_refused(world, tmp_path) -> None:
    other = toy.tiny_clip_folder(tmp_path / "other", seed=5)
    few = toy.toy_shards(tmp_path / "few", clips=12)
    for name, data, clip in (("a", world / "shards", other), ("b", few, world / "clip")):
        embed.run(
            Embed(what="image", data=str(data), out=str(tmp_path / name), clip={"model": str(clip)})
        )
    with pytest.raises(StoreError, match="made by another encoder"):
        pretrain_va(va_settings(world, tmp_path / "out", images=str(tmp_path / "a")))
    with pytest.raises(StoreError, match=r"lacks 8 of the 20 clips .* the first 'clip12'"):
        pretrain_va(va_settings(world, tmp_path / "out", images=str(tmp_path / "b")))


def test_a_loss_that_is_not_finite_stops_at_its_step(world, tmp_path) -> None:
    settings = va_settings(world, tmp_path / "out", optim=AdamWSettings(lr=1e30), warmup_epochs=0)
    with pytest.raises(
        RunError, match=r"the loss is nan at step \d of 10 \(rates: weights"
    ) as caught:
        pretrain_va(settings.model_copy(update={"log_every": 5, "checkpoint_every": 100}))
    assert "lower the rates" in str(caught.value)
    assert not (tmp_path / "out" / "checkpoints").exists()


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None], ids=["empty", "text", "half"])
def test_a_damaged_checkpoint_is_named(world, tmp_path, monkeypatch, damage) -> None:
    settings = va_settings(world, tmp_path / "out")
    with monkeypatch.context() as patch:
        stop_at(5, patch)
        with pytest.raises(Stop):
            pretrain_va(settings)
    path = tmp_path / "out" / "checkpoints" / "last.ckpt"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with pytest.raises(RunError, match=r"last.ckpt is damaged .* delete it"):
        pretrain_va(settings.model_copy(update={"resume": True}))


def test_pairs_that_changed_since_the_checkpoint_are_refused(world, tmp_path, monkeypatch) -> None:
    pairs = toy.write_gold(tmp_path / "pairs.jsonl", range(12))
    settings = at_settings(world, tmp_path / "out", pairs=str(pairs))
    with monkeypatch.context() as patch:
        stop_at(5, patch)
        with pytest.raises(Stop):
            train_at(settings)
    toy.write_gold(pairs, range(13))
    with pytest.raises(RunError, match="the clips or pairs have changed since"):
        train_at(settings.model_copy(update={"resume": True}))


def test_checkpoints_of_another_version_are_refused(tmp_path) -> None:
    from pivot.training.checkpoint import load_checkpoint

    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    with pytest.raises(RunError, match="not a checkpoint of this version"):
        load_checkpoint(tmp_path / "last.ckpt", "")
    assert load_checkpoint(tmp_path / "none.ckpt", "") is None


def test_precision_follows_the_hardware() -> None:
    assert resolve_precision("fp32", "cuda") == "fp32"
    assert resolve_precision("bf16", "cpu") == "bf16"
    assert resolve_precision("auto", "mps") == "fp32"
    assert resolve_precision("auto", "cpu") in ("bf16", "fp32")


def test_gold_pairs_read(world) -> None:
    assert len(read_pairs(world / "gold.jsonl")) == 40
