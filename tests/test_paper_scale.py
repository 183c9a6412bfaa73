"""The studies on models of one's own: what is planned, how long it is said to take, and, slowly, all of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mechsub.lab import imports, store
from tools import paper_scale

ROOT = Path(__file__).parent.parent
PAIR = "tests/probes/models/pair"


def test_the_plan_has_both_forms_the_null_the_pair_and_the_larger_model():
    commands = list(paper_scale.plan("m", "b", "l", "bf16"))
    entangled = [command.options for command in commands if command.study == "token_entanglement"]
    assert ("--model", "m", "--format", "published", "--spaced", "false", "--dtype", "bf16") in entangled
    assert ("--model", "m", "--weights", "random-0", "random-1", "--dtype", "bf16") in entangled
    assert {"m", "b", "l"} == {command.model for command in commands}
    assert any(command.study == "base_vs_instruct" for command in commands)
    alone = list(paper_scale.plan("m", "", "", "fp32"))
    assert {command.model for command in alone} == {"m"} and len(set(alone)) == len(alone)


def test_time_goes_with_the_weights_of_the_model_next_in_size(tmp_path):
    for name, made in {"a": {"n_params": 100, "seconds": 10.0}, "b": {"n_params": 10_000, "seconds": 50.0}}.items():
        (tmp_path / "steering" / name).mkdir(parents=True)
        (tmp_path / "steering" / name / "provenance.json").write_text(json.dumps(made))
    command = paper_scale.Command("steering", "m", ())
    assert paper_scale.expected(command, 20_000, tmp_path, 1.0) == 100.0
    assert paper_scale.expected(command, 20_000, tmp_path, 4.0) == 25.0
    assert paper_scale.expected(command, 50, tmp_path, 1.0) == 5.0
    assert paper_scale.expected(paper_scale.Command("bottleneck", "m", ()), 50, tmp_path, 1.0) is None
    for i, (base, seconds) in enumerate(
        [("organisms/1110-base", 3.0), ("organisms/1110-base", 5.0), ("none/such", 1e6)]
    ):
        path = tmp_path / "base_vs_instruct" / str(i) / "provenance.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"seconds": seconds, "config": {"base": base}}))
    pair, size = paper_scale.Command("base_vs_instruct", "m", ()), paper_scale.n_weights("organisms/1110-base")
    assert paper_scale.expected(pair, 10 * size, tmp_path, 1.0) == 40.0  # a cell of two models has no size of its own


def test_a_plan_counts_the_weights_from_the_configuration_alone():
    words = ["--model", f"{PAIR}/instruct", "--base", f"{PAIR}/base", "--device", "cpu", "--plan"]
    run = subprocess.run(
        [sys.executable, "-m", "tools.paper_scale", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert f"{PAIR}/instruct: " in run.stdout and " weights, " in run.stdout and "in all; products here" in run.stdout


def test_a_model_that_is_not_there_is_one_line(capsys):
    assert paper_scale.main(["--model", "./no model here", "--device", "cpu", "--plan"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_is_sent_can_be_imported_and_has_the_report(tmp_path, capsys):
    root, sent = tmp_path / "store", tmp_path / "store_to_send"
    assert list(paper_scale._send(root)) == [f"no cell is stored under {root}; there is nothing to send"]
    made = {"study": "theirs", "version": 1, "config": {"width": 4}}
    store.write_cell(root / "theirs" / "width=4", [{"width": 4, "value": 1.5}], made)
    assert list(paper_scale._send(root)) == [] and f"to send: {sent}" in capsys.readouterr().out
    assert {path.name for path in (sent / "report").iterdir()} == {"index.html", "plotly.min.js"}
    assert imports.put(sent, tmp_path / "theirs").added == ["theirs/width=4"]
    (line,) = paper_scale._send(root)
    assert "store_to_send is there already" in line and "python -m mechsub export" in line


def test_a_report_that_fails_is_a_line_and_the_rest_is_sent(tmp_path):
    made = {"study": "theirs", "version": 1, "config": {}}
    store.write_cell(tmp_path / "store/theirs/default", [{"value": 1.5}], made)
    (tmp_path / "store/index.html").mkdir()  # where the page would stand
    (line,) = paper_scale._send(tmp_path / "store")
    assert line.startswith("the report; python -m studies.report ")
    assert imports.put(tmp_path / "store_to_send", tmp_path / "theirs").added == ["theirs/default"]


@pytest.mark.slow
def test_all_of_it_on_tiny_models(tmp_path):
    out = tmp_path / "store"
    words = ["--model", f"{PAIR}/instruct", "--base", f"{PAIR}/base", "--device", "cpu", "--out", str(out)]
    run = subprocess.run(
        [sys.executable, "-m", "tools.paper_scale", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    sent = tmp_path / "store_to_send"
    assert (sent / "manifest.json").exists() and (sent / "report/index.html").exists()
