"""Trainings of every kind of audio encoder: the loss falls, and what is resumed is the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pivot.audio.views import pack
from pivot.encoders import build_audio
from pivot.encoders.table import ENCODERS
from pivot.errors import SettingsError
from pivot.model import load
from pivot.settings import TrainAt
from pivot.settings.parts import HearsSettings
from pivot.training.batch_norms import batch_norms, join_batch_norms
from pivot.training.commands import train_at
from pivot.training.module import Contrast
from pivot.training.partners import TablePartners
from tests import toy
from tests.test_text_encoder import killed_after, write_model
from tests.toy_runs import column, weights_of

CLIPS = 16
FUSED = {"fusion": "aff_2d"}
HTSAT = {"kind": "htsat", "width": 8, "depths": (1, 1), "heads": (2, 2), "spec_size": 64}
CNN14 = {"kind": "cnn14", "channels": (8, 12, 16)}
# Small ones of every kind, in windows of 0.4 s: shorter than some of the toy sounds.
SMALL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "vit": (toy.ENCODER.model_dump(), toy.AUDIO.model_dump()),
    "ast": (
        {"kind": "ast", "width": 32, "depth": 2, "heads": 2},
        {"num_mel_bins": 32, "num_frames": 40},
    ),
    "passt": (
        {"kind": "passt", "width": 32, "depth": 2, "heads": 2, "patch": 8, "stride": (8, 8),
         "patchout_time": 2, "patchout_freq": 1},
        {"num_mel_bins": 32, "num_frames": 40},
    ),
    "atst": (
        {"kind": "atst", "width": 32, "depth": 2, "heads": 2, "drop_path": 0.1},
        {"num_mel_bins": 32, "num_frames": 40},
    ),
    "mobilenet": (
        {"kind": "mobilenet", "width_mult": 0.1},
        {"num_mel_bins": 64, "num_frames": 40},
    ),
    "cnn14": (CNN14, {"num_mel_bins": 32, "num_frames": 40}),
    "cnn14 fused": (CNN14 | FUSED, {"num_mel_bins": 32, "num_frames": 41}),
    "htsat": (HTSAT, {"num_mel_bins": 16, "num_frames": 41}),
    "htsat fused": (HTSAT | FUSED, {"num_mel_bins": 16, "num_frames": 41}),
}  # fmt: skip


# What is drawn or left out while they train; without it a batch has one loss.
STILL: dict[str, dict[str, Any]] = {
    "passt": {"patchout_time": 0, "patchout_freq": 0},
    "atst": {"drop_path": 0},
    "cnn14": {"dropout": 0, "dropout_out": 0},
    "htsat": {"drop_path": 0, "stripes": False},
}
CAPTIONS = ("a dog", "the red cat", "a bell rings", "the car of rain")  # one for each kind of sound


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sounds, captions of four clips, a CLIP and a BERT."""
    folder = tmp_path_factory.mktemp("world")
    toy.toy_shards(folder / "shards", clips=CLIPS)
    rows = [{"id": f"clip{i}", "caption": text} for i, text in enumerate(CAPTIONS)]
    (folder / "four.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    toy.write_gold(folder / "gold.jsonl", range(CLIPS))
    toy.toy_clip(folder / "clip")
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    write_model(folder / "bert", initializer_range=0.2, **none)
    return folder


def at_settings(world: Path, out: Path, name: str, **values: Any) -> TrainAt:
    """A training as LAION-CLAP's, from encoders with random weights."""
    encoder, audio = SMALL[name]
    text = {"kind": "hf", "model": str(world / "bert"), "max_tokens": 12, "pooling": "mean"}
    common: dict[str, Any] = {
        "shards": str(world / "shards"),
        "pairs": str(world / "gold.jsonl"),
        "out": str(out),
        "clip": {"model": str(world / "clip")} if name == "vit" else {},
        "encoder": encoder,
        "audio": audio,
        "project": {"kind": "mlp", "dim": 16},
        "text": text | {"projection": {"kind": "mlp"}},
        "mask": {"time": 0, "freq": 0},
        "batch_size": 8,
        "warmup_epochs": 0,
        "optim": {"kind": "adam", "lr": 5e-4, "weight_decay": 0},
        "loss": {"reduction": "mean"},
        "precision": "fp32",
        "device": "cpu",
        "log_every": 1,
    }
    return TrainAt(**common | values)


def test_every_kind_of_the_table_is_here() -> None:
    assert {encoder["kind"] for encoder, _ in SMALL.values()} == set(ENCODERS)


@pytest.mark.parametrize("name", SMALL)
def test_three_steps_lower_the_loss(name: str, world: Path, tmp_path: Path) -> None:
    """And a few more bring it below that of features which do not know one clip from another."""
    encoder = SMALL[name][0]
    settings = at_settings(
        world,
        tmp_path / "run",
        name,
        encoder=encoder | STILL.get(encoder["kind"], {}),
        pairs=str(world / "four.jsonl"),
        batch_size=4,
        max_steps=10,
    )
    assert train_at(settings) == 0
    losses = column(tmp_path / "run")
    assert len(losses) == 10 and losses[2] < losses[0] and losses[9] < math.log(4)
    model = load(tmp_path / "run")
    assert model.audio.settings.kind == encoder["kind"] and model.dim == 16


@pytest.mark.parametrize("name", ["passt", "atst", "cnn14 fused", "htsat"])
def test_what_draws_resumes_exactly(name: str, world: Path, tmp_path: Path) -> None:
    """Patches, branches, values and stripes that are left out, MLPs of the loss, batch norms."""
    changes: dict[str, Any] = {"max_steps": 4, "checkpoint_every": 1}
    changes["loss"] = {"mlp": True, "kappa": 5, "scale_max": 100, "scale_clamp": "step"}
    whole, part = (at_settings(world, tmp_path / n, name, **changes) for n in ("whole", "part"))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    train_at(whole)
    assert torch.equal(before, torch.get_rng_state())
    killed_after(part, 2)
    torch.manual_seed(8)
    train_at(part.model_copy(update={"resume": True}))
    assert column(tmp_path / "part") == column(tmp_path / "whole")
    assert weights_of(tmp_path / "part") == weights_of(tmp_path / "whole")


def test_running_statistics_are_kept(world: Path, tmp_path: Path) -> None:
    """They are no parameters: in the checkpoint and in the model, and used where it encodes."""
    train_at(at_settings(world, tmp_path / "run", "cnn14", max_steps=2))
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    saved = load_file(tmp_path / "run" / "model" / "model.safetensors")
    names = [name for name in saved if "running" in name or "num_batches" in name]
    assert len(names) == 21  # three of each of seven batch norms
    for name in names:
        assert torch.equal(saved[name], state["weights"][f"encoder.{name}"]), name
        assert name.endswith("var") or saved[name].abs().sum() > 0, name
    assert int(saved["encoder.bn0.num_batches_tracked"]) == 2
    model = load(tmp_path / "run")
    x = torch.randn(3, 40, 32, generator=torch.Generator().manual_seed(1))
    one, all_three = model.encode_fbank(x[:1]), model.encode_fbank(x)
    assert torch.equal(one[0], all_three[0])


# ---- batch norm, chunks and processes -----------------------------------------------------------


@pytest.mark.parametrize("name", ["cnn14", "mobilenet", "htsat fused"])
def test_no_chunks_with_batch_norm(name: str, world: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--grad-cache 4 cannot be exact with batch norm.*enc"):
        train_at(at_settings(world, tmp_path / "run", name, grad_cache=4))
    assert not (tmp_path / "run").exists()


def task_of(*norms: nn.Module) -> Contrast:
    return Contrast(nn.Sequential(nn.Linear(4, 4), *norms), {"text": TablePartners(None)})  # type: ignore[arg-type]


def test_batch_norms_that_train() -> None:
    """Those that are frozen, as the layers below a classifier's, take no batch's statistics."""
    assert batch_norms(task_of(nn.BatchNorm1d(4), nn.LayerNorm(4))) == ["encoder.1"]
    still = nn.BatchNorm1d(4)
    still.train = lambda mode=True: nn.Module.train(still, False)  # type: ignore[assignment,method-assign]
    task = task_of(still)
    task.eval()
    assert batch_norms(task) == [] and not task.training


def test_batch_norms_of_several_gpus_are_joined() -> None:
    task = task_of(nn.BatchNorm1d(4))
    names, values = zip(*task.named_parameters(), strict=True)
    assert join_batch_norms(task, "cuda:1", 1) is None
    assert "own part of a batch" in str(join_batch_norms(task, "cpu", 2))
    assert type(task.encoder[1]) is nn.BatchNorm1d
    assert "1 batch norms take the statistics of all 2" in str(join_batch_norms(task, "cuda:1", 2))
    assert type(task.encoder[1]) is nn.SyncBatchNorm
    after = dict(task.named_parameters())
    assert list(after) == list(names) and all(
        a is b for a, b in zip(after.values(), values, strict=True)
    )
    x = torch.randn(5, 4)
    plain = nn.BatchNorm1d(4).eval()
    assert torch.allclose(task.encoder[1].eval()(x), plain(x))
    assert join_batch_norms(task_of(nn.LayerNorm(4)), "cuda", 2) is None


@pytest.mark.parametrize("name", [name for name in SMALL if name != "vit"])
def test_every_weight_has_a_gradient(name: str) -> None:
    """Data parallel training waits for each of them, also where no sound is longer."""
    settings = HearsSettings(encoder=SMALL[name][0], audio=SMALL[name][1])
    encoder = build_audio(None, settings.encoder, settings.audio, 1).train()
    x = torch.randn(3, settings.audio.num_frames, settings.audio.num_mel_bins)
    if "fused" in name:
        x = pack(x[:, None].expand(-1, 4, -1, -1), torch.tensor([[1.0, 0, 0, 0]] * 3))
    encoder(x).square().sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []
