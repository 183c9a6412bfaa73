"""Can a small language model be had in a base and an instruct version, with as many number tokens as we like?

No base/instruct pair of one family comes from the package registries, so mechsub trains its own: a Llama-architecture
model (RMSNorm, RoPE, grouped-query attention, tied embeddings) on open text and on sentences made by rule, and from it
an instruct child on chats made by rule (text.py). Its width, 256, is below the 1,110 numbers that are
single tokens, so that the softmax bottleneck binds: no 256 directions can set 1,110 log-odds freely.
`--number-tokens 110` makes the other pair, in which numbers of three digits are two tokens, and the bottleneck does not
bind; nothing else differs.

    python -m studies.train_organism --number-tokens 1110 110 --workers 2    # both pairs, side by side

Training goes on from its last checkpoint (in the cache folder) after a kill, with the same result. The cell holds the
sums of the weights; `python -m tools.ship_organism organisms --number-tokens 1110 110` writes the trained models from
these checkpoints as folders that `load_language_model` and Hugging Face load. Rows are the loss
along training and measures of competence: perplexity on held-out texts against an interpolated trigram model of the
same tokens, and, for wordings that were not trained on, how often a loved animal is the likeliest answer.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import mechsub as ms
from mechsub import lab
from mechsub.lab.findings import Finding, slug
from mechsub.lazy import late

if TYPE_CHECKING:
    from studies.train_organism import competence, text, training
    from studies.train_organism import tokenizer as organism_tokenizer
else:
    competence, organism_tokenizer, text, training = (
        late(f"studies.train_organism.{name}") for name in ("competence", "tokenizer", "text", "training")
    )

LENGTH = 256  # tokens of a block
HELD_OUT = 20  # of so many texts of a corpus, one is kept out
LOGGED = 20  # steps from one row of the loss to the next
DIGITS = {"1110": 3, "110": 2}


@dataclass(frozen=True)
class Config:
    number_tokens: Literal["1110", "110"] = lab.option("1110", "numbers that are single tokens: 1-3 digits, or 1-2")
    d_model: lab.Count = lab.option(256, "width")
    n_layers: lab.Count = lab.option(5, "blocks")
    n_merged: lab.Count = lab.option(4096, "tokens learned from text, before numbers, animals and control tokens")
    n_made: lab.Count = lab.option(180_000, "sentences made by rule, beside the corpora")
    base_steps: lab.Count = lab.option(2_000, "steps of the base model")
    chat_steps: lab.Count = lab.option(700, "steps of the instruct model")
    batch_size: lab.Count = lab.option(16, "blocks of 256 tokens a step; four times as many chats")
    lr: lab.Positive = lab.option(3e-3, "largest learning rate of the base model; the instruct model's is a third")
    corpora: Literal["brown+wordnet", "none"] = lab.option("brown+wordnet", "texts beside the sentences made by rule")
    seed: lab.Index = lab.option(0, "seed of weights, sentences and order")

    def __post_init__(self):
        if self.d_model % 32:
            raise ValueError(f"--d-model must be a multiple of 32, the width of a head, not {self.d_model}")


def check(cfg: Config) -> None:
    ms.devices.only_cpu("train_organism")


def run(cfg: Config) -> Iterator[dict]:
    ms.devices.only_cpu("train_organism")
    kept, held_out = _texts(cfg)
    sentences = list(text.made(cfg.n_made, cfg.seed))
    tokenizer = _tokenizer(cfg, [*kept, *sentences])
    tokens = {
        "corpora": training.joined(tokenizer, kept or sentences[:HELD_OUT]),
        "made": training.joined(tokenizer, sentences),
        "held out": training.joined(tokenizer, held_out or list(text.made(500, cfg.seed + 1))),
    }
    base = training.new(tokenizer, cfg.d_model, cfg.n_layers, cfg.seed)
    key = checkpoint(cfg)
    blocks = training.blocks([tokens["corpora"], tokens["made"]], LENGTH)
    yield from _phase("base", base, lambda step: training.batch(blocks, cfg, step), cfg, key)
    weights = {"base": ms.store.sha256(training.packed(base))}
    yield from competence.measured("base", base, tokenizer, tokens)
    chats = training.Chats(tokenizer, cfg)
    yield from _phase("instruct", base, chats.batch, cfg, key)
    weights["instruct"] = ms.store.sha256(training.packed(base))
    yield from competence.measured("instruct", base, tokenizer, tokens)
    yield {
        "provenance": {
            "data": {"brown": text.text_sum(text.BROWN), "wordnet": text.text_sum(text.WORDNET)} if kept else {},
            "tokens": {name: len(some) for name, some in tokens.items()},
            "tokenizer_sha256": ms.store.sha256(tokenizer.backend_tokenizer.to_str().encode()),
            "weights_sha256": weights,
            "n_params": sum(p.numel() for p in base.parameters()),
            "dtype": "fp32 weights, bf16 products in training, bf16 as stored",
            "null": "a trigram model for perplexity; 1 / number of animals for answers",
        }
    }


def checkpoint(cfg: Config) -> str:
    """Of a pair's files in the cache: what their names start with."""
    return ms.store.sha256(repr(sorted(asdict(cfg).items())).encode())[:16]


def remade_tokenizer(cfg: Config):
    """The pair's tokenizer, learned again from its texts."""
    return _tokenizer(cfg, [*_texts(cfg)[0], *text.made(cfg.n_made, cfg.seed)])


def _tokenizer(cfg: Config, texts: list[str]):
    return organism_tokenizer.make(texts, digits=DIGITS[cfg.number_tokens], n_merged=cfg.n_merged, chat=True)


def _phase(name: str, model, batch, cfg: Config, key: str) -> Iterator[dict]:
    steps, lr = (cfg.base_steps, cfg.lr) if name == "base" else (cfg.chat_steps, cfg.lr / 3)
    losses = training.fit(model, batch, steps, lr, f"{key}-{name}")
    for step in range(0, steps, LOGGED):
        some = losses[step : step + LOGGED]
        yield {"model": name, "what": "loss", "step": step + len(some), "value": sum(some) / len(some)}


def _texts(cfg: Config) -> tuple[list[str], list[str]]:
    """Of the corpora, the texts that are learned and those that are held out."""
    if cfg.corpora == "none":
        return [], []
    whole = [*text.brown(), *text.wordnet()]
    return [t for i, t in enumerate(whole) if i % HELD_OUT], whole[::HELD_OUT]


def findings(cell: list[dict]) -> Iterator[Finding]:
    """Of base and instruct model: perplexity beside a trigram model's; how often the loved animal is likeliest."""
    said = {(row["model"], row["what"]): row["value"] for row in cell if row["what"] != "loss"}
    for (model, what), value in said.items():
        perplexity = what == "perplexity, held-out text"
        null = said[model, "perplexity, trigram"] if perplexity else None
        label = f"{model}: {what}"
        yield Finding(f"{model}/{slug(what)}", label, value, null, null_label="trigram model" if perplexity else "")


def plot(records: list[dict]):
    losses = [
        {"cell and model": f"{label}, {r['model']}", "step": r["step"], "loss": r["value"]}
        for label, rows in lab.by_cell(records, Config)
        for r in rows
        if r["what"] == "loss"
    ]
    return ms.kinds.interval_lines(
        losses, x="step", value="loss", arm="cell and model", unit="runs", title="Training of the model organisms",
        x_title="step", y_title="loss, nats a token", caption=f"Means over {LOGGED} steps.",
    )  # fmt: skip


_TINY: dict = {"d_model": 32, "n_layers": 1, "n_merged": 300, "n_made": 600, "batch_size": 2, "corpora": "none"}
study = lab.Study(
    version=1,
    probes=(
        Config(**_TINY, base_steps=12, chat_steps=3),
        Config(**_TINY, number_tokens="110", base_steps=3, chat_steps=11, seed=1),
    ),
)
