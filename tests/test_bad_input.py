"""Malformed input ends in one line and exit code 1 or 2, and touches nothing: a fixed corpus, and generated cases."""

import json
from pathlib import Path

import bad_runs
import malformed
import pytest
from hypothesis import HealthCheck, given, settings

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
