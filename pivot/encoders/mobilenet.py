"""MobileNetV3 as EfficientAT has it (mn04 to mn40): torchvision's body over a log-mel.

torchvision's network with a sigmoid in its squeeze-and-excitation and a stem of one channel; it
has no weight that depends on the length of a sound. Source: Schmid et al., Efficient Large-Scale
Audio Tagging via Transformer-to-CNN Knowledge Distillation (ICASSP 2023).
Shapes: B sounds, T frames, M mel bins, D = 960 * width_mult features.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import mode
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.mobilenetv3 import InvertedResidual, MobileNetV3
from torchvision.ops.misc import SqueezeExcitation

from pivot.encoders.audio_encoder import AudioEncoder
from pivot.encoders.published import take_over
from pivot.errors import ModelError
from pivot.settings.encoders import MobileNetSettings
from pivot.settings.front_ends import HtkLogSettings

FAMILY = "MobileNet (EfficientAT)"
HEAD = "classifier."  # of EfficientAT's 527 classes; encoders have none
# Channels of the last blocks for width_mult 1, and weights that have as many rows.
ROWS = {
    "features.15.block.3.0.weight": 160,
    "features.15.block.3.1.weight": 160,
    "features.16.0.weight": 960,
    "features.16.1.weight": 960,
    "features.16.1.bias": 960,
}


class MobileNet(AudioEncoder):
    """Log-mel -> features (B, D): the mean of the last map over time and mel.

    State dict: torchvision's `features.*`. A window has one token, its features.
    """

    KIND = "mobilenet"

    def __init__(self, settings: MobileNetSettings, audio: Any) -> None:
        """Random weights, drawn as torchvision does; ModelError where torchvision lacks a part."""
        super().__init__(settings, audio)
        self.features = _body(settings.width_mult)
        self.dim = self.features[-1][0].out_channels  # type: ignore[index]
        self.grid = (1,)

    def window_features(self, x: Tensor) -> Tensor:
        """Features (B, D) of log-mel (B, T, M)."""
        last: Tensor = self.features(x.transpose(1, 2)[:, None])  # (B, D, M / 32, T / 32)
        return last.mean((2, 3))

    def window_tokens(self, x: Tensor) -> Tensor:
        """The features as one token (B, 1, D) of log-mel (B, T, M)."""
        return self.window_features(x)[:, None]

    def layers(self) -> tuple[Sequence[nn.Module], Sequence[nn.Module], Sequence[nn.Module]]:
        """The stem; 15 inverted residual blocks; the last convolution."""
        first, *blocks, last = self.features
        return [first], blocks, [last]

    def _check(self, x: Tensor) -> None:
        # nothing here depends on how long a sound is: one beyond the window is as good
        below = x.ndim == 4
        super()._check(x[..., : self.audio.num_frames + below, :] if x.ndim > 2 else x)


def _body(width_mult: float) -> nn.Sequential:
    """torchvision's features of a large MobileNetV3 for one channel, SE with a sigmoid."""
    try:
        from torchvision.models.mobilenetv3 import _mobilenet_v3_conf
    except ImportError as error:
        raise ModelError(
            "this torchvision has no models.mobilenetv3._mobilenet_v3_conf, which the mobilenet "
            "encoder is built from; install one that this version of pivot names (pip check)"
        ) from error
    blocks, _ = _mobilenet_v3_conf("mobilenet_v3_large", width_mult=width_mult)
    squeeze = partial(SqueezeExcitation, scale_activation=nn.Sigmoid)
    block = partial(InvertedResidual, se_layer=squeeze)
    body = MobileNetV3(blocks, last_channel=1, num_classes=1, block=block).features
    three: nn.Conv2d = body[0][0]
    one = nn.Conv2d(1, three.out_channels, 3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(one.weight, mode="fan_out")  # as torchvision's other convolutions
    body[0][0] = one
    return body


def published(
    weights: Mapping[str, Tensor],
) -> tuple[MobileNetSettings, dict[str, Tensor], list[str]]:
    """EfficientAT's bare state dict -> settings, state dict of `MobileNet`, names left out.

    width_mult is read from the last blocks' channels; `classifier.*` is left out and may be absent.
    Raises UnknownWeights for names that EfficientAT's mn models do not have (its dymn models, and
    squeeze-and-excitation over other sides than channels), ModelError for missing names or shapes.
    """
    votes = [_rows(weights[name]) / many for name, many in ROWS.items() if name in weights]
    settings = MobileNetSettings(width_mult=(mode(votes) if votes else 0) or 1.0)
    with torch.device("meta"):
        encoder = MobileNet(settings, HtkLogSettings())
    sizes = {name: value.shape for name, value in encoder.state_dict().items()}
    # linear there, a convolution of 1 x 1 here
    squeezes = {_published_name(n): sizes[n][:2] for n in sizes if re.search(r"\.fc\d\.weight$", n)}
    own, left = take_over(FAMILY, weights, encoder, _published_name, (HEAD,), squeezes)
    return settings, {name: value.reshape(sizes[name]) for name, value in own.items()}, left


def _rows(weight: Tensor) -> int:
    return weight.shape[0] if weight.ndim else 0


def _published_name(own: str) -> str:
    """torchvision's name -> EfficientAT's, whose squeeze-and-excitation is one of a list."""
    return re.sub(r"\.(fc[12])\.", r".conc_se_layers.0.\1.", own)
