"""`pivot import-checkpoint`: a checkpoint that the authors released becomes a run with a model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pivot.audio.frontend import FrontEnd
from pivot.encoders.clip import load_clip
from pivot.errors import SettingsError
from pivot.model import Pivot
from pivot.released.vip_ant import build, read_checkpoint, scales, settings_of
from pivot.runs import Run
from pivot.settings import ImportCheckpoint


def run(settings: ImportCheckpoint) -> int:
    """Read FILE as data, check it key by key against the CLIP, save it as OUT/model."""
    path, out = Path(settings.checkpoint), Path(settings.out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        Run.create(out, "import-checkpoint", settings)  # refuses it before the work
    if not settings.clip.model:
        raise SettingsError("--clip.model is missing; VIP-ANT's is ViT-B-32-quickgelu of openai")
    checkpoint = read_checkpoint(path)
    encoder, audio, norm, sources = settings_of(checkpoint, settings)
    clip = load_clip(settings.clip)
    vit, unknown = build(checkpoint, clip, encoder, audio, settings.ignore_unknown)
    trained = scales(checkpoint)
    model = Pivot(clip, vit, FrontEnd(audio, norm), next(iter(trained.values())))
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
    if unknown:
        run.note(f"left out {len(unknown)} weights that the encoder lacks: {', '.join(unknown)}")
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
