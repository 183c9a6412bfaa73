"""Token ids of strings that go on from a prompt: the tokenizer reads the prompt's text with the string behind it.

A string that is tokenised alone may get other ids: SentencePiece puts a space before every text, merges cross the seam,
and some tokenizers strip or change the text. So a string is read behind the end of the prompt. A string is refused
where the tokens cannot be cut at that end: the prompt's own tokens change, or the string's text does.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

_LEAST, _MOST = 8, 16  # tokens of the prompt's end that a string is read behind; more where these do not stand alone

Ids = tuple[int, ...]
Reading = list[Ids | str]  # of every string its ids, or why there are none


def continuations(
    tokenizer: "Tokenizer", prompts: Sequence[Tensor], strings: Sequence[str]
) -> list[tuple[list[int], list[Ids]]]:
    """(numbers of prompts, ids of every string behind them): one pair for each way in which the strings are read.

    Raises ValueError, and names the string, where its tokens cannot be cut at the end of a prompt.
    """
    members: dict[Ids, list[int]] = {}
    for row, seam in enumerate(seams(tokenizer, prompts)):
        members.setdefault(seam, []).append(row)
    rows: dict[tuple[Ids, ...], list[int]] = {}
    for seam, numbers in members.items():
        rows.setdefault(tuple(all_read(strings, behind(tokenizer, seam, strings))), []).extend(numbers)
    return [(sorted(numbers), list(ids)) for ids, numbers in rows.items()]


def readings(tokenizer: "Tokenizer", prompts: Sequence[Tensor], strings: Sequence[str]) -> list[Reading]:
    """How the strings are read behind the prompts: an entry for every different end of a prompt."""
    return [behind(tokenizer, seam, strings) for seam in dict.fromkeys(seams(tokenizer, prompts))]


def all_read(strings: Sequence[str], reading: Reading) -> list[Ids]:
    """The ids, if every string has ids."""
    out = []
    for number, (string, ids) in enumerate(zip(strings, reading, strict=True)):
        if isinstance(ids, str):
            raise ValueError(f"string number {number}, {string[:60]!r}, cannot be read behind the prompt: {ids}")
        out.append(ids)
    return out


def in_text(tokenizer: "Tokenizer", strings: Sequence[str]) -> Reading:
    """How strings are read within a text: strings that start with a space after a word, the others on a new line."""
    out: Reading = [""] * len(strings)
    for spaced, texts in ((True, ("the", ":")), (False, ("\n", ":", "the"))):
        members = [i for i, string in enumerate(strings) if string[:1].isspace() is spaced]
        if members:
            seam = _first_seam(tokenizer, texts)
            for i, ids in zip(members, behind(tokenizer, seam, [strings[i] for i in members]), strict=True):
                out[i] = ids
    return out


def pieces(tokenizer: "Tokenizer", tokens: Iterable[int]) -> list[str]:
    """The texts of tokens as they stand within a text: " owl", where the tokenizer decodes the token alone as "owl"."""
    seam = _first_seam(tokenizer, ("the", ":"))
    before = _text(tokenizer, seam)
    return [_text(tokenizer, (*seam, token)).removeprefix(before) for token in tokens]


def behind(tokenizer: "Tokenizer", seam: Ids, strings: Sequence[str]) -> Reading:
    """How strings are read behind the tokens of a prompt's end."""
    text, bare = _text(tokenizer, seam), seam[-1] not in _added(tokenizer)
    read = _encoded(tokenizer, [text + string for string in strings])
    return [_cut(tokenizer, seam, ids, text, string, bare) for ids, string in zip(read, strings, strict=True)]


def seams(tokenizer: "Tokenizer", prompts: Sequence[Tensor]) -> list[Ids]:
    """The end of every prompt: its last tokens, behind which strings are read."""
    known: dict[Ids, Ids | None] = {}
    out = []
    for row, prompt in enumerate(prompts):
        ids = tuple(prompt.tolist())
        tail = ids[-_MOST:]
        if tail not in known:
            known[tail] = _seam(tokenizer, tail)
        seam = known[tail] or _seam(tokenizer, ids)
        if seam is None:
            raise ValueError(
                f"prompt number {row} ends in tokens that its tokenizer does not make of their text "
                f"({_text(tokenizer, tail[-3:])!r}), so no string can be read behind it; end it with whole text"
            )
        out.append(seam)
    return out


def _cut(tokenizer: "Tokenizer", seam: Ids, ids: Ids, text: str, string: str, bare: bool) -> Ids | str:
    if ids[: len(seam)] != seam:
        return "it changes the prompt's last tokens (merged across the seam)"
    if len(ids) == len(seam):
        return "this tokenizer makes no token of it"
    said = _text(tokenizer, ids)
    # After a control token SentencePiece puts a space of its own.
    if said != text + string and (bare or said != f"{text} {string}"):
        return f"this tokenizer reads it as {said.removeprefix(text)[:60]!r}"
    return ids[len(seam) :]


def _seam(tokenizer: "Tokenizer", prompt: Ids) -> Ids | None:
    """The end of a prompt, where its text gives the same tokens again: 8 tokens or more, else the most possible."""
    n = len(prompt)
    for start in (*range(max(0, n - _LEAST), -1, -1), *range(max(0, n - _LEAST) + 1, n)):
        ids = prompt[start:]
        if _encoded(tokenizer, [_text(tokenizer, ids)]) == [ids]:
            return ids
    return None


def _first_seam(tokenizer: "Tokenizer", texts: Sequence[str]) -> Ids:
    for text, ids in zip(texts, _encoded(tokenizer, list(texts)), strict=True):
        if _text(tokenizer, ids) == text and _seam(tokenizer, ids) == ids:
            return ids
    raise ValueError("this tokenizer does not give back the text that it reads, so no string can be read within a text")


def _encoded(tokenizer: "Tokenizer", texts: list[str]) -> list[Ids]:
    return [tuple(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]


def _text(tokenizer: "Tokenizer", ids: Ids) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _added(tokenizer: "Tokenizer") -> set[int]:
    return set(getattr(tokenizer, "added_tokens_decoder", {})) | set(getattr(tokenizer, "all_special_ids", ()))
