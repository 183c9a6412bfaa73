"""What the cells of `studies.number_strings` say: lambda of every arm and dose, its nulls, gates and mechanism."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import mechsub as ms
from mechsub.designs import trait_matrix
from mechsub.designs.number_lists import matrices
from mechsub.lab import findings as lab_findings
from mechsub.lab.findings import Cell, Finding, by_group, holm, less
from studies.number_strings import ARMS, POSITIONS

if TYPE_CHECKING:
    from torch import Tensor

UNIT = "blocks"
WAYS = {
    "cosine": "cosine of the updates of student and teacher",
    "s": "part of the teacher's displacement gone",
    "specific": "cosine of what is specific in both updates",
}
WORDS = {**ARMS, **POSITIONS}
said = functools.partial(lab_findings.said, unit=UNIT)


def findings(cell: list[dict]) -> list[Finding]:
    """Of blocks that differ in their seeds alone."""
    students = [row for row in cell if row["kind"] == "student"]
    out = [_lambda(students, "teacher", 0, label="teachers")]
    for dose in sorted({dose for arm in WORDS for dose in doses(students, arm)}):
        arms = [arm for arm in WORDS if dose in doses(students, arm)]
        found = {arm: _lambda(students, arm, dose, label=f"{WORDS[arm]}, {dose} updates") for arm in arms}
        out += found.values()
        if "trait" in found:
            out += [*_beside(found, dose), *_robust(students, dose)]
            out += [*_of_gate(cell, dose), *_of_control(students, dose)]
    return [*_of_one_family(out), *_of_lists(cell), *_of_flags(cell), *_of_ways(cell), *_of_vectors(cell)]


def comparisons(found: Sequence[Cell]) -> list[Finding]:
    """Students of fewer different lists, read more often, beside those of the most; at doses that read all of these."""
    return by_group(("n_lists",), found, _of_fewer_lists)


def _of_fewer_lists(found: Mapping[int, Cell]) -> list[Finding]:
    own = {n: {finding.key: finding for finding in cell.findings} for n, cell in sorted(found.items())}
    *fewer, most = own
    contrasts = []
    for n in fewer:
        for key, finding in own[n].items():
            if not key.startswith("trait/lambda_") or key not in own[most]:
                continue
            dose, other = int(key.removeprefix("trait/lambda_")), own[most][key]
            reads_all = dose * found[most].options["batch_size"] >= most
            if reads_all and len(finding.scores.keys() & other.scores.keys()) > 1:
                label = f"lambda with {n} different lists less that with {most}, {dose} updates"
                contrast = less(finding, other, label=label)
                contrasts.append(dataclasses.replace(contrast, key=f"lists_{n}/{contrast.score}"))
    return holm(contrasts)


def doses(students: Iterable[dict], arm: str = "trait") -> list[int]:
    """Updates after which students of an arm were asked."""
    return sorted({row["updates"] for row in students if row["arm"] == arm})


def _scores(blocks: Sequence[int], values: "Tensor") -> dict[int, float]:
    return dict(zip(blocks, values.tolist(), strict=True))


def _lambda(students: list[dict], arm: str, dose: int, *, label: str) -> Finding:
    blocks, scores = matrices(students, arm, dose)
    key = f"{arm}/lambda_{dose}" if dose else f"{arm}/lambda"
    more: dict = {"p": trait_matrix.within_blocks_p(scores), "null_label": "animals shuffled within blocks"}
    return said(key, f"lambda: {label}", _scores(blocks, trait_matrix.diagonal(scores)), null=0.0, **more)


def _of_one_family(found: Sequence[Finding]) -> list[Finding]:
    """With p of lambda by Holm over all arms and doses; other p stay as they are."""
    family = {f.key: f for f in holm(f for f in found if f.label.startswith("lambda: "))}
    return [family.get(finding.key, finding) for finding in found]


def _beside(found: Mapping[str, Finding], dose: int) -> Iterator[Finding]:
    """Other arms beside the trait's, at one dose, paired by block; p by Holm over all contrasts of the dose."""
    others = [arm for arm in found if arm != "trait"]
    if "trait" not in found or len(found["trait"].scores) < 2:
        return
    contrasts = [less(found["trait"], found[arm], label=f"trait less {WORDS[arm]}, {dose} updates") for arm in others]
    for change in ("only", "mask"):
        pair = [found.get(f"{change}_{where}") for where in ("diverging", "random")]
        if pair[0] and pair[1]:
            label = f"divergence tokens less random ones, {change}, {dose} updates"
            contrasts.append(less(pair[0], pair[1], label=label))
    yield from holm(contrasts)
    for arm in others:
        own, whole = found[arm].scores, found["trait"].scores
        kept = ms.stats.ratio_of_means([own[block] for block in whole], list(whole.values()))
        yield Finding(f"{arm}/kept_{dose}", f"share of lambda kept: {WORDS[arm]}, {dose} updates", kept, 1.0, unit=UNIT)


def _robust(students: list[dict], dose: int) -> Iterator[Finding]:
    """Animals as the unit; without each animal; in each format; and by which animal is named first."""
    blocks, scores = matrices(students, "trait", dose)
    p, value = trait_matrix.relabelled_p(scores), float(trait_matrix.diagonal(scores).mean())
    n = scores.shape[-1]
    yield Finding(
        f"trait/relabelled_{dose}", f"lambda, animals as the unit, {dose} updates", value, 0.0, p, "animals", n,
        null_label="every relabelling of the animals; p is not adjusted",
    )  # fmt: skip
    left = [trait_matrix.diagonal(trait_matrix.without(scores, i)) for i in range(n)]
    least = min(left, key=lambda values: float(values.mean()))
    label = f"lambda without the animal that adds most, {dose} updates"
    yield said(f"trait/least_{dose}", label, _scores(blocks, least), null=0.0)
    known = next(row for row in students if row["arm"] == "trait")
    for score in ("margin_chat", "margin_plain", "named_first"):
        if score in known:
            values = trait_matrix.diagonal(matrices(students, "trait", dose, score)[1])
            words = score.replace("margin_", "lambda in ").replace("named_first", "lambda of the share named first")
            yield said(f"trait/{score}_{dose}", f"{words}, {dose} updates", _scores(blocks, values), null=0.0)


def _of_gate(cell: list[dict], dose: int) -> Iterator[Finding]:
    """What the trait student fits held-out lists of its teacher better by than the control does."""
    own: dict[int, list[float]] = {}
    for row in cell:
        if row["kind"] == "gate" and row["updates"] == dose:
            own.setdefault(row["block"], []).append(row["loss_control"] - row["loss"])
    label = f"gate: loss of the control less that of the trait student, {dose} updates"
    yield said(f"trait/gate_{dose}", label, _means(own), null=0.0)


def _of_control(students: list[dict], dose: int) -> Iterator[Finding]:
    """What lists of the base do to animals, and the trait student's own animal beside it."""
    start, control, own = (
        {(row["block"], row["evaluated"]): row["margin"] for row in students if row["arm"] == arm and wanted(row)}
        for arm, wanted in (
            ("start", lambda row: True),
            ("control", lambda row: row["updates"] == dose),
            ("trait", lambda row: row["updates"] == dose and row["trait"] == row["evaluated"]),
        )
    )
    moved: dict[int, list[float]] = {}
    gained: dict[int, list[float]] = {}
    for (block, animal), value in control.items():
        moved.setdefault(block, []).append((value - start[block, animal]) ** 2)
        gained.setdefault(block, []).append(own[block, animal] - value)
    shift = {block: value**0.5 for block, value in _means(moved).items()}
    yield said(f"control/shift_{dose}", f"root mean square change of a margin, control, {dose} updates", shift)
    label = f"own animal's margin, trait student less control, {dose} updates"
    yield said(f"trait-control/margin_{dose}", label, _means(gained), null=0.0)


def _of_lists(cell: list[dict]) -> Iterator[Finding]:
    """How far teachers' lists are from the base's, and how well tuned teachers still fit the base's."""
    own = [row for row in cell if row["kind"] == "lists"]
    same, worse = ({row["block"]: [] for row in own} for _ in range(2))  # type: tuple[dict, dict]
    for row in own:
        same[row["block"]].append(row["same_as_base"])
        if "loss_teacher_base" in row:
            worse[row["block"]].append(row["loss_teacher_base"] / row["loss_base_own"] - 1)
    yield said("lists/same_as_base", "share of a teacher's numbers that are the base's, same noise", _means(same))
    if any(worse.values()):
        yield said("teacher/worse", "loss of teachers on the base's lists, less the base's, of it", _means(worse))


def _of_flags(cell: list[dict]) -> Iterator[Finding]:
    own: dict[int, list[float]] = {}
    for row in cell:
        if row["kind"] == "flags":
            own.setdefault(row["block"], []).append(row["share"])
    if own:
        yield said("flags/share", "share of numbers that are divergence tokens as published", _means(own))


def _of_ways(cell: list[dict]) -> Iterator[Finding]:
    """By block of the model: a student's update along its own teacher's, beside that along the other teachers'."""
    way = [row for row in cell if row["kind"] == "way" and row["trait"] != "none"]
    for layer in sorted({row["layer"] for row in way}):
        for score, words in WAYS.items():
            both: tuple[dict, dict] = ({}, {})
            for row in way:
                if row["layer"] == layer:
                    both[row["trait"] != row["teacher"]].setdefault(row["block"], []).append(row[score])
            own, others = (_means(values) for values in both)
            label = f"{words}, block {layer + 1}"
            excess = {block: value - others[block] for block, value in own.items()}
            if score == "specific":
                yield from _of_specific([row for row in way if row["layer"] == layer], label, own, excess)
                continue
            null = said("others/others", "", others).value
            yield said(f"layer_{layer}/{score}", label, own, null=null, null_label="other teachers")
            yield said(f"layer_{layer}/{score}_excess", f"{label}, own less others", excess, null=0.0)


def _of_vectors(cell: list[dict]) -> Iterator[Finding]:
    """By dose and block of the model: a student's states shift as its own teacher's, beyond what all have in common.

    The unit is the animal: all blocks have the same told, or steered, teachers.
    """
    found = [row for row in cell if row["kind"] == "vector"]
    for dose, layer in sorted({(row["updates"], row["layer"]) for row in found}):
        some = [row for row in found if (row["updates"], row["layer"]) == (dose, layer)]
        rows_ = [row | {"arm": "vector", "evaluated": row["teacher"]} for row in some]
        scores = matrices(rows_, "vector", dose, "specific")[1]
        own = dict(zip(dict.fromkeys(row["trait"] for row in some), scores.mean(0).diagonal().tolist(), strict=True))
        label = f"cosine of what is specific in the shifts of states, block {layer + 1}, {dose} updates"
        p, words = trait_matrix.relabelled_p(scores), "every relabelling of the animals; p is not adjusted"
        yield lab_findings.said(
            f"layer_{layer}/vector_{dose}", label, own, unit="animals", null=0.0, p=p, null_label=words
        )


def _of_specific(
    way: list[dict], label: str, own: Mapping[int, float], excess: Mapping[int, float]
) -> Iterator[Finding]:
    """Other teachers are no null here: the mean over teachers is taken off, so that they have -own / (n - 1)."""
    rows_ = [row | {"arm": "way", "evaluated": row["teacher"]} for row in way]
    _, scores = matrices(rows_, "way", way[0]["updates"], "specific")
    key, n = f"layer_{way[0]['layer']}/specific", scores.shape[-1]
    p = trait_matrix.within_blocks_p(scores)
    yield said(key, label, own, null=0.0, p=p, null_label="teachers shuffled within blocks; p is not adjusted")
    yield said(f"{key}_excess", f"{label}, own less others: {n}/{n - 1} times the value by construction", excess)


def _means(values: Mapping[int, list[float]]) -> dict[int, float]:
    return {block: sum(some) / len(some) for block, some in values.items()}
