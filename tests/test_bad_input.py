"""Malformed input ends in one line and exit code 1 or 2, and touches nothing: a fixed corpus, and generated cases."""

import dataclasses
import importlib
import json
from pathlib import Path

import bad_runs
import malformed
import pytest
from hypothesis import HealthCheck, given, settings

from mechsub.lab import study
from mechsub.lab.declared import declared_by
from mechsub.machine import devices

CORPUS = [json.loads(line) for line in (Path(__file__).parent / "corpus" / "bad_input.jsonl").read_text().splitlines()]
EXAMPLES = {"command line": 150, "data file": 25, "model folder": 60, "prompt": 80}
LINES = [case for case in CORPUS if "argv" in case and "\0" not in "".join(case["argv"])]  # no system passes NUL on


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return bad_runs.make_place(tmp_path_factory.mktemp("place"))


@pytest.mark.parametrize("kind", malformed.KINDS)
def test_the_corpus(place, kind):
    cases = [case for case in CORPUS if case["kind"] == kind]
    problems = {json.dumps(case): bad_runs.outcome(case, place).problem for case in cases}
    assert len(cases) >= 25 and not {case: problem for case, problem in problems.items() if problem}


@pytest.mark.parametrize("kind", malformed.KINDS)
def test_generated_cases(place, kind):
    @settings(
        max_examples=EXAMPLES.get(kind, 40),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    @given(malformed.cases(kind))
    def refused(case):
        assert bad_runs.outcome(case, place).problem == ""

    refused()


@pytest.mark.parametrize("study", malformed.STUDIES)
def test_what_is_not_malformed_is_accepted(place, study):
    """Else every case above would be refused for a reason of its own."""
    flags = malformed.options(study)
    argv = ["--n-seeds", "7"] if "--n-seeds" in flags and study in malformed.STUDIES[:2] else ["--seed", "7"]
    assert bad_runs.outcome({"kind": "configuration", "study": study, "argv": argv}, place).code == 0


@pytest.mark.parametrize(
    "case",
    [
        {"kind": "data file", "name": "labels"},
        {"kind": "data file", "name": "labels.gz"},
        {"kind": "model folder", "name": "config.json"},
        {"kind": "model folder", "name": "model.safetensors"},
        {"kind": "CSV", "name": "animals.csv"},
        {"kind": "prompt", "format": "chat"},
        {"kind": "stored cell", "name": "records.jsonl"},
    ],
    ids=lambda case: f"{case['kind']} {case.get('name', '')}",
)
def test_what_is_not_spoilt_is_read(place, case, monkeypatch):
    monkeypatch.setattr(bad_runs, "spoil", lambda path, damage: None)
    assert bad_runs.outcome({**case, "damage": {"do": "flip"}}, place).code == 0


@pytest.mark.parametrize("case", LINES[::10], ids=lambda case: ascii(" ".join([case["study"], *case["argv"]]))[:60])
def test_in_a_process_of_its_own(place, case):
    assert bad_runs.process_outcome(case, place).problem == ""


OF_MODELS = (
    *("token_entanglement", "matched_tokens", "digits", "interaction_spectrum", "lens_trajectory", "rounding"),
    *("bottleneck", "steering", "contributions", "unembed_projection", "hidden_alignment", "base_vs_instruct"),
    *("number_strings", "what_predicts", "defences"),
)


def test_every_study_that_takes_a_model_is_asked():
    folder = Path(study.__file__).parents[2] / "studies"
    names = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    found = {name: declared_by(importlib.import_module(f"studies.{name}")) for name in names - {"__init__", "__main__"}}
    named = {
        name
        for name, one in found.items()
        if one is not None and {"model", "adapter"} & {field.name for field in dataclasses.fields(one.Config)}
    }
    assert named - {"audit_language"} == set(OF_MODELS)  # an audit reads cells of the others


@pytest.mark.parametrize("name", OF_MODELS)
def test_a_model_or_an_adapter_that_is_not_there_is_refused_before_a_cell_begins(name, tmp_path, capsys):
    """Also by the checks of upstream cells, and where workers would make the cell."""
    declared = declared_by(importlib.import_module(f"studies.{name}"))
    own = {field.name: field.default for field in dataclasses.fields(declared.Config)}
    wrong = [(flag, tmp_path / "gone") for flag in ("base", "model", "adapter", "foreign", "sibling")]
    for flag, value in [*wrong, ("adapter", tmp_path)]:
        if flag not in own or (flag == "adapter" and own.get("model") == "toy"):
            continue
        with pytest.raises(SystemExit) as left:
            study.command(declared, [f"--{flag}", str(value), "--out", str(tmp_path / "out"), "--workers", "2"])
        said = capsys.readouterr().err
        assert left.value.code == 2 and said.count("\n") == 1 and "failed" not in said and str(tmp_path) in said, said
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["next_token", "organisms", "train_organism"])
def test_a_study_of_the_cpu_alone_says_so_before_a_cell_begins(name):
    declared = declared_by(importlib.import_module(f"studies.{name}"))
    with devices.on("meta"), pytest.raises(ValueError, match=f"{name} runs on the CPU alone"):
        declared.part("check")(declared.Config())
