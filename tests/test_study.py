"""A study from its command line: grid, resume, staleness, failures, refusals; on one tiny real study."""

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Literal

import pytest

from mechsub import lab
from mechsub.lab import findings, options, progress, store, study, versions
from mechsub.lab.cells import _collect
from mechsub.lab.declared import Study
from mechsub.lab.tables import format_table

ROOT = Path(study.__file__).parents[2]
SOURCE = '''"""Is the tiny study run? 100% yes."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mechsub import study


@dataclass(frozen=True)
class Config:
    n_seeds: study.Count = study.option(2, "seeds")
    seed: study.Index = study.option(0, "first seed")
    lr: study.Positive = study.option(0.1, "step, in % of nothing")
    decay: study.NonNegative = study.option(0.0, "decay")
    offset: int = study.option(0, "any integer")
    shift: float = study.option(0.5, "any number")
    model: str = study.option("m", "name")
    tied: bool = study.option(False, "tied")
    loss: Literal["kl", "mse"] = study.option("kl", "loss")
    fail: Literal["no", "error", "nan", "empty", "key", "wait"] = study.option("no", "how to fail")
    metric: Literal["cka", "cosine"] = study.option(("cka",), "what is drawn", display=True)

    def __post_init__(self):
        if self.n_seeds > 1000:
            raise ValueError("--n-seeds is at most 1000")


def run(cfg):
    """Count how often it runs."""
    counter = Path(os.environ["COUNTER"])
    counter.write_text(counter.read_text() + "x" if counter.exists() else "x")
    if cfg.fail == "wait":
        import time

        time.sleep(600)
    if cfg.fail == "error" or os.environ.get("FAIL"):
        raise RuntimeError("no luck\\nat all")
    for seed in range(cfg.seed, cfg.seed + cfg.n_seeds * (cfg.fail != "empty")):
        study.show_progress(0.5, "half")
        yield {"member": seed, "cka": float("nan") if cfg.fail == "nan" else seed * cfg.lr}
    if cfg.fail == "key":
        yield {"loss": 1}
    yield {"provenance": {"dtype": "fp32"}}


def rows_of(records):
    return [{"member": r["member"], "cka": r["cka"], "loss": r["loss"]} for r in records]


def table(records, metric):
    return rows_of(records)


def plot(records, metric):
    import plotly.graph_objects as go

    return go.Figure(go.Scatter(x=[r["member"] for r in records], y=[r["cka"] for r in records]))


VERSION = 1

if __name__ == "__main__":
    study.main(Config, run, plot, table)
'''


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Run the tiny study in this process: `tiny("--lr", 1)`; `tiny.edit(old, new)` changes its code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COUNTER", str(tmp_path / "counter"))
    path = tmp_path / "tinystudies" / "tiny.py"
    path.parent.mkdir()
    path.write_text(SOURCE)

    def call(*argv):
        spec = importlib.util.spec_from_file_location("tiny", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "tiny", module)
        exec(compile(path.read_text(), str(path), "exec"), module.__dict__)  # never from a stale .pyc
        study.main(module.Config, module.run, module.plot, module.table, argv)

    def edit(old, new):
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    call.edit, call.path, call.folder = edit, path, tmp_path / "artifacts" / "tiny"
    call.runs = lambda: len((tmp_path / "counter").read_text()) if (tmp_path / "counter").exists() else 0
    return call


def _stops(tiny, capsys, code, *argv):
    """Run, expect the exit code and exactly one line on stderr, and return that line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        tiny(*argv)
    output = capsys.readouterr()
    assert stop.value.code == code
    assert output.err.startswith("error: ") and output.err.count("\n") == 1 and output.err.endswith("\n"), output.err
    return output.err


def test_a_figure_that_fails_does_not_cost_the_table(tiny, capsys):
    tiny.edit("    import plotly.graph_objects as go\n", "    raise ValueError('no picture')\n")
    with pytest.raises(SystemExit) as stop:
        tiny("--quiet")
    said = capsys.readouterr()
    assert stop.value.code == 1 and "member" in said.out and "the figure failed: ValueError: no picture" in said.err


def test_grid_cells_provenance_table_and_figure(tiny, capsys):
    tiny("--lr", "0.1", "2", "--loss", "kl", "mse", "--quiet")
    cells = {path.name for path in tiny.folder.iterdir() if path.is_dir()}
    assert cells == {"default", "loss=mse", "lr=2.0", "lr=2.0__loss=mse"}
    raw = [json.loads(line) for line in open(tiny.folder / "lr=2.0" / "records.jsonl")]
    assert raw[1]["cka"] == 2.0 and not {"n_seeds", "metric"} & set(raw[1])
    rows = store.read_records(tiny.folder / "lr=2.0")
    assert rows[1]["cka"] == 2.0 and rows[1]["n_seeds"] == 2 and "metric" not in rows[1]
    made = json.loads((tiny.folder / "lr=2.0" / "provenance.json").read_text())
    assert made["dtype"] == "fp32" and made["config"]["lr"] == 2.0 and made["records"]["rows"] == 2
    assert {"git", "versions", "device", "threads", "cpu", "seconds", "peak_memory_mb", "command"} <= set(made)
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert lines[0].split() == ["member", "cka", "loss"] and len(lines) == 10 and output.err == ""
    assert lines[-1] == "figure: artifacts/tiny/lr=0.1,2.0__loss=kl,mse.html"
    page = (tiny.folder / "lr=0.1,2.0__loss=kl,mse.html").read_text()
    plotly, own = re.findall(r'src="([^"]*)"', page)
    assert plotly == "../plotly.min.js" and own.startswith("data:text/javascript;base64,")
    assert "http" not in page.replace(own, "")
    assert (tiny.folder.parent / "plotly.min.js").is_file()
    assert not [path for path in tiny.folder.rglob(".*")]


def test_stored_cells_are_reused_and_display_flags_are_not_cells(tiny):
    tiny()
    before = (tiny.folder / "default" / "provenance.json").read_bytes()
    tiny("--metric", "cka", "cosine")
    tiny("--lr", "0.1", "0.3")
    assert tiny.runs() == 2
    assert (tiny.folder / "default" / "provenance.json").read_bytes() == before
    assert (tiny.folder / "metric=cka,cosine.html").is_file()


def test_a_cell_that_another_process_stores_while_it_is_looked_at_is_not_made_again(tiny, monkeypatch):
    look = versions.status

    def and_then_it_is_stored(cell, version, config, *others):
        known = look(cell, version, config, *others)
        if known.kind == "missing":
            store.write_cell(cell, [{**config, "member": 0, "cka": 1.0}], {"version": version, "config": config})
        return known

    monkeypatch.setattr(versions, "status", and_then_it_is_stored)
    tiny()
    assert tiny.runs() == 0


def test_a_config_that_its_module_refuses_is_not_started_and_does_not_make_cells_stale(tiny, capsys):
    tiny("--n-seeds", "3")
    refusal = 'def check(cfg):\n    if cfg.n_seeds > 2:\n        raise ValueError("too many")'
    tiny.edit("def rows_of", f"{refusal}\n\n\ndef rows_of")
    assert _stops(tiny, capsys, 2, "--n-seeds", "2", "4") == "error: too many\n" and tiny.runs() == 1
    tiny("--n-seeds", "3")  # what is stored is read
    tiny("--n-seeds", "4", "--dry-run")
    assert capsys.readouterr().out.endswith("missing artifacts/tiny/n_seeds=4\n") and tiny.runs() == 1
    _stops(tiny, capsys, 2, "--n-seeds", "3", "--rerun")


def test_stale_cell_is_used_said_and_recomputed_only_on_rerun(tiny, capsys):
    tiny()
    tiny.edit("seed * cfg.lr", "seed * cfg.lr + 7")
    tiny.edit("VERSION = 1", "VERSION = 2")
    capsys.readouterr()
    tiny()
    output = capsys.readouterr()
    why = "it was made by version 1 of its study, and this is 2"
    assert output.err.splitlines()[0] == f"stale: artifacts/tiny/default: {why}; --rerun recomputes it"
    assert "stale cells: default" in output.out and "7.000" not in output.out and tiny.runs() == 1
    assert "Stale: default" in (tiny.folder / "default.html").read_text()
    tiny("--rerun")
    output = capsys.readouterr()
    assert output.err == "" and "7.000" in output.out and tiny.runs() == 2


def test_a_stale_cell_that_lacks_what_is_shown_is_one_line(tiny, capsys):
    tiny()
    tiny.edit('r["cka"]', 'r["similarity"]')
    tiny.edit("VERSION = 1", "VERSION = 2")
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        tiny()
    said = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 1 and said[0].startswith("stale: artifacts/tiny/default: ")
    assert said[-1] == "error: stale cells cannot be shown by this code (default); --rerun makes them again"


def test_failed_rerun_keeps_the_cell(tiny, capsys, monkeypatch):
    tiny()
    before = (tiny.folder / "default" / "records.jsonl").read_bytes()
    monkeypatch.setenv("FAIL", "1")
    message = _stops(tiny, capsys, 1, "--rerun")
    assert "artifacts/tiny/default failed: RuntimeError: no luck at all" in message and "--debug" in message
    assert (tiny.folder / "default" / "records.jsonl").read_bytes() == before
    tiny()
    assert not [path for path in tiny.folder.rglob(".*")]


@pytest.mark.parametrize(
    ("fail", "words"),
    [("nan", "'cka' is nan"), ("empty", "no records"), ("key", "'loss' is also"), ("error", "no luck")],
)
def test_failed_run_stores_nothing(tiny, capsys, fail, words):
    assert words in _stops(tiny, capsys, 1, "--fail", fail)
    assert not tiny.folder.parent.exists()


def test_failure_keeps_finished_cells_and_debug_shows_the_traceback(tiny, capsys):
    with pytest.raises(SystemExit):
        tiny("--fail", "no", "error", "--debug")
    assert "Traceback" in capsys.readouterr().err
    assert os.listdir(tiny.folder) == ["default"]


def test_changed_records_are_an_error_until_rerun(tiny, capsys):
    tiny()
    (tiny.folder / "default" / "records.jsonl").write_text("{}\n")
    assert "default/records.jsonl was changed" in _stops(tiny, capsys, 1)
    tiny("--dry-run")
    assert capsys.readouterr().out == "damaged artifacts/tiny/default\n"
    tiny("--rerun")
    tiny()
    assert tiny.runs() == 2


def test_incomplete_cell_is_recomputed(tiny):
    tiny()
    (tiny.folder / "default" / "provenance.json").unlink()
    tiny()
    assert tiny.runs() == 2 and (tiny.folder / "default" / "provenance.json").is_file()


def test_dry_run_tells_status_and_writes_nothing(tiny, capsys):
    tiny("--dry-run")
    assert capsys.readouterr().out == "missing artifacts/tiny/default\n" and not tiny.folder.parent.exists()
    tiny()
    capsys.readouterr()
    tiny("--dry-run", "--lr", "0.1", "0.2")
    said = re.sub(r"missing cells: about .*\n", "", capsys.readouterr().out)  # where the first took a second
    assert said == "stored  artifacts/tiny/default\nmissing artifacts/tiny/lr=0.2\n"
    tiny.edit("VERSION = 1", "VERSION = 2")
    tiny("--dry-run")
    why = "(it was made by version 1 of its study, and this is 2)"
    assert capsys.readouterr().out == f"stale   artifacts/tiny/default  {why}\n" and tiny.runs() == 1


BAD = """--n-seeds 0|--n-seeds -5|--n-seeds 2.5|--n-seeds abc|--n-seeds nan|--n-seeds 1_0|--n-seeds|--n-seeds 1 1
--n-seeds 5000|--n-seeds 99999999999999999999|--seed -1|--lr nan|--lr inf|--lr -inf|--lr 0|--lr -1e-3|--lr 1e999
--lr 0x1|--lr 0.1 1e-1|--lr=|--decay -1|--offset 1.0|--offset \u0661|--shift nan|--tied maybe|--tied True
--loss kll|--loss KL|--metric l2|--metric cka cka|--model=|--model a\x00b|--model a\nb|--n_seeds 3|--n-seed 3
--typo|--lr 1 --lr 2|stray|-x|--executor Slurm|--executor k8s|--rerun=1|--out|--out=|--out counterfile/below
--workers 0|--workers two|--workers 1 --workers 2|--out a --out b|--out=a --out=a|--rerun --rerun
--executor local --executor local|--cells a --cells a
--out counterfile|--out /proc/mechsub|--fail no error no|--model \udcff"""


@pytest.mark.parametrize("words", re.split(r"[|]|\n(?=-|stray)", BAD))
def test_bad_input_is_one_line_exit_2_nothing_written(tiny, capsys, words):
    Path("counterfile").write_text("")
    before = sorted(Path().rglob("*"))
    _stops(tiny, capsys, 2, *words.split(" "))
    assert sorted(Path().rglob("*")) == before and tiny.runs() == 0


def test_messages_help(tiny, capsys):
    assert "did you mean --n-seeds?" in _stops(tiny, capsys, 2, "--n_seeds", "3")
    assert "did you mean mse?" in _stops(tiny, capsys, 2, "--loss", "msee")
    assert "an integer >= 1" in _stops(tiny, capsys, 2, "--n-seeds", "0")


def test_values_cannot_leave_the_output_folder(tiny):
    tiny("--model", "../../../evil", "a/b", "--n-seeds", "1")
    assert sorted(path.name for path in Path().iterdir()) == ["artifacts", "counter", "tinystudies"]
    assert {path.parent for path in tiny.folder.rglob("records.jsonl")} == {
        tiny.folder / "n_seeds=1__model=..%2F..%2F..%2Fevil",
        tiny.folder / "n_seeds=1__model=a%2Fb",
    }


def test_config_mistakes_are_told_to_the_author():
    for kind, default in ((list, 1), (int, dataclasses.MISSING)):
        field = dataclasses.field(default=default)
        config = dataclasses.make_dataclass("Config", [("a", kind, field)], frozen=True)
        with pytest.raises(TypeError, match="Config"):
            options.command_line(Study(module=__name__, given={"Config": config}), [], pytest.fail)


def test_table_format():
    text = study.format_table([{"arm": "a", "v": 0.12345, "n": 3}, {"arm": "long", "v": 1e-5, "p": True}])
    assert text == "arm       v  n     p\na     0.123  3\nlong  0.000     True\n"


def _process(*argv):
    command = [sys.executable, "-m", "tinystudies.tiny", *argv]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{Path.cwd()}"}
    # A test run in the background of a shell ignores SIGINT, and its children would too.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed)


def test_as_a_command(tiny):
    run = _process("--n-seeds", "3")
    output, errors = run.communicate(timeout=300)
    assert run.returncode == 0 and errors == "" and output.endswith("figure: artifacts/tiny/n_seeds=3.html\n")
    made = json.loads((tiny.folder / "n_seeds=3" / "provenance.json").read_text())
    assert made["command"][-2:] == ["--n-seeds", "3"]
    tiny("--n-seeds", "3")
    assert tiny.runs() == 1


def test_help_is_the_docstring(tiny):
    output, errors = _process("--help").communicate(timeout=300)
    assert output.count("100% yes.") == 1 and "--n-seeds" in output and "(default: 0.1)" in output and errors == ""
    usage, *lines = output.splitlines()
    assert usage.startswith("usage: ") and usage.endswith(" [--option VALUE ...]") and max(map(len, lines)) <= 120
    common = output[output.index("options of every study (docs/commands.md has more):") :]
    page = (ROOT / "docs" / "commands.md").read_text()
    flags = [f"--{name.replace('_', '-')}" for name in options._RESERVED if name != "cells"]
    assert all(flag in common and (f"| `{flag}" in page or f", `{flag} " in page) for flag in flags)
    assert len(common.splitlines()) < 10 and not any(output[: output.index(common)].count(flag) for flag in flags)


def test_help_of_many_values_says_how_many():
    @dataclasses.dataclass(frozen=True)
    class Many:
        inputs: str = study.option(tuple(f"input_{i}" for i in range(128)), "inputs")
        metric: Literal["a_long_name_of_a_metric", "another_one", "and_a_third_name_of_it"] = study.option(
            "another_one", "what is drawn"
        )
        adapter: str = study.option("", "adapter")

    said: list[str] = []
    with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as printed:
        options.command_line(Study(module=__name__, given={"Config": Many}), ["--help"], said.append)
    text = " ".join(printed.getvalue().split())
    assert "(default: input_0 input_1 input_2 ..., 128 in all)" in text and "input_3" not in text
    assert (
        "--metric NAME ... what is drawn (default: another_one); one of a_long_name_of_a_metric, another_one," in text
    )
    assert "adapter (default: left out)" in text


def test_interrupt_is_one_line_and_130(tiny):
    run = _process("--fail", "no", "wait")
    deadline = time.monotonic() + 300
    while tiny.runs() < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=300)
    assert run.returncode == 130 and errors.startswith("error: interrupted") and errors.count("\n") == 1
    assert os.listdir(tiny.folder) == ["default"]


def test_progress_needs_a_terminal_and_is_rate_limited(capsys, monkeypatch):
    study.show_progress(0.5, "outside")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress.start_bar("cell 1/1", quiet=False)
    for _ in range(100):
        study.show_progress(0.5, "text")
    assert capsys.readouterr().err.count("cell 1/1") == 1
    progress.clear_bar()
    progress.start_bar("cell 1/1", quiet=True)
    capsys.readouterr()
    study.show_progress(0.9)
    assert capsys.readouterr().err == ""


def test_a_worker_that_waits_for_its_next_cell_says_no_more_of_the_last(tiny, tmp_path):
    (tmp_path / "cells").write_text('{"cell": "lr=0.3", "before": null}\n')
    tiny("--lr", "0.3", "--cells", str(tmp_path / "cells"))
    assert tiny.runs() == 1
    assert not [t for t in threading.enumerate() if isinstance(t, threading.Timer) and not t.finished.is_set()]


def test_a_log_says_that_a_long_cell_begins_and_what_like_cells_took(tiny, tmp_path, capsys):
    config = {"n_seeds": 2, "lr": 0.2}
    made = {"study": "tiny", "version": 1, "config": config, "seconds": 1440.0}
    store.write_cell(tmp_path / "artifacts" / "tiny" / "lr=0.2", [{"member": 0}], made)
    tiny("--lr", "0.3", "0.4")
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 1)[1] for line in said] == [
        f"making lr={lr}, about 24 min, as like cells took" for lr in ("0.3", "0.4")
    ]
    tiny("--lr", "0.5", "--quiet")
    assert capsys.readouterr().err == ""


def test_a_first_run_that_fails_leaves_no_folder(tmp_path, capsys):
    from studies import token_entanglement

    with pytest.raises(SystemExit) as left:
        lab.main(token_entanglement.study, ["--model", "none of this name", "--out", str(tmp_path / "new" / "store")])
    assert left.value.code == 2 and "is neither a folder nor" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options, says",
    [
        ({"n_seeds": 1}, "n_seeds: '1' is not an integer >= 2"),
        ({"n_seeds": 2.5}, "n_seeds: '2.5' is not an integer"),
        ({"teacher_epochs": True}, "teacher_epochs: 'true' is not an integer"),
    ],
)
def test_a_config_made_in_python_is_held_to_the_ranges_of_the_command_line(options, says, tmp_path):
    from mechsub.lab import cells
    from studies import learning_curves

    with pytest.raises(ValueError, match=re.escape(says)):
        cells.make_cell(learning_curves.study, learning_curves.Config(inputs="uniform", **options), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_figure_shows_is_one_value_or_several_and_each_is_held_to_its_choices():
    from studies import hidden_alignment

    options.check_values(hidden_alignment.Config(metric="cosine"))
    options.check_values(hidden_alignment.Config(metric=("rbf_cka", "procrustes")))
    with pytest.raises(ValueError, match="metric: 'cka' is not one of debiased_cka"):
        options.check_values(hidden_alignment.Config(metric=("rbf_cka", "cka")))
    with pytest.raises(ValueError, match=re.escape("seed: '(0, 1)' is not an integer")):
        options.check_values(hidden_alignment.Config(seed=(0, 1)))


def test_a_run_that_gives_two_things_one_name_is_refused():
    torch = pytest.importorskip("torch")
    for item, words in (
        ({"tensors": {"W": torch.ones(1)}}, "the tensor 'W' twice"),
        ({"provenance": {"null": "chance"}}, "the provenance 'null' twice"),
    ):
        with pytest.raises(ValueError, match=f"a run yielded {words}"):
            _collect({}, [{"x": 1}, item, item])


SUMMARISED = '''"""Is it summarised?"""
import random
from dataclasses import dataclass

from mechsub import lab


@dataclass(frozen=True)
class Config:
    number: lab.Index = lab.option(0, "which")


def run(cfg):
    draw = random.Random(cfg.number)
    for arm in ("a", "b"):
        for member in range(3):
            yield {"arm": arm, "member": member, "score": draw.random()}


def findings(cell):
    return lab.by_arm(cell, "score", null="b", unit="seeds")


study = lab.Study(version=1)
'''


@pytest.fixture
def summarised(tmp_path, monkeypatch):
    (tmp_path / "summarised.py").write_text(SUMMARISED)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield importlib.import_module("summarised")
    del sys.modules["summarised"]


def test_cells_read_one_by_one_say_what_they_say_together(summarised, tmp_path, capsys):
    made, numbers = summarised.study, ["4", "0", "17"]
    lab.main(made, ["--number", *numbers, "--wide"])
    shown = capsys.readouterr().out
    records = [
        row for number in numbers for row in store.read_records(tmp_path / f"artifacts/summarised/{_name(number)}")
    ]
    assert study._records(made, []) is None
    together = findings.rows(study._found(made, records))
    assert format_table(together) == shown[: shown.index("figure: ")]
    assert "number=17" in shown


def test_a_pipe_gets_the_whole_table_unless_columns_names_its_width(summarised, monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    numbers = ["--number", *map(str, range(25)), "--quiet"]
    lab.main(summarised.study, numbers)
    whole = capsys.readouterr().out
    lab.main(summarised.study, [*numbers, "--wide"])
    assert capsys.readouterr().out == whole and whole.count("\n") == 77
    monkeypatch.setenv("COLUMNS", "40")
    lab.main(summarised.study, numbers)
    lines = capsys.readouterr().out.split("figure: ")[0].splitlines()
    assert max(map(len, lines)) <= 40 < max(map(len, whole.splitlines()))
    assert lines[-2].startswith("not shown: 15 of 75 rows")


def _name(number):
    return "default" if number == "0" else f"number={number}"


def test_a_long_command_is_not_repeated_in_every_cell(summarised, tmp_path):
    lab.main(summarised.study, ["--number", *map(str, range(250)), "--quiet"])
    commands = [store.read_provenance(tmp_path / "artifacts/summarised" / _name(n))["command"] for n in ("0", "7")]
    assert [words[3:] for words in commands] == [[], ["--number", "7"]]
