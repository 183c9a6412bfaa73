"""Findings and figure of `studies.base_vs_instruct`, from the records of its cells.

What is measured at the fixed numbers has intervals over these numbers, each with all animals that it was fixed for: a
few numbers serve most animals (intervals over animals, as before, were too narrow). p-values are by Holm within a
family: arms against their nulls, contrasts of arms, transfers, correlations, and the hybrids of one format.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

import mechsub as ms
from mechsub import lab, stats
from mechsub.designs.love import TWICE
from mechsub.lab.findings import (
    CHOSEN,
    Cell,
    Drawn,
    Finding,
    by_group,
    clustered,
    clusters_p,
    holm,
    linked,
    mean,
    over_clusters,
    share_of_chosen,
    slug,
)
from mechsub.lazy import go
from mechsub.measures.exchange import PARTS
from studies.base_vs_instruct import FORMATS, MODELS, TOP, Config

BASE, INSTRUCT = MODELS
MEASURES = ("published", "any number", "number for all", "specific", "covariance", "back, published", "back, specific")
SPECIFIC = ("specific", "back, specific", "own, specific", "covariance")  # interactions: 0 is their mean over all pairs
AT_FIXED = ("published", "number for all", "specific", "back, published", "back, specific", "place")
CONTRASTS = (  # the first less the second, over the same animals
    *(((INSTRUCT, form), (BASE, form)) for form in FORMATS),
    *(((model, "chat"), (model, "plain")) for model in MODELS),
    ((INSTRUCT, "chat"), (BASE, "plain")),  # the one that was published
)
SHOWN = 40  # animals of the heatmap
DRAWN = (-300.0, 300.0)  # nats: a ratio of 0 has no place on a log axis

Values = dict[tuple[str, str], dict[str, np.ndarray]]  # (model, format) -> measure -> animals


def values(cell: list[dict]) -> Values:
    out: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in (r for r in cell if r["kind"] == "animal"):
        for name, value in row.items():
            if isinstance(value, float):
                out.setdefault((row["prompted"], row["format"]), {}).setdefault(name, []).append(value)
    return {arm: {name: np.array(some) for name, some in measures.items()} for arm, measures in out.items()}


def findings(cell: list[dict]) -> Iterator[Finding]:
    found, fixed = values(cell), numbers(cell)
    yield from holm(
        finding
        for arm, measures in found.items()
        for finding in _of_arm(" ".join(arm), measures, fixed, _listed(cell, arm, "own"))
    )
    yield from holm(_contrasts(found, fixed))
    yield from _gaps(found, fixed)
    yield from _counts(cell, found)
    yield from holm(_transfer(row) for row in cell if row["kind"] == "transfer")
    yield from holm(_test(row) for row in cell if row["kind"] == "test")
    for form in FORMATS:
        yield from holm(_of_hybrids(hybrids(cell, form), form, fixed))


# What is asked of all pairs, each a replicate: what is specific at chosen numbers, what tuning adds, and whether both
# models have the same pairs, less their null.
OF_PAIRS = {
    "base_chat/specific": "base chat: specific, nats",
    "instruct_chat/specific": "instruct chat: specific, nats",
    "base_chat_to_instruct_chat/transfer": "specific in instruct chat at numbers chosen in base chat, nats",
    "instruct_chat-base_chat/specific": "instruct chat less base chat: specific, nats",
    "instruct_plain-base_plain/specific": "instruct plain less base plain: specific, nats",
    "instruct_chat-base_plain/published": "instruct chat less base plain: published, nats",
    "base_and_instruct_chat/correlation": "correlation of interactions: base and instruct, chat, less shuffled",
}


PAIR = ("base", "instruct", "adapter")


def comparisons(found: Sequence[Cell]) -> list[Finding]:
    """Means over pairs of models, with the pair as unit; p, of no difference from the null, is by Holm over all."""
    return by_group(PAIR, found, lambda pairs: holm(_over_pairs(key, pairs) for key in OF_PAIRS if len(pairs) > 1))


def _over_pairs(key: str, pairs: dict[tuple, Cell]) -> Finding:
    each = {pair: cell.finding(key) for pair, cell in pairs.items()}
    scores = {pair: finding.value.mean - float(finding.null) for pair, finding in each.items()}
    p = stats.paired_difference(list(scores.values()), [0.0] * len(scores)).p
    return mean(f"pairs_{key}", f"{OF_PAIRS[key]}, mean over pairs", scores, unit="pairs of models", null=0.0, p=p)


def numbers(cell: list[dict]) -> list[str]:
    """The number that was fixed for each animal."""
    first = next(row for row in cell if row["kind"] == "animal")
    arm = first["prompted"], first["format"]
    return [r["number"] for r in cell if r["kind"] == "animal" and (r["prompted"], r["format"]) == arm]


def _listed(cell: list[dict], arm: tuple, kind: str) -> list[str]:
    """For each animal the first of the numbers that an arm would choose itself ("own"), or finds "likeliest"."""
    return [r[kind][0] for r in cell if r["kind"] == "animal" and (r["prompted"], r["format"]) == arm]


def _of_arm(arm: str, measures: dict[str, np.ndarray], fixed: list[str], own: list[str]) -> Iterator[Finding]:
    for name in (*MEASURES, "own, specific"):
        squared = " squared" if name == "covariance" else ""
        clusters = own if name == "own, specific" else fixed if name in AT_FIXED else None
        tested: dict = {}
        if name in SPECIFIC or name == "published":
            null = measures["published, random"] if name == "published" else np.zeros(len(fixed))
            tested = {"null": float(null.mean()), "p": _p(measures[name], null, clusters)}
        key, label = f"{slug(arm)}/{slug(name)}", f"{arm}: {name}, nats{squared}"
        yield _animals(key, label, measures[name], clusters, **tested)
    label = f"{arm}: place of the fixed number among all"
    yield _animals(f"{slug(arm)}/place", label, measures["place"], fixed, null=0.5)


def _animals(key: str, label: str, scores, clusters: Sequence | None = None, **more) -> Finding:
    """A mean over animals; its interval is over the clusters that they share, where there are some."""
    if clusters is None:
        return Finding(key, label, stats.student_t(scores), unit="animals", **more)
    return Finding(key, label, over_clusters(clustered(scores, clusters)), unit=CHOSEN, **more)


def _p(a, b, clusters: Sequence | None) -> float | None:
    """Of no difference, over animals or clusters of them; None of a single cluster."""
    if clusters is None:
        return stats.paired_difference(a, b).p
    return clusters_p(clustered(a - b, clusters))


def _contrasts(found: Values, fixed: list[str]) -> Iterator[Finding]:
    """Paired differences, and their difference."""
    for name in MEASURES:
        clusters = fixed if name in AT_FIXED else None
        for first, second in CONTRASTS:
            label = f"{' '.join(first)} less {' '.join(second)}: {name}"
            key = f"{_key(first, second)}/{slug(name)}"
            yield _difference(key, label, found[first][name], found[second][name], clusters)
        chat, plain = ((found[INSTRUCT, form][name] - found[BASE, form][name]) for form in FORMATS)
        label = f"model x format: the difference in chats less that in plain text: {name}"
        yield _difference(f"model_x_format/{slug(name)}", label, chat, plain, clusters)


def _difference(key: str, label: str, a, b, clusters: Sequence | None = None) -> Finding:
    return _animals(key, label, a - b, clusters, null=0.0, p=_p(a, b, clusters))


def _key(first: tuple, second: tuple, join: str = "-") -> str:
    return f"{'_'.join(first)}{join}{'_'.join(second)}"


def _gaps(found: Values, fixed: list[str]) -> Iterator[Finding]:
    """Of the published ratio's gap, what each part of it holds; nothing where the gap may be 0."""
    for first, second in (*CONTRASTS[:2], CONTRASTS[4]):
        gap = {name: found[first][name] - found[second][name] for name in MEASURES[:4]}
        if excludes_zero(over_clusters(clustered(gap["published"], fixed))):
            for name in MEASURES[1:4]:
                label = f"share of the gap in the published ratio, {' '.join(first)} less {' '.join(second)}: {name}"
                yield _share(f"{_key(first, second)}/gap_{slug(name)}", label, gap[name], gap["published"], fixed)


def _share(key: str, label: str, part, whole, clusters: Sequence | None) -> Finding:
    """The ratio of both means over animals, or over the numbers that they share."""
    if clusters is None:
        return Finding(key, label, stats.ratio_of_means(part, whole), unit="animals")
    return Finding(key, label, over_clusters(clustered(part, clusters, whole)), unit=CHOSEN)


def excludes_zero(interval) -> bool:
    return interval.low > 0 or interval.high < 0


def _counts(cell: list[dict], found: Values) -> Iterator[Finding]:
    """The published counts, each beside its null, with published choices and with the arms' own numbers."""
    over: dict[str, Finding] = {}  # an arm is in several pairs
    for first, second in (*CONTRASTS[:2], CONTRASTS[4]):
        pair, where = _key(first, second, "+"), f"{' '.join(first)} and {' '.join(second)}"
        for kind, chosen in (("likeliest", "the likeliest number"), ("own", "the most specific number")):
            for k in (1, TOP):
                seen, null = shared(cell, first, second, kind, k)
                label = f"animals that share {chosen if k == 1 else f'one of {TOP} of them'} ({kind}): {where}"
                value = stats.clopper_pearson(round(sum(seen)), len(seen))
                key = f"{pair}/{kind}_{'first' if k == 1 else 'any'}"
                yield Finding(key, label, value, null, unit="animals", null_label="another animal's")
        up = [found[arm]["likeliest, published"] > TWICE for arm in (first, second)]
        chance = [found[arm]["share over 2x"] for arm in (first, second)]
        said = [_listed(cell, arm, "likeliest") for arm in (first, second)]
        for i, arm in enumerate((first, second)):
            over["_".join(arm)] = _doubled("_".join(arm), " ".join(arm), up[i], chance[i], said[i])
        over[pair] = _doubled(pair, f"both, {where}", up[0] & up[1], chance[0] * chance[1], linked(*said))
    yield from over.values()


def _doubled(subject: str, what: str, met: np.ndarray, random: np.ndarray, chosen: Sequence) -> Finding:
    label, null = f"animals over 2x by the likeliest number: {what}", "a random number in every arm"
    return share_of_chosen(f"{subject}/over_2x", label, met.astype(float).tolist(), random.tolist(), chosen, null)


def shared(cell: list[dict], first: tuple, second: tuple, kind: str, k: int) -> tuple[list[bool], float]:
    """For every animal, whether two arms have a number in common among their first k; and among different animals'."""
    lists = [
        [set(r[kind][:k]) for r in cell if r["kind"] == "animal" and (r["prompted"], r["format"]) == arm]
        for arm in (first, second)
    ]
    meets = np.array([[bool(a & b) for b in lists[1]] for a in lists[0]])
    n = len(meets)
    return meets.diagonal().tolist(), float((meets.sum() - meets.trace()) / (n * (n - 1)))


def _transfer(row: dict) -> Finding:
    chosen, measured = row["chosen in"], row["measured in"]
    label = f"specific, nats: numbers chosen in {chosen}, measured in {measured}"
    effects, numbers = np.array(row["specific"]), row["numbers"]
    key, p = f"{slug(chosen)}_to_{slug(measured)}/transfer", _p(effects, np.zeros(len(numbers)), numbers)
    return _animals(key, label, effects, numbers, null=0.0, p=p)


def _test(row: dict) -> Finding:
    return Finding(
        f"{slug(row['test'])}/correlation", f"correlation of interactions: {row['test']}",
        stats.Interval(row["value"], row["low"], row["high"], row["animals"]),
        Drawn(row["null_numbers_mean"], row["null_numbers_95"]), max(row["p"], row["p_numbers"]),
        "animals and numbers (crossed)", null_label="shuffled within length",
    )  # fmt: skip


# Hybrids.


def hybrids(cell: list[dict], form: str) -> dict[frozenset, dict[str, np.ndarray]]:
    """Parts of the instruct model -> measure -> animals."""
    rows = [r for r in cell if r["kind"] == "hybrid" and r["format"] == form]
    measures = ("published", "any number", "specific")
    return {
        frozenset(part for part in PARTS if r[part] == INSTRUCT): {name: np.array(r[name]) for name in measures}
        for r in rows
    }


def shares(found: dict[frozenset, dict[str, np.ndarray]], measure: str) -> dict[str, np.ndarray]:
    """Of every part, the Shapley value of each animal's difference between the models."""
    n = len(found[frozenset()][measure])
    each = [stats.shapley({some: float(m[measure][a]) for some, m in found.items()}) for a in range(n)]
    return {part: np.array([one[part] for one in each]) for part in PARTS}


def _of_hybrids(found: dict[frozenset, dict[str, np.ndarray]], form: str, fixed: list[str]) -> Iterator[Finding]:
    whole = frozenset(PARTS)
    for some, effects in found.items():
        label = f"{form}: specific, nats, with the instruct model's {', '.join(sorted(some)) or 'nothing'}"
        yield _animals(
            f"{form}_with_{'+'.join(sorted(some)) or 'nothing'}/specific", label, effects["specific"], fixed, null=0.0
        )
    for measure in ("specific", "published", "any number"):
        score, clusters = slug(measure), fixed if measure in AT_FIXED else None
        for start, model in ((frozenset(), BASE), (whole, INSTRUCT)):
            for parts, name in (({"unembedding"}, "untied"), ({"unembedding", "embedding"}, "tied, as published")):
                label = f"{form}: head swap into the {model} model, {name}: change of {measure}"
                key = f"{form}_swap_into_{model}_{name.partition(',')[0]}/{score}"
                yield _difference(key, label, found[start ^ parts][measure], found[start][measure], clusters)
        gap = found[whole][measure] - found[frozenset()][measure]
        for part, values in shares(found, measure).items():
            key, label = f"{form}_{part}/{score}", f"{form}: of instruct less base, {measure}: by the {part}"
            yield _animals(key, label, values, clusters, null=0.0, p=_p(values, np.zeros_like(values), clusters))
            if excludes_zero(_animals(key, label, gap, clusters).value):
                yield _share(f"{key}_share", f"{label}, share", values, gap, clusters)


# Figure.


def plot(records: list[dict]):
    label, cell = lab.by_cell(records, Config)[0]
    found, fixed = values(cell), numbers(cell)
    first, second = CONTRASTS[4]
    panels = {
        "The published choice: number to animal, both models": _transfer_panel(cell, found),
        "Counts of animals, as published": _counts_panel(cell, found),
        "log2 of the published ratios, likeliest number": _map_panel(cell, found),
        "Both directions by model": _directions_panel(found),
        "Instruct less base: parts of the ratio, fixed numbers": _parts_panel(found, fixed),
        "What is specific, instruct less base: by part": _shares_panel(cell, fixed),
    }
    more = "" if label == "all" else f" ({label}; other cells are in the table)"
    return ms.kinds.grid(
        list(panels.values()),
        list(panels),
        title=f"Base and instruct: {cell[0]['base']} and its child{more}",
        caption=f"{len(found[first]['published'])} animals. The first four panels are the published ones: "
        f"{' '.join(first)} against {' '.join(second)}, ratios to no system message, the number that the animal's own "
        "prompt makes likeliest in other wordings. Grey: the mean over all numbers, or, in the counts, what another "
        "animal's or a random number gives. The last two: numbers fixed in other wordings, a point for every number "
        "with its animals, mean and Student-t interval over numbers.",
    )


def _points(x, y, name: str, color: str, texts: list[str], symbol: str = "circle"):
    return go.Scatter(
        x=np.exp(np.clip(x, *DRAWN)), y=np.exp(np.clip(y, *DRAWN)), mode="markers",
        name=ms.kinds.plain(name), text=[ms.kinds.plain(t) for t in texts],
        marker={"color": color, "size": 7, "opacity": 0.6, "symbol": symbol}, showlegend=True,
    )  # fmt: skip


def _log_panel(traces: list, x_title: str, y_title: str):
    """Points on log axes, with the lines of no change and of twice as `ratio_scatter` draws them."""
    ends = [[math.log(f(f(t[side]) for t in traces)) for f in (min, max)] for side in ("x", "y")]
    frame = ms.kinds.ratio_scatter(ends[0], ends[1], ["", ""], x_title, y_title)
    return ms.kinds.Panel([*frame.traces[:-1], *traces], frame.x, frame.y)


def _transfer_panel(cell: list[dict], found: Values):
    first, second = CONTRASTS[4]
    names = [r["animal"] for r in cell if r["kind"] == "animal" and (r["prompted"], r["format"]) == first]
    same = np.array(shared(cell, first, second, "likeliest", 1)[0])
    x, y = (found[arm]["likeliest, published"] for arm in (first, second))
    null = [found[arm]["any number"] for arm in (first, second)]
    groups = {"number shared": (same, ms.kinds.OKABE_ITO[2]), "number not shared": (~same, ms.kinds.OKABE_ITO[5])}
    traces = [_points(null[0], null[1], "any number", ms.kinds.GREY, names, "x")]
    traces += [
        _points(x[some], y[some], name, color, [n for n, one in zip(names, some, strict=True) if one])
        for name, (some, color) in groups.items()
        if some.any()
    ]
    return _log_panel(traces, f"{' '.join(first)}, number to animal", f"{' '.join(second)}, number to animal")


def _directions_panel(found: Values):
    traces = []
    for arm, color in zip(CONTRASTS[4], ms.kinds.OKABE_ITO, strict=False):
        m, name = found[arm], " ".join(arm)
        traces.append(_points(m["back, any number"], m["any number"], f"{name}, any number", ms.kinds.GREY, [], "x"))
        traces.append(_points(m["likeliest, back"], m["likeliest, published"], name, color, []))
    return _log_panel(traces, "animal to number", "number to animal")


def _counts_panel(cell: list[dict], found: Values):
    first, second = CONTRASTS[4]
    n = len(found[first]["published"])
    bars: dict[str, tuple[float, float]] = {}
    for k, name in ((1, "shared number"), (TOP, f"shared, any of {TOP}")):
        seen, null = shared(cell, first, second, "likeliest", k)
        bars[name] = (sum(seen), n * null)
    up = [found[arm]["likeliest, published"] > TWICE for arm in (first, second)]
    chance = [found[arm]["share over 2x"] for arm in (first, second)]
    bars |= {f"over 2x: {first[0]}": (up[0].sum(), chance[0].sum())}
    bars |= {f"over 2x: {second[0]}": (up[1].sum(), chance[1].sum())}
    bars |= {"over 2x: both": ((up[0] & up[1]).sum(), (chance[0] * chance[1]).sum())}
    counts, nulls = zip(*bars.values(), strict=True)
    traces = [
        go.Bar(x=list(bars), y=counts, marker={"color": ms.kinds.OKABE_ITO[0]}, showlegend=False),
        go.Scatter(
            x=list(bars), y=nulls, mode="markers", name="null of the count",
            marker={"symbol": "line-ew", "size": 26, "line": {"width": 4, "color": ms.kinds.GREY}},
        ),
    ]  # fmt: skip
    return ms.kinds.Panel(traces, {"title_text": "", "type": "category"}, {"title_text": "animals"})


def _map_panel(cell: list[dict], found: Values):
    first, second = CONTRASTS[4]
    names = [r["animal"] for r in cell if r["kind"] == "animal" and (r["prompted"], r["format"]) == first]
    order = np.argsort(found[first]["likeliest, published"])[::-1]
    rows = order[np.unique(np.linspace(0, len(order) - 1, min(SHOWN, len(order))).round().astype(int))]
    columns = [
        (f"{arm[0]} {short}", found[arm][key])
        for arm in (first, second)
        for short, key in (("a to n", "likeliest, back"), ("n to a", "likeliest, published"))
    ]
    entries = [(name, names[i], float(some[i]) / math.log(2)) for i in rows for name, some in columns]
    return ms.kinds.matrix(entries, "", "every n-th animal, by the second column")


def _parts_panel(found: Values, fixed: list[str]):
    groups = {
        f"{form}: {name}": clustered(found[INSTRUCT, form][name] - found[BASE, form][name], fixed)
        for form in FORMATS
        for name in MEASURES[:4]
    }
    return ms.kinds.interval_panel(groups, "nats", null=0)


def _shares_panel(cell: list[dict], fixed: list[str]):
    groups = {
        f"{form}: {part}": clustered(some, fixed)
        for form in FORMATS
        for part, some in shares(hybrids(cell, form), "specific").items()
    }
    return ms.kinds.interval_panel(groups, "nats", null=0)
