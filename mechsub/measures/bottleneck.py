"""The price of raising one output while others keep their log-odds: the softmax bottleneck as exact linear algebra.

Logits are a linear map of d_model numbers, so more than d_model outputs cannot all be moved at will. Ranks and angles
decide whether this couples a concept to a set of outputs, and both can be computed. The price is the length of the
cheapest change of the last hidden vector that raises the concept and holds the set, over the length of the cheapest
change that only raises the concept. Lengths are Euclidean, in coordinates after the final norm's scale and before its
gain (on the toy: the last hidden vector). Outputs are held among themselves: their log-odds are differences of logits,
which do not depend on softmax's normaliser.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechsub import arguments
from mechsub.inputs.token_ids import Outputs
from mechsub.models import checks
from mechsub.models.hooked import HookedModel
from mechsub.threads import one_thread

RESOLVED = 1e-6  # of a singular value or a length: what is smaller is rounding of fp32 weights
_REACHED = 1e-6  # nats
_FAR = 1e3  # times its own length is farther than a hidden vector goes: no such change is found
_RAMP = 5  # steps over which the wanted rise grows to its whole: Newton's first step is a short one


@dataclass(frozen=True)
class Change:
    """resid: the changed hidden vectors; length: of the change; reached: whether the change meets the constraints.

    Where no change meets them, or none was found, the length is infinite and the hidden vector is unchanged.
    """

    resid: Float[Tensor, "*lead concept d_model"]
    length: Float[Tensor, "*lead concept"]
    reached: Bool[Tensor, "*lead concept"]

    def __repr__(self) -> str:
        return f"Change({tuple(self.length.shape)}, {int(self.reached.sum())} of {self.reached.numel()} reached)"


@torch.no_grad()
def price(
    model: HookedModel,
    concepts: Outputs,
    held: Outputs,
    *,
    among: Outputs | None = None,
) -> Float[Tensor, "*seed concept"]:
    """Length of the cheapest change that raises a concept and holds `held`, over that of the cheapest without holding.

    The price is |w| / |w'|: w is the direction of the concept's logit less the mean over `among` (default: over the
    concepts), w' the part of w outside the span of the held outputs' differences. 1: holding costs nothing; infinite: w
    lies in that span, and the concept cannot rise. It depends on the weights alone; fp64. Nulls: `isotropic_price`, and
    as many other outputs in place of the held. A final LayerNorm allows only changes whose coordinates sum to zero, and
    directions are taken among such changes. Raises for a model that caps its logits, or whose final norm has no gain.
    Source: Yang et al. 2018 and Finlayson et al. 2023 for the rank.
    """
    return price_of(*_directions(model, concepts, held, among))


def price_of(
    concepts: Float[Tensor, "*seed concept d"], held: Float[Tensor, "*seed held d"]
) -> Float[Tensor, "*seed concept"]:
    """`price` from directions: concepts as contrasts, and held outputs, whose mean does not count."""
    for name, rows in (("concepts", concepts), ("held", held)):
        arguments.values(rows, name, "*seed output d", full=True)
    if concepts.shape[:-2] != held.shape[:-2] or concepts.shape[-1] != held.shape[-1]:
        raise ValueError(
            f"concepts and held must be of the same seeds and width, not {list(concepts.shape)} and {list(held.shape)}"
        )
    concepts = concepts.double()
    free = concepts @ free_projector(held)
    whole, left = concepts.norm(dim=-1), free.norm(dim=-1)
    return torch.where(left > RESOLVED * whole, whole / left, torch.inf)


def isotropic_price(d_model: int, rank: int) -> float:
    """sqrt(d / (d - rank)): the price if directions point anywhere with equal chance; infinite from rank = d on."""
    d_model = arguments.whole(d_model, "d_model", 1)
    rank = arguments.whole(rank, "rank", 0)
    return (d_model / (d_model - rank)) ** 0.5 if rank < d_model else float("inf")


@torch.no_grad()
def held_rank(model: HookedModel, held: Outputs) -> int:
    """Dimensions that holding these outputs takes (most over seeds): at most d_model, and one less than outputs."""
    rows = _contrasts(_rows(model, held, "held"))
    return int((_singular(rows)[1] > 0).sum(-1).max())


def free_projector(held: Float[Tensor, "*seed held d"]) -> Float[Tensor, "*seed d d"]:
    """The projector on all changes that keep the differences of these directions' logits, fp64."""
    arguments.values(held, "held", "*seed output d", full=True)
    right, kept = _singular(_contrasts(held.double()))
    basis = right * kept[..., None]
    identity = torch.eye(held.shape[-1], dtype=torch.float64, device=held.device)
    return identity - basis.mT @ basis


@torch.no_grad()
def cheapest_change(
    model: HookedModel,
    resid: Float[Tensor, "*lead d_model"],
    concepts: Outputs,
    held: Outputs = (),
    *,
    rise: float = 1.0,
    among: Outputs | None = None,
    n_steps: int = 40,
) -> Change:
    """The smallest change of final residuals after which a concept's log-odds are higher by exactly `rise` nats.

    resid: [*seed, batch, d_model], the input of the final norm (`ln_final.hook_in`; on the toy `unembed.hook_in`). With
    `among`, log-odds are z_c - mean z among these outputs, and the held outputs keep their differences. Without
    `among`, log-odds are log p / (1 - p) over all outputs, for the concept and for every held output: the softmax's
    normaliser is solved for. The final RMS norm keeps its scale: the change turns the hidden vector and does not
    stretch it, because the norm undoes a stretch. Newton's method on the exact constraints, fp64; at its end the change
    is a combination of their gradients (smallest, to first order). Where the model scales its logits, nats are those of
    the scaled logits. Raises for a final norm that is no RMS norm, and for a model that caps its logits.
    """
    concepts, held, among = _outputs(model, concepts, held, among)
    arguments.number(rise, "rise")
    n_steps = arguments.whole(n_steps, "n_steps", 1)
    _check_resid(model, resid)
    y, gain, scale = _normalised(model, resid.double())
    stacked = (y if model.W_U.ndim == 3 else y.flatten(0, -2)[None])[:, :, None]  # [seed, batch, 1, d]
    step = _Constraints(model, stacked, gain, concepts, held, among, rise)
    now = stacked.expand(-1, -1, len(concepts), -1)
    for n in range(n_steps):
        error, slope = step.missed(now, part=min(1.0, (n + 1) / _RAMP))
        if n >= _RAMP and error.abs().max() < 1e-10:
            break
        wanted = (slope @ (now - stacked)[..., None])[..., 0] - error
        free = slope @ step.free
        weights = torch.linalg.pinv(free @ free.mT, rtol=1e-12, hermitian=True) @ wanted[..., None]
        new = stacked + (free.mT @ weights)[..., 0]
        now = torch.where(new.norm(dim=-1, keepdim=True) < _FAR * stacked.norm(dim=-1, keepdim=True), new, stacked)
    reached = step.missed(now)[0].abs().amax(-1) < _REACHED
    length = torch.where(reached, (now - stacked).norm(dim=-1), torch.inf)
    now = torch.where(reached[..., None], now, stacked)
    lead = (*resid.shape[:-1], len(concepts))
    changed = now.reshape(*lead, -1) * scale[..., None, :]
    return Change(changed.to(resid.dtype), length.reshape(lead), reached.reshape(lead))


class _Constraints:
    """The constraints on a changed vector [seed, batch, concept, d]: by the concept, the held outputs and the norm."""

    def __init__(self, model, start, gain, concepts, held, among, rise):
        readout = checks.readout(model)
        scale = readout.linear("a cheapest change")
        W = (model.W_U.detach().double() * gain[..., None])[None if model.W_U.ndim == 2 else ...]
        self.W, self.bias = scale * W, scale * readout.bias().detach().double().reshape(len(W), -1)
        self.concepts, self.held, self.among = concepts, held, among
        self.norm = start.square().sum(-1) if checks.final_norm(model).normalises else None
        rows = W[..., self.held].mT if self.held else torch.zeros_like(W[..., :1].mT)
        self.free = free_projector(rows)[:, None, None]
        self.start, self.rise = self._values(start.expand(-1, -1, len(self.concepts), -1))[0], rise

    def missed(self, now: Tensor, part: float = 1.0) -> tuple[Tensor, Tensor]:
        """Misses of constraints, [..., constraint], and their gradients, [..., constraint, d]; `part` of the rise."""
        values, slopes = self._values(now)
        error = values - self.start
        error[..., 0] -= part * self.rise
        return error, slopes

    def _values(self, now: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.W[..., self.concepts].mT[:, None]
        own = (now * rows).sum(-1) + self.bias[:, None, self.concepts]
        if self.among is None:
            values, slopes = self._against_all(now, own, rows)
        else:
            mean, level = self._mean(now, self.among)
            values, slopes = [own - level], [(rows - mean).expand_as(now)]
        if self.norm is not None:
            values.append(0.5 * (now.square().sum(-1) - self.norm))
            slopes.append(now)
        return torch.stack(values, dim=-1), torch.stack(slopes, dim=-2)

    def _against_all(self, now: Tensor, own: Tensor, rows: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        logits = now.flatten(1, 2) @ self.W + self.bias[:, None]
        total = logits.logsumexp(-1, keepdim=True)
        expected = ((logits - total).exp() @ self.W.mT).reshape(now.shape)
        total = total.reshape(own.shape)
        p = (own - total).exp()
        values, slopes = [own - total - torch.log1p(-p)], [(rows - expected) / (1 - p)[..., None]]
        if bool((p > 0.99).any()):  # 1 - p cancels
            others, mean = self._of_others(logits, own)
            sure = p > 0.99
            values[0] = torch.where(sure, own - others, values[0])
            slopes[0] = torch.where(sure[..., None], rows - mean, slopes[0])
        if self.held:
            mean, level = self._mean(now, self.held)
            values.append(level - total)
            slopes.append(mean - expected)
        return values, slopes

    def _of_others(self, logits: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Of all outputs but the concept: logsumexp of their logits, and their mean row under their softmax."""
        places = torch.tensor(self.concepts, device=logits.device).expand(own.shape[1], -1).reshape(1, -1, 1)
        others = logits.scatter(-1, places.expand(len(logits), -1, -1), -torch.inf)
        total = others.logsumexp(-1, keepdim=True)
        mean = (others - total).exp() @ self.W.mT
        return total.reshape(own.shape), mean.reshape(*own.shape, -1)

    def _mean(self, now: Tensor, tokens: list[int]) -> tuple[Tensor, Tensor]:
        """The direction of the tokens' mean logit, and that logit."""
        mean = self.W[..., tokens].mean(-1)[:, None, None]
        return mean, (now * mean).sum(-1) + self.bias[:, None, None, tokens].mean(-1)


def _normalised(model: HookedModel, resid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(resid / scale, gain, scale), scale [*lead, 1]; raises where ln_final is not gain * resid / scale."""
    norm = checks.final_norm(model)
    if norm.centres or norm.bias is not None:
        raise ValueError("the final norm is no RMS norm: the effect of a change of its input is not known here")
    gain = norm.gain.detach().double()
    if not norm.normalises:
        return resid, gain, resid.new_ones(*resid.shape[:-1], 1)
    h, scaled = norm(resid.to(model.W_U.dtype)).double(), resid * gain
    inverse = (h * scaled).sum(-1, keepdim=True) / scaled.square().sum(-1, keepdim=True)
    return resid * inverse, gain, 1 / inverse


def _check_resid(model: HookedModel, resid: Tensor) -> None:
    seeds = model.W_U.shape[:-2]
    arguments.values(resid, "resid", "seed batch d_model" if seeds else "*lead d_model", floating=True)
    arguments.width(resid, model.W_U.shape[-2], "resid")
    if seeds and resid.shape[:1] != seeds:
        raise ValueError(f"resid must hold the model's {seeds[0]} seeds on its first axis, not {len(resid)}")
    if not seeds and resid.ndim < 2:
        raise ValueError("resid must be [*lead, d_model], with an axis before the last; resid[None] adds it")


def _outputs(model: HookedModel, concepts, held, among) -> tuple[list[int], list[int], list[int] | None]:
    """Lists of different outputs; an output that stands twice would count twice in the mean."""
    arguments.model(model, evaluated=False)
    return (
        arguments.distinct(arguments.outputs(model, concepts, "concepts"), "concepts"),
        arguments.distinct(arguments.outputs(model, held, "held", 0), "held"),
        None if among is None else arguments.distinct(arguments.outputs(model, among, "among", 2), "among"),
    )


def _rows(model: HookedModel, tokens: Outputs, name: str) -> Float[Tensor, "*seed token d"]:
    """Columns of W_U with the final norm's gain folded in, as rows, fp64; less their mean for a norm that centres."""
    arguments.model(model, evaluated=False)
    ids = arguments.distinct(arguments.outputs(model, tokens, name), name)
    checks.readout(model).linear("the price of an output")
    norm = checks.final_norm(model)
    columns = model.W_U.detach()[..., torch.as_tensor(ids, device=model.W_U.device)].double()
    return norm.centred((columns * norm.gain.detach().double()[..., None]).mT)


def _directions(model: HookedModel, concepts, held, among) -> tuple[Tensor, Tensor]:
    """Contrasts of the concepts, and the held outputs' directions."""
    rows = _rows(model, concepts, "concepts")
    others = rows if among is None else _rows(model, among, "among")
    if others.shape[-2] < 2:
        raise ValueError("concepts rise among others: give at least two concepts, or outputs in `among`")
    return rows - others.mean(-2, keepdim=True), _rows(model, held, "held")


def _contrasts(rows: Tensor) -> Tensor:
    return rows - rows.mean(-2, keepdim=True)


@one_thread()
def _singular(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Right singular vectors as rows, and for each vector 1 if its singular value is not zero, else 0."""
    _, size, right = torch.linalg.svd(rows, full_matrices=False)
    return right, (size > RESOLVED * size[..., :1]).double() * (size[..., :1] > 0)
