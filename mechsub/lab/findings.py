"""The home of every reported number: one `Finding` for each, under a key. Tables, figures and pages read it by its key.

A study has one function that turns the rows of one cell into findings:

    def findings(cell):
        return by_arm(cell, "accuracy", null="untrained", unit="seeds")

A key has two parts, `subject/score`: "teacher/accuracy". A difference has both subjects: "teacher-untrained/accuracy".
A study that compares cells with each other has a second function, `comparisons(cells)`, which gets a list of `Cell`.

Where a command names several cells, the key of a finding of one cell begins with the options that differ between cells:
"n_aux=3: teacher/accuracy", "n_aux=3, loss=kl: teacher/accuracy". With one cell, the key has no such part.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import mechsub as ms

Rows = list[dict]
Scores = Mapping[Any, float]  # of replicates: a seed, an animal, a pair of numbers


@dataclass(frozen=True)
class Finding:
    """One number, with its null, p, unit and n.

    `value` and `null` are an Interval, a number, or words where there is no number ("infinite"). `p` tests that the
    value is its null; it is adjusted for the family that the study names. `unit` names the replicates, `n` counts them.
    Where the value is a mean of replicates, `scores` has the value of each: differences are paired by replicate.
    """

    key: str
    label: str  # in English, free to change
    value: Any
    null: Any = None
    p: float | None = None
    unit: str = ""
    n: int = 0
    null_label: str = ""  # what the null is, in words
    cell: str = ""  # the options in which its cell differs from others of the same command
    scores: Scores = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self):
        if not self.key or " " in self.key or self.key != self.key.strip("/"):
            raise ValueError(f"a finding's key is subject/score, without spaces, not {self.key!r}")
        if not self.n:
            object.__setattr__(self, "n", getattr(self.value, "n", 0))

    @property
    def name(self) -> str:
        """The key, with the cell before it where a command has several cells."""
        return f"{self.cell}: {self.key}" if self.cell else self.key

    @property
    def tested(self) -> float:
        """The finding's p. Raises LookupError where nothing was tested."""
        if self.p is None:
            raise LookupError(f"{self.name} has no p")
        return self.p

    @property
    def subject(self) -> str:
        return self.key.rpartition("/")[0] or self.key

    @property
    def score(self) -> str:
        return self.key.rpartition("/")[2]


@dataclass(frozen=True)
class Drawn:
    """A null of many draws: its mean, and its upper quantile `share`."""

    mean: float
    upper: float
    share: str = "95%"

    def __float__(self) -> float:
        return float(self.mean)

    def __str__(self) -> str:
        return f"{self.mean:.3f}, {self.share} below {self.upper:.3f}"


@dataclass(frozen=True)
class Cell:
    """A stored cell: its options, its rows, and its findings."""

    options: Mapping[str, Any]
    rows: Rows
    label: str = ""  # the options that differ between the cells of a command
    findings: Sequence[Finding] = ()

    def finding(self, key: str) -> Finding:
        """The finding with this key; LookupError where there is none."""
        for finding in self.findings:
            if finding.key == key:
                return finding
        raise LookupError(f"no finding has the key {key!r}; there are {_listed(self.findings)}")


def slug(text: str) -> str:
    """Words as a part of a key: "number x animal, wordings" is number_x_animal_wordings."""
    return re.sub(r"\W+", "_", text.replace("'", "")).strip("_")


# Findings of rows.

SHARES = ("accuracy", "raw", "recentred", "prior_matched", "open_accuracy")  # scores that are shares of images


def also(score: str, name: str) -> str:
    """A score's name for one of the accuracies: raw accuracy has none of its own."""
    return name if score == "accuracy" else f"{score}_{name}"


def reworded(found: Iterable[Finding], words: Mapping[str, str]) -> Iterator[Finding]:
    """Findings whose labels, units and null labels say other words; their keys stay."""
    for f in found:
        label, unit, null = (reword(text, words) for text in (f.label, f.unit, f.null_label))
        yield dataclasses.replace(f, label=label, unit=unit, null_label=null)


def reword(text: str, words: Mapping[str, str]) -> str:
    """The text with each of these whole words replaced."""
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, words))})\b")
    return pattern.sub(lambda match: words[match[0]], text)


def by_arm(
    cell: Rows,
    score: str,
    *,
    unit: str,
    null: str | Mapping[str, str] = "",
    labels: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Mean of a score over the replicates (`member`) of every arm, with its Student-t interval.

    `null` names the null arm, or maps arms to their null arms. Then each arm has its null beside it, and there is a
    finding of its difference from its null, paired by replicate; p is adjusted by Holm over these differences. `labels`
    gives arms in their order, in English; an arm without a row is left out. LookupError for a score that no row has,
    and for a null, or arms of a mapping, that neither rows nor labels know.
    """
    means = arm_means(cell, score, unit=unit, labels=labels)
    _check_names(cell, score, null, means, labels or {})
    nulls = dict.fromkeys(means, null) if isinstance(null, str) and null else dict(null or {})
    pairs = [(arm, other) for arm, other in nulls.items() if arm in means and other in means and arm != other]
    differences = [less(means[arm], means[other], label=f"{means[arm].label}, above the null") for arm, other in pairs]
    for arm, other in pairs:
        means[arm] = dataclasses.replace(means[arm], null=means[other].value, null_label=means[other].label)
    return [*means.values(), *holm(differences)]


def _check_names(
    cell: Rows, score: str, null: str | Mapping[str, str], means: Mapping[str, Finding], labels: Mapping[str, str]
) -> None:
    """A misspelt name would give fewer findings without a word."""
    if not means:
        there = dict.fromkeys(name for row in cell for name in row)
        raise LookupError(f"no row of these arms has the score {score!r}; rows have {', '.join(there) or 'nothing'}")
    named = [null] if isinstance(null, str) else list(null)
    if any(named) and not any(arm in means or arm in labels for arm in named):
        raise LookupError(f"there is no arm {named[0]!r} with {score!r}; there are {', '.join(means)}")


def arm_means(cell: Rows, score: str, *, unit: str, labels: Mapping[str, str] | None = None) -> dict[str, Finding]:
    """Arm -> mean of the score over replicates, for every arm that has the score."""
    scores: dict[str, dict] = {arm: {} for arm in labels or ()}
    for row in cell:
        if score in row and (labels is None or row["arm"] in labels):
            replicates = scores.setdefault(row["arm"], {})
            if row["member"] in replicates:
                raise ValueError(f"arm {row['arm']!r} has two rows of member {row['member']} with {score!r}")
            replicates[row["member"]] = row[score]
    means = {
        arm: mean(f"{arm}/{score}", (labels or {}).get(arm, arm), values, unit=unit)
        for arm, values in scores.items()
        if values
    }
    return {arm: within(finding) if score in SHARES else finding for arm, finding in means.items()}


def within(share: Finding) -> Finding:
    """The finding with its interval cut to 0..1: the interval of two replicates that are far apart reaches beyond."""
    value = share.value
    if not all(0 <= score <= 1 for score in share.scores.values()):
        return share
    return dataclasses.replace(
        share, value=dataclasses.replace(value, low=max(0.0, value.low), high=min(1.0, value.high))
    )


def mean(key: str, label: str, scores: Scores, *, unit: str, **more) -> Finding:
    """Mean of the scores of replicates, with its Student-t interval."""
    ordered = dict(sorted(scores.items()))
    return Finding(key, label, ms.stats.student_t(list(ordered.values())), unit=unit, scores=ordered, **more)


def said(key: str, label: str, scores: Scores, *, unit: str, **more) -> Finding:
    """The mean over replicates with its interval; of one replicate its value, which has none."""
    if len(scores) > 1:
        return mean(key, label, scores, unit=unit, **more)
    (value,) = scores.values()
    return Finding(key, label, value, unit=unit, n=1, scores=scores, **more)


def _z(correlation: float) -> float:
    """Fisher's z. A correlation of 1, which may be rounded to beyond it, has a large one."""
    return math.atanh(math.copysign(_MOST, correlation) if _MOST < abs(correlation) < 2 - _MOST else correlation)


_MOST = 1 - 1e-12
FISHER, LOG = (_z, math.tanh), (math.log, math.exp)  # of correlations and of ratios: there and back


def scaled(
    key: str, label: str, scores: Scores, scale: tuple[Callable[[float], float], Callable[[float], float]],
    *, unit: str, **more,
) -> Finding:  # fmt: skip
    """Mean of the scores on another scale, with its Student-t interval there; all three are given on the own scale.

    So they stay within what the quantity can be.
    """
    there, back = scale
    ordered = dict(sorted(scores.items()))
    found = ms.stats.student_t([there(score) for score in ordered.values()])
    value = dataclasses.replace(found, mean=back(found.mean), low=back(found.low), high=back(found.high))
    return Finding(key, label, value, unit=unit, scores=ordered, **more)


def less(a: Finding, b: Finding, *, label: str = "") -> Finding:
    """a - b, paired by the replicates that both have; p tests no difference, and is not adjusted."""
    common = [replicate for replicate in a.scores if replicate in b.scores]
    if len(common) < 2:
        raise LookupError(f"{a.name} and {b.name} have {len(common)} replicates in common; a difference needs two")
    pair = ms.stats.paired_difference([a.scores[i] for i in common], [b.scores[i] for i in common])
    score = a.score if a.score == b.score else f"{a.score}-{b.score}"
    return Finding(
        f"{a.subject}-{b.subject}/{score}" if a.subject != b.subject else f"{a.subject}/{score}",
        label or f"{a.label} less {b.label}",
        pair.interval, 0.0, pair.p, a.unit, scores={i: a.scores[i] - b.scores[i] for i in common},
    )  # fmt: skip


def clustered(values: Iterable[float], clusters: Sequence, weights: Iterable[float] | None = None) -> list[float]:
    """A value for each cluster of replicates that share something, such as animals that share a number.

    weights: of the values; without them, a replicate counts once.
    The values are r + (v_k - r w_k) / mean(w), with v_k and w_k the sums over cluster k and r = sum(values) /
    sum(weights). Their mean is r, and their Student-t interval is that of the linearised ratio of the clusters' sums.
    """
    above, below = dict.fromkeys(clusters, 0.0), dict.fromkeys(clusters, 0.0)
    weights = [1.0] * len(clusters) if weights is None else weights
    for name, value, weight in zip(clusters, values, weights, strict=True):
        above[name] += float(value)
        below[name] += float(weight)
    usual = sum(below.values()) / len(below)
    ratio = sum(above.values()) / len(above) / usual
    return [ratio + (above[name] - ratio * below[name]) / usual for name in above]


def over_clusters(values: Sequence[float]) -> "ms.stats.Interval":
    """The Student-t interval of `clustered` values; for a single cluster it has no ends."""
    return ms.stats.student_t(values) if len(values) > 1 else ms.stats.Interval(values[0], -math.inf, math.inf, 1)


CHOSEN = "chosen numbers, each with its animals"


def share_of_chosen(
    key: str, label: str, own: Sequence[float], null: Sequence[float], chosen: Sequence, null_label: str = ""
) -> Finding:
    """A mean over animals of values from 0 to 1, beside its null's, over the numbers that were chosen for them.

    One number for all animals has an interval from 0 to 1 and no p.
    """
    value, n = over_clusters(clustered(own, chosen)), len(set(chosen))
    value = dataclasses.replace(value, low=max(value.low, 0.0), high=min(value.high, 1.0))
    if n > 1 and set(own) in ({0}, {1}):  # Student's t sees no spread
        value = ms.stats.clopper_pearson(n * int(own[0]), n)
    p = clusters_p(clustered([a - b for a, b in zip(own, null, strict=True)], chosen))
    return Finding(key, label, value, sum(null) / len(null), p, CHOSEN, null_label=null_label)


def linked(*labels: Sequence) -> list[int]:
    """A cluster for every replicate: those that share a label, by themselves or through others, are in one.

    linked([number of every animal], [its other number]) joins animals that share either.
    """
    cluster = list(range(len(labels[0])))

    def first(i: int) -> int:
        while cluster[i] != i:
            cluster[i] = cluster[cluster[i]]
            i = cluster[i]
        return i

    for some in labels:
        seen: dict = {}
        for i, label in enumerate(some):
            cluster[first(i)] = first(seen.setdefault(label, i))
    return [first(i) for i in range(len(cluster))]


def clusters_p(values: Sequence[float]) -> float | None:
    """p of no mean in `clustered` values (paired t); None of a single cluster."""
    return ms.stats.paired_difference(values, [0.0] * len(values)).p if len(values) > 1 else None


def holm(findings: Iterable[Finding]) -> list[Finding]:
    """The same findings, with p adjusted by Holm over all findings that have a p."""
    findings = list(findings)
    given = [finding.p for finding in findings if finding.p is not None]
    adjusted = iter(ms.stats.holm(given) if given else [])
    return [f if f.p is None else dataclasses.replace(f, p=next(adjusted)) for f in findings]


def least_p(n_tests: int, n_draws: int) -> Finding:
    """The least p that Holm can give over tests of so many random draws each: at 0.05 or more nothing can be shown."""
    label = f"least p that Holm over {n_tests} tests can give, with {n_draws} shuffles each"
    return Finding("tests/least_p", label, min(1.0, n_tests / (1 + n_draws)))


# Findings of commands.


def cells(
    records: Rows, Config, findings: Callable[[Rows], Iterable[Finding]], together: Sequence[str] = ()
) -> list[Cell]:
    """The cells of a command, from their rows, each with its findings; `together` as in Study."""
    from mechsub.lab.cells import by_cell

    out = []
    for named, rows in by_cell(records, Config, together):
        label = "" if named == "all" else named
        defaults = {f.name: f.default for f in dataclasses.fields(Config) if not f.metadata.get("display")}
        options = {name: rows[0].get(name, usual) for name, usual in defaults.items()}
        found = [_in_cell(finding, label) for finding in findings(rows)]
        out.append(Cell(options, rows, label, _distinct(found)))
    return out


def by_group(
    options: Sequence[str], found: Iterable[Cell], compare: Callable[[dict[Any, Cell]], Iterable[Finding]]
) -> list[Finding]:
    """What `compare` says of cells that differ in these options alone, given by their value (a tuple of several).

    Where cells differ in other options too, each group of them is compared by itself and named by those options.
    """
    groups: dict[tuple, dict[Any, Cell]] = {}
    for cell in found:
        rest = tuple((name, value) for name, value in sorted(cell.options.items()) if name not in options)
        value = tuple(cell.options[name] for name in options)
        groups.setdefault(rest, {})[value if len(options) > 1 else value[0]] = cell
    common = set.intersection(*map(set, groups)) if groups else set()
    out = []
    for rest, cells in groups.items():
        label = ", ".join(f"{name}={value}" for name, value in rest if (name, value) not in common)
        out += [_in_cell(finding, label) for finding in compare(cells)]
    return out


def like_the_first(options: Sequence[str], found: Sequence[Cell]) -> list[Cell]:
    """The cells that differ from the first in these options alone: those that one panel can show."""
    return [
        cell
        for cell in found
        if all(value == found[0].options[name] for name, value in cell.options.items() if name not in options)
    ]


def panel_of(cell: Cell, option: str) -> str:
    """The options that differ between cells, but for this one, which is an axis: the name of the cell's panel."""
    return ", ".join(part for part in cell.label.split(", ") if part and not part.startswith(f"{option}="))


def labelled(cells: Iterable[Cell]) -> list[Cell]:
    """Cells that were read one by one, each with the options that differ between them; their rows are not kept."""
    from mechsub.lab.cells import labels_of

    found = [dataclasses.replace(cell, rows=[]) for cell in cells]
    labels = labels_of([cell.options for cell in found])
    return [_with_label(cell, label) for cell, label in zip(found, labels, strict=True)]


def _with_label(cell: Cell, label: str) -> Cell:
    return dataclasses.replace(cell, label=label, findings=[_in_cell(finding, label) for finding in cell.findings])


def _in_cell(finding: Finding, label: str) -> Finding:
    return finding if finding.cell == label else dataclasses.replace(finding, cell=label)


def all_findings(cells: Iterable[Cell], comparisons: Callable | None = None) -> list[Finding]:
    """Findings of each cell, and of comparisons between cells."""
    cells = list(cells)
    own = [finding for cell in cells for finding in cell.findings]
    return _distinct([*own, *(comparisons(cells) if comparisons else [])])


def find(findings: Iterable[Finding], name: str) -> Finding:
    """The one finding with this key (with its cell before it, where there are several cells); else LookupError."""
    findings = list(findings)
    matches = [finding for finding in findings if finding.name == name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise LookupError(f"{len(matches)} findings have the key {name!r}")
    raise LookupError(f"no finding has the key {name!r}; there are {_listed(findings)}")


def _listed(findings: Sequence[Finding]) -> str:
    names = [finding.name for finding in findings]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "none"


def _distinct(findings: list[Finding]) -> list[Finding]:
    names = set()
    for finding in findings:
        if finding.name in names:
            raise LookupError(f"two findings have the key {finding.name!r}")
        names.add(finding.name)
    return findings


# Findings as text, rows and points.


def value_text(value) -> str:
    """An interval, a number or a word, as tables and pages print it."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    return f"{value:.3g}" if 0 < abs(value) < 0.0005 else f"{value:.3f}"


def p_text(p: float | None) -> str:
    """A p-value: three decimals, or its power of ten where these would be 0."""
    return "" if p is None else f"{p:.0e}" if p < 0.0005 else f"{p:.3f}"


class PValue(float):
    """A p-value that tables and pages print as `p_text`, and files have as it is."""

    def __str__(self) -> str:
        return p_text(float(self))


def null_text(finding: Finding) -> str:
    """The null, with its label in brackets."""
    words = f" ({finding.null_label})" if finding.null_label else ""
    return "" if finding.null is None else value_text(finding.null) + words


def rows(findings: Iterable[Finding]) -> list[dict]:
    """Rows of the printed table.

    Where subjects have the same scores: a row for each subject and a column for each score, with its p behind it. Where
    every label has one finding: a row for each finding, with its null and its p.
    """
    findings = list(findings)
    wide = len({(f.cell, f.label) for f in findings}) < len(findings) or _crossed(findings)
    return _by_subject(findings) if wide else [_row(finding) for finding in findings]


def _crossed(findings: list[Finding]) -> bool:
    """Whether one cell has several subjects of one score."""
    return bool(findings) and all(f.scores for f in findings) and len({f.score for f in findings}) == 1


def _row(finding: Finding) -> dict:
    p = "" if finding.p is None else finding.p
    infinite = isinstance(finding.value, float) and math.isinf(finding.value)
    value = value_text(finding.value) if infinite else finding.value
    return {
        "cell": finding.cell or "all",
        "quantity": finding.label,
        "value": value,
        "null": null_text(finding),
        "p": p,
    }


def _by_subject(findings: list[Finding]) -> list[dict]:
    lines: dict[tuple[str, str], dict] = {}
    tested = list(dict.fromkeys(f.score for f in findings if f.p is not None))
    drawn = {f.score for f in findings if isinstance(f.null, Drawn)}
    scores = dict.fromkeys(f.score for f in findings)
    order = [column for score in scores for column in _columns(score, tested, score in drawn)]
    for f in findings:
        line = lines.setdefault((f.cell, f.subject), {"cell": f.cell or "all", "arm": f.label})
        line[_words(f.score)] = f.value
        if f.p is not None:
            line[_p_column(f.score, tested)] = PValue(f.p)
        if isinstance(f.null, Drawn):
            line[f"{_words(f.score)}: null"] = str(f.null)
    return [{k: v for k, v in line.items() if k in ("cell", "arm")} | _ordered(line, order) for line in lines.values()]


def _columns(score: str, tested: Sequence[str], drawn: bool) -> list[str]:
    """Columns of a score: its value, its p, and a `Drawn` null. Any other null is a row of its own."""
    words = _words(score)
    return [words, *([_p_column(score, tested)] if score in tested else []), *([f"{words}: null"] if drawn else [])]


def _p_column(score: str, tested: Sequence[str]) -> str:
    return "p" if len(tested) == 1 else f"p, {_words(score)}"


def _ordered(line: Mapping, order: Sequence[str]) -> dict:
    return {column: line.get(column, "") for column in order}


def _words(score: str) -> str:
    """A score as the name of its column; one that is called as a further column is, has another."""
    return f"score {score}" if score in ("cell", "arm", "p") else score.replace("_", " ")


def points(findings: Iterable[Finding], score: str) -> list[dict]:
    """A row for every replicate of this score, for figures: cell, key, label, member and the score."""
    return [
        {"cell": f.cell, "key": f.key, "label": f.label, "arm": f.subject, "member": member, score: value}
        for f in findings
        if f.score == score
        for member, value in f.scores.items()
    ]


def flat(findings: Iterable[Finding]) -> dict[str, list]:
    """Columns with a value for each: cell, key, label, value and its limits, the null's, p, unit, n.

    null_upper and null_share: of a `Drawn` null, its upper quantile and the share of draws below it.
    """
    rows = [_flat(finding) for finding in findings]
    nulls = ["null", "null_low", "null_high", "null_upper", "null_share", "null_label"]
    columns = ["cell", "key", "label", "value", "low", "high", *nulls, "p", "unit", "n"]
    return {name: [row[name] for row in rows] for name in columns}


def frame(findings: Iterable[Finding]):
    """`flat` as a pandas frame."""
    import pandas as pd

    return pd.DataFrame(flat(findings))


def _flat(finding: Finding) -> dict:
    out = {name: getattr(finding, name) for name in ("cell", "key", "label", "null_label", "p", "unit", "n")}
    for name, value in (("value", finding.value), ("null", finding.null)):
        start = "" if name == "value" else "null_"
        out |= {name: getattr(value, "mean", value)}
        out |= {f"{start}{end}": getattr(value, end, None) for end in ("low", "high")}
    return out | {f"null_{part}": getattr(finding.null, part, None) for part in ("upper", "share")}
