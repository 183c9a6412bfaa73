"""Does a vector of the residual stream carry what a loved number does to animals, and do prompts diverge at it?

Steering, a rival of the account by the geometry of W_U: v_n is the residual after a block under "You love 087" less its
mean over numbers (mean over two wordings), at the prompt's end or where the prompt tells the number.

* added: v_n is added, once its norm and four times, to a neutral prompt: without a system message, or, at the number's
  place, the prompt of one number, the same for all numbers of its length;
* removed: v_n is projected out of the number's own prompt, of what lies beyond the mean over numbers and positions. At
  the number it is one vector, the mean over all positions that tell the number.

Share reproduced: sum(added e) / sum(whole e); share removed: sum((whole - left) e) / sum(whole e). All are interactions
of logits, double-centred among numbers of equal length (decided after a first run), so that neither the length nor the
neutral prompt counts; e is the interaction of two further wordings. Slopes and digits are in these shares, and their
denominator is not that of `studies.contributions`, which keeps the length. Both have shares of what is specific to
pairs (left after slopes, length and digits). Nulls: the vector of another number, and a random direction, of the same
norm (removed: the random direction takes as much).

Divergence, where numbers are loved: lists of numbers are sampled without a system message. At which positions does "You
love owls" make another token the likeliest (null: love of a color or city), one that most other animals' prompts do not
say (specific)? Are the numbers that the animal's prompt would say entangled with the animal, more than those that the
neutral prompt says, in mean interaction, animal to number? Null: all other animals. Units: numbers and animals,
crossed; of divergence animals.

    python -m studies.steering --model organisms/1110-instruct --n-lists 1
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import mechsub as ms
from mechsub import lab
from mechsub.designs import love, word_parts
from mechsub.lazy import late, np, torch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

    from mechsub.designs import contribution_parts as cp
    from mechsub.designs.love import LovePrompts, Prompted
    from mechsub.inputs import continuations
else:
    continuations, cp = late("mechsub.inputs.continuations"), late("mechsub.designs.contribution_parts")

SOURCES, JUDGES = (1, 2), (3, 4)  # wordings that vectors are from, and those whose interaction they are judged by
FRACTIONS = (0.25, 0.5, 0.75)  # of the blocks, after which vectors act where the number stands
VECTORS = ("own", "own, four times", "another number's", "random")
ROUNDING = 1e-5  # of the logits' norm: what passes of fp32 differ by is a tenth of it
FEWEST = 16  # words that are resampled
N_LOVED = 6  # colors, and cities, of the null of divergence
CONTINUE = "Continue this list with more numbers, separated by commas: {}. Answer with the numbers only."


@dataclass(frozen=True)
class Config(love.OfMatrices, love.OfFamily):
    n_numbers: lab.Count = lab.option(100, "numbers, drawn from those with other wordings in token_entanglement")
    n_layers: lab.Count = lab.option(10, "evenly spaced blocks after which vectors act at the prompt's end")
    n_lists: lab.Count = lab.option(3, "lists of numbers that are sampled, to see where prompts diverge")
    n_tokens: lab.Count = lab.option(40, "tokens of a list")
    n_resamples: lab.Resamples = lab.option(300, "resamples of every interval")
    seed: lab.Index = lab.option(0, "seed of numbers, lists, random directions and resamples")


def check(cfg: Config) -> None:
    if cfg.n_numbers < FEWEST:
        raise ValueError(f"--n-numbers must be at least {FEWEST}, to be resampled")
    if cfg.family != "numbers" and (n := len(ms.words.family(cfg.family))) < FEWEST:
        raise ValueError(f"--family {cfg.family} has {n} words, and {FEWEST} are needed, to be resampled")
    love.check_model(cfg)


def upstream(cfg: Config) -> dict:
    return {"matrices": lab.upstream("token_entanglement", **love.shared(cfg))}


def run(cfg: Config, matrices: lab.Stored) -> Iterator[dict]:
    found = love.prompted(cfg, matrices.tensors(), lab.show_progress)
    if len(found.tensors["number_to_animal_wordings"]) <= max(JUDGES):
        raise ValueError(
            f"the stored matrices have fewer than {max(JUDGES) + 1} wordings; run token_entanglement again"
        )
    lab.show_progress(0.1, "vectors")
    yield from steering_records(found, cfg)
    if cfg.family == "numbers":
        lab.show_progress(0.7, "where prompts diverge")
        yield from divergence_records(found, cfg)
    yield {
        "provenance": {
            **love.provenance(found),
            "basis": "residual stream, raw; logits of the animals",
            "words": f"at most {cfg.n_numbers} {cfg.family} of token_entanglement's subset, drawn with the seed",
            "null": f"the vector of another of the {cfg.family}, a random direction"
            + "; love of colors and cities; other animals" * (cfg.family == "numbers"),
            "unit": f"animals and {cfg.family} (crossed)" + "; animals" * (cfg.family == "numbers"),
        }
    }


# Steering.


def steering_records(found: "Prompted", cfg: Config) -> Iterator[dict]:
    """A row for every place, block, vector, and thing done with it."""
    from studies.steering import states as ss

    q, subset = found.asked, found.tensors["subset_partner"].tolist()
    numbers = ss.choose(q, subset, cfg.n_numbers, cfg.seed)
    rows = [subset.index(i) for i in numbers.places]
    other = found.tensors["number_to_animal_wordings"][list(JUDGES)][:, rows].double().mean(0)
    words = [q.partners[i].text for i in numbers.places]
    lengths = torch.tensor([len(word) for word in words])
    layers = _layers(q.model.cfg.n_layers, cfg)
    final = ss.vectors(q, numbers, SOURCES, layers).final
    lab.show_progress(0.2, "at the prompt's end")
    whole, done = ss.at_the_end(q, numbers, final, layers, cfg.seed)
    agreement = ms.scores.matrix_correlation(within_length(whole, lengths), within_length(other, lengths))
    yield {"kind": "whole", "agreement": agreement, "numbers": len(rows), "animals": len(q.animals)}
    judged = Judged(whole.double(), other, lengths, word_parts.specific(other, words))
    yield from _effect_rows(done, judged, layers, "the prompt's end", cfg)
    lab.show_progress(0.4, "where the number stands")
    inner = sorted({max(0, round(fraction * q.model.cfg.n_layers) - 1) for fraction in FRACTIONS})
    number = ss.vectors(q, numbers, SOURCES, inner).number
    done = ss.at_the_number(q, numbers, number, inner, cfg.seed)
    yield from _effect_rows(done, judged, inner, "the number", cfg)
    size = torch.stack([final.norm(dim=-1).mean(-1), ss.states(q, numbers, 0, layers).final.norm(dim=-1).mean(-1)])
    for layer, (own, state) in zip(layers, size.T.tolist(), strict=True):
        yield {"kind": "norm", "layer": layer, "vector": own, "state": state}


def _layers(n: int, cfg: Config) -> list[int]:
    return sorted({round(x) for x in np.linspace(0, n - 1, min(n, cfg.n_layers))})


class Judged(NamedTuple):
    """Logits under the numbers' own prompts, and the scores of other wordings, [number, animal] in fp64."""

    whole: "torch.Tensor"
    other: "torch.Tensor"
    lengths: "torch.Tensor"
    keep: "Callable[[torch.Tensor], torch.Tensor] | None"  # what is specific to pairs; None where nothing is left


def _effect_rows(done: dict, judged: Judged, layers: list[int], place: str, cfg: Config) -> Iterator[dict]:
    for (what, vector), values in done.items():
        for layer, value in zip(layers, values, strict=True):
            part = judged.whole - value.double() if what == "removed" else value.double()
            row = {"kind": "steered", "place": place, "what": what, "vector": vector, "layer": layer}
            seen = _statistics(part, judged)
            for name, statistic in seen.items():
                low, high = ms.scores.crossed_bootstrap(statistic, *part.shape, n=cfg.n_resamples, seed=cfg.seed)
                own = statistic(*(torch.arange(n) for n in part.shape))
                row |= {name: own, f"{name}_low": low, f"{name}_high": high}
            yield row


def _statistics(part: "torch.Tensor", judged: Judged) -> "dict[str, Callable[[torch.Tensor, torch.Tensor], float]]":
    """Share and correlation, and the share of what is specific to pairs, as functions of rows and columns."""

    def both(rows, columns) -> tuple[float, float]:
        own, whole, other = (table[rows][:, columns] for table in (part, judged.whole, judged.other))
        return effect(own, whole, other, judged.lengths[rows])

    found = {"share": lambda rows, columns: both(rows, columns)[0], "correlation": lambda r, c: both(r, c)[1]}
    if judged.keep is None:
        return found
    small = float(part.norm()) <= ROUNDING * float(judged.whole.norm())  # rounding alone
    own, whole = cp.products((part * (not small))[None], judged.whole, judged.other, judged.keep)
    return found | {"specific": lambda r, c: float(own[r][:, c].sum() / whole[r][:, c].sum())}


def within_length(table: "torch.Tensor", lengths: "torch.Tensor"):
    """The interaction of [number, animal] among numbers of equal length: what the length alone does is taken out."""
    out = table.clone()
    for length in lengths.unique():
        out[lengths == length] -= table[lengths == length].mean(0)
    return ms.scores.interaction(out)


def effect(
    part: "torch.Tensor", whole: "torch.Tensor", other: "torch.Tensor", lengths: "torch.Tensor"
) -> tuple[float, float]:
    """Share of what other wordings bring back, and correlation with the whole, of the interaction `within_length`.

    A part that is no more than the logits' rounding is none: both are 0, as for one that is 0.
    """
    least = ROUNDING * float(whole.norm())  # of all of the logits: they are what is rounded
    part, whole, other = (within_length(x, lengths) for x in (part, whole, other))
    if min(float(part.norm()), float(whole.norm())) <= least:
        part = part * 0
    scale = float(part.norm() * whole.norm())
    return float((part * other).sum() / (whole * other).sum()), float((part * whole).sum()) / scale if scale else 0.0


# Where prompts diverge.


def divergence_records(found: "Prompted", cfg: Config) -> Iterator[dict]:
    """A row for every animal, and one for every color and city."""
    q, draw = found.asked, torch.Generator().manual_seed(cfg.seed)
    alphabet = number_alphabet(q)
    loved = [ms.prompts.WORDINGS[0].love(animal.loved, "animal", plural=True) for animal in q.animals]
    things = [
        (family, ms.prompts.WORDINGS[0].love(word, kind))
        for family, kind in (("colors", "color"), ("cities", "city"))
        for word in ms.words.family(family)[:N_LOVED]
    ]
    systems = [*loved, *(text for _, text in things)]
    answers, seen = [], []
    for k in range(cfg.n_lists):
        begun = ", ".join(str(int(x)) for x in torch.randint(100, 1000, (5,), generator=draw))
        asked = [
            ms.prompts.prompt(q.model.tokenizer, CONTINUE.format(begun), system=system, format=q.cfg.format)
            for system in (None, *systems)
        ]
        answers.append(ms.divergence.sampled(q.model, asked[0], cfg.n_tokens, alphabet, draw))
        seen.append(ms.divergence.prompt_divergence(q.model, asked[1:], asked[0], answers[-1]))
        lab.show_progress(0.7 + 0.3 * (k + 1) / cfg.n_lists, "where prompts diverge")
    differs = torch.cat([found.differs for found in seen], dim=1)
    chosen = torch.cat([found.chosen for found in seen], dim=1)
    usual = chosen[: len(loved)].mode(dim=0).values
    specific = ms.scores.interaction(found.tensors["animal_to_number"]).T  # [number, animal]
    texts = [partner.text for partner in q.partners]
    said = [beginnings(q.model.tokenizer, answer) for answer in answers]
    starts = [start for starts in said for start in starts]
    neutral = torch.cat([found.neutral for found in seen])
    for i, animal in enumerate(q.animals):
        gains = [
            gain
            for at in differs[i].nonzero()[:, 0].tolist()
            if (gain := preferred(q.model.tokenizer, starts[at], int(chosen[i, at]), int(neutral[at]), texts, specific))
            is not None
        ]
        row = {
            "kind": "divergence",
            "loved": animal.text,
            "of": "animals",
            "rate": float(differs[i].float().mean()),
        }
        row["specific"] = float((differs[i] & (chosen[i] != usual)).float().mean())
        row["judged"] = len(gains)
        if gains:
            mean = torch.stack(gains).mean(0)
            row["own"], row["others"] = float(mean[i]), float((mean.sum() - mean[i]) / (len(mean) - 1))
        yield row
    for (family, text), row in zip(things, differs[len(loved) :], strict=True):
        yield {"kind": "divergence", "loved": text, "of": family, "rate": float(row.float().mean())}
    yield {
        "kind": "lists",
        "texts": [q.model.tokenizer.decode(answer.tolist()) for answer in answers],
        "n_positions": differs.shape[1],
    }


def number_alphabet(q: "LovePrompts") -> list[int]:
    """Tokens that lists of numbers are written with, as an answer."""
    asked = ms.prompts.prompt(q.model.tokenizer, CONTINUE.format("1, 2, 3"), format=q.cfg.format)
    (ids,) = ms.prompts.encode(q.model.tokenizer, [", ".join(ms.words.numbers())], behind=[asked])
    return sorted(set(ids))


def beginnings(tokenizer: "Tokenizer", answer: "torch.Tensor") -> list[str]:
    """At every position of an answer: the digits that stand right before it."""
    pieces, out = continuations.pieces(tokenizer, answer.tolist()), []
    for i in range(len(answer)):
        text = "".join(pieces[:i])
        out.append(text[len(text.rstrip("0123456789")) :])
    return out


def preferred(tokenizer: "Tokenizer", begun: str, said: int, neutral: int, texts: list[str], specific: "torch.Tensor"):
    """Mean interaction, with every animal, of the numbers that go on with one token, less that of those with another.

    None where a token is not digits, or where no number goes on so.
    """
    means = []
    for word in continuations.pieces(tokenizer, [said, neutral]):
        start = word.strip() if word[:1].isspace() else begun + word
        rows = [i for i, text in enumerate(texts) if start.isdecimal() and text.startswith(start)]
        if not rows:
            return None
        means.append(specific[torch.tensor(rows)].mean(0))
    return means[0] - means[1]


_TINY: dict = {"n_numbers": 16, "n_layers": 2, "n_lists": 2, "n_tokens": 16, "n_resamples": 100}
study = lab.Study(
    version=2,  # what is specific to pairs, as in studies.contributions; other families than numbers
    probes=(
        Config(**_TINY, model="tests/probes/models/tiny", spaced=False),
        Config(**_TINY, model="tests/probes/models/tiny", family="colors"),
        Config(**_TINY, model="tests/probes/models/pair/instruct", seed=1),
        Config(
            **_TINY | {"n_layers": 1, "n_lists": 1, "n_tokens": 8}, model="tests/probes/models/window", spaced=False
        ),
    ),
)
