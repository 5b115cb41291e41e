"""The demo's trainings and evaluations as jobs: every one is a command with the settings here."""

from __future__ import annotations

from pathlib import Path

from pivot.settings import (
    Evaluate,
    LossSettings,
    MuonSettings,
    PretrainVa,
    ScalingCurve,
    TermSettings,
    TrainAt,
    TrainClassifier,
)
from pivot.world.jobs import Job
from pivot.world.sizes import (
    AUDIO,
    CLIP,
    ENCODER,
    HEARD,
    LAYERS,
    MASK,
    MODELS,
    TUNINGS,
    Size,
)


def pretrain(out: Path, size: Size, seed: int) -> list[Job]:
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


def tune(out: Path, size: Size, seed: int) -> list[Job]:
    """Audio-text fine-tuning of VA, by each kind of pairs."""
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


def tune_both(out: Path, size: Size, seed: int) -> Job:
    """Frames and captions at once (VAT), on the pairs and for the steps of `at_ac`."""
    settings = TrainAt(
        shards=str(out / "shards" / "train"),
        model=str(out / "runs" / "va"),
        pairs=str(out / "pairs" / "at_ac.parquet"),
        out=str(out / "runs" / "vat_ac"),
        terms=TermSettings(audio_text=1, image_audio=1),
        images=str(out / "frames" / "train"),
        seed=seed,
        resume=True,
        max_steps=size.at_steps,
        optim=MuonSettings(),
        mask=MASK,
    )
    needs = ("va", "pairs-at_ac")
    return Job("vat_ac", "pivot.training.commands:train_at", settings, needs)


def classify(out: Path, size: Size, seed: int) -> list[Job]:
    """Classifiers on VA's encoder with labels, more and more of its last blocks trained."""
    found = []
    for number, layers in LAYERS.items():
        settings = TrainClassifier(
            shards=str(out / "shards" / "train"),
            test=str(out / "shards" / "test_single"),
            model=str(out / "runs" / "va"),
            labels=str(out / "world" / "labels.txt"),
            out=str(out / "runs" / f"classifier-{number}"),
            last_layers=layers,
            validation=0,
            seed=seed,
            resume=True,
            max_steps=size.classifier_steps,
            optim=MuonSettings(adamw_lr=0.01),  # a head of its own needs larger steps
            mask=MASK,
        )
        function = "pivot.classification.command:run"
        found.append(Job(f"classifier-{number}", function, settings, ("va",)))
    return found


def scaling(out: Path, size: Size, seed: int) -> Job:
    """The curve over the number of true captions."""
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
    return Job("scaling", "pivot.evaluation.scaling.command:run", settings, needs)


def evaluate(out: Path) -> list[Job]:
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
                figures=False,  # the report draws its own
            )
            name = f"evaluate-{model}-{split}"
            needs = (model, f"frames-{split}")
            found.append(Job(name, "pivot.evaluation.evaluate:run", settings, needs))
    return found
