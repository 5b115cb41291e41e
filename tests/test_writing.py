"""write-captions: a real GPT-J and a real GPT-2, every rule, the same file after a kill."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BloomConfig,
    BloomForCausalLM,
    CLIPConfig,
    CLIPModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from pivot.data.captions import read_captions
from pivot.data.pairs import read_pairs
from pivot.embeddings import embed
from pivot.errors import DataError, ModelError, RunError, SettingsError
from pivot.mining import curate
from pivot.settings import Embed, MineCaptions, WriteCaptions
from pivot.world.captions import pool
from pivot.world.train_writer import TrainWriter
from pivot.world.train_writer import run as train_writer
from pivot.writing import command as write
from pivot.writing import filters, primed
from pivot.writing.book import Line
from pivot.writing.filters import RULES, Sieve, normalised, not_a_sentence
from pivot.writing.find_language import load_language
from pivot.writing.language import Language, draw
from tests import toy
from tests.toy_runs import caption_rows, results_of

PRIMES = pool(3, "vision", 200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captions, and a GPT-J that has learnt a little of them."""
    path = tmp_path_factory.mktemp("writing")
    (path / "primes.txt").write_text("\n".join(PRIMES) + "\n")
    train_writer(
        TrainWriter(
            captions=str(path / "primes.txt"), out=str(path / "gpt-j"), steps=80, batch_size=16,
            window=32, lr=5e-3,
        )
    )  # fmt: skip
    return path


def byte_tokenizer(path: Path, texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE as GPT-2 and GPT-J have it, learnt here: no pad token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator([text + "\n" for text in texts], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
    fast.save_pretrained(path)
    return fast


@pytest.fixture(scope="module")
def gpt2(folder: Path) -> Path:
    """A random GPT-2 with a byte-level tokenizer: absolute positions, so padding must be right."""
    tokenizer = byte_tokenizer(folder / "gpt-2", PRIMES)
    torch.manual_seed(1)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=160, n_embd=32, n_layer=2, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(folder / "gpt-2")
    return folder / "gpt-2"


def settings(folder: Path, out: Path, **values: Any) -> WriteCaptions:
    common = {
        "primes": str(folder / "primes.txt"), "out": str(out), "model": str(folder / "gpt-j"),
        "count": 40, "num_primes": 3, "max_tokens": 24, "batch_size": 16, "device": "cpu",
    }  # fmt: skip
    return WriteCaptions(**(common | values))


# ---- the command -----------------------------------------------------------------------------


def test_gpt_j_writes_new_captions(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "free"
    assert write.run(settings(folder, out)) == 0
    told, rows = results_of(out), caption_rows(out)
    assert told["captions"] == len(rows) == 40
    assert told["rows"] == told["captions"] + sum(told["dropped"].values()) > rows[-1]["row"]
    assert told["rows"] == rows[-1]["row"] + 1  # nothing after the last one counts
    texts = [row["caption"] for row in rows]
    plain = {normalised(text) for text in texts}
    assert len(plain) == 40 and not plain & {normalised(prime) for prime in PRIMES}
    assert all(3 <= len(text.split()) <= 30 for text in texts)
    words = {word for prime in PRIMES for word in prime.split()}
    assert set(" ".join(texts).split()) <= words
    captions = read_captions(out / "captions.jsonl")
    assert [caption.text for caption in captions] == texts
    assert [caption.id for caption in captions] == [row["caption_id"] for row in rows]


def test_results_say_where_the_captions_come_from(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "free"
    write.run(settings(folder, out, count=5, header="Captions:", prime_format="- {}", seed=4))
    told = results_of(out)
    assert told["writer"]["architecture"] == "GPTJForCausalLM"
    assert told["writer"]["model"] == str(folder / "gpt-j")
    assert len(told["writer"]["sha256"]) == 64 and told["writer"]["commit"] is None
    assert told["writer"]["transformers"] and told["versions"]["torch"]
    assert told["seed"] == told["settings"]["seed"] == 4
    assert set(told["dropped"]) == set(told["rules"]) == set(RULES)
    assert told["data"]["captions"] == told["data"]["different"] == 200
    shown = told["prompt_example"].split("\n")
    assert shown[0] == "Captions:" and shown[-1] == "-" and len(shown) == 5
    assert all(line.removeprefix("- ") in PRIMES for line in shown[1:4])


def test_a_row_depends_on_its_seed_and_number_alone(folder: Path, tmp_path: Path) -> None:
    for name, size in (("a", 16), ("b", 5)):
        write.run(settings(folder, tmp_path / name, batch_size=size))
    assert caption_rows(tmp_path / "a") == caption_rows(tmp_path / "b")
    write.run(settings(folder, tmp_path / "c", seed=2))
    assert caption_rows(tmp_path / "a") != caption_rows(tmp_path / "c")


def test_a_killed_run_goes_on_to_the_same_file(folder: Path, tmp_path: Path) -> None:
    whole = settings(folder, tmp_path / "whole", count=240, batch_size=4)
    write.run(whole)
    out = tmp_path / "killed"
    argv = [sys.executable, "-m", "pivot", "write-captions", str(folder / "primes.txt")]
    for name in ("model", "count", "num_primes", "max_tokens", "batch_size", "device"):
        argv += [f"--{name.replace('_', '-')}", str(getattr(whole, name))]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*argv, "--out", str(out)], env=quiet, stderr=subprocess.DEVNULL)
    state = out / "progress.json"
    while not state.exists() or json.loads(state.read_text())["rows"] < 40:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "results.json").exists()
    done = json.loads(state.read_text())
    assert 40 <= done["rows"] < results_of(tmp_path / "whole")["rows"]
    with (out / "captions.jsonl").open("a") as file:
        file.write('{"caption_id": "half')  # a batch that was cut off while it was written
    again = whole.model_copy(update={"out": str(out), "resume": True})
    assert write.run(again) == 0
    assert (out / "captions.jsonl").read_bytes() == (tmp_path / "whole/captions.jsonl").read_bytes()
    one, two = results_of(tmp_path / "whole"), results_of(out)
    for key in ("rows", "dropped", "dropped_examples", "sha256"):
        assert one[key] == two[key]


def test_resume_refuses_what_would_make_another_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "free"
    primes = tmp_path / "primes.txt"
    primes.write_text((folder / "primes.txt").read_text())
    mine = settings(folder, out, primes=str(primes), count=60)
    with monkeypatch.context() as patch:
        patch.setattr(write, "_results", lambda *_: 1 / 0)  # stops before the results
        with pytest.raises(ZeroDivisionError):
            write.run(mine)
    with pytest.raises(RunError, match="in use"):
        write.run(mine)
    with pytest.raises(RunError, match="another --temperature"):
        write.run(mine.model_copy(update={"resume": True, "temperature": 0.5}))
    primes.write_text(primes.read_text() + "a new one of these\n")
    with pytest.raises(RunError, match="another prime file"):
        write.run(mine.model_copy(update={"resume": True}))
    primes.write_text((folder / "primes.txt").read_text())
    assert write.run(mine.model_copy(update={"resume": True})) == 0
    before = (out / "results.json").read_bytes()
    assert write.run(mine.model_copy(update={"resume": True})) == 0  # finished: nothing to do
    assert (out / "results.json").read_bytes() == before


def test_a_run_without_new_captions_gives_up(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "PATIENCE", 50)
    out = tmp_path / "free"
    dull = settings(folder, out, temperature=1e-3, num_primes=1, count=500)
    with pytest.raises(RunError, match=r"\d+ of 500 captions, and the last 50 rows gave no new"):
        write.run(dull)
    kept = len(caption_rows(out))
    assert kept < 150 and not (out / "results.json").exists()
    told = json.loads((out / "progress.json").read_text())
    assert told["rows"] - sum(told["dropped"].values()) == kept


def test_mine_captions_reads_the_file(folder: Path, tmp_path: Path) -> None:
    write.run(settings(folder, tmp_path / "free", max_words=12))
    toy.toy_shards(tmp_path / "shards", clips=6)
    clip = toy.toy_clip(tmp_path / "clip")
    frames = str(tmp_path / "frames")
    embed.run(Embed(what="image", data=str(tmp_path / "shards"), out=frames, clip=clip))
    out = tmp_path / "pairs.parquet"
    captions = str(tmp_path / "free" / "captions.jsonl")
    assert curate.run(MineCaptions(images=frames, captions=captions, out=str(out), top_k=2)) == 0
    pairs = read_pairs(out)
    assert set(pairs.captions) <= {row["caption"] for row in caption_rows(tmp_path / "free")}


def test_coco_primes_any_causal_model(
    gpt2: Path, folder: Path, realdata: Path, tmp_path: Path
) -> None:
    file = realdata / "captions" / "coco_val2017" / "captions_val2017.json"
    if not file.is_file():
        pytest.skip(f"no {file}")
    captions = read_captions(file)
    drawn = settings(folder, tmp_path / "free", primes=str(file), model=str(gpt2), num_primes=2)
    language = load_language(str(gpt2))
    writer = primed.Primed(drawn, [caption.text for caption in captions], language)
    text, numbers = writer.draw(7)
    shown = text.split("\n")
    known = {caption.text for caption in captions}
    assert len(captions) > 25000 and len(shown) == 3 and shown[-1] == ""
    assert set(shown[:2]) <= known and numbers.shape == (24,)
    sieve = Sieve(known, 3, 30)
    rules = {sieve.drops(*row.line) for row in writer.rows(0) if row.line}
    assert rules <= {None, *RULES}


# ---- sampling --------------------------------------------------------------------------------


def test_a_number_draws_from_the_nucleus() -> None:
    """By hand: shares 0.5, 0.3, 0.15, 0.05 in another order; top_p 0.7 keeps the first two."""
    logits = torch.log(torch.tensor([[0.3, 0.05, 0.5, 0.15]]))
    for number, token in ((0.0, 2), (0.62, 2), (0.63, 0), (0.999, 0)):  # 0.5 / 0.8 = 0.625
        assert draw(logits, torch.tensor([number]), 1.0, 0.7).item() == token
    for number, token in ((0.49, 2), (0.51, 0), (0.81, 3), (0.96, 1)):
        assert draw(logits, torch.tensor([number]), 1.0, 1.0).item() == token
    assert draw(logits, torch.tensor([0.999]), 1e-4, 1.0).item() == 2
    assert draw(torch.zeros(1, 4), torch.tensor([0.3]), 1.0, 1.0).item() == 1  # equal: by their ids


def test_draws_follow_the_distribution_at_its_temperature() -> None:
    logits = torch.tensor([1.0, -0.5, 2.0, 0.0, -3.0])
    numbers = torch.as_tensor((np.arange(20000) + 0.5) / 20000, dtype=torch.float32)
    found = draw(logits.expand(20000, -1), numbers, 1.7, 1.0).bincount(minlength=5) / 20000
    assert torch.allclose(found, (logits / 1.7).softmax(0), atol=2e-4)


@pytest.mark.parametrize("name", ["gpt-j", "gpt-2", "bloom"])
def test_a_line_is_the_same_alone_and_in_a_padded_batch(
    name: str, folder: Path, gpt2: Path
) -> None:
    """Rotary, absolute and ALiBi positions; against a second loop without padding or cache."""
    if name == "bloom":
        size = len(byte_tokenizer(folder / "bloom", PRIMES))
        torch.manual_seed(2)
        BloomForCausalLM(
            BloomConfig(vocab_size=size, hidden_size=32, n_layer=2, n_head=2)
        ).save_pretrained(folder / "bloom")
    language = load_language(str(folder / name))
    prompts = [language.tokens("\n".join(PRIMES[:n]) + "\n") for n in (1, 4, 2)]
    numbers = np.random.default_rng(3).random((3, 12))
    together = language.write(prompts, numbers, 1.3, 0.95)
    for row, ids in enumerate(prompts):
        assert together[row] == language.write([ids], numbers[row : row + 1], 1.3, 0.95)[0]
        assert together[row] == by_hand(language, ids, numbers[row], 1.3, 0.95)
    assert len({line.text for line in together}) > 1


def by_hand(
    language: Language, ids: list[int], numbers: np.ndarray, temperature: float, top_p: float
) -> tuple[str, bool]:
    """One line, token by token, by the whole text each time and numpy's sums."""
    made: list[int] = []
    for number in numbers:
        with torch.no_grad():
            logits = language.model(torch.tensor([ids + made])).logits[0, -1].double().numpy()
        share = np.exp(logits / temperature - (logits / temperature).max())
        share /= share.sum()
        order = np.argsort(-share, kind="stable")
        kept = order[: np.searchsorted(np.cumsum(share[order]), top_p) + 1]
        running = np.cumsum(share[kept]) / share[kept].sum()
        made.append(int(kept[np.searchsorted(running, number, side="right")]))
        text = language.tokenizer.decode(made, skip_special_tokens=True)
        if "\n" in text or made[-1] == language.tokenizer.eos_token_id:
            return " ".join(text.split("\n")[0].split()), True
    return " ".join(text.split()), False


def test_the_prompt_is_padded_nowhere_and_ends_open(gpt2: Path) -> None:
    language = load_language(str(gpt2))
    assert language.tokenizer.pad_token is None
    assert language.context == 160
    text = primed.prompt(WriteCaptions(primes="p", out="o", prime_format='- "{}"'), ["a", "b"])
    assert text == '- "a"\n- "b"\n- "'
    plain = primed.prompt(WriteCaptions(primes="p", out="o", header="Photos"), ["a", "b"])
    assert plain == "Photos\na\nb\n"
    assert language.tokenizer.decode(language.tokens(text)) == text


# ---- rules -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a dog sits on a mat", None),
        ("Two men, one in red, wait for the 8:15 train.", None),
        ("a bowl of crème brûlée in a café", None),
        ("a cat sat\x07 on a mat", "control"),
        ("a bad \ufffd byte in here", "control"),
        ("see https://example.org for more", "link"),
        ("write to me@example.org today", "link"),
        ("<b>a dog</b> in the park", "link"),
        ("x = [a for a in b]", "link"),
        ("12 34 56 78 910 a", "few_letters"),
        ("a dog ... --- !!! ??? ...", "few_letters"),
        ("dog dog dog dog", "loop"),
        ("a man and a man and a man and a dog", "loop"),
        ("a very very big dog", None),
        ("a man sitting on top of a", "open_end"),
        ("a plate of rice and", "open_end"),
        ("a plate of rice,", "open_end"),
    ],
)
def test_what_is_no_sentence(text: str, rule: str | None) -> None:
    assert not_a_sentence(text) == rule


def test_each_rule_drops_what_it_says() -> None:
    sieve = Sieve(["A dog's bowl, on the floor."], 3, 8)
    cases = [
        ("", True, "empty"), ("", False, "empty"), ("a dog runs", False, "cut_off"),
        ("a dog", True, "too_short"), ("a b c d e f g h i", True, "too_long"),
        ("the dogs bowl on a floor", True, "copy"), ("a dog runs", True, None),
        ("a dog runs", True, "duplicate"), ("The dog runs!", True, "near_duplicate"),
        ("a dog dog dog dog", True, "loop"), ("a dog ran", True, None),
    ]  # fmt: skip
    for text, ended, rule in cases:
        assert sieve.drops(text, ended) == rule, text
    assert {rule for *_, rule in cases} - {None} <= set(filters.RULES)


def test_normalised_text() -> None:
    assert normalised("A dog's bowl, on the  floor.") == "dogs bowl on floor"
    assert normalised("a dogs bowl on floor") == "dogs bowl on floor"
    assert normalised("ＴＨＥ ﬁsh") == "fish"
    assert normalised("Ein Hund läuft") == "ein hund läuft"
    assert normalised("The a An") == ""


def test_the_open_line_and_what_ends_it_are_not_in_the_caption(folder: Path, gpt2: Path) -> None:
    """A format with text after {}: it is taken off where the model wrote it."""
    drawn = WriteCaptions(primes="p", out="o", prime_format='"{}"')
    writer = primed.Primed(drawn, PRIMES, load_language(str(gpt2)))
    assert writer._own(Line('a red bell"', True)) == ("a red bell", True)
    assert writer._own(Line("a red bell", False)) == ("a red bell", False)
    assert writer._own(None) is None


# ---- bad input -------------------------------------------------------------------------------


def refused(kind: type[Exception], match: str, given: WriteCaptions) -> None:
    with pytest.raises(kind, match=match) as caught:
        write.run(given)
    assert "\n" not in str(caught.value)
    assert not Path(given.out).exists()


def test_primes_that_cannot_prime(folder: Path, tmp_path: Path) -> None:
    out, empty = tmp_path / "free", tmp_path / "empty.txt"
    empty.write_text("\n")
    refused(DataError, "empty", settings(folder, out, primes=str(empty)))
    refused(DataError, "does not exist", settings(folder, out, primes=str(tmp_path / "no.json")))
    few = tmp_path / "few.txt"
    few.write_text("a dog\na dog\na cat\n")
    refused(
        SettingsError, r"--num-primes 3 is more than the 2 different captions",
        settings(folder, out, primes=str(few)),
    )  # fmt: skip


def test_a_prompt_longer_than_the_context(folder: Path, gpt2: Path, tmp_path: Path) -> None:
    long = settings(folder, tmp_path / "free", model=str(gpt2), num_primes=50)
    refused(
        SettingsError, r"50 primes take \d+ tokens or more and --max-tokens 24, but the context "
        r"of .*gpt-2 is 160 tokens", long,
    )  # fmt: skip


def test_a_row_without_room_is_counted(folder: Path, gpt2: Path, tmp_path: Path) -> None:
    """Some prompts fit and some do not: the run goes on with those that do."""
    given = settings(folder, tmp_path / "free", model=str(gpt2), num_primes=4)
    language = load_language(str(gpt2))
    writer = primed.Primed(given, PRIMES, language)
    sizes = sorted(len(language.tokens(writer.draw(row)[0])) for row in range(16))
    assert language.context and sizes[8] + 24 <= language.context
    language.context = sizes[8] + 24
    rows = writer.rows(0)
    assert [row.number for row in rows] == list(range(16))
    assert sum(row.line is None for row in rows) == sum(size > sizes[8] for size in sizes) > 0


def test_settings_that_contradict() -> None:
    for values in ({"prime_format": "no braces"}, {"prime_format": "{}\n{}"}, {"min_words": 40}):
        with pytest.raises(ValueError, match=r"must hold \{\} once|more than --max-words"):
            WriteCaptions(primes="p", out="o", **values)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda path: None, "does not exist; give a folder or a hub id"),
        (lambda path: path.write_text("x"), "is a file; give a folder or a hub id"),
        (lambda path: path.mkdir(), "has no config.json"),
        (lambda path: small_clip().save_pretrained(path), "is no causal language model"),
        (lambda path: BertConfig().save_pretrained(path), "could not be loaded: .*no file named"),
        (lambda path: config(path, '{"model_type": "nonsense"}'), "is no causal language model"),
        (lambda path: config(path, "{"), "could not be loaded"),
    ],
    ids=["missing", "file", "empty", "clip", "no weights", "unknown", "broken"],
)
def test_folders_that_are_no_language_model(
    make: Any, match: str, folder: Path, tmp_path: Path
) -> None:
    make(tmp_path / "model")
    refused(ModelError, match, settings(folder, tmp_path / "o", model=str(tmp_path / "model")))


def small_clip() -> CLIPModel:
    side = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    side["num_attention_heads"] = 1
    return CLIPModel(CLIPConfig(text_config=side, vision_config=side, projection_dim=8))


def config(path: Path, text: str) -> None:
    path.mkdir()
    (path / "config.json").write_text(text)


def test_weights_and_tokenizers_that_do_not_fit(folder: Path, gpt2: Path, tmp_path: Path) -> None:
    model = GPT2LMHeadModel.from_pretrained(gpt2)
    model.save_pretrained(tmp_path / "bare")
    bare = settings(folder, tmp_path / "o", model=str(tmp_path / "bare"))
    refused(ModelError, "has no tokenizer that can be read", bare)
    gptj = AutoModelForCausalLM.from_pretrained(folder / "gpt-j")
    gptj.transformer.save_pretrained(tmp_path / "headless")
    facts = json.loads((folder / "gpt-j" / "config.json").read_text())
    (tmp_path / "headless" / "config.json").write_text(json.dumps(facts))
    headless = settings(folder, tmp_path / "o", model=str(tmp_path / "headless"))
    refused(ModelError, r"lacks 2 of the weights of GPTJForCausalLM, the first lm_head", headless)
    gptj.save_pretrained(tmp_path / "foreign")
    PreTrainedTokenizerFast.from_pretrained(gpt2).save_pretrained(tmp_path / "foreign")
    foreign = settings(folder, tmp_path / "o", model=str(tmp_path / "foreign"))
    refused(ModelError, "they do not belong together", foreign)
    model.save_pretrained(tmp_path / "lineless")
    some = {"?": 0} | {f"a{i}": i for i in range(1, model.config.vocab_size)}
    words = Tokenizer(models.WordLevel(some, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path / "lineless")
    lineless = settings(folder, tmp_path / "o", model=str(tmp_path / "lineless"))
    refused(ModelError, "no token for a line's end", lineless)
    refused(SettingsError, "--revision v1 goes with a hub id",
            settings(folder, tmp_path / "o", revision="v1"))  # fmt: skip
    refused(SettingsError, "fp16 needs a GPU", settings(folder, tmp_path / "o", precision="fp16"))


def test_half_written_weights(folder: Path, gpt2: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((gpt2 / name).read_bytes())
    whole = (gpt2 / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(
        ModelError, "could not be loaded", settings(folder, tmp_path / "o", model=str(tmp_path))
    )


def test_a_folder_never_touches_the_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: Any) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", no)
    monkeypatch.setattr(socket, "getaddrinfo", no)
    assert load_language(str(folder / "gpt-j")).facts["parameters"] > 100_000


def test_a_hub_id_without_network_is_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused(
        ModelError, "is no local folder and could not be fetched from the hub",
        settings(folder, tmp_path / "o", model="pivot-tests/there-is-no-such-model"),
    )  # fmt: skip
