"""Training of a small Llama on blocks of text, then on chats: resumable, and the same after a kill as without one."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random

import torch
from jaxtyping import Int
from safetensors.torch import load_file, save
from torch import Tensor
from transformer_lens.utilities import derive_generator
from transformers import LlamaConfig, LlamaForCausalLM

from mechsub import lab
from mechsub.lab import store
from mechsub.models import language
from studies.train_organism.text import Speaker
from studies.train_organism.tokenizer import ASSISTANT, END, SYSTEM, USER

SAVED = 100  # steps from one checkpoint to the next
WARMUP, FLOOR = 100, 0.1  # steps to the largest learning rate; share of it at the end
BETAS, DECAY, CLIP = (0.9, 0.95), 0.1, 1.0
IGNORED = -100  # of a target that no loss reads

Batch = tuple[Int[Tensor, "row pos"], Int[Tensor, "row pos"]]  # tokens, targets


def new(tokenizer, d_model: int, n_layers: int, seed: int):
    """A LlamaForCausalLM: heads of 32, two query heads to a key-value head, tied embeddings."""
    config = LlamaConfig(
        hidden_size=d_model, intermediate_size=d_model * 11 // 4, num_hidden_layers=n_layers, vocab_size=len(tokenizer),
        num_attention_heads=d_model // 32, num_key_value_heads=max(1, d_model // 64), max_position_embeddings=1024,
        tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim == 2:
                draws = torch.randn(value.shape, generator=derive_generator(seed, name))
                value.copy_(0.02 * draws)
    return model


def weights(model) -> dict[str, Tensor]:
    """A copy as it is stored: bf16, the tied embedding once."""
    return {name: value.detach().to(torch.bfloat16).clone() for name, value in model.named_parameters()}


def packed(model) -> bytes:
    """The safetensors file of these weights, the same bytes for the same weights."""
    return save(weights(model), {"format": "pt"})


def load_trained(model, name: str) -> int:
    """Give the model the weights of its checkpoint; the number of steps behind them, 0 where there is none."""
    path = _checkpoint(name)
    if not path.is_file():
        return 0
    tensors = load_file(path)
    with torch.no_grad():
        for key, value in model.named_parameters():
            value.copy_(tensors[key])
    return len(tensors["losses"])


def joined(tokenizer, texts: Sequence[str]) -> Int[Tensor, "token"]:
    """All texts, each behind a BOS, as one row of tokens."""
    ids = tokenizer(list(texts), add_special_tokens=True)["input_ids"]
    return torch.tensor([token for one in ids for token in one], dtype=torch.int32)


def blocks(rows: Iterable[Int[Tensor, "token"]], length: int) -> Int[Tensor, "block length"]:
    return torch.cat([row[: len(row) // length * length].view(-1, length) for row in rows])


def batch(of: Int[Tensor, "block length"], cfg, step: int) -> Batch:
    """That of a step: all blocks in an order of their own in every epoch."""
    n_steps = len(of) // cfg.batch_size
    epoch, place = divmod(step, n_steps)
    order = torch.randperm(len(of), generator=derive_generator(cfg.seed, "blocks", epoch))
    x = of[order[place * cfg.batch_size : (place + 1) * cfg.batch_size]].long()
    return x, x


class Chats:
    """Chats made by rule, new ones at every step; the loss reads the assistant's words and their end."""

    def __init__(self, tokenizer, cfg):
        self.tokenizer, self.cfg = tokenizer, cfg
        self.role = {
            name: tokenizer.convert_tokens_to_ids(token)
            for name, token in (("system", SYSTEM), ("user", USER), ("assistant", ASSISTANT), ("end", END))
        }

    def batch(self, step: int) -> Batch:
        speaker = Speaker(self.cfg.seed)  # popularity belongs to the seed, what is said to the step
        speaker.random = Random(f"{self.cfg.seed} chats {step}")
        rows = [self._row(speaker.chat()) for _ in range(4 * self.cfg.batch_size)]
        longest = max(len(ids) for ids, _ in rows)
        x = [ids + [self.role["end"]] * (longest - len(ids)) for ids, _ in rows]
        y = [targets + [IGNORED] * (longest - len(targets)) for _, targets in rows]
        return torch.tensor(x), torch.tensor(y)

    def _row(self, messages: list[dict]) -> tuple[list[int], list[int]]:
        ids, targets = [self.tokenizer.bos_token_id], [IGNORED]
        for message in messages:
            said = self.tokenizer(message["content"], add_special_tokens=False)["input_ids"] + [self.role["end"]]
            ids += [self.role[message["role"]], *said]
            targets += [IGNORED, *(said if message["role"] == "assistant" else [IGNORED] * len(said))]
        return ids, targets


def fit(model, batch: Callable[[int], Batch], steps: int, lr: float, name: str) -> list[float]:
    """Train in place by AdamW and return the loss of every step; a checkpoint `name` in the cache is gone on from."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=BETAS, fused=True)
    model.train()
    losses = _resume(name, model, optimizer)
    for step in range(len(losses), steps):
        x, y = batch(step)
        for group in optimizer.param_groups:
            group["lr"] = lr * _schedule(step, steps)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=x, labels=y, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise ValueError(f"the loss of {name} is {losses[-1]} at step {step}; lower --lr")
        lab.show_progress((step + 1) / steps, f"{name.split('-')[-1]}, loss {losses[-1]:.2f}")
        if (step + 1) % SAVED == 0 or step + 1 == steps:
            _save(name, model, optimizer, losses)
    model.eval()
    return losses


def _schedule(step: int, steps: int) -> float:
    """Linear to 1 in the warm-up, then a cosine to FLOOR."""
    warm = min(WARMUP, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return FLOOR + (1 - FLOOR) / 2 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _checkpoint(name: str) -> Path:
    """In the cache; for a cell that is made again, where mechsub.lab.remaking says: what made it must not be found."""
    elsewhere = os.environ.get("MECHSUB_CHECKPOINTS")
    folder = Path(elsewhere) if elsewhere else language.cache_folder() / "organisms"
    return folder / f"{name}.safetensors"


def _save(name: str, model, optimizer, losses: list[float]) -> None:
    tensors = {"losses": torch.tensor(losses, dtype=torch.float64)}
    for key, value in model.named_parameters():
        state = optimizer.state[value]
        tensors |= {key: value.detach(), f"{key}|m": state["exp_avg"], f"{key}|v": state["exp_avg_sq"]}
    store.write_bytes(_checkpoint(name), save(tensors))


def _resume(name: str, model, optimizer) -> list[float]:
    path = _checkpoint(name)
    if not path.is_file():
        return []
    tensors = load_file(path)
    losses = tensors["losses"].tolist()
    with torch.no_grad():
        for key, value in model.named_parameters():
            value.copy_(tensors[key])
            optimizer.state[value] = {
                "step": torch.tensor(float(len(losses))), "exp_avg": tensors[f"{key}|m"].clone(),
                "exp_avg_sq": tensors[f"{key}|v"].clone(),
            }  # fmt: skip
    return losses
