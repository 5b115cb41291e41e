"""The dry run: every experiment's own command on made-up data, a few steps each, side by side."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pivot.reproduce.made_up import SETS, MadeUp
from pivot.reproduce.table import Experiment, ended_well, value_at
from pivot.reproduce.tiny import tiny
from pivot.settings import Settings
from pivot.world.jobs import Job, run_jobs
from video_prep.files import write_json

DATA, MODELS = "made_up_data", "made_up_models"  # the two jobs before all experiments
PLACE = "downloads/"
FILES = {  # downloads that are models
    "released checkpoints": "vip_ant",
    "CNN14's checkpoint": "panns",
    "PaSST's checkpoint": "passt",
    "ATST's checkpoint": "atst",
    "MN's checkpoint": "mn",
    "LAION's checkpoints": "laion_clap",
}


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
    attempts = [_attempt(each, root, configs) for each in table]
    models = {each.name: _models(each) for each in table}
    data = {name for each in table for name in each.data} - set(FILES)
    out = str(root / PLACE)
    wanted = tuple(name for name in SETS if name in data)
    jobs = [Job(DATA, "pivot.reproduce.made_up:run", MadeUp(out=out, parts=wanted))]
    if parts := tuple(sorted(set().union(*models.values()))):
        settings = MadeUp(out=out, parts=parts)
        jobs.append(Job(MODELS, "pivot.reproduce.made_models:run", settings, (DATA,)))
    for one in attempts:
        first = MODELS if models[one.name] else DATA
        jobs.append(Job(one.name, "pivot.reproduce.dry_run:attempt", one, (first, *one.needs)))

    def tell(name: str, seconds: float, left: int) -> None:
        told = {"ok": True} if name in (DATA, MODELS) else _outcome(root, name)
        verdict = "ok" if told["ok"] else f"FAILED: {told['why']}"
        print(f"{name:<34}{seconds:6.1f} s   {verdict}", flush=True)

    took = run_jobs(jobs, root, workers, tell, lambda running: None)
    return {each.name: _outcome(root, each.name) | {"seconds": took[each.name]} for each in table}


def _attempt(experiment: Experiment, root: Path, configs: Path) -> Attempt:
    return Attempt(
        name=experiment.name,
        argv=(*experiment.argv(configs), *tiny(experiment)),
        root=str(root),
        needs=experiment.needs,
        makes=experiment.makes,
        keys=tuple(expected.key for expected in experiment.expected),
    )


def _models(experiment: Experiment) -> set[str]:
    """Made-up models that it starts from, beside those that other experiments make."""
    named = {word.removeprefix(PLACE) for word in tiny(experiment) if word.startswith(PLACE)}
    return named | {FILES[name] for name in experiment.data if name in FILES}


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
    if not ended_well(settings.argv[0], status):
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
