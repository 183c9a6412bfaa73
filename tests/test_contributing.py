"""The study of CONTRIBUTING.md, made from that page's text and run by the commands that it gives; its question."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from mechsub.lab import store
from studies import report
from studies.report import toy
from studies.report.question import ASKED

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text()


def asked(question, name, cells, folder):
    """The finding of a question that is pasted among those of the toy, about the study in the folder."""
    exec(compile(question, "question", "exec"), dict(vars(toy)))
    made = ASKED.pop()
    spec = importlib.util.spec_from_file_location(f"studies.{name}", folder / "studies" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    records = [record for cell in cells for record in store.read_records(cell)]
    found = report.Found(module.study, made.flags, {}, records, report.table_of(module.study, records, {}))
    found.lab_cells = report.lab_cells(records, module.Config, module.findings)
    return report._finding(made, found)


def test_a_study_is_added_from_the_pages_text(tmp_path):
    source, question = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    (name,) = set(re.findall(r"studies/(\w+)\.py`:", PAGE))
    commands = [line.split() for line in re.findall(rf"^python -m studies\.{name}.*$", PAGE, re.M)]
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "__init__.py").touch()
    (tmp_path / "studies" / f"{name}.py").write_text(source)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    said = []
    assert len(commands) == 3
    for _, *words in commands:
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert "--n-seeds" in said[0] and said[1].count("missing") == 2
    cells = sorted((tmp_path / "artifacts" / name).glob("*/"))
    assert [cell.name for cell in cells] == ["default", "epochs=2"]
    for cell in cells:
        rows = store.read_records(cell)
        arms = dict.fromkeys(row["arm"] for row in rows)
        accuracy = {arm: [row["accuracy"] for row in rows if row["arm"] == arm] for arm in arms}
        assert [len(values) for values in accuracy.values()] == [3, 3]
        assert min(accuracy["teacher"]) > 0.8 and max(accuracy["untrained"]) < 0.3
    finding = asked(question, name, cells, tmp_path)
    assert finding.question.name == "teacher-speed"
    assert re.fullmatch(r"Fast: after two epochs it has 0\.9\d\d \[0\.9\d\d, 0\.9\d\d\]\.", finding.answer.sentence)
    assert re.search(r"epochs=2 +teacher +0\.9\d\d \[0\.\d{3}, 0\.\d{3}\]", said[2])
    assert (tmp_path / "artifacts" / name / "epochs=1,2.html").is_file() and "figure: " in said[2]
