"""`pivot reproduce PAPER`: list a paper's experiments, run them, or try them all in little."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pivot.errors import DataError, RunError, SettingsError
from pivot.reproduce.papers import PAPERS
from pivot.reproduce.table import (
    CONFIGS,
    DataSet,
    Experiment,
    Paper,
    choose,
    downloads,
    ended_well,
    shown,
    value_at,
)
from pivot.runs import Run, versions
from pivot.settings import Reproduce
from video_prep.files import write_json
from video_prep.settings import cores

DRY_RUN = "reproduce-dry-run"  # folder of a dry run, where --out names none
# Commands that go on with a run that was cut off; the others begin again by themselves.
RESUMABLE = {
    "pretrain-va", "train-at", "train-classifier", "scaling-curve", "write-captions",
}  # fmt: skip


def run(settings: Reproduce) -> int:
    """Print the table, run what is asked, or try it on made-up data."""
    paper = PAPERS[settings.paper]
    table = choose(paper.experiments, settings.only)
    if settings.list:
        print("\n".join(lines(paper, table)))
        return 0
    configs = Path(settings.configs)
    own = configs / Path(paper.configs).relative_to(CONFIGS)
    if not own.is_dir():
        raise SettingsError(
            f"--configs {configs} has no folder {own.name}; run this in a checkout of Pivot, or "
            f"name its {CONFIGS}"
        )
    if settings.dry_run:
        return _try(settings, table, configs)
    return _run(settings, paper.data, table, configs)


def lines(paper: Paper, table: Sequence[Experiment]) -> list[str]:
    """The table as text: a line for the command, and one for each thing to know about it."""
    found = []
    for each in table:
        found += [f"{each.name}   [{each.where}]", f"    {each.command}"]
        if each.needs:
            found.append(f"    needs      {', '.join(each.needs)}")
        found.append(f"    downloads  {', '.join(downloads(paper.experiments, each))}")
        if each.expected:
            found.append(f"    expected   {', '.join(map(str, each.expected))}")
        if each.note:
            found.append(f"    note       {each.note}")
    return found


def _try(settings: Reproduce, table: Sequence[Experiment], configs: Path) -> int:
    """The dry run; status 1 and their names where experiments are broken."""
    from pivot.reproduce.dry_run import dry_run

    out = Path(DRY_RUN if settings.out == "." else settings.out)
    record = Run.create(out, "reproduce", settings)
    found = dry_run(table, out, configs, settings.workers or max(1, min(cores(), 4)))
    broken = [name for name, told in found.items() if not told["ok"]]
    record.finish({"experiments": found, "broken": broken}, {"experiments": len(found)})
    if not broken:
        print(f"{len(found)} experiments, all ok; what they made is in {out}")
        return 0
    first = [name for name in broken if not found[name]["needed"]]
    rest = f" (and {len(broken) - len(first)} that need them)" if len(broken) > len(first) else ""
    print(f"{len(found)} experiments, broken: {', '.join(first)}{rest}; see {out / 'logs'}")
    return 1


def _run(
    settings: Reproduce, data: Mapping[str, DataSet], table: Sequence[Experiment], configs: Path
) -> int:
    """Run one after the other what is not finished yet, then set its numbers beside the paper's."""
    root = Path(settings.out)
    todo = [each for each in table if not (root / each.makes).exists()]
    _check_data(todo, data, root)
    print(f"{len(todo)} of {len(table)} experiments are to be done in {root.resolve()}")
    for number, each in enumerate(todo, 1):
        print(f"{number}/{len(todo)} {each.name}: {each.command}", flush=True)
        argv = each.argv(configs)
        argv += ["--resume"] if argv[0] in RESUMABLE else []
        status = subprocess.run([sys.executable, "-m", "pivot", *argv], cwd=root).returncode
        if not ended_well(argv[0], status):
            raise RunError(
                f"{each.name} ended with status {status}: `{each.command}` in {root.resolve()}; "
                "mend what it says above, then run this again to go on"
            )
    rows = [row for each in table for row in compare(each, root)]
    for row in rows:
        here = "-" if row["here"] is None else f"{row['here']:.1f}"
        printed = shown(row["paper"])
        print(f"{row['experiment']:<32}{row['what']:<28}paper {printed:>5}   here {here:>5}")
    if rows:
        facts = {"settings": settings.model_dump(mode="json"), "versions": versions()}
        write_json(root / "runs" / "reproduce.json", {"rows": rows, **facts})
    return 0


def compare(experiment: Experiment, root: Path) -> list[dict[str, Any]]:
    """The paper's numbers beside those of a finished experiment, in percent; None: not there."""
    numbers = [expected for expected in experiment.expected if expected.value is not None]
    if not numbers:
        return []
    results = json.loads((root / experiment.makes).read_text(encoding="utf-8"))
    rows = []
    for expected in numbers:
        value = value_at(results, expected.key)
        rows.append(
            {
                "experiment": experiment.name,
                "what": expected.what,
                "paper": expected.value,
                "here": 100 * value if isinstance(value, float | int) else None,
            }
        )
    return rows


def _check_data(todo: Sequence[Experiment], data: Mapping[str, DataSet], root: Path) -> None:
    """Refuse to begin where a download is missing; raises DataError, one line."""
    for each in todo:
        for name in each.data:
            one = data[name]
            if not (root / one.path).exists():
                raise DataError(
                    f"{each.name} needs {name} in {root / one.path}, which is not there; "
                    f"get {one.how}"
                )
