import pytest
import torch

from mechsub.models.mlp import HookedMLP, MLPConfig, rotation


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("init", ["lecun", "torch", "he"])
def test_a_member_is_the_same_in_any_ensemble(init):
    cfg = MLPConfig(d_in=12, d_model=16, init=init)
    assert same(HookedMLP(cfg, range(5)).select([0, 1, 2]), HookedMLP(cfg, range(3)))
    assert same(HookedMLP(cfg, (7,)), HookedMLP(cfg, (3, 7)).select([-1]))
    assert not same(HookedMLP(cfg, (7,)), HookedMLP(cfg, (8,)))


def test_a_member_is_selected_once():
    """A member that were there twice would make an interval narrower, or of no width."""
    model = HookedMLP(MLPConfig(d_in=4, d_model=4), seeds=(3, 7))
    for members in ([0, 0, 0], [1, -1]):
        with pytest.raises(ValueError, match=r"members must be different; . is there twice"):
            model.select(members)


def test_published_initialisation():
    model = HookedMLP(MLPConfig(), seeds=(0, 1))
    for weight, d_in in ((model.blocks[0].W, 784), (model.blocks[1].W, 256)):
        assert weight.std().item() == pytest.approx(d_in**-0.5, rel=0.01)
        assert abs(weight.mean().item()) < 4 * d_in**-0.5 / weight.numel() ** 0.5
    assert all((p == 0).all() for name, p in model.named_parameters() if ".b" in name)


def test_other_initialisations():
    he, default = (HookedMLP(MLPConfig(init=init)) for init in ("he", "torch"))
    assert he.blocks[0].W.std().item() == pytest.approx((2 / 784) ** 0.5, rel=0.01)
    bound = 784**-0.5
    assert default.blocks[0].W.abs().max().item() <= bound
    assert default.blocks[0].W.std().item() == pytest.approx(bound / 3**0.5, rel=0.01)
    assert default.blocks[0].b.abs().max().item() > 0.9 * bound


def test_digit_rows_do_not_depend_on_the_number_of_auxiliary_logits():
    few, many = (HookedMLP(MLPConfig(n_aux=n)) for n in (1, 30))
    assert torch.equal(few.W_U[..., :11], many.W_U[..., :11])


@pytest.mark.parametrize("n_layers", [1, 2, 4])
def test_forward_is_a_plain_network_per_member(n_layers):
    model = HookedMLP(MLPConfig(d_in=12, d_model=16, n_layers=n_layers, init="torch"), seeds=(0, 1))
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    for i, logits in enumerate(model(x)):
        h = x
        for block in model.blocks:
            h = torch.nn.functional.linear(h, block.W[i].T, block.b[i]).relu()
        expected = torch.nn.functional.linear(h, model.unembed.W_U[i].T, model.unembed.b_U[i])
        assert torch.allclose(logits, expected, atol=1e-6)
    own = torch.stack([x, 2 * x])
    assert torch.allclose(model(own)[0], model(x)[0], atol=1e-6)


def test_transformer_lens_caching_works():
    model = HookedMLP(MLPConfig(d_in=12, d_model=16), seeds=(0, 1))
    logits, cache = model.run_with_cache(torch.ones(3, 12))
    assert {"blocks.0.hook_out", "blocks.1.hook_out", "unembed.hook_in"} <= set(cache)
    assert torch.allclose(cache["unembed.hook_in"] @ model.W_U + model.b_U, logits)


def test_rotation_has_no_fixed_points():
    assert all(i != j for n in (2, 5, 25) for i, j in enumerate(rotation(n)))
    assert sorted(rotation(5)) == list(range(5))
    for n, by in ((1, 1), (4, 4), (4, 0)):
        with pytest.raises(ValueError, match="fixed points"):
            rotation(n, by)


def test_replace_copies():
    model = HookedMLP(MLPConfig(d_in=12, d_model=16), seeds=(0, 1))
    other = model.replace({"unembed.b_U": torch.ones(2, 13)})
    assert (other.unembed.b_U == 1).all() and (model.unembed.b_U == 0).all()
    assert torch.equal(other.blocks[0].W, model.blocks[0].W) and other.blocks[0].W is not model.blocks[0].W


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: MLPConfig(d_model=0), "d_model must be a whole number of at least 1"),
        (lambda: MLPConfig(n_aux=-1), "n_aux must be a whole number of at least 0"),
        (lambda: HookedMLP(seeds=()), "at least 1 of its seeds"),
        (lambda: HookedMLP(MLPConfig(d_in=4))(torch.ones(2, 5)), r"inputs have the shape \[2, 5\]"),
        (lambda: HookedMLP(MLPConfig(d_in=4)).replace({"W": torch.ones(1)}), "unknown parameter 'W'"),
        (lambda: HookedMLP(MLPConfig(d_in=4)).replace({"unembed.b_U": torch.ones(1)}), "has shape"),
    ],
)
def test_errors(call, says):
    with pytest.raises(ValueError, match=says):
        call()
