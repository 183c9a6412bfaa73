"""What the toy is given: refused in one line wherever torch would make a number of it that nobody means."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mechsub as ms
from mechsub.inputs import toy_inputs

ROOT = Path(__file__).parent.parent
X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def images(x):
    toy_inputs.check_images(x, 8, 2)


def labels(y):
    return toy_inputs.checked_labels(y, 64, 2)


def outputs(part, loss="kl"):
    toy_inputs.check_outputs(part, 12, loss)


@pytest.mark.parametrize("x", [X, X.double(), X.bfloat16(), X[:1], X.expand(2, 64, 8), X[None]])
def test_images_that_can_be_meant(x):
    images(x)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        ((50 * X + 100).clamp(0, 255).byte(), r"are uint8; .*images.float\(\) / 127.5 - 1"),
        (X > 0, "are bool"),
        (X.tolist(), "must be a tensor, not list"),
        (X.numpy(), "must be a tensor, not ndarray"),
        (None, "must be a tensor, not NoneType"),
        (X[:, :7], r"shape \[64, 7\], not \[sample, 8\]"),
        (X[0], r"shape \[8\]"),
        (X.view(64, 2, 4), r"shape \[64, 2, 4\]"),
        (X.expand(3, 64, 8), r"shape \[3, 64, 8\], not \[sample, 8\] or \[2, sample, 8\]"),
        (X[:0], "there are no images"),
        (torch.where(X > 3, torch.nan, X).index_fill(0, torch.tensor([5]), torch.inf), "NaN or infinite"),
    ],
)
def test_images_that_cannot_be_meant(x, says):
    with pytest.raises(ValueError, match=says) as told:
        images(x)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("y", [Y, Y.int(), Y.byte()])
def test_labels_of_any_integer_type_are_labels(y):
    assert labels(y).equal(Y) and labels(y).dtype == torch.int64


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (Y[:63], "64 images and 63 labels"),
        (Y[:1], "64 images and 1 labels"),
        (Y.repeat(2), "64 images and 128 labels"),
        (torch.nn.functional.one_hot(Y), r"one-hot rows do; give labels.argmax\(-1\)"),
        (Y.expand(2, 64), "one row of 64, for all members alike"),
        (Y[:, None], "one row of 64"),
        (Y.float(), "are float32; give class numbers"),
        (Y > 0, "are bool"),
        (Y - 1, r"from -1 to 0, but the model has the classes 0\.\.1"),
        (Y + 1, "from 1 to 2"),
        (Y - 100, "from -100"),  # what torch's cross-entropy leaves out without a word
        (Y.tolist(), "must be a tensor, not list"),
    ],
)
def test_labels_that_cannot_be_meant(y, says):
    with pytest.raises(ValueError, match=says) as told:
        labels(y)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("part", [slice(10, 12), slice(None), slice(-2, None), slice(0, 12, 2)])
def test_outputs_that_exist(part):
    outputs(part)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (slice(12, 12), "select none of the 12 logits"),
        (slice(10, 13), "10:13 reach beyond the 12 logits"),
        (slice(-13, None), "reach beyond"),
        (slice(5, 3), "select none"),
        (11, "must be a slice"),
        ([10, 11], "must be a slice"),
        (slice(0.0, 2.0), "slice of integers"),
        (slice(11, 9, -1), "step of at least 1"),
        (slice(11, 12), "one logit teaches nothing with loss 'kl'"),
    ],
)
def test_outputs_that_do_not(part, says):
    with pytest.raises(ValueError, match=says):
        outputs(part)
    if part == slice(11, 12):
        outputs(part, "mse")
        with pytest.raises(ValueError, match="'hard'"):
            outputs(part, "hard")


# Every function of the toy that takes images, labels or outputs, without the tests' own check of shapes.
EVERY = """
import torch, mechsub as ms
from mechsub import projection, spectra, tangent
cfg = ms.MLPConfig(d_in=8, d_model=16, n_classes=2, n_aux=2)
toy, one = ms.HookedMLP(cfg, range(2)), ms.HookedMLP(ms.MLPConfig(8, 16, n_classes=2, n_aux=1), range(2))
x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)); y = (x[:, 0] > 0).long()
aux, moved = slice(2, 4), {n: p + 0 for n, p in toy.named_parameters()}
def sampler(change): return lambda n, g: change(torch.randn(n, 8, generator=g))
takes_images = {
    "forward": lambda x: toy(x), "train": lambda x: ms.train(toy, x, y, epochs=1),
    "accuracy": lambda x: ms.accuracy(toy, x, y), "distill": lambda x: ms.distill(toy, toy, x, outputs=aux, epochs=1),
    "distill_each": lambda x: ms.distill_each({"a": (toy, aux)}, toy, x, epochs=1),
    "without": lambda x: projection.distill_without({"a": (toy, None)}, toy, x, outputs=aux, epochs=1),
    "trait": lambda x: projection.trait_gradient(toy, x, y), "tangent": lambda x: tangent.tangent(toy, x, aux),
    "gates": lambda x: spectra.gate_spectrum(toy, x), "correlation": lambda x: spectra.logit_correlation(toy, x),
    "drive": lambda x: spectra.drive(toy, moved, x), "cache": lambda x: ms.cache_activations(toy, x),
}
broken = {"bytes": (50 * x + 100).clamp(0, 255).byte(), "narrow": x[:, :7], "members": x.expand(3, 64, 8), "flat": x[0]}
cases = [(f"{f}, {k}", lambda f=f, v=v: takes_images[f](v)) for f in takes_images for k, v in broken.items()]
holed = x.clone(); holed[3, 3] = torch.nan
cases += [(f"{f}, nan", lambda f=f: takes_images[f](holed)) for f in takes_images if f != "forward"]
takes_labels = {
    "train": lambda y: ms.train(toy, x, y, epochs=1), "accuracy": lambda y: ms.accuracy(toy, x, y),
    "trait": lambda y: projection.trait_gradient(toy, x, y),
}
wrong = {"short": y[:60], "one": y[:1], "long": y.repeat(2), "one-hot": torch.nn.functional.one_hot(y).float(),
         "float": y.float(), "negative": y - 1, "beyond": y + 1, "members": y.expand(2, 64), "list": y.tolist()}
cases += [(f"{f}, labels {k}", lambda f=f, v=v: takes_labels[f](v)) for f in takes_labels for k, v in wrong.items()]
takes_outputs = {
    "distill": lambda o: ms.distill(toy, toy, x, outputs=o, epochs=1), "tangent": lambda o: tangent.tangent(toy, x, o),
    "without": lambda o: projection.distill_without({"a": (toy, None)}, toy, x, outputs=o, epochs=1),
}
parts = {"none": slice(4, 4), "beyond": slice(2, 9), "number": 3, "floats": slice(0.0, 2.0)}
cases += [(f"{f}, outputs {k}", lambda f=f, v=v: takes_outputs[f](v)) for f in takes_outputs for k, v in parts.items()]
cases += [
    ("one logit, kl", lambda: ms.distill(one, one, x, outputs=slice(2, 3), epochs=1)),
    ("one logit, hard", lambda: ms.distill(one, one, x, outputs=slice(2, 3), loss="hard", epochs=1)),
    ("one logit, each", lambda: ms.distill_each({"a": (one, slice(2, 3))}, one, x, epochs=1)),
    ("one logit, without", lambda: projection.distill_without({"a": (one, None)}, one, x, outputs=slice(2, 3))),
    ("one logit, drive", lambda: spectra.drive(one, dict(one.named_parameters()), x)),
    ("one logit, descent", lambda: tangent.descent(tangent.tangent(one, x, slice(2, 3)), torch.zeros(2, 64, 1))),
    ("sampler, bytes", lambda: ms.distill(toy, toy, sampler(lambda d: d.byte()), outputs=aux, n_samples=9, epochs=1)),
    ("sampler, one row", lambda: ms.distill(toy, toy, sampler(lambda d: d[:1]), outputs=aux, n_samples=9, epochs=1)),
    ("sampler, narrow", lambda: ms.distill(toy, toy, sampler(lambda d: d[:, :5]), outputs=aux, n_samples=9, epochs=1)),
    ("noise of bytes", lambda: ms.noise.resampled(broken["bytes"])),
    ("mixed bytes", lambda: ms.noise.mixed(broken["bytes"], ms.noise.gaussian, 0.5)),
    ("frozen text", lambda: ms.train(toy, x, y, frozen="blocks.0", epochs=1)),
    ("epochs 1.5", lambda: ms.train(toy, x, y, epochs=1.5)),
]
for name, case in cases:
    try:
        case()
    except ValueError as error:
        assert "\\n" not in str(error), (name, error)
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}")
    else:
        print(f"{name}: not refused")
print(len(cases), "cases")
"""  # fmt: skip


def test_every_function_of_the_toy_asks():
    done = subprocess.run(
        [sys.executable, "-c", EVERY], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr[-800:]
    *wrong, count = done.stdout.splitlines()
    assert not wrong, wrong
    assert int(count.split()[0]) > 80


def test_one_logit_is_learned_by_its_square():
    toy = ms.HookedMLP(ms.MLPConfig(d_in=8, d_model=16, n_classes=2, n_aux=1), seeds=[0])
    teacher = ms.train(toy, X, Y, epochs=5, lr=0.01, batch_size=16)
    student = ms.distill(toy, teacher, X, outputs=toy.cfg.aux, loss="mse", epochs=9, lr=0.01, batch_size=16)
    before, after = ((m(X)[..., 2] - teacher(X)[..., 2]).square().mean() for m in (toy, student))
    assert after < 0.5 * before


# Training in children.


def _trained(seed: int) -> float:
    toy = ms.HookedMLP(ms.MLPConfig(d_in=8, d_model=16, n_classes=2, n_aux=1), seeds=[seed])
    return float(ms.accuracy(ms.train(toy, X, Y, epochs=1, batch_size=32), X, Y)[0])


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_children_train_after_their_parent_has(way):
    """Each child's number is the parent's own for that seed: a member does not depend on where it is trained."""
    if way not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {way}")
    right = [_trained(seed) for seed in (1, 2)]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.randn(600, 600) @ torch.randn(600, 600)  # so that the parent has threads that a forked child lacks
    pool = multiprocessing.get_context(way).Pool(2)
    try:
        assert pool.map_async(_trained, [1, 2]).get(timeout=120) == right
    finally:
        pool.terminate()
        torch.set_num_threads(threads)
