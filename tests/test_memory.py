"""What is free, and that what cannot fit is refused at once, before anything is made."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mechsub.designs import population
from mechsub.lab import finder, store
from mechsub.machine import memory

ROOT = Path(__file__).parent.parent
GROUPS = {
    "0::/user/job": ["user/job/memory.max", "user/job/memory.current", "inactive_file"],
    "9:name=systemd:/\n4:memory:/user/job\n0::/": [
        *("memory/user/memory.limit_in_bytes", "memory/user/memory.usage_in_bytes", "total_inactive_file"),
    ],
}


@pytest.mark.parametrize("groups", GROUPS, ids=["version 2", "version 1"])
def test_the_limit_of_a_control_group_counts(tmp_path, groups):
    """Files as the kernel writes them; the limit of version 1 is set one group further out."""
    limit, usage, cache = GROUPS[groups]
    (tmp_path / limit).parent.mkdir(parents=True)
    (tmp_path / usage).write_text("700\n")
    (tmp_path / limit).parent.joinpath("memory.stat").write_text(f"{cache}_other 5\n{cache} 100\nfile 300\n")
    (tmp_path / "own").write_text(groups)
    for written, left in (("1000\n", [400]), ("max\n", [])):
        (tmp_path / limit).write_text(written)
        assert list(memory._left_in_groups(tmp_path / "own", tmp_path)) == left


def test_a_shortage_says_what_is_needed_and_what_is_free():
    assert 2**26 < memory.free_bytes() < 2**50
    assert memory.shortage(2**20) == ""
    assert re.fullmatch(r"more than 1.07e\+09 GiB are needed, and [0-9.]+ GiB are free", memory.shortage(2.0**60))


TOO_LARGE = [
    ("subliminal_accuracy", ["--d-model", "1000000"]),
    ("subliminal_accuracy", ["--n-seeds", "100000"]),
    ("hidden_alignment", ["--n-layers", "1000000", "--d-model", "8"]),
    ("unembed_projection", ["--model", "toy", "--metric", "dot", "--n-aux", "1000000"]),
    ("teachers", ["--d-model", "100000"]),
    ("factors", ["--n-seeds", "2", "4", "--n-samples", "1000000", "--n-aux", "100000"]),
]


@pytest.mark.parametrize(("name", "words"), TOO_LARGE, ids=lambda value: value if isinstance(value, str) else None)
def test_a_toy_that_cannot_fit_is_refused_before_torch_is_imported(tmp_path, name, words):
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "torch.py").write_text("raise SystemExit('torch was imported')")
    command = [sys.executable, "-m", f"studies.{name}", *words, "--out", tmp_path / "out"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "path")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: more than ") and done.stderr.count("\n") == 1
    assert "are free, for " in done.stderr and not (tmp_path / "out").exists()


CELLS = sorted((ROOT / "artifacts").glob("*/*/provenance.json"))


@pytest.mark.parametrize("path", CELLS, ids=lambda path: f"{path.parent.parent.name}/{path.parent.name}")
def test_what_was_made_would_not_be_refused(path, monkeypatch):
    """The estimate is a lower bound: below the peak of every stored toy cell, with its code and data taken off."""
    made = store.read_provenance(path.parent)
    study = finder.find_study(made["study"])
    cfg = study.Config(**made["config"])
    if getattr(cfg, "model", "toy") != "toy" or not hasattr(cfg, "n_aux"):
        pytest.skip("no toy")
    asked = []
    monkeypatch.setattr(memory, "shortage", lambda needed: asked.append(needed) or "")
    study.part("check")(cfg)
    assert asked and 2**25 < asked[0] < (made["peak_memory_mb"] - 800) * 2**20


def test_more_layers_seeds_samples_and_logits_need_more():
    from studies import factors

    base = factors.Config()
    least = population.least_bytes(base, 5)
    for name in ("n_layers", "n_seeds", "n_samples", "n_aux", "d_model", "batch_size"):
        larger = factors.Config(**{name: getattr(base, name) * 8})
        assert population.least_bytes(larger, 5) > least
