"""Feature fusion: the repository's numbers, one sound alone, and what the kinds differ in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pivot.encoders.fusion import KINDS, Fusion, fusion_module, no_gradient
from pivot.errors import ModelError

CASES = {
    "aff2d": "aff_2d",
    "iaff2d": "iaff_2d",
    "aff1d": "aff_1d",
    "iaff1d": "iaff_1d",
    "aff2d_b1": "aff_2d",
    "iaff2d_b1": "iaff_2d",
}


def fill(shape: tuple[int, ...], k: int) -> Tensor:
    """The goldens' data by formula (their README); 99 is the gradient that came from above."""
    i = np.arange(np.prod(shape), dtype=np.float64)
    values = np.sin(1 + k + 0.7311 * i + (0.0137 * i * i) % 1000)
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


@pytest.fixture
def golden(goldens: Path) -> dict[str, Tensor]:
    with np.load(goldens / "laion_clap" / "aff.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file}


def of_repository(golden: dict[str, Tensor], case: str) -> tuple[Fusion, Tensor, Tensor]:
    """Module of a case with the repository's weights, and its inputs."""
    module = fusion_module(CASES[case], 16)
    start = f"{case}.w."
    weights = {n.removeprefix(start): w for n, w in golden.items() if n.startswith(start)}
    module.load_state_dict(weights)
    side, rows = ("1" if "1d" in case else "2"), (1 if case.endswith("b1") else 3)
    return module, golden[f"x{side}"][:rows], golden[f"r{side}"][:rows]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_fusion_gives_the_repositorys_numbers(
    golden: dict[str, Tensor], case: str, mode: str
) -> None:
    module, x, r = of_repository(golden, case)
    x, r = x.requires_grad_(), r.requires_grad_()
    y = module.train(mode == "train")(x, r)
    # batch norm of one sound twice divides rounding by sqrt(1e-5): float64 differs by 1.7e-6 here
    atol = 3e-6 if case.endswith("b1") and mode == "train" else 1e-6
    torch.testing.assert_close(y, golden[f"{case}.{mode}.y"], rtol=1e-6, atol=atol)
    if f"{case}.{mode}.gx" in golden:
        y.backward(fill(y.shape, 99))
        assert x.grad is not None and r.grad is not None
        torch.testing.assert_close(x.grad, golden[f"{case}.{mode}.gx"], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(r.grad, golden[f"{case}.{mode}.gr"], rtol=1e-6, atol=1e-6)
    after = {n: w for n, w in golden.items() if n.startswith(f"{case}.train_after.")}
    assert len(after) in (8, 16)
    if mode == "train":
        for name, value in after.items():
            own = module.state_dict()[name.removeprefix(f"{case}.train_after.")]
            torch.testing.assert_close(own, value, rtol=1e-6, atol=1e-6)


def test_daf_is_the_sum(golden: dict[str, Tensor]) -> None:
    fused = fusion_module("daf_2d", 16)(golden["x2"], golden["r2"])
    torch.testing.assert_close(fused, golden["daf.y"], rtol=0, atol=1e-6)


def test_textbook_iaff_asks_its_own_global_branch(golden: dict[str, Tensor]) -> None:
    module, x, r = of_repository(golden, "iaff2d")
    textbook = fusion_module("iaff_2d_textbook", 16)
    textbook.load_state_dict(module.state_dict())
    ours, theirs = textbook.eval()(x, r), module.eval()(x, r)
    assert abs((ours - theirs).abs().max().item() - 0.19) < 0.01  # the goldens' README says so
    textbook.global_att2.load_state_dict(textbook.global_att.state_dict())  # type: ignore[union-attr]
    torch.testing.assert_close(textbook(x, r), theirs, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_each_sound_is_fused_alone_at_inference(kind: str) -> None:
    torch.manual_seed(0)
    module = fusion_module(kind, 8)
    shape = (5, 8, 6) if "1d" in kind else (5, 8, 6, 3)
    x, r = torch.randn(shape), torch.randn(shape)
    module(x, r)  # moves the running statistics away from 0 and 1
    module.eval()
    alone = torch.cat([module(x[i : i + 1], r[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(module(x, r), alone, rtol=0, atol=1e-6)
    torch.testing.assert_close(module(x.flip(0), r.flip(0)).flip(0), alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_one_sound_trains_every_parameter(kind: str) -> None:
    torch.manual_seed(0)
    module = fusion_module(kind, 8)
    shape = (1, 8, 6) if "1d" in kind else (1, 8, 6, 3)
    fused = module(torch.randn(shape), torch.randn(shape))
    assert fused.shape == shape and fused.isfinite().all()
    fused.square().sum().backward() if list(module.parameters()) else None
    for name, p in module.named_parameters():
        assert p.grad is not None, name
        unused = "textbook" not in kind and name.startswith("global_att2")
        assert not unused or not p.grad.any(), name


def test_r_is_how_narrow_the_branches_are() -> None:
    weights = fusion_module("aff_2d", 96, r=4).state_dict()
    assert weights["local_att.0.weight"].shape == (24, 96, 1, 1)
    assert fusion_module("aff_1d", 64, r=8).state_dict()["global_att.1.weight"].shape == (8, 64, 1)


def test_no_gradient_is_zero_and_reaches_everything() -> None:
    module = torch.nn.Linear(3, 2)
    zero = no_gradient(module)
    zero.backward()
    assert zero.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in module.parameters())
    assert no_gradient(fusion_module("daf_2d", 4)).item() == 0


def test_unknown_kind_and_too_narrow_maps_are_refused() -> None:
    with pytest.raises(ModelError, match="no fusion module of kind 'aff_3d'; there are: aff_1d"):
        fusion_module("aff_3d", 16)
    with pytest.raises(ModelError, match="needs r of at most 2, not 4"):
        fusion_module("aff_2d", 2)
