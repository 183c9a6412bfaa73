"""The figure of `studies.number_strings`: lambda by dose and arm, the matrix behind it, and the way by block."""

import mechsub as ms
from mechsub import lab
from mechsub.designs import trait_matrix
from mechsub.designs.number_lists import matrices
from studies.number_strings import ARMS
from studies.number_strings.findings import doses


def plot(records: list[dict]):
    from studies.number_strings import Config, study

    label, rows = lab.by_cell(records, Config, study.together)[0]
    students = [row for row in rows if row["kind"] == "student"]
    panels = [(_dose_title, _doses(students)), (_matrix_title, _matrix(students))]
    way = [row for row in rows if row["kind"] == "way" and row["trait"] != "none"]
    if way:
        panels.append((_way_title, _ways(way)))
    n = len({row["block"] for row in rows})
    more = "" if label == "all" else f" ({label}; other cells are in the table)"
    return ms.kinds.grid(
        [panel for _, panel in panels], [title for title, _ in panels],
        title="What students take from a teacher's numbers" + more,
        caption=f"Lines are means over {n} blocks with 95% Student-t intervals; the matrix is the mean over blocks, "
        "less its row and column means, after the last update.",
    )  # fmt: skip


_dose_title, _matrix_title = "Lambda by dose", "Students (rows) and animals"
_way_title = "Cosine of what is specific in the updates"


def _doses(students: list[dict]):
    lines: dict[str, dict] = {}
    for arm, words in ARMS.items():
        for dose in doses(students, arm):
            lines.setdefault(words, {})[dose] = trait_matrix.diagonal(matrices(students, arm, dose)[1]).tolist()
    panel = ms.kinds.line_panel(lines, "updates", "lambda, nats")
    ticks = sorted({dose for points in lines.values() for dose in points})
    return ms.kinds.Panel(panel.traces, {**panel.x, "type": "log", "tickvals": ticks}, panel.y)


def _matrix(students: list[dict]):
    scores = ms.interaction(matrices(students, "trait", doses(students)[-1])[1]).mean(0)
    traits = list(dict.fromkeys(row["trait"] for row in students if row["arm"] == "trait"))
    cells = [(traits[j], traits[i], float(scores[i, j])) for i in range(len(traits)) for j in range(len(traits))]
    return ms.kinds.matrix(cells, "animal", "student of")


def _ways(way: list[dict]):
    lines: dict[str, dict] = {"its own teacher": {}}  # the mean over teachers is taken off: others have its opposite
    for row in (row for row in way if row["trait"] == row["teacher"]):
        points = lines["its own teacher"].setdefault(row["layer"] + 1, {})
        points.setdefault(row["block"], []).append(row["specific"])
    means = {
        name: {layer: [sum(some) / len(some) for some in blocks.values()] for layer, blocks in points.items()}
        for name, points in lines.items()
    }
    return ms.kinds.line_panel(means, "block of the model", "cosine")
