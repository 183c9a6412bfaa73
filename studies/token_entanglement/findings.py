"""Findings and figure of `studies.token_entanglement`, from the records of its cells."""

from collections.abc import Iterator, Sequence

import mechsub as ms
from mechsub import stats
from mechsub.designs.love import KINDS, TWICE
from mechsub.lab import nulls
from mechsub.lab.findings import Cell, Drawn, Finding, cells, holm, slug
from studies.token_entanglement import BEST_OF, Config


def findings(cell: list[dict]) -> Iterator[Finding]:
    kinds, family = _by_kind(cell), cell[0]["family"]
    yield from _doubled(kinds["animal"], KINDS[family])
    yield from _places(kinds["animal"], KINDS[family], len(kinds["partner"]))
    yield _best_of(kinds["animal"], family)
    yield from _baselines(kinds)
    for row in kinds["share"]:
        label = f"share of {row['table']}: {row['source']}".replace("number", KINDS[family])
        yield Finding(f"{slug(row['table'])}/share_{slug(row['source'])}", label, row["share"])
    yield from (_correlation(row, family) for row in kinds["test"])
    yield from holm(_list(row) for row in kinds["list"])


def comparisons(cells: Sequence[Cell]) -> list[Finding]:
    """What is said of trained weights, beside the same of weights that never saw a text."""
    return nulls.beside(cells, "weights", "trained", "random", "untrained weights")


def _doubled(animals: list[dict], one: str) -> Iterator[Finding]:
    """The papers' measure: both directions above twice."""
    random = sum(a["share_of_numbers_over_2x_both"] for a in animals) / len(animals)
    yield Finding("random/over_2x", f"animals over 2x both ways, a random {one}", random)
    for by in ("probability", "ratio", "interaction"):
        raised = [a[f"animal_to_number_by_{by}"] > TWICE for a in animals]
        both = [up and a[f"number_to_animal_by_{by}"] > TWICE for up, a in zip(raised, animals, strict=True)]
        chance = [up * a[f"others_over_2x_by_{by}"] for up, a in zip(raised, animals, strict=True)]
        yield Finding(
            f"by_{by}/over_2x", f"animals over 2x both ways, {one} by {by}",
            stats.clopper_pearson(sum(both), len(both)), sum(chance) / len(chance),
            stats.sign_flip_p([own - other for own, other in zip(both, chance, strict=True)]), "animals",
            null_label=f"the {one} of another animal, chosen so",
        )  # fmt: skip


def _places(animals: list[dict], one: str, n_partners: int) -> Iterator[Finding]:
    for by in ("probability", "interaction"):
        places = [a[f"percentile_by_{by}"] for a in animals]
        label = f"place of the {one} by {by} among all {n_partners}, for its animal"
        p = stats.sign_flip_p([place - 0.5 for place in places])
        yield Finding(f"by_{by}/place", label, stats.student_t(places), 0.5, p, "animals")


def _best_of(animals: list[dict], many: str) -> Finding:
    adjusted = stats.benjamini_yekutieli([a["best_of_k_p"] for a in animals])
    found = stats.clopper_pearson(sum(p < 0.05 for p in adjusted), len(adjusted))
    label = f"animals whose best of {BEST_OF} {many} beats random best of {BEST_OF} (BY < 0.05)"
    return Finding("best_of/beats_random", label, found, 0.0, unit="animals")


def _baselines(kinds: dict[str, list[dict]]) -> Iterator[Finding]:
    """Checks: what being loved does to the animal itself, and what other prompts without a number do."""
    loved = stats.student_t([a["loved"] for a in kinds["animal"]])
    yield Finding("loved/effect", "effect of being loved on the animal itself, nats", loved, 0.0, unit="animals")
    for name in dict.fromkeys(row["baseline"] for row in kinds["baseline"]):
        if name != "none":
            value = stats.student_t([row["log_ratio"] for row in kinds["baseline"] if row["baseline"] == name])
            yield Finding(f"{slug(name)}/log_ratio", f"log ratio to none: {name}, nats", value, 0.0, unit="animals")


def _correlation(row: dict, many: str) -> Finding:
    """Beside the stricter of its two nulls."""
    stricter = "null_numbers" if row["p_numbers"] >= row["p"] else "null"
    shuffled = "shuffled within length" if stricter == "null_numbers" else "and animals shuffled"
    return Finding(
        f"{slug(row['test'])}/correlation",
        f"correlation of interactions: {row['test'].replace('number', KINDS[many])}",
        stats.Interval(row["value"], row["low"], row["high"], row["animals"]),
        Drawn(row[f"{stricter}_mean"], row[f"{stricter}_95"]), max(row["p"], row["p_numbers"]),
        "animals and numbers (crossed)", null_label=f"{many} {shuffled}",
    )  # fmt: skip


def _list(row: dict) -> Finding:
    label = f"listed animals above others: {row['list']} ({row['n']} animals)"
    return Finding(f"{row['list']}/listed", label, row["value"], 0.5, row["p"], "animals", row["n"])


def _by_kind(cell: list[dict]) -> dict[str, list[dict]]:
    kinds: dict[str, list[dict]] = {
        name: [] for name in ("animal", "partner", "baseline", "share", "test", "list", "pair")
    }
    for row in cell:
        kinds[row["kind"]].append(row)
    return kinds


def plot(records: list[dict]):
    first = cells(records, Config, findings)[0]
    kinds, cell = _by_kind(first.rows), first.rows
    animals, pairs, family = kinds["animal"], kinds["pair"], cell[0]["family"]
    up = [a["number_to_animal_by_probability"] for a in animals]
    down = [a["animal_to_number_by_probability"] for a in animals]
    chance = first.finding("random/over_2x").value
    shares = [(row["table"], " x ".join(sorted(row["source"].split(" x "))), row["share"]) for row in kinds["share"]]
    entries = [(row["animal"], row["partner"], row["number_to_animal"]) for row in pairs]
    panels = {
        "The papers' ratios, number chosen by probability": ms.kinds.ratio_scatter(
            down, up, [a["animal"] for a in animals], f"animal to {family}", f"{family} to animal"
        ),
        "Share of animals up to a ratio": ms.kinds.ecdf(
            {f"animal to {family}": down, f"{family} to animal": up}, "ratio to no system message"
        ),
        "Shares of variance": ms.kinds.shares(shares),
        "Interaction in nats, its largest entries": ms.kinds.matrix(entries, "animal scored", f"{family} loved"),
    }
    more = f" ({first.label}; other cells are in the table)" if first.label else ""
    return ms.kinds.grid(
        list(panels.values()),
        list(panels),
        title=f"Token entanglement: {cell[0]['model']}, {family}{more}",
        caption=f"{len(animals)} animals, {len(kinds['partner'])} {family}. Dashed: no change; dotted: twice. With a "
        f"random number instead of the chosen one, {chance:.2f} of animals exceed twice both ways. The heatmap's rows "
        "and columns were chosen by size: it shows what an interaction looks like and tests nothing.",
    )
