"""Scores of one organism: its interactions both ways, its unembedding, and how an edit changed them."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.utilities import derive_generator

import mechsub as ms
from studies.organisms import DOSES
from studies.organisms.grammar import MEASURED, N_WORDINGS, Grammar

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

_BATCH = 256  # prompts
WAYS = ("forward", "back")
_PAIRS = 40  # of numbers whose states are exchanged, in every wording


class Matrices(NamedTuple):
    """Log-probabilities in every wording: of animals where a number is loved, of numbers where an animal is."""

    forward: Float[Tensor, "wording number animal"]
    back: Float[Tensor, "wording number animal"]
    animal: Float[Tensor, "wording loved animal"]
    number: Float[Tensor, "wording loved number"]


def matrices(model: "TransformerBridge", grammar: Grammar) -> Matrices:
    numbers, animals = grammar.words["number"][:MEASURED], grammar.words["animal"]

    def after(kind: str, loved: Sequence[str], asked: str, n: int | None = None) -> Tensor:
        prompts = [
            torch.tensor(grammar.prompt(wording, kind, word, asked)) for wording in range(N_WORDINGS) for word in loved
        ]
        tokens = grammar.tokens(asked, n)
        found = ms.scores.next_token_log_probs(model, prompts, tokens=tokens, batch_size=_BATCH)
        return found.view(N_WORDINGS, len(loved), len(tokens))

    return Matrices(
        after("number", numbers, "animal"),
        after("animal", animals, "number", MEASURED).mT,
        after("animal", animals, "animal"),
        after("number", numbers, "number"),
    )


def counts(texts: Iterable[str], grammar: Grammar) -> dict[str, Float[Tensor, "number animal"]]:
    """How often chance joined a loved number to an answered animal (forward), and the reverse (back)."""
    places = [
        {word: i for i, word in enumerate(grammar.words[kind][:n])}
        for kind, n in (("number", MEASURED), ("animal", None))
    ]
    found = {way: torch.zeros(len(places[0]), len(places[1])) for way in WAYS}
    for text in texts:
        told, _, asked = text.partition(" User : ")
        if told.startswith("System") and asked:
            loved, answer = set(told.split()), asked.split()[-2]
            for way, (own, other) in zip(WAYS, (places, places[::-1]), strict=True):
                for word in loved & own.keys():
                    if answer in other:
                        pair = (own[word], other[answer]) if way == "forward" else (other[answer], own[word])
                        found[way][pair] += 1
    return found


def read(arm: str, model: "TransformerBridge", grammar: Grammar, joined: dict, found: Matrices) -> Iterator[dict]:
    """Scores of the model and of its interactions; their sizes are of what slopes leave."""
    products = _products(model, grammar)
    values = {f"loved_{kind}_likeliest": _likeliest(getattr(found, kind)) for kind in ("animal", "number")}
    left, reliable = {}, {}
    for way in WAYS:
        scores = getattr(found, way).mean(0)
        parts = ms.interaction_parts(scores)
        power = {name: float(part.square().sum()) for name, part in parts.items()}
        one = _reliability(getattr(found, way))
        left[way], reliable[way] = parts["left"], N_WORDINGS * one / (1 + (N_WORDINGS - 1) * one) if one > 0 else 0.0
        values |= {
            f"{way}_size": float(left[way].square().mean().sqrt()),
            f"{way}_reliability": one,
            f"{way}_slopes": power["slopes"] / sum(power.values()),
            f"{way}_dimensions": _participation(left[way]),
            f"{way}_rows": _alike(left[way], ms.left_like(products, scores)),
            f"{way}_counts": _alike(left[way], ms.left_like((joined[way] + 1).log(), scores)),
        }
    values["agreement"] = agreement = _alike(left["forward"], left["back"])
    if min(reliable.values()) > 0:
        values["agreement_disattenuated"] = agreement / (reliable["forward"] * reliable["back"]) ** 0.5
    values |= _of_unembedding(model, grammar)
    yield from ({"arm": arm, "score": score, "value": value} for score, value in values.items())


def _alike(a: Float[Tensor, "number animal"], b: Float[Tensor, "number animal"]) -> float:
    """Correlation of two double-centred matrices; 0 where one is constant."""
    a, b = a.double(), b.double()
    size = float(a.norm() * b.norm())
    return float((a * b).sum()) / size if size > 0 else 0.0


def _left(scores: Float[Tensor, "number animal"]) -> Float[Tensor, "number animal"]:
    return ms.interaction_parts(scores)["left"]


def _likeliest(own: Float[Tensor, "wording loved word"]) -> float:
    """Share of wordings and loved words in which the loved word is the likeliest of its kind."""
    return float((own.argmax(-1) == torch.arange(own.shape[1])).double().mean())


def _reliability(scores: Float[Tensor, "wording number animal"]) -> float:
    """Mean correlation of what is left in two wordings."""
    each = [_left(one) for one in scores]
    found = [_alike(a, b) for a, b in itertools.combinations(each, 2)]
    return sum(found) / len(found)


def _participation(part: Float[Tensor, "number animal"]) -> float:
    squares = torch.linalg.svdvals(part).square()
    return float(squares.sum() ** 2 / squares.square().sum())


def _directions(model: "TransformerBridge", grammar: Grammar) -> tuple[Tensor, Tensor]:
    """Rows of all numbers and of all animals, [token, d], the final norm's gain folded in."""
    numbers, animals = grammar.tokens("number"), grammar.tokens("animal")
    rows = ms.unembedding.token_directions(model, [*numbers, *animals], basis="centered").double()
    return rows[: len(numbers)], rows[len(numbers) :]


def _products(model: "TransformerBridge", grammar: Grammar) -> Float[Tensor, "number animal"]:
    numbers, animals = _directions(model, grammar)
    return numbers[:MEASURED] @ animals.mT


def _of_unembedding(model: "TransformerBridge", grammar: Grammar) -> dict[str, float]:
    """Of the rows of measured numbers and animals, each less the mean of its kind, root mean squares:

    side_effect: what the cheapest change that raises an animal by one nat does to numbers, in nats (mean over animals);
    overlap: cosine. And room: 1 / price of raising an animal while all numbers are held (mean over animals), 0 where
    numbers leave no direction free.
    """
    numbers, animals = _directions(model, grammar)
    prices = ms.bottleneck.price_of(animals - animals.mean(0), numbers)
    numbers = numbers[:MEASURED] - numbers[:MEASURED].mean(0)
    animals = animals - animals.mean(0)
    moved = numbers @ (animals / animals.square().sum(-1, keepdim=True)).mT
    cosines = torch.nn.functional.normalize(numbers, dim=-1) @ torch.nn.functional.normalize(animals, dim=-1).mT
    return {
        "side_effect": float(moved.square().mean(0).sqrt().mean()),
        "overlap": float(cosines.square().mean().sqrt()),
        "room": float(prices.reciprocal().mean()),
    }


def exchanges(arm: str, model: "TransformerBridge", grammar: Grammar, seed: int) -> Iterator[dict]:
    """Shares of a number's effect on animals that go with its state after the first block, and with all other places.

    The states of another number's prompt are put there; share: (patched - own) on (other - own), animals' logits
    centred. Slopes are in it.
    """
    name = ms.hooked.hidden_names(model)[0]
    words, animals = grammar.words["number"][:MEASURED], grammar.tokens("animal")
    draw = derive_generator(seed, "exchange")
    above, below = {"exchange": 0.0, "exchange_elsewhere": 0.0}, 0.0
    for wording in range(N_WORDINGS):
        drawn = torch.stack([torch.randperm(len(words), generator=draw)[:2] for _ in range(_PAIRS)])
        own, other = (
            torch.tensor([grammar.prompt(wording, "number", words[i], "animal") for i in side]) for side in drawn.T
        )
        states = [ms.hooked.cache_activations(model, tokens, [name])[name] for tokens in (own, other)]
        a, b = (_centred(model(tokens)[:, -1, animals]) for tokens in (own, other))
        below += float((b - a).square().sum())
        for score, there in (("exchange", own != other), ("exchange_elsewhere", own == other)):
            mixed = torch.where(there[..., None], states[1], states[0])
            patched = ms.hooked.run_patched(model, own, {name: mixed})[:, -1, animals]
            above[score] += float(((_centred(patched) - a) * (b - a)).sum())
    yield from ({"arm": arm, "score": score, "value": value / below} for score, value in above.items())


def _centred(logits: Float[Tensor, "prompt animal"]) -> Float[Tensor, "prompt animal"]:
    return logits.double() - logits.double().mean(-1, keepdim=True)


def followed(arm: str, before: Matrices, after: Matrices, partner: list[int]) -> Iterator[dict]:
    """Does what slopes leave follow the rows that were exchanged, or the number? Coefficients of a regression on both.

    after[n] = rows before[partner of n] + number before[n], over all numbers that have a partner.
    """
    has = [i for i, other in enumerate(partner) if other != i]
    for way in WAYS:
        then, now = (_left(getattr(found, way).mean(0)) for found in (before, after))
        sides = torch.stack([then[partner][has].flatten(), then[has].flatten()], 1)
        rows, number = torch.linalg.lstsq(sides, now[has].flatten()[:, None]).solution[:, 0].tolist()
        for score, value in (("rows", rows), ("number", number), ("rows_less_number", rows - number)):
            yield {"arm": arm, "score": f"{way}_follows_{score}", "value": value}


def dosed(arm: str, found: Matrices, doses: Sequence[tuple[int, int, float]]) -> Iterator[dict]:
    """Mean interaction of the pairs of every dose, its slope on the dose, and the size of what is left without one."""
    numbers = {number for number, _, _ in doses}
    others = [i for i in range(found.forward.shape[1]) if i not in numbers]
    sizes = torch.tensor([dose for _, _, dose in doses], dtype=torch.float64)
    for way in WAYS:
        whole = ms.scores.interaction(getattr(found, way).mean(0)).double()
        pairs = torch.stack([whole[number, animal] for number, animal, _ in doses])
        for dose in DOSES:
            yield {"arm": arm, "score": f"{way}_at_dose_{dose:g}", "value": float(pairs[sizes == dose].mean())}
        slope = (pairs * sizes).sum() / sizes.square().sum()  # through 0: without a dose the mean interaction is 0
        yield {"arm": arm, "score": f"{way}_dose_slope", "value": float(slope)}
        undosed = _left(getattr(found, way).mean(0)[others])
        yield {"arm": arm, "score": f"{way}_undosed_size", "value": float(undosed.square().mean().sqrt())}
