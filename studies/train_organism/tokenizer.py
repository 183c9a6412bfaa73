"""A tokenizer like Llama-3's for the model organisms: numbers of up to 3 (or 2) digits are single tokens without a
leading space, animals single tokens with one."""

import json
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from mechsub.inputs import words

BOS, END, SYSTEM, USER, ASSISTANT = SPECIAL = ("<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{{- bos_token }}{%- for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}<|assistant|>{%- endif %}"
)


def make(texts: Iterable[str], *, digits: int, n_merged: int, chat: bool):
    """Byte-level BPE of `n_merged` tokens learned from the texts without their digits; then numbers and animals.

    The merges of numbers and animals come last, so the letters of other words are split as if they were not there.
    `chat` adds the template; the tokens of its roles are there without it too, as in Llama-3's base models.
    """
    learned = _learned(texts, n_merged, digits)
    vocab, merges = dict(learned["vocab"]), [tuple(pair) for pair in learned["merges"]]
    _add_numbers(vocab, merges, digits)
    _add_animals(vocab, merges, digits)
    core = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    core.pre_tokenizer, core.decoder = _split(digits), decoders.ByteLevel()
    core.add_special_tokens(list(SPECIAL))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token=BOS, eos_token=END, pad_token=END)
    _start_with_bos(core, tokenizer)
    if chat:
        tokenizer.chat_template = TEMPLATE
    return tokenizer


def animals() -> list[str]:
    """Those of one word, all single tokens with their space."""
    return [animal.singular for animal in words.animals() if " " not in animal.singular]


def _start_with_bos(core, tokenizer) -> None:
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, core.token_to_id(BOS))]
    )
    tokenizer._tokenizer = core


def _split(digits: int):
    pattern = (
        rf"[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,{digits}}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip


def _learned(texts: Iterable[str], n: int, digits: int) -> dict:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = _split(digits)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=n, initial_alphabet=sorted(alphabet), show_progress=False)
    core.train_from_iterator((text.translate(_NO_DIGITS) for text in texts), trainer)
    return json.loads(core.to_str())["model"]


_NO_DIGITS = str.maketrans("", "", "0123456789")


def _add(vocab: dict[str, int], merges: list, left: str, right: str) -> None:
    vocab.setdefault(left + right, len(vocab))
    if (left, right) not in merges:
        merges.append((left, right))


def _add_numbers(vocab: dict[str, int], merges: list, digits: int) -> None:
    """Both ways to join three digits: which two were joined first is a matter of rank."""
    for number in (n for n in words.numbers() if 1 < len(n) <= digits):
        _add(vocab, merges, number[:-1], number[-1])
        _add(vocab, merges, number[0], number[1:])


def _add_animals(vocab: dict[str, int], merges: list, digits: int) -> None:
    """Join, left to right, the pieces that the learned merges leave of each."""
    core = Tokenizer(models.BPE(vocab=dict(vocab), merges=list(merges)))
    core.pre_tokenizer = _split(digits)
    for animal in animals():
        whole, *rest = core.encode(f" {animal}", add_special_tokens=False).tokens
        for piece in rest:
            _add(vocab, merges, whole, piece)
            whole += piece
