"""Training commands: `pretrain-va` (frames and sounds) and `train-at` (sounds and captions).

Data and models are opened and checked before the run folder is made, so a mistake leaves none.
"""

from __future__ import annotations

from typing import Any

from pivot.audio.frontend import FrontEnd, resolve_norm
from pivot.data.batches import Batches, PairTable, clips_of, va_batches
from pivot.data.fbank_cache import open_cache
from pivot.data.ids import read_ids
from pivot.data.pairs import pairs_with_sound, read_pairs
from pivot.data.prompts import apply
from pivot.data.stream import SoundItems, open_with_sound
from pivot.embeddings.store import EmbeddingStore
from pivot.encoders.clip import FrozenClip
from pivot.model import Pivot
from pivot.runs import Run, finished
from pivot.settings import FitSettings, PretrainVa, TrainAt
from pivot.training.after_epoch import AfterEpoch, Validation
from pivot.training.fit import Fitted, fit
from pivot.training.module import TERMS, Contrast, weights_of
from pivot.training.partners import FramePartners, Partners, StorePartners, TextStorePartners
from pivot.training.partners import text_partners as text_partners
from pivot.training.processes import first, is_first, with_processes
from pivot.training.schedule import schedule
from pivot.training.start import device_of as device_of
from pivot.training.start import fresh, require_clip, started
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
    front_end = FrontEnd(settings.audio, resolve_norm(settings.audio, shards))
    sounds = _sounds(settings, shards, front_end)
    clips = clips_of(sounds, read_ids(settings.clips)) if settings.clips else None
    batches = va_batches(
        sounds, settings.frames, settings.batch_size, settings.mask, settings.seed, clips
    )
    _check(settings, batches)
    store = EmbeddingStore.open(settings.images) if settings.images else None
    validation = Validation.open(settings, front_end) if settings.validation else None
    model = fresh(settings, front_end)
    partners = {"image": _frames(sounds, store, model.clip)}
    task = Contrast(model.audio, partners, settings.loss, chunk=settings.grad_cache)
    data = data_facts(shards, len(batches.clips)) | {
        "images": settings.images,
        "fbank": settings.fbank,
        "chosen": settings.clips,
        "validation": validation.facts() if validation else None,
    }
    return _fit(settings, "pretrain-va", task, batches, model, data, validation)


def _train_at(settings: TrainAt) -> int:
    if first(lambda: finished(settings.out, "train-at", settings, settings.resume)):
        return 0
    shards = open_with_sound(settings.shards)
    pairs = pairs_with_sound(read_pairs(settings.pairs), shards)
    apply(settings.prompt, "")  # a malformed template is found before the work
    model = started(settings, shards)
    sounds = _sounds(settings, shards, model.front_end)
    table = PairTable.of(sounds, pairs)
    sides = {side for name in weights_of(settings.terms) for side in TERMS[name]}
    batches = table.batches(
        sounds,
        settings.batch_size,
        settings.mask,
        settings.seed,
        captions="none" if "text" not in sides else "other" if settings.redraw else "own",
        frames=settings.frames if "image" in sides else None,
    )
    _check(settings, batches)
    partners = _partners_of(settings, sides, sounds, table.texts, model.clip)
    scale = settings.loss.scale_init if settings.restart_scale else model.scale
    task = Contrast(
        model.audio, partners, settings.loss, settings.terms, scale, settings.grad_cache
    )
    data = data_facts(shards, len(batches.clips)) | {
        "pairs": len(pairs),
        "captions": len(table.texts),
        "pairs_meta": pairs.meta,
        "prompt": settings.prompt,
        "texts": settings.texts,
        "images": settings.images,
        "fbank": settings.fbank,
        "started_from": model.audio_hash if settings.model else None,
    }
    return _fit(settings, "train-at", task, batches, model, data)


# ---- opening and checking -------------------------------------------------------------------


def refuse_long_texts(clip: FrozenClip, texts: list[str], prompt: str) -> None:
    """Tokenise once, before the run folder is made: a caption too long for CLIP is named."""
    for start in range(0, len(texts), 4096):
        clip.tokenize([apply(prompt, text) for text in texts[start : start + 4096]])


def _sounds(settings: PretrainVa | TrainAt, shards: ShardFolder, front_end: FrontEnd) -> SoundItems:
    cache = open_cache(settings.fbank, front_end, shards)
    return SoundItems(shards, front_end, settings.cache_mb, cache)


def _check(settings: FitSettings, batches: Batches) -> None:
    batches.sounds.require(batches.clips)
    schedule(settings, batches.per_epoch)  # refuses what makes no step


def _frames(sounds: SoundItems, store: EmbeddingStore | None, clip: FrozenClip) -> Partners:
    return StorePartners(store, sounds.shards, clip) if store else FramePartners(sounds, clip)


def _partners_of(
    settings: TrainAt, sides: set[str], sounds: SoundItems, texts: list[str], clip: FrozenClip
) -> dict[str, Partners]:
    """Partners of the sides that the terms need; captions are encoded here and now."""
    found: dict[str, Partners] = {}
    if "image" in sides:
        store = EmbeddingStore.open(settings.images) if settings.images else None
        found["image"] = _frames(sounds, store, clip)
    if "text" in sides and settings.texts:
        store = EmbeddingStore.open(settings.texts)
        found["text"] = TextStorePartners(store, texts, clip, settings.prompt)
    elif "text" in sides:
        refuse_long_texts(clip, texts, settings.prompt)
        found["text"] = text_partners(clip, texts, settings.prompt)
    return found


# ---- training -------------------------------------------------------------------------------


def data_facts(shards: ShardFolder, clips: int) -> dict[str, Any]:
    """What a training was done on, for results.json."""
    return {"shards": shards.path, "fingerprint": shards.fingerprint, "clips": clips}


def _fit(
    settings: FitSettings,
    command: str,
    task: Contrast,
    batches: Batches,
    model: Pivot,
    data: dict[str, Any],
    validation: Validation | None = None,
) -> int:
    """Train, and let rank 0 write the model and, last of all, the results."""
    run = first(lambda: Run.create(settings.out, command, settings, settings.resume))
    hook = AfterEpoch(run, settings.keep_epochs, task, model, validation)
    fitted = fit(task, batches, settings, run=run, label=command, after_epoch=hook)
    if is_first():
        model.scale = task.scale
        _finish(run, model, fitted, data | {"clip": model.clip.weights_hash}, task.term_scales())
    return 0


def _finish(
    run: Run, model: Pivot, fitted: Fitted, data: dict[str, Any], scales: dict[str, float]
) -> None:
    folder = run.path / "model"
    model.save(folder, command=run.command, steps=fitted.steps)
    facts = fitted.facts() | {"scales": scales, "clips": data["clips"]}
    run.finish(facts | {"audio_hash": model.audio_hash}, data)
    print(
        f"trained {fitted.steps} steps on {data['clips']} clips in {fitted.seconds:.0f} s "
        f"({fitted.clips_per_second:.0f} clips/s), loss {fitted.loss:.3f} -> {folder}"
    )
