"""FBANK by kaldi-native-fbank or torchaudio: the oracles, to choose by audio.backend.

kaldi-native-fbank's released wheels are built without its checks: a mel bin without any FFT bin
(one at 16 kHz with 128 bins) makes it read and copy memory before the start of an array. So it is
never asked for such a bin: the bins between the empty ones are computed as filter banks of their
own, and the empty ones are the floor, which is what torchaudio and our own code give. Its time
therefore doubles at 16 kHz.
"""

from __future__ import annotations

import importlib
from itertools import pairwise
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from pivot.audio.fbank import Fbank, log_floor, mel_edges, mel_weights
from pivot.errors import SettingsError
from pivot.settings import AudioSettings

# kaldi-native-fbank rounds its edges to float32; a bin that only touches an edge could fall out.
SAFE_WEIGHT = 1e-3


def _imported(module: str, backend: str) -> ModuleType:
    """The backend's package; torchaudio fails with other errors than ImportError as well."""
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SettingsError(
            f"audio.backend {backend} cannot be loaded ({reason}); pip install {backend}, "
            "or use audio.backend torch"
        ) from error


def compute(wave: Tensor, module: Fbank) -> Tensor:
    """FBANK (T, M) of wave (N,) by the backend in the module's settings."""
    x = module.checked(wave)[0].float()
    if module.settings.backend == "torchaudio":
        return _by_torchaudio(x, module)
    return _by_knf(x, module)


def _by_torchaudio(x: Tensor, module: Fbank) -> Tensor:
    """torchaudio.compliance.kaldi.fbank with VIP-ANT's options."""
    kaldi = _imported("torchaudio.compliance.kaldi", "torchaudio")
    settings = module.settings
    rows: Tensor = kaldi.fbank(
        x[None],
        sample_frequency=module.sample_rate,
        htk_compat=True,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=settings.num_mel_bins,
        dither=0.0,
        frame_length=settings.frame_length_ms,
        frame_shift=settings.frame_shift_ms,
        low_freq=settings.low_freq,
        high_freq=settings.high_freq,
    )
    return rows


def safe_runs(sample_rate: int, settings: AudioSettings) -> list[tuple[int, int]]:
    """Half-open runs of mel bins that each hold an FFT bin; what lies between them is empty."""
    weights = mel_weights(sample_rate, settings)[:-1].max(axis=0)  # Kaldi leaves Nyquist out
    unsure = np.flatnonzero((weights > 0) & (weights < SAFE_WEIGHT))
    if unsure.size:
        raise SettingsError(
            f"audio.backend kaldi-native-fbank cannot be used safely at {sample_rate} Hz: mel bin "
            f"{unsure[0]} of {settings.num_mel_bins} has next to no FFT bin; "
            "use audio.backend torch"
        )
    marks = [-1, *np.flatnonzero(weights == 0).tolist(), settings.num_mel_bins]
    return [(a + 1, b) for a, b in pairwise(marks) if b > a + 1]


def knf_options(module: Fbank, run: tuple[int, int]) -> object:
    """Options of one run of mel bins: a filter bank between the run's own edges."""
    knf = _imported("kaldi_native_fbank", "kaldi-native-fbank")
    first, last = run
    hertz = 700 * np.expm1(mel_edges(module.sample_rate, module.settings) / 1127)
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = module.sample_rate
    options.frame_opts.dither = 0
    options.frame_opts.window_type = "hanning"
    options.frame_opts.frame_length_ms = module.settings.frame_length_ms
    options.frame_opts.frame_shift_ms = module.settings.frame_shift_ms
    options.mel_opts.num_bins = last - first
    options.mel_opts.low_freq = float(hertz[first])
    # The top edge may round to a hair above Nyquist, which kaldi-native-fbank would refuse.
    options.mel_opts.high_freq = float(min(hertz[last + 1], module.sample_rate / 2))
    return options


def knf_rows(samples: list[float], module: Fbank, run: tuple[int, int]) -> np.ndarray:
    """(T, bins of the run) by one pass of kaldi-native-fbank."""
    knf = _imported("kaldi_native_fbank", "kaldi-native-fbank")
    online = knf.OnlineFbank(knf_options(module, run))
    online.accept_waveform(module.sample_rate, samples)
    online.input_finished()
    return np.stack([online.get_frame(i) for i in range(online.num_frames_ready)])


def _by_knf(x: Tensor, module: Fbank) -> Tensor:
    samples = x.cpu().tolist()  # a list goes in faster than an array, whose elements it unpacks
    out = torch.full((module.frames(len(samples)), module.settings.num_mel_bins), log_floor())
    for run in safe_runs(module.sample_rate, module.settings):
        out[:, slice(*run)] = torch.from_numpy(knf_rows(samples, module, run))
    return out.to(x.device)
