"""The demo's journey as a list of jobs: every stage is a command with the settings shown here."""

from __future__ import annotations

from pathlib import Path

from pivot.settings import (
    Demo,
    Embed,
    MeasureFbank,
    MineCaptions,
    PretrainVa,
    Settings,
    WriteCaptions,
)
from pivot.world.clips import POOLS
from pivot.world.jobs import Job
from pivot.world.siblings import sibling_jobs
from pivot.world.sizes import AUDIO, CLIP, FREE, SPLITS, TUNINGS, Size, size_of
from pivot.world.train_writer import TrainWriter
from pivot.world.trainings import classify, evaluate, pretrain, scaling, tune, tune_both
from video_prep.settings import PrepareFrames


class MakeWorld(Settings):
    """Write the world's videos, captions and labels."""

    out: str
    seed: int
    train: int
    test_single: int
    test_mixed: int
    workers: int


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
    from pivot.audio.frontend import make_front_end, resolve_norm
    from pivot.encoders import build_audio
    from pivot.encoders.clip import load_clip
    from pivot.model import Pivot

    clip = load_clip(settings.clip)
    audio = build_audio(clip, settings.encoder, settings.audio, settings.seed)
    front_end = make_front_end(settings.audio, resolve_norm(settings.audio, settings.shards))
    Pivot(clip, audio, front_end).save(Path(settings.out) / "model")
    return 0


def jobs(settings: Demo, workers: int) -> list[Job]:
    """All jobs of a demo, in an order in which the long ones start early."""
    out, size, seed = Path(settings.out), size_of(settings), settings.seed
    return [
        _world(out, size, seed, workers),
        *_prepare(out, workers),
        *_write(out, seed),
        *_embed(out),
        *pretrain(out, size, seed),
        *_mine(out, seed),
        scaling(out, size, seed),
        *tune(out, size, seed),
        tune_both(out, size, seed),
        *classify(out, size, seed),
        *evaluate(out),
        *(sibling_jobs(out, size, seed) if settings.siblings else ()),
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
        job = Job(f"prepare-{split}", "pivot.data.prepare_command:frames", settings, (before,))
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


def _write(out: Path, seed: int) -> list[Job]:
    """Free captions: a tiny GPT-J learns what one sees, and is primed with it."""
    seen, model = str(out / "world" / "captions_vision.txt"), str(out / "writer")
    learn = TrainWriter(captions=seen, out=model, seed=seed)
    write = WriteCaptions(
        primes=seen,
        out=str((out / FREE).parent),
        model=model,
        count=POOLS["vision"],
        num_primes=4,
        max_tokens=24,
        max_words=20,
        batch_size=256,
        seed=seed,
        resume=True,
    )
    return [
        Job("writer", "pivot.world.train_writer:run", learn, ("world",)),
        Job("write-captions", "pivot.writing.command:run", write, ("writer",)),
    ]


def _mine(out: Path, seed: int) -> list[Job]:
    found = []
    for tuning in TUNINGS:
        pool = out / tuning.pool if tuning.pool else out / "shards" / "train"
        settings = MineCaptions(
            images=str(out / "frames" / "train"),
            captions=str(pool),
            out=str(out / "pairs" / f"{tuning.key}.parquet"),
            rule=tuning.rule,
            top_k=5,
            seed=seed,
        )
        name = f"pairs-{tuning.key}"
        needs = ("frames-train", tuning.made_by)
        found.append(Job(name, "pivot.mining.curate:run", settings, needs))
    return found
