"""`studies.unembed_projection` of the toy: do directions of W_U tell which digits an auxiliary-only student learns?

For the geometric metrics, a digit's score is how strongly its output direction is tied to the auxiliary ones, without
a sign, in the W_U that the student starts from: for the cosines the norm of the projection of the digit's unit
direction on the span of the auxiliary directions (for centered_cosine, all centred over the outputs); for the others
the root of the sum of squares of the metric over the auxiliary outputs. Its rank correlation over the ten digits with
the student's recall is compared with that of the scores of all other seeds' W_U, and with shuffled digits.

dla: the student's digit rows of W_U never move, so the change of its digit logits is the change of the last hidden
vector times W_U. Its share that is written through the span of the auxiliary directions is cov(part, whole) /
var(whole), digit logits centred over digits; and the accuracy with only that part, or only the rest, of the change.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import population as toys

if TYPE_CHECKING:
    from mechsub.designs.population import Toy
    from mechsub.measures.unembedding import Basis, Metric

ARMS = ("student_aux", "cross_aux")
N_SPANS = 20  # random spans per seed
_CHUNK = 1_000  # images


@threads.made_by_one
def run(cfg) -> Iterator[dict]:
    trained, arms = _trained(replace(cfg, metric="cosine", n_permutations=1))
    images, labels = getattr(ms.images, cfg.dataset)("test")
    for arm, (start, student) in arms.items():
        if cfg.metric == "dla":
            yield from share_records(arm, start, student, images, labels, cfg.seed)
        else:
            found = scores(start, cfg.metric), recalls(student, images, labels)
            yield from recall_records(arm, student.seeds, *found, cfg.n_permutations, cfg.seed)
    yield {
        "provenance": {
            **toys.provenance(trained, cfg),
            "measured_on": f"{len(images)} test images",
            "basis": "W_U of the initialisation that the student starts from; the toy has no final norm",
            "null": "other seeds' W_U, shuffled digits, cross-initialisation students"
            if cfg.metric != "dla"
            else f"{N_SPANS} random spans of as many dimensions per seed, cross-initialisation students",
            "unit": "seeds",
        }
    }


@lru_cache(maxsize=1)
def _trained(cfg) -> "tuple[Toy, dict]":
    """The toy, and arm -> (start, student): one training for all metrics of a grid."""
    settings = SimpleNamespace(**vars(cfg), n_steps=1)
    lab.show_progress(0.0, "teachers")
    toy = toys.teachers(settings)
    trained = toys.students(toy, ARMS, settings, lab.span(0.2, 0.8, "students"))
    return toy, {arm: (toys.start(toy, arm), next(iter(steps.values()))) for arm, steps in trained.items()}


def scores(model: "ms.HookedMLP", metric: "Metric") -> Float[Tensor, "seed digit"]:
    """How strongly every digit's output direction is tied to the auxiliary ones."""
    digits, aux = (range(model.cfg.d_vocab)[part] for part in (model.cfg.digits, model.cfg.aux))
    if metric not in ("cosine", "centered_cosine"):
        return ms.unembedding.unembed_projection(model, digits, aux, metric).double().norm(dim=-1)
    basis: Basis = "raw" if metric == "cosine" else "centered"
    own, others = (ms.unembedding.token_directions(model, tokens, basis=basis).double() for tokens in (digits, aux))
    inside = torch.nn.functional.normalize(own, dim=-1) @ torch.linalg.qr(others.mT).Q
    return inside.norm(dim=-1)


@torch.no_grad()
def recalls(model: "ms.HookedMLP", images: Tensor, labels: Tensor) -> Float[Tensor, "seed digit"]:
    """Share of the images of every digit that the digit logits classify as it."""
    answers = torch.cat([model(x)[..., model.cfg.digits].argmax(-1).cpu() for x in images.split(_CHUNK)], dim=-1)
    right = answers == labels
    return torch.stack([right[:, labels == digit].double().mean(-1) for digit in range(model.cfg.n_classes)], dim=-1)


def rank_correlations(x: Float[Tensor, "seed digit"], y: Float[Tensor, "seed digit"]) -> Float[Tensor, "seed seed"]:
    """Spearman's correlation over digits of every row of x with every row of y; 0 where one is constant."""
    from studies.unembed_projection.ranks import ranks

    a, b = (ranks(v.T).T for v in (x, y))
    a, b = (v - v.mean(-1, keepdim=True) for v in (a, b))
    norms = a.norm(dim=-1)[:, None] * b.norm(dim=-1)
    return torch.where(norms > 0, a @ b.T / norms.clamp_min(1e-300), 0.0)


def recall_records(
    arm: str, seeds: Sequence[int], score: Tensor, recall: Tensor, n_permutations: int, seed: int
) -> Iterator[dict]:
    """Per seed: the correlation of its scores with the student's recall, that of other seeds'; and shuffled digits."""
    table = rank_correlations(score, recall)
    n, own = len(table), table.diagonal()
    generator = torch.Generator().manual_seed(seed)
    for i, member in enumerate(seeds):
        others = float((table[:, i].sum() - own[i]) / (n - 1))
        yield {"kind": "seed", "arm": arm, "member": member, "spearman": float(own[i]), "spearman_mismatched": others}
        for digit in range(recall.shape[1]):
            values = {"score": float(score[i, digit]), "recall": float(recall[i, digit])}
            yield {"kind": "digit", "arm": arm, "member": member, "digit": digit, **values}
    null = []
    for _ in range(n_permutations):
        order = torch.rand(recall.shape, generator=generator).argsort(-1)
        null.append(float(rank_correlations(score, recall.gather(1, order.to(recall.device))).diagonal().mean()))
    sides = ((float(own.mean()), null), (-float(own.mean()), [-v for v in null]))
    p = 2 * min(ms.stats.permutation_p(value, draws, scale=1.0) for value, draws in sides)
    yield {"kind": "summary", "arm": arm, "spearman": float(own.mean()), "p": min(p, 1.0)}


@torch.no_grad()
def share_records(
    arm: str, start: "ms.HookedMLP", student: "ms.HookedMLP", images: Tensor, labels: Tensor, seed: int
) -> Iterator[dict]:
    """Per seed: what of the change of digit logits is written through the auxiliary span, and through random ones."""
    generator = torch.Generator().manual_seed(seed)
    aux = start.W_U[..., start.cfg.aux].double()
    random = torch.randn(N_SPANS, *aux.shape, generator=generator, dtype=torch.float64).to(aux.device)
    bases = torch.linalg.qr(torch.cat([aux[None], random])).Q  # [span, seed, d_model, n_aux]
    # What is written on test images, and how much it varies over them: the part that tells digits apart.
    written = _Products()
    right: dict = dict.fromkeys(("student", "start", "span", "rest", "random_span"), 0.0)
    for x, y in _batches(images, labels):
        before, change, parts = _change(start, student, x, bases)
        written.add(parts, change)
        logits = {"student": before + change, "start": before, "span": before + parts[0]}
        logits |= {"rest": before + change - parts[0], "random_span": before + parts[1]}
        for name, values in logits.items():
            right[name] = right[name] + (values.argmax(-1).cpu() == y).double().sum(-1)
    shares = {"share": written.shares(), "share_varying": written.shares(centred=True)}
    for i, member in enumerate(student.seeds):
        row = {"kind": "share", "arm": arm, "member": member}
        for name, share in shares.items():
            row |= {name: float(share[0, i]), f"{name}_random": float(share[1:, i].mean())}
        yield row | {f"accuracy_{name}": float(count[i]) / len(images) for name, count in right.items()}


def _change(start: "ms.HookedMLP", student: "ms.HookedMLP", x: Tensor, bases: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Digit logits less their mean over digits: of the start, their change, and the change through each span."""
    digits, name = start.cfg.digits, "unembed.hook_in"
    W, W_after = (model.W_U[..., digits].double() for model in (start, student))
    if not torch.equal(W, W_after) or not torch.equal(start.b_U[..., digits], student.b_U[..., digits]):
        raise ValueError(
            "the student's digit rows of W_U moved: its digit logits change by more than its hidden vector"
        )
    W = W - W.mean(-1, keepdim=True)
    h, h_after = (ms.hooked.cache_activations(model, x, [name])[name].double() for model in (start, student))
    bias = start.b_U[..., digits].double()
    moved = h_after - h
    return h @ W + bias - bias.mean(-1, keepdim=True), moved @ W, (moved @ bases) @ (bases.mT @ W)


class _Products:
    """Sums over images of products of parts [span, seed, image, digit] with the whole [seed, image, digit]."""

    def __init__(self):
        self.n, self.cross, self.square, self.part, self.whole = 0, 0.0, 0.0, 0.0, 0.0

    def add(self, parts: Tensor, whole: Tensor) -> None:
        self.n += whole.shape[1]
        self.cross = self.cross + (parts * whole).sum((-2, -1))
        self.square = self.square + (whole**2).sum((-2, -1))
        self.part, self.whole = self.part + parts.sum(-2), self.whole + whole.sum(-2)

    def shares(self, centred: bool = False) -> Float[Tensor, "span seed"]:
        """cov(part, whole) / var(whole); `centred`: each digit's mean over images removed."""
        common = (self.part * self.whole).sum(-1) / self.n if centred else 0.0
        return (self.cross - common) / (self.square - ((self.whole**2).sum(-1) / self.n if centred else 0.0))


def _batches(images: Tensor, labels: Tensor):
    return zip(images.split(_CHUNK), labels.split(_CHUNK), strict=True)
