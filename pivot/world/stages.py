"""The demo's journey as a list of jobs: every stage is a command with the settings shown here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pivot.settings import (
    AudioSettings,
    ClipSettings,
    Demo,
    Embed,
    Evaluate,
    LossSettings,
    MaskSettings,
    MeasureFbank,
    MineCaptions,
    MuonSettings,
    PretrainVa,
    ScalingCurve,
    Settings,
    TrainAt,
    VitSettings,
)
from pivot.world.jobs import Job
from video_prep.settings import PrepareFrames

CLIP = ClipSettings(model="tiny-world")
AUDIO = AudioSettings(num_mel_bins=72, frame_length_ms=50, frame_shift_ms=40, num_frames=51)
ENCODER = VitSettings(stride=(6, 12), kernel="load_sum")
MASK = MaskSettings(time=10, freq=12)
SPLITS = ("train", "test_single", "test_mixed")
HEARD = "the sound of a"  # prompt of class names


class MakeWorld(Settings):
    """Write the world's videos, captions and labels."""

    out: str
    seed: int
    train: int
    test_single: int
    test_mixed: int
    workers: int


@dataclass(frozen=True)
class Size:
    """How much of everything a demo takes."""

    train: int
    test_single: int
    test_mixed: int
    va_steps: int
    at_steps: int
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]


FULL = Size(1500, 480, 400, 300, 300, (32, 128, 512, 1500), (1, 2))
FAST = Size(300, 96, 80, 120, 80, (32, 96, 288), (1,))


@dataclass(frozen=True)
class Tuning:
    """An audio-text fine-tuning of the demo: where its captions come from."""

    key: str
    rule: str
    pool: str  # caption pool of the world, or "" for the clips' own captions
    prompt: str


TUNINGS = (
    Tuning("at_ac", "pivot", "captions_audio.txt", ""),
    Tuning("at_vc", "pivot", "captions_vision.txt", ""),
    Tuning("at_fc", "pivot", "captions_free.txt", ""),
    Tuning("at_rc", "random", "captions_audio.txt", ""),
    Tuning("at_gc", "gold", "", ""),
)
MODELS = ("untrained", "va_random_init", "va", "va_long", *(tuning.key for tuning in TUNINGS))


def make_world(settings: MakeWorld) -> int:
    """Write the world's videos, captions and labels; the one stage that is no command."""
    from pivot.world.clips import write_world

    write_world(
        settings.out,
        settings.seed,
        train=settings.train,
        test_single=settings.test_single,
        test_mixed=settings.test_mixed,
        workers=settings.workers,
    )
    return 0


def save_untrained(settings: PretrainVa) -> int:
    """Save the encoder from which VA pre-training starts, as the table's first line."""
    from pivot.audio.frontend import FrontEnd, resolve_norm
    from pivot.encoders import build_audio
    from pivot.encoders.clip import load_clip
    from pivot.model import Pivot

    clip = load_clip(settings.clip)
    audio = build_audio(clip, settings.encoder, settings.audio, settings.seed)
    front_end = FrontEnd(settings.audio, resolve_norm(settings.audio, settings.shards))
    Pivot(clip, audio, front_end).save(Path(settings.out) / "model")
    return 0


def size_of(settings: Demo) -> Size:
    """What a demo of these settings takes."""
    size = FAST if settings.fast else FULL
    if settings.clips is None:
        return size
    sizes = tuple(n for n in size.sizes if n < settings.clips)
    return Size(**{**vars(size), "train": settings.clips, "sizes": (*sizes, settings.clips)})


def jobs(settings: Demo, workers: int) -> list[Job]:
    """All jobs of a demo, in an order in which the long ones start early."""
    out, size = Path(settings.out), size_of(settings)
    return [
        _world(out, size, settings.seed, workers),
        *_prepare(out, workers),
        *_embed(out),
        *_pretrain(out, size, settings.seed),
        *_mine(out, settings.seed),
        _scaling(out, size, settings.seed),
        *_tune(out, size, settings.seed),
        *_evaluate(out),
    ]


def _world(out: Path, size: Size, seed: int, workers: int) -> Job:
    world = MakeWorld(
        out=str(out / "world"),
        seed=seed,
        train=size.train,
        test_single=size.test_single,
        test_mixed=size.test_mixed,
        workers=workers,
    )
    return Job("world", "pivot.world.stages:make_world", world)


def _prepare(out: Path, workers: int) -> list[Job]:
    """Videos to shards, one split after the other: each uses all the cores."""
    found, before = [], "world"
    for split in SPLITS:
        settings = PrepareFrames(
            source=str(out / "world" / split / "clips.jsonl"),
            out=str(out / "shards" / split),
            workers=workers,
        )
        job = Job(f"prepare-{split}", "video_prep.prepare:run", settings, (before,))
        found.append(job)
        before = job.name
    return found


def _embed(out: Path) -> list[Job]:
    ready = f"prepare-{SPLITS[-1]}"
    measure = MeasureFbank(shards=str(out / "shards" / "train"), audio=AUDIO)
    found = [Job("measure-fbank", "pivot.data.measure:run", measure, (ready,))]
    for split in SPLITS:
        settings = Embed(
            what="image",
            data=str(out / "shards" / split),
            out=str(out / "frames" / split),
            clip=CLIP,
        )
        found.append(Job(f"frames-{split}", "pivot.embeddings.embed:run", settings, (ready,)))
    return found


def _pretrain(out: Path, size: Size, seed: int) -> list[Job]:
    """VA pre-training, from random weights for comparison, and for as long as VA and AT together.

    The long one tells what of a fine-tuning's gain is owed to its captions, not to its steps.
    """
    found = []
    long = size.va_steps + size.at_steps
    for name, init, steps in (
        ("va", "clip", size.va_steps),
        ("va_random_init", "random", size.va_steps),
        ("va_long", "clip", long),
        ("untrained", "clip", size.va_steps),
    ):
        settings = PretrainVa(
            shards=str(out / "shards" / "train"),
            out=str(out / "runs" / name),
            clip=CLIP,
            audio=AUDIO,
            encoder=ENCODER.model_copy(update={"init": init}),
            images=str(out / "frames" / "train"),
            seed=seed,
            batch_size=64,
            resume=True,
            max_steps=steps,
            warmup_epochs=1,
            optim=MuonSettings(),
            mask=MASK,
        )
        needs = ("measure-fbank", "frames-train")
        function = "pivot.training.commands:pretrain_va"
        if name == "untrained":
            function = "pivot.world.stages:save_untrained"
        found.append(Job(name, function, settings, needs))
    return found


def _mine(out: Path, seed: int) -> list[Job]:
    found = []
    for tuning in TUNINGS:
        pool = out / "world" / tuning.pool if tuning.pool else out / "shards" / "train"
        settings = MineCaptions(
            images=str(out / "frames" / "train"),
            captions=str(pool),
            out=str(out / "pairs" / f"{tuning.key}.parquet"),
            rule=tuning.rule,
            prompt=tuning.prompt,
            top_k=5,
            seed=seed,
        )
        name = f"pairs-{tuning.key}"
        found.append(Job(name, "pivot.mining.curate:run", settings, ("frames-train",)))
    return found


def _tune(out: Path, size: Size, seed: int) -> list[Job]:
    found = []
    for tuning in TUNINGS:
        settings = TrainAt(
            shards=str(out / "shards" / "train"),
            model=str(out / "runs" / "va"),
            pairs=str(out / "pairs" / f"{tuning.key}.parquet"),
            out=str(out / "runs" / tuning.key),
            seed=seed,
            resume=True,
            max_steps=size.at_steps,
            optim=MuonSettings(),
            mask=MASK,
        )
        needs = ("va", f"pairs-{tuning.key}")
        found.append(Job(tuning.key, "pivot.training.commands:train_at", settings, needs))
    return found


def _scaling(out: Path, size: Size, seed: int) -> Job:
    settings = ScalingCurve(
        shards=str(out / "shards" / "train"),
        test=str(out / "shards" / "test_single"),
        model=str(out / "runs" / "va"),
        pairs=str(out / "pairs" / "at_gc.parquet"),
        out=str(out / "runs" / "scaling"),
        sizes=size.sizes,
        seeds=tuple(seed + s for s in size.seeds),
        prompt=HEARD,
        labels=str(out / "world" / "labels.txt"),
        resume=True,
        max_steps=size.at_steps // 2,
        optim=MuonSettings(),
        mask=MASK,
        loss=LossSettings(),
    )
    needs = ("va", "pairs-at_gc")
    return Job("scaling", "pivot.evaluation.scaling:run", settings, needs)


def _evaluate(out: Path) -> list[Job]:
    """Every model on single things (class names) and on mixed clips (captions)."""
    found = []
    for model in MODELS:
        for split in ("test_single", "test_mixed"):
            settings = Evaluate(
                model=str(out / "runs" / model),
                shards=str(out / "shards" / split),
                out=str(out / "numbers" / f"{model}-{split}"),
                labels=str(out / "world" / "labels.txt"),
                prompt=HEARD,
                images=str(out / "frames" / split),
            )
            name = f"evaluate-{model}-{split}"
            needs = (model, f"frames-{split}")
            found.append(Job(name, "pivot.evaluation.evaluate:run", settings, needs))
    return found
