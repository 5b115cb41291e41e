"""Training commands: `pretrain-va` (frames and sounds) and `train-at` (sounds and captions).

Data and models are opened and checked before the run folder is made, so a mistake leaves none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pivot.data.batches import Batches, clips_of, va_batches
from pivot.data.exclude import numbers_without
from pivot.data.fbank_cache import open_cache
from pivot.data.held_out import refuse_overlap
from pivot.data.ids import read_ids
from pivot.data.prompts import apply, apply_all, refuse_long_texts
from pivot.data.stream import SoundItems, open_with_sound
from pivot.embeddings.store import EmbeddingStore
from pivot.encoders.clip import FrozenClip
from pivot.errors import SettingsError
from pivot.model import Pivot
from pivot.runs import Run, finished
from pivot.settings import FitSettings, PretrainVa, TrainAt
from pivot.training.after_epoch import AfterEpoch, Validation
from pivot.training.aims import at_aims, facts_of, require_teacher, teachers_of, va_aims
from pivot.training.at_data import AtData, at_data, read_streams
from pivot.training.batch_norms import refuse_chunks
from pivot.training.fit import Fitted, fit
from pivot.training.journal import TaskBatches
from pivot.training.module import TERMS, Contrast, weights_of
from pivot.training.partners import FramePartners, Partners, StorePartners, TextStorePartners
from pivot.training.partners import text_partners as text_partners
from pivot.training.processes import first, is_first, with_processes
from pivot.training.schedule import schedule
from pivot.training.sentences import Sentences
from pivot.training.start import device_of as device_of
from pivot.training.start import opened_va, require_clip, started, started_va
from video_prep.shards import ShardFolder


def pretrain_va(settings: PretrainVa) -> int:
    """Train an audio encoder to land where the frozen CLIP puts the frames of its clips."""
    return with_processes(_pretrain_va, settings)


def train_at(settings: TrainAt) -> int:
    """Fine-tune the audio encoder of a model on (sound, caption) pairs, with frames too (VAT)."""
    return with_processes(_train_at, settings)


def _pretrain_va(settings: PretrainVa) -> int:
    if first(lambda: finished(settings.out, "pretrain-va", settings, settings.resume)):
        return 0
    require_clip(settings)
    shards = open_with_sound(settings.shards)
    opened, front_end = opened_va(settings, shards)
    cache = open_cache(settings.fbank, front_end, shards)
    sounds = SoundItems(shards, front_end, settings.cache_mb, cache)
    batches = va_batches(
        sounds,
        settings.frames,
        settings.batch_size,
        settings.mask,
        settings.seed,
        _chosen(settings, sounds),
        numbered=settings.targets.kind == "same_recording",
    )
    _check(settings, batches, [batches])
    store = EmbeddingStore.open(settings.images) if settings.images else None
    validation = Validation.open(settings, front_end) if settings.validation else None
    more = [validation.shards] if validation else []
    held = first(lambda: refuse_overlap(shards, batches.clips, settings, more))
    model = started_va(settings, opened, front_end)
    partners = {"image": _frames(sounds, store, _clip(model))}
    task = Contrast(
        model.audio,
        partners,
        settings.loss,
        chunk=settings.grad_cache,
        aims=va_aims(settings, partners["image"]),
        every={"image"} if settings.frames == "all" else (),
    )
    data = (
        data_facts(shards, len(batches.clips))
        | {
            "images": settings.images,
            "fbank": settings.fbank,
            "chosen": settings.clips,
            "validation": validation.facts() if validation else None,
        }
        | ({"started_from": opened.hash} if opened else {})
    )
    data |= {"held_out": held} if held else {}
    return _fit(settings, "pretrain-va", task, batches, model, data, validation)


def _chosen(settings: PretrainVa, sounds: SoundItems) -> list[int] | None:
    """Numbers of the clips that train; None: all."""
    clips = clips_of(sounds, read_ids(settings.clips)) if settings.clips else None
    if not settings.exclude:
        return clips
    numbers = range(len(sounds.shards)) if clips is None else clips
    return numbers_without(sounds.shards, numbers, settings.exclude)


def _train_at(settings: TrainAt) -> int:
    if first(lambda: finished(settings.out, "train-at", settings, settings.resume)):
        return 0
    require_teacher(settings)
    streams = read_streams(settings)
    apply(settings.prompt, "")  # a malformed template is found before the work
    model = started(settings, streams[0].shards)
    sides = {side for name in weights_of(settings.terms) for side in TERMS[name]}
    at = at_data(settings, streams, model.front_end, sides)
    _check(settings, at.batches, at.parts)
    held = first(lambda: _held_out(settings, at))
    partners = _partners_of(settings, sides, at, model)
    teachers = teachers_of(settings, at, model, partners)
    task = Contrast(
        model.audio,
        partners,
        settings.loss,
        settings.terms,
        settings.loss.scale_init if settings.restart_scale else model.scale,
        settings.grad_cache,
        aims=at_aims(settings, teachers),
        seed=settings.seed,
    )
    data = data_facts(at.sounds.shards, at.clips) | {
        "pairs": len(streams[0].pairs),
        "captions": len(at.texts),
        "pairs_meta": streams[0].pairs.meta,
        "prompt": settings.prompt,
        "texts": settings.texts,
        "images": settings.images,
        "fbank": settings.fbank,
        "started_from": model.audio_hash if settings.model else None,
    }
    data |= at.facts(settings) | ({"held_out": held} if held else {})
    data |= {"teachers": facts_of(teachers)} if teachers else {}
    return _fit(settings, "train-at", task, at.batches, model, data)


# ---- opening and checking -------------------------------------------------------------------


def _check(settings: FitSettings, batches: TaskBatches, parts: Sequence[Batches]) -> None:
    for part in parts:
        part.sounds.require(part.clips)
    schedule(settings, batches.per_epoch)  # refuses what makes no step


def _held_out(settings: TrainAt, at: AtData) -> list[dict[str, Any]]:
    """Refuse clips of either stream that are held out; what was compared."""
    found = []
    for stream, part in zip(at.streams, at.parts, strict=True):
        found += refuse_overlap(stream.shards, part.clips, settings)
    return found


def _clip(model: Pivot) -> FrozenClip:
    if model.clip is None:
        raise SettingsError(
            "frames and frozen captions need a CLIP, which this model has not; start from another, "
            "or train its own text encoder without --terms of images"
        )
    return model.clip


def _frames(sounds: SoundItems, store: EmbeddingStore | None, clip: FrozenClip) -> Partners:
    return StorePartners(store, sounds.shards, clip) if store else FramePartners(sounds, clip)


def _partners_of(
    settings: TrainAt, sides: set[str], at: AtData, model: Pivot
) -> dict[str, Partners]:
    """Partners of the sides that the terms need; frozen captions are encoded here and now."""
    found: dict[str, Partners] = {}
    if "image" in sides:
        store = EmbeddingStore.open(settings.images) if settings.images else None
        found["image"] = _frames(at.sounds, store, _clip(model))
    if "text" not in sides:
        return found
    if model.text is not None:
        if settings.texts:
            raise SettingsError(
                f"--texts {settings.texts} holds frozen captions; leave it out where the text "
                "encoder trains"
            )
        sentences = apply_all(settings.prompt, at.texts)
        found["text"] = Sentences(model.text, sentences, settings.grad_cache)
    elif settings.texts:
        store = EmbeddingStore.open(settings.texts)
        found["text"] = TextStorePartners(store, at.texts, _clip(model), settings.prompt)
    else:
        refuse_long_texts(_clip(model).tokenize, at.texts, settings.prompt)
        found["text"] = text_partners(_clip(model), at.texts, settings.prompt)
    return found


# ---- training -------------------------------------------------------------------------------


def data_facts(shards: ShardFolder, clips: int) -> dict[str, Any]:
    """What a training was done on, for results.json."""
    return {"shards": shards.path, "fingerprint": shards.fingerprint, "clips": clips}


def _fit(
    settings: FitSettings,
    command: str,
    task: Contrast,
    batches: TaskBatches,
    model: Pivot,
    data: dict[str, Any],
    validation: Validation | None = None,
) -> int:
    """Train, and let rank 0 write the model and, last of all, the results."""
    refuse_chunks(task, settings)
    run = first(lambda: Run.create(settings.out, command, settings, settings.resume))
    for line in model.text.notes if model.text is not None and is_first() else ():
        run.note(line)
    hook = AfterEpoch(run, settings.keep_epochs, task, model, validation)
    fitted = fit(task, batches, settings, run=run, label=command, after_epoch=hook)
    if is_first():
        model.scale = task.scale
        clip = model.clip.weights_hash if model.clip else None
        _finish(run, model, fitted, data | {"clip": clip}, task.term_scales())
    return 0


def _finish(
    run: Run, model: Pivot, fitted: Fitted, data: dict[str, Any], scales: dict[str, float]
) -> None:
    folder = run.path / "model"
    model.save(folder, command=run.command, steps=fitted.steps)
    facts = fitted.facts() | {"scales": scales, "clips": data["clips"]}
    hashes = {"audio_hash": model.audio_hash}
    hashes |= {"text_hash": model.text_hash} if model.text else {}
    run.finish(facts | hashes, data)
    print(
        f"trained {fitted.steps} steps on {data['clips']} clips in {fitted.seconds:.0f} s "
        f"({fitted.clips_per_second:.0f} clips/s), loss {fitted.loss:.3f} -> {folder}"
    )
