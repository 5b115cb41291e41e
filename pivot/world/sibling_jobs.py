"""What the siblings' jobs share: where each thing lies, and a command's settings on this world."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pivot.settings import Embed, Evaluate, MineCaptions, MuonSettings, TrainAt
from pivot.world.jobs import Job
from pivot.world.label_sets import PROMPTS
from pivot.world.sizes import HEARD, MASK, MODELS, Size

BOTH = ("test_single", "test_mixed")
TRAIN = "pivot.training.commands:train_at"
Side = Literal["audio", "text"]


def named(what: str) -> str:
    """Name of a sibling's job."""
    return f"siblings-{what}"


@dataclass(frozen=True)
class Workshop:
    """Makes the jobs of one demo; what a job needs is known by what it reads."""

    demo: Path
    size: Size
    seed: int

    @property
    def out(self) -> Path:
        """Folder of the siblings."""
        return self.demo / "siblings"

    @property
    def shards(self) -> str:
        """The demo's training clips."""
        return str(self.demo / "shards" / "train")

    @property
    def gold(self) -> str:
        """Captions of the part that has some, with their clips."""
        return str(self.out / "gold.jsonl")

    @property
    def part(self) -> int:
        """How many training clips have captions that are read: a fifth."""
        return self.size.train // 5

    def run(self, model: str) -> str:
        """Run folder of a model, the demo's own or a sibling."""
        return str((self.demo if model in MODELS else self.out) / "runs" / model)

    def store(self, model: str, side: Side) -> str:
        """Store of the training sounds, or of the part's captions, by a model."""
        return str(self.out / "stores" / f"{model}_{side}")

    def pairs(self, name: str) -> str:
        """Pairs file."""
        return str(self.out / "pairs" / f"{name}.parquet")

    def made(self, model: str) -> str:
        """Name of the job that makes a model."""
        return model if model in MODELS else named(model)

    def embed(self, model: str, side: Side) -> Job:
        """A store of a model."""
        settings = Embed(
            what=side,
            data=self.shards if side == "audio" else str(self.out / "captions.txt"),
            out=self.store(model, side),
            model=self.run(model),
        )
        needs = (self.made(model), named("sets"))
        return Job(named(f"{model}_{side}"), "pivot.embeddings.embed:run", settings, needs)

    def mine(self, name: str, needs: tuple[str, ...], **settings: Any) -> Job:
        """A pairs file; `needs` as the jobs' whole names."""
        mine = MineCaptions(out=self.pairs(name), seed=self.seed, **settings)
        return Job(named(f"pairs_{name}"), "pivot.mining.curate:run", mine, needs)

    def tune(self, name: str, model: str, pairs: str, *needs: str, **settings: Any) -> Job:
        """A model trained on from another on pairs; `needs` as siblings."""
        usual: dict[str, Any] = {"optim": MuonSettings(), "max_steps": self.size.at_steps}
        if pairs == self.gold or model not in MODELS:  # a part of the part must fill a batch, too
            usual["batch_size"] = max(2, min(64, self.part // 4))
        train = TrainAt(
            shards=self.shards,
            model=self.run(model),
            pairs=pairs,
            out=self.run(name),
            resume=True,
            mask=MASK,
            **{"seed": self.seed, **usual, **settings},
        )
        return Job(named(name), TRAIN, train, (self.made(model), *map(named, needs)))

    def evaluate(self, model: str, where: str, gap: str = "none") -> Job:
        """A model measured on a split of the demo, or on one of the label sets."""
        name = f"{model}-{where}" if gap == "none" else f"{model}-{gap}-{where}"
        split = where in BOTH
        sets, world = self.out / "sets" / f"{where}.txt", self.demo / "world" / "labels.txt"
        settings = Evaluate(
            model=self.run(model),
            shards=str((self.demo if split else self.out) / "shards" / where),
            out=str(self.out / "numbers" / name),
            labels=str(world if split else sets),
            prompt=HEARD if split else PROMPTS[where],
            figures=False,
            gap=gap,
        )
        ready = f"prepare-{where}" if split else named(f"prepare_{where}")
        needs = (self.made(model), ready)
        return Job(named(f"evaluate_{name}"), "pivot.evaluation.evaluate:run", settings, needs)
