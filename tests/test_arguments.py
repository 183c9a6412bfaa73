"""Every public function refuses every argument that is wrong in a usual way, with one line that names it.

The calls are made in a process without the tests' type checks, so that what is seen here is what users see. What is
right and wrong is in tests/argument_table.py; each value that a row calls right is there with its reason.
"""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import argument_table
import numpy as np
import pytest
import torch

import mechsub as ms
from mechsub import arguments
from mechsub.measures import scores, spectra, tangent

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def lines():
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    process = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / "wrong_arguments.py")],
        capture_output=True, text=True, cwd=HERE.parent, env={**os.environ, "PYTHONPATH": path}, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    return [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("name", argument_table.public())
def test_every_argument_of_every_function(lines, name):
    table = argument_table.table()
    assert name in table, f"{name} is public and has no row in tests/argument_table.py"
    assert set(table[name][1]) == set(argument_table.public()[name]), "a row has every parameter, and no other"
    mine = [line for line in lines if line["function"] == name]
    assert {line["argument"] for line in mine if line["problem"]} == set(), [line for line in mine if line["problem"]]
    assert mine


def test_the_table_has_no_function_that_is_gone():
    assert set(argument_table.table()) <= set(argument_table.public())
    assert all(callable(argument_table.resolve(name)) for name in argument_table.RECORDS | argument_table.PARTS)


def test_a_public_function_without_a_row_is_noticed(monkeypatch):
    """In a module that asks for nothing of a user, too: a name of mechsub, or of a public module."""

    def unheard_of(x):
        return x

    for module in ("checks", "threads", "distances", "spectra"):
        space = argument_table.importlib.import_module(argument_table.MODULES[module])
        unheard_of.__module__ = space.__name__
        monkeypatch.setattr(space, "unheard_of", unheard_of, raising=False)
        assert f"{module}.unheard_of" in argument_table.public()
        assert f"{module}.unheard_of" not in argument_table.table()


def test_every_module_is_public_or_named():
    """A module of mechsub that is neither looked at nor named in the table would hide its functions."""
    rooms = ("", "stats", "inputs", "models", "training", "measures")
    files = {path.stem for room in rooms for path in (HERE.parent / "mechsub" / room).glob("*.py")}
    seen = set(argument_table.MODULES) | argument_table.ASKING | argument_table.HARNESS
    assert files - {"__init__", "__main__"} <= seen


def test_what_is_seen_is_what_users_see(lines):
    """Without the tests' type checks in the process that made the calls, or they would refuse first."""
    unchecked = inspect.unwrap(ms.stats.student_t)
    with pytest.raises(ValueError, match=r"values must be .* not of shape \[2, 3\]; a mean over the others"):
        unchecked(torch.zeros(2, 3))
    assert len(lines) > 5_000


@pytest.mark.parametrize(
    "value", ["ab", b"ab", {"a": 1}, torch.zeros(2, 3), np.zeros(4), "x" * 1000, slice(1, 2), object()]
)
def test_a_value_is_described_on_one_short_line(value):
    said = arguments.described(value)
    assert "\n" not in said and 0 < len(said) < 90


def test_the_largest_finite_values_are_finite():
    """65504 is the largest half; the difference of the two ends would not be finite."""
    x = torch.tensor([65504.0, -65504.0], dtype=torch.float16)
    assert arguments.finite(x, "x") is x
    for bad in (torch.nan, torch.inf, -torch.inf):
        with pytest.raises(ValueError, match="x holds NaN or infinite"):
            arguments.finite(torch.tensor([0.0, bad, 1.0]), "x")


def test_eigenvalues_count_in_any_order():
    """9, 1 and 0.1: the largest alone holds 9 / 10.1 = 89% of the variance, two hold 99%."""
    for order in ([9.0, 1.0, 0.1], [0.1, 1.0, 9.0], [1.0, 9.0, 0.1]):
        assert spectra.dimension(torch.tensor(order), 0.85) == 1
        assert spectra.dimension(torch.tensor(order), 0.95) == 2


def test_inner_products_are_summed_in_the_order_of_the_first():
    """Rounding depends on the order: 1e8 + 1 - 1e8 is 0 in fp32, and 1e8 - 1e8 + 1 is 1."""
    a = {name: torch.full((1, 1), value) for name, value in (("big", 1e8), ("one", 1.0), ("minus", -1e8))}
    b = {name: torch.ones(1, 1) for name in reversed(a)}
    assert tangent.dot(a, b) == 0
    assert tangent.dot({name: a[name] for name in ("big", "minus", "one")}, b) == 1


def test_dependent_directions_have_no_basis_of_as_many(toy):
    """All centered directions sum to 0: the last of 13 is minus the sum of the others, in a space of 16."""
    with pytest.raises(ValueError, match="depend on one another"):
        ms.direction_basis(toy, range(13))
    basis = ms.direction_basis(toy, range(12))
    assert torch.allclose(basis @ basis.mT, torch.eye(12), atol=1e-5)


def test_noise_of_another_mean_is_refused():
    images = torch.rand(20, 16, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="the size of the noise's mean image must be 0"):
        ms.noise.mixed_at_moments(images, ms.noise.resampled(images), 0.5)


def test_tables_are_never_flattened():
    """Two matrices of 2 x 3 and 3 x 2 hold six numbers each, in an order that means nothing to the other."""
    with pytest.raises(ValueError, match="a and b must be of one shape"):
        inspect.unwrap(scores.matrix_correlation)(torch.rand(2, 3), torch.rand(3, 2))
