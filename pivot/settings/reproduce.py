"""Settings of reproduce: a paper's tables and figures, one after the other."""

from __future__ import annotations

from typing import Annotated, Literal

from tyro.conf import Positional, arg

from pivot.settings.base import Positive, Settings


class Reproduce(Settings):
    """Walk through a paper's tables and figures: show what each needs, or run it."""

    # vip-ant; curation: CLAP, DU, DS, ADS and soft labels; laion-clap: feature fusion, keywords to
    # captions; salsa: estimated correspondences
    paper: Positional[
        Annotated[Literal["vip-ant", "curation", "laion-clap", "salsa"], arg(metavar="PAPER")]
    ]
    # folder with downloads/, data/ and runs/ as the configs name them; a dry run makes its own
    out: str = "."
    # names of experiments, * for any letters; what they need comes along; default: all
    only: tuple[str, ...] = ()
    dry_run: bool = False  # on made-up tiny data of the right layouts; ends with 1 if one is broken
    list: bool = False  # only print the table: experiment, command, what it needs, expected number
    configs: str = "configs"  # folder of the papers' settings (vip_ant/, curation/, ...)
    workers: Positive | None = None  # experiments of a dry run side by side; default: one a core
