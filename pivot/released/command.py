"""`pivot import-checkpoint`: a checkpoint that authors released becomes a run with a model."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pivot.audio.frontend import make_front_end
from pivot.encoders.clip import load_clip
from pivot.errors import ModelError, SettingsError
from pivot.model import Pivot
from pivot.released.families import FAMILIES, lacks
from pivot.released.files import Released, read_released
from pivot.released.parts import Import, Report
from pivot.released.vip_ant import build, checkpoint_of, is_vip_ant, scales, settings_of
from pivot.runs import Run
from pivot.settings import ImportCheckpoint

VIP_ANT = "vip-ant"
OF_VIP_ANT = ("clip", "stride", "num_mel_bins", "norms", "positions")
OF_THE_OTHERS = ("text", "audio_only", "sample_rate")
OF_JOINT = ("text", "audio_only")
SHOWN = 5  # known parts that were left out, in the line that is printed


def run(settings: ImportCheckpoint) -> int:
    """Read FILE as data, check it key by key, save it as OUT/model."""
    out = Path(settings.out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        Run.create(out, "import-checkpoint", settings)  # refuses it before the work
    released = read_released(settings.checkpoint)
    name = settings.family if settings.family != "auto" else _family(released)
    _refuse_settings(settings, name)
    _refuse_other_family(released, name)
    if name == VIP_ANT:
        return _vip_ant(released, settings)
    return _published(released, name, settings)


def _family(released: Released) -> str:
    """The family that a file's content tells; ModelError for none."""
    if looks := _looks_like(released):
        return looks[0]
    some = ", ".join(list(released.weights)[:3]) or "it has no state dict"
    raise ModelError(
        f"{released.path} is of no family that Pivot knows ({some}); there are: {VIP_ANT}, "
        f"{', '.join(FAMILIES)}"
    )


def _looks_like(released: Released) -> list[str]:
    """Families whose signs a file has, the likeliest first."""
    found = [name for name, family in FAMILIES.items() if not lacks(family, released.weights)]
    return found + [VIP_ANT] * is_vip_ant(released.content)


def _refuse_settings(settings: ImportCheckpoint, name: str) -> None:
    """SettingsError for settings that say nothing to this family."""
    usual = ImportCheckpoint(checkpoint="", out="")
    family = FAMILIES.get(name)
    if family is None:
        others: tuple[str, ...] = OF_THE_OTHERS
    else:
        others = OF_VIP_ANT if family.joint else (*OF_VIP_ANT, *OF_JOINT)
    for other in others:
        if getattr(settings, other) != getattr(usual, other):
            raise SettingsError(
                f"--{other.replace('_', '-')} says nothing to a checkpoint of the family {name}; "
                "leave it out"
            )


def _published(released: Released, name: str, settings: ImportCheckpoint) -> int:
    """Import a checkpoint of a family of the table."""
    family = FAMILIES[name]
    work = Import(released, family, settings)
    model = work.model()
    if settings.num_frames:
        model = model.resized(settings.num_frames)
    report = work.report
    sha256 = _sha256(released.path)
    facts: dict[str, Any] = {"checkpoint": str(released.path), "sha256": sha256, "family": name}
    facts |= {"weights": sum(report.loaded.values()), **asdict(report), "scale": model.scale}
    run = Run.create(settings.out, "import-checkpoint", settings)
    _note_unknown(run, report.unknown)
    model.save(Path(settings.out) / "model", command="import-checkpoint", **facts)
    run.finish({**facts, "audio_hash": model.audio_hash}, {"checkpoint": sha256})
    print(f"{released.path}: {family.what}: {_line(report, model)} -> {settings.out}/model")
    return 0


def _refuse_other_family(released: Released, name: str) -> None:
    """ModelError for a file of another family than --family says, or of one without an encoder."""
    looks, family = _looks_like(released), FAMILIES.get(name)
    if name not in looks:
        what = family.what if family else "VIP-ANT"
        sign = f"weight {lacks(family, released.weights)}" if family else "weights beside a `cfg`"
        raise ModelError(
            f"{released.path} is no checkpoint of {what}: it has no {sign}; "
            + (f"it looks like {looks[0]}" if looks else "it is of no family that Pivot knows")
        )
    if family and family.refusal:
        raise ModelError(f"{released.path} is of {family.what}: {family.refusal}")


def _line(report: Report, model: Pivot) -> str:
    """What fit and what was left out, in words."""
    parts = ", ".join(f"{part} {count}" for part, count in report.loaded.items())
    line = f"{sum(report.loaded.values())} weights fit ({parts})"
    few = len(report.left_out) <= SHOWN  # then each is named
    groups = Counter(n if few else ".".join(n.split(".")[:2]) for n in report.left_out)
    if groups:
        shown = [n if few else f"{n} {count}" for n, count in groups.most_common(SHOWN)]
        more = f" and {len(groups) - SHOWN} other parts" if len(groups) > SHOWN else ""
        line += f", {len(report.left_out)} left out as they are not used ({', '.join(shown)}{more})"
    heard = model.front_end.settings
    return f"{line}; {model.audio.settings.kind}, {heard.sample_rate} Hz, {heard.num_frames} frames"


def _vip_ant(released: Released, settings: ImportCheckpoint) -> int:
    """Import a checkpoint of VIP-ANT, checked against the CLIP that it was trained with."""
    path, out = Path(settings.checkpoint), Path(settings.out)
    if not settings.clip.model:
        raise SettingsError("--clip.model is missing; VIP-ANT's is ViT-B-32-quickgelu of openai")
    checkpoint = checkpoint_of(released.content, path)
    encoder, audio, norm, sources = settings_of(checkpoint, settings)
    clip = load_clip(settings.clip)
    vit, unknown = build(checkpoint, clip, encoder, audio, settings.ignore_unknown)
    trained = scales(checkpoint)
    model = Pivot(clip, vit, make_front_end(audio, norm), next(iter(trained.values())))
    facts = {
        "checkpoint": str(path),
        "sha256": _sha256(path),
        "settings_from": sources,
        "weights": len(vit.state_dict()),
        "left_out": unknown,
        "scales": trained,
        "norm": [norm.mean, norm.std],
    }
    run = Run.create(out, "import-checkpoint", settings)
    _note_unknown(run, unknown)
    cfg = json.loads(json.dumps(checkpoint.cfg, default=str, skipkeys=True))
    model.save(out / "model", command="import-checkpoint", **facts, cfg=cfg)
    run.finish({**facts, "audio_hash": model.audio_hash}, {"clip": clip.weights_hash})
    origin = ", ".join(f"{name} {source}" for name, source in sources.items())
    print(
        f"{path}: {facts['weights']} weights fit, {audio.num_frames} frames x "
        f"{audio.num_mel_bins} mel bins, stride {encoder.stride[0]} x {encoder.stride[1]}, scale "
        f"{model.scale:.4g} (from: {origin}) -> {out / 'model'}"
    )
    return 0


def _note_unknown(run: Run, unknown: list[str]) -> None:
    if unknown:
        run.note(f"left out {len(unknown)} weights that the encoder lacks: {', '.join(unknown)}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
