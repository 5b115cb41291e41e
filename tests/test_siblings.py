"""`pivot demo --siblings`: its jobs are commands that hang together, its lists tell the truth."""

import json
from pathlib import Path

import pytest

from pivot import cli
from pivot.data.ids import read_ids
from pivot.data.pairs import read_pairs
from pivot.settings import Demo, Evaluate, TrainAt
from pivot.world.clips import scene_of
from pivot.world.jobs import Job
from pivot.world.label_sets import PROMPTS, SETS, LabelSets, label_of, labels_of_set
from pivot.world.label_sets import run as write_lists
from pivot.world.sibling_results import COLUMNS, OF_ONE, collect_siblings, sibling_tables
from pivot.world.siblings import DISTILLED, FIRST, GAPPED, GAPS, OF_ALL, ROUNDS, VA
from pivot.world.sizes import MODELS
from pivot.world.stages import jobs
from pivot.world.tokenizer import UNKNOWN, build


def with_siblings(out: Path) -> dict[str, Job]:
    listed = jobs(Demo(out=str(out), siblings=True), workers=2)
    assert len({job.name for job in listed}) == len(listed)
    return {job.name: job for job in listed}


def test_without_the_flag_the_demo_is_what_it_was(tmp_path: Path) -> None:
    plain = jobs(Demo(out=str(tmp_path)), workers=2)
    more = jobs(Demo(out=str(tmp_path), siblings=True), workers=2)
    assert not any(job.name.startswith("siblings") for job in plain)
    assert more[: len(plain)] == plain
    assert all(job.name.startswith("siblings-") for job in more[len(plain) :])


def test_every_sibling_is_a_command_whose_inputs_are_made(tmp_path: Path) -> None:
    listed = with_siblings(tmp_path)
    known = {command.function for command in cli.COMMANDS.values()}
    known |= {"pivot.training.commands:pretrain_va", "pivot.training.commands:train_at"}
    own = [job.name for job in listed.values() if job.name.startswith("siblings")]
    assert [name for name in own if listed[name].function not in known] == ["siblings-sets"]
    assert all(need in listed for job in listed.values() for need in job.needs)
    made = {getattr(job.settings, "out", None): job for job in listed.values()}

    def before(name: str) -> set[str]:
        needs = listed[name].needs
        return {*needs, *(other for need in needs for other in before(need))}

    for name in own:
        if isinstance(settings := listed[name].settings, TrainAt):
            for path in filter(None, (settings.model, settings.pairs, settings.replay.pairs)):
                maker = made.get(path) or made.get(str(Path(path).parent))
                assert maker and maker.name in before(name), (name, path)


def test_an_idea_and_its_absence_differ_in_that_idea_alone(tmp_path: Path) -> None:
    listed = with_siblings(tmp_path)

    def differing(one: str, other: str) -> set[str]:
        a, b = (listed[name].settings for name in (one, other))
        return {name for name in type(a).model_fields if getattr(a, name) != getattr(b, name)}

    for name in ("soft", "soft_raw"):
        assert differing(f"siblings-{name}", "siblings-longer") == {"out", "targets"}
    for at in SETS:
        assert differing(f"siblings-ads_{at}", f"siblings-ads_{at}_soft") == {"out", "targets"}
    assert differing("siblings-distil_none", "siblings-distil_ensemble") == {"out", "targets"}
    assert differing("siblings-clap", "siblings-clap_c") == {"out", "seed"}
    for name, more in VA.items():
        assert differing(f"siblings-{name}", "va") == {"out", *more}
    assert differing("siblings-round_2", "at_ac") == {"out", "pairs"}
    assert differing("siblings-at_template", "siblings-at_labels") == {"out", "pairs"}


def lists(tmp_path: Path) -> Path:
    train = tmp_path / "world" / "train"
    train.mkdir(parents=True)
    rows = [
        {"id": f"train-{i:05d}", "path": "x.mp4", "labels": [], "captions": [f"a {i}", "a bell"]}
        for i in range(6)
    ]
    (train / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = LabelSets(
        world=str(tmp_path / "world"), out=str(tmp_path / "out"), seed=1,
        test_single=60, test_mixed=40, part=2,
    )  # fmt: skip
    assert write_lists(settings) == 0
    return tmp_path / "out"


def test_label_sets_tell_the_truth_of_the_scenes(tmp_path: Path) -> None:
    out = lists(tmp_path)
    for name in SETS:
        labels = (out / "sets" / f"{name}.txt").read_text().splitlines()
        assert labels == labels_of_set(name) and len(set(labels)) == len(labels)
        rows = [
            json.loads(row) for row in (out / "sets" / f"{name}.jsonl").read_text().split("\n")[:-1]
        ]
        assert len({row["id"] for row in rows}) == len(rows) > 20
        for row in rows:
            split, _, index = row["id"].rpartition("-")
            scene = scene_of(1, split, int(index))
            assert row["labels"] == [label_of(scene, name)] and row["labels"][0] in labels
            assert Path(row["path"]).name == f"{row['id']}.mp4"
    counts = {name: len(labels_of_set(name)) for name in SETS}
    assert counts == {"things": 24, "pitches": 48, "places": 6}
    assert all(
        "test_single" in row for row in (out / "sets" / "things.jsonl").read_text().splitlines()
    )


def test_the_part_and_the_pool_do_not_meet(tmp_path: Path) -> None:
    out = lists(tmp_path)
    pairs = read_pairs(out / "gold.jsonl")
    assert pairs.audio_ids == ["train-00000"] * 2 + ["train-00001"] * 2
    assert (out / "captions.txt").read_text().splitlines() == ["a 0", "a bell", "a 1"]
    pool = read_ids(out / "pool.txt")
    assert pool == [f"train-{i:05d}" for i in range(2, 6)] and not set(pool) & set(pairs.audio_ids)


@pytest.mark.parametrize("name", SETS)
def test_the_tiny_clip_reads_every_prompted_label(name: str) -> None:
    prompted = [f"{PROMPTS[name]} {label}" for label in labels_of_set(name)]
    assert not any(UNKNOWN in encoding.tokens for encoding in build().encode_batch(prompted))


# ---- results ------------------------------------------------------------------------------------


def number(folder: Path, model: str, where: str, value: float) -> None:
    way = {"r1": value, "r10": value, "map10": value}
    told = {
        "zero_shot": {"accuracy": value, "n": 10, "classes": 4, "chance": 0.25},
        "retrieval": {"audio_to_text": way, "text_to_audio": way},
    }
    path = folder / "numbers" / f"{model}-{where}" / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told))


def test_results_hold_every_idea_and_its_absence(tmp_path: Path) -> None:
    """What the evaluations' jobs write is where the results are read, each its own number."""
    values: dict[Path, float] = {}
    for i, job in enumerate(with_siblings(tmp_path).values()):
        if isinstance(job.settings, Evaluate):
            folder = Path(job.settings.out)
            model, _, where = folder.name.rpartition("-")
            number(folder.parents[1], model, where, i / 1000)
            values[folder] = i / 1000
    (tmp_path / "siblings" / "pairs").mkdir()
    told = collect_siblings(tmp_path)
    assert set(told["curation"]) == {FIRST, *OF_ALL, *OF_ONE}
    own = tmp_path / "siblings" / "numbers"
    assert told["curation"]["ads_soft"]["places"] == values[own / "ads_places_soft-places"]
    assert told["curation"]["du"]["things"] == values[own / "du-things"]
    assert set(told["distillation"]) == {FIRST, *DISTILLED}
    assert told["distillation"]["ensemble"]["map10"] == values[own / "distil_ensemble-test_mixed"]
    assert told["frames"]["va"]["zero_shot"] == values[tmp_path / "numbers" / "va-test_single"]
    assert set(told["gap"]) == set(GAPPED) <= set(MODELS)
    for gap in GAPS:
        assert told["gap"]["va"][gap]["map10"] == values[own / f"va-{gap}-test_mixed"]
    assert set(told["rounds"]) == set(ROUNDS)
    text = sibling_tables(told)
    assert "ADS + soft labels" in text and all(title in text for title in COLUMNS.values())
    score = 100 * told["curation"]["ads_soft"]["places"]
    row = next(line for line in text.splitlines() if line.startswith("ADS + soft labels"))
    assert row.endswith(f"{score:.1f}")
