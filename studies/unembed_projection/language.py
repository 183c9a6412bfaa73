"""`studies.unembed_projection` of a language model: all that it is asked for, before anything is compared."""

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

import mechsub as ms
from mechsub import lab
from mechsub.designs import love
from mechsub.designs.love import LovePrompts, own_tokens
from mechsub.measures.unembedding import Metric
from studies.unembed_projection import states
from studies.unembed_projection.compare import Pairs, Side, compare

DIRECTIONS = ("number_to_animal", "animal_to_number")
SEE_ORDER = ("dla", "steering")  # metrics of states; the others are means over the tokens of a string


def run(cfg, matrices: lab.Stored) -> Iterator[dict]:
    found = love.prompted(cfg, matrices.tensors(), lab.show_progress)
    pairs = gather(found, cfg.metric)
    lab.show_progress(0.8, "permutations")
    yield from compare(pairs, cfg.n_permutations, cfg.seed)
    q, model = found.asked, found.asked.model
    tied = model.W_U.data_ptr() == model.W_E.data_ptr()
    yield {
        "provenance": {
            **ms.language.model_source(model),
            "basis": "raw W_U; folded with the final norm's gain and centred where the metric says so",
            "measured_on": f"{len(q.animals)} animals that are one token, {len(q.partners)} {cfg.family}, the "
            "published wording",
            "matrices": "the cell of studies.token_entanglement under made_from",
            "null": "other animals' metric; partners shuffled within length; animals shuffled",
            "unit": "animals and partners (crossed); partners of the same tokens are one in rows called multiset",
            **({"embedding": "W_E is W_U transposed in this model"} if tied else {}),
        }
    }


def gather(found: love.Prompted, metric: Metric | Literal["dla", "steering", "embedding"]) -> Pairs:
    """All that is compared; a string of several tokens is their mean row in metrics of rows."""
    q, stored = found.asked, found.tensors
    ids = own_tokens(q.model.tokenizer, q.strings, q.ask(None))
    layers = states.steering(q) if metric == "steering" else None
    parts = {}
    if metric == "dla":
        parts = attributed(q, (stored["animal_to_number"] - stored["none_to_number"]).T)
    elif metric == "embedding":
        parts = {"all": embedding(q)}
    elif metric != "steering":
        parts = {"all": ms.unembedding.unembed_projection(q.model, ids, q.tokens, metric).cpu()}
    return Pairs(
        [animal.text for animal in q.animals],
        torch.tensor([len(partner.text) for partner in q.partners]),
        covariates(q, ids, stored["none_to_number"]),
        units(ids, metric),
        outcomes(stored),
        {name: again for name in DIRECTIONS if (again := repeated(stored, name))},
        parts,
        layers,
    )


def units(ids: list[tuple[int, ...]], metric: str) -> dict[str, Int[Tensor, "partner"]]:
    """Unit of comparison -> group of every partner; multisets where strings share their tokens, first."""
    groups = [tuple(sorted(string)) for string in ids]
    names = {string: i for i, string in enumerate(dict.fromkeys(groups))}
    every = {"string": torch.arange(len(ids))}
    if len(names) == len(ids):
        return every
    return {"multiset": torch.tensor([names[string] for string in groups])} | (every if metric in SEE_ORDER else {})


def attributed(q: LovePrompts, measured: Tensor) -> dict[str, Float[Tensor, "partner animal"]]:
    """The parts of dla as interactions, whose sum is the outcome animal to number; parts that are constant left out.

    Raises unless the parts sum to the measured change.
    """
    parts = states.attribution(q)
    if (error := float((parts["total"] - measured).abs().max())) > 0.01:
        raise ValueError(f"the parts miss the measured change of log-probabilities by up to {error:.2g} nats (fp32?)")
    specific = {name: ms.scores.interaction(part) for name, part in parts.items()}
    least = 1e-6 * float(specific["total"].std())
    return {name: part for name, part in specific.items() if float(part.std()) > least}


def outcomes(tensors: dict) -> dict[str, Side]:
    forward, back = (
        ms.scores.interaction(tensors["number_to_animal"]),
        ms.scores.interaction(tensors["animal_to_number"]).T,
    )
    n, a = map(torch.arange, forward.shape)
    return {name: Side(x.contiguous(), n, a) for name, x in zip(DIRECTIONS, (forward, back), strict=True)}


def repeated(tensors: dict, direction: str) -> tuple[Side, Float[Tensor, "partner animal"]] | None:
    """The outcome on the partners and animals that other wordings were run on, and its mean in those wordings, 0 where
    they were not run."""
    words, shape = tensors[f"{direction}_wordings"], tensors["number_to_animal"].shape
    if len(words) < 2:
        return None
    n, a = map(torch.arange, shape)
    if direction == DIRECTIONS[0]:
        n = tensors["subset_partner"]
    else:
        words, a = words.mT, tensors["subset_animal"]
    other = torch.zeros(shape, dtype=torch.float64)
    other[n[:, None], a] = ms.scores.interaction(words[1:].mean(0))
    return Side(ms.scores.interaction(words[0]).contiguous(), n, a), other


# What a partner is in W_U and W_E.


def embedding(q: LovePrompts) -> Float[Tensor, "partner animal"]:
    """Cosine of input embeddings of the partner and of the animal's plural, both as they stand in their prompts."""
    W_E = q.model.W_E.detach()

    def rows(texts: list[str]) -> Tensor:
        return normalize(torch.stack([W_E[list(ids)].mean(0) for ids in own_tokens(q.model.tokenizer, texts)]), dim=-1)

    a, b = (rows([f" {word.loved}" for word in words]) for words in (q.partners, q.animals))
    return (a @ b.T).cpu()


def covariates(q: LovePrompts, ids: list[tuple[int, ...]], none: Tensor) -> Float[Tensor, "partner covariate"]:
    """Norms of the mean row of W_U, raw and folded, length, tokens, leading zero, repeated digit, and log P without any
    system message. Constant ones are left out."""
    texts = [partner.text for partner in q.partners]
    norms = [
        ms.unembedding.token_directions(q.model, ids, basis=basis).norm(dim=-1).cpu() for basis in ("raw", "centered")
    ]
    known = (
        [len(text) for text in texts],
        [len(string) for string in ids],
        [len(text) > 1 and text[0] == "0" for text in texts],
        [text.isdigit() and len(set(text)) < len(text) for text in texts],
    )
    columns = [*norms, *(torch.tensor([float(value) for value in values]) for values in known), none]
    return torch.stack([column.double() for column in columns if column.min() < column.max()], dim=-1)
