"""The engine of a Slurm cluster: a job array, each task makes its slice of the shards.

A task is an ordinary run with --shards on the saved plan, so one that is killed or requeued goes on
where it was, and the task that makes the last shard writes the record.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from video_prep.errors import UserError
from video_prep.files import write_whole
from video_prep.running.plan import Plan
from video_prep.settings import PrepareAudio

_PLACES = ("source", "out", "media", "ontology")  # a task may start in another folder
_NOT_OF_A_TASK = {"engine", "print", "ray_address", "shards", "slurm_options", "slurm_tasks"}
_SCRIPT = """\
#!/bin/sh
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --output={log}
#SBATCH --requeue
{options}# Shards of the plan: {shards}. The same script again does only what is missing.
set -eu
cd {here}
task=$SLURM_ARRAY_TASK_ID
exec {command} \\
  --shards "$((task * {shards} / {tasks})):$(((task + 1) * {shards} / {tasks}))"
"""


def check(settings: PrepareAudio) -> None:
    """Refuse options that no script can hold, and to hand in a job where there is no sbatch."""
    if "\n" in settings.slurm_options:
        raise UserError("--slurm-options holds a line break; give the options on one line")
    if not settings.print and shutil.which("sbatch") is None:
        raise UserError(
            "--engine slurm: sbatch is not on the PATH; add --print to get the script, and hand "
            "it in where Slurm is"
        )


def hand_in(command: str, plan: Plan, settings: PrepareAudio) -> int:
    """Print the script of the job array, or give it to sbatch; returns the exit status."""
    folder = Path(f"{os.path.abspath(settings.out)}.slurm")  # noqa: PTH100, keeps links
    try:
        folder.mkdir(exist_ok=True)  # Slurm drops the output of a task without a word otherwise
    except OSError as error:
        raise UserError(f"cannot make {folder} for the logs: {error.strerror}") from error
    text = script(command, plan, settings, folder)
    if settings.print:
        print(text, end="")
        return 0
    path = folder / "array.sh"
    write_whole(path, text)
    done = subprocess.run(["sbatch", str(path)], capture_output=True, text=True)
    if done.returncode:
        why = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise UserError(f"sbatch refused {path}: {why}")
    print(done.stdout.strip())
    print(
        f"handed in {plan.num_shards} shards of {len(plan.clips)} clips; logs are in {folder}; "
        "run the same command again to go on after an interruption"
    )
    return 0


def script(command: str, plan: Plan, settings: PrepareAudio, folder: Path) -> str:
    """The script of a job array with at most one task a shard; logs go to `folder`."""
    tasks = min(settings.slurm_tasks, plan.num_shards)
    log = str(folder).replace("%", "%%") + "/%A_%a.log"
    options = [f"--cpus-per-task={settings.workers}"] if settings.workers else []
    options += [settings.slurm_options] if settings.slurm_options else []
    words = [sys.executable, "-m", "pivot", command, *arguments(settings), "--engine", "local"]
    return _SCRIPT.format(
        name=f"pivot-{command}",
        last=tasks - 1,
        log=shlex.quote(log),
        options="".join(f"#SBATCH {option}\n" for option in options),
        shards=plan.num_shards,
        tasks=tasks,
        here=shlex.quote(os.getcwd()),  # noqa: PTH109
        command=shlex.join(words),
    )


def arguments(settings: PrepareAudio) -> list[str]:
    """Command line of a task, but for its shards: all that is not as by default."""
    words: list[str] = []
    for name, field in type(settings).model_fields.items():
        value: Any = getattr(settings, name)
        if name in _NOT_OF_A_TASK or value == field.default:
            continue
        if name in _PLACES:
            value = os.path.abspath(value)  # noqa: PTH100, a glob is no path
        flag = f"--{name.replace('_', '-')}"
        if name == "source":
            words.append(value)
        elif value is True:
            words.append(flag)
        elif isinstance(value, tuple):
            words += [flag, *value]
        else:
            words += [flag, str(value)]
    return words
