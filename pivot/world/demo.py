"""`pivot demo`: make the small world, run the whole journey on it, report what it shows."""

from __future__ import annotations

import json
import sys
import time
import webbrowser
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from pivot.evaluation.report.page import write_report
from pivot.runs import Run
from pivot.settings import Demo
from pivot.world.collect import collect_exhibits, collect_results, table
from pivot.world.jobs import Job, run_jobs
from pivot.world.sibling_results import collect_siblings, sibling_tables
from pivot.world.stages import jobs
from video_prep.settings import cores

COMMANDS = ("measure-fbank", "write-captions")  # stages of one job, told under its whole name
MOST_WORKERS = 4  # more would only wait for each other: the journey has few independent stages


def run(settings: Demo) -> int:
    """Run the demo; writes OUT/results.json and OUT/report.html and prints the table."""
    out = Path(settings.out)
    record = Run.create(out, "demo", settings, settings.resume)
    workers = max(1, min(cores(), MOST_WORKERS))
    todo = jobs(settings, workers)
    show = Progress(out, todo)
    record.note(
        f"{len(todo)} stages, {workers} at a time; what each prints is in {out / 'logs'}, "
        f"videos in {out / 'world'}"
    )
    seconds = run_jobs(todo, out, workers, show.finished, show.running)
    show.close()
    torch.set_num_threads(1)  # as the stages: a second thread only waits for a busy core
    start = time.perf_counter()
    results, data = collect_results(out, settings)
    if settings.siblings:
        results["siblings"] = collect_siblings(out)
    exhibits = collect_exhibits(out, results)
    took = time.perf_counter() - start
    results["seconds"] = _stages(seconds, took, time.time() - record.started)
    write_report(out / "report.html", record.finish(results, data), exhibits)
    print(table(results))
    if settings.siblings:
        print(f"\n{sibling_tables(results['siblings'])}\n")
    minutes = results["seconds"]["total"] / 60
    print(f"done in {minutes:.1f} minutes; open {out / 'report.html'}, or see {out}/results.json")
    if settings.open:
        webbrowser.open((out / "report.html").resolve().as_uri())
    return 0


def _stages(jobs_seconds: dict[str, float], report: float, total: float) -> dict[str, float]:
    """Seconds of work by stage; the stages overlap, so `total` (wall) is less than their sum."""
    stages: dict[str, float] = {}
    for name, took in jobs_seconds.items():
        stage = name if name in COMMANDS else name.partition("-")[0]
        stages[stage] = round(stages.get(stage, 0.0) + took, 1)
    return {**stages, "report": round(report, 1), "total": round(total, 1)}


class Progress:
    """One bar over all stages, a line for each that ends, and how far the trainings are."""

    def __init__(self, out: Path, todo: list[Job]) -> None:
        self.out = out
        self.steps: dict[str, int | None] = {
            job.name: getattr(job.settings, "max_steps", None) for job in todo
        }
        self.bar = tqdm(total=len(todo), unit="stage", disable=None, leave=False)

    def finished(self, name: str, seconds: float, left: int) -> None:
        """Say that a stage ended."""
        self.bar.update(1)
        tqdm.write(f"{name:<28} {seconds:7.1f} s   {left:3d} to go", file=sys.stderr)

    def running(self, names: list[str]) -> None:
        """Show what runs, and the step of a training."""
        self.bar.set_postfix_str(", ".join(f"{name}{self._step(name)}" for name in names))

    def close(self) -> None:
        """Remove the bar."""
        self.bar.close()

    def _step(self, name: str) -> str:
        rows = self.out / "runs" / name / "metrics.jsonl"
        if self.steps.get(name) is None or not rows.exists():
            return ""
        last: Any = rows.read_text().rstrip().rpartition("\n")[2]
        try:
            return f" {json.loads(last)['step']}/{self.steps[name]}"
        except (ValueError, KeyError):  # the row is being written
            return ""
