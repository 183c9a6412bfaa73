"""The toy on any device: both orders of training, the choice of a device, and studies on one that is not the CPU."""

import dataclasses
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import mechsub as ms
from mechsub.lab import finder, probes, study
from mechsub.machine import devices, memory
from mechsub.training import together

CFG = ms.MLPConfig(d_in=64, d_model=32)
NOISE = partial(ms.noise.uniform, d_in=64)
FIT: dict = {"epochs": 17, "batch_size": 100, "precision": "fp32"}  # 102 steps of 600 inputs
OPTIMISERS = {"adam": 3e-4, "sgd": 0.05, "sign_sgd": 1e-4}


@pytest.fixture(scope="module")
def start():
    return ms.HookedMLP(CFG, seeds=(3, 1, 2))


@pytest.fixture(scope="module")
def teacher(start, clusters):
    return ms.train(start, *clusters, epochs=5, batch_size=100, precision="fp32")


def apart(a, b) -> float:
    return max(float((x - y).abs().max()) for x, y in zip(a.cpu().parameters(), b.cpu().parameters(), strict=True))


def both(fit):
    """What a training gives member by member, and with all members together."""
    with devices.on("cpu", together=False):
        alone = fit()
    with devices.on("cpu", together=True):
        return alone, fit()


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_teachers_are_the_same_together(start, clusters, optimizer, schedule):
    options = {**FIT, "optimizer": optimizer, "lr": OPTIMISERS[optimizer], "schedule": schedule, "weight_decay": 0.01}
    assert apart(*both(lambda: ms.train(start, *clusters, **options))) < 1e-5


MORE = {"kl": {"fresh": True}, "mse": {"noise": "shared"}, "hard": {"target_noise": 0.3, "temperature": 2.0}}


@pytest.mark.parametrize("loss", MORE)
@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_students_are_the_same_together(start, teacher, optimizer, loss):
    more = MORE[loss]
    options = {**FIT, "optimizer": optimizer, "lr": OPTIMISERS[optimizer], "loss": loss, "n_samples": 600, **more}
    for way in (ms.distill, ms.linearised_student):
        alone, joint = both(lambda way=way: way(start, teacher, NOISE, outputs=CFG.aux, **options))
        if optimizer == "sign_sgd":  # a gradient that is rounded to the other side of 0 is a step the other way
            far = torch.cat(
                [(a - b).flatten().abs() for a, b in zip(alone.parameters(), joint.parameters(), strict=True)]
            )
            assert (far > 1e-5).double().mean() < 0.002
        else:
            assert apart(alone, joint) < 1e-5


def test_snapshots_frozen_parts_and_several_students_are_the_same_together(start, teacher, clusters):
    other = ms.HookedMLP(CFG, seeds=(4, 5, 6))

    def fit():
        kept = {"own": {0: None, 7: None, 12: None}}
        students = {"own": (start, CFG.aux), "all": (other, slice(0, 13))}
        options = {"epochs": 2, "batch_size": 100, "precision": "fp32", "frozen": ["blocks.0"], "snapshots": kept}
        found = ms.distill_each(students, teacher, clusters[0], **options)
        return found | {f"after {step}": model for step, model in kept["own"].items()}

    alone, joint = both(fit)
    assert alone.keys() == joint.keys()
    assert all(apart(alone[name], joint[name]) < 1e-5 for name in alone)
    assert torch.equal(joint["own"].blocks[0].W, start.blocks[0].W)
    assert torch.equal(joint["own"].W_U[..., CFG.digits], start.W_U[..., CFG.digits])


def test_inputs_are_the_same_images_bit_for_bit(start, teacher):
    def fit():
        seen = []

        def noted(n, generator):
            x = NOISE(n, generator)
            seen.append((generator.initial_seed(), x.double().sum().item(), x[0, :3].tolist()))
            return x

        ms.distill(start, teacher, noted, outputs=CFG.aux, n_samples=600, fresh=True, epochs=2)
        return sorted(set(map(str, seen)))

    alone, joint = both(fit)
    assert alone == joint and len(alone) == 6


def test_members_are_trained_in_groups_where_not_all_fit(start, teacher, monkeypatch):
    fit = partial(ms.distill, start, teacher, NOISE, outputs=CFG.aux, n_samples=600, **FIT)
    whole = both(fit)[1]
    sizes, groups = [], together._groups

    def noted(*args):
        found = groups(*args)
        sizes.extend(map(len, found))
        return found

    monkeypatch.setattr(together, "_groups", noted)
    monkeypatch.setattr(memory, "free_bytes", lambda: 2_500_000)
    assert apart(whole, both(fit)[1]) < 1e-5
    assert sum(sizes) == 3 and len(sizes) > 1
    monkeypatch.setattr(memory, "free_bytes", lambda: 100_000)
    with pytest.raises(ValueError, match=r"^[\d.]+ GiB are needed on the machine to train one seed on 600 inputs"):
        both(fit)


def test_divergence_names_the_seed(start, clusters):
    with pytest.raises(ValueError, match="training of seed 3 diverged"), devices.on("cpu", together=True):
        ms.train(start, *clusters, lr=1e30, optimizer="sgd", epochs=3, precision="fp32")


def test_what_a_sampler_raises_is_raised(start, teacher):
    def broken(n, generator):
        raise ValueError("no more images")

    with pytest.raises(ValueError, match="no more images"), devices.on("cpu", together=True):
        ms.distill(start, teacher, broken, outputs=CFG.aux, n_samples=100)


# The choice of a device.


def test_devices_that_are_not_there_are_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert devices.found("auto") == devices.found("cpu") == torch.device("cpu")
    for name in ("cuda", "mps"):
        with pytest.raises(ValueError, match=f"^there is no device {name} here: .*; give --device cpu, or auto$"):
            devices.found(name)
    with pytest.raises(ValueError, match=r"^device must be one of cpu, cuda, mps, auto, not 'gpu'$"):
        devices.found("gpu")


def test_auto_never_takes_mps(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.found("auto").type == "cpu" and devices.found("mps").type == "mps"


def test_a_device_is_said_and_recorded_and_is_no_part_of_a_cell(tmp_path, capsys):
    teachers = finder.find_study("teachers")
    words = ["--d-model", "8", "--epochs", "1", "--n-seeds", "2", "--precision", "fp32", "--quiet"]
    for out, more in (("a", []), ("b", ["--device", "cpu"])):
        study.command(teachers, [*words, *more, "--out", str(tmp_path / out)])
    assert capsys.readouterr().err.splitlines() == ["device: cpu"]
    a, b = (next((tmp_path / out / "teachers").glob("*/provenance.json")) for out in "ab")
    assert a.parent.name == b.parent.name
    assert probes.rows_of_cell(a.parent) == probes.rows_of_cell(b.parent)
    assert '"device": "cpu"' in b.read_text()


def test_an_absent_device_leaves_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as left:
        study.command(finder.find_study("teachers"), ["--device", "cuda", "--out", str(tmp_path / "o")])
    said = capsys.readouterr().err
    assert (
        left.value.code == 2 and said.startswith("error: --device: there is no device cuda") and said.count("\n") == 1
    )
    assert not (tmp_path / "o").exists()


FULL = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.25 GiB is "
    "free. Including non-PyTorch memory, this process has 77.90 GiB memory in use."
)


@dataclasses.dataclass(frozen=True)
class Config:
    n: int = study.option(1, "a number")


def test_a_device_that_runs_out_of_memory_is_one_line_and_no_cell(tmp_path, capsys):
    def run(cfg):
        yield {"value": 1}
        raise torch.OutOfMemoryError(FULL)

    with pytest.raises(SystemExit) as left:
        study.main(Config, run, lambda records: None, argv=["--out", str(tmp_path / "o"), "--quiet"])
    said = capsys.readouterr().err
    assert left.value.code == 1 and said.count("\n") == 1 and not list((tmp_path / "o").rglob("*.json*"))
    assert "ran out of memory: 20.00 GiB more were needed, and 1.25 GiB of 79.15 GiB were free; use fewer seeds" in said
    assert devices.ran_out(ValueError("Tried to allocate")) == ""


# A device that is not this CPU. Torch has to be told of it for good, so that its tests have a process of their own.


def on_another_device(marks: str) -> None:
    cases = Path(__file__).with_name("on_another_device.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marks, str(cases)]
    run = subprocess.run(command, cwd=cases.parents[1], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:]


def test_the_toy_on_another_device():
    on_another_device("not slow")


@pytest.mark.slow
def test_every_study_of_the_toy_on_another_device():
    on_another_device("slow")


# Language models.


def test_scoring_takes_as_many_prompts_as_fit(bridge, monkeypatch):
    prompts = [torch.arange(6) for _ in range(8)]
    assert ms.scores.fitting(bridge, prompts, 4, 8) == 8
    monkeypatch.setattr(memory, "free_bytes", lambda: 30_000)
    assert 1 <= ms.scores.fitting(bridge, prompts, 4, 8) < 8
    monkeypatch.setattr(memory, "free_bytes", lambda: 100)
    with pytest.raises(ValueError, match=r"are needed on cpu for one prompt of 10 positions, and .* are free"):
        ms.scores.fitting(bridge, prompts, 4, 8)
