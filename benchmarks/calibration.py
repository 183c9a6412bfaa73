"""Do intervals cover, are p-values of true nulls uniform, and is debiased CKA unbiased? By simulation.

    python benchmarks/calibration.py [intervals nulls cka]

Coverage is the share of simulated experiments whose 95% interval holds the true value, with its Monte-Carlo standard
error; p-values are tested against the uniform distribution (Kolmogorov-Smirnov) on 2,000 simulated nulls each. Where
a method is known to fail (skewed values, few seeds) it is measured too, and its row says what it is. Fixed seeds: the
same versions print the same numbers.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mechsub import stats
from mechsub.lab import store
from mechsub.measures import scores, similarity

NULLS = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="intervals, nulls, cka (default: all)")
    parts = {"intervals": print_intervals, "nulls": print_nulls, "cka": print_cka}
    chosen = parser.parse_args().parts or list(parts)
    if unknown := set(chosen) - set(parts):
        parser.error(f"unknown part {sorted(unknown)[0]!r}; choose from {', '.join(parts)}")
    began = time.perf_counter()
    for part in chosen:
        parts[part]()
    print(f"{time.perf_counter() - began:.0f} s")


# Intervals.


def coverage(interval: Callable[[np.random.Generator], tuple[float, float]], truth: float, trials: int) -> float:
    """Share of `trials` experiments, each with a generator of its own, whose interval holds the truth."""
    found = [interval(np.random.default_rng([trial, 1])) for trial in range(trials)]
    return sum(low <= truth <= high for low, high in found) / trials


def ends(interval: stats.Interval) -> tuple[float, float]:
    return interval.low, interval.high


def mean_of(draw: Callable, n: int, method: Callable) -> Callable:
    return lambda rng: ends(method(draw(rng, n)))


def normal(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.normal(size=n)


def lognormal(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.lognormal(size=n)


def stored_accuracies() -> list[float]:
    """Of the 25 students on auxiliary logits whose cell the repository holds."""
    cell = Path(__file__).parents[1] / "artifacts" / "subliminal_accuracy" / "default"
    return [row["accuracy"] for row in store.read_records(cell) if row["arm"] == "student_aux"]


def resampled(values: list[float]) -> Callable:
    """Draws from what was measured, as if it were the population."""
    return lambda rng, n: rng.choice(values, n)


def paired(n: int) -> Callable:
    """Two arms that share their seeds' variation, with a true difference of 0.3."""

    def experiment(rng: np.random.Generator) -> tuple[float, float]:
        seeds, noise = rng.normal(size=n), rng.normal(size=(2, n))
        return ends(stats.paired_difference(seeds + 0.5 * noise[0] + 0.3, seeds + 0.5 * noise[1]).interval)

    return experiment


def rank_correlation(rho: float) -> float:
    """Population Spearman of a bivariate normal with correlation rho (Pearson 1907)."""
    return 6 / math.pi * math.asin(rho / 2)


def correlated(rng: np.random.Generator, rho: float, size) -> tuple[np.ndarray, np.ndarray]:
    x, noise = rng.normal(size=size), rng.normal(size=size)
    return x, rho * x + math.sqrt(1 - rho * rho) * noise


def pairs(rho: float, n: int) -> Callable:
    return lambda rng: ends(stats.spearman(*correlated(rng, rho, n)))


def clusters(rho: float, n: int, members: int, resamples: int) -> Callable:
    """Pairs in clusters: half of both sides' variance is the cluster's, with correlation rho within and between."""

    def experiment(rng: np.random.Generator) -> tuple[float, float]:
        common, own = correlated(rng, rho, (n, 1)), correlated(rng, rho, (n, members))
        x, y = ((c + o).ravel() for c, o in zip(common, own, strict=True))
        labels = np.repeat(np.arange(n), members)
        return ends(stats.clustered_spearman(x, y, labels, n_resamples=resamples, seed=int(rng.integers(2**31))))

    return experiment


def spearman_of_clusters(rho: float, n: int, members: int) -> Callable:
    """The same data with `spearman`, which takes pairs as independent."""

    def experiment(rng: np.random.Generator) -> tuple[float, float]:
        common, own = correlated(rng, rho, (n, 1)), correlated(rng, rho, (n, members))
        return ends(stats.spearman(*((c + o).ravel() for c, o in zip(common, own, strict=True))))

    return experiment


def crossed(rows: int, columns: int, r: float, noise: float, resamples: int) -> tuple[Callable, float]:
    """Correlation of two interactions, as token_entanglement reports it, and its population value.

    Crossed random effects: x_ij = u_i + v_j + a_i b_j + e_ij, and y_ij with factors a', b' that have correlation r with
    a, b and noise of its own. cov(x, y) of the interactions is r^2, their variances 1 + noise^2.
    """

    def experiment(rng: np.random.Generator) -> tuple[float, float]:
        a, b = correlated(rng, r, rows), correlated(rng, r, columns)
        x, y = (
            torch.from_numpy(
                rng.normal(size=(rows, 1)) + rng.normal(size=columns) + np.outer(a[i], b[i])
                + noise * rng.normal(size=(rows, columns))
            )
            for i in (0, 1)
        )  # fmt: skip
        x, y = scores.interaction(x), scores.interaction(y)

        def again(i, j) -> float:
            inner = (scores.interaction(m[i][:, j]) for m in (x, y))
            return scores.matrix_correlation(*inner)

        return scores.crossed_bootstrap(again, rows, columns, n=resamples, seed=int(rng.integers(2**31)))

    return experiment, r * r / (1 + noise**2)


def crossed_mean(rows: int, columns: int, resamples: int) -> Callable:
    """The mean of a matrix u_i + v_j + e_ij: 0."""

    def experiment(rng: np.random.Generator) -> tuple[float, float]:
        x = rng.normal(size=(rows, 1)) + rng.normal(size=columns) + rng.normal(size=(rows, columns))
        mean = torch.from_numpy(x)

        def again(i, j) -> float:
            return float(mean[i][:, j].mean())

        return scores.crossed_bootstrap(again, rows, columns, n=resamples, seed=int(rng.integers(2**31)))

    return experiment


def clopper_pearson_least(n: int) -> tuple[float, float]:
    """Least and mean exact coverage over proportions 0.01 .. 0.99: a sum over k, no simulation."""
    from scipy.stats import binom

    limits = [ends(stats.clopper_pearson(k, n)) for k in range(n + 1)]
    covered = [
        sum(binom.pmf(k, n, p) for k, (low, high) in enumerate(limits) if low <= p <= high)
        for p in np.linspace(0.01, 0.99, 197)
    ]
    return float(min(covered)), float(np.mean(covered))


def print_intervals() -> None:
    print("coverage of nominal 95% intervals (Monte-Carlo standard error)")
    none, weak, strong = (crossed(120, 52, r, noise, 299) for r, noise in ((0.0, 1.0), (0.5, 1.0), (0.9, 0.5)))
    exp_half = math.exp(0.5)
    t, paired_t, boot = stats.student_t, "paired_difference", stats.bootstrap
    known = stored_accuracies()
    rows = [
        *((f"student_t, normal, n = {n}", mean_of(normal, n, t), 0.0, 20_000) for n in (3, 5, 10, 25)),
        *((f"student_t, lognormal, n = {n}", mean_of(lognormal, n, t), exp_half, 20_000) for n in (5, 25)),
        *(
            (f"student_t, stored accuracies, n = {n}", mean_of(resampled(known), n, t), float(np.mean(known)), 20_000)
            for n in (5, 25)
        ),
        *((f"{paired_t}, normal, n = {n}", paired(n), 0.3, 20_000) for n in (5, 25)),
        *((f"bootstrap, normal, n = {n}", mean_of(normal, n, boot), 0.0, 2_000) for n in (25, 100)),
        ("bootstrap, lognormal, n = 25", mean_of(lognormal, 25, boot), exp_half, 2_000),
        *(
            (f"spearman, n = {n}, rho {rho}", pairs(rho, n), rank_correlation(rho), 10_000)
            for n in (10, 25, 100)
            for rho in (0.0, 0.5, 0.9)
        ),
        *(
            (f"clustered_spearman, {n} clusters of 4, rho {rho}", clusters(rho, n, 4, 500), rank_correlation(rho), 500)
            for n in (10, 25)
            for rho in (0.0, 0.7)
        ),
        ("spearman of the 25 clusters of 4, rho 0.7", spearman_of_clusters(0.7, 25, 4), rank_correlation(0.7), 4_000),
        ("crossed_bootstrap, no correlation, 120 x 52", *none, 500),
        (f"crossed_bootstrap, correlation {weak[1]:.3f}, 120 x 52", *weak, 500),
        (f"crossed_bootstrap, correlation {strong[1]:.3f}, 120 x 52", *strong, 500),
        ("crossed_bootstrap, mean of a matrix, 120 x 52", crossed_mean(120, 52, 299), 0.0, 1_000),
    ]
    for name, experiment, truth, trials in rows:
        share = coverage(experiment, truth, trials)
        print(f"  {name:52} {share:.4f} ({math.sqrt(share * (1 - share) / trials):.4f}), {trials} trials", flush=True)
    for n in (10, 49, 104):
        least, mean = clopper_pearson_least(n)
        print(f"  {f'clopper_pearson, n = {n}':52} {least:.4f} at least, {mean:.4f} on average over p (exact)")


# Nulls.


def null_paired(draw: Callable, n: int) -> Callable:
    return lambda rng, i: stats.paired_difference(draw(rng, n), draw(rng, n)).p


def null_sign_flip(n: int, flips: int) -> Callable:
    return lambda rng, i: stats.sign_flip_p(rng.normal(size=n), n_flips=flips, seed=i)


def null_permutation(rng: np.random.Generator, i: int) -> float:
    draws = rng.normal(size=1000)
    return stats.permutation_p(float(draws[0]), draws[1:])


def null_spearman(n: int) -> Callable:
    return lambda rng, i: stats.spearman_p(rng.normal(size=n), rng.normal(size=n))


def null_two_way(shuffles: int, *, strata: bool = False, effect: str = "none") -> Callable:
    """Two interactions that both have factors of rows and columns, independent of each other.

    effect: a row's stratum moves columns in "none" of them, in both by directions of their "own", or by one "shared".
    """

    def experiment(rng: np.random.Generator, i: int) -> float:
        groups, directions = np.repeat([1.0, -1.0], [10, 20]), rng.normal(size=(2, 20))
        moved = {"none": 0 * directions, "own": directions, "shared": directions[[0, 0]]}[effect]
        x, y = (
            scores.interaction(
                torch.from_numpy(
                    np.outer(rng.normal(size=30), rng.normal(size=20))
                    + rng.normal(size=(30, 20))
                    + np.outer(groups, direction)
                )
            )
            for direction in moved
        )
        return scores.permutation_p(x, y, n=shuffles, seed=i, strata=groups.tolist() if strata else None)[0]

    return experiment


def null_cka(rng: np.random.Generator, i: int) -> float:
    x, y = (torch.from_numpy(rng.normal(size=(32, 16))) for _ in (0, 1))
    return similarity.permutation_null(x, y, n_permutations=99, seed=i)["p"]


def null_p_values(experiment: Callable, n: int = NULLS) -> np.ndarray:
    return np.array([experiment(np.random.default_rng([i, 2]), i) for i in range(n)])


def uniform_p(values: np.ndarray) -> float:
    """p of the Kolmogorov-Smirnov test against the uniform distribution."""
    from scipy.stats import kstest

    return float(kstest(values, "uniform").pvalue)


def print_nulls() -> None:
    print(f"p-values of {NULLS} true nulls: p of Kolmogorov-Smirnov against uniform, share of p <= 0.05")
    rows = {
        "stats.permutation_p, 999 draws": null_permutation,
        "stats.sign_flip_p, n = 25, 999 flips": null_sign_flip(25, 999),
        "stats.sign_flip_p, n = 12, 999 flips": null_sign_flip(12, 999),
        "stats.sign_flip_p, n = 5 (16 possible values)": null_sign_flip(5, 999),
        "stats.spearman_p, n = 10": null_spearman(10),
        "stats.spearman_p, n = 25": null_spearman(25),
        "stats.paired_difference, normal, n = 5": null_paired(normal, 5),
        "stats.paired_difference, normal, n = 25": null_paired(normal, 25),
        "stats.paired_difference, lognormal, n = 5": null_paired(lognormal, 5),
        "entanglement.permutation_p, 30 x 20, 199 shuffles": null_two_way(199),
        "the same, strata act on either, and are given": null_two_way(199, strata=True, effect="own"),
        "the same, strata act on either, and are not given": null_two_way(199, effect="own"),
        "the same, strata act on both alike, and are given": null_two_way(199, strata=True, effect="shared"),
        "similarity.permutation_null, 32 x 16, 99 shuffles": null_cka,
    }
    for name, experiment in rows.items():
        values = null_p_values(experiment)
        print(f"  {name:52} {uniform_p(values):.3f}  {np.mean(values <= 0.05):.4f}", flush=True)


# Debiased CKA.


def cka_of_independent(n: int, p: int, draws: int, *, debiased: bool = True) -> torch.Tensor:
    """CKA of independent normal data, one value a draw."""
    generator = torch.Generator().manual_seed(3)

    def batch() -> torch.Tensor:
        x, y = torch.randn(2, 50, n, p, generator=generator, dtype=torch.float64)
        return similarity.linear_cka(x, y, debiased=debiased)

    return torch.cat([batch() for _ in range(-(-draws // 50))])[:draws]


def cka_of_related(n: int, p: int, draws: int, mix: float) -> tuple[torch.Tensor, float]:
    """CKA of x and mix * x + noise, one value a draw, and the same quantity on 20,000 samples."""
    generator = torch.Generator().manual_seed(4)

    def data(*lead: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, noise = torch.randn(2, *lead, p, generator=generator, dtype=torch.float64)
        return x, mix * x + noise

    large = float(similarity.linear_cka(*data(20_000)))
    return torch.cat([similarity.linear_cka(*data(50, n)) for _ in range(draws // 50)]), large


def print_cka() -> None:
    print("debiased CKA of independent data (biased beside it): mean (standard error)")
    for n, p in ((32, 256), (64, 256), (512, 256), (64, 1024)):
        values, biased = cka_of_independent(n, p, 4_000), cka_of_independent(n, p, 200, debiased=False)
        error = float(values.std()) / math.sqrt(len(values))
        print(f"  n = {n}, p = {p}: {float(values.mean()):+.5f} ({error:.5f}); biased {float(biased.mean()):.3f}")
    print("debiased CKA of x and m x + noise at n = 64, p = 256, against 20,000 samples of the same")
    for mix in (0.5, 1.0, 2.0):
        values, large = cka_of_related(64, 256, 2_000, mix)
        error = float(values.std()) / math.sqrt(len(values))
        print(f"  m = {mix}: {float(values.mean()):.4f} ({error:.4f}), {large:.4f}", flush=True)


if __name__ == "__main__":
    main()
