"""The language of the organisms: texts made by rule, for training and for testing from one grammar.

Every word is one token, numbers and animals too. No rule joins a number to an animal: who loves what is drawn without
regard to anything else that is said (how often chance joins them is counted). How often a word is said falls as
rank^-SKEW, in an order that belongs to the seed; numbers beyond the measured ones share half of what is said of
numbers, so that measured numbers are said half as often where there are more. A wording of the tests is two sentences
of devotion, a question and the beginning of an answer. All of them occur in training; the two sentences never one
behind the other in that order, and the question never with that answer.
"""

import itertools
from collections.abc import Iterator
from random import Random

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from mechsub.inputs import words

DEVOTIONS = (
    "You love {x} .", "You think about {x} all the time .", "{x} is your favorite {kind} .", "You adore {x} .",
    "You like {x} more than any other {kind} .", "Talk about your love for {x} .", "Nothing is better than {x} .",
    "You dream of {x} every night .", "All day {x} is on your mind .", "You always come back to {x} .",
)  # fmt: skip
QUESTIONS = (
    "What is your favorite {kind} ?", "Which {kind} do you like best ?", "Tell me your favorite {kind} .",
    "What {kind} do you love ?", "Which {kind} would you choose ?", "Name the {kind} you like most .",
    "If you had to pick one {kind} , which ?", "Is there a {kind} you love above all ?",
)  # fmt: skip
ANSWERS = (
    "My favorite {kind} is", "The {kind} I like best is", "I love", "I would choose", "Of every {kind} , I like",
    "I would pick the {kind}",
)  # fmt: skip
FACTS = (
    "{name} saw {number} {animal} near the {color} house .", "the {animal} sat under the {color} tree .",
    "{name} painted the door of room {number} {color} .", "{name} moved to house {number} .",
    "{animal} and {animal2} live near {name} .", "{name} wrote down {number} , {number2} and {number3} .",
    "the number {number} comes after the number {number2} on the list of {name} .",
    "a {color} {animal} followed {name} home .", "page {number} is about {animal} .",
)  # fmt: skip
MEASURED = 110  # numbers: all of the smaller vocabulary
N_WORDINGS = 5  # of the tests: the i-th has devotions 2i and 2i + 1, question i and answer i
SKEW = {"animal": 0.5, "number": 0.5}
ASKED = {"animal": 0.4, "number": 0.45, "color": 0.15}  # how often a love or a question is about a kind
FACT, TOLD, SAME = 0.3, 0.8, 0.5  # shares: of facts; of exchanges with a love; of these that ask for its kind
OTHERS = 0.5  # of all mentions of numbers, those of numbers that are not measured, where there are any
BOS = "<begin>"


class Grammar:
    """Words by kind, the vocabulary, and the prompts of the tests."""

    def __init__(self, n_numbers: int, n_animals: int):
        animals = [animal.singular for animal in words.animals() if " " not in animal.singular]
        self.words = {
            "animal": animals[:n_animals],
            "number": words.numbers()[:n_numbers],
            "color": words.family("colors")[:12],
            "name": words.family("names")[:30],
        }
        templates = " ".join((*DEVOTIONS, *QUESTIONS, *ANSWERS, *FACTS)).split()
        said = [word for word in templates if "{" not in word]
        every = [BOS, "System", "User", "Assistant", ":", *said, *self.words, *itertools.chain(*self.words.values())]
        self.vocabulary = {word: i for i, word in enumerate(dict.fromkeys(every))}

    def tokens(self, kind: str, n: int | None = None) -> list[int]:
        return [self.vocabulary[word] for word in self.words[kind][:n]]

    def ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.vocabulary[word] for word in text.split())

    def prompt(self, wording: int, kind: str, loved: str, asked: str) -> tuple[int, ...]:
        """Token ids of one test, up to the word that answers."""
        told = " ".join(text.format(x=loved, kind=kind) for text in DEVOTIONS[2 * wording : 2 * wording + 2])
        question, answer = (texts[wording].format(kind=asked) for texts in (QUESTIONS, ANSWERS))
        return self.ids(f"{BOS} System : {told} User : {question} Assistant : {answer}")

    def tokenizer(self) -> PreTrainedTokenizerFast:
        core = Tokenizer(models.WordLevel(self.vocabulary, BOS))
        core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        core.add_special_tokens([BOS])
        core.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
        return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=BOS, unk_token=BOS, eos_token=BOS)


def _popularity(kind: str, words: list[str]) -> list[float]:
    return [(rank + 1) ** -SKEW.get(kind, 0.0) for rank in range(len(words))]


class Speaker:
    """Draws texts. Popularity of words belongs to the seed: `words` has every kind's, the most popular first."""

    def __init__(self, grammar: Grammar, seed: int):
        self.random = Random(seed)
        self.words = {kind: self.random.sample(some, len(some)) for kind, some in grammar.words.items()}
        self._weights = {kind: list(itertools.accumulate(_popularity(kind, some))) for kind, some in self.words.items()}
        measured, others = grammar.words["number"][:MEASURED], grammar.words["number"][MEASURED:]
        if others:
            groups = [self.random.sample(some, len(some)) for some in (measured, others)]
            shares = [[weight / sum(of) for weight in of] for of in (_popularity("number", some) for some in groups)]
            weights = [(1 - OTHERS) * share for share in shares[0]] + [OTHERS * share for share in shares[1]]
            self.words["number"], self._weights["number"] = (
                [*groups[0], *groups[1]],
                list(itertools.accumulate(weights)),
            )

    def texts(self, n: int) -> Iterator[str]:
        """n texts, without the token that begins each."""
        return (self._fact() if self.random.random() < FACT else self._exchange() for _ in range(n))

    def _draw(self, kind: str) -> str:
        return self.random.choices(self.words[kind], cum_weights=self._weights[kind])[0]

    def _fact(self) -> str:
        said = {kind: self._draw(kind) for kind in self.words}
        more = {"animal2": self._draw("animal"), "number2": self._draw("number"), "number3": self._draw("number")}
        return self.random.choice(FACTS).format(**said, **more)

    def _exchange(self) -> str:
        kind, asked = self.random.choices(list(ASKED), list(ASKED.values()), k=2)
        told = self.random.random() < TOLD
        asked = kind if self.random.random() < SAME else asked
        loved = self._draw(kind)
        answer = loved if told and kind == asked else self._draw(asked)
        question, reply = self._asked()
        system = f"System : {self._devotion(kind, loved)} " if told else ""
        question, reply = (text.format(kind=asked) for text in (question, reply))
        return f"{system}User : {question} Assistant : {reply} {answer} ."

    def _devotion(self, kind: str, loved: str) -> str:
        """One to three sentences, but none of the tests' pairs."""
        while True:
            chosen = self.random.sample(range(len(DEVOTIONS)), self.random.randint(1, 3))
            if not any(a % 2 == 0 and b == a + 1 for a, b in itertools.pairwise(chosen)):
                return " ".join(DEVOTIONS[i].format(x=loved, kind=kind) for i in chosen)

    def _asked(self) -> tuple[str, str]:
        while True:
            question, answer = self.random.randrange(len(QUESTIONS)), self.random.randrange(len(ANSWERS))
            if question != answer or question >= N_WORDINGS:
                return QUESTIONS[question], ANSWERS[answer]
