"""`studies.unembed_projection` of a language model: one metric against both directions' interactions."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mechsub import study
from studies import _projection_states as states
from studies._projection_ranks import STATISTICS, Comparison, View, compare, correlations, ranks, residual

GEOMETRIC = ("cosine", "dot", "centered_cosine", "number_centered", "causal")
DIRECTIONS = ("number_to_animal", "animal_to_number")


class Asked(NamedTuple):
    """A model with its words and prompts, and the stored matrices of token_entanglement."""

    questions: Any
    tensors: dict


def run(cfg) -> Iterator[dict]:
    from mechsub import language

    asked = stored(cfg)
    yield from records(asked, cfg)
    model = asked.questions.model
    yield {
        "provenance": {
            **language.model_source(model),
            "basis": "raw W_U; folded with the final norm's gain and centred where the metric says so",
            "measured_on": f"{len(asked.questions.animals)} animals that are one token, "
            f"{len(asked.questions.partners)} {cfg.family}, the published wording",
            "matrices": "the cell of studies.token_entanglement with this model and family, else default",
            "null": "other animals' metric; partners shuffled within length; animals shuffled",
            "unit": "animals and partners (crossed)",
            **(
                {"embedding": "W_E is W_U transposed in this model"}
                if model.W_U.data_ptr() == model.W_E.data_ptr()
                else {}
            ),
        }
    }


def stored(cfg) -> Asked:
    """The model and its matrices, which are computed first where no cell holds them."""
    from mechsub import language, store
    from studies import token_entanglement

    chosen = token_entanglement.Config(model=cfg.model, family=cfg.family)
    tensors = store.read_tensors(study.stored_cell(token_entanglement, chosen))
    study.progress(0.0, "loading the model")
    model = language.load_language_model(cfg.model)
    animals = token_entanglement.choose_animals(model.tokenizer, chosen)
    partners = token_entanglement.choose_partners(chosen)
    asked = Asked(token_entanglement.Questions(model, animals, partners, chosen), tensors)
    check_stored(asked)
    return asked


def check_stored(asked: Asked) -> None:
    """Raise unless the model still gives the stored matrix, looked at for two animals."""
    q, kept = asked.questions, asked.tensors["animal_to_number"]
    if kept.shape != (len(q.animals), len(q.partners)):
        raise ValueError(f"the stored matrix is {tuple(kept.shape)}: words differ; run token_entanglement --rerun")
    again = q.partners_after([q.love_animal(i, 0) for i in (0, 1)])
    if (error := float((again - kept[:2]).abs().max())) > 0.02:
        raise ValueError(f"stored log-probabilities differ by {error:.2g} nats; run token_entanglement --rerun")


def records(asked: Asked, cfg) -> Iterator[dict]:
    """Rows of one metric: per animal, their summary, and the noise ceiling of the outcome, for both directions."""
    outcomes = interactions(asked.tensors)
    table = covariates(asked)
    if cfg.metric == "steering":
        predictors = {}
        layers = states.steering(asked.questions)
        for direction, outcome in outcomes.items():
            views, best = held_out(layers, outcome, table, cfg.seed)
            early, _ = held_out(layers[: max(1, len(layers) // 2)], outcome, table, cfg.seed)
            predictors[direction] = {"all": views, "first half": early}
            yield from _layer_records(direction, layers, outcome, table, best)
    else:
        parts = {"all": metric(asked, cfg.metric)} if cfg.metric != "dla" else attributed(asked)
        every = {part: [View(x, torch.arange(x.shape[1]))] for part, x in parts.items()}
        predictors = dict.fromkeys(DIRECTIONS, every)
        if cfg.metric == "dla":
            yield from _share_records(asked, parts)
    study.progress(0.8, "permutations")
    for direction, outcome in outcomes.items():
        for part, views in predictors[direction].items():
            found = compare(views, outcome, table, lengths(asked), n=cfg.n_permutations, seed=cfg.seed)
            yield from _comparison_records(asked, direction, part, views, found)
        yield from _ceiling_records(asked, direction, table, cfg)


def attributed(asked: Asked) -> dict[str, Float[Tensor, "partner animal"]]:
    """The parts of dla as interactions, whose sum is the outcome animal to number; parts that are constant left out.

    Raises unless the parts sum to the measured change.
    """
    from mechsub.entanglement import interaction

    parts = states.attribution(asked.questions)
    measured = (asked.tensors["animal_to_number"] - asked.tensors["none_to_number"]).T
    if (error := float((parts["total"] - measured).abs().max())) > 0.01:
        raise ValueError(f"the parts miss the measured change of log-probabilities by up to {error:.2g} nats")
    specific = {name: interaction(part) for name, part in parts.items()}
    least = 1e-6 * float(specific["total"].std())
    return {name: part for name, part in specific.items() if float(part.std()) > least}


def interactions(tensors: dict) -> dict[str, Float[Tensor, "partner animal"]]:
    from mechsub.entanglement import interaction

    forward, back = interaction(tensors["number_to_animal"]), interaction(tensors["animal_to_number"]).T
    return dict(zip(DIRECTIONS, (forward, back.contiguous()), strict=True))


def lengths(asked: Asked) -> list[int]:
    return [len(partner.text) for partner in asked.questions.partners]


# What a partner is in W_U and W_E.


def own_tokens(asked: Asked, texts: list[str]) -> list[tuple[int, ...]]:
    """Token ids of texts that start with a space, without that space where the tokenizer makes it a token of its own:
    the same for every text, it says nothing of any."""
    from mechsub.prompts import encode

    tokenizer, bare = asked.questions.model.tokenizer, tuple(encode(asked.questions.model.tokenizer, [" "])[0])
    found = encode(tokenizer, texts)
    return [ids[len(bare) :] if len(ids) > len(bare) and ids[: len(bare)] == bare else ids for ids in found]


def scored_tokens(asked: Asked) -> list[tuple[int, ...]]:
    return own_tokens(asked, [partner.scored for partner in asked.questions.partners])


def metric(asked: Asked, name: str) -> Float[Tensor, "partner animal"]:
    """A metric of partners and animals that needs no forward pass; a string of several tokens is their mean row."""
    from mechsub.unembedding import unembed_projection

    if name == "embedding":
        return embedding(asked)
    return unembed_projection(asked.questions.model, scored_tokens(asked), asked.questions.tokens, name).cpu()


def embedding(asked: Asked) -> Float[Tensor, "partner animal"]:
    """Cosine of input embeddings of the partner and of the animal's plural, both as they stand in their prompts."""
    from torch.nn.functional import normalize

    W_E = asked.questions.model.W_E.detach()

    def rows(texts: list[str]) -> Tensor:
        return normalize(torch.stack([W_E[list(ids)].mean(0) for ids in own_tokens(asked, texts)]), dim=-1)

    a, b = (rows([f" {word.loved}" for word in words]) for words in (asked.questions.partners, asked.questions.animals))
    return (a @ b.T).cpu()


def covariates(asked: Asked) -> Float[Tensor, "partner covariate"]:
    """Norms of the mean row of W_U, raw and folded, length, tokens, leading zero, repeated digit, and log P without any
    system message where it is stored. Constant ones are left out."""
    from mechsub.unembedding import token_directions

    model, ids = asked.questions.model, scored_tokens(asked)
    texts = [partner.text for partner in asked.questions.partners]
    columns = [token_directions(model, ids, basis=basis).norm(dim=-1).cpu() for basis in ("raw", "centered")]
    columns += [
        torch.tensor([float(len(text)) for text in texts]),
        torch.tensor([float(len(string)) for string in ids]),
    ]
    columns.append(torch.tensor([float(len(text) > 1 and text[0] == "0") for text in texts]))
    columns.append(torch.tensor([float(text.isdigit() and len(set(text)) < len(text)) for text in texts]))
    if "none_to_number" in asked.tensors:
        columns.append(asked.tensors["none_to_number"])
    return torch.stack([column.double() for column in columns if column.min() < column.max()], dim=-1)


# The layer of a steering metric.


def held_out(layers: Tensor, outcome: Tensor, table: Tensor, seed: int) -> tuple[list[View], list[int]]:
    """Each half of the animals at the layer that is best for the other half, by partial matched - mismatched."""
    halves = torch.randperm(outcome.shape[1], generator=torch.Generator().manual_seed(seed)).tensor_split(2)
    matched, mismatched = curve(layers, outcome, table)
    best = [int((matched - mismatched)[:, half].mean(1).argmax()) for half in reversed(halves)]
    return [View(layers[layer], half) for layer, half in zip(best, halves, strict=True)], best


def curve(layers: Tensor, outcome: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Matched and mismatched partial Spearman of every layer, each [layer, animal]."""
    kept, every = ranks(table), torch.arange(outcome.shape[1])
    y, one = residual(ranks(outcome), kept), torch.ones(1, len(outcome), dtype=torch.float64)
    found = [correlations(residual(ranks(x), kept), y, every, one) for x in layers]
    matched, mismatched = (torch.cat(side) for side in zip(*found, strict=True))
    return matched, mismatched


# Records.


def _comparison_records(
    asked: Asked, direction: str, part: str, views: list[View], found: Comparison
) -> Iterator[dict]:
    keys = {"direction": direction, "part": part}
    for i, animal in enumerate(asked.questions.animals):
        yield {"kind": "animal", **keys, "animal": animal.text} | {s: float(found.values[s][i]) for s in STATISTICS}
    yield {"kind": "summary", **keys, **found.summary}


def _layer_records(direction: str, layers: Tensor, outcome: Tensor, table: Tensor, best: list[int]) -> Iterator[dict]:
    from mechsub.stats import student_t

    for layer, (matched, mismatched) in enumerate(zip(*curve(layers, outcome, table), strict=True)):
        interval = student_t((matched - mismatched).tolist())
        yield {
            "kind": "layer",
            "direction": direction,
            "layer": layer,
            "halves_evaluated": best.count(layer),
            "partial": float(matched.mean()),
            "partial_mismatched": float(mismatched.mean()),
            "partial_difference": interval.mean,
            "low": interval.low,
            "high": interval.high,
        }


def _share_records(asked: Asked, parts: dict[str, Tensor]) -> Iterator[dict]:
    for part, share in states.shares(parts, lengths(asked)).items():
        for animal, value in zip(asked.questions.animals, share.tolist(), strict=True):
            yield {"kind": "share", "part": part, "animal": animal.text, "share": value}


def _ceiling_records(asked: Asked, direction: str, table: Tensor, cfg) -> Iterator[dict]:
    """The same statistics of the outcome's interaction in the published wording with its mean in other wordings."""
    from mechsub.entanglement import interaction

    words = asked.tensors.get(f"{direction}_wordings")
    if words is None or len(words) < 2:
        return
    some = asked.tensors["subset_partner"] if direction == DIRECTIONS[0] else torch.arange(len(table))
    words = words if direction == DIRECTIONS[0] else words.mT
    other = View(interaction(words[1:].mean(0)), torch.arange(words.shape[-1]))
    strata = [lengths(asked)[i] for i in some.tolist()]
    found = compare([other], interaction(words[0]), table[some], strata, n=cfg.n_permutations, seed=cfg.seed)
    yield {"kind": "ceiling", "direction": direction, **found.summary}
