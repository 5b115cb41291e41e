"""What publishers call HTSAT's weights, and what their shapes tell of its settings.

Names of one's own are transformers' (`audio_encoder.layers.0.blocks.0.attention.self.query.weight`;
`mel_fusion.` for the 1D kinds of fusion). LAION keeps query, key and value in one tensor, `qkv`,
which `split` takes apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from pivot.encoders.htsat_fusion import PATCH
from pivot.encoders.published import depth_of, size_of
from pivot.settings.encoders import HTSAT_SIZES, HtsatSettings

FAMILY = "HTSAT"
OWN = "audio_encoder."
LEFT_OUT = ("tscam_conv.", "head.", "spectrogram_extractor.", "logmel_extractor.")
MASK = re.compile(r"^layers\.(\d+)\.blocks\.\d+\.attn_mask$")
QKV = re.compile(r"^layers\.\d+\.blocks\.\d+\.attn\.qkv\.(weight|bias)$")
PARTS = ("query", "key", "value")
# own name -> LAION's, one after the other
LAION = (
    (r"^audio_encoder\.|^mel_fusion\.", ""),
    (r"^batch_norm\.", "bn0."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"(\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.attention\.self\.(query|key|value)\.(\w+)", r".attn.qkv.\2 (\1)"),
    (r"\.attention\.self\.", ".attn."),
)


def speller(weights: Mapping[str, Tensor]) -> Callable[[str], str]:
    """One's own name of a weight -> the name that the publisher of `weights` gives it."""
    if any(name.startswith(OWN) for name in weights):
        return lambda name: name
    return as_laion


def as_laion(name: str) -> str:
    """LAION's name of a weight; of a part of `qkv` with which part it is behind it."""
    for own, theirs in LAION:
        name = re.sub(own, theirs, name)
    return name


def split(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LAION's weights with `qkv.weight (query)`, (key) and (value) in place of qkv.weight."""
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        if QKV.match(name) and value.ndim:
            # a copy, as a file of safetensors holds no tensor that is a part of another
            parts = [part.clone() for part in value.tensor_split(3)]
            found |= {f"{name} ({part})": w for part, w in zip(PARTS, parts, strict=True)}
        else:
            found[name] = value
    return found


def settings_of(weights: Mapping[str, Tensor], spell: Callable[[str], str]) -> HtsatSettings:
    """Settings of published weights; ModelError where one that tells a size is not there."""
    kernel = (None, None, PATCH, PATCH)
    shape = size_of(FAMILY, weights, spell(f"{OWN}patch_embed.proj.weight"), kernel)
    width, channels = shape[:2]
    stages = range(depth_of(weights, spell(f"{OWN}layers.")))
    table = f"{OWN}layers.{{}}.blocks.0.attention.self.relative_position_bias_table"
    tables = [size_of(FAMILY, weights, spell(table.format(i)), (None, None)) for i in stages]
    depths = tuple(depth_of(weights, spell(f"{OWN}layers.{i}.blocks.")) for i in stages)
    sizes: dict[str, Any] = {"width": width, "depths": depths}
    for name, published in HTSAT_SIZES.items():
        if (width, depths) == published:
            sizes = {"size": name}
    return HtsatSettings(
        **sizes,
        heads=tuple(heads for _, heads in tables),
        window=_window(tables[0][0]),
        spec_size=_side(weights, [rows for rows, _ in tables]),
        fusion=_fusion(weights, channels),
    )


def _side(weights: Mapping[str, Tensor], tables: list[int]) -> int:
    """Rows of the folded log-mel: from an attention mask, or as if a window filled the last map.

    A mask (windows, w * w, w * w) has all tokens of its map; a table (2 w - 1)^2 rows for windows
    of w x w tokens, 8 or a whole smaller map. Every published last map is one window.
    """
    for name, value in weights.items():
        if (found := MASK.match(name)) and value.ndim == 3:
            side = round((value.shape[0] * value.shape[1]) ** 0.5)  # tokens along it
            return int(side * PATCH * 2 ** int(found[1]))
    last = len(tables) - 1
    return int(_window(tables[last]) * PATCH * 2**last)


def _window(rows: int) -> int:
    """Side of the attention window of a table of position biases."""
    return (round(rows**0.5) + 1) // 2


def _fusion(weights: Mapping[str, Tensor], channels: int) -> str:
    """Kind of fusion, by its parts."""
    if channels > 1:
        return "channel_map"
    sides = [n for n in ("1d", "2d") if any(f"mel_conv{n}." in name for name in weights)]
    if not sides:
        return "none"
    parts = {name.partition("fusion_model.")[2].partition(".")[0] for name in weights}
    kind = "iaff" if "local_att2" in parts else "aff" if "local_att" in parts else "daf"
    return f"{kind}_{sides[0]}"
