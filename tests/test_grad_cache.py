"""GradCache: gradients of a batch encoded in chunks are those of the whole batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pivot.data.choices import mask_batch
from pivot.encoders.vit import AudioVit
from pivot.encoders.vit_shape import VisualFacts, VitShape
from pivot.settings import AudioSettings, LarsSettings, MaskSettings, VitSettings
from pivot.training.commands import pretrain_va
from pivot.training.loss import LogitScale, contrastive
from pivot.training.module import encode_in_chunks
from tests.toy_runs import column, far_apart, toy_world, va_settings

B, DIM = 13, 24
SHAPE = VitShape(
    width=64, layers=2, hidden=256, dim=DIM, patch=(8, 8), grid=(4, 4),
    norm_before=True, layer_scale=False, facts=VisualFacts(heads=2),
)  # fmt: skip


def masked_sounds() -> Tensor:
    fbank = torch.randn(B, 64, 32, generator=torch.Generator().manual_seed(1))
    mask = MaskSettings(rule="vip_ant", time=12, freq=6)
    mask_batch(fbank, mask, 5, 0, np.arange(B), B)
    assert (fbank == 0).any()
    return fbank


def gradients(encoder: nn.Module, chunk: int) -> dict[str, Tensor]:
    """Gradients of the loss against fixed partners, the scale's among them."""
    encoder.zero_grad()
    scale = LogitScale(1 / 0.07)
    partners = torch.randn(B, DIM, generator=torch.Generator().manual_seed(2))
    sounds = encode_in_chunks(encoder, masked_sounds(), chunk)
    loss = contrastive(sounds, partners, scale())
    loss.backward()
    named = [*encoder.named_parameters(), *scale.named_parameters()]
    return {"loss": loss.detach()} | {name: p.grad.clone() for name, p in named}


@pytest.mark.parametrize("kernel", ["runtime_mean", "load_mean"])
@pytest.mark.parametrize("chunk", [1, 4, 12])
def test_gradients_of_a_vit_are_those_of_the_whole_batch(chunk, kernel) -> None:
    audio = AudioSettings(num_mel_bins=32, num_frames=64)
    encoder = AudioVit.random(SHAPE, VitSettings(stride=(4, 6), kernel=kernel), audio, 3)
    whole, cached = gradients(encoder, 0), gradients(encoder, chunk)
    for name, wanted in whole.items():
        assert (cached[name] - wanted).abs().max() <= 1e-5 * wanted.abs().max(), name


class Dropping(nn.Module):
    """An encoder with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64 * 32, DIM)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(nn.functional.dropout(x.flatten(1), 0.5, self.training))


def test_random_numbers_are_drawn_again_for_the_second_pass() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Dropping()
        torch.manual_seed(9)
        cached = gradients(encoder, 4)
        after = torch.get_rng_state()
        torch.manual_seed(9)
        sounds = torch.cat([encoder(part) for part in masked_sounds().split(4)])
        assert torch.equal(after, torch.get_rng_state())
        encoder.zero_grad()
        partners = torch.randn(B, DIM, generator=torch.Generator().manual_seed(2))
        contrastive(sounds, partners, 1 / 0.07).backward()
        torch.testing.assert_close(cached["linear.weight"], encoder.linear.weight.grad)


def test_only_features_are_kept_between_the_passes() -> None:
    audio = AudioSettings(num_mel_bins=32, num_frames=64)
    encoder = AudioVit.random(SHAPE, VitSettings(stride=(4, 6)), audio, 3)

    def kept(chunk: int) -> int:
        sizes: list[int] = []
        own = {p.untyped_storage().data_ptr() for p in encoder.parameters()}

        def pack(x: Tensor) -> Tensor:
            if x.untyped_storage().data_ptr() not in own:
                sizes.append(x.numel() * x.element_size())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            encode_in_chunks(encoder, masked_sounds(), chunk)
        return sum(sizes)

    assert kept(4) < kept(0) / 20


def test_no_sound_at_all_has_a_gradient_of_zero() -> None:
    encoder = Dropping()
    out = encode_in_chunks(encoder, torch.empty(0, 64, 32), 4)
    assert out.shape == (0, DIM)
    out.sum().backward()
    assert encoder.linear.weight.grad.abs().max() == 0


def test_a_run_in_chunks_walks_with_one_without(tmp_path: Path) -> None:
    toy_world(tmp_path)
    optim = LarsSettings(lr_weight=5.0, lr_bias=0.1)
    for chunk in (0, 4):
        out = tmp_path / f"run{chunk}"
        settings = va_settings(
            tmp_path, out, grad_cache=chunk, accumulate=2, log_every=1, optim=optim
        )
        pretrain_va(settings)
    losses = column(tmp_path / "run0")
    assert len(set(losses)) == 10
    assert column(tmp_path / "run4") == pytest.approx(losses, rel=1e-5)
    assert far_apart(tmp_path / "run0", tmp_path / "run4") < 1e-5
