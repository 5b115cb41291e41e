"""What an experiment of a paper is: a command, what it needs, and the number it should give."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pivot.errors import SettingsError

CONFIGS = "configs"  # as the commands name the folder of all papers' settings


@dataclass(frozen=True)
class DataSet:
    """Something that must be downloaded: its place beside data/ and runs/, and how to get it."""

    name: str
    path: str
    how: str


@dataclass(frozen=True)
class Expected:
    """A number of the paper: what it is, where results.json has it, and its value.

    `value` is as printed in the paper, in percent; results.json has shares between 0 and 1. None:
    the paper shows it in a figure only, without a number.
    """

    what: str
    key: str
    value: float | None

    def __str__(self) -> str:
        return self.what if self.value is None else f"{self.what} {shown(self.value)} %"


@dataclass(frozen=True)
class Experiment:
    """A command of a paper's table or figure.

    `makes` is the file that appears last, so that its presence says that the experiment is done.
    `needs` are names of experiments, `data` names of data sets.
    """

    name: str
    where: str  # in the paper
    command: str  # as typed
    makes: str
    needs: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    expected: tuple[Expected, ...] = ()
    note: str = ""

    @property
    def config(self) -> str:
        """The config file that the command names."""
        words = shlex.split(self.command)
        return words[words.index("--config") + 1]

    def argv(self, configs: str | Path) -> list[str]:
        """The command's words without `pivot`, its config with its full path below `configs`."""
        file = str(Path(configs).resolve() / Path(self.config).relative_to(CONFIGS))
        return [file if word == self.config else word for word in shlex.split(self.command)[1:]]


@dataclass(frozen=True)
class Paper:
    """A paper's experiments, grouped as its README shows them, each after all that it needs."""

    configs: str  # folder of the config files, as the commands name it
    data: Mapping[str, DataSet]
    groups: Mapping[str, Sequence[Experiment]]

    @property
    def experiments(self) -> tuple[Experiment, ...]:
        """All of them, in order of need."""
        return tuple(experiment for group in self.groups.values() for experiment in group)


def ended_well(command: str, status: int) -> bool:
    """Whether a command did its work: check-overlap ends with 1 where it found some."""
    return status == 0 or (command == "check-overlap" and status == 1)


def by_name(*sets: DataSet) -> dict[str, DataSet]:
    """Data sets by their names."""
    return {one.name: one for one in sets}


def typed(folder: str, command: str, config: str, out: str = "", more: str = "") -> str:
    """A command with one of the configs in `folder`, its --out and more flags, as typed."""
    line = f"pivot {command} --config {folder}/{config}.yaml"
    return " ".join(filter(None, (line, out and f"--out {out}", more)))


def shown(value: float) -> str:
    """A number of a paper with as many decimals as it was printed: one, or two."""
    return f"{value:.1f}" if round(value, 1) == value else f"{value:.2f}"


def choose(table: Sequence[Experiment], only: Iterable[str]) -> list[Experiment]:
    """The experiments of these names or patterns with all that they need, in the table's order.

    None named: all. Raises SettingsError for a name that no experiment has.
    """
    names = {experiment.name for experiment in table}
    wanted = set() if only else set(names)
    for pattern in only:
        found = {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            raise SettingsError(
                f"--only {pattern}: no experiment has this name; --list shows the {len(names)}"
            )
        wanted |= found
    for experiment in reversed(table):  # an experiment stands after all that it needs
        if experiment.name in wanted:
            wanted |= set(experiment.needs)
    return [experiment for experiment in table if experiment.name in wanted]


def downloads(table: Sequence[Experiment], experiment: Experiment) -> list[str]:
    """Names of all data sets that an experiment and what it needs are made of."""
    chain = choose(table, [experiment.name])
    return list(dict.fromkeys(name for each in chain for name in each.data))


def value_at(results: dict[str, Any], key: str) -> Any:
    """The value at a dotted place of results.json, or None."""
    value: Any = results
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value
