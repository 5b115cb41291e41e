"""write-captions keywords and template: a small T5 that has learnt it, clips named, every fault."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from pivot.config import load
from pivot.data.pairs import read_pairs
from pivot.errors import DataError, ModelError, RunError, SettingsError
from pivot.settings import WriteCaptions
from pivot.settings.writing import BeamSettings
from pivot.writing import command as write
from pivot.writing import template
from pivot.writing.keyword_model import KeywordModel, load_keyword_model
from pivot.writing.keywords import clean_keyword
from pivot.writing.tagged import read_keywords
from tests import toy
from tests.toy_runs import caption_rows, results_of

SAID = {
    ("dog",): "a man calls his dog",
    ("dog", "rain"): "a dog barks in the rain",
    ("bell",): "a bell rings loudly",
    ("rain",): "rain falls on a roof",
    ("cat",): "a cat purrs softly",
    ("car",): "a car passes by",
    ("silence",): "",
}
CLIPS = {
    "a": "dog", "b": "Rain;dog", "c": "dog;rain", "d": "bell", "e": "", "f": "dog", "g": "D.o.g.",
    "h": "silence", "i": "rain", "j": "cat", "k": "car",
}  # fmt: skip


def words_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """A word-level tokenizer that ends texts as T5's does."""
    words = sorted({w for k, s in SAID.items() for w in (*k, *s.split())})
    ids = {t: i for i, t in enumerate(["<pad>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(path)
    return fast


def small_t5(size: int, seed: int = 0) -> T5ForConditionalGeneration:
    torch.manual_seed(seed)
    shape = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
    return T5ForConditionalGeneration(
        T5Config(vocab_size=size, dropout_rate=0.0, decoder_start_token_id=0, **shape)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 that has learnt SAID (either order of two keywords), and a table of CLIPS."""
    path = tmp_path_factory.mktemp("keywords")
    tokenizer = words_tokenizer(path / "t5")
    model = small_t5(len(tokenizer))
    pairs = [(" ".join(k), s) for keys, s in SAID.items() for k in (keys, keys[::-1])]
    given = tokenizer([k for k, _ in pairs], return_tensors="pt", padding=True)
    wanted = tokenizer([s for _, s in pairs], return_tensors="pt", padding=True)["input_ids"]
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(500):
        labels = wanted.masked_fill(wanted == 0, -100)
        loss = model(given["input_ids"], attention_mask=given["attention_mask"], labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if loss.item() < 0.01:
            break
    assert loss.item() < 0.01
    model.save_pretrained(path / "t5")
    lines = [f"{clip},{labels}" for clip, labels in CLIPS.items()]
    (path / "labels.csv").write_text("\n".join(["id,labels", *lines]) + "\n")
    return path


def settings(folder: Path, out: Path, **values: Any) -> WriteCaptions:
    common = {
        "primes": str(folder / "labels.csv"), "out": str(out), "writer": "keywords",
        "model": str(folder / "t5"), "batch_size": 3, "device": "cpu",
    }  # fmt: skip
    return WriteCaptions(**(common | values))


# ---- the command -----------------------------------------------------------------------------


def test_keywords_become_sentences_of_their_clips(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "k2c"
    assert write.run(settings(folder, out)) == 0
    rows, told = caption_rows(out), results_of(out)
    assert {row["clip"]: row["caption"] for row in rows} == {
        "a": "a man calls his dog", "f": "a man calls his dog", "g": "a man calls his dog",
        "b": "a dog barks in the rain", "c": "a dog barks in the rain",
        "d": "a bell rings loudly", "i": "rain falls on a roof", "j": "a cat purrs softly",
        "k": "a car passes by",
    }  # fmt: skip
    assert rows[0] == {"caption_id": "a#keywords", "clip": "a", "caption": "a man calls his dog",
                       "row": 0, "keywords": ["dog"]}  # fmt: skip
    assert "1 of 11 clips" in (said := capsys.readouterr()).err and "no keyword: e" in said.err
    assert told["rows"] == 8 and told["captions"] == 9
    assert {rule: n for rule, n in told["dropped"].items() if n} == {"empty": 1}  # silence
    assert told["data"]["clips"] == 11 and told["data"]["without_keywords"] == 1
    assert told["data"]["different"] == 8 and told["prompt_example"] == "dog"
    assert told["writer"]["architecture"] == "T5ForConditionalGeneration"
    decoding = told["writer"]["decoding"]
    assert decoding["num_beams"] == 4 and decoding["length_penalty"] == 1.5
    assert decoding["no_repeat_ngram_size"] == 3 and decoding["early_stopping"] is True
    assert decoding["max_length"] == 1024


def test_the_file_is_a_pairs_file_of_its_clips(folder: Path, tmp_path: Path) -> None:
    write.run(settings(folder, tmp_path / "k2c", debias="default"))
    pairs = read_pairs(tmp_path / "k2c" / "captions.jsonl")
    assert sorted(pairs.audio_ids) == list("abcdfgijk")
    assert pairs.caption_ids[0] == "a#keywords" and set(pairs.rules) == {"gold"}
    assert pairs.captions[0] == "a person calls their dog"


def test_raw_and_debiased_are_both_kept(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "k2c"
    write.run(settings(folder, out, debias="default"))
    rows, told = caption_rows(out), results_of(out)["debias"]
    assert rows[0]["raw"] == "a man calls his dog"
    assert rows[0]["caption"] == "a person calls their dog"
    assert all("raw" in row for row in rows)
    assert told["changed"] == 3 and told["replaced"] == {"man -> person": 3, "his -> their": 3}
    assert "3 man -> person" in capsys.readouterr().out


@pytest.mark.parametrize("writer", ["keywords", "template"])
def test_a_broken_off_run_goes_on_to_the_same_file(
    writer: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template, "BATCH", 3)
    labels, words = tmp_path / "labels.csv", tmp_path / "words.yaml"
    labels.write_text((folder / "labels.csv").read_text())
    words.write_text("words: {dog: hound}")
    given: dict[str, Any] = {"primes": str(labels), "writer": writer, "debias": str(words)}
    given |= {} if writer == "keywords" else {"model": None}
    write.run(settings(folder, tmp_path / "whole", **given))
    out = tmp_path / "broken"
    saved, save = [], write.Book.save

    def save_twice(book: write.Book) -> None:
        if len(saved) == 2:  # of the opened book and of the first batch
            raise KeyboardInterrupt
        saved.append(save(book))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(write.Book, "save", save_twice)
        write.run(settings(folder, out, **given))
    assert json.loads((out / "progress.json").read_text())["rows"] == 3
    with (out / "captions.jsonl").open("a") as file:
        file.write('{"caption_id": "half')
    again = settings(folder, out, **given, resume=True)
    for path, what in ((labels, "keyword file"), (words, "word map")):
        before = path.read_text()
        path.write_text(before.replace("dog", "cat"))
        with pytest.raises(RunError, match=f"was begun with another {what}"):
            write.run(again)
        path.write_text(before)
    assert write.run(again) == 0
    whole = (tmp_path / "whole" / "captions.jsonl").read_bytes()
    assert (out / "captions.jsonl").read_bytes() == whole and b"hound" in whole
    assert results_of(out)["debias"] == results_of(tmp_path / "whole")["debias"]


def test_template(folder: Path, tmp_path: Path) -> None:
    assert template.sentence(["rain"]) == "The sound of rain"
    assert template.sentence(["rain", "dog"]) == "The sounds of rain and dog"
    assert template.sentence(["a", "b", "c"]) == "The sounds of a, b and c"
    toy.toy_shards(tmp_path / "shards", clips=6)
    out = tmp_path / "out"
    write.run(WriteCaptions(primes=str(tmp_path / "shards"), out=str(out), writer="template"))
    assert [(row["clip"], row["caption"]) for row in caption_rows(out)] == [
        ("clip0", "The sound of dog"), ("clip4", "The sound of dog"),
        ("clip1", "The sound of cat"), ("clip5", "The sound of cat"),
        ("clip2", "The sound of bell"), ("clip3", "The sound of car"),
    ]  # fmt: skip
    assert results_of(out)["writer"] == {
        "name": "template", "one": "The sound of A", "more": "The sounds of A, B and C"
    }  # fmt: skip


def test_captions_as_keywords(folder: Path, tmp_path: Path) -> None:
    """With clips and without, several a clip; a header or none."""
    file = tmp_path / "tags.csv"
    file.write_text('id,caption\na,"Dog, rain"\nb,bell\na,dog\nc,";,"\n')
    found = read_keywords(str(file), "captions")
    assert found.lists == [(("dog", "rain"), ["a"]), (("bell",), ["b"])]
    assert found.data["clips"] == 3 and found.data["without_keywords"] == 1
    plain = tmp_path / "tags.txt"
    plain.write_text("dog; rain\nbell\ndog, rain\n")
    out = tmp_path / "out"
    write.run(settings(folder, out, primes=str(plain), keywords="captions"))
    assert [(row["caption_id"], row["caption"]) for row in caption_rows(out)] == [
        ("written-0000000", "a dog barks in the rain"), ("written-0000001", "a bell rings loudly")
    ]  # fmt: skip


# ---- the model -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "clean"),
    [
        ("p.a.", "pa"), ("dog.bark", "dog bark"), ("rain </s>", "rain"), ("...", ""),
        ('["dog"]', "dog"), ("male speech, man speaking", "male speech man speaking"),
        ("dog's bark", "dog's bark"), ("a|b", "a b"),
    ],
)  # fmt: skip
def test_keywords_without_dots_and_ends(word: str, clean: str) -> None:
    assert clean_keyword(word) == clean


def test_a_prompt_ends_once(folder: Path) -> None:
    model = load_keyword_model(str(folder / "t5"))
    assert model.tokens("dog rain") == model.tokens("dog rain </s>") == model.tokens(
        "dog rain </s> </s>"
    )  # fmt: skip
    assert model.tokens("dog rain").count(1) == 1 and model.tokens("")[-1] == 1


def greedy(model: KeywordModel, ids: list[int], no_repeat: int, most: int) -> list[int]:
    """One beam by hand: the likeliest token that ends no run of `no_repeat` for a second time."""
    made = [0]
    while len(made) < most and (len(made) == 1 or made[-1] != 1):
        with torch.no_grad():
            logits = model.model(torch.tensor([ids]), decoder_input_ids=torch.tensor([made])).logits
        scores = logits[0, -1].clone()
        last = made[len(made) - no_repeat + 1 :] if no_repeat else []
        for end in range(no_repeat - 1, len(made)):
            if no_repeat and made[end - no_repeat + 1 : end] == last:
                scores[made[end]] = -torch.inf
        made.append(int(scores.argmax()))
    return made[1:]


def test_one_beam_is_the_likeliest_token_each_time(folder: Path, tmp_path: Path) -> None:
    """A random T5 repeats itself, so that the ban on repeated runs matters."""
    tokenizer = words_tokenizer(tmp_path)
    small_t5(len(tokenizer), seed=3).save_pretrained(tmp_path)
    for path in (tmp_path, folder / "t5"):
        model = load_keyword_model(str(path))
        prompts = [model.tokens(text) for text in ("dog", "bell cat rain", "rain dog")]
        for no_repeat in (0, 2, 3):
            beam = BeamSettings(size=1, no_repeat=no_repeat, max_length=12)
            for ids, line in zip(prompts, model.write(prompts, beam), strict=True):
                made = greedy(model, ids, no_repeat, 12)
                text = tokenizer.decode(made, skip_special_tokens=True)
                assert line == (" ".join(text.split()), 1 in made)


def score(model: KeywordModel, ids: list[int], text: str) -> float:
    """Log-probability of a whole text and its end."""
    wanted = torch.tensor([[0, *model.tokens(text)]])
    with torch.no_grad():
        logits = model.model(torch.tensor([ids]), decoder_input_ids=wanted[:, :-1]).logits[0]
    return float(logits.log_softmax(1).gather(1, wanted[0, 1:, None]).sum())


def test_beams_find_a_likelier_caption_than_one(folder: Path) -> None:
    model = load_keyword_model(str(folder / "t5"))
    for text in ("dog bell", "car rain", "cat bell"):  # never seen: one beam may go astray
        ids = [model.tokens(text)]
        plain = {"no_repeat": 0, "length_penalty": 0.0, "max_length": 20}
        one, four = (model.write(ids, BeamSettings(size=n, **plain))[0] for n in (1, 8))  # type: ignore[arg-type]
        assert one and four and four.ended
        if one.ended:
            assert score(model, ids[0], four.text) >= score(model, ids[0], one.text) - 1e-4


def test_a_caption_is_the_same_alone_and_in_a_batch(folder: Path, tmp_path: Path) -> None:
    model = load_keyword_model(str(folder / "t5"))
    prompts = [model.tokens(" ".join(keys)) for keys in SAID]
    together = model.write(prompts, BeamSettings())
    assert together == [model.write([ids], BeamSettings())[0] for ids in prompts]
    assert [line.text for line in together if line] == list(SAID.values())
    short = model.write(prompts, BeamSettings(max_length=4))
    assert short[0] == ("a man calls", False)


def test_keywords_that_do_not_fit_the_context(folder: Path, tmp_path: Path) -> None:
    """BART has positions, T5 has none; a list too long for them is counted, not cut."""
    tokenizer = words_tokenizer(tmp_path)
    torch.manual_seed(0)
    side = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 1, "decoder_attention_heads": 1}
    bart = BartConfig(
        vocab_size=len(tokenizer), d_model=16, max_position_embeddings=4, pad_token_id=0,
        eos_token_id=1, bos_token_id=2, decoder_start_token_id=1, forced_eos_token_id=None,
        **side, **heads,
    )  # fmt: skip
    BartForConditionalGeneration(bart).save_pretrained(tmp_path)
    model = load_keyword_model(str(tmp_path))
    assert model.context == 4
    lines = model.write([model.tokens("dog"), model.tokens("dog " * 5)], BeamSettings())
    assert lines[0] is not None and lines[1] is None
    assert model.write([model.tokens("dog " * 5)], BeamSettings()) == [None]


# ---- bad input -------------------------------------------------------------------------------


def refused(kind: type[Exception], match: str, given: WriteCaptions) -> None:
    with pytest.raises(kind, match=match) as caught:
        write.run(given)
    assert "\n" not in str(caught.value)


def test_clips_without_any_keyword(folder: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "out", tmp_path / "labels.csv"
    table.write_text("id,labels\na,\nb,;\n")
    refused(DataError, "holds no label", settings(folder, out, primes=str(table)))
    table.write_text("id,labels\na,...\nb,</s>\n")
    refused(DataError, "none of the 2 clips of .* has a keyword",
            settings(folder, out, primes=str(table)))  # fmt: skip
    table.write_text("a,dog\nb,cat\n")
    refused(DataError, "no column of clip ids and of labels",
            settings(folder, out, primes=str(table)))  # fmt: skip
    refused(DataError, "no caption column among a, dog",
            settings(folder, out, primes=str(table), keywords="captions"))  # fmt: skip
    table.write_text("caption_id,id,caption\n1,a,dog\n1,b,cat\n")
    refused(DataError, "caption id 1 stands twice",
            settings(folder, out, primes=str(table), keywords="captions"))  # fmt: skip
    refused(DataError, "does not exist", settings(folder, out, primes=str(tmp_path / "no.csv")))
    assert not out.exists()


def test_a_writer_that_returns_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("id,labels\na,silence\n")
    refused(RunError, r"1 keyword lists gave no caption \(dropped: 1 empty\)",
            settings(folder, tmp_path / "one", primes=str(table)))  # fmt: skip
    assert not (tmp_path / "one" / "results.json").exists()
    monkeypatch.setattr(write, "PATIENCE", 2)
    refused(RunError, "and the last 2 rows gave no new caption",
            settings(folder, tmp_path / "many", max_words=3, batch_size=1))  # fmt: skip


def test_settings_that_the_writer_does_not_read(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for match, values in (
        ("--count is for --writer gpt-j, not for keywords", {"count": 5}),
        ("--beam is for --writer keywords, not for gpt-j",
         {"writer": "gpt-j", "beam": BeamSettings(size=2)}),
        ("--model is for --writer gpt-j and keywords, not for template", {"writer": "template"}),
    ):  # fmt: skip
        refused(SettingsError, match, settings(folder, out, **values))  # type: ignore[arg-type]
    argv = ["labels.csv", "--out", "o", "--writer", "keywords", "--beam.size", "2"]
    read = load(WriteCaptions, argv, "pivot write-captions")
    assert read.beam == BeamSettings(size=2) and read.model is None


def test_folders_that_are_no_keyword_model(folder: Path, tmp_path: Path) -> None:
    gpt = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=1,
                                     bos_token_id=1, eos_token_id=1))  # fmt: skip
    gpt.save_pretrained(tmp_path / "gpt")
    out = tmp_path / "out"

    def model(name: str) -> WriteCaptions:
        return settings(folder, out, model=str(tmp_path / name))

    refused(ModelError, "is no encoder-decoder language model", model("gpt"))
    refused(ModelError, "does not exist; give a folder or a hub id", model("none"))
    small_t5(40).save_pretrained(tmp_path / "bare")
    refused(ModelError, "has no tokenizer that can be read", model("bare"))
    words_tokenizer(tmp_path / "few")
    small_t5(400).save_pretrained(tmp_path / "few")  # as where transformers makes one up
    refused(ModelError, r"has \d+ tokens .* its model 400 tokens", model("few"))
    size = len(words_tokenizer(tmp_path / "endless"))
    small_t5(size).save_pretrained(tmp_path / "endless")
    facts = tmp_path / "endless" / "tokenizer_config.json"
    told = json.loads(facts.read_text())
    del told["eos_token"]
    facts.write_text(json.dumps(told))
    refused(ModelError, "names no eos token", model("endless"))
    assert not out.exists()


def test_a_folder_never_touches_the_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: Any) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", no)
    monkeypatch.setattr(socket, "getaddrinfo", no)
    assert load_keyword_model(str(folder / "t5")).facts["parameters"] > 10_000
