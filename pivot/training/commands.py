"""Training commands: `pretrain-va` (frames and sounds) and `train-at` (sounds and captions).

Data and models are opened and checked before the run folder is made, so a mistake leaves none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pivot.audio.frontend import FrontEnd, resolve_norm
from pivot.data.batches import PairTable, va_batches
from pivot.data.fbank_cache import open_cache
from pivot.data.pairs import pairs_with_sound, read_pairs
from pivot.data.prompts import apply
from pivot.data.stream import SoundItems, open_with_sound
from pivot.embeddings.store import EmbeddingStore
from pivot.encoders import build_audio
from pivot.encoders.clip import FrozenClip, load_clip
from pivot.errors import SettingsError
from pivot.model import Pivot, load
from pivot.runs import Run, resolve_device
from pivot.settings import FitSettings, PretrainVa, TrainAt
from pivot.training.fit import Fitted, fit, resolve_precision
from pivot.training.partners import FramePartners, Partners, StorePartners, text_partners
from pivot.training.schedule import schedule
from video_prep.shards import ShardFolder


def pretrain_va(settings: PretrainVa) -> int:
    """Train an audio encoder to land where the frozen CLIP puts the frames of its clips."""
    if finished(settings, "pretrain-va"):
        return 0
    if not settings.clip.model:
        raise SettingsError("--clip.model is missing; name an open_clip model, or tiny-world")
    shards = open_with_sound(settings.shards)
    front_end = FrontEnd(settings.audio, resolve_norm(settings.audio, shards))
    cache = open_cache(settings.fbank, front_end, shards)
    sounds = SoundItems(shards, front_end, settings.cache_mb, cache)
    batches = va_batches(sounds, settings.frames, settings.batch_size, settings.mask, settings.seed)
    sounds.require(batches.clips)
    schedule(settings, batches.per_epoch)  # refuses what makes no step
    store = EmbeddingStore.open(settings.images) if settings.images else None
    clip = load_clip(settings.clip, device_of(settings))
    partners: Partners = (
        StorePartners(store, shards, clip) if store else FramePartners(sounds, clip)
    )
    audio = build_audio(clip, settings.encoder, settings.audio, settings.seed)
    run = Run.create(settings.out, "pretrain-va", settings, settings.resume)
    fitted = fit(audio, batches, partners, settings, run=run, label="pretrain-va")
    model = Pivot(clip, audio, front_end, fitted.scale)
    data = data_facts(shards, len(batches.clips))
    data |= {"images": settings.images, "fbank": settings.fbank}
    return _finish(run, model, fitted, data)


def train_at(settings: TrainAt) -> int:
    """Fine-tune the audio encoder of a model on (sound, caption) pairs."""
    if finished(settings, "train-at"):
        return 0
    shards = open_with_sound(settings.shards)
    pairs = pairs_with_sound(read_pairs(settings.pairs), shards)
    apply(settings.prompt, "")  # a malformed template is found before the work
    model = load(settings.model, device_of(settings))
    cache = open_cache(settings.fbank, model.front_end, shards)
    sounds = SoundItems(shards, model.front_end, settings.cache_mb, cache)
    table = PairTable.of(sounds, pairs)
    batches = table.batches(sounds, settings.batch_size, settings.mask, settings.seed)
    sounds.require(batches.clips)
    schedule(settings, batches.per_epoch)
    refuse_long_texts(model.clip, table.texts, settings.prompt)
    run = Run.create(settings.out, "train-at", settings, settings.resume)
    partners = text_partners(model.clip, table.texts, settings.prompt)
    scale = settings.loss.scale_init if settings.restart_scale else model.scale
    start = model.audio_hash
    fitted = fit(model.audio, batches, partners, settings, scale=scale, run=run, label="train-at")
    data = data_facts(shards, len(batches.clips)) | {
        "pairs": len(pairs),
        "captions": len(table.texts),
        "pairs_meta": pairs.meta,
        "prompt": settings.prompt,
        "fbank": settings.fbank,
        "started_from": start,
    }
    return _finish(run, Pivot(model.clip, model.audio, model.front_end, fitted.scale), fitted, data)


def finished(settings: FitSettings, command: str) -> bool:
    """Whether --out holds this very run, finished; refuse a used folder before any work."""
    out = Path(settings.out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        run = Run.create(out, command, settings, settings.resume)  # refuses what it must
        if (out / "results.json").is_file():
            run.note(f"{out} is finished already; nothing to do")
            return True
    return False


def device_of(settings: FitSettings) -> str:
    """The device of the settings, once it is known that it can be used as they say."""
    device = resolve_device(settings.device)
    resolve_precision(settings.precision, device)
    return device


def refuse_long_texts(clip: FrozenClip, texts: list[str], prompt: str) -> None:
    """Tokenise once, before the run folder is made: a caption too long for CLIP is named."""
    for start in range(0, len(texts), 4096):
        clip.tokenize([apply(prompt, text) for text in texts[start : start + 4096]])


def data_facts(shards: ShardFolder, clips: int) -> dict[str, Any]:
    """What a training was done on, for results.json."""
    return {"shards": shards.path, "fingerprint": shards.fingerprint, "clips": clips}


def _finish(run: Run, model: Pivot, fitted: Fitted, data: dict[str, Any]) -> int:
    """Write the model and, last of all, the results."""
    folder = run.path / "model"
    model.save(folder, command=run.command, steps=fitted.steps)
    run.finish(
        fitted.facts() | {"clips": data["clips"], "audio_hash": model.audio_hash},
        data | {"clip": model.clip.weights_hash},
    )
    print(
        f"trained {fitted.steps} steps on {data['clips']} clips in {fitted.seconds:.0f} s "
        f"({fitted.clips_per_second:.0f} clips/s), loss {fitted.loss:.3f} -> {folder}"
    )
    return 0
