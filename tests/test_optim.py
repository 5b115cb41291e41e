"""Optimisers and schedules: recorded steps of LARS, Muon against torch's and the SVD, rates."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pivot.errors import SettingsError
from pivot.settings import AdamSettings, AdamWSettings, FitSettings, LarsSettings, MuonSettings
from pivot.training.optim import (
    build_optimizer,
    describe,
    orthogonal,
    peak_rates,
    set_rates,
)
from pivot.training.schedule import Schedule, schedule

NAMES = ("W", "K", "b", "c", "s", "Z")


@pytest.fixture(scope="module")
def golden(goldens: Path) -> dict[str, np.ndarray]:
    with np.load(goldens / "vip_ant" / "lars.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("decay", ["1e-6", "1e-1"])
def test_lars_walks_the_recorded_twenty_steps(golden, decay: str) -> None:
    named = [(n, nn.Parameter(torch.tensor(golden[f"init/{n}"]))) for n in NAMES]
    optimizer = build_optimizer(named, LarsSettings(weight_decay=float(decay)), 432)
    plan = Schedule(steps=20, warmup=8, final=0.001)
    for step in range(20):
        rates = set_rates(optimizer, plan.share(step))
        assert rates["weights"] == pytest.approx(golden[f"wd{decay}/lr_w"][step], rel=1e-12)
        assert rates["biases"] == pytest.approx(golden[f"wd{decay}/lr_b"][step], rel=1e-12)
        for name, p in named:
            p.grad = torch.tensor(golden[f"wd{decay}/grad/{name}"][step])
        optimizer.step()
        for name, p in named:
            wanted = golden[f"wd{decay}/param/{name}"][step]
            np.testing.assert_allclose(p.detach().numpy(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("tag", "batch", "steps", "warmup", "rates"),
    [
        ("sched_va", 432, 3971 * 25, 39710, (0.2, 0.0048)),
        ("sched_at25", 64, 690 * 25, 6900, (1.0, 0.024)),
        ("sched_at50", 64, 690 * 50, 6900, (1.0, 0.024)),
        ("sched_esc50", 50, 32 * 50, 320, (1.0, 0.024)),
    ],
)
def test_schedule_is_the_papers(golden, tag, batch, steps, warmup, rates) -> None:
    plan = Schedule(steps, warmup, 0.001)
    for step, of_weights, of_biases in golden[tag]:
        share = plan.share(int(step)) * batch / 256
        np.testing.assert_allclose((share * rates[0], share * rates[1]), (of_weights, of_biases))


def test_schedule_counts_steps_of_settings() -> None:
    def of(**values: object) -> Schedule:
        return schedule(FitSettings(out="x", **values), per_epoch=10)

    assert of(epochs=3) == Schedule(30, 10, 0.001)
    assert of(epochs=3, accumulate=4) == Schedule(7, 2, 0.001)
    assert of(epochs=3, max_steps=12, warmup_epochs=0.5, final_lr=0.0) == Schedule(12, 5, 0.0)
    assert of(epochs=1, warmup_epochs=0).share(0) == 1.0
    with pytest.raises(SettingsError, match="--accumulate 40 is more than the 30 batches"):
        of(epochs=3, accumulate=40)


def test_warmup_in_jumps_and_milestones_are_the_references_adam() -> None:
    """Table 5's AudioSet classifiers: 1000 steps in 20 jumps, then halved again and again."""

    def reference(step: int, milestones: list[int], counts_steps: bool) -> float:
        """The loop of the reference, which keeps the rate of a step until it is set again."""
        rate, counted, per_epoch = 1.0, 0, 13402
        for s in range(step + 1):
            warm = s + 1 <= 1000
            if warm and ((s + 1) % 50 == 0 or s == 0):
                rate = (s + 1) / 1000
            if s == step:
                return rate
            if (not warm) if counts_steps else (s + 1) % per_epoch == 0:
                counted += 1
                rate *= 0.5 if counted in milestones else 1.0
        raise AssertionError

    by_steps = [7500, 15000, 20000]
    settings = {"warmup_steps": 1000, "warmup_every": 50, "epochs": 5, "gamma": 0.5}
    shares = tuple(m / 13402 + 1e-9 for m in by_steps)
    plan = schedule(FitSettings(out="x", milestones=shares, **settings), 13402)
    assert plan.milestones == (8500, 16000, 21000)
    for step in (0, 1, 48, 49, 50, 98, 99, 998, 999, 1000, 1001, 8499, 8500, 16000, 20999, 21000):
        assert plan.share(step) == pytest.approx(reference(step, by_steps, True)), step
    settings |= {"milestones": (2, 1, 3.0), "milestones_from": "start"}
    plan = schedule(FitSettings(out="x", **settings), 13402)
    for step in (999, 13401, 13402, 26803, 26804, 40205, 40206, 50000):
        assert plan.share(step) == pytest.approx(reference(step, [1, 2, 3], False)), step


def test_warmup_in_steps_is_linear_and_ends_in_the_cosine() -> None:
    plan = schedule(FitSettings(out="x", epochs=3, warmup_steps=4), per_epoch=10)
    assert plan == Schedule(30, 4, 0.001)
    assert [plan.share(step) for step in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert schedule(FitSettings(out="x", epochs=3, warmup_steps=0), 10).share(0) == 1.0


def test_adam_is_torchs_with_decay_in_the_gradient_of_tensors_with_axes() -> None:
    model, settings = Small(), AdamSettings(lr=1e-2, weight_decay=0.5)
    optimizer = build_optimizer(model.named_parameters(), settings, 12)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    state = dict.fromkeys(before, (0.0, 0.0))
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 4):
        for name, p in model.named_parameters():
            p.grad = torch.randn(p.shape, generator=generator)
            if p.requires_grad:
                g = p.grad + (0.5 * before[name] if p.ndim > 1 else 0)
                m, v = state[name]
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
                state[name] = m, v
                up = (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)) ** 0.5 + 1e-8)
                before[name] = before[name] - 1e-2 * up
        optimizer.step()
        for name, p in model.named_parameters():
            torch.testing.assert_close(p.detach(), before[name], rtol=1e-5, atol=1e-6)


class Small(nn.Module):
    """Names and shapes like an audio encoder's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 4, bias=False)
        self.resblocks = nn.ModuleList([nn.Linear(8, 24), nn.Linear(24, 8), nn.Linear(8, 24)])
        self.proj = nn.Parameter(torch.ones(8, 4))
        self.log_scale = nn.Parameter(torch.tensor(1.0))
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)


@pytest.mark.parametrize(
    ("settings", "sizes", "rates"),
    [
        (LarsSettings(), {"weights": 5, "biases": 4}, {"weights": 0.1, "biases": 0.0024}),
        (AdamSettings(), {"weights": 5, "biases": 4}, {"weights": 5e-5, "biases": 5e-5}),
        (AdamWSettings(), {"weights": 5, "biases": 4}, {"weights": 1e-3, "biases": 1e-3}),
        (MuonSettings(), {"matrices": 3, "rest": 6}, {"matrices": 0.02, "rest": 1e-3}),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_groups_hold_every_trained_parameter_once(settings, sizes, rates) -> None:
    model = Small()
    optimizer = build_optimizer(model.named_parameters(), settings, batch_size=128)
    assert {g["name"]: len(g["params"]) for g in optimizer.param_groups} == sizes
    assert peak_rates(optimizer) == pytest.approx(rates)
    held = [id(p) for g in optimizer.param_groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    rows = describe(optimizer)
    assert len(rows) == len(sizes) and all("peak rate" in row for row in rows)
    assert set_rates(optimizer, 0.5) == pytest.approx({k: v / 2 for k, v in rates.items()})


def test_orthogonal_is_near_the_svds() -> None:
    x = torch.randn(4, 12, 30, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    assert (orthogonal(x) - u @ v).abs().max() < 0.2
    values = torch.linalg.svdvals(orthogonal(x))
    assert values.min() > 0.65 and values.max() < 1.25
    torch.testing.assert_close(orthogonal(x.mT), orthogonal(x).mT)
    assert orthogonal(torch.zeros(1, 3, 3)).eq(0).all()


def test_muon_walks_with_torchs_muon_and_adamw() -> None:
    ours, theirs = Small(), Small()
    theirs.load_state_dict(ours.state_dict())
    settings = MuonSettings(weight_decay=0.1)
    optimizer = build_optimizer(ours.named_parameters(), settings, 64)
    matrices = [p for n, p in theirs.named_parameters() if p.ndim == 2 and "resblocks" in n]
    taken = {id(p) for p in matrices} | {id(theirs.frozen)}
    rest = [p for p in theirs.parameters() if id(p) not in taken]
    others = [
        torch.optim.Muon(matrices, lr=0.02, momentum=0.95, weight_decay=0.1),
        torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        for each in (optimizer, *others):
            each.step()
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        # torch iterates in bfloat16; ours in float32 here
        bound = 0.02 * 5 * 0.02 if "resblocks" in name and p.ndim == 2 else 1e-7
        assert (p - q).abs().max() <= bound, name


@pytest.mark.parametrize(
    "settings", [LarsSettings(), AdamSettings(), AdamWSettings(), MuonSettings()]
)
def test_state_goes_on_exactly_where_it_stopped(settings) -> None:
    def walk(model: Small, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()

    torch.manual_seed(0)
    model = Small()
    optimizer = build_optimizer(model.named_parameters(), settings, 64)
    walk(model, optimizer, range(3))
    again = Small()
    again.load_state_dict(model.state_dict())
    resumed = build_optimizer(again.named_parameters(), settings, 64)
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    walk(model, optimizer, range(3, 6))
    walk(again, resumed, range(3, 6))
    for p, q in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)
