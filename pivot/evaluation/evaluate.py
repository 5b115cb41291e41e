"""`pivot evaluate`: zero-shot classification, audio-text and image-audio retrieval of a model.

What the clips have decides what is measured: labels, folds, captions, frames. results.json holds
zero_shot, zero_shot_without_prompt, clip_image_zero_shot (the Oracle: the frozen CLIP on the clips'
middle frames), folds, retrieval, retrieval_clip_image, image_audio, pivotability, pivotable,
geometry, checkpoints; `dataset` and `compat` say on what and by which rules; figures lie beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pivot.embeddings.embed import embed_audio
from pivot.errors import SettingsError
from pivot.evaluation.checkpoints import best_epochs, kept_models, measure_kept
from pivot.evaluation.clips import Clips, find_clips
from pivot.evaluation.compat import rules_of
from pivot.evaluation.exam import Exam, measure, set_exam, stored_frames
from pivot.evaluation.plots import check_beside, draw, read_beside
from pivot.evaluation.said import table
from pivot.model import Pivot, load
from pivot.runs import Run, resolve_device
from pivot.settings import Evaluate


def run(settings: Evaluate) -> int:
    """Measure a model on held-out clips; print a table, write OUT/results.json and figures."""
    clips = find_clips(settings)
    if settings.beside and not settings.figures:
        raise SettingsError("--beside is drawn; leave out --no-figures")
    others = read_beside(settings.beside, Path(settings.out).absolute().name)
    check_beside(others, [] if clips.wordless else clips.labels, clips.several)
    kept = kept_models(settings.model) if settings.checkpoints else []
    device = resolve_device(settings.device)
    model = load(settings.model, device, num_frames=settings.num_frames)
    rules = rules_of(settings, clips.several, clips.dataset()["name"])
    images = stored_frames(settings, model, clips)
    folder = Run.create(settings.out, "evaluate", settings, resume=_unfinished(settings.out))
    exam = set_exam(settings, model, clips, rules, images)
    audio = embed_audio(model, clips.shards, settings.batch_size)
    found = measure(exam, audio)
    results = _about(exam, found) | found
    if kept:
        rows = measure_kept(kept, exam, device, settings.batch_size, settings.num_frames)
        results |= {"checkpoints": rows, "best": best_epochs(rows)}
    results["figures"] = draw(folder.path, results, others) if settings.figures else []
    folder.finish(results, clips.facts() | {"model": _hashes(model)})
    print(table(results, clips, settings.prompt, settings.pool))
    print(f"\n-> {', '.join(str(folder.path / x) for x in ('results.json', *results['figures']))}")
    return 0


def _unfinished(out: str) -> bool:
    """Whether an evaluation began here and was cut off: it is simply done again."""
    path = Path(out)
    return (path / "run.json").is_file() and not (path / "results.json").exists()


def _about(exam: Exam, results: dict[str, Any]) -> dict[str, Any]:
    """On what and by which rules the numbers were taken."""
    clips: Clips = exam.clips
    found: dict[str, Any] = {"dataset": clips.dataset(), "compat": exam.rules.facts(results)}
    if clips.wordless:
        found["not_measured"] = {"zero_shot": clips.wordless}
    if clips.captions:
        found["captions_per_clip"] = clips.captions_per_clip()
    return found


def _hashes(model: Pivot) -> dict[str, Any]:
    return {
        "audio_hash": model.audio_hash,
        "clip_hash": model.clip.weights_hash,
        "num_frames": model.front_end.settings.num_frames,
    }
