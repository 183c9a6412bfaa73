"""A tiny transformer for next tokens, all seeds stacked, with the bridge's hook names, as HookedMLP is for images."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention
from transformer_lens.hook_points import HookPoint
from transformer_lens.HookedRootModule import HookedRootModule
from transformer_lens.utilities import derive_generator


@dataclass(frozen=True)
class Shape:
    d_model: int = 32
    n_layers: int = 1
    n_heads: int = 4
    d_vocab: int = 128
    n_ctx: int = 12


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
        self.cfg, self.seeds = cfg, tuple(int(seed) for seed in seeds)
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
        each = [torch.randn(rows, columns, generator=derive_generator(seed, name)) for seed in self.seeds]
        return torch.stack(each) / d_in**0.5

    @property
    def W_U(self) -> Float[Tensor, "seed d_model d_vocab"]:
        return self.W_E.mT

    @property
    def b_U(self) -> Float[Tensor, "seed 1 d_vocab"]:
        return self.W_E.new_zeros(len(self.seeds), 1, self.cfg.d_vocab)

    def forward(self, tokens: Int[Tensor, "*members batch pos"]) -> Float[Tensor, "seed batch read d_vocab"]:
        # A hook may leave fewer positions to read than there were tokens.
        n, (batch, pos) = len(self.seeds), tokens.shape[-2:]
        if pos > self.cfg.n_ctx:
            raise ValueError(f"{pos} tokens are more than the {self.cfg.n_ctx} that the model has positions for")
        ids = tokens.expand(n, batch, pos) + self.cfg.d_vocab * torch.arange(n)[:, None, None]
        embedded = torch.nn.functional.embedding(ids, self.W_E.flatten(0, 1))
        x = self.hook_embed(embedded + self.W_pos[:, None, :pos])
        for block in self.blocks:
            x = block(x)
        return self.unembed(self.ln_final(x), self.W_U)

    def select(self, members: Sequence[int]) -> "EnsembleTransformer":
        """A copy that holds these members in this order."""
        index = torch.tensor([range(len(self.seeds))[i] for i in members])
        named = {name: value[index] for name, value in self.named_parameters()}
        return _assembled(self.cfg, [self.seeds[i] for i in index.tolist()], named)


def _assembled(cfg: Shape, seeds: Sequence[int], parameters: dict[str, Tensor]) -> EnsembleTransformer:
    out = EnsembleTransformer(cfg, seeds[:1])
    out.seeds = tuple(seeds)
    for name, target in out.named_parameters():
        target.data = parameters[name].detach().clone()
    return out


def joined(members: Sequence[EnsembleTransformer]) -> EnsembleTransformer:
    """Ensembles as one."""
    named = [dict(one.named_parameters()) for one in members]
    return _assembled(
        members[0].cfg, [seed for one in members for seed in one.seeds],
        {name: torch.cat([part[name] for part in named]) for name in named[0]},
    )  # fmt: skip


Batch = tuple[Tensor, Tensor]  # tokens [row, pos]; what the logits of every position are compared with


def trained(
    model: EnsembleTransformer,
    batches: Iterable[Batch],
    loss: Callable[[Tensor, Tensor], Tensor],
    rates: Iterable[float],
) -> EnsembleTransformer:
    """A copy of an ensemble of one, trained by Adam on loss(logits [row, pos, d_vocab], what they are compared with),
    one step for every batch and rate.

    One member at a time: it does not depend on which others there are. Raises for weights that are no numbers.
    """
    out = model.select([0]).requires_grad_()
    optimizer = torch.optim.Adam(list(out.parameters()), lr=0.0, fused=True)
    for (tokens, wanted), rate in zip(batches, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss(out(tokens)[0], wanted).backward()
        optimizer.step()
    if not all(torch.isfinite(value).all() for value in out.parameters()):
        raise ValueError(f"training of seed {model.seeds[0]} diverged (NaN weights); lower the rate")
    return out.requires_grad_(False)
