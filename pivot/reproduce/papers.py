"""The papers whose tables and figures can be reproduced, by the name that the command takes."""

from __future__ import annotations

from pivot.reproduce import curation, laion_clap, salsa, vip_ant
from pivot.reproduce.table import Paper

PAPERS: dict[str, Paper] = {
    "vip-ant": vip_ant.PAPER,
    "curation": curation.PAPER,
    "laion-clap": laion_clap.PAPER,
    "salsa": salsa.PAPER,
}
