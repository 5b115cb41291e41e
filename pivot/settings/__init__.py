"""Every command's settings: frozen, strict, with the help text beside each field. No torch here."""

from pivot.settings.base import Settings
from pivot.settings.captions import Balance, ConvertPairs, MineCaptions
from pivot.settings.classifier import TrainClassifier
from pivot.settings.evaluation import Evaluate, Search
from pivot.settings.house import Bench, Demo
from pivot.settings.overlap import CheckOverlap
from pivot.settings.parts import (
    AudioSettings,
    ClipSettings,
    EncoderSettings,
    FrontEndSettings,
    HearsSettings,
    ProjectionSettings,
    TextSettings,
    VitSettings,
)
from pivot.settings.released import ImportCheckpoint
from pivot.settings.reproduce import Reproduce
from pivot.settings.scaling import ScalingCurve
from pivot.settings.targets import ReplaySettings, TargetSettings
from pivot.settings.training import (
    AdamSettings,
    AdamWSettings,
    FitSettings,
    LarsSettings,
    LossSettings,
    MaskSettings,
    MuonSettings,
    OptimSettings,
    PretrainVa,
    TermSettings,
    TrainAt,
)
from pivot.settings.vectors import Embed, MeasureFbank
from pivot.settings.writing import LintCaptions, WriteCaptions

__all__ = [
    "AdamSettings",
    "AdamWSettings",
    "AudioSettings",
    "Balance",
    "Bench",
    "CheckOverlap",
    "ClipSettings",
    "ConvertPairs",
    "Demo",
    "Embed",
    "EncoderSettings",
    "Evaluate",
    "FitSettings",
    "FrontEndSettings",
    "HearsSettings",
    "ImportCheckpoint",
    "LarsSettings",
    "LintCaptions",
    "LossSettings",
    "MaskSettings",
    "MeasureFbank",
    "MineCaptions",
    "MuonSettings",
    "OptimSettings",
    "PretrainVa",
    "ProjectionSettings",
    "ReplaySettings",
    "Reproduce",
    "ScalingCurve",
    "Search",
    "Settings",
    "TargetSettings",
    "TermSettings",
    "TextSettings",
    "TrainAt",
    "TrainClassifier",
    "VitSettings",
    "WriteCaptions",
]
