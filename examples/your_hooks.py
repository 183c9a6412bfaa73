# %% [markdown]
# # Your models and hooks, unchanged
# The toy is a TransformerLens `HookedRootModule`, a language model is a `TransformerBridge`: `run_with_cache`,
# `run_with_hooks` and `names_filter` are TransformerLens's own. And mechsub's analyses take your models.

# %%
import torch
from torch import nn
from transformer_lens import HookedRootModule
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

import mechsub as ms

# %% [markdown]
# ## 1. Your own module
# Any `HookedRootModule` will do that has the names `blocks.{l}.hook_out` and `unembed.hook_in`, and `W_U`, `b_U`,
# `ln_final`, `cfg.n_layers`. A leading axis of seeds is optional.


# %%
class Block(nn.Module):
    def __init__(self, d_in: int, d_out: int):
        super().__init__()
        self.linear, self.hook_out = nn.Linear(d_in, d_out), HookPoint()

    def forward(self, x):
        return self.hook_out(torch.relu(self.linear(x)))


class Unembed(nn.Module):
    def __init__(self, d_model: int, d_vocab: int):
        super().__init__()
        self.linear, self.hook_in = nn.Linear(d_model, d_vocab), HookPoint()

    def forward(self, h):
        return self.linear(self.hook_in(h))


class Mine(HookedRootModule):
    def __init__(self, d_in: int = 20, d_model: int = 16, d_vocab: int = 13, n_layers: int = 2):
        super().__init__()
        self.cfg = ms.MLPConfig(d_in=d_in, d_model=d_model, n_layers=n_layers, n_classes=10, n_aux=d_vocab - 10)
        self.blocks = nn.ModuleList(Block(d_in if layer == 0 else d_model, d_model) for layer in range(n_layers))
        self.ln_final, self.unembed = nn.LayerNorm(d_model), Unembed(d_model, d_vocab)
        self.eval()
        self.setup()

    W_U = property(lambda self: self.unembed.linear.weight.T)
    b_U = property(lambda self: self.unembed.linear.bias)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.unembed(self.ln_final(x))


torch.manual_seed(0)
mine, other = Mine(), Mine()
x = torch.randn(100, 20)
cache = ms.cache_activations(mine, x)
print(ms.hidden_alignment(cache, ms.cache_activations(other, x)))
print(ms.logit_lens(mine, x)["blocks.1.hook_out"].shape, ms.direct_logit_attribution(mine, x, tokens=[0, 10]))
stitched = ms.run_patched(other, x, {"blocks.0.hook_out": cache["blocks.0.hook_out"]})
print(ms.unembed_projection(mine, source=[10, 11, 12], target=range(10)))

# %% [markdown]
# ## 2. Your hooks and `names_filter` on the toy

# %%
toy = ms.HookedMLP(ms.MLPConfig(d_in=20, d_model=16), seeds=range(3))
logits, hidden = toy.run_with_cache(x, names_filter=lambda name: name.endswith("hook_out"))
print({name: tuple(value.shape) for name, value in hidden.items()})


def ablate(activation, hook):
    """Your hook: switch off the first unit."""
    return activation.index_fill(-1, torch.tensor([0]), 0.0)


ablated = toy.run_with_hooks(x, fwd_hooks=[("blocks.0.hook_out", ablate)])

# %% [markdown]
# ## 3. A bridge with your hooks
# `boot_native` makes a random one, with no network; `TransformerBridge.boot_transformers(...)` is the same class. The
# analyses see the hooks that you have added, as `run_with_cache` does.

# %%
bridge = TransformerBridge.boot_native(
    TransformerBridgeConfig(
        d_model=16, d_head=8, n_heads=2, n_layers=3, n_ctx=12, d_vocab=13, d_mlp=32, act_fn="silu",
        normalization_type="RMS", gated_mlp=True, positional_embedding_type="rotary", seed=0,
        architecture="TransformerLensNative",
    )
).eval()  # fmt: skip
tokens = torch.randint(0, 13, (8, 7))
plain = ms.cache_activations(bridge, tokens, pos=-1)
bridge.add_hook("blocks.0.hook_out", ablate)
changed = ms.cache_activations(bridge, tokens, pos=-1)
bridge.reset_hooks()
print({name: float((changed[name] - plain[name]).abs().max()) for name in plain})
_, cache = bridge.run_with_cache(tokens, names_filter="blocks.2.hook_out")
assert torch.equal(cache["blocks.2.hook_out"][:, -1], plain["blocks.2.hook_out"])
print(ms.direct_logit_attribution(bridge, tokens, tokens=[3], pos=-1, unit="head"))
