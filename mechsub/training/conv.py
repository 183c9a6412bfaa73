"""A small convolutional student, with the hook names of HookedMLP, and its distillation."""

import contextlib
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint
from transformer_lens.utilities import derive_generator

from mechsub import arguments
from mechsub.inputs.noise import uniform
from mechsub.inputs.toy_inputs import check_images, check_outputs
from mechsub.machine import devices
from mechsub.models.hooked import check_unhooked
from mechsub.models.mlp import HookedMLP, MLPConfig, Unembed, check_plain
from mechsub.training import distillation, fitting

CHANNELS = (8, 16)
KERNEL, STRIDE, SIDE = 5, 2, 28
FEATURES = CHANNELS[-1] * (SIDE // STRIDE ** len(CHANNELS)) ** 2


class Layer(nn.Module):
    """ReLU of a convolution (W [seed, out, in, row, column]) or of a product (W [seed, in, out])."""

    def __init__(self, W: Tensor, b: Tensor):
        super().__init__()
        self.W, self.b, self.hook_out = nn.Parameter(W), nn.Parameter(b), HookPoint()

    def forward(self, h: Tensor) -> Tensor:
        members = [_layer(x, W, b) for x, W, b in zip(h, self.W, self.b, strict=True)]
        return self.hook_out(torch.stack(members))


class ConvNet(HookedRootModule):
    """28 x 28 -> 8 -> 16 channels (5 x 5, stride 2) -> d_model -> logits, ReLU, W ~ N(0, 1 / fan-in), b = 0.

    `cfg` is the teacher's, with n_layers = 3. A member depends on its seed alone. Raises ValueError for images that are
    not 28 x 28.
    """

    def __init__(self, cfg: MLPConfig, seeds: Sequence[int]):
        super().__init__()
        if arguments.instance(cfg, MLPConfig, "cfg").d_in != SIDE**2:
            raise ValueError(f"cfg must have d_in = {SIDE**2}, images of {SIDE} x {SIDE}, not {cfg.d_in}")
        self.cfg = MLPConfig(cfg.d_in, cfg.d_model, 3, cfg.n_classes, cfg.n_aux)
        self.seeds = arguments.seeds(seeds)
        ins, d = (1, CHANNELS[0]), cfg.d_model
        shapes = [(out, given, KERNEL, KERNEL) for out, given in zip(CHANNELS, ins, strict=True)] + [(FEATURES, d)]
        self.blocks = nn.ModuleList(
            Layer(self._draw(f"conv.{i}", shape, math.prod(shape[1:]) if len(shape) > 2 else shape[0]), zeros)
            for i, (shape, zeros) in enumerate(zip(shapes, self._biases(d), strict=True))
        )
        self.ln_final = nn.Identity()
        W_U = self._draw("conv.unembed", (d, cfg.d_vocab), d)
        self.unembed = Unembed(W_U, torch.zeros(len(self.seeds), cfg.d_vocab, dtype=torch.float32, device="cpu"))
        self.requires_grad_(False)
        self.eval()
        self.setup()
        self.to(devices.chosen())

    def _draw(self, name: str, shape: tuple, fan_in: int) -> Tensor:
        draws = [
            torch.randn(shape, generator=derive_generator(seed, name), dtype=torch.float32, device="cpu")
            for seed in self.seeds
        ]
        return torch.stack(draws) / math.sqrt(fan_in)

    def _biases(self, d: int) -> list[Tensor]:
        return [torch.zeros(len(self.seeds), out, dtype=torch.float32, device="cpu") for out in (*CHANNELS, d)]

    @property
    def W_U(self) -> Float[Tensor, "seed d_model d_vocab"]:
        return self.unembed.W_U

    @property
    def b_U(self) -> Float[Tensor, "seed 1 d_vocab"]:
        return self.unembed.b_U[:, None]

    def forward(self, x: Float[Tensor, "*#seed batch 784"]) -> Float[Tensor, "seed batch d_vocab"]:
        check_images(x, self.cfg.d_in, len(self.seeds))
        if x.dtype != self.unembed.W_U.dtype:
            raise ValueError(f"images must be {self.unembed.W_U.dtype} as the weights are, not {x.dtype}; convert them")
        h = (x if x.ndim == 3 else x[None]).to(self.W_U.device).expand(len(self.seeds), -1, -1)
        with _in_fp32(h.device):
            for block in self.blocks:
                h = block(h)
        return self.unembed(self.ln_final(h))

    def replace(self, parameters: Mapping[str, Tensor]) -> "ConvNet":
        """A copy in which the named parameters have these values; the others stay."""
        check_unhooked(self, "a network that is copied", _PARTS)
        own = dict(self.named_parameters())
        arguments.parameters(parameters, own)
        out = ConvNet(self.cfg, self.seeds).to(self.W_U.device)
        for name, target in out.named_parameters():
            target.data = {**own, **parameters}[name].detach().to(target.device).clone()
        return out


_PARTS = (ConvNet, Layer, Unembed, nn.Identity, nn.ModuleList, HookPoint)


def _in_fp32(device: torch.device) -> contextlib.AbstractContextManager:
    """Convolutions in fp32. On CUDA, torch otherwise rounds their factors to ten bits (TF32)."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def _layer(x: Float[Tensor, "batch feature"], W: Tensor, b: Tensor) -> Float[Tensor, "batch out"]:
    if W.ndim == 2:
        return torch.relu(torch.addmm(b, x, W))
    side = math.isqrt(x.shape[-1] // W.shape[1])
    images = x.reshape(len(x), W.shape[1], side, side)
    return torch.relu(conv2d(images, W, b, stride=STRIDE, padding=KERNEL // 2)).flatten(1)


def _logits(p: Mapping[str, Tensor], x: Tensor, columns: slice) -> Tensor:
    for i in range(len(CHANNELS) + 1):
        x = _layer(x, p[f"blocks.{i}.W"], p[f"blocks.{i}.b"])
    return torch.addmm(p["unembed.b_U"][columns], x, p["unembed.W_U"][:, columns])


def distill_each(
    students: Mapping[str, ConvNet], teacher: HookedMLP, *, n_samples: int, loss: str, epochs: int, lr: float,
    batch_size: int, frozen: Sequence[str], seed: int, snapshots: Mapping[str, dict], progress=None,
) -> dict[str, ConvNet]:  # fmt: skip
    """As `distillation.distill_each` on the auxiliary logits of uniform noise, in fp32; the noise is drawn differently.

    students: name -> a start; snapshots: name -> {step: None}, filled with the student after that step. Raises
    ValueError for a loss other than "kl" and "mse", and for members that are not the teacher's.
    """
    frozen = distillation.frozen_names(frozen)
    settings = fitting.Settings(epochs, lr, batch_size, "adam", 0.0, "constant", "fp32", frozen, seed, "distill")
    arguments.whole(n_samples, "n_samples", 1)
    arguments.choice(loss, "loss", ("kl", "mse"))
    _check(students, teacher, snapshots, frozen, progress)
    check_outputs(teacher.cfg.aux, teacher.cfg.d_vocab, loss)
    columns, of_teacher = teacher.cfg.aux, fitting.member_parameters(teacher)

    def draw(member: int, epoch: int) -> Tensor | None:
        return None if epoch else uniform(n_samples, derive_generator(seed, "noise", teacher.seeds[member]))

    def objectives(member: fitting.Members, epoch: int, x: Tensor) -> dict[str, fitting.Objective]:
        assert isinstance(member, int)  # as their order is one of their own
        with torch.no_grad():
            parts = [
                distillation.member_logits(of_teacher[member], rows, columns, torch.relu) for rows in x.split(1024)
            ]
        value = distillation.loss_of(loss, torch.cat(parts), 1.0, seed)

        def objective(parameters: fitting.Parameters, batch: Tensor, rows: Tensor) -> Tensor:
            return value(_logits(parameters, batch, columns), rows)

        return dict.fromkeys(students, objective)

    jobs = {name: fitting.Job(student, snapshots.get(name)) for name, student in students.items()}
    problem = fitting.Problem(n_samples, draw, objectives)
    with _in_fp32(teacher.device):
        return distillation.fit_members(jobs, problem, teacher.seeds, settings, progress, _as_drawn)


def _as_drawn(n: int, settings: fitting.Settings, seed: int, epoch: int) -> tuple[Tensor, ...]:
    """Rows of a batch in the order of their draw, as in stored cells: the last bits of sums depend on it."""
    generator = derive_generator(settings.seed, "order", settings.phase, seed, epoch)
    return torch.randperm(n, generator=generator, device="cpu").split(settings.batch_size)


def _check(
    students: "Mapping", teacher: "HookedMLP", snapshots: "Mapping", frozen: Sequence[str], progress: object
) -> None:
    cfg, n = arguments.instance(teacher, HookedMLP, "teacher").cfg, len(teacher.seeds)
    check_plain(teacher, "teacher")
    if teacher.cfg.activation != "relu":
        raise ValueError(f"teacher must have the activation 'relu', not {cfg.activation!r}")
    for name, student in arguments.mapping(students, "students", "networks").items():
        own = arguments.instance(student, ConvNet, f"students[{name!r}]").cfg
        check_unhooked(student, f"students[{name!r}]", _PARTS)
        if (own.d_vocab, own.aux, own.d_in, len(student.seeds)) != (cfg.d_vocab, cfg.aux, cfg.d_in, n):
            raise ValueError(f"students[{name!r}] must have the teacher's outputs, images and {n} members")
        known = [key for key, _ in student.named_parameters()]
        for part in frozen:
            if not any(key.startswith(part) for key in known):
                raise ValueError(f"frozen must begin the names of parameters ({', '.join(known)}), not {part!r}")
    for name, steps in arguments.mapping(snapshots, "snapshots", "steps", 0).items():
        if name not in students or not isinstance(steps, dict):
            raise ValueError(f"snapshots must be a dict of steps for names of students, not {name!r}")
        for step in steps:
            arguments.whole(step, f"a step of snapshots[{name!r}]", 0)
    distillation.check_apart(snapshots)
    if progress is not None:
        arguments.progress(progress)
