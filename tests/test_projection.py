import pytest
import torch

import mechsub as ms
from mechsub.inputs.noise import gaussian
from mechsub.training import removal as projection
from mechsub.training.fitting import member_parameters

AUX = slice(10, 13)
FIT = {"outputs": AUX, "n_samples": 600, "epochs": 4, "batch_size": 128, "lr": 1e-3}


def noise(n, generator):
    return gaussian(n, generator, d_in=64)


@pytest.fixture(scope="module")
def init(small):
    return ms.HookedMLP(small, seeds=range(2))


@pytest.fixture(scope="module")
def teacher(init, clusters):
    return ms.train(init, *clusters, epochs=25, batch_size=128, lr=1e-3, precision="fp32")


def change(model, start):
    return ms.spectra.displacement(model, start)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("frozen", [(), ("unembed",)])
def test_without_a_removal_it_is_distill(init, teacher, precision, frozen):
    settings = {**FIT, "precision": precision, "frozen": frozen}
    plain = ms.distill(init, teacher, noise, **settings)
    nothing = projection.along(projection.fixed({}))
    zero = projection.along(projection.fixed({n: torch.zeros_like(p) for n, p in init.named_parameters()}))
    given = {"none": (init, None), "nothing": (init, nothing), "zero": (init, zero)}
    for found in projection.distill_without(given, teacher, noise, **settings).values():
        assert all(torch.equal(a, b) for a, b in zip(found.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize("by", ["whole", "layer", "neuron"])
def test_what_was_learned_is_orthogonal_to_a_fixed_direction(init, teacher, by):
    """And a control, which takes as much away elsewhere, is not."""
    way = change(teacher, init)
    removal = projection.along(projection.fixed(way), by)
    control = projection.elsewhere(projection.fixed(way), init, by)
    given = {"none": (init, None), "removed": (init, removal), "control": (init, control)}
    learned = projection.distill_without(given, teacher, noise, precision="fp32", **FIT)
    share = {name: cosines(change(model, init), way, by) for name, model in learned.items()}
    assert share["none"].max() > 0.1
    assert share["removed"].max() < 1e-3
    assert (share["control"] - share["none"]).abs().max() < 0.6 * share["none"].max()
    before, after = (ms.spectra.displacement(learned[name], init)["blocks.0.W"].norm() for name in ("none", "removed"))
    assert after > 0.5 * before


def test_inputs_that_a_change_does_not_read(init, teacher):
    """The largest input directions of the teacher's change, held still; its own change would be lost but for little."""
    way = {name: value for name, value in change(teacher, init).items() if name in ("blocks.0.W", "blocks.1.W")}
    inputs = projection.inputs_of(way, 16)
    for name, basis in inputs.items():
        assert torch.allclose(basis.mT @ basis, torch.eye(16).expand(2, -1, -1), atol=1e-5)
        assert (basis.mT @ way[name]).norm() > 0.8 * way[name].norm()
    learned = projection.distill_without({"s": (init, projection.within(inputs))}, teacher, noise, **FIT)["s"]
    for name, basis in inputs.items():
        moved = change(learned, init)[name]
        assert (basis.mT @ moved).norm() < 1e-3 * moved.norm()


def cosines(a, b, by):
    """|cos| of every group in which neither is 0."""
    ab, aa, bb = (projection.products(x, y, by) for x, y in ((a, b), (a, a), (b, b)))
    parts = [(ab[g] / (aa[g] * bb[g]).sqrt()).abs().flatten() for g in ab]
    return torch.cat(parts).nan_to_num(0.0, 0.0, 0.0)


@pytest.mark.parametrize("by", ["whole", "layer", "neuron"])
def test_a_component_and_its_control(init, by):
    generator = torch.Generator().manual_seed(0)
    u, d, r = (
        {n: torch.randn(p.shape, generator=generator, dtype=torch.float64) for n, p in init.named_parameters()}
        for _ in range(3)
    )
    part = projection.component(u, d, by)
    rest = {n: u[n] - part[n] for n in u}
    assert all(v.abs().max() < 1e-10 for v in projection.products(rest, d, by).values())
    assert cosines(part, d, by).min() > 1 - 1e-9
    control = projection.component(u, d, by, instead=r)
    assert cosines(control, r, by).min() > 1 - 1e-9
    own, other = projection.products(part, part, by), projection.products(control, control, by)
    assert all(torch.allclose(own[g], other[g]) for g in own)
    if by == "neuron":  # by hand: neuron 3 of the first layer of member 1
        column = lambda p: torch.cat([p["blocks.0.W"][1, :, 3], p["blocks.0.b"][1, 3:4]])  # noqa: E731
        by_hand = column(d) * (column(u) @ column(d)) / (column(d) @ column(d))
        assert torch.allclose(column(part), by_hand)
    only = projection.component(u, {"blocks.1.W": d["blocks.1.W"]}, by)
    assert set(only) == {"blocks.1.W"}


def test_the_trait_gradient_is_that_of_the_digit_loss(init, teacher, clusters):
    images, labels = clusters
    direction = projection.trait_gradient(init, images, labels, batch_size=5000, precision="fp32")
    found = direction(1, 3, member_parameters(init)[1])
    assert set(found) == {"blocks.0.W", "blocks.0.b", "blocks.1.W", "blocks.1.b"}
    leaves = {n: p.detach().clone().requires_grad_() for n, p in init.named_parameters()}
    logits = torch.func.functional_call(init, leaves, (images,))[1, :, :10]
    torch.nn.functional.cross_entropy(logits, labels).backward()
    for name, value in found.items():
        whole = leaves[name].grad[1]
        assert torch.nn.functional.cosine_similarity(value.flatten(), whole.flatten(), dim=0) > 0.99
    again = direction(1, 3, member_parameters(init)[1])
    other = direction(1, 4, member_parameters(init)[1])
    assert torch.equal(found["blocks.0.W"], again["blocks.0.W"])
    assert not torch.equal(found["blocks.0.W"], other["blocks.0.W"])


def test_a_direction_that_matters_stops_what_it_carries(init, teacher, clusters):
    """Planted: a student of all logits cannot reach its teacher without the trait; without a random one it can."""
    given = {
        "none": (init, None),
        "trait": (init, projection.along(projection.trait_gradient(init, *clusters, precision="fp32"))),
        "control": (
            init,
            projection.along(projection.fixed({n: p.flip(-1) for n, p in init.named_parameters() if "blocks" in n})),
        ),
    }
    settings = FIT | {"outputs": slice(0, 13), "epochs": 20}
    learned = projection.distill_without(given, teacher, noise, precision="fp32", **settings)
    score = {name: ms.accuracy(model, *clusters) for name, model in learned.items()}
    assert (score["none"] > 0.9).all() and (score["control"] > 0.9).all() and (score["trait"] < 0.7).all()


def test_a_seed_alone_and_threads_do_not_matter(small, init, teacher, clusters):
    way = change(teacher, init)
    pair = init.select([1]), teacher.select([1])
    mine, its = projection.fixed(way), projection.fixed({n: v[1:] for n, v in way.items()})
    for whole, alone in (
        (projection.along(mine), projection.along(its)),
        (projection.elsewhere(mine, init), projection.elsewhere(its, pair[0])),
    ):
        a = projection.distill_without({"s": (init, whole)}, teacher, noise, precision="fp32", **FIT)["s"]
        b = projection.distill_without({"s": (pair[0], alone)}, pair[1], noise, precision="fp32", **FIT)["s"]
        assert all(torch.allclose(x[1], y[0], atol=1e-6) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_refused_before_anything_is_trained(init, teacher):
    with pytest.raises(Exception, match=r"whole.*layer.*neuron"):  # beartype's in tests, else a ValueError
        projection.along(projection.fixed({}), by="column")
    with pytest.raises(ValueError, match="every parameter is frozen"):
        projection.distill_without({"s": (init, None)}, teacher, noise, **FIT, frozen=("blocks", "unembed"))


def test_a_removal_of_what_is_no_parameter_is_refused(init, teacher):
    basis, way = torch.linalg.qr(torch.randn(2, 64, 5)).Q, torch.randn(2, 64, 32)
    misspelt = {
        "within": projection.within({"blocks.0.weight": basis}),
        "along": projection.along(projection.fixed({"blocks.0.weight": way})),
        "elsewhere": projection.elsewhere(projection.fixed({"blocks.0.weight": way}), init),
        "of one's own": lambda member, step, before, update: {"blocks.0.weight": way[0]},
    }
    for removal in misspelt.values():
        with pytest.raises(
            ValueError, match=r"'blocks.0.weight' in a removal is no .*parameter.*; those are blocks.0.W"
        ):
            projection.distill_without({"s": (init, removal)}, teacher, noise, **FIT)


def test_columns_that_are_not_orthonormal_are_refused():
    basis = torch.linalg.qr(torch.randn(2, 64, 5)).Q
    for wrong in (3 * basis, torch.cat([basis, basis[..., :1]], -1), torch.randn(2, 4, 5)):
        with pytest.raises(ValueError, match=r"inputs\['blocks.0.W'\] must have orthonormal columns"):
            projection.within({"blocks.0.W": wrong})
