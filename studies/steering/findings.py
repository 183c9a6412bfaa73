"""Findings and figure of `studies.steering`, from the records of its cells."""

from collections.abc import Iterable, Iterator

import mechsub as ms
from mechsub.designs.love import in_words_of
from mechsub.lab import nulls
from mechsub.lab.findings import Finding, cells, mean, reword, reworded, slug
from studies.steering import VECTORS, Config

DIVERGENCE = "; divergence: over animals, colors or cities, one point each"


def findings(cell: list[dict]) -> Iterator[Finding]:
    """Labels and units name the words that are loved where these are no numbers; keys are the same."""
    yield from reworded(_all(cell), in_words_of(cell[0].get("family", "numbers")))


def _all(cell: list[dict]) -> Iterator[Finding]:
    (whole,) = (row for row in cell if row["kind"] == "whole")
    yield Finding("whole/correlation", "agreement of the whole with other wordings", whole["agreement"])
    for row in (row for row in cell if row["kind"] == "steered"):
        label = f"{row['what']} at {row['place']} after block {row['layer'] + 1}: {row['vector']}"
        for score in ("share", "correlation", "specific"):
            if score in row:
                value = ms.stats.Interval(row[score], row[f"{score}_low"], row[f"{score}_high"], whole["animals"])
                yield Finding(f"{slug(label)}/{score}", label, value, unit="animals and numbers (crossed)")
    yield from _divergence([row for row in cell if row["kind"] == "divergence"])


comparisons = nulls.of_weights


def _divergence(rates: list[dict]) -> Iterator[Finding]:
    """Nothing for words that are no numbers."""
    for family in dict.fromkeys(row["of"] for row in rates):
        shares = dict(enumerate(row["rate"] for row in rates if row["of"] == family))
        yield mean(f"diverge_{family}/share", f"positions that diverge, love of {family}", shares, unit=family)
    animals = [row for row in rates if row["of"] == "animals"]
    specific = dict(enumerate(row["specific"] for row in animals))
    if specific:
        label = "positions that diverge, not as for most animals"
        yield mean("diverge_specific/share", label, specific, unit="animals")
    judged = [row for row in animals if "own" in row]
    if len(judged) > 1:  # interactions of all animals add up to 0: that of the others is no null
        own = dict(enumerate(row["own"] for row in judged))
        p = ms.stats.paired_difference(list(own.values()), [0.0] * len(own)).p
        label = "interaction of diverging numbers with the animal, nats"
        yield mean("own/diverging", label, own, unit="animals", null=0.0, p=p)


def sentence(found: Iterable[Finding]) -> str:
    """The best that any block does, by place and by what is done, beside its null in the same block."""
    shares = {finding.subject: finding.value.mean for finding in found if finding.score == "share"}
    parts = []
    for place in ("the number", "the prompt's end"):
        for what in ("added", "removed"):
            where = f"{what} at {place} after block"
            own = {s: share for s, share in shares.items() if s.startswith(slug(where)) and s.endswith("_own")}
            best = max(own, key=lambda subject: own[subject])
            null = shares[f"{best.removesuffix('own')}another_numbers"]
            block = best.removeprefix(f"{slug(where)}_").removesuffix("_own")
            parts.append(f"{where} {block}: {own[best]:.3f} (another number's vector {null:.3f})")
    return (
        "Of the interaction among numbers of equal length, the number's vector carries at most, "
        + "; ".join(parts)
        + "."
    )


def plot(records: list[dict]):
    first = cells(records, Config, findings)[0]
    cell, said = first.rows, first.findings
    colors: dict[str, str] = {}
    panels = {}
    for place in ("the prompt's end", "the number"):
        for what in ("added", "removed"):
            rows = [
                {
                    "arm": r["vector"], "x": r["layer"] + 1, "value": r["share"], "low": r["share_low"],
                    "high": r["share_high"], "null": r["vector"] in VECTORS[2:],
                }
                for r in cell
                if r["kind"] == "steered" and r["place"] == place and r["what"] == what
            ]  # fmt: skip
            y = "share reproduced" if what == "added" else "share removed"
            panels[f"{what} at {place}"] = ms.kinds.band_panel(rows, "block", y, colors=colors)
    rates = {f.label.partition(", ")[2]: list(f.scores.values()) for f in said if f.subject.startswith("diverge_")}
    if rates:
        panels["Positions that diverge"] = ms.kinds.interval_panel(rates, "share of positions in lists of numbers")
    judged = [f for f in said if f.key == "own/diverging"]
    if judged:
        own = {"with the animal": list(judged[0].scores.values())}
        panels["Interaction of diverging numbers"] = ms.kinds.interval_panel(own, "nats", null=0)
    more = f" ({first.label}; other cells are in the table)" if first.label else ""
    return ms.kinds.grid(
        list(panels.values()),
        list(panels),
        title=f"Vectors of loved {first.options['family']}{', and where prompts diverge' if rates else ''}: "
        f"{first.options['model']}{more}",
        caption=reword(
            sentence(said) + " 95% intervals: animals and numbers resampled" + DIVERGENCE * bool(rates) + ".",
            in_words_of(first.options["family"]),
        ),
    )
