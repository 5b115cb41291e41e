"""LAION-CLAP's training: its loss with MLPs and weights, two scales, rates, and what Muon takes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from pivot.encoders import build_audio
from pivot.encoders.clip import load_clip
from pivot.model import load
from pivot.settings import (
    AdamSettings,
    FitSettings,
    LossSettings,
    MuonSettings,
    PretrainVa,
    TrainAt,
)
from pivot.settings.parts import ClipSettings, HearsSettings
from pivot.training.commands import train_at
from pivot.training.loss import LogitScale, Transform, contrastive, likeness_weights, mlp_loss
from pivot.training.module import Contrast
from pivot.training.optim import build_optimizer
from pivot.training.partners import TablePartners
from pivot.training.schedule import schedule
from tests import toy
from tests.test_encoder_trainings import SMALL
from tests.test_text_encoder import SIZES
from tests.toy_runs import at_settings, column, toy_world

N, D = 12, 16
OWN = {"A": "g_a", "T": "g_t", "Am": "g_am", "Tm": "g_tm"}
OWN |= {"log_scale_a": "g_sa", "log_scale_t": "g_st"}


@pytest.fixture(scope="module")
def golden(goldens: Path) -> dict[str, np.ndarray]:
    with np.load(goldens / "laion_clap" / "clip_loss.npz") as arrays:
        return dict(arrays)


def leaves(golden: dict[str, np.ndarray], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {name: torch.tensor(golden[name], dtype=dtype, requires_grad=True) for name in OWN}


def near(found: Any, wanted: np.ndarray, limit: float = 1e-6) -> None:
    """To 1e-6 of the largest."""
    found = found.detach().numpy() if isinstance(found, Tensor) else found
    assert np.abs(found - wanted).max() <= limit * np.abs(wanted).max()


# ---- the numbers of its code --------------------------------------------------------------------


@pytest.mark.parametrize(("tag", "kappa"), [("plain", 0.0), ("mlp", 0.0), ("mlp_kappa5", 5.0)])
@pytest.mark.parametrize("unit", [True, False], ids=["of any length", "unit vectors"])
def test_loss_and_gradients_are_laions(golden, tag: str, kappa: float, unit: bool) -> None:
    x = leaves(golden)
    a, b, scale = x["A"], x["T"], x["log_scale_a"].exp()
    if tag == "plain":
        loss = contrastive(a, b, scale, reduction="mean", unit=(unit, unit))
    else:
        more = (x["Am"], x["Tm"], scale, x["log_scale_t"].exp(), kappa)
        loss = mlp_loss(a, b, *more, unit=(unit, unit))
    loss.backward()
    near(loss, golden[f"{tag}.loss"])
    for name, theirs in OWN.items():
        if f"{tag}.{theirs}" not in golden:
            assert x[name].grad is None
            continue
        wanted = golden[f"{tag}.{theirs}"]
        if unit and name in ("A", "T"):  # the length of a vector has no part in the loss here
            along = (wanted * golden[name]).sum(1, keepdims=True)
            wanted = wanted - along * golden[name]
        near(x[name].grad, wanted)


def test_sum_is_twice_the_mean_and_clamps_and_targets_go_through(golden) -> None:
    x = leaves(golden)
    given = (x["A"], x["T"], x["Am"], x["Tm"], 14.0, 10.0)
    mean = mlp_loss(*given)
    torch.testing.assert_close(mlp_loss(*given, reduction="sum"), 2 * mean)
    torch.testing.assert_close(mlp_loss(*given, targets=torch.eye(N), back=torch.eye(N)), mean)
    flat = mlp_loss(*given, clamp=-1e3)  # all logits are one number
    assert flat.item() == pytest.approx(math.log(N), rel=1e-6)


def test_weights_of_a_batch_without_mlps() -> None:
    """Rows of a by how like the sounds are to each other, rows of b by how like the captions are.

    LAION's code has this and raises UnboundLocalError for it on one process.
    """
    generator = torch.Generator().manual_seed(3)
    a, b = torch.randn(2, 5, 8, generator=generator, dtype=torch.float64)
    unit = [F.normalize(x, dim=1) for x in (a, b)]
    logits = 7 * unit[0] @ unit[1].T
    total = 0.0
    for x, found in ((unit[0], logits), (unit[1], logits.T)):
        weights = ((x @ x.T).sum(1) / (0.4 * 5)).exp()
        total += float(F.cross_entropy(found, torch.arange(5), weight=weights))
    ours = (likeness_weights(3 * a, 0.4), likeness_weights(0.1 * b, 0.4))
    assert all(w.mean().item() == pytest.approx(1) and w.std() > 0.05 for w in ours)
    torch.testing.assert_close(contrastive(a, b, 7.0, weights=ours).item(), total)
    assert not likeness_weights(a.requires_grad_(), 0.4).requires_grad


# ---- MLPs and scales of a training --------------------------------------------------------------


def test_a_transform_is_a_small_mlp_of_unit_vectors() -> None:
    before = torch.get_rng_state()
    one = Transform(6, 1, "audio").eval()
    assert torch.equal(before, torch.get_rng_state())
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    w, c, v, d = one.state_dict().values()
    wanted = (F.normalize(x, dim=1) @ w.T + c).relu() @ v.T + d
    torch.testing.assert_close(one(5 * x), wanted)
    assert [m.p for m in one.modules() if isinstance(m, nn.Dropout)] == [0.1]
    starts = [
        Transform(6, *key).layers[0].weight for key in ((1, "audio"), (1, "text"), (2, "text"))
    ]
    assert torch.equal(starts[0], one.layers[0].weight)
    assert not torch.equal(starts[0], starts[1]) and not torch.equal(starts[1], starts[2])


@pytest.mark.parametrize(
    ("start", "low", "high"), [(120.0, 1, 100), (0.5, 1, 100), (30.0, None, 20)]
)
def test_a_scale_is_clamped_in_the_loss_or_after_a_step(start: float, low: Any, high: Any) -> None:
    """Beyond the clamps of the loss there is no gradient, so it never comes back (as CLIP's)."""
    plain = LossSettings(scale_min=low, scale_max=high)
    kept = high if start > 1 else low
    forward, step = (
        LogitScale.of(plain.model_copy(update={"scale_clamp": clamp}), start)
        for clamp in ("forward", "step")
    )
    forward().backward()
    assert forward().item() == pytest.approx(kept) and forward.log_scale.grad == 0
    forward.clamp_()
    assert forward.log_scale.item() == pytest.approx(math.log(start))
    step().backward()
    assert step().item() == pytest.approx(start) and step.log_scale.grad > 0
    step.clamp_()
    assert step.log_scale.item() == pytest.approx(math.log(kept))
    assert LogitScale(start)().item() == pytest.approx(start)


def test_settings_that_cannot_be() -> None:
    for values in (
        {"scale_min": 5, "scale_max": 4},
        {"scale_max": 0},
        {"scale_min": 0},
        {"kappa": -1},
    ):
        with pytest.raises(ValidationError):
            LossSettings(**values)
    with pytest.raises(ValidationError, match="for sounds and captions"):
        PretrainVa(shards="s", out="o", loss={"mlp": True})
    at: dict[str, Any] = {"shards": "s", "out": "o", "pairs": "p", "loss": {"kappa": 1}}
    with pytest.raises(ValidationError, match=r"need --terms\.audio-text"):
        TrainAt(**at, terms={"audio_text": 0, "image_audio": 1})
    with pytest.raises(ValidationError, match=r"do not go with --targets\.kind soft"):
        TrainAt(**at, targets={"kind": "soft"})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_world(tmp_path_factory.mktemp("world"))


def fresh(world: Path, out: Path, **values: Any) -> TrainAt:
    """Six steps against frozen captions, from the toy CLIP."""
    common: dict[str, Any] = {
        "model": "", "clip": {"model": str(world / "clip")}, "audio": toy.AUDIO,
        "encoder": toy.ENCODER, "max_steps": 6, "log_every": 1, "warmup_epochs": 0,
        "mask": {"time": 0, "freq": 0}, "optim": {"kind": "adam", "lr": 1e-3, "weight_decay": 0},
    }  # fmt: skip
    return at_settings(world, out, **common | values)


def kept(out: Path) -> set[str]:
    """Names of a checkpoint's weights that are not the encoder's."""
    state = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    return {name for name in state["weights"] if not name.startswith("encoder.")}


def test_the_mlps_train_beside_the_model(world: Path, tmp_path: Path) -> None:
    laion = {"mlp": True, "reduction": "mean", "scale_min": 1, "scale_max": 100}
    train_at(fresh(world, tmp_path / "run", loss=laion | {"scale_clamp": "step"}, max_steps=20))
    train_at(fresh(world, tmp_path / "chunks", loss=laion, grad_cache=2, max_steps=20))
    train_at(fresh(world, tmp_path / "plain"))
    losses = column(tmp_path / "run")
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    assert column(tmp_path / "chunks") == pytest.approx(losses, rel=1e-3)  # no scale is at a clamp
    inner = {f"transforms.{side}.layers.{i}.{part}" for side in ("audio", "text")
             for i in (0, 3) for part in ("weight", "bias")}  # fmt: skip
    scales = {"scales.audio_text.log_scale", "scales.text_audio.log_scale"}
    assert kept(tmp_path / "run") == inner | scales
    assert kept(tmp_path / "plain") == {"scales.audio_text.log_scale"}
    first = Transform(16, 1213, "text").state_dict()
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    for name, value in first.items():
        assert not torch.equal(state["weights"][f"transforms.text.{name}"], value)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(results["scales"]) == {"audio_text", "text_audio"}
    model = load(tmp_path / "run")
    assert model.scale == results["scales"]["audio_text"] != results["scales"]["text_audio"]
    names = load_file(tmp_path / "plain" / "model" / "model.safetensors")
    assert model.audio.state_dict().keys() == names.keys()


def test_weights_of_items_change_a_training(world: Path, tmp_path: Path) -> None:
    train_at(fresh(world, tmp_path / "plain", max_steps=2))
    train_at(fresh(world, tmp_path / "huge", max_steps=2, loss={"kappa": 1e9}))
    train_at(fresh(world, tmp_path / "small", max_steps=2, loss={"kappa": 0.1}))
    one, huge, small = (column(tmp_path / name) for name in ("plain", "huge", "small"))
    assert huge == pytest.approx(one, rel=1e-5) and abs(small[0] - one[0]) > 1e-3
    assert kept(tmp_path / "small") == {"scales.audio_text.log_scale"}


def test_a_learnt_scale_stays_between_its_clamps(world: Path, tmp_path: Path) -> None:
    fast = {"optim": {"kind": "adam", "lr": 0.05, "weight_decay": 0}, "max_steps": 8}
    for clamp in ("forward", "step"):
        loss = {"scale_init": 14, "scale_max": 14.5, "scale_min": 13.5, "scale_clamp": clamp}
        train_at(fresh(world, tmp_path / clamp, loss=loss, **fast))
    found = column(tmp_path / "step", "scale")
    assert found[0] == pytest.approx(13.5)  # 14 exp(-0.05) is less
    assert all(13.4999 <= x <= 14.5001 for x in found)
    inner = {}
    for clamp in ("forward", "step"):
        state = torch.load(tmp_path / clamp / "checkpoints" / "last.ckpt", weights_only=True)
        inner[clamp] = state["weights"]["scales.audio_text.log_scale"].exp().item()
        assert load(tmp_path / clamp).scale == pytest.approx(column(tmp_path / clamp, "scale")[-1])
    assert inner["forward"] < 13.4 and inner["step"] >= 13.4999


# ---- rates and optimisers -----------------------------------------------------------------------


def test_rates_are_laions() -> None:
    """scheduler.py of its code: linear to step 3200 from (step + 1), then a cosine to zero."""
    laion: dict[str, Any] = {
        "out": "o", "epochs": 45, "warmup_steps": 3200, "warmup_from": "first", "final_lr": 0,
        "optim": {"kind": "adam", "lr": 1e-4, "weight_decay": 0},
    }  # fmt: skip
    settings = FitSettings(**laion)
    assert settings.optim == AdamSettings(lr=1e-4, weight_decay=0, betas=(0.9, 0.999))
    plan = schedule(settings, 551)
    assert plan.steps == 45 * 551
    for step in (0, 1, 49, 3198, 3199, 3200, 3201, 14000, plan.steps - 1):
        if step < 3200:
            wanted = 1e-4 * (step + 1) / 3200
        else:
            part = (step - 3200) / (plan.steps - 3200)
            wanted = 0.5 * (1 + math.cos(math.pi * part)) * 1e-4
        assert plan.share(step) * 1e-4 == pytest.approx(wanted, rel=1e-12), step
    ours = schedule(FitSettings(**laion | {"warmup_from": "zero"}), 551)
    assert ours.share(0) == 0 and ours.share(1600) == 0.5
    adam = build_optimizer(nn.Linear(3, 3).named_parameters(), settings.optim, 2304)
    assert adam.defaults["eps"] == 1e-8 and [g["weight_decay"] for g in adam.param_groups] == [0, 0]


def matrices(module: nn.Module) -> set[str]:
    """Names of what Muon takes as matrices."""
    named = list(module.named_parameters())
    optimizer = build_optimizer(named, MuonSettings(), 8)
    taken = [id(p) for g in optimizer.param_groups if g["matrices"] for p in g["params"]]
    return {name for name, p in named if id(p) in taken}


def test_muon_takes_the_matrices_of_every_transformer(world: Path) -> None:
    vit = load_clip(ClipSettings(model=str(world / "clip")))
    task = Contrast(build_audio(vit, toy.ENCODER, toy.AUDIO, 1), {"text": TablePartners(None)})  # type: ignore[arg-type]
    named = [(name, p) for name, p in task.named_parameters() if p.ndim == 2]
    assert matrices(task) == {name for name, _ in named if "resblocks" in name}
    assert len(matrices(task)) == 2 * 4
    bert = BertModel(BertConfig(**SIZES))
    assert len(matrices(bert)) == 2 * 6 and all("encoder.layer." in name for name in matrices(bert))
    for kind, blocks in (("passt", 2), ("atst", 2), ("ast", 2)):
        settings = HearsSettings(encoder=SMALL[kind][0], audio=SMALL[kind][1])
        encoder = build_audio(None, settings.encoder, settings.audio, 1)
        taken = matrices(encoder)
        assert len({name.rsplit(".", 2)[0].split(".")[-2] for name in taken}) and taken
        for name, p in encoder.named_parameters():
            inside = any(p is q for block in encoder.layers()[1] for q in block.parameters())
            assert (name in taken) == (inside and p.ndim == 2), name
        assert len(encoder.layers()[1]) == blocks
    htsat = HearsSettings(encoder=SMALL["htsat"][0], audio=SMALL["htsat"][1])
    taken = matrices(build_audio(None, htsat.encoder, htsat.audio, 1))
    assert taken and not any("position" in name for name in taken)
