"""Settings of reproduce: a paper's tables and figures, one after the other."""

from __future__ import annotations

from typing import Annotated, Literal

from tyro.conf import Positional, arg

from pivot.settings.base import Settings


class Reproduce(Settings):
    """Walk through a paper's tables and figures: show what each needs, or run it."""

    paper: Positional[Annotated[Literal["vip-ant"], arg(metavar="PAPER")]]
    out: str = "reproduce"  # folder of the dry run, or of all runs
    only: tuple[str, ...] = ()  # names of experiments, as listed; default: all
    dry_run: bool = False  # on made-up tiny data of the right layouts; ends with 1 if one fails
    list: bool = False  # only print the table: experiment, command, what it needs, expected number
