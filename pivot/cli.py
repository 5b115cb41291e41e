"""One table: command -> settings -> function, in the order in which the data travels.

Exit status: 0 done (also with some inputs skipped and named), 1 nothing could be used,
2 a mistake of the user's (one line on stderr), 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pivot import __version__
from pivot.errors import NothingUsableError, UserError


@dataclass(frozen=True)
class Command:
    """A command: where its settings and its function live, and what goes in and comes out."""

    name: str
    settings: str
    function: str
    travels: str


COMMANDS = {
    command.name: command
    for command in (
        Command("prepare-frames", "video_prep.settings:PrepareFrames",
                "pivot.data.prepare_command:frames", "videos -> frames + sound -> shards"),
        Command("prepare-audio", "video_prep.settings:PrepareAudio",
                "pivot.data.prepare_command:sounds", "sounds -> shards"),
        Command("prepare-frames verify", "video_prep.settings:Verify", "video_prep.verify:run",
                "hash shards again, redo what is damaged"),
        Command("measure-fbank", "pivot.settings:MeasureFbank", "pivot.data.measure:run",
                "shards -> mean and deviation of FBANK"),
        Command("pretrain-va", "pivot.settings:PretrainVa", "pivot.training.commands:pretrain_va",
                "(frame, sound) -> audio encoder, against the frozen CLIP"),
        Command("import-checkpoint", "pivot.settings:ImportCheckpoint",
                "pivot.released.command:run",
                "a checkpoint that the authors released -> a model"),
        Command("embed", "pivot.settings:Embed", "pivot.embeddings.embed:run",
                "frames, sounds or sentences -> a store"),
        Command("balance", "pivot.settings:Balance", "pivot.mining.balance:run",
                "stores of sounds -> the clips nearest to a balanced set"),
        Command("write-captions", "pivot.settings:WriteCaptions", "pivot.writing.command:run",
                "captions or labels -> new captions, by GPT-J, T5 or a template"),
        Command("lint-captions", "pivot.settings:LintCaptions", "pivot.writing.lint:run",
                "captions -> what no model should learn from, and why"),
        Command("mine-captions", "pivot.settings:MineCaptions", "pivot.mining.curate:run",
                "stores -> (sound, caption) pairs, through the image pivot"),
        Command("pairs", "pivot.settings:ConvertPairs", "pivot.mining.convert:run",
                "pairs of one layout -> another layout"),
        Command("check-overlap", "pivot.settings:CheckOverlap", "pivot.data.overlap_command:run",
                "two data sets -> the clips that they share"),
        Command("train-at", "pivot.settings:TrainAt", "pivot.training.commands:train_at",
                "(sound, caption) pairs -> audio-text model"),
        Command("train-classifier", "pivot.settings:TrainClassifier",
                "pivot.classification.command:run",
                "labelled sounds -> a classifier, fold by fold"),
        Command("evaluate", "pivot.settings:Evaluate", "pivot.evaluation.evaluate:run",
                "model -> zero-shot, retrieval and pivotability numbers"),
        Command("scaling-curve", "pivot.settings:ScalingCurve",
                "pivot.evaluation.scaling.command:run",
                "1, 2, 4, ... gold pairs -> score against log2(pairs)"),
        Command("search", "pivot.settings:Search", "pivot.evaluation.search:run",
                "a sentence -> the sounds it describes"),
        Command("reproduce", "pivot.settings:Reproduce", "pivot.reproduce.command:run",
                "a paper's tables and figures, one after the other"),
        Command("demo", "pivot.settings:Demo", "pivot.world.demo:run",
                "all of the above on a small made-up world, in minutes"),
        Command("bench", "pivot.settings:Bench", "pivot.bench.run:run",
                "what each station costs here, beside its peers"),
    )
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in {"-h", "--help", "help"}:
        print(journey())
        return 0
    if argv[0] in {"-V", "--version"}:
        print(f"pivot {__version__}")
        return 0
    try:
        return _run(*command_of(argv))
    except UserError as error:
        print(f"pivot: {error}", file=sys.stderr)
        return 1 if isinstance(error, NothingUsableError) else 2
    except KeyboardInterrupt:
        print("pivot: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `pivot search ... | head` is no mistake
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def journey() -> str:
    """What `pivot` prints by itself: the commands in the order of the journey."""
    lines = [f"  {c.name:<23}{c.travels}" for c in COMMANDS.values()]
    return "\n".join(
        [
            "Pivot: videos in, an audio encoder that text can search out.",
            "",
            "The journey:",
            *lines,
            "",
            "pivot COMMAND --help     every setting with its meaning and default",
            "pivot COMMAND --config FILE.yaml --some.setting VALUE",
            "pivot demo --out demo    start here",
        ]
    )


def command_of(argv: list[str]) -> tuple[str, list[str]]:
    """Name of the command (one word, or two as `prepare-frames verify`) and its arguments."""
    words = 2 if " ".join(argv[:2]) in COMMANDS else 1
    return " ".join(argv[:words]), argv[words:]


def _run(name: str, argv: list[str]) -> int:
    if name not in COMMANDS:
        raise UserError(_unknown(name))
    from pivot import config

    command = COMMANDS[name]
    settings = config.load(_find(command.settings), argv, f"pivot {name}")
    return int(_find(command.function)(settings) or 0)


def _unknown(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f"perhaps you meant `pivot {near[0]}`" if near else "`pivot` alone lists the commands"
    return f"no command {name!r}; {hint}"


def _find(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
