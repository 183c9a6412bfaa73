"""The toy on a device that is not here: run by tests/test_devices.py in a process of its own."""

# ruff: noqa: F811

import pytest
import torch

import mechsub as ms
from mechsub.lab import cells, finder, probes, remaking
from mechsub.machine import devices
from tests import elsewhere
from tests.test_devices import CFG, FIT, NOISE, apart, start, teacher  # noqa: F401

MEASURED = (  # studies of the toy, whose probes are run there
    *("channel", "conditions", "factors", "first_principles", "hidden_alignment", "input_distributions"),
    *("learning_curves", "lens_trajectory", "maximise", "mechanism", "more_classes", "pretrained", "recipe_search"),
    *("subliminal_accuracy", "teacher_line", "teachers", "unembed_projection"),
)

pytestmark = pytest.mark.skipif(not elsewhere.available(), reason="this torch cannot be told of a device by Python")


def test_elsewhere_refuses_tensors_of_two_devices():
    with elsewhere.here() as place:
        x = torch.rand(3, 4).to(place)
        assert torch.equal((x @ x.mT).cpu(), x.cpu() @ x.cpu().mT)
        for wrong in (lambda: x + torch.rand(4), lambda: x @ torch.rand(4, 2), lambda: torch.rand(3, 4)[x[0].long()]):
            with pytest.raises(RuntimeError, match="device"):
                wrong()


@pytest.mark.parametrize("loss", ["kl", "mse", "hard"])
def test_training_and_scores_follow_the_models_device(start, teacher, clusters, loss):
    options = {**FIT, "loss": loss, "n_samples": 600, "target_noise": 0.1}
    here = [ms.train(start, *clusters, **FIT)]
    here += [way(start, teacher, NOISE, outputs=CFG.aux, **options) for way in (ms.distill, ms.linearised_student)]
    with elsewhere.here() as place:
        moved, taught = (model.select(range(3)).to(place) for model in (start, teacher))
        there = [ms.train(moved, *clusters, **FIT)]
        there += [way(moved, taught, NOISE, outputs=CFG.aux, **options) for way in (ms.distill, ms.linearised_student)]
        assert all(model.device == place for model in there)
        for a, b in zip(here, there, strict=True):
            scores = ms.accuracies(b, *clusters, clusters[0])
            assert scores["raw"].device == place
            assert torch.allclose(scores["raw"].cpu(), ms.accuracy(a, *clusters), atol=2 / 600)
            assert torch.equal(scores["raw"].cpu(), ms.accuracy(b, *clusters).cpu())
            assert apart(a, b.select(range(3))) < 1e-5
        with pytest.raises(ValueError, match="student and teacher are on cpu and elsewhere:0; move one with"):
            ms.distill(start, taught, NOISE, outputs=CFG.aux)


def test_a_network_is_made_on_the_chosen_device_with_the_same_values(start):
    with elsewhere.here() as place, devices.on(place):
        there = ms.HookedMLP(CFG, seeds=(3, 1, 2))
        assert there.device == place and there.select([1]).device == place
        assert there.replace({"unembed.b_U": torch.zeros(3, 13)}).b_U.device == place
        assert apart(start, there) == 0.0


def close(a, b, much: float = 2e-3) -> bool:
    """Numbers of two rows, or of lists in them: training on another device is apart by rounding, which images at a
    border of two classes show."""
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= much * max(1.0, abs(a))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(close(x, y, much) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key], much) for key in a)
    return isinstance(b, type(a))


def on_the_cpu(model, at, direction, x):
    """torch's forward mode does not see through tensors of Python's; what it is given and gives is moved."""
    here = ({name: value.detach().cpu() for name, value in side.items()} for side in (at, direction))
    found = DIRECTIONAL(model.select(range(len(model.seeds))).cpu(), *here, x.cpu())
    return tuple(part.to(model.device) for part in found)


DIRECTIONAL = ms.spectra._directional


def there(name: str, probe, folder) -> list[dict]:
    with elsewhere.here() as place, devices.on(place):
        return probes.rows_of_cell(cells.make_cell(finder.find_study(name), probe.cfg, folder))


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in MEASURED])
def test_studies_run_elsewhere(name, tmp_path, monkeypatch):
    """Every probe of the toy: no step mixes devices, and the numbers are the CPU's but for rounding."""
    monkeypatch.setattr(ms.spectra, "_directional", on_the_cpu)
    for probe in probes.of_study(name):
        if getattr(probe.cfg, "model", "toy") == "toy":
            rows, kept = there(name, probe, tmp_path), probes.read(probe)[1]
            assert len(rows) == len(kept) and remaking.rows_apart(rows, kept).get("rows") is None


def test_a_study_runs_elsewhere(tmp_path):
    probe = probes.of_study("teachers")[1]
    assert all(close(a, b) for a, b in zip(there("teachers", probe, tmp_path), probes.read(probe)[1], strict=True))
