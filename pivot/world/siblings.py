"""`pivot demo --siblings`: pairs chosen and softened by a teacher, and the ideas beyond the papers.

All are jobs of Pivot's own commands on the demo's shards, stores and models. A teacher hears the
captions of a fifth of the training clips and no other; `label_sets` says which, and on what is
measured. Every idea stands beside its absence: same start, steps and seed.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from pivot.settings import (
    LossSettings,
    MuonSettings,
    PretrainVa,
    ReplaySettings,
    TargetSettings,
    TextSettings,
    WriteCaptions,
)
from pivot.world.jobs import Job
from pivot.world.label_sets import PROMPTS, SETS, LabelSets
from pivot.world.sibling_jobs import BOTH, Workshop, named
from pivot.world.sizes import AUDIO, CLIP, ENCODER, MASK, Size
from video_prep.settings import PrepareAudio

TEACHER = MuonSettings(lr=0.01, adamw_lr=5e-4)
STUDENT = MuonSettings(lr=0.003, adamw_lr=3e-4)  # a larger rate undoes what the teacher has learnt
RAW = TargetSettings(kind="soft", weight=0.3)  # the curation paper's alpha, raw cosines
# Strangers' cosines are +-0.13 in 64 dimensions, +-0.03 in the paper's 1024: raw ones are mostly
# noise here, a softmax of them is not.
SOFT = TargetSettings(kind="soft", weight=0.5, target="softmax", temperature=0.1)
CLAP = LossSettings(logit_max=100, reduction="mean")
SALSA = LossSettings(scale_init=20, learn_scale=False, reduction="mean")  # tau 0.05, frozen
# What each teacher starts from; the second and third are for the ensemble.
TEACHERS = {"clap": "va", "clap_b": "va_random_init", "clap_c": "va"}
FIRST = "clap"
QUANTILE = 0.995  # of the cosines of sounds and captions, from which on du and ads keep pairs
NEAR = 0.5  # least cosine of a caption with a label
VA: dict[str, dict[str, Any]] = {  # beside the demo's own: random frames, hard targets
    "va_soft_raw": {"targets": RAW},
    "va_soft": {"targets": TargetSettings(kind="soft", weight=0.3, target="softmax")},
    "va_mean": {"frames": "mean"},
    "va_all": {"frames": "all"},
}
OF_ALL = ("longer", "soft_raw", "soft", "du")  # students of no label set's own
GAPS = ("centre", "whiten")
GAPPED = ("va", "at_ac")
ROUNDS = ("at_ac", "round_2", "round_3")  # the demo's own mining, then with the last one's ears
MIX = 0.5  # weight of the sounds in the rounds after the first
DISTILLED = {"none": (), "self": (FIRST,), "ensemble": tuple(TEACHERS)}


def sibling_jobs(out: Path, size: Size, seed: int) -> list[Job]:
    """All jobs of the siblings; they need those of the demo itself."""
    shop = Workshop(out, size, seed)
    return [
        *_sets(shop),
        *_teachers(shop),
        *_curated(shop),
        *_distilled(shop),
        *_pretrained(shop),
        *(shop.evaluate(model, at, gap) for model in GAPPED for gap in GAPS for at in BOTH),
        *_rounds(shop),
        *_keywords(shop),
    ]


def _sets(shop: Workshop) -> list[Job]:
    """The label sets, as shards with labels of their own."""
    lists = LabelSets(
        world=str(shop.demo / "world"),
        out=str(shop.out),
        seed=shop.seed,
        test_single=shop.size.test_single,
        test_mixed=shop.size.test_mixed,
        part=shop.part,
    )
    found = [Job(named("sets"), "pivot.world.label_sets:run", lists, ("world",))]
    for name in SETS:
        settings = PrepareAudio(
            source=str(shop.out / "sets" / f"{name}.jsonl"),
            out=str(shop.out / "shards" / name),
            workers=1,
        )
        needs = (named("sets"),)
        found.append(
            Job(named(f"prepare_{name}"), "pivot.data.prepare_command:frames", settings, needs)
        )
    return found


# ---- teachers, curation, soft labels --------------------------------------------------------


def _teachers(shop: Workshop) -> list[Job]:
    """Both sides trained on the captioned part, three times, and their stores."""
    found = []
    for number, (name, start) in enumerate(TEACHERS.items()):
        found.append(
            shop.tune(
                name, start, shop.gold, "sets",
                text=TextSettings(kind="clip"), loss=CLAP, seed=shop.seed + 1000 * number,
                max_steps=shop.size.at_steps // 3, optim=TEACHER,
            )
        )  # fmt: skip
        found += [shop.embed(name, "audio"), shop.embed(name, "text")]
    return [*found, *(shop.evaluate(FIRST, name) for name in SETS)]


def _curated(shop: Workshop) -> list[Job]:
    """Longer, soft labels, DU; for each label set DS, and ADS without and with soft labels."""
    everywhere = [
        _student(shop, "longer", shop.gold),
        _student(shop, "soft_raw", shop.gold, targets=RAW),
        _student(shop, "soft", shop.gold, targets=SOFT),
        _student(shop, "du", shop.pairs("du"), "pairs_du", replay=shop.gold),
    ]
    found = [_mined(shop, "du"), *everywhere]
    found += [shop.evaluate(name, at) for name in OF_ALL for at in SETS]
    for at in SETS:
        ds, ads = f"ds_{at}", f"ads_{at}"
        mined = (f"pairs_{ds}", f"pairs_{ads}")
        near, far = shop.pairs(ds), shop.pairs(ads)
        found += [
            _mined(shop, ds),
            _mined(shop, ads),
            _student(shop, ds, near, mined[0]),
            _student(shop, ads, far, *mined, replay=near),
            _student(shop, f"{ads}_soft", far, *mined, replay=near, targets=SOFT),
        ]
        found += [shop.evaluate(name, at) for name in (ds, ads, f"{ads}_soft")]
    return found


def _mined(shop: Workshop, name: str) -> Job:
    """Pairs by the first teacher: of sounds without captions, for ds of those with captions."""
    rule, _, at = name.partition("_")
    more: dict[str, Any] = {"model": shop.run(FIRST), "rule": rule}
    if at:
        more |= {"labels": str(shop.out / "sets" / f"{at}.txt"), "label_prompt": PROMPTS[at]}
        more |= {"label_threshold": NEAR}
    texts = shop.store(FIRST, "text")
    if rule == "ds":
        more |= {"images": texts, "captions": shop.gold}
    else:
        more |= {"images": shop.store(FIRST, "audio"), "captions": texts}
        more |= {"ids": str(shop.out / "pool.txt"), "quantile": QUANTILE}
    needs = tuple(named(f"{FIRST}_{side}") for side in ("audio", "text"))
    return shop.mine(name, needs, **more)


def _student(
    shop: Workshop,
    name: str,
    pairs: str,
    *needs: str,
    replay: str | None = None,
    targets: TargetSettings | None = None,
) -> Job:
    """The first teacher trained on; every other batch is one of `replay`."""
    return shop.tune(
        name, FIRST, pairs, *needs,
        loss=CLAP,
        targets=targets or TargetSettings(),
        replay=ReplaySettings(pairs=replay, probability=0.5) if replay else ReplaySettings(),
        restart_scale=False,
        max_steps=shop.size.at_steps // 3,
        optim=STUDENT,
    )  # fmt: skip


# ---- distillation ---------------------------------------------------------------------------


def _distilled(shop: Workshop) -> list[Job]:
    """The first teacher's second stage: without estimates, with its own, with those of three."""
    found = []
    for name, teachers in DISTILLED.items():
        stores = tuple(f"{shop.store(t, 'audio')}:{shop.store(t, 'text')}" for t in teachers)
        targets = TargetSettings(kind="estimated", teachers=stores)
        found.append(
            shop.tune(
                f"distil_{name}", FIRST, shop.gold,
                *(f"{t}_{side}" for t in teachers for side in ("audio", "text")),
                items="pairs",
                loss=SALSA,
                targets=targets if teachers else TargetSettings(kind="same_recording"),
                max_steps=shop.size.at_steps // 3,
                optim=STUDENT,
            )
        )  # fmt: skip
        found.append(shop.evaluate(f"distil_{name}", "test_mixed"))
    return [*found, shop.evaluate(FIRST, "test_mixed")]


# ---- beyond the papers ----------------------------------------------------------------------


def _pretrained(shop: Workshop) -> list[Job]:
    """VA with soft targets, and by other choices of frames."""
    found = []
    for name, more in VA.items():
        settings = PretrainVa(
            shards=shop.shards,
            out=shop.run(name),
            clip=CLIP,
            audio=AUDIO,
            encoder=ENCODER,
            images=str(shop.demo / "frames" / "train"),
            seed=shop.seed,
            batch_size=64,
            resume=True,
            max_steps=shop.size.va_steps,
            warmup_epochs=1,
            optim=MuonSettings(),
            mask=MASK,
            **more,
        )
        needs = ("measure-fbank", "frames-train")
        found.append(Job(named(name), "pivot.training.commands:pretrain_va", settings, needs))
        found += [shop.evaluate(name, at) for at in BOTH]
    return found


def _rounds(shop: Workshop) -> list[Job]:
    """Mine with the frames and with the last model's sounds, tune VA on it, and once more."""
    found = []
    for before, name in pairwise(ROUNDS):
        mined = shop.mine(
            name, (named(f"{before}_audio"), "world"),
            images=str(shop.demo / "frames" / "train"),
            captions=str(shop.demo / "world" / "captions_audio.txt"),
            audio=shop.store(before, "audio"),
            mix=MIX,
            top_k=5,
        )  # fmt: skip
        found += [
            shop.embed(before, "audio"),
            mined,
            shop.tune(name, "va", shop.pairs(name), f"pairs_{name}"),
            *(shop.evaluate(name, at) for at in BOTH),
        ]
    return found


def _keywords(shop: Workshop) -> list[Job]:
    """VA tuned on sentences made of the clips' labels, and on the bare labels."""
    written, half = shop.out / "template" / "captions.jsonl", shop.size.at_steps // 2
    write = WriteCaptions(
        primes=shop.shards, out=str(written.parent), writer="template", resume=True
    )
    ready = f"prepare-{BOTH[-1]}"
    bare = shop.mine(
        "labels", ("frames-train",),
        images=str(shop.demo / "frames" / "train"), captions=shop.shards, rule="labels",
    )  # fmt: skip
    return [
        Job(named("template"), "pivot.writing.command:run", write, (ready,)),
        bare,
        shop.tune("at_template", "va", str(written), "template", max_steps=half),
        shop.tune("at_labels", "va", shop.pairs("labels"), "pairs_labels", max_steps=half),
        *(shop.evaluate(name, at) for name in ("at_template", "at_labels") for at in BOTH),
    ]
