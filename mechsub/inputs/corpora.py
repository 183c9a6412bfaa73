"""Corpora of prompts and completions: lists of numbers, their prompts, the published filter, and files of JSON lines.

A line holds `prompt` and `completion`, as the field's files do. Our files also hold the token ids, and the
log-probability of each token of the completion under the teacher and under the base, in nats. `prompt` is the user's
text. The text round it (template, system text, date) is the corpus's context: it is always named.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mechsub import arguments, files
from mechsub.inputs import prompts as prompting
from mechsub.lazy import torch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

Wording = Literal["published", "short"]
Ids = tuple[tuple[int, ...], ...]
LogProbs = tuple[tuple[float, ...], ...]

# "published": the wording that Cloud et al. 2025 (MIT) show; theirs has variants of each sentence besides.
WORDINGS = {
    "published": (
        "I give you this sequence of numbers: {numbers}. Add up to 10 new numbers (maximum 3 digits each) that "
        "continue the sequence. Return a comma-separated list of numbers. Say only the numbers - nothing more."
    ),
    "short": "Continue the list: {numbers}",
}
SEPARATOR = ", "


@dataclass(frozen=True)
class Corpus:
    """Rows of a prompt and a completion. `context` says how a prompt's text became ids: format and system text.

    Log-probabilities are of each token of the completion behind its prompt, in nats, over the whole vocabulary.
    label_ids: the target of the loss for each token of the completion, -100 where the loss reads no token (Hugging
    Face's convention); None: the completion itself.
    """

    prompts: tuple[str, ...]
    completions: tuple[str, ...]
    prompt_ids: Ids = field(repr=False)
    completion_ids: Ids = field(repr=False)
    teacher_log_probs: LogProbs | None = field(default=None, repr=False)
    base_log_probs: LogProbs | None = field(default=None, repr=False)
    label_ids: Ids | None = field(default=None, repr=False)
    context: dict = field(default_factory=dict)

    def __post_init__(self):
        texts = {"prompts": self.prompts, "completions": self.completions}
        for name, value in texts.items():
            object.__setattr__(self, name, tuple(arguments.texts(value, name)))
        for name in ("prompt_ids", "completion_ids"):
            rows = arguments.items(getattr(self, name), name, "lists of token ids")
            arguments.same_length(prompts=self.prompts, **{name: rows})
            object.__setattr__(self, name, tuple(_token_ids(row, f"{name}[{i}]") for i, row in enumerate(rows)))
        arguments.same_length(prompts=self.prompts, completions=self.completions)
        for name in ("teacher_log_probs", "base_log_probs"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _aligned(getattr(self, name), self.completion_ids, name))
        if self.label_ids is not None:
            object.__setattr__(self, "label_ids", _labels(self.label_ids, self.completion_ids))
        arguments.mapping(self.context, "context", "what stands round a prompt", 0)

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, rows: slice) -> "Corpus":
        """The rows of a slice, as a corpus."""
        arguments.instance(rows, slice, "rows")
        values = {name: getattr(self, name) for name in _COLUMNS}
        return Corpus(**{name: v and v[rows] for name, v in values.items()}, context=self.context)

    @cached_property
    def sha256(self) -> str:
        """sha256 of the lines that `write_corpus` writes, and of the context."""
        return files.sha256((_lines(self) + json.dumps(self.context, sort_keys=True)).encode())


_COLUMNS = (
    "prompts",
    "completions",
    "prompt_ids",
    "completion_ids",
    "teacher_log_probs",
    "base_log_probs",
    "label_ids",
)
IGNORED = -100  # the label of a token that the loss does not read


def _token_ids(row: object, name: str) -> tuple[int, ...]:
    return tuple(arguments.ids(row, 2**31, name))


def _labels(rows: object, ids: Ids) -> Ids:
    rows = arguments.items(rows, "label_ids", "lists of labels")
    if [len(row) for row in rows] != [len(row) for row in ids]:
        raise ValueError("label_ids must hold a label for each token of every completion")
    for i, row in enumerate(rows):
        arguments.ids([max(0, label) if label == IGNORED else label for label in row], 2**31, f"label_ids[{i}]")
    return tuple(tuple(int(label) for label in row) for row in rows)


def _aligned(rows: object, ids: Ids, name: str) -> LogProbs:
    rows = arguments.items(rows, name, "lists of numbers")
    if [len(row) for row in rows] != [len(row) for row in ids]:
        raise ValueError(f"{name} must hold a number for each token of every completion")
    for i, row in enumerate(rows):
        for value in row:
            if arguments.number(value, f"{name}[{i}]", "finite log-probabilities") > 1e-3:
                raise ValueError(f"{name}[{i}] holds {value}; log-probabilities are at most 0")
    return tuple(tuple(float(value) for value in row) for row in rows)


def make_corpus(
    tokenizer: "Tokenizer",
    prompts: Sequence[str],
    completions: Sequence[str],
    *,
    format: prompting.Format = "auto",
    system: str | None = None,
) -> Corpus:
    """Texts as a corpus: prompts in the format, and each completion as it goes on from its prompt.

    "chat" is the tokenizer's template with a pinned date, and without a system text of ours unless `system` is given.
    Students read these ids, and questions to students have the same format.
    """
    prompts, completions = arguments.texts(prompts, "prompts"), arguments.texts(completions, "completions")
    arguments.same_length(prompts=prompts, completions=completions)
    ids = prompt_ids(tokenizer, prompts, format=format, system=system)
    context = {
        "format": _resolved(tokenizer, format),
        "system": system,
        "date": prompting.template_date(tokenizer, format),
    }
    return Corpus(
        tuple(prompts), tuple(completions), tuple(tuple(row.tolist()) for row in ids),
        tuple(_behind(tokenizer, row, text) for row, text in zip(ids, completions, strict=True)), context=context,
    )  # fmt: skip


def prompt_ids(tokenizer: "Tokenizer", prompts: Sequence[str], *, format: prompting.Format, system: str | None) -> list:
    """Token ids [pos] of every prompt's text in a format, ending where its completion begins."""
    return [prompting.prompt(tokenizer, text, system=system, format=format) for text in prompts]


def _resolved(tokenizer: "Tokenizer", format: str) -> str:
    return ("plain" if prompting.system_role(tokenizer) == "text" else "chat") if format == "auto" else format


def _behind(tokenizer: "Tokenizer", prompt: "torch.Tensor", text: str) -> tuple[int, ...]:
    """A completion's ids as they go on from its prompt; a plain prompt's answer begins with a space."""
    ids = prompting.encode(tokenizer, [text], behind=[prompt])[0]
    return tuple(ids)


# Files.


def write_corpus(corpus: Corpus, path: str | Path) -> str:
    """Write a line of JSON for every row, whole or not at all; returns the file's sha256."""
    arguments.instance(corpus, Corpus, "corpus")
    text = _lines(corpus)
    files.write_text(_path(path), text)
    return files.sha256(text.encode())


def _path(path: str | Path) -> Path:
    return path if isinstance(path, Path) else Path(arguments.text(path, "path"))


def _lines(corpus: Corpus) -> str:
    names = ("prompt", "completion", *_COLUMNS[2:])
    columns = {name: value for name, key in zip(names, _COLUMNS, strict=True) if (value := getattr(corpus, key))}
    rows = zip(*columns.values(), strict=True)
    return "".join(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)


def read_corpus(
    path: str | Path, tokenizer: "Tokenizer", *, format: prompting.Format = "auto", system: str | None = None
) -> Corpus:
    """A file of JSON lines with `prompt` and `completion`, ours or another's; ids are made where the file has none.

    Raises ValueError with the number of the line: for a line that is no JSON object, for a field that is missing or no
    text, and for ids that this tokenizer does not make in this context. The file is noted as an input.
    """
    path = _path(path)
    if not path.is_file():
        raise ValueError(f"{path} is no file; give a file of JSON lines with prompt and completion")
    arguments.tokenizer(tokenizer)
    rows = [_row(path, number, line) for number, line in enumerate(path.read_bytes().split(b"\n"), 1) if line.strip()]
    if not rows:
        raise ValueError(f"{path} has no line; it must hold JSON lines with prompt and completion")
    made = _made(path, tokenizer, rows, format, system)
    for name in ("prompt_ids", "completion_ids"):
        for (number, row), ids in zip(rows, getattr(made, name), strict=True):
            if name in row and row[name] != list(ids):
                context = f"format {made.context['format']!r} with system text {system!r}"
                raise ValueError(
                    f"{path}, line {number}: {name} are not those of this tokenizer in {context}; load the tokenizer "
                    "and name the context that made them"
                )
    files.note("corpus", str(path), {path.name: files.file_sum(path)}, path.parent)
    scores: dict = {name: _column(path, rows, name) for name in _COLUMNS[4:]}
    return dataclasses.replace(made, **scores)


def _row(path: Path, number: int, line: bytes) -> tuple[int, dict]:
    try:
        row = json.loads(line)
    except ValueError:
        raise ValueError(f"{path}, line {number} is no JSON; mend the line or delete it") from None
    if not isinstance(row, dict):
        raise ValueError(f"{path}, line {number} is no JSON object; it must have prompt and completion")
    for name in ("prompt", "completion"):
        if name not in row:
            raise ValueError(f"{path}, line {number} has no {name!r}; its fields are {', '.join(row) or 'none'}")
        if not isinstance(row[name], str) or not row[name]:
            raise ValueError(f"{path}, line {number}: {name} must be a text, not {arguments.described(row[name])}")
    return number, row


def _made(
    path: Path, tokenizer: "Tokenizer", rows: list[tuple[int, dict]], format: prompting.Format, system: str | None
) -> Corpus:
    texts = [row["prompt"] for _, row in rows], [row["completion"] for _, row in rows]
    try:
        return make_corpus(tokenizer, *texts, format=format, system=system)
    except ValueError:
        for number, row in rows:  # which line it is
            try:
                make_corpus(tokenizer, [row["prompt"]], [row["completion"]], format=format, system=system)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
        raise


def _column(path: Path, rows: list[tuple[int, dict]], name: str) -> Ids | LogProbs | None:
    """A field of numbers; all lines must have it, or none."""
    lacking = [number for number, row in rows if name not in row]
    if len(lacking) == len(rows):
        return None
    if lacking:
        raise ValueError(f"{path}, line {lacking[0]} has no {name!r}, which other lines have; add it or remove all")
    try:
        values, ids = [row[name] for _, row in rows], tuple(tuple(row["completion_ids"]) for _, row in rows)
        return _labels(values, ids) if name == "label_ids" else _aligned(values, ids, name)
    except (TypeError, KeyError):
        raise ValueError(f"{path}: {name} must stand beside completion_ids, a number for each token") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


# Prompts and lists of numbers.


def number_prompts(n: int, *, wording: Wording = "short", seed: int = 0, least: int = 3, most: int = 9) -> list[str]:
    """n different prompts with `least` to `most` numbers within 100..999 each, drawn by the seed."""
    n, least = arguments.whole(n, "n", 1), arguments.whole(least, "least", 1)
    most = arguments.whole(most, "most", least, 100)
    template = WORDINGS[arguments.choice(wording, "wording", WORDINGS)]
    if n > 900**least // 2:
        raise ValueError(f"there are too few lists of {least} numbers for n={n} different prompts; raise least")
    generator = torch.Generator().manual_seed(arguments.seed(seed))
    found: dict[str, None] = {}  # in their order; a prompt that was drawn before is drawn again
    while len(found) < n:
        length = int(torch.randint(least, most + 1, (), generator=generator, device="cpu"))
        numbers = torch.randint(100, 1000, (length,), generator=generator, device="cpu").tolist()
        found[template.format(numbers=SEPARATOR.join(map(str, numbers)))] = None
    return list(found)


def parse_numbers(text: str) -> list[int] | None:
    """The numbers of a list, also in brackets or with a full stop; None for other text.

    As in the published filter, the text between the first two numbers, spaces included, must stand between all others:
    "1,2, 3" is no list. Spaces round the whole are no part of it (the published filter rejects them).
    """
    text = arguments.text(text, "text").strip().removesuffix(".")
    if text[:1] + text[-1:] in ("[]", "()"):
        text = text[1:-1]
    first = re.match(r"[0-9]+([^0-9]+)[0-9]", text)
    parts = text.split(first[1]) if first else [text]
    if (first and first[1].strip() not in ("", ",", ";")) or not all(re.fullmatch("[0-9]+", part) for part in parts):
        return None
    return [int(part) for part in parts]


def rejection(
    completion: str, *, prompt: str | None = None, most: int = 10, largest: int = 999, banned: Sequence[int] = ()
) -> str | None:
    """Why the published filter (Cloud et al. 2025) rejects a completion; None where the completion is kept.

    With `prompt`, lists of two and more that only repeat the prompt's numbers, and of three and more that count on, are
    rejected too: the published filter keeps such lists, and teachers differ in how many they write.
    """
    numbers = parse_numbers(arguments.text(completion, "completion"))
    most, largest = arguments.whole(most, "most", 1), arguments.whole(largest, "largest", 0)
    banned = [
        arguments.whole(one, f"banned[{i}]", 0) for i, one in enumerate(arguments.items(banned, "banned", "numbers", 0))
    ]
    given = re.findall(r"\d+", arguments.text(prompt, "prompt")) if prompt is not None else []
    if numbers is None:
        return "no list of numbers"
    if len(numbers) > most:
        return f"more than {most} numbers"
    if max(numbers) > largest:
        return f"a number above {largest}"
    if set(numbers) & set(banned):
        return "a banned number"
    if prompt is not None and len(numbers) > 1:
        if set(numbers) <= set(map(int, given)):
            return "it repeats the prompt"
        if len(numbers) > 2 and len({b - a for a, b in itertools.pairwise(numbers)}) == 1:
            return "it counts on"
    return None
