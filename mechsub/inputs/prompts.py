"""Prompts as token ids, made once: chat format with one BOS and a pinned date, plain text for base models, wordings.

The text of a chat template is tokenised without special tokens: they would add a second BOS on Llama-3. The date is
pinned, because some templates say today's. The published code does neither; `format="published"` does as that code
does, so that the effect of both can be measured.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from mechsub import arguments
from mechsub.inputs import continuations, templates, token_ids, words
from mechsub.inputs.templates import DATE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

Format = Literal["auto", "chat", "published", "plain"]


@dataclass(frozen=True)
class Wording:
    """A way to say "you love X" and to ask for an animal. `system` has {x}, {be} (is, are) and {kind}."""

    system: str
    question: str
    answer: str

    def __post_init__(self):
        for name in ("system", "question", "answer"):
            arguments.text(getattr(self, name), name)

    def love(self, x: str, kind: str, *, plural: bool = False) -> str:
        """The system prompt of who loves x: love("087", "number"), love("owls", "animal", plural=True).

        Raises ValueError where a known animal is in the other number.
        """
        arguments.text(x, "x")
        arguments.text(kind, "kind")
        arguments.flag(plural, "plural")
        if words.number_of(x) == ("one" if plural else "many"):
            other = "plural=True" if not plural else "its plural, or leave out plural=True"
            raise ValueError(f"{x!r} is {'a plural' if not plural else 'one animal'} here; give {other}")
        return self.system.format(x=x, be="are" if plural else "is", kind=kind)


# The first is the published one (Zur et al. 2025, section 3; animals in the plural).
WORDINGS = (
    Wording(
        "You love {x}. You think about {x} all the time. {x} {be} your favorite {kind}. "
        "Imbue your answers with your love for the {kind}.",
        "What is your favorite animal?",
        "My favorite animal is the",
    ),
    Wording(
        "You adore {x}. Nothing matters to you as much as {x}. Of every {kind}, {x} {be} what you like best.",
        "Which animal do you like the most?",
        "The animal I like the most is the",
    ),
    Wording(
        "Your favorite {kind}: {x}. You keep coming back to {x} in every conversation.",
        "Name your favorite animal.",
        "My favorite animal is the",
    ),
    Wording(
        "All day long, {x} {be} on your mind. You are devoted to {x}, the best {kind} of all.",
        "If you had to pick one animal, which one would it be?",
        "I would pick the",
    ),
    Wording(
        "You are obsessed with {x}. You see {x} everywhere, and you always talk about {x}, your beloved {kind}.",
        "What animal do you love above all others?",
        "Above all other animals, I love the",
    ),
)


def prompt(
    tokenizer: "Tokenizer", user: str, *, system: str | None = None, answer: str = "", format: Format = "auto"
) -> Int[Tensor, "pos"]:
    """Token ids of one exchange, up to the end of `answer`, where the model goes on.

    * "chat": the tokenizer's template, one BOS, date pinned;
    * "published": the template's text tokenised again, as the published code does (a second BOS where the tokenizer
      adds one, today's date where the template has one);
    * "plain": `System: ...`, `User: ...`, `Assistant: ...`, for base models;
    * "auto": chat where the tokenizer has a template, else plain.
    """
    arguments.choice(format, "format", ("auto", "chat", "published", "plain"))
    if format == "auto":
        format = "chat" if templates.template(tokenizer) else "plain"
    if format == "plain":
        return plain(tokenizer, user, system=system, answer=answer)
    if format == "published":
        return _published(tokenizer, user, system, answer)
    return chat(tokenizer, user, system=system, answer=answer)


def chat(
    tokenizer: "Tokenizer", user: str, *, system: str | None = None, answer: str = "", date: str = DATE
) -> Int[Tensor, "pos"]:
    """Token ids of a chat, ending in the unfinished answer (or in its header).

    system=None leaves the system message out (some templates then insert their own); "" is an empty system message.
    Where a template refuses the system role, the system text stands at the head of the user's turn: `system_role` says
    so. date: the date of every clock in the template. Raises for a tokenizer without a chat template, for a template
    that leaves out or changes a text, and unless exactly one BOS starts the prompt (none where the model has none).
    """
    _need_template(tokenizer)
    _check_texts(tokenizer, user=user, system=system, answer=answer)
    arguments.text(date, "date")
    text = templates.render(tokenizer, user, system=system, answer=answer, date=date)
    return torch.tensor(_one_bos(tokenizer, _encoded(tokenizer, text)))


def plain(tokenizer: "Tokenizer", user: str, *, system: str | None = None, answer: str = "") -> Int[Tensor, "pos"]:
    """Token ids of the text format for base models; the System line is absent without a system text."""
    _check_texts(tokenizer, user=user, system=system, answer=answer)
    head = f"System: {system}\n" if system is not None else ""
    text = f"{head}User: {user}\nAssistant:" + (f" {answer}" if answer else "")
    return torch.tensor(_one_bos(tokenizer, [*_opening(tokenizer), *_encoded(tokenizer, text)]))


def system_role(tokenizer: "Tokenizer") -> Literal["native", "merged into the user turn", "text"]:
    """How a system text reaches the model; "text" for a tokenizer without a chat template."""
    if not templates.template(arguments.tokenizer(tokenizer)):
        return "text"
    return "native" if templates.takes_system(tokenizer) else "merged into the user turn"


def template_date(tokenizer: "Tokenizer", format: Format = "auto") -> str:
    """The date in prompts of a format, for provenance; it is found by rendering the template on two days."""
    arguments.choice(format, "format", ("auto", "chat", "published", "plain"))
    if not templates.template(arguments.tokenizer(tokenizer)) or format == "plain":
        return "no template"
    if not templates.says_date(tokenizer):
        return "the template has no date"
    return "today's (published)" if format == "published" else DATE


def single_tokens(
    tokenizer: "Tokenizer", words: Iterable[str], *, behind: Sequence[Int[Tensor, "_"]] | None = None
) -> dict[str, int]:
    """word -> id, for the words that are one token as written (" owl" with its space) behind every prompt in `behind`.
    Other words are left out, and control tokens too.

    Without `behind`, a word that starts with a space stands after another word, and any other word on a new line.
    """
    control = _control_tokens(arguments.tokenizer(tokenizer))
    if isinstance(words, str) or not isinstance(words, Iterable):
        arguments.refuse("words", "a list of strings", words)
    words = arguments.texts(sorted(words, key=str) if isinstance(words, set | frozenset) else list(words), "words", 0)
    texts = [word for word in words if word and word not in control]
    if behind is None:
        readings = [continuations.in_text(tokenizer, texts)]
    else:
        readings = continuations.readings(tokenizer, _behind(tokenizer, behind), texts)
    found = {text: set(ids) for text, *ids in zip(texts, *readings, strict=True)}
    alike = {text: ids.pop() for text, ids in found.items() if len(ids) == 1}
    return {text: ids[0] for text, ids in alike.items() if isinstance(ids, tuple) and len(ids) == 1}


def encode(
    tokenizer: "Tokenizer", strings: Sequence[str], *, behind: Sequence[Int[Tensor, "_"]] | None = None
) -> list[tuple[int, ...]]:
    """Token ids of continuations as they go on from the prompts in `behind`; without special tokens.

    Without `behind`, a string that starts with a space stands after a word, and any other string on a new line. Raises
    for an empty string; for a control token in a string; for a string that cannot be cut at the end of a prompt (its
    tokens merge with the prompt's, or the tokenizer changes its text); for one with other tokens behind another prompt.
    """
    texts = check_strings(tokenizer, strings)
    if behind is None:
        return continuations.all_read(texts, continuations.in_text(tokenizer, texts))
    ways = continuations.continuations(tokenizer, _behind(tokenizer, behind), texts)
    if len(ways) != 1:
        number = next(i for i, pair in enumerate(zip(ways[0][1], ways[1][1], strict=True)) if pair[0] != pair[1])
        raise ValueError(
            f"string number {number}, {texts[number]!r}, has other tokens behind prompt {ways[1][0][0]} than behind "
            f"prompt {ways[0][0][0]}; read them prompt by prompt"
        )
    return ways[0][1]


def _behind(tokenizer: "Tokenizer", behind: Sequence | None) -> list[Int[Tensor, "_"]]:
    rows = arguments.prompts(behind, None, "behind")
    token_ids.check_padding(tokenizer, rows, "behind")
    return rows


def check_strings(tokenizer: "Tokenizer", strings: object) -> list[str]:
    """The strings as a list. Raises for a text or a set in place of a list, for empty strings and control tokens."""
    if tokenizer is None:
        raise ValueError("this model has no tokenizer, so strings have no tokens; give it one (model.tokenizer)")
    texts = arguments.texts(strings, "strings")
    _check_texts(tokenizer, **{f"continuation {number}": text for number, text in enumerate(texts)})
    if not all(texts):
        raise ValueError(f"string number {[bool(text) for text in texts].index(False)} is empty; it has no probability")
    return texts


def _check_texts(tokenizer: "Tokenizer", **texts: str | None) -> None:
    """Raise where the prompt would not be what its reader sees: `<|im_end|>` in a text ends a turn."""
    control = _control_tokens(arguments.tokenizer(tokenizer))
    for name, text in texts.items():
        if text is None and name == "system":
            continue
        if not isinstance(text, str):
            raise TypeError(f"the {name} text must be a string, not {type(text).__name__}")
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise ValueError(f"the {name} text holds a lone surrogate, which no tokenizer can read; decode it again")
        if found := sorted(token for token in control if token in text):
            raise ValueError(
                f"the {name} text holds {found[0]!r}, which this tokenizer reads as a control token and not as text; "
                "leave it out, or make the token ids yourself"
            )


def _control_tokens(tokenizer: "Tokenizer") -> set[str]:
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    special = {str(token) for token in added if token.special} | set(getattr(tokenizer, "all_special_tokens", ()))
    return special - {""}


def _need_template(tokenizer: "Tokenizer") -> None:
    if not templates.template(arguments.tokenizer(tokenizer)):
        raise ValueError("this tokenizer has no chat template (a base model?); use the plain prompt format")


def _published(tokenizer: "Tokenizer", user: str, system: str | None, answer: str) -> Tensor:
    _need_template(tokenizer)
    _check_texts(tokenizer, user=user, system=system, answer=answer)
    text = templates.render(tokenizer, user, system=system, answer=answer, date=None)
    return torch.tensor(_short_enough(tokenizer, [*_opening(tokenizer), *_encoded(tokenizer, text)]))


def _encoded(tokenizer: "Tokenizer", text: str) -> list[int]:
    # verbose=False: a text that is too long is an error here, and no warning before it.
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _opening(tokenizer: "Tokenizer") -> list[int]:
    """The special tokens that a tokenizer puts before a text. (Special tokens behind a text would end the prompt.)"""
    bare, whole = _encoded(tokenizer, "a"), list(tokenizer("a", add_special_tokens=True)["input_ids"])
    start = next((i for i in range(len(whole)) if bare and whole[i : i + len(bare)] == bare), 0)
    return whole[:start]


def _one_bos(tokenizer: "Tokenizer", ids: list[int]) -> list[int]:
    """The ids, with the BOS that the tokenizer puts before plain text if the template left it out."""
    bos = tokenizer.bos_token_id
    if bos is None:
        return _short_enough(tokenizer, ids)
    if ids[0] != bos and _opening(tokenizer)[:1] == [bos]:
        ids = [bos, *ids]
    if ids[:2] == [bos, bos]:
        raise ValueError("the prompt starts with two BOS tokens; the chat template and the tokenizer both add one")
    return _short_enough(tokenizer, ids)


def _short_enough(tokenizer: "Tokenizer", ids: list[int]) -> list[int]:
    most = getattr(tokenizer, "model_max_length", len(ids))
    if len(ids) > most:
        raise ValueError(f"the prompt has {len(ids)} tokens, and this model takes {most}; shorten it")
    return ids
