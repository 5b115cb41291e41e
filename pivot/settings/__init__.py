"""Every command's settings: frozen, strict, with the help text beside each field. No torch here."""

from pivot.settings.base import Settings
from pivot.settings.captions import MineCaptions
from pivot.settings.evaluation import Evaluate, Search
from pivot.settings.house import Bench, Demo
from pivot.settings.parts import AudioSettings, ClipSettings, VitSettings
from pivot.settings.scaling import ScalingCurve
from pivot.settings.training import (
    AdamWSettings,
    FitSettings,
    LarsSettings,
    LossSettings,
    MaskSettings,
    MuonSettings,
    OptimSettings,
    PretrainVa,
    TrainAt,
)
from pivot.settings.vectors import Embed, MeasureFbank

__all__ = [
    "AdamWSettings",
    "AudioSettings",
    "Bench",
    "ClipSettings",
    "Demo",
    "Embed",
    "Evaluate",
    "FitSettings",
    "LarsSettings",
    "LossSettings",
    "MaskSettings",
    "MeasureFbank",
    "MineCaptions",
    "MuonSettings",
    "OptimSettings",
    "PretrainVa",
    "ScalingCurve",
    "Search",
    "Settings",
    "TrainAt",
    "VitSettings",
]
