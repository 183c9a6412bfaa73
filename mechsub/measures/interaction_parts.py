"""The interaction of a matrix of scores as a few named parts: is it about pairs, or about a handful of axes?

Double-centring removes main effects and nothing else. Two effects stay that are not about a pair: the effect of a row
on all columns in proportion to their means, and the common effect of rows of one length or with one digit. The parts
are orthogonal. Let R be the projection on the features of rows named so far (the rows' own means are the first), C the
projection on the columns' means, and I the interaction. The explained part so far is I - (1 - R) I (1 - C); each named
part is the gain of this by its features.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from mechsub import arguments
from mechsub.measures.scores import interaction
from mechsub.threads import one_thread

_RANK = 1e-8  # singular values of features, relative to the largest, below which they are none


@torch.no_grad()
@one_thread()
def interaction_parts(
    scores: Float[Tensor, "row column"], features: Mapping[str, Float[Tensor, "row _"]] | None = None
) -> dict[str, Float[Tensor, "row column"]]:
    """name -> part of the interaction, in fp64; they are orthogonal and add up to `interaction(scores)`.

    "slopes": each row's slope on the columns' means and each column's on the rows' means (Tukey's non-additivity,
    generalised). Then, by name and in their order, the part that features of rows explain beyond the parts before,
    freely for every column (lengths as dummies, digits in their places). "left": the rest, specific to a row and a
    column. Raises for features of another number of rows, and for names that are taken.
    """
    whole = interaction(arguments.values(scores, "scores", "row column"))
    named = _checked(features, len(whole))
    across = _onto(_means(scores, 0))
    before, free, known = whole, whole - whole @ across @ across.mT, _means(scores, 1)
    parts = {}
    for name, more in {"slopes": known[:, :0], **named}.items():
        known = torch.cat([known, more.double()], 1)
        basis = _onto(known)
        after = free - basis @ (basis.mT @ free)
        parts[name], before = before - after, after
    return {**parts, "left": before}


@torch.no_grad()
@one_thread()
def left_like(
    scores: Float[Tensor, "row column"],
    like: Float[Tensor, "row column"],
    features: Mapping[str, Float[Tensor, "row _"]] | None = None,
) -> Float[Tensor, "row column"]:
    """The part of scores that "left" would hold with R and C of `like`: (1 - R) I(scores) (1 - C); fp64.

    For scores = like it is `interaction_parts(like, features)["left"]`. It is linear in scores, so that parts of a sum
    add up. Raises for shapes that differ, and the errors of interaction_parts.
    """
    whole = interaction(arguments.values(scores, "scores", "row column"))
    other = arguments.values(like, "like", "row column")
    arguments.same_shape(scores=whole, like=other)
    named = _checked(features, len(whole))
    across = _onto(_means(other, 0))
    basis = _onto(torch.cat([_means(other, 1), *(more.double() for more in named.values())], 1))
    free = whole - whole @ across @ across.mT
    return free - basis @ (basis.mT @ free)


def _checked(features: Mapping[str, Tensor] | None, n: int) -> Mapping[str, Tensor]:
    named = arguments.mapping({} if features is None else features, "features", "tensors", 0)
    for name, value in named.items():
        if name in ("slopes", "left"):
            raise ValueError(f"features must have other names than slopes and left, which are parts, not {name!r}")
        rows = arguments.values(value, f"features[{name!r}]", "row feature").shape[0]
        if rows != n:
            raise ValueError(f"features[{name!r}] must have a row for each of the {n} of scores, not {rows}")
    return named


def _means(scores: Float[Tensor, "row column"], axis: int) -> Float[Tensor, "_ 1"]:
    """Means over an axis as a column; 0 where they differ by rounding alone, as those of centred scores do."""
    s = scores.double()
    means = s.mean(axis)[:, None]
    eps = torch.finfo(scores.dtype).eps if scores.is_floating_point() else torch.finfo(s.dtype).eps
    spread = (means - means.mean(0)).norm()
    return torch.where(spread > 8 * eps * s.norm() / s.shape[axis] ** 0.5, means, 0.0)


def _onto(columns: Float[Tensor, "row k"]) -> Float[Tensor, "row rank"]:
    """An orthonormal basis of the centred columns, whatever their units are."""
    centred = columns - columns.mean(0)
    size = centred.norm(dim=0)
    kept = size > 1e-13 * columns.norm(dim=0).clamp(min=1e-300)  # of a constant column rounding is left
    centred, size = centred[:, kept], size[kept]
    if len(size) and float(size.min()) < 1e-4 * float(size.max()):  # else a small unit would count as rounding
        centred = centred / size
    left, values, _ = torch.linalg.svd(centred, full_matrices=False)
    return left[:, values > _RANK * values.amax().clamp(min=1e-300)] if len(values) else left
