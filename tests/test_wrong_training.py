"""Calls of the toy's training that gave a wrong network without a word: each is right now, or refused in one line."""

import ast
import functools
from pathlib import Path

import numpy as np
import pytest
import torch

import mechsub as ms
from mechsub import noise, stats
from mechsub.designs import population
from mechsub.measures import tangent, tangent_modes
from mechsub.models import tiny_transformer
from mechsub.training import conv, distillation, removal

CFG = ms.MLPConfig(d_in=16, d_model=16)
WORDS = tiny_transformer.Shape(d_model=8, n_heads=2, d_vocab=10, n_ctx=4)
X = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
ONE = {"outputs": CFG.aux, "epochs": 1, "precision": "fp32", "batch_size": 32}


def pair(seeds=(0,)):
    return ms.HookedMLP(CFG, seeds), ms.HookedMLP(CFG, [seed + 10 for seed in seeds])


def silenced(activation, hook):
    return activation * 0


# Hooks are not run by what reads weights.


@pytest.mark.parametrize("permanent", [True, False])
def test_a_network_with_hooks_is_refused_where_its_weights_are_read(permanent):
    student, teacher = pair()
    labels = torch.zeros(64, dtype=torch.int64)
    calls = [
        lambda: ms.distill(student, teacher, X, **ONE),
        lambda: ms.distill(teacher, student, X, **ONE),
        lambda: ms.train(teacher, X, labels, epochs=1),
        lambda: ms.linearised_student(student, teacher, X, outputs=CFG.aux, epochs=1),
        lambda: tangent.tangent(teacher, X, CFG.aux),
        lambda: removal.distill_without({"a": (student, None)}, teacher, X, outputs=CFG.aux, epochs=1),
        lambda: removal.trait_gradient(teacher, X, labels),
        lambda: teacher.select([0]),
        lambda: teacher.replace({}),
        lambda: hooked_conv.replace({}),
        lambda: hooked_words.select([0]),
        lambda: tiny_transformer.trained(hooked_words, [], lambda a, b: a.sum(), []),
        lambda: conv.distill_each(
            {"a": hooked_conv}, ms.HookedMLP(ms.MLPConfig(d_model=16), (0,)), n_samples=8, loss="kl", epochs=1, lr=1e-3,
            batch_size=8, seed=0, frozen=(), snapshots={},
        ),
        lambda: conv.distill_each(
            {"a": conv.ConvNet(ms.MLPConfig(d_model=16), [0])}, hooked_images, n_samples=8, loss="kl", epochs=1,
            lr=1e-3, batch_size=8, seed=0, frozen=(), snapshots={},
        ),
    ]  # fmt: skip
    small = ms.MLPConfig(d_model=16)
    hooked_images, hooked_conv = ms.HookedMLP(small, (0,)), conv.ConvNet(small, [0])
    hooked_conv.add_hook("blocks.0.hook_out", silenced, is_permanent=True)
    hooked_words = tiny_transformer.EnsembleTransformer(WORDS, (0,))
    hooked_words.add_hook("blocks.0.hook_out", silenced, is_permanent=True)
    if permanent:
        for model in (teacher, hooked_images):
            model.add_hook("blocks.1.hook_out", silenced, is_permanent=True)
        run(calls)
    else:
        hooks = [("blocks.1.hook_out", silenced)]
        with teacher.hooks(fwd_hooks=hooks), hooked_images.hooks(fwd_hooks=hooks):
            run(calls)
        ms.distill(student, teacher, X, **ONE)


def run(calls):
    for call in calls:
        with pytest.raises(ValueError, match="has hooks, which are not run here"):
            call()


class Residual(ms.HookedMLP):
    def forward(self, x):
        h = x if x.ndim == 3 else x[None]
        for block in self.blocks:
            h = h + block(h)
        return self.unembed(h)


def with_part(change):
    model = ms.HookedMLP(CFG, (0,))
    change(model)
    return model


OWN_PARTS = {
    "norm": lambda: with_part(lambda m: setattr(m, "ln_final", torch.nn.LayerNorm(16, elementwise_affine=False))),
    "activation": lambda: with_part(lambda m: setattr(m.blocks[0], "activation", torch.tanh)),
    "last activation": lambda: with_part(lambda m: setattr(m.blocks[1], "activation", torch.nn.functional.relu6)),
    "forward of its class": lambda: Residual(CFG, (0,)),
    "forward of its own": lambda: with_part(lambda m: setattr(m, "forward", lambda x: 2 * ms.HookedMLP.forward(m, x))),
    "block": lambda: with_part(lambda m: m.blocks.append(m.blocks[1])),
}


@pytest.mark.parametrize("part", OWN_PARTS)
def test_a_network_that_is_more_than_its_weights_is_refused_where_these_are_read(part):
    """Training, and whoever copies, took it for the plain network of its cfg."""
    student, odd, labels = ms.HookedMLP(CFG, (0,)), OWN_PARTS[part](), torch.zeros(64, dtype=torch.int64)
    for call in (
        lambda: ms.distill(student, odd, X, **ONE),
        lambda: ms.distill(odd, student, X, **ONE),
        lambda: ms.train(odd, X, labels, epochs=1),
        lambda: tangent.tangent(odd, X, CFG.aux),
        lambda: removal.trait_gradient(odd, X, labels),
        lambda: odd.select([0]),
        lambda: odd.replace({}),
    ):
        with pytest.raises(ValueError, match="of its own, and only its cfg and weights are read here") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_copies_of_other_ensembles_are_of_the_plain_network():
    words = tiny_transformer.EnsembleTransformer(WORDS, (0,))
    words.ln_final = torch.nn.Identity()
    images = conv.ConvNet(ms.MLPConfig(d_model=16), [0])
    images.ln_final = torch.nn.LayerNorm(16, elementwise_affine=False)
    for call in (lambda: words.select([0]), lambda: images.replace({})):
        with pytest.raises(ValueError, match=r"has ln_final\.forward of its own"):
            call()


# Inputs.


def test_a_sampler_of_ones_own_is_asked_once_for_all_inputs():
    asked = []

    def without_replacement(n, generator):
        asked.append(n)
        return images[torch.randperm(len(images), generator=generator)[:n]]

    images = torch.randn(3_000, 16, generator=torch.Generator().manual_seed(1))
    student, teacher = pair()
    ms.distill(student, teacher, without_replacement, n_samples=3_000, **ONE)
    assert asked == [3_000]


def test_samplers_of_noise_are_drawn_in_parts_and_so_are_those_made_of_them():
    asked = []

    @noise.by_rows
    def own(n, generator):
        asked.append(n)
        return noise.uniform(n, generator, 16)

    images = torch.randn(50, 16, generator=torch.Generator().manual_seed(1))
    student, teacher = pair()
    for sampler in (own, noise.mixed(images, own, 0.5)):
        ms.distill(student, teacher, sampler, n_samples=2_000, **ONE)
        assert asked == [1024, 976]
        asked.clear()
    ms.distill(student, teacher, noise.mixed(images, lambda n, g: own(n, g), 0.5), n_samples=2_000, **ONE)
    assert asked == [2_000]
    asked.clear()

    @functools.wraps(own)
    def another(n, generator):
        return own(n, generator)

    ms.distill(student, teacher, another, n_samples=2_000, **ONE)
    assert asked == [2_000]  # what is said of a function is not said of one that wraps it


def test_options_of_samplers_are_refused_with_a_tensor():
    student, teacher = pair((0, 1))
    assert ms.distill(student, teacher, X, n_samples=64, **ONE)
    with pytest.raises(ValueError, match="n_samples=3 is for samplers"):
        ms.distill(student, teacher, X, n_samples=3, **ONE)
    with pytest.raises(ValueError, match="noise='shared' is for samplers"):
        ms.distill(student, teacher, torch.stack([X, X]), noise="shared", **ONE)


def test_two_students_cannot_fill_one_dict_of_snapshots():
    student, teacher = pair()
    shared: dict = {1: None}
    with pytest.raises(ValueError, match="'a' and 'b' are one dict"):
        distillation.distill_each(
            {"a": (student, CFG.aux), "b": (student, CFG.digits)}, teacher, X, epochs=1,
            snapshots={"a": shared, "b": shared},
        )  # fmt: skip


def samplers():
    images = torch.rand(40, 784, generator=torch.Generator().manual_seed(3), dtype=torch.float32)
    return {
        "uniform": noise.uniform,
        "gaussian": noise.gaussian,
        "bernoulli": noise.bernoulli,
        "blurred": noise.blurred_noise(1),
        "power_law": noise.power_law_noise(1),
        "subspace": noise.subspace_noise(4),
        "perlin": noise.perlin_noise(4),
        "covariance": noise.covariance_matched_noise(images),
        "spectrum": noise.spectrum_matched_noise(images),
        "phases": noise.phase_scrambled(images),
        "pixels": noise.shuffled_pixels(images),
        "moments": noise.mixed_at_moments(images, noise.uniform, 0.5),
        "blurred images": noise.resampled(noise.blurred(images, 1)),
    }


def test_weights_and_noise_do_not_depend_on_the_default_dtype():
    def made():
        return {name: draw(4, torch.Generator().manual_seed(0)) for name, draw in samplers().items()}

    models = [lambda: ms.HookedMLP(CFG, (0,)), lambda: conv.ConvNet(ms.MLPConfig(d_model=16), [0])]
    expected, weights = made(), [dict(model().named_parameters()) for model in models]
    torch.set_default_dtype(torch.float64)
    try:
        found, again = made(), [dict(model().named_parameters()) for model in models]
    finally:
        torch.set_default_dtype(torch.float32)
    for name, value in expected.items():
        assert value.dtype == found[name].dtype == torch.float32, name
        assert torch.allclose(found[name], value, atol=1e-5), name
    for before, after in zip(weights, again, strict=True):
        assert all(torch.equal(before[name], after[name]) for name in before)


FLOATS = {"empty", "zeros", "ones", "rand", "randn", "full", "linspace", "logspace", "eye"}
DRAWS = {"rand", "randn", "randint", "randperm"}


def test_every_tensor_of_ours_names_its_dtype_and_its_device_where_it_is_drawn():
    """Torch's defaults are the caller's: with bf16 for one, log-probabilities were rounded to three digits."""
    lacking = []
    for path in (Path(ms.__file__).parent).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("torch."):
                name, given = ast.unparse(node.func).removeprefix("torch."), {each.arg for each in node.keywords}
                wanted = {"dtype"} if name in FLOATS else set()
                wanted |= {"device"} if name in DRAWS and "generator" in given else set()
                lacking += [f"{path.name}:{node.lineno} {name} {each}" for each in wanted - given]
    assert not lacking


def test_weights_do_not_depend_on_the_default_device():
    models = [lambda: ms.HookedMLP(CFG, (0,)), lambda: conv.ConvNet(ms.MLPConfig(d_model=16), [0])]
    expected = [dict(model().named_parameters()) for model in models]
    torch.set_default_device("meta")
    try:
        found = [dict(model().named_parameters()) for model in models]
    finally:
        torch.set_default_device("cpu")
    for before, after in zip(expected, found, strict=True):
        assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_bound_method_cannot_be_marked():
    class Drawer:
        def draw(self, n, generator):
            return noise.uniform(n, generator)

    with pytest.raises(ValueError, match="sampler must be a function"):
        noise.by_rows(Drawer().draw)


def test_training_works_where_gradients_are_off():
    student, teacher = pair()
    expected = ms.distill(student, teacher, X, **ONE)
    with torch.no_grad():
        assert torch.equal(ms.distill(student, teacher, X, **ONE).W_U, expected.W_U)
    words, way = (
        tiny_transformer.EnsembleTransformer(WORDS, (0,)),
        removal.trait_gradient(teacher, X, X[:, 0].long() % 3),
    )
    row = {name: value[0] for name, value in teacher.named_parameters()}

    def trained():
        batch = (torch.ones(2, 3, dtype=torch.long), torch.zeros(()))
        return tiny_transformer.trained(words, [batch], lambda logits, _: logits.square().mean(), [0.1])

    made, direction = trained(), way(0, 0, row)
    with torch.no_grad():
        assert torch.equal(trained().W_E, made.W_E) and not torch.equal(made.W_E, words.W_E)
        assert all(torch.equal(value, direction[name]) for name, value in way(0, 0, row).items())


def test_a_network_of_inference_mode_is_looked_at():
    """It counts no versions, and what is found of it is kept by the values."""
    with torch.inference_mode():
        model = ms.HookedMLP(CFG, (0,))
    expected = ms.logit_lens(ms.HookedMLP(CFG, (0,)), X)
    assert all(torch.equal(value, expected[name]) for name, value in ms.logit_lens(model, X).items())


def test_a_temperature_that_would_be_ignored_is_refused_everywhere():
    student, teacher = pair()
    for call in (ms.distill, ms.linearised_student):
        with pytest.raises(ValueError, match="temperature must be 1 with loss 'mse'"):
            call(student, teacher, X, outputs=CFG.aux, epochs=1, loss="mse", temperature=2.0)


def test_copies_of_one_image_have_no_variance_and_noise_has_no_mean_image():
    one = torch.rand(1, 16, generator=torch.Generator().manual_seed(0)).expand(100, -1)
    for make in (noise.covariance_matched_noise, noise.whitened):
        with pytest.raises(ValueError, match="all one image"):
            make(one)
    images = torch.randn(50, 16, generator=torch.Generator().manual_seed(1))
    ramp = torch.linspace(-1, 1, 16)
    with pytest.raises(ValueError, match="mean image"):
        noise.mixed_at_moments(images, lambda n, g: ramp + 0.01 * torch.randn(n, 16, generator=g), 0.2)
    assert noise.whitened(images.double()).dtype == torch.float64


def test_labels_are_places_in_the_classes_as_they_are_given():
    labels = torch.tensor([2, 5, 7, 2, 5, 7, 1])
    images, places = population.only(torch.arange(7.0), labels, [5, 2, 7])
    assert places.tolist() == [1, 0, 2, 1, 0, 2] and len(images) == 6


# Removal, and the tangent.


def test_a_removal_is_made_of_the_students_members():
    student, teacher = pair((0, 1))
    way = {name: value.detach() for name, value in teacher.named_parameters()}
    five = {name: torch.cat([value] * 3)[:5] for name, value in way.items()}
    narrow = {"blocks.0.W": torch.linalg.qr(torch.randn(2, 15, 3)).Q}
    for taken in (
        removal.along(removal.fixed(five)),
        removal.within(narrow),
        removal.elsewhere(removal.fixed(five), student),
    ):
        with pytest.raises(ValueError, match="members first"):
            removal.distill_without({"a": (student, taken)}, teacher, X, outputs=CFG.aux, epochs=1)
    assert removal.distill_without(
        {"a": (student, removal.along(removal.fixed(way)))}, teacher, X, outputs=CFG.aux, epochs=1
    )


def test_a_direction_has_no_scale():
    update = {"blocks.0.W": torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(0))}
    way = {"blocks.0.W": torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(1))}
    expected = removal.component(update, way)["blocks.0.W"]
    tiny = removal.component(update, {"blocks.0.W": 1e-24 * way["blocks.0.W"]})["blocks.0.W"]
    assert torch.allclose(tiny, expected, atol=1e-5)
    controls = [
        removal.component(update, way, instead={"blocks.0.W": size * update["blocks.0.W"]}) for size in (1, 1e-24)
    ]
    assert torch.allclose(controls[0]["blocks.0.W"], controls[1]["blocks.0.W"], atol=1e-5)
    beside = {"blocks.1.W": way["blocks.0.W"], "blocks.0.W": 1e-24 * way["blocks.0.W"]}
    both = removal.component(update | {"blocks.1.W": update["blocks.0.W"]}, beside)
    assert torch.allclose(both["blocks.0.W"], expected, atol=1e-5)


def test_modes_that_overshoot_have_whole_steps():
    student, _ = pair()
    at = tangent.tangent(student, X, CFG.aux)
    modes = tangent_modes.tangent_modes(at, at.logits)
    rate = 1.9 / float(modes.values.max())
    tangent_modes.tangent_move(modes, 2, rate)
    tangent_modes.tangent_move(modes, 1.5, rate / 2)
    with pytest.raises(ValueError, match="steps must be whole"):
        tangent_modes.tangent_move(modes, 1.5, rate)


# Statistics.


def test_small_differences_of_fp32_values_are_seen():
    draw = np.random.default_rng(0)
    a = (-200 + draw.normal(size=20)).astype(np.float32)
    b = (a - 0.0015 - 0.0003 * draw.normal(size=20)).astype(np.float32)
    assert stats.paired_difference(a, b).p < 1e-10
    same = stats.paired_difference(a, np.nextafter(a, np.float32(0)))
    assert same.p > 0.05  # one unit of the last place


def test_one_large_draw_is_no_scale_of_ties():
    null = torch.randn(999, generator=torch.Generator().manual_seed(0))
    null[0] = 1e6
    assert stats.permutation_p(5.0, null) == 2 / 1000
    ratios = np.abs(np.random.default_rng(0).standard_cauchy(9_999)).astype(np.float32)
    assert stats.permutation_p(3.0, ratios) == stats.permutation_p(3.0, ratios.astype(float))


def test_masked_values_are_refused():
    masked = np.ma.array([1.0, 2.0, 3.0, -999.0], mask=[0, 0, 0, 1])
    with pytest.raises(ValueError, match="masked"):
        stats.student_t(masked)
    assert stats.student_t(masked.compressed()).mean == 2.0
