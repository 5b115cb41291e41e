"""Run folder: settings, versions, seed, log, metrics, results; a used folder is refused.

Layout: settings.yaml, run.json (command, versions), log.txt, metrics.jsonl, results.json (last).
"""

from __future__ import annotations

import json
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pivot.errors import RunError, SettingsError
from pivot.settings import Settings
from video_prep.files import write_json, write_whole

PACKAGES = (
    "torch", "open_clip_torch", "timm", "transformers", "tokenizers", "lightning", "numpy", "av",
    "soundfile", "soxr",
)  # fmt: skip

# Settings that may differ between the start of a run and its resumption: they say where and how
# often, never what is computed.
# (Processes and grad_cache change the order of a sum, so its last digits.)
FREE_ON_RESUME = {"resume", "device", "workers", "cache_mb", "log_every", "tensorboard", "open"}
FREE_ON_RESUME |= {"processes", "grad_cache", "jobs", "part", "siblings"}


def versions() -> dict[str, str]:
    """Versions of Pivot, Python and the packages that numbers depend on."""
    found = {"pivot": _version("pivot-audio"), "python": platform.python_version()}
    return found | {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def resolve_device(name: str) -> str:
    """Turn `auto` into cuda, mps or cpu; raise SettingsError for a device that is not here."""
    import torch  # only commands that compute get here

    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise SettingsError(
            f"--device {name} cannot be used here ({first}); take --device auto or cpu"
        ) from error
    return name


class Run:
    """An open run folder. Make one with `Run.create`; write to it with note, metric and finish."""

    def __init__(self, path: Path, command: str, settings: Settings) -> None:
        self.path = path
        self.command = command
        self.settings = settings
        self.started = time.time()

    @classmethod
    def create(cls, out: str | Path, command: str, settings: Settings, resume: bool = False) -> Run:
        """Open the run folder `out`, new or (with `resume`) one of the same command and settings.

        Raises RunError when the folder is in use and `resume` is off, is not a run of `command`,
        or was started with other settings (the message names the first that differs).
        """
        path = Path(out)
        run = cls(path, command, settings)
        if path.is_file():
            raise RunError(f"--out {path} is a file; name a folder")
        used = path.is_dir() and any(path.iterdir())
        if used and not resume:
            raise RunError(
                f"--out {path} is in use; name another folder, or add --resume to go on with it"
            )
        if used:
            run._check_same(command)
        path.mkdir(parents=True, exist_ok=True)
        if not used:
            write_whole(path / "settings.yaml", to_yaml(settings))
            write_json(path / "run.json", {"command": command, "versions": versions()})
        return run

    def _check_same(self, command: str) -> None:
        try:
            earlier = json.loads((self.path / "run.json").read_text())["command"]
            before = self._with_defaults(yaml.safe_load((self.path / "settings.yaml").read_text()))
        except (OSError, ValueError, KeyError) as error:
            raise RunError(
                f"--out {self.path} is not a run folder of Pivot; name another"
            ) from error
        if earlier != command:
            raise RunError(
                f"--out {self.path} holds a run of `pivot {earlier}`; name another folder"
            )
        now = json.loads(self.settings.model_dump_json())
        key = first_difference(before, now)
        if key:
            raise RunError(
                f"--out {self.path} was started with another --{key}; "
                "use the same settings to resume, or name another folder"
            )

    def _with_defaults(self, before: Any) -> Any:
        """Earlier settings with what did not exist then at its default, so that the run resumes."""
        try:
            whole = type(self.settings).model_validate(before)
        except ValidationError:  # of another command or version: told apart key by key
            return before
        return json.loads(whole.model_dump_json())

    def note(self, text: str) -> None:
        """Say one line on stderr and keep it in log.txt."""
        print(text, file=sys.stderr)
        with (self.path / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def metric(self, **row: Any) -> None:
        """Append one row to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def finish(self, results: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Write results.json: the numbers with command, settings, data, versions and seed.

        `data` holds what the numbers were computed on: counts, hashes, prompts, label lists.
        """
        whole = {
            "command": self.command,
            "seconds": round(time.time() - self.started, 2),
            **results,
            "data": data,
            "settings": json.loads(self.settings.model_dump_json()),
            "seed": getattr(self.settings, "seed", None),
            "versions": versions(),
        }
        write_json(self.path / "results.json", whole)
        return whole


def finished(out: str | Path, command: str, settings: Settings, resume: bool) -> bool:
    """Whether `out` holds this very run, finished; refuse a used folder before any work."""
    path = Path(out)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        run = Run.create(path, command, settings, resume)  # refuses what it must
        if (path / "results.json").is_file():
            run.note(f"{path} is finished already; nothing to do")
            return True
    return False


def to_yaml(settings: Settings) -> str:
    """Settings as YAML that `--config` reads back."""
    return yaml.safe_dump(json.loads(settings.model_dump_json()), sort_keys=False)


def first_difference(before: Any, now: Any, prefix: str = "") -> str | None:
    """Dotted, dashed name of the first setting that differs, or None."""
    for key in dict.fromkeys([*before, *now]):
        if key in FREE_ON_RESUME and not prefix:
            continue
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found = first_difference(old, new, f"{prefix}{key}.")
            if found:
                return found
        elif old != new:
            return f"{prefix}{key}".replace("_", "-")
    return None
