"""MobileNet: EfficientAT's numbers, its whole state dict, lengths, windows, training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models import mobilenetv3

from pivot.audio.views import pack
from pivot.encoders import encoder_class
from pivot.encoders.mobilenet import MobileNet, published
from pivot.encoders.weights import UnknownWeights
from pivot.errors import ModelError
from pivot.settings.encoders import MobileNetSettings
from pivot.settings.front_ends import HtkLogSettings

Weights = dict[str, Tensor]
TINY = MobileNetSettings(width_mult=0.1)
SHORT = HtkLogSettings(num_frames=70, num_mel_bins=64)


def far(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max() / b.detach().abs().max())


def sounds(count: int, frames: int = 70, mels: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(count, frames, mels, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def golden(goldens: Path) -> Weights:
    with np.load(goldens / "distill" / "encoders.npz") as file:
        return {k[3:]: torch.tensor(file[k]) for k in file.files if k.startswith("mn/")}


def released(golden: Weights) -> Weights:
    return {name[3:]: value for name, value in golden.items() if name.startswith("sd/")}


def layout(width: float) -> Weights:
    """EfficientAT's state dict of a width without values, from torchvision's of 527 classes."""
    with torch.device("meta"):
        blocks, last = mobilenetv3._mobilenet_v3_conf("mobilenet_v3_large", width_mult=width)
        model = mobilenetv3.MobileNetV3(blocks, last, num_classes=527).state_dict()
    found = {}
    for name, value in model.items():
        if ".fc" in name:
            name = name.replace(".fc", ".conc_se_layers.0.fc")
            value = value[..., 0, 0] if name.endswith("weight") else value
        if name == "features.0.0.weight":
            value = value[:, :1]
        # EfficientAT's classifier pools and flattens before its first linear layer
        name = name.replace("classifier.3", "classifier.5").replace("classifier.0", "classifier.2")
        found[name] = value
    return found


@pytest.fixture(scope="module")
def tiny() -> MobileNet:
    return MobileNet.start(None, TINY, SHORT, seed=3).eval()


# ---- EfficientAT's numbers and weights -------------------------------------------------------


def test_numbers_of_efficientat(golden: Weights) -> None:
    settings, weights, left = published(released(golden))
    assert settings.width_mult == pytest.approx(0.1)
    assert left == [f"classifier.{n}.{part}" for n in (2, 5) for part in ("weight", "bias")]
    net = MobileNet.from_weights(weights, {}, settings, HtkLogSettings()).eval()
    x = golden["input"][:, 0].transpose(1, 2)  # (1, 201, 128)
    assert far(net.features(golden["input"]), golden["fmap"]) < 1e-5
    assert far(net(x), golden["features"]) < 1e-5
    assert far(net.embed_tokens(x)[:, 0], golden["features"]) < 1e-5
    assert net.dim == 96 and net.grid == (1,)


def test_the_names_are_those_of_the_golden(golden: Weights) -> None:
    shapes = {name: value.shape for name, value in layout(0.1).items()}
    last = {"classifier.2.weight": (128, 96), "classifier.5.weight": (527, 128)}
    assert shapes == {name: value.shape for name, value in released(golden).items()}
    assert all(shapes[name] == shape for name, shape in last.items())


def test_the_whole_state_dict_of_mn40() -> None:
    weights = layout(4.0)
    settings, own, left = published(weights)
    assert settings.width_mult == 4.0 and len(weights) == 312 and len(own) == 312 - len(left)
    trained = [v for name, v in weights.items() if "running_" not in name and v.ndim]
    assert sum(value.numel() for value in trained) == 68_427_303
    with torch.device("meta"):
        net = MobileNet(settings, HtkLogSettings())
    assert net.dim == 3840
    head = sum(weights[name].numel() for name in left)
    assert sum(p.numel() for p in net.parameters()) == 68_427_303 - head


@pytest.mark.parametrize("width", [0.4, 0.5, 1.0, 2.0, 3.0])
def test_width_is_read_from_the_weights(width: float) -> None:
    settings, own, _ = published(layout(width))
    with torch.device("meta"):
        net = MobileNet(settings, HtkLogSettings())
    assert settings.width_mult == pytest.approx(width) and net.dim == round(960 * width)
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in net.state_dict().items()}


def test_a_file_without_the_class_head(golden: Weights) -> None:
    weights = {k: v for k, v in released(golden).items() if not k.startswith("classifier")}
    assert published(weights)[2] == []


def test_files_that_do_not_fit(golden: Weights) -> None:
    good = released(golden)
    gone = "features.14.block.2.conc_se_layers.0.fc2.bias"

    def refused(weights: Mapping[str, Tensor]) -> str:
        with pytest.raises(ModelError) as caught:
            published(weights)
        assert "EfficientAT" in str(caught.value) and "\n" not in str(caught.value)
        return str(caught.value)

    assert gone in refused({k: v for k, v in good.items() if k != gone})
    wide = "features.4.block.1.conc_se_layers.0.fc1.weight"
    message = refused(good | {wide: torch.zeros(8, 9)})
    assert wide in message and "(8, 8)" in message and "(8, 9)" in message
    last = refused(good | {"features.16.0.weight": torch.zeros(5, 16, 1, 1)})
    assert "features.16.0.weight" in last and "(96, 16, 1, 1)" in last
    # squeeze-and-excitation over a second side, as other EfficientAT models have it
    extra = "features.4.block.1.conc_se_layers.1.fc1.weight"
    with pytest.raises(UnknownWeights, match="EfficientAT") as unknown:
        published(good | {extra: torch.zeros(1)})
    assert unknown.value.names == [extra]
    with pytest.raises(UnknownWeights):  # of another family
        published({"cls_token": torch.zeros(1, 1, 768), "blocks.0.norm1.weight": torch.zeros(768)})
    with pytest.raises(ModelError, match="is missing"):
        published({})


def test_torchvision_without_the_part_it_is_built_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mobilenetv3, "_mobilenet_v3_conf")
    with pytest.raises(ModelError, match="_mobilenet_v3_conf"):
        MobileNet(TINY, SHORT)


# ---- as an encoder ---------------------------------------------------------------------------


def test_the_table_has_it() -> None:
    assert encoder_class("mobilenet") is MobileNet and MobileNet.KIND == "mobilenet"


def test_weights_at_the_start_depend_on_the_seed() -> None:
    one, same, other = (MobileNet.start(None, TINY, SHORT, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not torch.equal(one["features.0.0.weight"], other["features.0.0.weight"])


@torch.no_grad()
def test_a_sound_alone_and_in_a_batch(tiny: MobileNet) -> None:
    x = sounds(5)
    together = tiny(x)
    assert together.shape == (5, 96)
    assert torch.equal(together, tiny(x))
    for number in range(5):
        assert far(tiny(x[number : number + 1]), together[number : number + 1]) < 1e-6


@torch.no_grad()
def test_any_length(tiny: MobileNet) -> None:
    for frames in (1, 31, 69, 70, 71, 300):  # also beyond the window of 70 frames
        x = sounds(2, frames)
        mean = tiny.features(x.transpose(1, 2)[:, None]).flatten(2).mean(2)
        assert far(tiny(x), mean) < 1e-6
    longer = tiny.resized(300)
    assert longer.audio.num_frames == 300
    assert torch.equal(longer(sounds(2)), tiny(sounds(2)))


@torch.no_grad()
def test_windows(tiny: MobileNet) -> None:
    x = sounds(6).unflatten(0, (2, 3))  # 2 sounds of 3 windows
    packed = pack(x, torch.tensor([[1.0, 1.0, 0.2], [1.0, 0.0, 0.0]]))
    each = tiny(x.flatten(0, 1)).unflatten(0, (2, 3))
    assert far(tiny.embed_tokens(packed), each) < 1e-6
    wanted = torch.stack([each[0].mean(0), each[1, 0]])  # a window that sound reaches counts whole
    assert far(tiny(packed), wanted) < 1e-6


def test_three_steps_of_training() -> None:
    net = MobileNet.start(None, TINY, SHORT, seed=3).train()
    x, target = sounds(4), torch.randn(4, 96, generator=torch.Generator().manual_seed(1))
    optimizer, losses = torch.optim.Adam(net.parameters(), lr=2e-3), []
    for _ in range(4):
        loss = (net(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in net.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[3] < losses[2] < losses[1] < losses[0]


def test_layers_hold_every_parameter_once(tiny: MobileNet) -> None:
    before, blocks, after = tiny.layers()
    assert (len(before), len(blocks), len(after)) == (1, 15, 1)
    parts = [id(p) for module in (*before, *blocks, *after) for p in module.parameters()]
    assert sorted(parts) == sorted(id(p) for p in tiny.parameters())


def test_inputs_that_do_not_fit(tiny: MobileNet) -> None:
    for shape in ((2, 64, 70), (70, 64), (2, 0, 64), (2, 3, 71, 63)):
        with pytest.raises(ModelError, match="mobilenet"):
            tiny(torch.zeros(shape))
