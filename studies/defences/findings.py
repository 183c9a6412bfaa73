"""What the cells of `studies.defences` say: of every arm what is left of trait and task, and who can tell the lists."""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import mechsub as ms
from mechsub.designs import trait_matrix
from mechsub.designs.number_lists import matrices
from mechsub.lab import findings as lab_findings
from mechsub.lab.findings import Finding, all_findings, cells, holm, less
from studies.defences import ARMS, SCORES, STUDENT_SCORES, Config

UNIT = "blocks"
TASKS = {
    "task": "gain on the base's lists",
    "fit": "gain on the teacher's lists",
    "gate": "fit of the teacher's lists beyond the control's",
}
said = functools.partial(lab_findings.said, unit=UNIT)


def findings(cell: list[dict]) -> list[Finding]:
    """Of blocks that differ in their seeds alone."""
    found = {arm: _lambda(cell, arm) for arm in ARMS if arm != "control"}
    gains = {arm: gained(cell, arm) for arm in ARMS}
    out = [_lambda(cell, "teacher", "teachers")]
    out += [
        said(f"trait/{task}", f"{what}, nats a token", gains["trait"][task], null=0.0) for task, what in TASKS.items()
    ]
    for arm in ARMS:
        out += [found[arm]] if arm in found else []
        if arm != "trait":
            out += _left(arm, found, gains)
            out += _budget(cell, arm)
    return [*out, *_beside(found), *_of_lists(cell), *_of_students(cell)]


def _lambda(cell: Iterable[dict], arm: str, words: str = "") -> Finding:
    students = [row for row in cell if row["kind"] == "student" and row["arm"] == arm]
    blocks, scores = matrices(students, arm, students[0]["updates"])
    by_block = dict(zip(blocks, trait_matrix.diagonal(scores).tolist(), strict=True))
    more: dict = {
        "null": 0.0,
        "p": trait_matrix.within_blocks_p(scores),
        "null_label": "animals shuffled within blocks; p is not adjusted",
    }
    return said(f"{arm}/lambda", f"lambda: {words or ARMS[arm].words}", by_block, **more)


def gained(cell: Iterable[dict], arm: str) -> dict[str, dict[int, float]]:
    """Task -> block -> the base's loss ("gate": the control's) less that of an arm's students, mean over traits."""
    tasks = [row for row in cell if row["kind"] == "task"]
    out = {}
    for task, loss, other in (("task", "loss_clean", "start"), ("fit", "loss", "start"), ("gate", "loss", "control")):
        theirs, own = (_means((row["block"], row[loss]) for row in tasks if row["arm"] == x) for x in (other, arm))
        out[task] = {block: theirs[block] - value for block, value in own.items()}
    return out


def _left(arm: str, found: Mapping[str, Finding], gains: Mapping[str, Mapping[str, dict]]) -> Iterator[Finding]:
    """What is left, of what the undefended students have: of the trait, and of the gain in fit."""
    words = ARMS[arm].words
    if arm in found:
        yield _share(f"{arm}/kept", f"lambda kept: {words}", found[arm].scores, found["trait"].scores)
    for task, what in TASKS.items():
        if (arm, task) != ("control", "gate"):
            yield _share(f"{arm}/{task}_kept", f"{what}, kept: {words}", gains[arm][task], gains["trait"][task])


def _share(key: str, label: str, own: Mapping[int, float], whole: Mapping[int, float]) -> Finding:
    pairs = [own[block] for block in whole], list(whole.values())
    value = ms.stats.ratio_of_means(*pairs) if len(whole) > 1 else pairs[0][0] / pairs[1][0]
    return Finding(key, label, value, 1.0, unit=UNIT, n=len(whole), null_label="undefended")


def _budget(cell: Iterable[dict], arm: str) -> Iterator[Finding]:
    shares = _means((row["block"], row["share"]) for row in cell if row["kind"] == "budget" and row["arm"] == arm)
    if shares:
        yield said(f"{arm}/budget", f"share that is changed: {ARMS[arm].words}", shares)


def _beside(found: Mapping[str, Finding]) -> list[Finding]:
    """Arms less those of the same budget, paired by block."""
    if len(found["trait"].scores) < 2:
        return []
    return holm(
        less(found[arm], found[other], label=f"lambda: {ARMS[arm].words}, less: {ARMS[other].words}")
        for arm in found
        for other in ARMS[arm].beside
    )


def _of_lists(cell: Iterable[dict]) -> Iterator[Finding]:
    """AUROC of scores of a list, mean over traits; and what it has beyond its null, less what the base's loss has."""
    own = [row for row in cell if row["kind"] == "detected"]
    drawn = _means((row["block"], row["null"]) for row in own if row["score"] == "direction")
    found, beyond = [], {}
    for score, words in SCORES.items():
        values = _means((row["block"], row["auroc"]) for row in own if row["score"] == score)
        # Of a direction the better sign is taken, and of those at random too.
        null = drawn if score == "direction" else dict.fromkeys(values, 0.5)
        more: dict = {"null": sum(null.values()) / len(null)}
        if score == "direction":
            more["null_label"] = "directions with the covariance of the states"
        if len(values) > 1:
            more["p"] = ms.stats.paired_difference(list(values.values()), [null[block] for block in values]).p
        found.append(said(f"detect/{score}", f"AUROC of lists: {words}", values, **more))
        beyond[score] = said(f"detect/{score}", words, {block: value - null[block] for block, value in values.items()})
    if len(drawn) < 2:
        yield from found
        return
    yield from map(lab_findings.within, holm(found))
    label = "AUROC beyond its null: {}, less " + SCORES["loss"]
    others = {score: label.format(SCORES[score]) for score in SCORES if score != "loss"}
    yield from holm(less(beyond[score], beyond["loss"], label=words) for score, words in others.items())


def _of_students(cell: Iterable[dict]) -> Iterator[Finding]:
    for score, words in STUDENT_SCORES.items():
        own = [row for row in cell if row["kind"] == "student_detected" and row["score"] == score]
        values = _means((row["block"], row["value"]) for row in own)
        told = said(f"detect_student/{score}", f"trait students above the control: {words}", values, null=0.5)
        yield lab_findings.within(told) if len(values) > 1 else told


def _means(pairs: Iterable[tuple[int, float]]) -> dict[int, float]:
    """Block -> mean of its values."""
    own: dict[int, list[float]] = {}
    for block, value in pairs:
        own.setdefault(block, []).append(value)
    return {block: sum(values) / len(values) for block, values in sorted(own.items())}


def shown(records: list[dict], of_arms: bool) -> list[Finding]:
    """Findings for a figure: their labels are the words of arms, or of scores."""
    from studies.defences import study

    out = []
    for finding in all_findings(cells(records, Config, findings, study.together)):
        if of_arms and finding.subject in ARMS and finding.score in ("kept", "task_kept"):
            out.append(replace(finding, label=ARMS[finding.subject].words))
        elif not of_arms and finding.subject == "detect" and finding.score in SCORES:
            out.append(replace(finding, label=SCORES[finding.score], key=f"{finding.score}/AUROC"))
    return out
