"""After an epoch: models that are kept, retrieval on held-out clips, and a list of clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pivot.data.batches import Batches, clips_of, va_batches
from pivot.embeddings.embed import embed_audio, embed_frame
from pivot.errors import DataError, SettingsError
from pivot.evaluation.retrieval import image_audio
from pivot.model import load
from pivot.settings import FitSettings, MaskSettings, MuonSettings
from pivot.training import after_epoch
from pivot.training.commands import pretrain_va, train_at
from pivot.training.fit import fit
from pivot.training.module import Contrast
from tests import toy
from tests.test_training import sounds_of
from tests.toy_runs import (
    at_settings,
    column,
    results_of,
    rows_of,
    toy_world,
    va_settings,
    weights_of,
)
from video_prep.shards import ShardFolder

PER_EPOCH = 4  # 20 clips in batches of 6, 6, 6 and 2


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = toy_world(tmp_path_factory.mktemp("world"))
    toy.toy_shards(folder / "held", clips=12, first=40)
    return folder


def watched(world: Path, out: Path, **values: Any) -> Any:
    common = {"validation": str(world / "held"), "keep_epochs": 2, "max_steps": None, "epochs": 4}
    return va_settings(world, out, **(common | values))


# ---- models and retrieval ----------------------------------------------------------------------


def test_rows_and_models_are_those_of_their_epochs(world, tmp_path) -> None:
    out = tmp_path / "run"
    pretrain_va(watched(world, out))
    rows = rows_of(out, "validation.jsonl")
    assert [(row["epoch"], row["step"]) for row in rows] == [(e, 4 * e) for e in (1, 2, 3, 4)]
    assert sorted(path.name for path in (out / "models").iterdir()) == ["epoch-0002", "epoch-0004"]
    assert json.loads((out / "models/epoch-0002/model.json").read_text())["facts"]["steps"] == 8
    last = (out / "models/epoch-0004/model.safetensors").read_bytes()
    assert last == weights_of(out) != (out / "models/epoch-0002/model.safetensors").read_bytes()
    held = ShardFolder(world / "held")
    labels = [(kind,) for facts in held.all_facts() for kind in facts["labels"]]
    for number in (2, 4):
        model = load(out / "models" / f"epoch-{number:04d}")
        wanted = image_audio(embed_frame(held, model.clip, 0), embed_audio(model, held), labels)
        assert {k: v for k, v in rows[number - 1].items() if k not in ("epoch", "step")} == wanted
    assert results_of(out)["data"]["validation"]["clips"] == 12


def test_watching_changes_nothing_and_a_resumed_run_watches_as_a_whole_one(
    world, tmp_path, monkeypatch
) -> None:
    pretrain_va(watched(world, tmp_path / "whole"))
    pretrain_va(watched(world, tmp_path / "plain", validation=None, keep_epochs=0))
    assert weights_of(tmp_path / "whole") == weights_of(tmp_path / "plain")
    settings = watched(world, tmp_path / "cut", checkpoint_every=5)
    real, calls = after_epoch.image_audio, []

    def dying(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(after_epoch, "image_audio", dying)
        with pytest.raises(KeyboardInterrupt):
            pretrain_va(settings)  # in the middle of epoch 4's callback, after the save at step 15
    with (tmp_path / "cut" / "validation.jsonl").open("a") as file:
        file.write('{"epoch": 4, "step": 16, "ima')
    pretrain_va(settings.model_copy(update={"resume": True}))
    for name in ("metrics.jsonl", "validation.jsonl"):
        assert rows_of(tmp_path / "cut", name) == rows_of(tmp_path / "whole", name)
    assert weights_of(tmp_path / "cut") == weights_of(tmp_path / "whole")


def test_a_callback_sees_the_weights_and_leaves_the_random_numbers(world, tmp_path) -> None:
    class Dropping(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(32 * 32, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(torch.nn.functional.dropout(x.flatten(1), 0.5, self.training))

    settings = FitSettings(
        out="none", batch_size=6, epochs=2, device="cpu", precision="fp32", log_every=1,
        optim=MuonSettings(), accumulate=3, max_steps=3,
    )  # fmt: skip
    partners = {"image": lambda rows: torch.eye(16)[rows[:, 0] % 16]}
    seen: list[tuple[int, int, bool, bool]] = []
    losses = []
    for watch in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            task = Contrast(Dropping(), partners)
            batches = va_batches(sounds_of(world / "shards"), "random", 6, toy.MASK, 1)

            def look(epoch: int, task: Contrast = task) -> None:
                torch.rand(1)
                seen.append((epoch, task.step, task.training, torch.is_grad_enabled()))

            fitted = fit(task, batches, settings, after_epoch=look if watch else None)
        losses.append([row["loss"] for row in fitted.rows])
    assert losses[0] == losses[1]
    # epochs of 4 batches end in steps 2 and 3 of 3 batches each; the last one is cut short
    assert seen == [(1, 2, False, False), (3, 3, False, False)]


def test_models_of_fine_tuning_are_kept_too(world, tmp_path) -> None:
    clip = {"model": str(world / "clip")}
    fresh = {"model": "", "clip": clip, "audio": toy.AUDIO, "encoder": toy.ENCODER}
    train_at(at_settings(world, tmp_path / "at", keep_epochs=1, max_steps=6, **fresh))
    kept = sorted(path.name for path in (tmp_path / "at" / "models").iterdir())
    assert kept == ["epoch-0001", "epoch-0002"]
    load(tmp_path / "at" / "models" / kept[0])


def test_held_out_sounds_without_frames_are_refused(world, tmp_path) -> None:
    toy.toy_shards(tmp_path / "sounds", clips=6, frames=0)
    with pytest.raises(DataError, match=r"--validation .* holds sounds without frames"):
        pretrain_va(watched(world, tmp_path / "out", validation=str(tmp_path / "sounds")))
    assert not (tmp_path / "out").exists()


def test_several_processes_are_for_commands_that_share_batches(world) -> None:
    batches = va_batches(sounds_of(world / "shards"), "mean", 6, toy.MASK, 1)
    task = Contrast(torch.nn.Linear(32, 16), {"image": lambda rows: rows})
    with pytest.raises(SettingsError, match="--processes 2 cannot be used here; leave it out"):
        fit(task, batches, FitSettings(out="none", processes=2, device="cpu"))


# ---- a list of clips ---------------------------------------------------------------------------


def chosen(world: Path, ids: list[str], **values: Any) -> Batches:
    sounds = sounds_of(world / "shards")
    common: dict[str, Any] = {"mask": MaskSettings(rule="vip_ant", time=8, freq=8), "seed": 1}
    clips = clips_of(sounds, ids)
    return va_batches(sounds, "random", len(ids), clips=clips, **(common | values))


def test_a_clip_that_stands_twice_counts_twice_and_differs(world) -> None:
    ids = ["clip5", "clip0", "clip5.wav", "clip9"]
    batches = chosen(world, ids)
    assert batches.clips == [5, 0, 5, 9]
    frames, alike = set(), 0
    for m in range(12):
        epoch, positions = batches.order(m)
        assert epoch == m and sorted(positions) == [0, 1, 2, 3]
        batch, places = batches[m], np.argsort(positions)
        rows = batch.rows["image"][places, 0]
        assert (rows // toy.FRAMES).tolist() == [5, 0, 5, 9]
        frames.add(tuple((rows % toy.FRAMES)[[0, 2]].tolist()))
        alike += torch.equal(batch.fbank[places[0]], batch.fbank[places[2]])
    assert frames == {(0, 0), (0, 1), (1, 0), (1, 1)} and alike == 0
    unmasked = chosen(world, ids, mask=MaskSettings(time=0, freq=0))
    places = np.argsort(unmasked.order(0)[1])
    windows = unmasked[0].fbank[places]
    assert not torch.equal(windows[0], windows[2])  # clip5 is longer than the encoder's window


def test_a_run_on_a_list_trains_on_its_clips(world, tmp_path) -> None:
    (tmp_path / "ids.csv").write_text("id,why\n" + "".join(f"clip{i},x\n" for i in range(8)) * 2)
    settings = va_settings(world, tmp_path / "run", clips=str(tmp_path / "ids.csv"), max_steps=3)
    pretrain_va(settings)
    data = results_of(tmp_path / "run")["data"]
    assert data["clips"] == 16 and data["chosen"] == str(tmp_path / "ids.csv")
    assert column(tmp_path / "run", "epoch")[-1] == 1.0
    (tmp_path / "other.txt").write_text("clip1\nclip99\nclip98\nclip99\n")
    with pytest.raises(DataError, match=r"--clips names 2 clips that are not in .*'clip99'; take"):
        other = {"clips": str(tmp_path / "other.txt"), "batch_size": 2}
        pretrain_va(va_settings(world, tmp_path / "out", **other))
    assert not (tmp_path / "out").exists()


def test_masks_of_the_reference_resume_exactly(world, tmp_path, monkeypatch) -> None:
    from tests.test_training import Stop, stop_at

    mask = MaskSettings(rule="vip_ant", time=6, freq=4)
    pretrain_va(va_settings(world, tmp_path / "whole", mask=mask))
    settings = va_settings(world, tmp_path / "cut", mask=mask)
    with monkeypatch.context() as patch:
        stop_at(8, patch)
        with pytest.raises(Stop):
            pretrain_va(settings)
    pretrain_va(settings.model_copy(update={"resume": True, "workers": 1}))
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
    plain = va_settings(world, tmp_path / "plain", mask=MaskSettings(time=6, freq=4))
    pretrain_va(plain)
    assert column(tmp_path / "plain") != column(tmp_path / "whole")
