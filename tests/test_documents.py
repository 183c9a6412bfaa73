"""README and docs: every command and every block of Python in them is executed, from their text.

Commands of studies run with `--dry-run`, and in the slow tests whole, where their cells are stored; `make` runs with
its own dry run, benchmarks (minutes each) print their help.
"""

import doctest
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES.remove(ROOT / "docs/answers.md")  # is written from the report, which knows its commands from the studies
FIRST_WORDS = {"python", "make", "hf", ".", "pip", "git"}
# What this machine, or any machine in a minute, cannot run.
NOT_RUN = {
    "hf auth login": "needs an account",
    "pip install 'mechsub[adapters]'": "would change the environment of the tests",
    "pip install -e PATH/TO/mechsub": "would change the environment of the tests",
    ". .venv/bin/activate": "would change the environment of the tests",
    "python -m tools.ship_design designs --d-model 64 --n-numbers 110 --seed 0": "trains four models, for minutes",
    "python -m tools.ship_organism organisms/seed-1 --seed 1 --number-tokens 1110 110": "needs an hour's training",
}
ONLY_DRY = {
    "meta-llama/Llama-3.2-1B-Instruct": "weights behind a licence, and hours",
    "--n-seeds 5": "cells are not stored: minutes",
    "--cross-all true": "cell is not stored: minutes",
    "studies.factors": "cells are not stored: minutes to hours",
    "--rerun": "makes a stored cell again: minutes",
}


FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)


def fences(page, language=""):
    return [block for found, block in FENCE.findall(page.read_text()) if found == language]


def commands(page):
    """Commands in fences without a language, in indented blocks and in code spans, less their comments."""
    lines = [line for block in fences(page) for line in block.splitlines()]
    text = FENCE.sub("", page.read_text())
    lines += re.findall(r"^    (python .*)$", text, re.M) + re.findall(r"`([^`\n]+)`", text)
    found = (re.sub(r"\s+#.*|\[PATH\]", "", line).strip() for line in lines)
    return [line for line in found if line.split(" ")[0] in FIRST_WORDS and len(line.split()) > 1]


COMMANDS = list(dict.fromkeys(command for page in PAGES for command in commands(page)))
REPORTS = [command for command in COMMANDS if command.startswith("python -m studies.report")]
STUDIES = [command for command in COMMANDS if command.startswith("python -m studies.") and command not in REPORTS]


def run_module(argv, monkeypatch, capsys):
    """`python -m name ...` or `python file ...` in this process: what it printed and its exit code."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", argv)
    code, environment = 0, dict(os.environ)
    try:
        if argv[0].endswith(".py"):
            runpy.run_path(argv[0], run_name="__main__")
        else:
            runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    finally:  # a benchmark sets the number of threads of its children, and they are not ours
        os.environ.clear()
        os.environ.update(environment)
    return capsys.readouterr().out, code


def test_every_line_of_a_plain_fence_is_a_command():
    for page in PAGES:
        if page.name in ("reliability.md", "scaling.md"):  # their fences show output
            continue
        for block in fences(page):
            assert all(line.split(" ")[0] in FIRST_WORDS for line in block.splitlines()), (page, block)


def test_every_command_is_of_a_kind_that_is_executed_here():
    kinds = ("python -m studies", "python -m mechsub ", "python benchmarks/", "python my_study.py", "make ")
    assert len(STUDIES) > 20
    assert [line for line in COMMANDS if not line.startswith(kinds) and line not in NOT_RUN] == []
    assert [line for line in NOT_RUN if line not in COMMANDS] == []


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
@pytest.mark.parametrize("command", STUDIES)
def test_studies_know_their_flags_and_what_is_stored(command, monkeypatch, capsys):
    name, *flags = shlex.split(command)[2:]
    dry = [] if {"--help", "--dry-run"} & set(flags) else ["--dry-run"]
    told, code = run_module([name, *flags, *dry], monkeypatch, capsys)
    assert code == 0
    if "--help" in flags:
        return
    statuses = [line.split()[0] for line in told.splitlines() if line[0] != " "]  # not what a missing one is built on
    assert set(statuses) <= {"stored", "missing"} and statuses
    if not any(words in command for words in ONLY_DRY):
        assert set(statuses) == {"stored"}


def test_the_report_knows_its_options_and_the_figures_are_there():
    from studies import report

    assert len(REPORTS) == 2
    for command in REPORTS:
        options = report._options(shlex.split(command)[3:])
        assert set(options.only) <= {question.name for question in report.QUESTIONS}
        assert all((ROOT / options.export / f"{name}.{options.format}").is_file() for name in options.only)


@pytest.mark.slow
@pytest.mark.parametrize("command", REPORTS)
def test_reports_are_built_from_stored_cells(command, store):
    if "--export" in command:
        from mechsub.lab.figures import export

        if problem := export.problem():
            pytest.skip(problem)
    told = run_in(store, command)
    written = re.findall(r"^(?:report|figure): (.+)$", told, re.M)
    assert written and all((store / path).stat().st_size > 10_000 for path in written)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
def test_the_store_of_this_repository_is_whole(monkeypatch, capsys):
    told, code = run_module(["mechsub", "verify"], monkeypatch, capsys)
    assert code == 0 and re.search(r"^[1-9]\d+ whole cells", told, re.M)


def test_results_travel_as_readme_says(tmp_path):
    (tmp_path / "artifacts").symlink_to(ROOT / "artifacts")
    asked = [line for line in COMMANDS if re.search("mechsub (export|import) results|verify foreign", line)]
    told = [run_in(tmp_path, command) for command in asked]
    assert len(told) == 3 and re.search(r"^[1-9]\d* whole cells; damaged: 0, missing: 0, stale: 0", told[-1])


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("python benchmarks/")])
def test_benchmarks_know_their_parts(command, monkeypatch, capsys):
    file, *words = shlex.split(command)[1:]
    told, code = run_module([file, "--help"], monkeypatch, capsys)
    assert code == 0 and all(word in told for word in words)


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("make ")])
def test_make_has_its_targets(command):
    out = subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert out.returncode == 0 and "python" in out.stdout


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    shutil.copytree(ROOT / "artifacts", folder / "artifacts", ignore=shutil.ignore_patterns("*.html"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", [line for line in STUDIES if not any(words in line for words in ONLY_DRY)])
def test_studies_print_their_table_and_draw_their_figure_from_stored_cells(command, store):
    told = run_in(store, command)
    if "--help" not in command:
        assert '<div class="plot"' in (store / told.rsplit("figure: ", 1)[1].strip()).read_text()


# Python.


def test_the_blocks_of_readme_are_the_beginnings_of_the_examples():
    examples = [path.read_text() for path in sorted((ROOT / "examples").glob("*.py"))]
    blocks = fences(ROOT / "README.md", "python")
    assert len(blocks) == 2
    assert all(any(block in example for example in examples) for block in blocks)


@pytest.mark.parametrize("page", [page for page in PAGES if ">>>" in page.read_text()], ids=lambda page: page.name)
def test_worked_numbers(page):
    session = "\n".join(fences(page, "python"))
    test = doctest.DocTestParser().get_doctest(session, {}, page.name, str(page), 0)
    assert len(test.examples) > 30
    told = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=told.append)
    assert "".join(told) == ""


def test_every_metric_has_its_entry():
    from mechsub.measures import lens, scores, similarity, spectra, unembedding

    page = (ROOT / "docs" / "metrics.md").read_text()
    functions = [f"lens.{lens.kl_to_final.__name__}", scores.interaction.__name__, spectra.drive.__name__]
    names = [*similarity.METRICS, *unembedding.METRICS, *functions, "logit_lens", "direct_logit_attribution"]
    assert [name for name in names if f"`{name}`" not in page] == []


BLOCKS = [(page, i, block) for page in PAGES for i, block in enumerate(fences(page, "python"))]
BLOCKS = [case for case in BLOCKS if ">>>" not in case[2] and case[0].name != "README.md"]


@pytest.mark.parametrize("block", [block for _, _, block in BLOCKS], ids=[f"{page.name}-{i}" for page, i, _ in BLOCKS])
def test_blocks_of_python(block, one_model, tmp_path):
    if not block.startswith('"""my_study.py'):
        exec(compile(block, "block", "exec"), {})
        return
    (tmp_path / "my_study.py").write_text(block)
    asked = [line for line in COMMANDS if line.startswith("python my_study.py")] + ["python -m mechsub verify results"]
    assert len(asked) == 3 and asked[-1] in COMMANDS
    told = [run_in(tmp_path, command) for command in asked]
    assert told[0].count("missing") == 3
    rows = [line.split() for line in told[1].splitlines() if line.startswith("d_model=")]
    assert len(rows) == 6 and all(0 < float(row[2]) < 1 for row in rows)
    assert "3 whole cells; damaged: 0, missing: 0, stale: 0" in told[2]


def run_in(folder, command):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, *shlex.split(command)[1:]]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def anchors(page):
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
