"""How alike two representations of the same inputs are, and two changes of the same weights.

Sample-wise metrics map [*lead, sample, feature] to [*lead] in float64. They compare on the given inputs. No metric is
evidence without a null: untrained or cross-initialised networks can be very similar (Davari et al. 2210.16156).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mechsub import arguments
from mechsub.measures import distances
from mechsub.stats import permutation_p
from mechsub.threads import one_thread

Pair = tuple[Tensor, Tensor]


def linear_cka(
    x: Float[Tensor, "*lead sample d_x"], y: Float[Tensor, "*lead sample d_y"], *, debiased: bool = True
) -> Float[Tensor, "*lead"]:
    """Linear centred kernel alignment, HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)).

    Biased: ||Y'X||^2 / (||X'X|| ||Y'Y||) of centred features; about p / (p + n) for independent data of width p.
    Debiased: the unbiased HSIC_1 of Song et al. 2012, may be slightly negative, needs n >= 4.
    Source: Kornblith et al. 1905.00414; Murphy et al. 2405.01012.
    """
    return cka_from_terms(cka_terms(x, y, debiased=debiased))


@one_thread()
def cka_terms(
    x: Float[Tensor, "*lead sample d_x"], y: Float[Tensor, "*lead sample d_y"], *, debiased: bool = True
) -> Float[Tensor, "3 *lead"]:
    """HSIC of (x, y), (x, x), (y, y) on one minibatch. Sum the terms over batches, then `cka_from_terms`.

    The mean of ratios of batches is a different, biased quantity. Source: Nguyen, Raghu, Kornblith 2010.15327.
    """
    arguments.flag(debiased, "debiased")
    x, y = _varying(*_checked(x, y, 4 if debiased else 2))
    hsic = _hsic_unbiased if debiased else _hsic_biased
    return torch.stack([hsic(x, y), hsic(x, x), hsic(y, y)])


def cka_from_terms(terms: Float[Tensor, "3 *lead"]) -> Float[Tensor, "*lead"]:
    """The ratio of summed HSIC terms. Raises where the HSIC of a representation with itself is not positive."""
    arguments.values(terms, "terms", "3 *lead", floating=True)
    xy, xx, yy = terms
    if not ((xx > 0).all() and (yy > 0).all()):
        raise ValueError("CKA is not defined: a representation is constant, or varies too little for its samples")
    return xy / (xx * yy).sqrt()


@one_thread()
def rbf_cka(
    x: Float[Tensor, "*lead sample d_x"], y: Float[Tensor, "*lead sample d_y"], *, bandwidth: float = 0.5
) -> Float[Tensor, "*lead"]:
    """Biased CKA with kernels exp(-d^2 / (2 s^2)), s = bandwidth * median distance (Kornblith et al. 1905.00414)."""
    arguments.positive(bandwidth, "bandwidth")
    return _each(lambda a, b: _rbf_cka(a, b, bandwidth), *_checked(x, y, 2))


@one_thread()
def procrustes(x: Float[Tensor, "*lead sample d_x"], y: Float[Tensor, "*lead sample d_y"]) -> Float[Tensor, "*lead"]:
    """Similarity after the best rotation, ||X'Y||_* of centred features of unit Frobenius norm: 1 is a rotation.

    The squared distance is 2 - 2 similarity (Williams et al. 2110.14739; Ding et al. 2108.01661).
    """
    x, y = _unit(*_varying(*_checked(x, y, 2)))
    return torch.linalg.svdvals(x.mT @ y).sum(-1)


def identity_distance(x: Float[Tensor, "*lead sample d"], y: Float[Tensor, "*lead sample d"]) -> Float[Tensor, "*lead"]:
    """Frobenius distance without rotation, same normalisation. Its excess over sqrt(2 - 2 procrustes) is similarity
    that
    needs a rotation."""
    x, y = _unit(*_varying(*_checked(x, y, 2, same_units=True)))
    return torch.linalg.matrix_norm(x - y)


def mutual_knn(
    x: Float[Tensor, "*lead sample d_x"], y: Float[Tensor, "*lead sample d_y"], *, k: int = 10
) -> Float[Tensor, "*lead"]:
    """Mean share of the k nearest neighbours (Euclidean) in common; chance is k / (n - 1).

    Of t samples that tie for the last s places, each has s / t of a place, so that the order of rows does not matter.
    Where samples coincide (a dead ReLU layer), equal representations share less than 1: compare with mutual_knn(x, x).
    Source: Huh et al. 2405.07987.
    """
    k = arguments.whole(k, "k", 1)
    x, y = _varying(*_checked(x, y, k + 2))
    return _each(lambda a, b: (_neighbours(a, k) * _neighbours(b, k)).mean() * len(a) / k, x, y)


@one_thread()
def linear_r2(
    x: Float[Tensor, "*lead sample d_x"], y: Float[Tensor, "*lead sample d_y"], *, seed: int = 0
) -> Float[Tensor, "*lead"]:
    """Held-out R^2 of y from x by ridge regression, pooled over features: 1 - sum of squares left / in all.

    Half the samples train, half test; the strength is chosen on a quarter of all samples, cut from the training half.
    Asymmetric; 0 or below for unrelated data.
    """
    seed = arguments.seed(seed)
    x, y = _checked(x, y, 16)
    order = torch.randperm(x.shape[-2], generator=torch.Generator().manual_seed(seed), device="cpu").to(x.device)
    train, test = order.split([len(order) // 2, len(order) - len(order) // 2])
    fit, choose = train.split([len(train) // 2, len(train) - len(train) // 2])
    _varying(x[..., fit, :], y[..., test, :])
    grid = torch.tensor([1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1e3], dtype=x.dtype, device=x.device)
    chosen = grid[_ridge_r2(x, y, fit, choose, list(grid)).argmax(0)]
    return _ridge_r2(x, y, train, test, [chosen[..., None]])[0]


@one_thread()
def mean_cosine(x: Float[Tensor, "*lead sample d"], y: Float[Tensor, "*lead sample d"]) -> Float[Tensor, "*lead"]:
    """Mean over samples of cos(x_i, y_i), not centred, not invariant to rotation; an all-zero sample counts 0."""
    x, y = _checked(x, y, 1, same_units=True)
    return torch.nn.functional.cosine_similarity(x, y, dim=-1, eps=1e-30).mean(-1)


@one_thread()
def unit_correlation(x: Float[Tensor, "*lead sample d"], y: Float[Tensor, "*lead sample d"]) -> Float[Tensor, "*lead"]:
    """Mean Pearson correlation of unit i with unit i, over units that vary on both sides."""
    x, y = _centred(*_checked(x, y, 3, same_units=True))
    norms = x.norm(dim=-2) * y.norm(dim=-2)
    alive = norms > 1e-12 * norms.amax(-1, keepdim=True)
    if not (norms.amax(-1) > 0).all():
        raise ValueError("no unit varies on both sides")
    r = (x * y).sum(-2) / norms.where(alive, torch.ones_like(norms))
    return (r * alive).sum(-1) / alive.sum(-1)


def gate_agreement(x: Float[Tensor, "*lead sample d"], y: Float[Tensor, "*lead sample d"]) -> Float[Tensor, "*lead"]:
    """Share of (sample, unit) whose ReLU gates agree, P(1[x > 0] = 1[y > 0]). Raises where no unit is ever active."""
    x, y = _checked(x, y, 1, same_units=True)
    if not all((v > 0).any(-1).any(-1).all() for v in (x, y)):
        raise ValueError("no unit of a layer is ever active: its gates say nothing")
    return ((x > 0) == (y > 0)).double().mean((-2, -1))


METRICS: dict[str, Callable[..., Tensor]] = {
    "debiased_cka": linear_cka,
    "biased_cka": lambda x, y: linear_cka(x, y, debiased=False),
    "rbf_cka": rbf_cka,
    "procrustes": procrustes,
    "identity_distance": identity_distance,
    "mutual_knn": mutual_knn,
    "linear_r2": linear_r2,
    "linear_r2_reverse": lambda x, y: linear_r2(y, x),
    "cosine": mean_cosine,
    "unit_correlation": unit_correlation,
    "gate_agreement": gate_agreement,
}


def is_distance(metric: Callable[..., Tensor] | str, x: Float[Tensor, "sample d"]) -> bool:
    """Whether a smaller value means more alike.

    `distances` knows this of METRICS. Any other metric is a distance if x compared with itself gives less than x
    compared with its samples in reverse order. Raises where the two are equal.
    """
    metric = _metric(metric)
    arguments.values(x, "x", "sample d")
    for name, function in METRICS.items():
        if metric is function:
            return distances.sign(name) < 0
    same, other = (float(torch.as_tensor(metric(x, y)).double().mean()) for y in (x, x.flip(-2)))
    if same == other:
        raise ValueError("the metric has one value for equal and for different samples, so it has no direction")
    return same < other


def hidden_alignment(
    cache_a: dict[str, Tensor], cache_b: dict[str, Tensor], metric: Callable[..., Tensor] | str = linear_cka
) -> dict[str, Float[Tensor, "*lead"]]:
    """A metric between two models' activations (`cache_activations`), hook by hook: a function, or its name in METRICS.

    Raises if the hooks differ.
    """
    for name, cache in (("cache_a", cache_a), ("cache_b", cache_b)):
        arguments.mapping(cache, name, "activations")
    metric = _metric(metric)
    if list(cache_a) != list(cache_b):
        raise ValueError(f"cache_a and cache_b hold different hooks: {list(cache_a)} and {list(cache_b)}")
    return {name: metric(cache_a[name], cache_b[name]) for name in cache_a}


@one_thread()
def weight_cosine(student_change: Tensor, teacher_change: Tensor, n_lead: int = 1) -> Float[Tensor, "*lead"]:
    """cos(dW_student, dW_teacher), each change from the model's own start. Null: a cross-initialised student."""
    s, t = _flat(student_change, teacher_change, n_lead)
    return (s * t).sum(-1) / (s.norm(dim=-1) * t.norm(dim=-1))


@one_thread()
def projection_share(student_change: Tensor, teacher_change: Tensor, n_lead: int = 1) -> Float[Tensor, "*lead"]:
    """<dW_student, dW_teacher> / ||dW_teacher||^2: the part of the teacher's displacement that the student has gone."""
    s, t = _flat(student_change, teacher_change, n_lead)
    return (s * t).sum(-1) / t.square().sum(-1)


@one_thread()
def permutation_null(
    x: Float[Tensor, "sample d_x"],
    y: Float[Tensor, "sample d_y"],
    metric: Callable[..., Tensor] | str = linear_cka,
    *,
    n_permutations: int = 100,
    seed: int = 0,
) -> dict[str, float]:
    """The metric, the 95% quantile of its null (samples of y permuted), and p = (k + 1) / (B + 1).

    One-sided: k counts permuted pairs that are at least as alike. For a distance (`is_distance`) these have smaller
    values, and the quantile is "quantile05" in place of "quantile95".
    """
    for name, side in (("x", x), ("y", y)):
        arguments.tensor(side, name, "sample d")
    metric = _metric(metric)
    n_permutations = arguments.whole(n_permutations, "n_permutations", 1)
    generator = torch.Generator().manual_seed(arguments.seed(seed))
    value = float(metric(x, y))
    orders = [torch.randperm(len(y), generator=generator, device="cpu") for _ in range(n_permutations)]
    null = torch.tensor([float(metric(x, y[order])) for order in orders], dtype=torch.float64)
    sign = -1 if is_distance(metric, x) else 1
    limit = ("quantile95", 0.95) if sign > 0 else ("quantile05", 0.05)
    p = permutation_p(sign * value, (sign * null).tolist(), scale=1.0)
    return {"value": value, limit[0]: float(null.quantile(limit[1])), "p": p}


def _metric(metric: Callable[..., Tensor] | str) -> Callable[..., Tensor]:
    if isinstance(metric, str):
        return METRICS[arguments.choice("debiased_cka" if metric == "linear_cka" else metric, "metric", METRICS)]
    return arguments.function(metric, "metric")


def _checked(x: Tensor, y: Tensor, at_least: int, *, same_units: bool = False) -> Pair:
    """Both in fp64. `same_units`: unit i is compared with unit i, so widths must agree (they could broadcast)."""
    for name, side in (("x", x), ("y", y)):
        arguments.tensor(side, name, "*lead sample d")
    if x.shape[:-1] != y.shape[:-1] or (same_units and x.shape != y.shape):
        axes = "units or samples" if same_units else "samples"
        raise ValueError(f"{axes} do not match: x and y are {tuple(x.shape)} and {tuple(y.shape)}")
    if x.shape[-2] < at_least:
        raise ValueError(f"x and y need at least {at_least} samples, not {x.shape[-2]}")
    return arguments.finite(x.double(), "x"), arguments.finite(y.double(), "y")


def _centred(x: Tensor, y: Tensor) -> Pair:
    # Before any product: an offset of the features would otherwise swamp the Gram matrix.
    return x - x.mean(-2, keepdim=True), y - y.mean(-2, keepdim=True)


def _varying(x: Tensor, y: Tensor) -> Pair:
    """Centred over samples; raises where only the rounding of a common offset is left."""
    centred = _centred(x, y)
    for whole, rest in zip((x, y), centred, strict=True):
        size, left = torch.linalg.matrix_norm(whole), torch.linalg.matrix_norm(rest)
        if not (left > 1e-10 * size).all():
            raise ValueError("a representation is constant over the samples")
    return centred


def _unit(x: Tensor, y: Tensor) -> Pair:
    norms = [torch.linalg.matrix_norm(v)[..., None, None] for v in (x, y)]
    return x / norms[0], y / norms[1]


def _cross(x: Tensor, y: Tensor) -> Tensor:
    """tr(K L) of linear kernels, in whichever of feature or sample space is smaller."""
    if x.shape[-1] * y.shape[-1] <= x.shape[-2] ** 2:
        return (x.mT @ y).square().sum((-2, -1))
    return ((x @ x.mT) * (y @ y.mT)).sum((-2, -1))


def _hsic_biased(x: Tensor, y: Tensor) -> Tensor:
    return _cross(x, y) / (x.shape[-2] - 1) ** 2


def _hsic_unbiased(x: Tensor, y: Tensor) -> Tensor:
    """Song et al. 2012 (JMLR 13), eq. 5, for linear kernels K, L with zeroed diagonals, without forming them.

    Features are centred, so a row of the full K sums to 0 and of the zeroed one to -k_ii.
    """
    n = x.shape[-2]
    k, m = x.square().sum(-1), y.square().sum(-1)
    trace, rows = _cross(x, y) - (k * m).sum(-1), (k * m).sum(-1)
    total = k.sum(-1) * m.sum(-1)
    return (trace + total / ((n - 1) * (n - 2)) - 2 * rows / (n - 2)) / (n * (n - 3))


def _squared_distances(x: Tensor) -> Tensor:
    x = x - x.mean(-2, keepdim=True)
    norms = x.square().sum(-1)
    return (norms[..., None] + norms[..., None, :] - 2 * x @ x.mT).clamp_min(0)


def _each(metric: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    # One n x n matrix at a time stays in the cache; all seeds' at once are several times slower.
    lead = x.shape[:-2]
    pairs = zip(x.reshape(-1, *x.shape[-2:]), y.reshape(-1, *y.shape[-2:]), strict=True)
    return torch.stack([metric(a, b) for a, b in pairs]).reshape(lead)


def _rbf_cka(x: Tensor, y: Tensor, bandwidth: float) -> Tensor:
    k, m = (_double_centred(_rbf(v, bandwidth)) for v in (x, y))
    return cka_from_terms(torch.stack([(k * m).sum(), k.square().sum(), m.square().sum()]))


def _rbf(x: Tensor, bandwidth: float) -> Tensor:
    squared = _squared_distances(x)
    if not (middle := squared.median()) > 0:
        raise ValueError("the median distance is 0: half of the samples coincide, and the kernel has no width")
    return torch.exp(-squared / (2 * bandwidth**2 * middle))


def _double_centred(k: Tensor) -> Tensor:
    return k - k.mean(-1, keepdim=True) - k.mean(-2, keepdim=True) + k.mean()


def _neighbours(x: Tensor, k: int) -> Tensor:
    """[n, n], 1 where j is among the k nearest of i, a share of it where more tie for the last places, else 0."""
    squared = _squared_distances(x)
    squared.fill_diagonal_(torch.inf)
    farthest = squared.topk(k, largest=False).values[:, -1:]
    size = 1e-12 * float(x.square().sum(-1).max())  # equal distances differ by the rounding of their terms
    nearer, tied = squared < farthest - size, (squared - farthest).abs() <= size
    left = k - nearer.sum(-1, keepdim=True)
    return nearer.double() + tied.double() * left / tied.sum(-1, keepdim=True)


def _ridge_r2(x: Tensor, y: Tensor, train: Tensor, test: Tensor, strengths: list[Tensor]) -> Tensor:
    """R^2 on `test` for every strength, [strength, *lead]; one eigendecomposition serves them all."""
    a, b = x[..., train, :], y[..., train, :]
    a_mean, b_mean = a.mean(-2, keepdim=True), b.mean(-2, keepdim=True)
    a, target = a - a_mean, y[..., test, :]
    values, basis = torch.linalg.eigh(a.mT @ a)
    rotated = basis.mT @ (a.mT @ (b - b_mean))
    seen = (x[..., test, :] - a_mean) @ basis
    whole = (target - target.mean(-2, keepdim=True)).square().sum((-2, -1))
    scale = values.mean(-1, keepdim=True) + 1e-30
    left = [
        (target - b_mean - seen @ (rotated / (values + strength * scale)[..., None])).square().sum((-2, -1))
        for strength in strengths
    ]
    return 1 - torch.stack(left) / whole


def _flat(a: Tensor, b: Tensor, n_lead: int) -> Pair:
    for name, side in (("student_change", a), ("teacher_change", b)):
        arguments.values(side, name, "*lead weight")
    arguments.same_shape(student_change=a, teacher_change=b)
    n_lead = arguments.whole(n_lead, "n_lead", 0, a.ndim - 1)
    a, b = a.double().flatten(n_lead), b.double().flatten(n_lead)
    if not ((a.norm(dim=-1) > 0).all() and (b.norm(dim=-1) > 0).all()):
        raise ValueError("student_change or teacher_change is 0: what has not changed has no direction")
    return a, b
