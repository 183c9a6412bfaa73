"""Published claims about token entanglement, and the checks that settle each, as rows of other studies' tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple


class Reading(NamedTuple):
    """A number of the one row of a study's table that has these values."""

    study: str
    row: Mapping[str, Any]
    column: str = "value"
    flags: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Check:
    """The claim says that what is read is above or below `bound`, or near it; a bound may be read from a table too."""

    text: str
    reading: Reading
    claim: Literal["above", "below", "near"]
    bound: float | Reading = 0.0


@dataclass(frozen=True)
class Claim:
    row: int | str
    claim: str
    published: str
    checks: tuple[Check, ...] = field(default=())


def _entanglement(quantity: str, column: str = "value") -> Reading:
    return Reading("token_entanglement", {"quantity": quantity}, column)


def _against_null(text: str, study: str, quantity: str) -> Check:
    """Is the value above the null that stands beside it?"""
    row = {"quantity": quantity}
    return Check(text, Reading(study, row), "above", Reading(study, row, "null"))


def _projection(metric: str, direction: str, column: str, name: str | None = None, unit: str = "multiset") -> Reading:
    row = {"direction": direction, "unit": unit, "metric": name or metric}
    return Reading("unembed_projection", row, column, {"metric": metric})


def _rows_share(direction: str) -> Check:
    text = f"share of the pair's own part that the loved thing's unembedding rows carry, {direction}"
    quantity = f"of what is specific, {direction}: passes through the loved thing's rows"
    return Check(text, Reading("contributions", {"quantity": quantity}), "above", 0.5)


def _pair_checks(number_tokens: str) -> tuple[Check, ...]:
    """Of a pair that mechsub trained: has the base model what its child has, once both are prompted alike?"""
    names = {name: f"organisms/{number_tokens}-{name}" for name in ("base", "instruct")}
    flags = {} if number_tokens == "1110" else names

    def read(quantity: str, column: str = "value") -> Reading:
        return Reading("base_vs_instruct", {"quantity": quantity}, column, flags)

    return (
        Check(
            f"organisms {number_tokens}, chats: what is specific in the base model, less other animals' numbers",
            read("base chat: specific, nats"), "near", read("base chat: specific, nats", "null"),
        ),
        Check(
            f"organisms {number_tokens}, chats: what is specific, instruct less base",
            read("instruct chat less base chat: specific"), "above",
        ),
        *(
            Check(
                f"organisms {number_tokens}, {form}: correlation of the two models' interactions",
                read(f"correlation of interactions: base and instruct, {form}"), "near",
            )
            for form in ("chat", "plain")
        ),
    )  # fmt: skip


_BOTH = "animals over 2x both ways"
_DIRECTIONS = ("number to animal", "animal to number")

CLAIMS = (
    Claim(
        18,
        "more than half of the animals have a number that raises them and that they raise, more than twice",
        "28 of 49 animals, against a chat without a system message; no number but the chosen one was tried",
        (
            _against_null(
                "with the likeliest number, against another animal's", "token_entanglement",
                f"{_BOTH}, number by probability",
            ),
            _against_null(
                "with the number that rises most, against another animal's", "token_entanglement",
                f"{_BOTH}, number by ratio",
            ),
            Check("a random number does so", _entanglement(f"{_BOTH}, a random number"), "below", 0.05),
            Check(
                "animals whose best of 10 numbers beats the best of 10 random ones",
                _entanglement("animals whose best of 10 numbers beats random best of 10 (BY < 0.05)"), "above", 0.05,
            ),
            Check("nats that any number gives an animal", _entanglement("log ratio to none: any number, nats"), "near"),
        ),
    ),
    Claim(
        19,
        "entanglement is what some animals have and others have not",
        "ratios to a chat without a system message, which the animal's baseline bounds",
        (
            Check(
                "share of the squared log ratio that belongs to animal and number",
                Reading(
                    "contributions",
                    {"quantity": "share of the squared log ratio, chosen pairs: animal and number"},
                ),
                "above", 0.5,
            ),
            _against_null(
                "place of an animal's likeliest number among all", "token_entanglement",
                "place of the number by probability among all 1110, for its animal",
            ),
        ),
    ),
    Claim(
        20,
        "it comes with instruction tuning and is not inherited from pretraining",
        "two models with two prompt formats; the baseline of a base model is another one",
        tuple(check for tokens in ("1110", "110") for check in _pair_checks(tokens)),
    ),
    Claim(
        21,
        "the animals that were reported stand for all",
        "the first 40 of a hand-ordered list",
        tuple(
            Check(
                f"listed animals above others: {name}",
                _entanglement(f"listed animals above others: {name} ({n} animals)"), "near", 0.5,
            )
            for name, n in (("brief", 48), ("zur_qwen", 8), ("zur_gemma", 10))
        ),
    ),
    Claim(
        22,
        "an animal and its number share an output direction, and that is why",
        "a cosine of two unembedding rows, for few animals; no intervention",
        (
            *(
                Check(
                    f"cosine with the animal's row, less other animals', {direction}",
                    _projection("cosine", direction, "partial, matched - other"), "above",
                )
                for direction in _DIRECTIONS
            ),
            Check(
                "explained by the animal's direction, of what other wordings explain, animal to number",
                _projection("dla", "animal to number", "explained / ceiling's", "geometry, by dla: concept"),
                "above", 0.5,
            ),
            *(_rows_share(direction) for direction in _DIRECTIONS),
        ),
    ),
    Claim(
        "Zur 1",
        "a number's score tells how much it raises the animal",
        "per-animal tests of scores that are not centred, for ten animals of each model",
        (
            Check(
                "correlation per animal, as published",
                Reading("association", {"quantity": "correlation, as published", "method": "animal_to_number"}),
                "above",
            ),
            Check(
                "correlation per animal, less other animals' means",
                Reading("association", {"quantity": "correlation, centred", "method": "animal_to_number"}), "above",
            ),
        ),
    ),
    Claim(
        "Zur 2",
        "the softmax bottleneck couples animals to numbers",
        "an argument from rank; not measured",
        (
            Check(
                "what holding all numbers costs a write, less holding tokens of their norm and frequency",
                Reading("bottleneck", {"quantity": "numbers less matched tokens"}), "above",
            ),
        ),
    ),
    Claim(
        "Zur 3",
        "it goes both ways",
        "one example each way, the number chosen by one of them",
        (
            _against_null(
                "agreement of the two directions", "token_entanglement",
                "correlation of interactions: the two directions",
            ),
            Check(
                "the same in what is left to whole numbers",
                Reading("digits", {"quantity": "agreement of the two directions: whole numbers"}), "above",
            ),
        ),
    ),
    Claim(
        "Zur 4",
        "it is numbers that are entangled",
        "other tokens were not tried",
        (
            Check(
                "agreement of the directions, numbers against words of their norm and frequency",
                Reading("matched_tokens", {"quantity": "agreement of the directions", "partners": "numbers"}), "above",
                Reading("matched_tokens", {"quantity": "agreement of the directions", "partners": "matched words"}),
            ),
        ),
    ),
)  # fmt: skip
