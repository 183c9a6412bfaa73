"""Published claims about token entanglement, and the checks that settle each, by keys of other studies' findings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple


class Reading(NamedTuple):
    """What a study says under a key, of the cell that these flags make."""

    study: str
    key: str
    flags: Mapping[str, object] = {}
    part: Literal["value", "null"] = "value"


@dataclass(frozen=True)
class Check:
    """The claim says that what is read is above or below `bound`, or near it; a bound may be a reading too."""

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


def _entanglement(key: str) -> Reading:
    return Reading("token_entanglement", key)


def _against_null(text: str, key: str) -> Check:
    """Is the value above the null that stands beside it?"""
    reading = _entanglement(key)
    return Check(text, reading, "above", reading._replace(part="null"))


def _rows_share(direction: str) -> Check:
    text = f"share of the interaction that the loved thing's unembedding rows carry, {direction}"
    return Check(text, Reading("contributions", f"{direction.replace(' ', '_')}/rows"), "above", 0.5)


def _pair_checks(number_tokens: str) -> tuple[Check, ...]:
    """Of a pair that mechsub trained: has the base model what its child has, once both are prompted alike?"""
    flags = {} if number_tokens == "1110" else {"base": f"organisms/{number_tokens}-base"}

    def read(key: str) -> Reading:
        return Reading("base_vs_instruct", key, flags)

    own = read("base_chat/specific")
    return (
        Check(
            f"organisms {number_tokens}, chats: what is specific in the base model, less other animals' numbers",
            own, "near", own._replace(part="null"),
        ),
        Check(
            f"organisms {number_tokens}, chats: what is specific, instruct less base",
            read("instruct_chat-base_chat/specific"), "above",
        ),
        *(
            Check(
                f"organisms {number_tokens}, {form}: correlation of the two models' interactions",
                read(f"base_and_instruct_{form}/correlation"), "near",
            )
            for form in ("chat", "plain")
        ),
    )  # fmt: skip


def _moved(organism: str) -> Reading:
    """Numbers' log-odds among themselves, s.d. in nats, where an animal is raised by one nat and nothing is held."""
    return Reading("bottleneck", "numbers/moved_among", {"model": f"organisms/{organism}"})


_DIRECTIONS = ("number to animal", "animal to number")

CLAIMS = (
    Claim(
        18,
        "more than half of the animals have a number that raises them and that they raise, more than twice",
        "28 of 49 animals, against a chat without a system message; no number but the chosen one was tried",
        (
            _against_null("with the likeliest number, against another animal's", "by_probability/over_2x"),
            _against_null("with the number that rises most, against another animal's", "by_ratio/over_2x"),
            Check("a random number does so", _entanglement("random/over_2x"), "below", 0.05),
            Check(
                "chance that the best of 10 random numbers reaches that of an animal's own 10",
                _entanglement("best_of/chance"), "below", _entanglement("best_of/chance")._replace(part="null"),
            ),
            Check("nats that any number gives an animal", _entanglement("any_number/log_ratio"), "near"),
        ),
    ),
    Claim(
        19,
        "entanglement is what some animals have and others have not",
        "ratios to a chat without a system message, which the animal's baseline bounds",
        (
            Check(
                "share of the squared log ratio that belongs to animal and number",
                Reading("contributions", "chosen/share_animal_and_number"), "above", 0.5,
            ),
            _against_null("place of an animal's likeliest number among all", "by_probability/place"),
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
            Check(f"listed animals above others: {name}", _entanglement(f"{name}/listed"), "near", 0.5)
            for name in ("brief", "zur_qwen", "zur_gemma")
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
                    Reading(
                        "unembed_projection", f"{direction.replace(' ', '_')}_cosine/difference", {"metric": "cosine"}
                    ),
                    "above",
                )
                for direction in _DIRECTIONS
            ),
            Check(
                "explained by the animal's direction, of what other wordings explain, animal to number",
                Reading("unembed_projection", "geometry/explained", {"metric": "dla"}), "above", 0.5,
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
                Reading("association", "animal_to_number/published"), "above",
            ),
            Check(
                "correlation per animal, less other animals' means",
                Reading("association", "animal_to_number/centred"), "above",
            ),
        ),
    ),
    Claim(
        "Zur 2",
        "the softmax bottleneck couples animals to numbers",
        "an argument from rank; not measured. Not testable in SmolLM2, whose numbers are 11 tokens of 576 dimensions",
        tuple(
            Check(
                f"organisms, {kind}: how far numbers move where an animal is raised, 1,110 of them against 110",
                _moved(f"1110-{kind}"), "above", _moved(f"110-{kind}"),
            )
            for kind in ("base", "instruct")
        ),
    ),
    Claim(
        "Zur 3",
        "it goes both ways",
        "one example each way, the number chosen by one of them",
        (
            _against_null("agreement of the two directions", "the_two_directions/correlation"),
            Check(
                "the same in what is left to whole numbers", Reading("digits", "directions/whole_numbers"), "above",
            ),
        ),
    ),
    Claim(
        "Zur 4",
        "it is numbers that are entangled",
        "other tokens were not tried; here they are one token where numbers are up to three",
        (
            Check(
                "agreement of the directions, numbers against words of their norm and frequency (one token)",
                Reading("matched_tokens", "numbers/directions"), "above",
                Reading("matched_tokens", "matched_words/directions"),
            ),
            *(
                Check(
                    f"agreement of the directions, numbers against {family} (one token)",
                    _entanglement("the_two_directions/correlation"), "above",
                    Reading("token_entanglement", "the_two_directions/correlation", {"family": family}),
                )
                for family in ("names", "cities", "colors")
            ),
        ),
    ),
)  # fmt: skip
