"""Training with captions: the three terms (VAT), a store of captions, random captions (RC)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from pivot import config
from pivot.data.batches import Batch
from pivot.data.choices import CaptionChoice
from pivot.embeddings import embed
from pivot.errors import SettingsError, StoreError
from pivot.model import load
from pivot.settings import Embed, LossSettings, TermSettings, TrainAt
from pivot.training.commands import pretrain_va, train_at
from pivot.training.module import Contrast
from tests import toy
from tests.toy_runs import (
    at_settings,
    column,
    results_of,
    rows_of,
    toy_world,
    va_settings,
    weights_of,
)

AT = TermSettings()
VA_AT = TermSettings(image_audio=1)
VAT = TermSettings(image_audio=1, image_text=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = toy_world(tmp_path_factory.mktemp("world"))
    pretrain_va(va_settings(folder, folder / "va", max_steps=4))
    return folder


@pytest.fixture(scope="module")
def golden(goldens: Path) -> dict[str, np.ndarray]:
    with np.load(goldens / "vip_ant" / "infonce.npz") as arrays:
        return dict(arrays)


# ---- terms -------------------------------------------------------------------------------------


class Given(nn.Module):
    """An encoder that gives the same features whatever it hears."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = nn.Parameter(features)

    def forward(self, x: Tensor) -> Tensor:
        return self.features


def three_way(golden: dict[str, np.ndarray], terms: TermSettings) -> tuple[Contrast, Batch]:
    image, audio, text = (torch.tensor(golden[f"x{i}"]) for i in (1, 2, 3))
    partners = {"image": lambda rows: image[rows[:, 0]], "text": lambda rows: text[rows[:, 0]]}
    rows = torch.arange(len(audio))[:, None]
    batch = Batch(torch.zeros(len(audio), 4, 4), {"image": rows, "text": rows})
    return Contrast(Given(audio), partners, terms=terms), batch


@pytest.mark.parametrize(("tag", "terms"), [("at", AT), ("va_at", VA_AT), ("vat", VAT)])
def test_terms_are_the_references_three_way_head(golden, tag, terms) -> None:
    task, batch = three_way(golden, terms)
    loss = task.loss(batch)
    loss.backward()
    assert loss.item() == pytest.approx(float(golden[f"{tag}/loss"]), abs=1e-5)
    found = task.encoder.features.grad.numpy()
    np.testing.assert_allclose(found, golden[f"{tag}/grad_audio"], rtol=1e-5, atol=1e-6)
    assert set(task.scales) == set(task.weights)
    for scale in task.scales.values():
        assert scale.log_scale.item() == pytest.approx(math.log(1 / 0.07))
        assert scale.log_scale.grad is not None and scale.log_scale.grad != 0


def test_each_term_has_its_weight_and_the_scale_of_its_own(golden) -> None:
    task, batch = three_way(golden, TermSettings(audio_text=0.5, image_audio=2, image_text=1))
    losses = {}
    for name in task.weights:
        weights = {"audio_text": 0.0, "image_audio": 0.0, "image_text": 0.0, name: 1.0}
        if name == "image_text":
            weights["audio_text"] = 1.0
        alone, _ = three_way(golden, TermSettings(**weights))
        losses[name] = alone.loss(batch).item()
    losses["image_text"] -= losses["audio_text"]
    task.loss(batch).backward()
    parts = {name: value.item() for name, value in task.parts.items()}
    assert parts == pytest.approx({f"loss_{k}": v for k, v in losses.items()}, rel=1e-5)
    whole = 0.5 * losses["audio_text"] + 2 * losses["image_audio"] + losses["image_text"]
    assert task.loss(batch).item() == pytest.approx(whole, rel=1e-6)
    grads = {name: scale.log_scale.grad.item() for name, scale in task.scales.items()}
    with torch.no_grad():
        task.scales["image_audio"].log_scale.fill_(0.0)
    task.zero_grad()
    task.loss(batch).backward()
    assert task.scales["audio_text"].log_scale.grad.item() == grads["audio_text"]
    assert task.scales["image_audio"].log_scale.grad.item() != grads["image_audio"]


def test_a_term_without_weight_costs_nothing(golden) -> None:
    task, batch = three_way(golden, AT)
    task.partners["image"] = None  # a call would fail
    task.loss(Batch(batch.fbank, {"text": batch.rows["text"]}))
    assert list(task.scales) == ["audio_text"] and task.parts == {}
    with pytest.raises(ValidationError, match="needs a weight for audio_text or image_audio"):
        TermSettings(audio_text=0, image_text=1)


def test_a_run_with_all_terms_says_what_each_costs(world, tmp_path) -> None:
    terms = {"audio_text": 1.0, "image_audio": 0.5, "image_text": 1.0}
    learn = LossSettings(scale_init=5.0)
    train_at(at_settings(world, tmp_path / "vat", terms=terms, loss=learn, log_every=1))
    for row in rows_of(tmp_path / "vat"):
        parts = [weight * row[f"loss_{name}"] for name, weight in terms.items()]
        assert row["loss"] == pytest.approx(sum(parts), rel=1e-6)
        assert row["scale"] == row["scale_audio_text"]
    results = results_of(tmp_path / "vat")
    assert set(results["scales"]) == set(terms)
    assert len(set(results["scales"].values())) == 3
    assert load(tmp_path / "vat").scale == results["scales"]["audio_text"] == results["scale"]
    train_at(at_settings(world, tmp_path / "at", log_every=1))
    assert not any("loss_audio_text" in row for row in rows_of(tmp_path / "at"))
    assert list(results_of(tmp_path / "at")["scales"]) == ["audio_text"]


def test_frames_of_a_store_train_as_frames_on_the_fly(world, tmp_path) -> None:
    store = tmp_path / "store"
    clip = {"model": str(world / "clip")}
    embed.run(Embed(what="image", data=str(world / "shards"), out=str(store), clip=clip))
    pairs = toy.write_gold(tmp_path / "some.jsonl", [3, 5, 7, 8, 11, 12, 13, 18])
    for name, images in (("live", None), ("stored", str(store))):
        settings = at_settings(
            world, tmp_path / name, terms=VA_AT, images=images, pairs=str(pairs), max_steps=4
        )
        train_at(settings)
    assert rows_of(tmp_path / "live") == rows_of(tmp_path / "stored")
    assert weights_of(tmp_path / "live") == weights_of(tmp_path / "stored")


def test_only_the_frames_term_is_pretraining_on_the_clips_of_the_pairs(world, tmp_path) -> None:
    """The same clips, frames and windows as pretrain-va, so the same losses."""
    terms = {"audio_text": 0.0, "image_audio": 1.0}
    common = {"max_steps": 5, "log_every": 1}
    fresh = {"model": "", "clip": {"model": str(world / "clip")}, "audio": toy.AUDIO}
    fresh |= {"encoder": toy.ENCODER, "terms": terms}
    train_at(at_settings(world, tmp_path / "at", **common, **fresh))
    pretrain_va(va_settings(world, tmp_path / "va", **common))
    assert column(tmp_path / "at") == column(tmp_path / "va")
    assert weights_of(tmp_path / "at") == weights_of(tmp_path / "va")


def test_without_a_model_training_starts_from_clip(world, tmp_path) -> None:
    with pytest.raises(SettingsError, match="--model is missing; name a run or model folder, or"):
        train_at(at_settings(world, tmp_path / "out", model=""))
    with pytest.raises(SettingsError, match=r"--audio.num-frames 500 is not what .* \(32\); leave"):
        train_at(at_settings(world, tmp_path / "out", audio={"num_frames": 500}))
    # what the command line names counts, also where it is the default of another encoder
    argv = [str(world / "shards"), "--model", str(world / "va"), "--out", str(tmp_path / "out")]
    argv += ["--pairs", str(world / "gold.jsonl"), "--device", "cpu", "--audio.sample-rate"]
    with pytest.raises(SettingsError, match=r"--audio.sample-rate 16000 is not what .* \(8000\)"):
        train_at(config.load(TrainAt, [*argv, "16000"], "pivot train-at"))
    more = ["8000", "--encoder.kind", "mobilenet", "--audio.sample-rate", "32000"]
    with pytest.raises(SettingsError, match=r"--encoder.kind mobilenet is not what .* \(vit\)"):
        train_at(config.load(TrainAt, [*argv, *more], "pivot train-at"))
    assert not (tmp_path / "out").exists()
    clip = {"model": str(world / "clip")}
    for name, more in (("own", {"audio": toy.AUDIO, "encoder": toy.ENCODER}), ("none", {})):
        train_at(at_settings(world, tmp_path / name, clip=clip, max_steps=1, **more))
    assert weights_of(tmp_path / "own") == weights_of(tmp_path / "none")


# ---- a store of captions -----------------------------------------------------------------------


def store_of(world: Path, out: Path, clip: Path | None = None, **values: Any) -> str:
    common = {"data": str(world / "gold.jsonl"), "clip": {"model": str(clip or world / "clip")}}
    embed.run(Embed(what="text", out=str(out), **(common | values)))
    return str(out)


def test_captions_of_a_store_train_as_captions_encoded_here(world, tmp_path) -> None:
    texts = store_of(world, tmp_path / "store", prompt="a photo of")
    for name, store in (("live", None), ("stored", texts)):
        train_at(at_settings(world, tmp_path / name, prompt="a photo of", texts=store, max_steps=4))
    assert rows_of(tmp_path / "live") == rows_of(tmp_path / "stored")
    assert weights_of(tmp_path / "live") == weights_of(tmp_path / "stored")
    assert results_of(tmp_path / "stored")["data"]["texts"] == texts


def test_a_store_that_does_not_hold_the_captions_is_refused(world, tmp_path) -> None:
    few = tmp_path / "few.txt"
    few.write_text("a dog\nthe sound of a dog\na cat\n")
    other = toy.tiny_clip_folder(tmp_path / "other", seed=5)
    images = tmp_path / "images"
    clip = {"model": str(world / "clip")}
    embed.run(Embed(what="image", data=str(world / "shards"), out=str(images), clip=clip))
    for name, store, message in (
        ("few", store_of(world, tmp_path / "a", data=str(few)), 'lacks 5 of 8 .* "the sound of a'),
        ("prompt", store_of(world, tmp_path / "b", prompt="a photo of"), "lacks 8 of 8"),
        ("clip", store_of(world, tmp_path / "c", clip=other), "made by another encoder"),
        ("kind", str(images), "holds frames, not sentences"),
    ):
        with pytest.raises(StoreError, match=message) as caught:
            train_at(at_settings(world, tmp_path / f"out-{name}", texts=store))
        assert "\n" not in str(caught.value) and not (tmp_path / f"out-{name}").exists()


# ---- random captions ---------------------------------------------------------------------------


def test_random_captions_are_those_of_any_other_clip_drawn_at_every_access() -> None:
    counts = [1, 3, 2, 1, 4]
    starts = np.cumsum([0, *counts])
    owner = np.repeat(np.arange(5), counts)
    choice = CaptionChoice(starts, np.arange(11), seed=4, other=True)
    drawn = np.array([choice(epoch, np.arange(5))[:, 0] for epoch in range(3000)])
    for clip in range(5):
        clips = np.bincount(owner[drawn[:, clip]], minlength=5) / 3000
        assert clips[clip] == 0
        assert np.abs(np.delete(clips, clip) - 0.25).max() < 0.03
        of_last = np.bincount(drawn[:, clip][drawn[:, clip] >= 7] - 7, minlength=4)
        assert clip == 4 or np.abs(of_last / of_last.sum() - 0.25).max() < 0.06
    again = CaptionChoice(starts, np.arange(11), seed=4, other=True)
    assert np.array_equal(again(7, np.array([3, 1]))[:, 0], drawn[7, [3, 1]])


def test_a_run_with_random_captions_learns_nothing_of_its_own(world, tmp_path) -> None:
    for name, redraw in (("gold", False), ("random", True)):
        train_at(at_settings(world, tmp_path / name, redraw=redraw, max_steps=40, log_every=40))
    assert column(tmp_path / "random")[0] > column(tmp_path / "gold")[0] + 0.3
