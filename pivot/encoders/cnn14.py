"""CNN14 (PANNs): six blocks of two convolutions over a log-mel, with LAION's feature fusion.

Weights have PANNs' names (bn0, conv_block1.conv1, ..., fc1) and LAION's (mel_conv2d,
fusion_model; mel_fusion. before those of the 1D kinds). PANNs' mel matrix belongs to the front end
here: `published_front_end` finds out which bank a file has.
Sources: Kong et al., PANNs (TASLP 2020); Wu et al., LAION-CLAP (ICASSP 2023) for fusion.
Shapes: B sounds, V views, T frames, M mel bins, C channels, N = T // 32 tokens, D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mode
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pivot.audio.mel import mel_bank
from pivot.audio.views import heard, masked_mean, unpack
from pivot.encoders.audio_encoder import AudioEncoder
from pivot.encoders.fusion import fusion_module, no_gradient
from pivot.encoders.htsat_fusion import VIEWS, MelFusion, with_stripes
from pivot.encoders.published import take_over
from pivot.errors import ModelError
from pivot.settings.encoders import RATES, Cnn14Settings, own_front_end
from pivot.settings.front_ends import HtkDbSettings, SlaneyDbSettings

FAMILY = "CNN14 (PANNs)"
BANK = "logmel_extractor.melW"  # (n_fft // 2 + 1, M), a weight that PANNs never train
FOURIER = tuple(f"spectrogram_extractor.stft.conv_{part}.weight" for part in ("real", "imag"))
HEAD = ("fc_audioset.weight", "fc_audioset.bias")  # of AudioSet's 527 classes
LEFT_OUT = (*FOURIER, BANK, *HEAD)
MELS = 64  # mel bins of every published model
LOW = 50.0  # Hz, lowest mel edge of every published bank
# Hz, highest mel edges: PANNs (its 16000 Hz model: 8000) and LAION-CLAP (PANN-14 up to 8 or 18 kHz)
HIGHS = (14000.0, 8000.0, 18000.0)
# samples between frames at the rates: PANNs, CLAP (44100 Hz), LAION-CLAP (48000 Hz)
HOPS = {16000: 160, 32000: 320, 44100: 320, 48000: 480}


class ConvBlock(nn.Module):
    """(B, C_in, T, M) -> (B, C_out, T / pool, M / pool): 3 x 3 convolution, norm, ReLU, twice."""

    def __init__(self, inside: int, outside: int, pool: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Convolve twice, then average `pool` x `pool` cells."""
        x = F.relu(self.bn1(self.conv1(x)))
        return F.avg_pool2d(F.relu(self.bn2(self.conv2(x))), self.pool)


class Cnn14(AudioEncoder):
    """Log-mel -> features (B, D): fc1 and ReLU of the last map's max plus mean over time.

    Tokens are the frames of the last map, before that. Several windows are pooled as one long map,
    as far as the sound goes. With fusion the input is the four views of a sound: the shrunk whole,
    and for a longer sound only its front, middle and back, fused in after the first block, or of
    the 1D kinds before it. channel_map has all four as channels of the first convolution.
    """

    KIND = "cnn14"

    def __init__(self, settings: Cnn14Settings, audio: Any) -> None:
        """Random weights; ModelError for windows of less than a cell of the last map."""
        super().__init__(settings, audio)
        channels = settings.channels
        self.cell = 2 ** (len(channels) - 1)  # frames and mel bins of a cell of the last map
        if min(audio.num_frames, audio.num_mel_bins) < self.cell:
            raise ModelError(
                f"cnn14 of {len(channels)} blocks needs at least {self.cell} frames and mel bins, "
                f"not audio.num_frames {audio.num_frames}, num_mel_bins {audio.num_mel_bins}"
            )
        self.dim, self.grid = channels[-1], (audio.num_frames // self.cell,)
        self.bn0 = nn.BatchNorm1d(audio.num_mel_bins)
        self.views = VIEWS if settings.fusion == "channel_map" else 1  # that the first block takes
        for number, (inside, outside) in enumerate(
            zip((self.views, *channels), channels, strict=False), start=1
        ):
            pool = 1 if number == len(channels) else 2
            self.add_module(f"conv_block{number}", ConvBlock(inside, outside, pool))
        self.fc1 = nn.Linear(self.dim, self.dim)
        self.fused = settings.fusion != "none"
        self.mel_fusion = (
            MelFusion(audio.num_mel_bins, settings.fusion) if "_1d" in settings.fusion else None
        )
        self.late = "_2d" in settings.fusion  # fused after the first block
        if self.late:
            self.mel_conv2d = nn.Sequential(
                nn.Conv2d(1, channels[0], 5, stride=(6, 2), padding=2),
                nn.BatchNorm2d(channels[0]),
                nn.ReLU(inplace=True),
            )
            self.fusion_model = fusion_module(settings.fusion, channels[0])

    def window_tokens(self, x: Tensor) -> Tensor:
        """Frames of the last map (B, N, D), the mean over mel, of log-mel (B, T, M)."""
        return self._tokens(self._normed(x)[:, None].expand(-1, self.views, -1, -1))

    def window_features(self, x: Tensor) -> Tensor:
        """Features (B, D) of log-mel (B, T, M)."""
        return self._pooled(self.window_tokens(x))

    def embed_tokens(self, x: Tensor) -> Tensor:
        """Encoder input (B, T, M), or (B, V, T + 1, M) -> tokens (B, N or V * N, D); fused: N."""
        if not self.fused or x.ndim == 3:
            return super().embed_tokens(x)
        views, shares = unpack(x)
        views = self._normed(views.flatten(0, 1)).unflatten(0, views.shape[:2])
        longer = shares[:, 1] > 0
        if self.mel_fusion is not None:
            views = self.mel_fusion(views, longer)
        return self._tokens(views, longer)

    def forward(self, x: Tensor) -> Tensor:
        """Encoder input (B, T, M), or (B, V, T + 1, M) of windows or fusion's views -> (B, D)."""
        self._check(x)
        tokens = self.embed_tokens(x)
        if x.ndim == 3 or self.fused:
            return self._pooled(tokens)
        _, shares = unpack(x)
        return self._pooled(tokens, heard(shares, tokens.shape[1] // shares.shape[1]))

    def layers(self) -> tuple[Sequence[nn.Module], Sequence[nn.Module], Sequence[nn.Module]]:
        """bn0 and what fuses; the blocks; fc1."""
        fusing = [self.mel_conv2d, self.fusion_model] if self.late else []
        fusing += [self.mel_fusion] if self.mel_fusion is not None else []
        return [self.bn0, *fusing], self._blocks(), [self.fc1]

    def _blocks(self) -> list[nn.Module]:
        count = len(self.settings.channels)
        return [self.get_submodule(f"conv_block{number}") for number in range(1, count + 1)]

    def _normed(self, x: Tensor) -> Tensor:
        normed: Tensor = self.bn0(x.transpose(1, 2))
        return normed.transpose(1, 2)

    def _tokens(self, x: Tensor, longer: Tensor | None = None) -> Tensor:
        """Normed log-mels (B, 1 or V, T, M) -> (B, N, D); the 2D kinds fuse those of `longer`."""
        if self.training and self.settings.stripes:
            x = with_stripes(x)
        first, *others = self._blocks()
        windows = x[:, 1:]
        x = first(x[:, : self.views])
        if self.late and longer is not None:
            x = self._fuse(x, windows[longer], longer)
        for block in others:
            x = block(F.dropout(x, self.settings.dropout, self.training))
        return F.dropout(x, self.settings.dropout, self.training).mean(3).transpose(1, 2)

    def _fuse(self, x: Tensor, windows: Tensor, longer: Tensor) -> Tensor:
        """Map x (B, C, T / 2, M / 2) with the windows (L, 3, T, M) of its L `longer` rows."""
        if not len(windows):
            if not self.training:
                return x
            return x + no_gradient(self.mel_conv2d) + no_gradient(self.fusion_model)
        local = self.mel_conv2d(windows.flatten(0, 1)[:, None])  # (L * 3, C, T / 6, M / 2)
        side_by_side = local.unflatten(0, (-1, 3)).transpose(1, 2).flatten(2, 3)
        local = side_by_side[:, :, : x.shape[2], : x.shape[3]]  # 3 x 167 frames for 500
        fused = self.fusion_model(x[longer], local)
        return x.index_put((longer,), fused.to(x.dtype))

    def _pooled(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens (B, N, D), those that `mask` (B, N) has or all -> features (B, D)."""
        if mask is None:
            top, mean = tokens.max(1).values, tokens.mean(1)
        else:
            top = tokens.masked_fill(~mask[..., None], -torch.inf).max(1).values
            mean = masked_mean(tokens, mask)
        share = self.settings.dropout_out
        x = F.relu(self.fc1(F.dropout(top + mean, share, self.training)))
        return F.dropout(x, share, self.training)

    def _check(self, x: Tensor) -> None:
        super()._check(x)
        if x.shape[-2] - (x.ndim == 4) < self.cell:
            raise ModelError(f"cnn14 takes at least {self.cell} frames, not {tuple(x.shape)}")
        if self.fused and x.ndim == 4 and x.shape[1] != 4:
            raise ModelError(f"cnn14 fuses 4 views of a sound, not {x.shape[1]}: {tuple(x.shape)}")


def published(
    weights: Mapping[str, Tensor],
) -> tuple[Cnn14Settings, dict[str, Tensor], list[str]]:
    """PANNs' bare state dict -> settings, state dict of `Cnn14`, names left out.

    Also MS-CLAP 2022's and LAION-CLAP's PANN-14 without their prefixes; fusion is told by names
    (both kinds of iAFF have the same: LAION's is taken). The extractors and the class head are left
    out; the head may be absent. Raises UnknownWeights for names that CNN14 does not have,
    ModelError for missing names, shapes, and a mel matrix that the front end does not have.
    """
    sizes = enumerate(Cnn14Settings().channels, start=1)
    channels = tuple(_rows(weights, f"conv_block{number}.bn2.", size) for number, size in sizes)
    settings = Cnn14Settings(channels=channels, fusion=_fusion(weights))
    mels = _rows(weights, "bn0.", MELS)
    kind = SlaneyDbSettings if settings.fusion == "none" else HtkDbSettings
    with torch.device("meta"):
        encoder = Cnn14(settings, kind(num_mel_bins=mels))
    own, left = take_over(FAMILY, weights, encoder, _as_laion, LEFT_OUT)
    if (heard_bins := published_front_end(weights)["num_mel_bins"]) != mels:
        raise ModelError(f"weights of {FAMILY}: {BANK} has {heard_bins} mel bins, bn0 has {mels}")
    return settings, own, left


def published_front_end(weights: Mapping[str, Tensor], family: str = FAMILY) -> dict[str, Any]:
    """Front end of a state dict as `published` takes it: what differs from its kind's defaults.

    Without fusion SlaneyDbSettings of the rate, edges, bins and n_fft of the bank that the file has
    as its mel matrix, found among those of PANNs' and LAION-CLAP's models, to 1e-5 of its largest
    value; `bank_rate` is named, so that CLAP's 44100 Hz over it keep the bank. With fusion the bank
    is not used (LAION's mel is HTK's). ModelError: no such matrix, or another one.
    """
    fusion = _fusion(weights)
    if fusion != "none":
        mels = _rows(weights, "bn0.", MELS)
        return own_front_end(Cnn14Settings(fusion=fusion)) | {"num_mel_bins": mels}
    if BANK not in weights or weights[BANK].ndim != 2 or min(weights[BANK].shape) < 2:
        raise ModelError(
            f"weights of {family} have no {BANK} (frequencies, mel bins), so it is not known what "
            "their encoder hears; take the publisher's whole state dict"
        )
    bank = weights[BANK].detach().double().cpu()
    (frequencies, mels), n_fft = bank.shape, 2 * (len(bank) - 1)
    for name in FOURIER:
        if name in weights and weights[name].shape != (frequencies, 1, n_fft):
            raise ModelError(
                f"weights of {family}: {name} should be {(frequencies, 1, n_fft)} beside a {BANK} "
                f"of {tuple(bank.shape)}, the file has {tuple(weights[name].shape)}"
            )
    for rate in sorted(RATES["cnn14"], key=lambda rate: rate != SlaneyDbSettings().sample_rate):
        for high in (edge for edge in HIGHS if edge <= rate / 2):
            found: dict[str, Any] = {
                "kind": "slaney_db", "sample_rate": rate, "num_mel_bins": mels, "n_fft": n_fft,
                "window": n_fft, "hop": HOPS[rate], "low_freq": LOW, "high_freq": high,
                "bank_rate": rate,
            }  # fmt: skip
            own = mel_bank(SlaneyDbSettings(**found), LOW, high).to(bank)
            if float((own - bank).abs().max()) <= 1e-5 * float(own.max()):
                return found
    raise ModelError(
        f"{BANK} ({frequencies}, {mels}) of {family} is no Slaney bank from {LOW:g} Hz up to "
        f"{', '.join(f'{high:g}' for high in HIGHS)} Hz at {', '.join(map(str, RATES['cnn14']))} "
        "Hz; the encoder would hear something else here than it was trained on"
    )


def _as_laion(name: str) -> str:
    return name.removeprefix("mel_fusion.")


def _fusion(weights: Mapping[str, Tensor]) -> Any:
    """Kind of fusion that names tell: both attentions of iAFF, AFF's one, or DAF's convolution."""
    sides = "1d" if any(name.startswith("mel_conv1d.") for name in weights) else "2d"
    for start, kind in (
        ("fusion_model.local_att2.", "iaff"),
        ("fusion_model.", "aff"),
        ("mel_conv", "daf"),
    ):
        if any(name.startswith(start) for name in weights):
            return f"{kind}_{sides}"
    first = weights.get("conv_block1.conv1.weight")
    return "channel_map" if first is not None and first.shape[1:2] == (VIEWS,) else "none"


def _rows(weights: Mapping[str, Tensor], norm: str, default: int) -> int:
    """Channels of a batch norm, as most of its weights have them: a misshapen one is outvoted."""
    names = [norm + part for part in ("weight", "bias", "running_mean", "running_var")]
    return mode([max([1, *weights[n].shape[:1]]) for n in names if n in weights] or [default])
