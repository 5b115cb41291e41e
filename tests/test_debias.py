"""Debias and the caption linter: whole words, case, exempt labels, each rule, what is written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from pivot.data.captions import read_captions
from pivot.data.pairs import Pair, read_pairs, write_pairs
from pivot.errors import DataError, ModelError, SettingsError
from pivot.settings import ClipSettings, LintCaptions
from pivot.writing import lint
from pivot.writing.debias import WordMap
from tests.tiny import write_tokenizer

DEFAULT = WordMap.open("default")

# ---- debias ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a woman walks her dog", "a person walks their dog"),
        ("A Woman and two MEN, all women", "A Person and two PEOPLE, all people"),
        ("she is singing", "they is singing"),  # agreement is left alone
        ("He's here; she’s there; he'll come", "They're here; they're there; they'll come"),
        ("the woman's voice", "the person's voice"),
        ("a fireman, a man-made sound, mankind, human", None),  # whole words only
        ("the theme of shepherds", None),
        ("He hears himself. Her voice is hers.", "They hears themselves. Their voice is theirs."),
        ("The sounds of male speech, man speaking and rain", None),  # a label of AudioSet
        ("MALE SPEECH MAN SPEAKING near a man speaking", "MALE SPEECH MAN SPEAKING near a person "
         "speaking"),
        ("", None),
    ],
)  # fmt: skip
def test_default_words(text: str, expected: str | None) -> None:
    assert DEFAULT.apply(text) == (text if expected is None else expected)


def test_the_longest_wins_and_nothing_is_replaced_twice() -> None:
    words = WordMap({"man": "woman", "woman": "man", "old man": "elder"}, ["iron man"])
    assert words.apply("a man, a woman, an Old  man, an Iron Man") == (
        "a woman, a man, an Elder, an Iron Man"
    )
    counts: Counter[str] = Counter()
    words.apply("man man woman iron man", counts)
    assert counts == {"man -> woman": 2, "woman -> man": 1}


def test_report_counts_what_was_replaced() -> None:
    raws = ["a man and a man", "rain", "Her dog"]
    lines = [{"raw": raw, "caption": DEFAULT.apply(raw)} for raw in raws]
    told = DEFAULT.report(lines)
    assert told["changed"] == 2
    assert told["replaced"] == {"man -> person": 2, "her -> their": 1}
    assert told["examples"] == [["a man and a man", "a person and a person"],
                                ["Her dog", "Their dog"]]  # fmt: skip
    assert told["words"]["lady"] == "person" and len(told["sha256"]) == 64


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("words: {}", "has no words"),
        ("man: person", "has no words"),
        ("words: [man]", "has no words"),
        ("words: {man: person", "is not YAML"),
        ("words: {no: never}", "False is not a word; put it in quotes"),
        ("words: {man: }", "None is not a word"),
        ("words: {man: person}\nexcept: [a]", "unknown key except; valid keys: words, exempt"),
        ("words: {man: person}\nexempt: iron man", "exempt is a list of phrases"),
        ("", "is empty"),
    ],
)
def test_bad_word_maps(text: str, match: str, tmp_path: Path) -> None:
    file = tmp_path / "map.yaml"
    file.write_text(text)
    with pytest.raises(DataError, match=match) as caught:
        WordMap.open(str(file))
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)
    with pytest.raises(DataError, match="does not exist"):
        WordMap.open(str(tmp_path / "none.yaml"))


def test_a_comment_does_not_change_the_hash(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("words: {man: person}\n")
    (tmp_path / "b.yaml").write_text("# mine\nwords:\n  man: person\n")
    (tmp_path / "c.yaml").write_text("words: {man: human}\n")
    a, b, c = (WordMap.open(str(tmp_path / f"{name}.yaml")).sha256 for name in "abc")
    assert a == b != c


# ---- lint ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("a dog barks in the rain", []),
        ("", ["empty"]),
        ("speech with 0.83 and music", ["probability"]),
        ("heavy rain (12%) falls", ["probability"]),
        ("0.91", ["probability", "few_letters"]),
        ("a bell of probability 1.00", ["probability"]),
        ("the train leaves at 10.30 on track 4", []),
        ("a 2.5 tonne truck full of 100% cotton shirts", []),
        ("sound labeled as dog", ["label"]),
        ("see www.example.org now", ["link"]),
        ("dog_bark", ["link"]),
        ("12 34 56", ["few_letters"]),
        ("a bad \ufffd byte", ["control"]),
    ],
)
def test_what_a_text_breaks(text: str, rules: list[str]) -> None:
    assert list(lint.faults(text)) == rules


ROWS = [
    ("a", "A dog barks"), ("b", "A dog barks"), ("a", "A dog barks"), ("a", "the dog barks."),
    ("c", "music 0.93"), ("c", "the labels say rain"), ("c", "rain falls"), ("d", "dog " * 80),
]  # fmt: skip


def test_a_caption_file_is_counted_and_cleaned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "captions.csv", tmp_path / "clean.jsonl"
    lines = [f'c{n},{clip},"{text}"' for n, (clip, text) in enumerate(ROWS)]
    file.write_text("\n".join(["caption_id,id,caption", *lines, "c9,e,"]) + "\n")
    assert lint.run(LintCaptions(captions=str(file), out=str(out))) == 0
    told = capsys.readouterr().out
    assert f"{file}: 9 captions, 6 break a rule" in told and "the other 3" in told
    left = read_captions(out)
    assert [(c.id, c.clip, c.text) for c in left] == [
        ("c0", "a", "A dog barks"), ("c1", "b", "A dog barks"), ("c6", "c", "rain falls")
    ]  # fmt: skip
    about = json.loads((tmp_path / "clean.jsonl.about.json").read_text())["lint"]
    counts = {rule: n for rule, n in about["counts"].items() if n}
    assert counts == {"empty": 1, "probability": 1, "label": 1, "too_long": 1, "duplicate": 1,
                      "near_duplicate": 1}  # fmt: skip
    assert about["max_tokens"] == 77 and about["read"] == 9


@pytest.mark.parametrize("name", ["pairs.parquet", "pairs.csv", "pairs.jsonl"])
def test_a_pairs_file_stays_one(name: str, tmp_path: Path) -> None:
    pairs = [Pair(clip, str(n), text, n / 8, "pivot") for n, (clip, text) in enumerate(ROWS)]
    if name != "pairs.csv":
        pairs.append(Pair("e", "9", "", 0.5, "pivot"))
    write_pairs(tmp_path / name, pairs, {"rule": "pivot"})
    out = tmp_path / "clean.parquet"
    lint.run(LintCaptions(captions=str(tmp_path / name), out=str(out), skip=("label",)))
    left = read_pairs(out)
    assert left.caption_ids == ["0", "1", "5", "6"] and left.scores == [0, 0.125, 0.625, 0.75]
    assert left.meta["rule"] == "pivot" and left.meta["lint"]["counts"]["label"] == 0
    assert left.meta["lint"]["counts"]["empty"] == (name != "pairs.csv")


def test_free_captions_are_one_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a header and without clips: a sentence a line."""
    file = tmp_path / "captions.txt"
    file.write_text("a dog barks\nA dog barks!\na dog barks\nrain\n")
    lint.run(LintCaptions(captions=str(file)))
    told = capsys.readouterr().out
    assert "4 captions, 2 break a rule" in told and "1  25.00 %  duplicate" in told
    header = tmp_path / "table.csv"
    header.write_text("a1,a dog barks\na2,rain\n")
    with pytest.raises(DataError, match="no caption column among a1, a dog barks; call one"):
        lint.run(LintCaptions(captions=str(header)))


def longer(texts: list[str], **values: object) -> list[bool]:
    count = lint.TokenCount.open(LintCaptions(captions="c", **values))  # type: ignore[arg-type]
    return count.longer(texts)


def test_too_long_is_what_the_frozen_clip_refuses(tmp_path: Path) -> None:
    """CLIP's own tokenizer reads 77 tokens, two of them marks; a word can have several."""
    assert longer(["dog " * 75, "dog " * 76, "!" * 75, "a", "é" * 75, "dog " * 74 + "zyxgy"]) == [
        False, True, False, False, False, True
    ]  # fmt: skip
    assert longer(["dog cat", "dog cat rain"], max_tokens=4) == [False, True]
    tiny = ClipSettings(model="tiny-world")
    assert longer(["a " * 14, "a " * 200], clip=tiny) == [False, True]
    write_tokenizer(tmp_path, ["dog"])
    own = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert len(own("dog dog")["input_ids"]) == 4
    assert longer(["dog " * 14, "dog " * 15], tokenizer=str(tmp_path)) == [False, True]


def test_bad_lint_settings(tmp_path: Path) -> None:
    file = tmp_path / "captions.txt"
    file.write_text("0.5\n")
    for kind, match, values in (
        (SettingsError, "--skip dull is no rule; the rules: empty", {"skip": ("dull",)}),
        (SettingsError, r"must end in .jsonl", {"out": str(tmp_path / "o.csv")}),
        (SettingsError, "name two tokenizers",
         {"tokenizer": str(tmp_path), "clip": ClipSettings(model="tiny-world")}),
        (ModelError, "has no tokenizer_config.json", {"tokenizer": str(tmp_path)}),
        (ModelError, "--tokenizer ./none does not exist", {"tokenizer": "./none"}),
        (DataError, "every one broke a rule", {"out": str(tmp_path / "o.jsonl")}),
    ):  # fmt: skip
        with pytest.raises(kind, match=match):
            lint.run(LintCaptions(captions=str(file), **values))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="does not exist"):
        lint.run(LintCaptions(captions=str(tmp_path / "none.csv")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["captions.txt"]
