"""The dry run: every experiment's own command on made-up data, a few steps each, side by side."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pivot.reproduce.made_up import MadeUp
from pivot.reproduce.table import Experiment, value_at
from pivot.settings import Settings
from pivot.world.jobs import Job, run_jobs
from video_prep.files import write_json

# Laid over each config: its own front end, masks, loss, optimiser and schedule stay.
_CLIP = ("--clip.model", "downloads/clip", "--clip.pretrained", "")
_STEPS = ("--epochs", "1", "--max-steps", "2", "--batch-size", "4", "--device", "cpu")
_PREPARE = ("--workers", "1", "--shard-size", "16")
TINY: dict[str, tuple[str, ...]] = {
    "prepare-frames": _PREPARE,
    "prepare-audio": _PREPARE,
    "pretrain-va": (*_STEPS, *_CLIP),
    "embed": ("--device", "cpu"),
    "write-captions": ("--model", "downloads/gpt-j", "--count", "6", "--device", "cpu"),
    "mine-captions": ("--device", "cpu"),
    "train-at": _STEPS,
    "evaluate": ("--device", "cpu"),
    "scaling-curve": (*_STEPS, "--sizes", "4", "8", "16"),
    "train-classifier": _STEPS,
    "balance": ("--k", "2", "--device", "cpu"),
    "import-checkpoint": _CLIP,
}
# Commands that take a CLIP only where they have no model
WITH_CLIP = {"embed_frames.yaml", "classifier_esc50_clip.yaml", "classifier_us8k_clip.yaml"}
FROM_MODELS = {"pretrain-va", "write-captions", "import-checkpoint"}
DATA, MODELS = "made_up_data", "made_up_models"  # the two jobs before all experiments


class Attempt(Settings):
    """One experiment of a dry run: its words on the command line, and what must come of it."""

    name: str
    argv: tuple[str, ...]
    root: str
    needs: tuple[str, ...]
    makes: str
    keys: tuple[str, ...]


def dry_run(
    table: Sequence[Experiment], root: Path, configs: Path, workers: int
) -> dict[str, dict[str, Any]]:
    """Make the data in ROOT, try every experiment there, and say how each ended.

    Returns {name: {"ok", "why", "needed", "seconds"}}: `why` it is broken, and which of those that
    it needs were broken before, so that it was not tried. What it printed is in ROOT/logs.
    """
    root = root.resolve()
    made_up = MadeUp(out=str(root / "downloads"))
    jobs = [Job(DATA, "pivot.reproduce.made_up:run", made_up)]
    attempts = [_attempt(each, root, configs) for each in table]
    modelled = [
        one.name for one in attempts if one.argv[0] in FROM_MODELS or "--clip.model" in one.argv
    ]
    if modelled:
        jobs.append(Job(MODELS, "pivot.reproduce.made_models:run", made_up, (DATA,)))
    for one in attempts:
        first = MODELS if one.name in modelled else DATA
        jobs.append(Job(one.name, "pivot.reproduce.dry_run:attempt", one, (first, *one.needs)))

    def tell(name: str, seconds: float, left: int) -> None:
        told = {"ok": True} if name in (DATA, MODELS) else _outcome(root, name)
        verdict = "ok" if told["ok"] else f"FAILED: {told['why']}"
        print(f"{name:<34}{seconds:6.1f} s   {verdict}", flush=True)

    took = run_jobs(jobs, root, workers, tell, lambda running: None)
    return {each.name: _outcome(root, each.name) | {"seconds": took[each.name]} for each in table}


def _attempt(experiment: Experiment, root: Path, configs: Path) -> Attempt:
    argv = experiment.argv(configs)
    clip = _CLIP if Path(experiment.config).name in WITH_CLIP else ()
    return Attempt(
        name=experiment.name,
        argv=(*argv, *TINY[argv[0]], *clip),
        root=str(root),
        needs=experiment.needs,
        makes=experiment.makes,
        keys=tuple(expected.key for expected in experiment.expected),
    )


def attempt(settings: Attempt) -> int:
    """Run the command as the command line does, and write down how it ended; never fails itself."""
    root = Path(settings.root)
    broken = [name for name in settings.needs if not _outcome(root, name)["ok"]]
    why = f"not tried: {', '.join(broken)} failed" if broken else _why(settings, root)
    write_json(_place(root, settings.name), {"ok": not why, "why": why, "needed": broken})
    return 0


def _why(settings: Attempt, root: Path) -> str:
    """Run the command; why it is broken, or nothing."""
    os.chdir(root)  # the configs name data/ and runs/ of the folder in which a user works
    log = root / "logs" / f"{settings.name}.txt"
    print("pivot", *settings.argv, flush=True)
    try:
        # The dry run is a user of the command line, which stands on a higher floor.
        status = import_module("pivot.cli").main(list(settings.argv))
    except Exception as error:  # whatever an experiment raises is what a dry run is there to tell
        import traceback

        traceback.print_exc()
        return f"{type(error).__name__}: {' '.join(str(error).split())} (see {log})"
    sys.stdout.flush()
    sys.stderr.flush()
    if status:
        said = [line for line in log.read_text().splitlines() if line.startswith("pivot: ")]
        return said[-1].removeprefix("pivot: ") if said else f"status {status} (see {log})"
    if not (root / settings.makes).exists():
        return f"it ended well without {settings.makes}"
    return _missing(settings, root)


def _missing(settings: Attempt, root: Path) -> str:
    """Whether a number that the table promises is not in the result."""
    if not settings.keys:
        return ""
    results = json.loads((root / settings.makes).read_text(encoding="utf-8"))
    lost = [key for key in settings.keys if value_at(results, key) is None]
    return f"{settings.makes} has no {', '.join(lost)}" if lost else ""


def _place(root: Path, name: str) -> Path:
    return root / "outcomes" / f"{name}.json"


def _outcome(root: Path, name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(_place(root, name).read_text(encoding="utf-8"))
    return told
