"""`pivot evaluate`: zero-shot classification, audio-text and image-audio retrieval of a model.

What the clips have decides what is measured: labels, folds, captions, frames. results.json holds
zero_shot, zero_shot_without_prompt, clip_image_zero_shot (the Oracle: the frozen CLIP on the clips'
middle frames), folds, retrieval, retrieval_clip_image, image_audio, pivotability, pivotable,
geometry, checkpoints; `dataset`, `compat` and `windows` say on what and by which rules; `gap` what
closing the modality gap did; figures lie beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pivot.errors import DataError, SettingsError
from pivot.evaluation.checkpoints import (
    best_epochs,
    hashes_of,
    kept_models,
    main_numbers,
    measure_kept,
)
from pivot.evaluation.clips import Clips, find_clips
from pivot.evaluation.compat import rules_of
from pivot.evaluation.exam import Exam, measure, set_exam, stored_frames
from pivot.evaluation.gap_sources import check_sources, close_gap
from pivot.evaluation.plots import check_beside, draw, read_beside
from pivot.evaluation.said import table
from pivot.evaluation.windows import embed_measured, window_facts, window_seconds
from pivot.evaluation.zero_shot import clip_of_texts
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
    _refuse_early(settings, model, clips, rules.score)
    images = stored_frames(settings, model, clips)
    folder = Run.create(settings.out, "evaluate", settings, resume=_unfinished(settings.out))
    exam = set_exam(settings, model, clips, rules, images)
    results = _results(settings, model, exam)
    if kept:

        def exam_of(other: Pivot) -> Exam:
            """The same exam where the texts go through the same frozen CLIP."""
            if other.text is None:
                return exam
            return set_exam(settings, other, clips, rules, exam.images)

        rows = measure_kept(kept, exam_of, settings, device)
        results |= {"checkpoints": rows, "best": best_epochs(rows)}
    results["figures"] = draw(folder.path, results, others) if settings.figures else []
    about = hashes_of(model) | {"num_frames": model.front_end.settings.num_frames}
    folder.finish(results, clips.facts() | {"model": about})
    print(table(results, clips, settings.prompt, settings.pool))
    print(f"\n-> {', '.join(str(folder.path / x) for x in ('results.json', *results['figures']))}")
    return 0


def _unfinished(out: str) -> bool:
    """Whether an evaluation began here and was cut off: it is simply done again."""
    path = Path(out)
    return (path / "run.json").is_file() and not (path / "results.json").exists()


def _results(settings: Evaluate, model: Pivot, exam: Exam) -> dict[str, Any]:
    """All numbers of a model; with --gap those with the gap closed, and the main ones without."""
    audio = embed_measured(settings, model, exam.clips.shards)
    found = measure(exam, audio)
    about = _about(settings, model, exam, found)
    if settings.gap == "none":
        return about | found
    closed, moved, facts = close_gap(settings, model, exam, audio)
    facts["open"] = main_numbers(found)
    return about | measure(closed, moved) | {"gap": facts}


def _refuse_early(settings: Evaluate, model: Pivot, clips: Clips, score: str) -> None:
    """What a model cannot be asked, before anything is written."""
    model.require_text()
    if window_facts(settings) is not None:
        window_seconds(settings, model.front_end)
    if score == "dot":
        clip_of_texts(model)
    check_sources(settings, model, clips)
    in_words = clips.labelled and clips.wordless is None
    if model.clip is None and not clips.captions and not in_words:
        raise DataError(
            f"{clips.shards.path} has neither labels in words nor captions, and {settings.model} "
            "has no CLIP for frames: nothing to measure; give --captions"
        )


def _about(settings: Evaluate, model: Pivot, exam: Exam, results: dict[str, Any]) -> dict[str, Any]:
    """On what and by which rules the numbers were taken."""
    clips: Clips = exam.clips
    found: dict[str, Any] = {"dataset": clips.dataset(), "compat": exam.rules.facts(results)}
    if facts := window_facts(settings):
        found["windows"] = facts | {"seconds": window_seconds(settings, model.front_end)}
    missing = {}
    if clips.wordless:
        missing["zero_shot"] = clips.wordless
    if model.clip is None and clips.shards.num_frames:
        missing["image_audio"] = "the model has no CLIP, so no side for frames"
    if missing:
        found["not_measured"] = missing
    if clips.captions:
        found["captions_per_clip"] = clips.captions_per_clip()
    return found
