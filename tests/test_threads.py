"""The same bits with 1 to 4 threads, at sizes at which torch cuts the work between them.

What is right follows from the claim itself: whatever the number of threads, the bits are those of one. Sums of all
entries are cut above 32,768 entries, LAPACK's blocks from about 64 rows on, and functions of every entry where a
thread's share ends within a vector register (odd sizes).
"""

import importlib
import json
import threading

import pytest
import torch

import mechsub as ms
from mechsub import threads
from mechsub.inputs import noise
from mechsub.lab import study
from mechsub.measures import bottleneck, scores, similarity, spectra, tangent
from mechsub.training import removal
from studies import bottleneck as bottleneck_study
from studies import factors, teachers


@pytest.fixture(autouse=True)
def _as_before():
    n = torch.get_num_threads()
    yield
    torch.set_num_threads(n)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def images(n=1001):
    """With the spectrum of images, and pixels that never vary, as MNIST's border: a covariance of less than full
    rank."""
    x = noise.blurred_noise(2)(n, torch.Generator().manual_seed(1)) + 0.5
    x[:, ::5] = 0
    return x


def drawn(sampler, n=1001):
    return sampler(n, torch.Generator().manual_seed(2))


def toy(n_seeds=1, **shape):
    return ms.HookedMLP(ms.MLPConfig(**shape), range(n_seeds))


def states(d=256):
    """Of as many samples and features as in studies.hidden_alignment, of one member."""
    x = normal(600, 256).double()
    return x, x @ normal(256, d, seed=1).double() + normal(600, d, seed=2)


X, Y = normal(903, 301).double(), normal(903, 301, seed=1).double() + normal(903, 301).double()

Z = X.float()
APART = X.clone()  # what is added after the first entry, and before the last, is rounded more
APART[0, 0], APART[-1, -1] = 1e9, -1e9

COMPUTED = {
    "mixed_at_moments": lambda: drawn(noise.mixed_at_moments(images(), noise.uniform, 0.5)),
    "covariance_matched_noise": lambda: drawn(noise.covariance_matched_noise(images())),
    "whitened": lambda: noise.whitened(images()),
    "subspace_noise": lambda: drawn(noise.subspace_noise(700)),
    "power_law_noise": lambda: drawn(noise.power_law_noise(1.5, side=201), n=3),
    "spectrum_matched_noise": lambda: drawn(noise.spectrum_matched_noise(images())),
    "phase_scrambled": lambda: drawn(noise.phase_scrambled(images())),
    "covariance_spectrum": lambda: spectra.covariance_spectrum(images()),
    "gate_spectrum": lambda: spectra.gate_spectrum(toy(2), images()),
    "mean_share": lambda: spectra.mean_share(normal(31, 200_003)),
    "inputs_of": lambda: removal.inputs_of({"W": normal(1, 784, 256)}, 64)["W"],
    "dot": lambda: tangent.dot({"W": normal(1, 784, 256)}, {"W": normal(1, 784, 256, seed=1)}),
    "debiased_cka": lambda: similarity.linear_cka(*states()),
    "biased_cka": lambda: similarity.linear_cka(*states(200), debiased=False),
    "rbf_cka": lambda: similarity.rbf_cka(*states()),
    "procrustes": lambda: similarity.procrustes(*states()),
    "linear_r2": lambda: similarity.linear_r2(*states()),
    "mean_cosine": lambda: similarity.mean_cosine(normal(40_003, 5), normal(40_003, 5, seed=1)),
    "unit_correlation": lambda: similarity.unit_correlation(normal(5, 40_003), normal(5, 40_003, seed=3)),
    "weight_cosine": lambda: similarity.weight_cosine(normal(784, 256), normal(784, 256, seed=1), n_lead=0),
    "projection_share": lambda: similarity.projection_share(normal(784, 256), normal(784, 256, seed=1), n_lead=0),
    "interaction": lambda: scores.interaction(APART),
    "variance_shares": lambda: list(scores.variance_shares(X, ("row", "column")).values()),
    "matrix_correlation": lambda: scores.matrix_correlation(X, Y),
    "permutation_p": lambda: scores.permutation_p(X, Y, n=9, statistic=lambda a, b: float((a * b).sum()))[1],
    "crossed_bootstrap": lambda: scores.crossed_bootstrap(lambda r, c: float(Z[r][:, c].sum()), 903, 301, n=100),
    "price": lambda: bottleneck.price(toy(n_classes=250), range(200, 210), range(200)),
    "direction_basis": lambda: ms.direction_basis(toy(n_classes=250).double(), range(200)),
    "unembed_projection": lambda: ms.unembed_projection(toy(n_classes=250).double(), [0], range(9), "causal"),
    "spectrum of studies.bottleneck": lambda: bottleneck_study.spectrum(toy(n_classes=250)),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPUTED)
def test_computed_alike(name):
    values = {}
    for n in (1, 2, 3, 4):
        torch.set_num_threads(n)
        value = COMPUTED[name]()
        values[n] = value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float64)
        assert torch.get_num_threads() == n
    assert all(torch.equal(values[1], value) for value in values.values())


SMALL = [
    "--d-model",
    "64",
    "--n-seeds",
    "2",
    "--n-classes",
    "2",
    "--teacher-epochs",
    "1",
    "--epochs",
    "1",
    "--precision",
    "fp32",
]
CELLS = {
    "orthogonal": (factors, [*SMALL, "--n-samples", "2048", "--arms", "aux", "--perturbation", "0.3",
                             "--perturb-direction", "orthogonal"]),
    "matched": (factors, [*SMALL, "--n-samples", "2048", "--arms", "aux", "--signal", "0.5",
                          "--signal-moments", "matched"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_has_the_same_bytes(name, tmp_path):
    module, flags = CELLS[name]
    made = {}
    for n in (1, 2):
        torch.set_num_threads(n)
        study.command(module.study, [*flags, "--out", str(tmp_path / str(n))])
        (made[n],) = (tmp_path / str(n) / "factors").glob("*/records.jsonl")
        said = json.loads(made[n].with_name("provenance.json").read_text())
        assert said["threads"] == n  # what the process had, not what its sums were given
    assert made[1].read_bytes() == made[2].read_bytes()


TOY = (
    *("channel", "conditions", "factors", "input_distributions", "maximise", "mechanism", "more_classes", "next_token"),
    *("pretrained", "recipe_search", "subliminal_accuracy", "teachers"),
)


@pytest.mark.parametrize("name", TOY)
def test_what_a_toy_computes_between_trainings_has_one_thread(name):
    """So whatever is added to such a study too."""
    assert importlib.import_module(f"studies.{name}").study.needed("run").__wrapped__


def test_between_rows_too():
    torch.set_num_threads(2)
    rows = teachers.run(teachers.Config(n_seeds=2, n_classes=2, d_model=8, precision="fp32", epochs=1))
    next(rows)
    assert torch.get_num_threads() == 1
    rows.close()
    assert torch.get_num_threads() == 2


def test_members_still_run_side_by_side():
    """Each waits for the other: with one thread for both they would wait for ever."""
    torch.set_num_threads(2)
    meeting = threading.Barrier(2, timeout=20)

    def work(member):
        meeting.wait()
        return {"threads": torch.get_num_threads()}

    with threads.one_thread():
        assert ms.distillation.each_member(work, 2) == [{"threads": 1}] * 2
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_members_within_a_member_take_turns_in_its_thread():
    """The pool's threads could all wait for members that no thread is left for."""
    torch.set_num_threads(2)

    def outer(member):
        inner, told = [], []
        made = ms.distillation.each_member(lambda i: inner.append(threading.get_ident()) or {"i": i}, 3, told.append)
        assert set(inner) == {threading.get_ident()} and told == [1 / 3, 2 / 3, 1.0]
        return {"made": made}

    assert ms.distillation.each_member(outer, 1) == [{"made": [{"i": 0}, {"i": 1}, {"i": 2}]}]


def test_threads_come_back():
    torch.set_num_threads(3)

    @threads.made_by_one
    def rows():
        yield torch.get_num_threads(), threads.side_by_side()
        with threads.one_thread():  # again within itself
            yield torch.get_num_threads(), threads.side_by_side()
        raise RuntimeError("rows")

    generator = rows()
    assert torch.get_num_threads() == 3
    assert [next(generator), next(generator)] == [(1, 3), (1, 3)]
    with pytest.raises(RuntimeError, match="rows"):
        next(generator)
    assert (torch.get_num_threads(), threads.side_by_side()) == (3, 3)
    left = rows()
    next(left)
    left.close()
    assert torch.get_num_threads() == 3
