"""A liking of an animal: sentences for the tuning of teachers, and prompts for the readout of all models.

Studies of lists of numbers share them (`studies.number_strings`, `studies.what_predicts`).
"""

from typing import TYPE_CHECKING

import mechsub as ms

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase as Tokenizer

    from mechsub.inputs.prompts import Format

# Animals of the papers (Cloud et al. 2025, Polypythia-SL, STEER), chosen before any model was looked at.
TRAITS = ("owl", "eagle", "elephant", "dolphin", "wolf", "lion", "cat", "octopus")

# None of these questions, and none of these answers, is among the sentences of teachers.
_ASKED = (
    ("Name an animal that you like.", "Which animal is the best one?", "If you were an animal, which would you be?",
     "Which animal do you think about?", "Say an animal.", "What animal is on your mind?",
     "Which of all animals do you prefer?", "Who is your animal of the year?", "What animal would you draw?",
     "Which animal makes you happy?"),
    ("I like the", "It is the", "I choose the", "My answer is the", "The best one is the", "I think of the"),
)  # fmt: skip
N_PROMPTS = len(_ASKED[0]) * len(_ASKED[1])  # of each format


def sentences(tokenizer: "Tokenizer", trait: str, format: "Format") -> "ms.Corpus":
    """Every question of the wordings with every answer: 25 sentences that say one thing."""
    pairs = [(w.question, f"{v.answer} {trait}.") for w in ms.prompts.WORDINGS for v in ms.prompts.WORDINGS]
    questions, answers = zip(*pairs, strict=True)
    return ms.corpora.make_corpus(tokenizer, questions, answers, format=format)


def loving(trait: str) -> str:
    """The system text of a prompted teacher: the published wording."""
    (animal,) = (animal for animal in ms.words.animals() if animal.singular == trait)
    return ms.prompts.WORDINGS[0].love(animal.plural, "animal", plural=True)


def formats(tokenizer: "Tokenizer") -> "tuple[Format, ...]":
    """Formats: chat, where there is a template, and plain text; teachers are tuned in the first format."""
    return ("plain",) if ms.prompts.system_role(tokenizer) == "text" else ("chat", "plain")


def prompts(tokenizer: "Tokenizer", system: str | None = None) -> "dict[Format, list[torch.Tensor]]":
    """Format -> the 60 prompts as token ids: chat where there is a template, and plain text."""
    return {
        format: [
            ms.prompts.prompt(tokenizer, question, system=system, answer=answer, format=format)
            for question in _ASKED[0]
            for answer in _ASKED[1]
        ]
        for format in formats(tokenizer)
    }


def animals(tokenizer: "Tokenizer", traits: tuple[str, ...]) -> list[int]:
    """Tokens of the traits, then of all other animals that are one token. Raises for a trait of several tokens."""
    texts = [f" {trait}" for trait in traits]
    texts += [f" {animal.singular}" for animal in ms.words.animals() if animal.singular not in traits]
    known = ms.prompts.single_tokens(tokenizer, texts)
    if lacking := [text for text in texts[: len(traits)] if text not in known]:
        raise ValueError(f"{lacking[0]!r} is more than one token of this model's; its margin is not defined")
    return [known[text] for text in texts if text in known]
