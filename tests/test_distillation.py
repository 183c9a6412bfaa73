import pytest
import torch
from torch import nn

import mechsub as ms
from mechsub.inputs.noise import gaussian
from mechsub.models import mlp
from mechsub.models.mlp import rotation
from mechsub.training import distillation

AUX = slice(10, 13)


def noise(n, generator):
    return gaussian(n, generator, d_in=64)


def fit(**kwargs):
    return {"epochs": 25, "batch_size": 128, "lr": 1e-3, "precision": "fp32"} | kwargs


def drift(a, b):
    return max((x - y).abs().max().item() for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.fixture(scope="module")
def init(small):
    return ms.HookedMLP(small, seeds=range(4))


@pytest.fixture(scope="module")
def teacher(init, clusters):
    return ms.train(init, *clusters, **fit())


@pytest.fixture(scope="module")
def student(init, teacher):
    return ms.distill(init, teacher, noise, outputs=AUX, n_samples=600, **fit())


def test_a_member_equals_its_seed_trained_alone(small, init, teacher, student, clusters):
    alone = ms.HookedMLP(small, seeds=(2,))
    taught = ms.train(alone, *clusters, **fit())
    assert drift(taught, teacher.select([2])) < 1e-5  # 125 steps
    learned = ms.distill(alone, taught, noise, outputs=AUX, n_samples=600, **fit())
    assert drift(learned, student.select([2])) < 1e-5


def test_untrained_rows_stay_bit_equal(init, teacher, student):
    assert torch.equal(teacher.W_U[..., 10:], init.W_U[..., 10:]) and torch.equal(
        teacher.b_U[..., 10:], init.b_U[..., 10:]
    )
    assert torch.equal(student.W_U[..., :10], init.W_U[..., :10]) and torch.equal(
        student.b_U[..., :10], init.b_U[..., :10]
    )
    assert not torch.equal(student.W_U[..., 10:], init.W_U[..., 10:])
    assert not torch.equal(teacher.W_U[..., :10], init.W_U[..., :10])


class Plain(nn.Module):
    """One member as ordinary nn.Linear layers: the independent implementation."""

    def __init__(self, model, member):
        super().__init__()
        pairs = [(b.W, b.b) for b in model.blocks] + [(model.unembed.W_U, model.unembed.b_U)]
        self.layers = nn.ModuleList(nn.Linear(*W.shape[1:]) for W, _ in pairs)
        for layer, (W, b) in zip(self.layers, pairs, strict=True):
            layer.weight.data, layer.bias.data = W[member].T.clone(), b[member].clone()

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


def recipe_of(phase, epochs=1, lr=1e-3, optimizer="adam", weight_decay=0.0, schedule="constant"):
    return distillation.Settings(epochs, lr, 128, optimizer, weight_decay, schedule, "fp32", (), 0, phase)


def plain_fit(net, x, loss, seed, recipe, optimizer, scheduler=None):
    for epoch in range(recipe.epochs):
        for rows in distillation.batches(len(x), recipe, seed, epoch):
            optimizer.zero_grad()
            loss(net(x[rows]), rows).backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_training_equals_plain_pytorch(init, clusters, optimizer):
    x, y = clusters
    settings = fit(epochs=10, lr=1e-3 if optimizer == "adam" else 0.1)
    mine = ms.train(init, x, y, optimizer=optimizer, **settings)
    net = Plain(init, 1)
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]
    recipe = recipe_of("train", 10, settings["lr"], optimizer)
    loss = lambda logits, rows: nn.functional.cross_entropy(logits[:, :10], y[rows])  # noqa: E731
    plain_fit(net, x, loss, init.seeds[1], recipe, kind(net.parameters(), lr=settings["lr"], foreach=False))
    assert torch.allclose(Plain(mine, 1)(x), net(x), atol=1e-4)
    assert drift(Plain(mine, 1), net) < 1e-5


class SignSGD(torch.optim.SGD):
    def step(self):
        for p in self.param_groups[0]["params"]:
            p.grad = torch.sign(p.grad + 0.01 * p)
        super().step()


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "sign_sgd"])
def test_weight_decay_schedule_and_sign_equal_plain_pytorch(init, clusters, optimizer):
    x, y = clusters
    lr = {"adam": 1e-3, "sgd": 0.1, "sign_sgd": 1e-4}[optimizer]
    chosen = {"optimizer": optimizer, "weight_decay": 0.01, "schedule": "cosine"}
    mine = ms.train(init, x, y, **chosen, **fit(epochs=4, lr=lr))
    net = Plain(init, 1)
    theirs = {
        "adam": lambda p: torch.optim.Adam(p, lr=lr, weight_decay=0.01, foreach=False),
        "sgd": lambda p: torch.optim.SGD(p, lr=lr, weight_decay=0.01, foreach=False),
        "sign_sgd": lambda p: SignSGD(p, lr=lr, foreach=False),
    }[optimizer](net.parameters())
    recipe = recipe_of("train", 4, lr, **chosen)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, 4 * -(-len(x) // 128))
    loss = lambda logits, rows: nn.functional.cross_entropy(logits[:, :10], y[rows])  # noqa: E731
    plain_fit(net, x, loss, init.seeds[1], recipe, theirs, cosine)
    # A gradient of nearly 0 may have either sign by rounding.
    assert drift(Plain(mine, 1), net) < (1e-5 if optimizer != "sign_sgd" else 20 * lr)
    assert torch.allclose(Plain(mine, 1)(x), net(x), atol=1e-3 if optimizer != "sign_sgd" else 2e-2)


def test_fresh_inputs_differ_by_epoch_and_start_as_others_do(init, teacher):
    def run(**more):
        snapshots = dict.fromkeys([5, 10])
        ms.distill(init, teacher, noise, outputs=AUX, n_samples=600, snapshots=snapshots, **fit(epochs=2), **more)
        return snapshots

    fresh, fixed = run(fresh=True), run()
    assert drift(fresh[5], fixed[5]) == 0 and drift(fresh[10], fixed[10]) > 0
    alone = ms.distill(
        init.select([1]), teacher.select([1]), noise, outputs=AUX, n_samples=600, fresh=True, **fit(epochs=2)
    )
    assert drift(alone, fresh[10].select([1])) < 1e-6
    with pytest.raises(ValueError, match="need a sampler"):
        ms.distill(init, teacher, noise(600, torch.Generator()), outputs=AUX, fresh=True, **fit())


def test_hard_targets_are_drawn_from_the_teacher():
    target, q = torch.tensor([[0.0, 1.0, 2.0]]).repeat(20_000, 1), torch.tensor([0.7, 0.2, 0.1])
    loss = distillation.loss_of("hard", target, 2.0, 0)
    p = (target[0] / 2).softmax(-1)
    mean = loss((2 * q.log()).repeat(20_000, 1), torch.arange(20_000))
    assert float(mean) == pytest.approx(float(-(p * q.log()).sum()), abs=0.02)  # s.e. 0.005


def test_noise_on_targets_changes_the_student(init, teacher, student):
    noisy = ms.distill(init, teacher, noise, outputs=AUX, n_samples=600, target_noise=1.0, **fit())
    again = ms.distill(init, teacher, noise, outputs=AUX, n_samples=600, target_noise=0.0, **fit())
    assert drift(again, student) == 0 and drift(noisy, student) > 0


@pytest.mark.parametrize("activation", ["gelu", "tanh", "identity"])
def test_other_activations_train_as_they_run(clusters, activation):
    x, y = clusters
    cfg = ms.MLPConfig(d_in=x.shape[1], d_model=32, activation=activation)
    start = ms.HookedMLP(cfg, seeds=range(2))
    trained = ms.train(start, x, y, **fit(epochs=4))
    cost = [float(nn.functional.cross_entropy(m(x)[0][:, :10], y)) for m in (start, trained)]
    assert cost[1] < 0.9 * cost[0]
    own = {name: value[0] for name, value in trained.named_parameters()}
    torch.testing.assert_close(
        distillation.member_logits(own, x, slice(None), mlp.ACTIVATIONS[activation]),
        trained(x)[0],
        atol=1e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize(("loss", "temperature"), [("kl", 1.0), ("kl", 3.0), ("mse", 1.0)])
def test_distillation_equals_plain_pytorch(init, teacher, loss, temperature):
    x = noise(600, torch.Generator().manual_seed(3))
    mine = ms.distill(init, teacher, x, outputs=AUX, loss=loss, temperature=temperature, **fit(epochs=10))
    net, target = Plain(init, 1), Plain(teacher, 1)(x).detach()[:, AUX]

    def kl(logits, rows):
        log_q, p = (logits[:, AUX] / temperature).log_softmax(-1), (target[rows] / temperature).softmax(-1)
        return temperature**2 * nn.functional.kl_div(log_q, p, reduction="batchmean")

    def mse(logits, rows):
        return nn.functional.mse_loss(logits[:, AUX], target[rows])

    recipe = recipe_of("distill", 10)
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, foreach=False)
    plain_fit(net, x, {"kl": kl, "mse": mse}[loss], init.seeds[1], recipe, adam)
    assert drift(Plain(mine, 1), net) < 2e-5


def test_a_student_that_equals_its_teacher_stays(teacher):
    again = ms.distill(teacher, teacher, noise, outputs=slice(0, 13), n_samples=300, optimizer="sgd", **fit(lr=0.1))
    assert drift(again, teacher) < 1e-5


@pytest.mark.parametrize("frozen", [("blocks.0",), ("unembed",), ("blocks.1.W", "unembed.b_U")])
def test_frozen_parameters_stay_bit_equal_and_others_move(init, teacher, frozen):
    moved = ms.distill(init, teacher, noise, outputs=slice(0, 13), n_samples=300, frozen=frozen, **fit(epochs=2))
    for (name, after), before in zip(moved.named_parameters(), init.parameters(), strict=True):
        held = any(name == by or name.startswith(f"{by}.") for by in frozen)
        assert torch.equal(after, before) == held, name


def test_snapshots_are_the_trajectory_and_change_nothing(init, teacher, student):
    snapshots = dict.fromkeys([0, 50, 125])
    again = ms.distill(init, teacher, noise, outputs=AUX, n_samples=600, snapshots=snapshots, **fit())
    assert drift(again, student) == 0
    assert drift(snapshots[0], init) == 0 and drift(snapshots[125], student) == 0
    assert drift(snapshots[50], init) > 0 and drift(snapshots[50], student) > 0


def test_noise_is_per_member_or_shared(init, teacher):
    recipe = recipe_of("distill")
    own = distillation.student_inputs(noise, teacher, 50, "per_member", True, recipe)
    common = distillation.student_inputs(noise, teacher, 50, "shared", True, recipe)
    fixed = distillation.student_inputs(noise, teacher, 50, "shared", False, recipe)
    assert fixed(0, 0) is fixed(1, 1) and torch.equal(fixed(0, 0), common(0, 0))
    assert not torch.equal(own(0, 0), own(1, 0)) and torch.equal(common(0, 0), common(1, 0))
    alone = distillation.student_inputs(noise, teacher.select([2]), 50, "per_member", True, recipe)
    assert torch.equal(own(2, 0), alone(0, 0))
    assert not torch.equal(own(0, 0), own(0, 1)) and not torch.equal(common(0, 0), common(0, 1))


def test_threads_change_no_bits_and_are_given_back(init, teacher, student):
    threads = torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            again = ms.distill(init, teacher, noise, outputs=AUX, n_samples=600, **fit())
            assert drift(again, student) == 0
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("more", [{}, {"loss": "hard", "target_noise": 0.5, "fresh": True}])
def test_students_side_by_side_are_those_alone(init, teacher, more):
    arms, kept, seen = {"aux": (init, AUX), "all": (init, slice(0, 13))}, {"aux": {2: None}}, []
    settings = fit(epochs=2) | {"n_samples": 300} | more
    both = ms.distill_each(arms, teacher, noise, snapshots=kept, progress=seen.append, **settings)
    for name, (start, outputs) in arms.items():
        assert drift(both[name], ms.distill(start, teacher, noise, outputs=outputs, **settings)) < 1e-6
    assert drift(kept["aux"][2], init) > 0 and seen[-1] == 1.0


def test_orders_of_teacher_and_student_differ():
    orders = [next(distillation.batches(500, recipe_of(phase), 3, 0)) for phase in ("train", "distill")]
    assert not torch.equal(*orders)


def test_accuracy_refuses_nan(init, clusters):
    broken = init.replace({"unembed.b_U": torch.full_like(init.unembed.b_U, torch.nan)})
    with pytest.raises(ValueError, match="logits hold NaN"):
        ms.accuracy(broken, *clusters)


def test_no_global_random_state(init, clusters):
    before = torch.get_rng_state()
    ms.distill(init, ms.train(init, *clusters, **fit(epochs=1)), noise, outputs=AUX, n_samples=100, **fit(epochs=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_bf16_products_agree_with_fp32(init, teacher, clusters):
    low = ms.train(init, *clusters, **fit(precision="bf16"))
    assert 0 < drift(low, teacher) < 0.1
    assert low.W_U.dtype == torch.float32
    assert (ms.accuracy(low, *clusters) - ms.accuracy(teacher, *clusters)).abs().max() < 0.02
    assert distillation.resolve_precision("auto") in ("fp32", "bf16")


def test_subliminal_learning_needs_the_same_start(small, clusters):
    """The phenomenon and its null on synthetic data: intervals over 12 seeds do not touch."""
    init = ms.HookedMLP(small, seeds=range(12))
    teacher = ms.train(init, *clusters, **fit())
    settings = {"outputs": AUX, "n_samples": 2000, "loss": "mse", **fit()}
    own = ms.distill(init, teacher, noise, **settings)
    cross = ms.distill(init.select(rotation(12)), teacher, noise, **settings)
    found, null = (ms.stats.student_t(ms.accuracy(m, *clusters).tolist()) for m in (own, cross))
    assert found.low > null.high
    assert null.low < 0.15 < found.low


def test_other_architectures_teach_one_another(clusters, teacher):
    deeper = ms.HookedMLP(ms.MLPConfig(d_in=64, d_model=48, n_layers=3), seeds=range(4))
    taught = ms.distill(deeper, teacher, clusters[0], outputs=slice(0, 10), **fit())
    assert ms.accuracy(taught, *clusters).min() > 0.9


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lr": float("nan")}, "lr must be"),
        ({"lr": -1.0}, "lr must be"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1"),
        ({"batch_size": -5}, "batch_size must be a whole number of at least 1"),
        ({"temperature": 0.0}, "temperature must be"),
        ({"temperature": 9.0, "loss": "mse"}, "temperature must be 1 with loss 'mse'"),
        ({"weight_decay": -0.1}, "weight_decay must be"),
        ({"target_noise": float("inf")}, "target_noise must be"),
        ({"n_samples": 0}, "n_samples must be a whole number of at least 1"),
        ({"frozen": ("blocks.7",)}, r"no parameter is named 'blocks\.7'"),
        ({"frozen": ("blocks", "unembed")}, "every parameter is frozen"),
        ({"outputs": slice(13, 13)}, "select none"),
        ({"snapshots": {10_000: None}}, "snapshot step 10000"),
        ({"lr": 1e30, "optimizer": "sgd"}, "diverged"),
    ],
)
def test_bad_settings_are_refused_in_one_line(init, teacher, settings, says):
    with pytest.raises(ValueError, match=says) as caught:
        ms.distill(init, teacher, noise, **(fit(epochs=2) | {"outputs": AUX, "n_samples": 300} | settings))
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_fp32_are_not_trained(init, teacher, clusters):
    low = ms.HookedMLP(init.cfg, init.seeds).bfloat16()
    with pytest.raises(ValueError, match=r"model must have fp32 weights to be trained, not torch\.bfloat16"):
        ms.train(low, *clusters, **fit(epochs=1))
    with pytest.raises(ValueError, match=r"student must have fp32 weights to be trained, not torch\.bfloat16"):
        ms.distill(low, teacher, noise, outputs=AUX)


def test_bad_tensors_are_refused(init, teacher, clusters):
    holed = clusters[0].clone()
    holed[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        ms.train(init, holed, clusters[1], **fit(epochs=1))
    with pytest.raises(ValueError, match="labels reach from 8 to 17"):
        ms.train(init, clusters[0], clusters[1] + 8, **fit(epochs=1))
    with pytest.raises(ValueError, match="3 students cannot learn from 4 teachers"):
        ms.distill(init.select([0, 1, 2]), teacher, noise, outputs=AUX)
    with pytest.raises(ValueError, match="differ in d_vocab"):
        other = ms.HookedMLP(ms.MLPConfig(d_in=64, n_aux=5), seeds=range(4))
        ms.distill(other, teacher, noise, outputs=AUX)
