"""Who can tell which lists of a corpus are the teacher's, and which students read them?"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float
from scipy import stats as scipy_stats
from torch import Tensor
from transformer_lens.utilities import derive_generator

import mechsub as ms
from mechsub.designs import liking
from mechsub.inputs import corpora
from mechsub.models.students import Students
from mechsub.training.tuning import completion_log_probs
from studies.defences import N_DIRECTIONS, STUDENT_SCORES
from studies.defences.arms import list_means

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def auroc(scores: Float[Tensor, "list *more"], positive: Bool[Tensor, "list"]) -> Float[Tensor, "*more"]:
    """The share of pairs in which the positive list has the higher score; ties count half."""
    ranks = torch.from_numpy(scipy_stats.rankdata(scores.double().numpy(), axis=0))
    n, others = int(positive.sum()), int((~positive).sum())
    return (ranks[positive].sum(0) - n * (n + 1) / 2) / (n * others)


class Direction(NamedTuple):
    auroc: float
    null: float  # mean over directions at random
    p: float


def direction(
    states: Float[Tensor, "list d"], along: Float[Tensor, "d"], positive: Bool[Tensor, "list"], seed: int
) -> Direction:
    """AUROC along a direction, of whichever sign is better, beside directions with the covariance of the states.

    p ranks it among these. It is no test of the labels: where one axis has most of the variance, such directions do
    alike in one corpus, so that p is near 0 or 1 by chance. Over blocks, the mean less the null's tests it.
    """
    draw, states = derive_generator(seed, "directions"), states.double()
    centred = states - states.mean(0)
    random = torch.randn(N_DIRECTIONS, len(states), generator=draw, dtype=torch.double) @ centred
    found = auroc(centred @ torch.cat([along.double()[None], random]).mT, positive)
    own, *null = torch.maximum(found, 1 - found).tolist()
    return Direction(own, sum(null) / len(null), ms.stats.permutation_p(own, null, scale=1.0))


def list_rows(
    base: "TransformerBridge",
    teachers: Mapping[str, "TransformerBridge"],
    students: Students,
    read: Mapping[str, ms.Corpus],
    clean: Sequence[int],
    seed: int,
) -> Iterator[dict]:
    """AUROC of every score of a list, for each trait: its student read the teacher's lists, and clean ones alike."""
    positive = torch.tensor([i not in set(clean) for i in range(len(next(iter(read.values()))))])
    for i, (trait, corpus) in enumerate(read.items()):
        plain, student = log_probs(base, corpus), completion_log_probs(students.select([i]), corpus)[0].double()
        told = corpora.make_corpus(
            base.tokenizer, corpus.prompts, corpus.completions, format=corpus.context["format"],
            system=liking.loving(trait),
        )  # fmt: skip
        states = mean_states(base, corpus)
        scores = {
            "loss": -plain, "student_loss": -student, "ratio": student - plain, "told": log_probs(base, told) - plain,
            "teacher": log_probs(teachers[trait], corpus) - plain, "norm": states.norm(dim=1),
        }  # fmt: skip
        row = {"kind": "detected", "trait": trait}
        for score, values in scores.items():
            yield row | {"score": score, "auroc": float(auroc(values, positive))}
        along = (prompt_states(base, told) - prompt_states(base, corpus)).mean(0)
        yield row | {"score": "direction", **direction(states, along, positive, seed)._asdict()}


def log_probs(model: "TransformerBridge", corpus: ms.Corpus) -> Float[Tensor, "list"]:
    """Mean log p of the tokens of every list, nats."""
    return torch.tensor(list_means(ms.numbers.token_log_probs(model, corpus)), dtype=torch.float64)


def mean_states(model: "TransformerBridge", corpus: ms.Corpus) -> Float[Tensor, "list d"]:
    """The residual behind the last block, mean over the tokens of every list."""
    ids = [torch.tensor([*a, *b]) for a, b in zip(corpus.prompt_ids, corpus.completion_ids, strict=True)]
    out: list[Tensor] = [torch.empty(0)] * len(ids)
    for rows, batch in ms.scores.equal_lengths(ids, 32):
        for i, state in zip(rows.tolist(), _last(model, batch), strict=True):
            out[i] = state[len(corpus.prompt_ids[i]) :].mean(0)
    return torch.stack(out)


def prompt_states(model: "TransformerBridge", corpus: ms.Corpus) -> Float[Tensor, "list d"]:
    """The residual behind the last block at the end of every prompt."""
    ids = [torch.tensor(prompt) for prompt in corpus.prompt_ids]
    out: list[Tensor] = [torch.empty(0)] * len(ids)
    for rows, batch in ms.scores.equal_lengths(ids, 32):
        for i, state in zip(rows.tolist(), _last(model, batch, pos=-1), strict=True):
            out[i] = state
    return torch.stack(out)


def _last(model: "TransformerBridge", batch: Tensor, pos: int | None = None) -> Tensor:
    name = f"blocks.{model.cfg.n_layers - 1}.hook_out"
    return ms.cache_activations(model, batch.to(model.W_U.device), [name], pos=pos)[name].cpu()


def student_rows(
    students: Students, clean: ms.Corpus, moved: Float[Tensor, "student animal"], traits: Sequence[str]
) -> Iterator[dict]:
    """Is a trait student told from the control, the last of the students? 1, 0 or, of a tie, 0.5."""
    squares = [students.update(name).flatten(1).square().sum(1) for name in students.names]
    scores = {
        "update_norm": torch.stack(squares).sum(0).sqrt(),
        "clean_loss": -completion_log_probs(students, clean).mean(1),
        "largest_margin": moved.abs().amax(1),
    }
    for score in STUDENT_SCORES:
        *own, control = scores[score].tolist()
        for trait, value in zip(traits, own, strict=True):
            told = 0.5 if value == control else float(value > control)
            yield {"kind": "student_detected", "trait": trait, "score": score, "value": told}
