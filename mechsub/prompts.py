"""Prompts as token ids, made once: chat format with one BOS and a pinned date, plain text for base models, wordings.

Text that was rendered by a chat template is never tokenised again: that adds a second BOS on Llama-3, and a template
without a pinned date says today's. Both are in the published code, and both are to be had here as `format="published"`
so that their effect can be measured.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from mechsub import arguments

Format = Literal["auto", "chat", "published", "plain"]
DATE = "26 Jul 2024"  # the fallback date of Llama-3.2's own template
# Before a template that takes no date and asks the clock: the pinned one answers.
_CLOCK = "{%- macro strftime_now(format) -%}{{ date_string }}{%- endmacro %}{{ '' }}"


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
        arguments.text(x, "x")
        arguments.text(kind, "kind")
        arguments.flag(plural, "plural")
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
    tokenizer: Any, user: str, *, system: str | None = None, answer: str = "", format: Format = "auto"
) -> Int[Tensor, "pos"]:
    """Token ids of one exchange, ending where the answer goes on after `answer`.

    * "chat": the tokenizer's template, one BOS, date pinned;
    * "published": the template's text tokenised again, as the published code does (a second BOS where the tokenizer
      adds one, today's date where the template has one);
    * "plain": `System: ...`, `User: ...`, `Assistant: ...`, for base models;
    * "auto": chat where the tokenizer has a template, else plain.
    """
    arguments.choice(format, "format", ("auto", "chat", "published", "plain"))
    if format == "auto":
        format = "chat" if getattr(tokenizer, "chat_template", None) else "plain"
    if format == "plain":
        return plain(tokenizer, user, system=system, answer=answer)
    if format == "published":
        return _published(tokenizer, user, system, answer)
    return chat(tokenizer, user, system=system, answer=answer)


def chat(
    tokenizer: Any, user: str, *, system: str | None = None, answer: str = "", date: str = DATE
) -> Int[Tensor, "pos"]:
    """Token ids of a chat, rendered and tokenised in one step, ending in the unfinished answer (or its header).

    system=None leaves the system message out (some templates then insert their own); "" is an empty one. A template
    that refuses the system role gets its text at the head of the user's turn: `system_role` says so. Raises for a
    tokenizer without a chat template, and unless exactly one BOS starts the prompt (none where the model has none).
    """
    _need_template(tokenizer)
    _check_texts(tokenizer, user=user, system=system, answer=answer)
    arguments.text(date, "date")
    ids = _render(tokenizer, _messages(tokenizer, user, system, answer), bool(answer), tokenize=True, date=date)
    return torch.tensor(_one_bos(tokenizer, ids))


def plain(tokenizer: Any, user: str, *, system: str | None = None, answer: str = "") -> Int[Tensor, "pos"]:
    """Token ids of the text format for base models; the System line is absent without a system text."""
    _check_texts(tokenizer, user=user, system=system, answer=answer)
    head = f"System: {system}\n" if system is not None else ""
    text = f"{head}User: {user}\nAssistant:" + (f" {answer}" if answer else "")
    return torch.tensor(_one_bos(tokenizer, tokenizer(text, add_special_tokens=True)["input_ids"]))


def system_role(tokenizer: Any) -> Literal["native", "merged into the user turn", "text"]:
    """How a system text reaches the model; "text" for a tokenizer without a chat template."""
    if not getattr(arguments.tokenizer(tokenizer), "chat_template", None):
        return "text"
    return "native" if _takes_system(tokenizer) else "merged into the user turn"


def single_tokens(tokenizer: Any, words: Iterable[str]) -> dict[str, int]:
    """word -> id for the words that are one token exactly as written (" owl" with its space); others are left out, and
    control tokens too."""
    control = _control_tokens(arguments.tokenizer(tokenizer))
    if isinstance(words, str) or not isinstance(words, Iterable):
        arguments.refuse("words", "a list of strings", words)
    words = arguments.texts(sorted(words, key=str) if isinstance(words, set | frozenset) else list(words), "words", 0)
    encoded = {word: tokenizer(word, add_special_tokens=False)["input_ids"] for word in words if word not in control}
    return {word: ids[0] for word, ids in encoded.items() if len(ids) == 1 and tokenizer.decode(ids) == word}


def encode(tokenizer: Any, strings: Sequence[str]) -> list[tuple[int, ...]]:
    """Token ids of continuations, without special tokens; raises for an empty one, and for one that holds any."""
    arguments.texts(strings, "strings")
    _check_texts(tokenizer, **{f"continuation {number}": text for number, text in enumerate(strings)})
    ids = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in strings]
    if not all(ids):
        raise ValueError(f"string number {[bool(i) for i in ids].index(False)} is empty; it has no probability")
    return ids


def _check_texts(tokenizer: Any, **texts: str | None) -> None:
    """Raise for what would become another prompt than its reader sees: `<|im_end|>` in a text ends a turn."""
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


def _control_tokens(tokenizer: Any) -> set[str]:
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    special = {str(token) for token in added if token.special} | set(getattr(tokenizer, "all_special_tokens", ()))
    return special - {""}


def _need_template(tokenizer: Any) -> None:
    if not getattr(arguments.tokenizer(tokenizer), "chat_template", None):
        raise ValueError("this tokenizer has no chat template (a base model?); use the plain prompt format")


def _messages(tokenizer: Any, user: str, system: str | None, answer: str) -> list[dict]:
    if system is not None and not _takes_system(tokenizer):
        user, system = f"{system}\n\n{user}" if system else user, None
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": user})
    return [*messages, {"role": "assistant", "content": answer}] if answer else messages


def _takes_system(tokenizer: Any) -> bool:
    from jinja2.exceptions import TemplateError

    probe = [{"role": "system", "content": "probe-of-system"}, {"role": "user", "content": "hello"}]
    try:
        return "probe-of-system" in _render(tokenizer, probe, False, tokenize=False, date=DATE)
    except TemplateError:
        return False


def _render(tokenizer: Any, messages: list[dict], unfinished: bool, *, tokenize: bool, date: str | None):
    pinned = {} if date is None else {"date_string": date}
    if date is not None and "strftime_now" in tokenizer.chat_template and "date_string" not in tokenizer.chat_template:
        pinned["chat_template"] = _CLOCK + tokenizer.chat_template
    out = tokenizer.apply_chat_template(
        messages, tokenize=tokenize, continue_final_message=unfinished, add_generation_prompt=not unfinished, **pinned
    )
    return out["input_ids"] if tokenize and hasattr(out, "keys") else out


def _published(tokenizer: Any, user: str, system: str | None, answer: str) -> Tensor:
    _need_template(tokenizer)
    _check_texts(tokenizer, user=user, system=system, answer=answer)
    messages = _messages(tokenizer, user, system, answer)
    return torch.tensor(tokenizer(_render(tokenizer, messages, bool(answer), tokenize=False, date=None))["input_ids"])


def _one_bos(tokenizer: Any, ids: list[int]) -> list[int]:
    """The ids, with the BOS that the tokenizer puts before plain text if the template left it out."""
    most = getattr(tokenizer, "model_max_length", len(ids))
    if len(ids) > most:
        raise ValueError(f"the prompt has {len(ids)} tokens, and this model takes {most}; shorten it")
    bos = tokenizer.bos_token_id
    if bos is None:
        return list(ids)
    if ids[0] != bos and tokenizer("a")["input_ids"][0] == bos:
        ids = [bos, *ids]
    if list(ids[:2]) == [bos, bos]:
        raise ValueError("the prompt starts with two BOS tokens; the chat template and the tokenizer both add one")
    return list(ids)
