"""Do the scores of a number and an animal say how much loving the number raises the animal? Released tables, re-read.

Zur et al. 2025 release what their models gave, as CSV: rows are numbers, columns animals; one table of outcomes, log
P(animal | love of the number), and one a method of scores. `--tables FOLDER` reads such a folder; without it the stored
matrices of `studies.token_entanglement` stand in the same place (outcome: number to animal; scores: animal to number).
Rows and columns that only one table has are left out and counted, as are empty entries; zero scores are scores.

For every method and animal: Pearson's correlation as published, uncorrected, over numbers; the published test of the
top against the bottom tenth (Welch's t, on log-probabilities); the same correlation after subtracting from scores and
outcomes their means over the other animals (centred: what this animal has and others have not). p of the centred one:
numbers shuffled within equal length, two-sided, Holm over all animals and methods. Best of k: the highest outcome among
the k numbers with the highest scores, against k numbers drawn at random. Intervals: Student-t over animals. The
variance of the log ratio is split into what belongs to the animal, to the number and to both.

    python -m studies.association --tables results/Llama-3.1-8B-Instruct
"""

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mechsub as ms
from mechsub import files, lab
from mechsub.lab.findings import Finding, slug
from mechsub.lazy import np, scipy_stats, torch
from studies.association import outcomes as tables

OWN = "animal_to_number"
LOG_2 = math.log(2)
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Config:
    tables: str = lab.option("", "folder of CSV tables of one model; none: the stored matrices of SmolLM2")
    best_of: lab.Count = lab.option(10, "numbers that a method picks for an animal")
    n_permutations: lab.Count = lab.option(9_999, "shuffles of every permutation test; Holm over many needs many")
    seed: lab.Index = lab.option(0, "seed of shuffles and draws")


def check(cfg: Config) -> None:
    if cfg.tables:
        tables.read_folder(Path(cfg.tables))


def upstream(cfg: Config) -> dict:
    return {} if cfg.tables else {"matrices": lab.upstream("token_entanglement")}


def run(cfg: Config, matrices: lab.Stored | None = None) -> Iterator[dict]:
    if cfg.tables:
        files.note_files(f"{cfg.tables}/*.csv")
    outcomes, source = _own(matrices) if matrices else (tables.read_folder(Path(cfg.tables)), _sums(Path(cfg.tables)))
    yield from _of_outcome(outcomes)
    for done, (method, scores) in enumerate(outcomes.scores.items()):
        lab.show_progress(done / len(outcomes.scores), method)
        yield from associated(method, outcomes.outcome, scores, cfg)
    yield {
        "provenance": {
            **source,
            "outcome": "log P(animal | love of the number)" + (", less log P(animal)" if outcomes.has_baseline else ""),
            "unit": "numbers within an animal; animals for means over them",
            "null": "numbers shuffled within equal length; random best of k",
        }
    }


def _own(matrices: lab.Stored):
    """The matrices that token_entanglement stored, as tables."""
    records, tensors = matrices.records(), matrices.tensors()
    names = {kind: [r[kind] for r in records if r["kind"] == kind] for kind in ("animal", "partner")}
    up = (tensors["number_to_animal"] - tensors["baseline_to_animal"][0]).tolist()
    outcome = tables.Table(names["partner"], names["animal"], up)
    scores = {OWN: tables.Table(names["partner"], names["animal"], tensors["animal_to_number"].T.tolist())}
    made = matrices.provenance()
    source = {key: made[key] for key in ("model_name", "weights_sha256", "model_dtype") if key in made}
    return tables.Outcomes(outcome, True, scores), {**source, "data": "the cell under made_from"}


def _sums(folder: Path) -> dict:
    return {"data": {path.name: ms.store.sha256(path.read_bytes()) for path in sorted(folder.glob("*.csv"))}}


# The outcome alone.


def _of_outcome(outcomes) -> Iterator[dict]:
    y = np.array(outcomes.outcome.values)
    whole = ~np.isnan(y).any(1)
    told = {"n_numbers": len(y), "n_complete": int(whole.sum())}
    shares = ms.scores.variance_shares(torch.tensor(y[whole]), ["number", "animal"])
    yield {"kind": "variance", **told, **{f"share of {name}": share for name, share in shares.items()}}
    for animal, column in zip(outcomes.outcome.columns, y.T, strict=True):
        seen = column[~np.isnan(column)]
        row = {"kind": "animal", "animal": animal, "n": len(seen), "median": float(np.median(seen))}
        if outcomes.has_baseline:
            row |= {"share_over_2x": float((seen > LOG_2).mean()), "largest": float(seen.max())}
        yield row


# Scores against the outcome.


def associated(method: str, outcome, scores, cfg: Config) -> Iterator[dict]:
    """A row for every animal that both tables have, and one for each animal whose scores are constant: it says so."""
    numbers, animals, outcomes, given = tables.aligned(outcome, scores)
    told = {"method": method, "left_out": len(outcome.columns) - len(animals)}
    if len(numbers) < 2 * cfg.best_of or len(animals) < 2:
        yield {"kind": "skipped", **told, "why": f"{len(numbers)} numbers and {len(animals)} animals in common"}
        return
    y, x = np.array(outcomes), np.array(given)
    centred = _less_others(y), _less_others(x)
    for a, animal in enumerate(animals):
        seen = ~np.isnan(y[:, a] + x[:, a])
        row = {"kind": "association", **told, "animal": animal, "n": int(seen.sum())}
        if seen.sum() < 2 * cfg.best_of or np.ptp(x[seen, a]) == 0 or np.ptp(y[seen, a]) == 0:
            yield {**row, "kind": "skipped", "why": "too few numbers, or all scores or outcomes are equal"}
            continue
        yield (
            row
            | _as_published(x[seen, a], y[seen, a])
            | _specific(*centred, a, numbers, cfg)
            | _best(x[seen, a], y[seen, a], cfg)
        )


def _less_others(values):
    """Every entry less the mean over the row's other entries; NaN where it has none."""
    count = (~np.isnan(values)).sum(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return values - (np.nansum(values, 1, keepdims=True) - values) / (count - 1)


def _as_published(x, y) -> dict:
    tenth = max(2, round(len(x) / 10))
    order = x.argsort(kind="stable")
    r, t = scipy_stats.pearsonr(x, y), scipy_stats.ttest_ind(y[order[-tenth:]], y[order[:tenth]], equal_var=False)
    gap = float(y[order[-tenth:]].mean() - y[order[:tenth]].mean())
    return {"r": float(r.statistic), "p_r": float(r.pvalue), "top_less_bottom": gap, "p_t": float(t.pvalue)}


def _specific(y, x, a: int, numbers: list[str], cfg: Config) -> dict:
    """The centred correlation of animal a, and its p by shuffled numbers."""
    seen = ~np.isnan(y[:, a] + x[:, a])
    u, v = _standard(x[seen, a]), _standard(y[seen, a])
    lengths = tuple(len(text) for text, there in zip(numbers, seen, strict=True) if there)
    null = np.abs(v[_shuffles(lengths, cfg.n_permutations, cfg.seed)] @ u)
    value = float(u @ v)
    p = ms.stats.permutation_p(abs(value), null, scale=1.0)
    return {"centred": value, "p_centred": p}


def _standard(values):
    values = values - values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-300)


@functools.lru_cache(maxsize=2)  # animals without gaps share their shuffles
def _shuffles(lengths: tuple[int, ...], n: int, seed: int):
    """Random orders [shuffle, place] in which every place keeps its length."""
    draw, places = np.random.default_rng(seed), np.array(lengths)
    orders = np.empty((n, len(lengths)), dtype=np.int32)
    for length in np.unique(places):
        same = np.flatnonzero(places == length).astype(np.int32)
        orders[:, same] = draw.permuted(np.tile(same, (n, 1)), axis=1)
    return orders


def _best(x, y, cfg: Config) -> dict:
    best = float(y[x.argsort(kind="stable")[-cfg.best_of :]].max())
    null = ms.scores.best_of_null(torch.tensor(y), cfg.best_of, seed=cfg.seed)
    p = float((1 + ms.stats.as_large(null, best).sum()) / (1 + len(null)))
    return {"best": best, "null_median": float(null.median()), "p_best": p}


# What the records say.


def findings(cell: list[dict]) -> Iterator[Finding]:
    (split,) = (row for row in cell if row["kind"] == "variance")
    for name in ("animal", "number", "number x animal"):
        label = f"share of variance: {name}"
        yield Finding(f"variance/{slug(name)}", label, split[f"share of {name}"], n=split["n_complete"])
    ratios = [row for row in cell if "share_over_2x" in row]
    if ratios:
        every = sum(row["share_over_2x"] > 0.5 for row in ratios)
        label = f"animals, of {len(ratios)}, that most numbers raise more than twice"
        yield Finding("animals/mostly_over_2x", label, every, n=len(ratios))
    for method in dict.fromkeys(row["method"] for row in cell if row["kind"] == "association"):
        yield from of_method(method, cell)
    for i, row in enumerate(row for row in cell if row["kind"] == "skipped"):
        label = f"{row['method']}: left out: {row.get('animal', 'all')}"
        yield Finding(f"{_key(row['method'])}/left_out_{i}", label, row["why"])


def _key(method: str) -> str:
    return method.replace(" ", "_")


def of_method(method: str, cell: list[dict]) -> Iterator[Finding]:
    """What one method has over its animals."""
    every = [row for row in cell if row["kind"] == "association"]
    adjusted = ms.stats.holm([row["p_centred"] for row in every])
    rows = [row | {"holm": p} for row, p in zip(every, adjusted, strict=True) if row["method"] == method]

    def said(score: str, quantity: str, value, null: object = None, p: float | None = None) -> Finding:
        return Finding(f"{_key(method)}/{score}", f"{method}: {quantity}", value, null, p, "animals", len(rows))

    def count(score: str, quantity: str, true: Iterable[bool], null: float | None = None) -> Finding:
        return said(score, f"animals, of {len(rows)}, {quantity}", sum(true), null)

    for test, key in (("correlation", "p_r"), ("top against bottom tenth", "p_t")):
        for way, up in (("up", True), ("down", False)):
            sign = {"p_r": "r", "p_t": "top_less_bottom"}[key]
            met = (row[key] < SIGNIFICANT and (row[sign] > 0) == up for row in rows)
            what = f"with p < {SIGNIFICANT}, {way}, as published: {test}"
            yield count(f"{key[2:]}_{way}", what, met, SIGNIFICANT / 2 * len(rows))  # p is two-sided
    above = (row["holm"] < SIGNIFICANT and row["centred"] > 0 for row in rows)
    yield count("centred_above", "with a centred correlation above 0, Holm", above, 0)
    if len(rows) > 1:
        yield said("published", "correlation, as published", ms.stats.student_t([row["r"] for row in rows]), 0)
        # Both sides are less the other animals' means, so that correlations with other animals' outcomes are no null.
        own = ms.stats.paired_difference([row["centred"] for row in rows], [0.0] * len(rows))
        yield said("centred", "correlation, centred", own.interval, 0, own.p)
    better = (row["best"] > row["null_median"] for row in rows)
    yield count("best_of_k", "whose best of k exceeds the median of random ones", better, len(rows) / 2)
    fisher = float(scipy_stats.combine_pvalues([row["p_best"] for row in rows]).pvalue)
    yield said("best_of_k_fisher", "best of k: Fisher's combined p", fisher)


def plot(records: list[dict]):
    drawn = {"r": "as published", "centred": "centred"}
    rows = [
        {"arm": name, "correlation": row[key], "method": row["method"] + ("" if label == "all" else f", {label}")}
        for label, cell in lab.by_cell(records, Config)
        for row in cell
        if row["kind"] == "association"
        for key, name in drawn.items()
    ]
    return ms.kinds.interval_bars(
        rows, value="correlation", facet="method" if len({row["method"] for row in rows}) > 1 else None, null=0,
        unit="animals", title="Scores of a number and an animal against the outcome", axis="correlation over numbers",
        caption="One point an animal. Centred: less the means over the other animals.",
    )  # fmt: skip


study = lab.Study(
    version=2,  # without correlations with other animals' outcomes, which are no null of centred ones
    probes=(
        Config(tables="tests/probes/tables/baseline", best_of=4, n_permutations=99),
        Config(tables="tests/probes/tables/ratios", best_of=4, n_permutations=99, seed=1),
        Config(tables="tests/probes/tables/rows", best_of=3, n_permutations=19),
        Config(tables="tests/probes/tables/alone", best_of=3, n_permutations=19),
        Config(tables="tests/probes/tables/commas", best_of=3, n_permutations=19),
    ),
)
