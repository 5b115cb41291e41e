"""The contrastive loss: recorded numbers, gathers over processes, soft targets, the scale."""

import math
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from pivot.training.loss import LogitScale, contrastive, mlp_loss

N, D = 12, 16
# never by fork: a child cannot use the threads that torch has started in its parent, and waits
# (the server lives for the whole session, so what later tests start from it is loaded too)
PRELOADED = [__name__, "pivot.training.commands", "tests.gang"]


@pytest.fixture(scope="module")
def golden(goldens: Path) -> dict[str, np.ndarray]:
    with np.load(goldens / "vip_ant" / "infonce.npz") as arrays:
        return dict(arrays)


def leaf(x: np.ndarray) -> torch.Tensor:
    return torch.tensor(x, requires_grad=True)


def close(found: torch.Tensor | None, wanted: np.ndarray, rtol: float = 1e-5) -> None:
    assert found is not None
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=rtol, atol=1e-5)


@pytest.mark.parametrize(
    ("tag", "maximum"),
    [("init", None), ("init_prenorm", None), ("clip100", None), ("s5", None), ("s5_max100", 100)],
)
def test_loss_and_gradients_are_the_papers(golden, tag: str, maximum: float | None) -> None:
    a, b = leaf(golden["x1"]), leaf(golden["x2"])
    scale = LogitScale(math.exp(golden[f"{tag}/logit_scale"]), maximum)
    before = (lambda x: F.normalize(x, dim=-1)) if tag == "init_prenorm" else (lambda x: x)
    loss = contrastive(before(a), before(b), scale())
    loss.backward()
    close(loss, golden[f"{tag}/loss"])
    close(a.grad, golden[f"{tag}/grad_x1"])
    close(b.grad, golden[f"{tag}/grad_x2"])
    close(scale.log_scale.grad, golden[f"{tag}/grad_logit_scale"])


@pytest.mark.parametrize("tag", ["va_at", "at", "vat"])
def test_sums_of_two_losses_are_the_three_way_head(golden, tag: str) -> None:
    sides = {name: leaf(golden[f"x{i}"]) for i, name in enumerate(("image", "audio", "text"), 1)}
    pairs = {"va": ("image", "audio"), "at": ("audio", "text"), "vat": ("image", "text")}
    terms = {"va_at": ("va", "at"), "at": ("at",), "vat": ("va", "at", "vat")}[tag]
    loss = sum(contrastive(sides[pairs[t][0]], sides[pairs[t][1]], 1 / 0.07) for t in terms)
    loss.backward()
    close(loss, golden[f"{tag}/loss"])
    for name, side in sides.items():
        if f"{tag}/grad_{name}" in golden:
            close(side.grad, golden[f"{tag}/grad_{name}"])


def test_mean_is_half_of_sum_and_length_does_not_matter() -> None:
    a, b = torch.randn(2, N, D, generator=torch.Generator().manual_seed(0))
    loss = contrastive(a, b, 5.0)
    torch.testing.assert_close(contrastive(a, b, 5.0, reduction="mean"), loss / 2)
    torch.testing.assert_close(contrastive(3 * a, 0.1 * b, 5.0), loss)
    torch.testing.assert_close(contrastive(b, a, 5.0), loss)


def test_autocast_does_not_reach_the_loss() -> None:
    a, b = torch.randn(2, N, D, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrastive(a, b, 100.0)
    assert loss.dtype == torch.float32
    assert loss == contrastive(a, b, 100.0)


def test_targets_of_the_diagonal_change_nothing_and_soft_ones_are_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 4, 8, generator=generator, dtype=torch.float64)
    diagonal = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(contrastive(a, b, 7.0, diagonal), contrastive(a, b, 7.0))
    soft = torch.rand(4, 4, generator=generator, dtype=torch.float64)
    soft /= soft.sum(1, keepdim=True)
    cosines = 7.0 * F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
    forth = -(soft * cosines.log_softmax(1)).sum() / 4
    back = -(soft / soft.sum(0) * cosines.log_softmax(0)).sum() / 4
    torch.testing.assert_close(contrastive(a, b, 7.0, soft), forth + back)


def test_wrong_shapes_and_reductions_are_named() -> None:
    a = torch.ones(4, 8)
    with pytest.raises(ValueError, match=r"\(4, 8\) and \(3, 8\)"):
        contrastive(a, a[:3], 1.0)
    with pytest.raises(ValueError, match=r"targets must be \(4, 4\), not \(3, 4\)"):
        contrastive(a, a, 1.0, torch.ones(3, 4))
    with pytest.raises(ValueError, match="sum or mean, not 'max'"):
        contrastive(a, a, 1.0, reduction="max")  # type: ignore[arg-type]


def test_scale_starts_where_it_is_told_and_can_be_frozen() -> None:
    scale = LogitScale(1 / 0.07)
    assert scale.log_scale.item() == pytest.approx(2.65926, abs=1e-5)
    assert scale().item() == pytest.approx(1 / 0.07, rel=1e-6)
    assert not LogitScale(1.0, learn=False).log_scale.requires_grad


def _whole_batch() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    a, b = torch.randn(2, N, D, generator=generator, dtype=torch.float64)
    targets = torch.rand(N, N, generator=generator, dtype=torch.float64)
    return a, b, targets / targets.sum(1, keepdim=True)


SIZES = ((6, 6), (7, 5), (5, 4, 3, 0))  # rows of each process; a short batch may leave one empty


def _one_process(rank: int, sizes: tuple[int, ...], folder: str) -> None:
    world = len(sizes)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world)
    rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    found = []
    for soft in (False, True):
        a, b, targets = (x[rows].clone() for x in _whole_batch())
        log_scale = torch.tensor(1.5, dtype=torch.float64)
        leaves = [x.requires_grad_() for x in (a, b, log_scale)]
        loss = contrastive(a, b, log_scale.exp(), targets if soft else None)
        (loss / world).backward()  # the mean that data parallel training takes
        found.append([loss.detach(), *(x.grad for x in leaves)])
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_processes_have_the_gradient_of_one_with_the_whole_batch(tmp_path: Path, sizes) -> None:
    world = len(sizes)
    multiprocessing.set_forkserver_preload(PRELOADED)
    mp.start_processes(
        _one_process, (sizes, str(tmp_path)), nprocs=world, start_method="forkserver"
    )
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(world)]
    for kind, soft in enumerate((False, True)):
        a, b, targets = _whole_batch()
        log_scale = torch.tensor(1.5, dtype=torch.float64)
        leaves = [x.requires_grad_() for x in (a, b, log_scale)]
        loss = contrastive(a, b, log_scale.exp(), targets if soft else None)
        loss.backward()
        own = [part[kind] for part in parts]
        torch.testing.assert_close(sum(part[0] for part in own) / world, loss.detach())
        for i, leaf in enumerate(leaves[:2], 1):
            whole = torch.cat([part[i] for part in own])
            torch.testing.assert_close(whole, leaf.grad, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(sum(part[3] for part in own), log_scale.grad)


# ---- LAION-CLAP's, whose numbers of one process are in tests/test_laion_loss.py -----------------

LAION = ("A", "T", "Am", "Tm", "log_scale_a", "log_scale_t")


@pytest.fixture(scope="module")
def laion(goldens: Path) -> dict[str, np.ndarray]:
    with np.load(goldens / "laion_clap" / "clip_loss.npz") as arrays:
        return dict(arrays)


def leaves_of(numbers: dict[str, np.ndarray], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(numbers[name], dtype=dtype, requires_grad=True) for name in LAION}


def _laion(rank: int, folder: str, laion: dict[str, np.ndarray]) -> None:
    """The golden's rows without MLPs, and parts of 7 and 5 and of 12 and 0 with them."""
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    found = []
    for sizes in ((6, 6), (7, 5), (12, 0)):
        x = leaves_of(laion, torch.float32 if sizes == (6, 6) else torch.float64)
        rows = slice(rank * sizes[0], rank * sizes[0] + sizes[rank])
        own = [x[name].detach()[rows].clone().requires_grad_() for name in LAION[:4]]
        scales = [x[name] for name in LAION[4:]]
        if sizes == (6, 6):
            loss = contrastive(*own[:2], scales[0].exp(), reduction="mean", unit=(False, False))
        else:
            loss = mlp_loss(*own, *(s.exp() for s in scales), 5.0, unit=(False, False))
        loss.backward()
        found.append([loss.detach(), *(leaf.grad for leaf in (*own, *scales))])
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_processes_have_laions_gradient(laion, tmp_path: Path) -> None:
    """Of local rows gathered with gradient; with MLPs and weights that of the whole batch."""
    multiprocessing.set_forkserver_preload(PRELOADED)
    mp.start_processes(_laion, (str(tmp_path), laion), nprocs=2, start_method="forkserver")
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for rank, (case, *_) in enumerate(parts):
        for name, value in zip(("loss", "g_a", "g_t", "g_s"), (*case[:3], case[5]), strict=True):
            wanted = laion[f"w2.local1.grad1.r{rank}.{name}"]
            assert np.abs(value.numpy() - wanted).max() <= 1e-6 * np.abs(wanted).max(), name
    x = leaves_of(laion, torch.float64)
    scales = [x[name].exp() for name in LAION[4:]]
    whole = mlp_loss(*(x[name] for name in LAION[:4]), *scales, 5.0, unit=(False, False))
    whole.backward()
    for case in (1, 2):
        own = [part[case] for part in parts]
        torch.testing.assert_close((own[0][0] + own[1][0]) / 2, whole.detach())
        for i, name in enumerate(LAION, 1):
            joined = torch.cat([part[i] for part in own]) if i < 5 else own[0][i] + own[1][i]
            torch.testing.assert_close(joined / 2, x[name].grad, rtol=1e-9, atol=1e-12)
