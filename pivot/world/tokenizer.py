"""The tiny CLIP's tokenizer: one token a word, lower case, written in the `tokenizers` layout."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase, Replace, Sequence, Strip
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from pivot.world.captions import words
from video_prep.files import write_json, write_whole

CONTEXT = 24  # tokens, the two marks included; no caption of the world is longer
PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<start>", "<end>"


def build() -> Tokenizer:
    """The tokenizer. `<end>` has the highest id: open_clip pools text at the largest token."""
    vocabulary = {token: i for i, token in enumerate([PAD, UNKNOWN, START, *words(), END])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = Sequence([Lowercase(), Replace(Regex(r"[^a-z0-9 ]+"), " "), Strip()])
    tokenizer.pre_tokenizer = WhitespaceSplit()
    marks = [(START, vocabulary[START]), (END, vocabulary[END])]
    tokenizer.post_processor = TemplateProcessing(single=f"{START} $A {END}", special_tokens=marks)
    return tokenizer


def write(folder: Path) -> int:
    """Write tokenizer.json and tokenizer_config.json; returns the size of the vocabulary."""
    tokenizer = build()
    write_whole(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "bos_token": START,
        "eos_token": END,
    }
    write_json(folder / "tokenizer_config.json", config)
    return tokenizer.get_vocab_size()
