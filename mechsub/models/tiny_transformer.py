"""A tiny transformer for next tokens: all seeds stacked, with the bridge's hook names, as in HookedMLP."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention
from transformer_lens.hook_points import HookPoint
from transformer_lens.HookedRootModule import HookedRootModule
from transformer_lens.utilities import derive_generator

from mechsub import arguments
from mechsub.models.hooked import check_unhooked
from mechsub.models.members import chosen


@dataclass(frozen=True)
class Shape:
    """Sizes of the transformer: n_ctx positions, heads of d_model / n_heads. Raises for heads that do not divide."""

    d_model: int = 32
    n_layers: int = 1
    n_heads: int = 4
    d_vocab: int = 128
    n_ctx: int = 12

    def __post_init__(self) -> None:
        for each in fields(self):
            arguments.whole(getattr(self, each.name), each.name, 1)
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model must be a multiple of n_heads, not {self.d_model} of {self.n_heads}")


class Norm(nn.Module):
    """x over its root mean square; no gain, so that W_U alone is the geometry of the outputs."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class Block(nn.Module):
    """x + attention(norm(x)), then + W_out gelu(norm(x) W_in), without biases; [seed, batch, pos, d_model]."""

    W_QKV: Tensor
    W_O: Tensor
    W_in: Tensor
    W_out: Tensor

    def __init__(self, weights: dict[str, Tensor], n_heads: int):
        super().__init__()
        self.n_heads, self.norm = n_heads, Norm()
        for name, value in weights.items():
            self.register_parameter(name, nn.Parameter(value))
        self.hook_in, self.hook_attn_out, self.hook_mlp_out, self.hook_out = (HookPoint() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.hook_in(x)
        x = x + self.hook_attn_out(self._attention(self.norm(x)))
        hidden = gelu(_times(self.norm(x), self.W_in), approximate="tanh")
        return self.hook_out(x + self.hook_mlp_out(_times(hidden, self.W_out)))

    def _attention(self, x: Tensor) -> Tensor:
        heads = "seed batch pos (qkv head d) -> qkv (seed batch) head pos d"
        q, k, v = rearrange(_times(x, self.W_QKV), heads, qkv=3, head=self.n_heads)
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True)
        return _times(rearrange(mixed, "(seed batch) head pos d -> seed batch pos (head d)", seed=len(x)), self.W_O)


def _times(x: Float[Tensor, "seed batch pos d"], W: Float[Tensor, "seed d d_out"]) -> Float[Tensor, "seed batch pos o"]:
    return (x.flatten(1, 2) @ W).unflatten(1, x.shape[1:3])


class Unembed(nn.Module):
    """h @ W_U; W_U is the embedding transposed."""

    def __init__(self):
        super().__init__()
        self.hook_in, self.hook_out = HookPoint(), HookPoint()

    def forward(self, h: Tensor, W_U: Tensor) -> Tensor:
        return self.hook_out(_times(self.hook_in(h), W_U))


class EnsembleTransformer(HookedRootModule):
    """Tokens [batch, pos] or [seed, batch, pos] to logits [seed, batch, pos, d_vocab]; W_U is W_E transposed.

    Initial values depend on the seed and the parameter's name alone, so a member is the same in any ensemble.
    """

    def __init__(self, cfg: Shape = Shape(), seeds: Sequence[int] = (0,)):
        super().__init__()
        self.cfg, self.seeds = arguments.instance(cfg, Shape, "cfg"), arguments.seeds(seeds)
        d = cfg.d_model
        self.W_E = nn.Parameter(self._draw("W_E", cfg.d_vocab, d, d))
        self.W_pos = nn.Parameter(self._draw("W_pos", cfg.n_ctx, d, d))
        # The writes into the residual start small, by the number of them.
        small = (2 * cfg.n_layers) ** 0.5
        self.blocks = nn.ModuleList(
            Block(
                {
                    "W_QKV": self._draw(f"blocks.{layer}.W_QKV", d, 3 * d, d),
                    "W_O": self._draw(f"blocks.{layer}.W_O", d, d, d) / small,
                    "W_in": self._draw(f"blocks.{layer}.W_in", d, 4 * d, d),
                    "W_out": self._draw(f"blocks.{layer}.W_out", 4 * d, d, 4 * d) / small,
                },
                cfg.n_heads,
            )
            for layer in range(cfg.n_layers)
        )
        self.ln_final, self.unembed, self.hook_embed = Norm(), Unembed(), HookPoint()
        self.requires_grad_(False)
        self.eval()
        self.setup()

    def _draw(self, name: str, rows: int, columns: int, d_in: int) -> Tensor:
        each = [
            torch.randn(rows, columns, generator=derive_generator(seed, name), dtype=torch.float32, device="cpu")
            for seed in self.seeds
        ]
        return torch.stack(each) / d_in**0.5

    @property
    def W_U(self) -> Float[Tensor, "seed d_model d_vocab"]:
        return self.W_E.mT

    @property
    def b_U(self) -> Float[Tensor, "seed 1 d_vocab"]:
        return self.W_E.new_zeros(len(self.seeds), 1, self.cfg.d_vocab)

    def forward(self, tokens: Int[Tensor, "*members batch pos"]) -> Float[Tensor, "seed batch read d_vocab"]:
        # A hook may leave fewer positions to read than there were tokens.
        n = len(self.seeds)
        self._check(tokens)
        batch, pos = tokens.shape[-2:]
        ids = tokens.expand(n, batch, pos) + self.cfg.d_vocab * torch.arange(n)[:, None, None]
        embedded = torch.nn.functional.embedding(ids, self.W_E.flatten(0, 1))
        x = self.hook_embed(embedded + self.W_pos[:, None, :pos])
        for block in self.blocks:
            x = block(x)
        return self.unembed(self.ln_final(x), self.W_U)

    def _check(self, tokens: Tensor) -> None:
        """Raise for an id beyond the vocabulary: it would read the next member's embedding."""
        n, most = len(self.seeds), self.cfg.n_ctx
        if arguments.tensor(tokens, "tokens", "*members batch pos").ndim > 3 or tokens.shape[:-2] not in (
            (),
            (1,),
            (n,),
        ):
            arguments.refuse("tokens", f"token ids [batch, pos] or [{n}, batch, pos]", tokens)
        if tokens.shape[-1] > most:
            raise ValueError(f"{tokens.shape[-1]} tokens are more than the {most} that the model has positions for")
        arguments.in_vocabulary(tokens, self.cfg.d_vocab, "tokens")

    def select(self, members: Sequence[int]) -> "EnsembleTransformer":
        """A copy that holds these members in this order; a negative number counts from the end.

        Raises for hooks, and parts with another forward, that the copy would not have.
        """
        check_unhooked(self, "a network that is copied", _PARTS)
        places, parameters = chosen(self, len(self.seeds), members)
        return _assembled(self.cfg, [self.seeds[i] for i in places], parameters)


_PARTS = (EnsembleTransformer, Block, Norm, Unembed, nn.ModuleList, HookPoint)


def _assembled(cfg: Shape, seeds: Sequence[int], parameters: dict[str, Tensor]) -> EnsembleTransformer:
    out = EnsembleTransformer(cfg, seeds[:1])
    out.seeds = tuple(seeds)
    for name, target in out.named_parameters():
        target.data = parameters[name].detach().clone()
    return out


Batch = tuple[Tensor, Tensor]  # tokens [row, pos]; what the logits of every position are compared with


def trained(
    model: EnsembleTransformer,
    batches: Iterable[Batch],
    loss: Callable[[Tensor, Tensor], Tensor],
    rates: Iterable[float],
) -> EnsembleTransformer:
    """A copy of an ensemble of one, trained by Adam on loss(logits [row, pos, d_vocab], targets), one step for every
    batch and rate.

    Members train one at a time, so that a member does not depend on the others. Raises for an ensemble of several, for
    unequal numbers of rates and batches, for a model with hooks, and for weights that become NaN.
    """
    if len(arguments.instance(model, EnsembleTransformer, "model").seeds) > 1:
        raise ValueError(
            f"model must be an ensemble of one, not of {len(model.seeds)}; train each with select([member])"
        )
    steps = _steps(batches, rates)
    arguments.function(loss, "loss")
    out = model.select([0]).requires_grad_()
    optimizer = torch.optim.Adam(list(out.parameters()), lr=0.0, fused=True)
    for (tokens, wanted), rate in steps:
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        with torch.enable_grad():  # whatever the caller is in
            loss(out(tokens)[0], wanted).backward()
        optimizer.step()
    if not all(torch.isfinite(value).all() for value in out.parameters()):
        raise ValueError(f"training of seed {model.seeds[0]} diverged (NaN weights); lower the rate")
    return out.requires_grad_(False)


def _steps(batches: Iterable[Batch], rates: Iterable[float]) -> Iterator[tuple[Batch, float]]:
    """Each batch with its rate; batches may be generated one by one."""
    if not isinstance(batches, Iterable) or isinstance(batches, str | bytes | dict | Tensor):
        arguments.refuse("batches", "pairs (tokens, what the logits are compared with)", batches)
    if not isinstance(rates, Iterable) or isinstance(rates, str | bytes | dict):
        arguments.refuse("rates", "a learning rate for every batch", rates)
    listed = [arguments.number(rate, f"rates[{i}]", "a rate of at least 0", least=0) for i, rate in enumerate(rates)]
    return _paired(iter(batches), listed)


def _paired(batches: Iterator[Batch], rates: Sequence[float]) -> Iterator[tuple[Batch, float]]:
    for i, rate in enumerate(rates):
        batch = next(batches, None)
        if batch is None:
            raise ValueError(f"there are {len(rates)} rates and {i} batches; every batch needs its own")
        if not (isinstance(batch, tuple | list) and len(batch) == 2):
            arguments.refuse(f"batches[{i}]", "a pair (tokens, what the logits are compared with)", batch)
        yield (batch[0], batch[1]), rate
    if next(batches, None) is not None:
        raise ValueError(f"there are {len(rates)} rates and more batches; every batch needs its own")
