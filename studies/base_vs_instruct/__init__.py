"""Are a base model's entangled pairs those of its instruct child, and which part of the model makes the difference?

2 x 2: both models are prompted as chats (with the instruct model's template) and as plain text, in the same words,
about all animals that are one token. The published log ratio log P(animal | "You love 087 ...") - log P(animal | no
system message) is an exact sum: what any number does to that animal, what the number does to every animal, and the
interaction of both. The interaction is called specific here (slopes, length and digits are in it).

Fixed numbers: for every animal, the number whose interaction is largest in half of the wordings, each arm's scaled by
its spread and summed over the four arms. Everything is measured in the other half. Beside the fixed number stand the
number that each arm would choose itself (transfer of pairs from arm to arm), the published choice (the likeliest number
under the animal's own prompt), and a statistic without any choice: the covariance of the two halves over all numbers.

Then embedding, body, final norm and unembedding are exchanged one by one (`mechsub.measures.exchange`; 16 hybrids,
weights untied). Shapley values share the difference of the two models among these four parts; they add up to it. The
published head swap exchanges embedding and unembedding together in a tied model; it stands beside the untied one.

Nulls: 0 for interactions at numbers chosen in other wordings; a random number of as many digits for the ratio; numbers
shuffled within equal length for correlations. Units: the chosen numbers, each with all its animals, paired over arms
(Student t); animals where no number is chosen; numbers and animals, crossed, for correlations.

With several pairs, the table has what is said of each and the mean over pairs.

    python -m studies.base_vs_instruct --base meta-llama/Llama-3.2-1B meta-llama/Llama-3.2-3B
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import mechsub as ms
from mechsub import lab
from mechsub.designs import love
from mechsub.lazy import late, torch

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerBase as Tokenizer

    from mechsub.inputs.prompts import Format
    from mechsub.measures import exchange
else:
    exchange = late("mechsub.measures.exchange")

MODELS = ("base", "instruct")
FORMATS: "tuple[Format, ...]" = ("chat", "plain")
TOP = 5  # numbers of an animal that are compared between arms


@dataclass(frozen=True)
class Config:
    base: str = lab.option("organisms/1110-base", "Hugging Face id or local folder of the pretrained model")
    instruct: str = lab.option("auto", "its instruct child; auto: NAME-instruct of NAME-base, NAME-Instruct of NAME")
    adapter: str = lab.option(love.ADAPTER[0], "LoRA adapter, merged into --instruct: Hugging Face id or local folder")
    spaced: bool = lab.option(True, "numbers are scored after a space (' 087'), as in text; false: as published")
    n_animals: lab.Index = lab.option(0, "single-token animals used, drawn at random; 0: all")
    n_partners: lab.Index = lab.option(0, "numbers used, drawn by length; 0: all")
    n_wordings: lab.Count = lab.option(5, "wordings: every second one is measured, the others choose the numbers")
    n_permutations: lab.Resamples = lab.option(199, "shuffles of a correlation's null, resamples of its interval")
    batch_size: lab.Count = lab.option(32, "prompts a forward pass")
    dtype: Literal["fp32", "bf16"] = lab.option("fp32", "of weights and activations; log-probabilities are fp32")
    seed: lab.Index = lab.option(0, "seed of subsets, shuffles and resamples")

    def __post_init__(self):
        if not 2 <= self.n_wordings <= 5:
            raise ValueError("--n-wordings must be 2 to 5: one half chooses numbers, the other measures")
        if self.instruct == child(self.base):  # one pair, one cell
            object.__setattr__(self, "instruct", "auto")


def names(cfg: Config) -> dict[str, str]:
    """Of both models, Hugging Face id or folder."""
    return {"base": cfg.base, "instruct": child(cfg.base) if cfg.instruct == "auto" else cfg.instruct}


def child(base: str) -> str:
    """The name of the instruct child of a base model, as most model repositories name it."""
    base = base.rstrip("/")
    stem, dash, last = base.rpartition("-")
    if dash and last.lower() == "base":
        return f"{stem}-{'Instruct' if last[0].isupper() else 'instruct'}"
    return f"{base}-Instruct"


def check(cfg: Config) -> None:
    pair = names(cfg)
    for kind, name in pair.items():
        if name.startswith("organisms/") and not os.path.isdir(name):
            raise ValueError(
                f"{name} is not here: run this in a checkout of mechsub, or train the pair (python -m "
                "studies.train_organism, for seed-1 with --seed 1) and write it (python -m tools.ship_organism "
                f"{os.path.dirname(name)}, with the same flags)"
            )
        love.check_model(dataclasses.replace(words_config(cfg, name), adapter=_adapter(cfg, kind)))
    if ms.sources.DEFAULT not in pair.values():
        check_tokenizers(*map(ms.language.load_tokenizer, pair.values()))


def check_tokenizers(base: "Tokenizer", instruct: "Tokenizer") -> None:
    """Raise unless both read text alike, and the second has the template that both are prompted with."""
    if not exchange.read_alike(base, instruct):
        raise ValueError("--base and --instruct have different tokenizers; give a base model and its own child")
    if ms.prompts.system_role(instruct) == "text":
        raise ValueError("--instruct has no chat template; give the instruct model there, and the base as --base")


def words_config(cfg: Config, model: str, form: "Format" = "auto") -> love.Asking:
    """The options of token_entanglement that say which words and prompts these are."""

    return love.Asking(
        model=model, format=form, spaced=cfg.spaced, n_animals=cfg.n_animals, n_partners=cfg.n_partners, n_wordings=1,
        batch_size=cfg.batch_size, dtype=cfg.dtype, seed=cfg.seed,
    )  # fmt: skip


class Forward(NamedTuple):
    """Log-probabilities in nats where a number is loved, or nothing, means over half of the wordings."""

    forward: "torch.Tensor"  # [number, animal]
    none: "torch.Tensor"  # [animal]


class Half(NamedTuple):
    """Log-probabilities in nats of a model in one format, means over half of the wordings."""

    forward: "torch.Tensor"  # [number, animal], of the animal where the number is loved
    none: "torch.Tensor"  # [animal], without a system message
    back: "torch.Tensor"  # [animal, number], of the number where the animal is loved
    none_back: "torch.Tensor"  # [number]


class Arm(NamedTuple):
    choosing: Half
    measured: Half


class Found(NamedTuple):
    animals: list
    partners: list
    arms: dict[tuple[str, str], Arm]  # (model, format)
    hybrids: dict[tuple[str, frozenset], Forward]  # (format, parts of the instruct model)


def run(cfg: Config) -> Iterator[dict]:
    pair = load(cfg)
    found = measure(cfg, pair)
    lab.show_progress(0.9, "records")
    fixed = fixed_numbers(found)
    yield from _animal_records(found, fixed)
    yield from _transfer_records(found)
    yield from _hybrid_records(found, fixed)
    yield from _test_records(found, cfg)
    yield {
        "provenance": {
            **{name: ms.language.model_source(pair[name]) for name in MODELS},
            "wordings": {
                "measured in": list(range(cfg.n_wordings))[::2],
                "choosing": list(range(cfg.n_wordings))[1::2],
            },
            "basis": "log-probabilities over the whole vocabulary, fp32 log-softmax, nats; parts exchanged untied",
            "animals": f"{len(found.animals)} that are one token with a space before them",
            "numbers": len(found.partners),
            "null": "0 (interactions); random numbers of as many digits; numbers shuffled within length",
            "unit": "chosen numbers with their animals, paired over arms; animals and numbers crossed for correlations",
        }
    }


def _adapter(cfg: Config, name: str) -> str:
    return cfg.adapter if name == "instruct" else ""


def load(cfg: Config) -> "dict[str, TransformerBridge]":
    """Both models; the base is given the instruct model's tokenizer, which is its own and has a template too."""

    lab.show_progress(0.0, "loading the models")
    pair = {kind: love.load_model(name, cfg.dtype, _adapter(cfg, kind)) for kind, name in names(cfg).items()}
    check_tokenizers(pair["base"].tokenizer, pair["instruct"].tokenizer)
    exchange.check_shapes(pair["base"], pair["instruct"])
    pair["base"].tokenizer = pair["instruct"].tokenizer
    return pair


def measure(cfg: Config, pair: "dict[str, TransformerBridge]") -> Found:

    tokenizer, words = pair["instruct"].tokenizer, words_config(cfg, names(cfg)["instruct"])
    found = Found(love.choose_animals(tokenizer, words), love.choose_partners(words), {}, {})
    for done, form in enumerate(FORMATS):
        chosen = words_config(cfg, names(cfg)["instruct"], form)
        asked = {name: love.LovePrompts(pair[name], found.animals, found.partners, chosen) for name in MODELS}
        choosing, hybrids, backs = {name: [] for name in MODELS}, [], {name: [] for name in MODELS}
        for w in range(cfg.n_wordings):
            lab.show_progress(0.02 + 0.88 * (done + w / cfg.n_wordings) / len(FORMATS), f"{form}, wording {w}")
            q = asked["instruct"]
            numbers = [q.ask(None, w), *(q.love(n, w) for n in range(len(q.partners)))]
            loved = [q.ask(None, w), *(q.love_animal(a, w) for a in range(len(q.animals)))]
            for name in MODELS:
                backs[name].append(asked[name].partners_after(loved))
                if w % 2:
                    choosing[name].append(asked[name].animals_after(numbers))
            if w % 2 == 0:
                hybrids.append(_hybrid_tables(pair, numbers, q.tokens, cfg))
        for some in hybrids[0]:
            table = _mean([one[some] for one in hybrids])
            found.hybrids[form, some] = Forward(table[1:], table[0])
        ends = {"base": frozenset(), "instruct": max(hybrids[0], key=len)}
        for name in MODELS:
            table, backward = _mean(choosing[name]), _mean(backs[name][1::2])
            measured, other = found.hybrids[form, ends[name]], _mean(backs[name][::2])
            found.arms[name, form] = Arm(
                Half(table[1:], table[0], backward[1:], backward[0]),
                Half(measured.forward, measured.none, other[1:], other[0]),
            )
    return found


def _hybrid_tables(
    pair: "dict[str, TransformerBridge]", prompts: list, tokens: list[int], cfg: Config
) -> "dict[frozenset, torch.Tensor]":
    return exchange.log_probs(pair["base"], pair["instruct"], prompts, tokens, cfg.batch_size)


def _mean(tables: list):
    return torch.stack(tables).double().mean(0)


# Numbers and records.


def fixed_numbers(found: Found):
    """Of every animal, the number whose interaction is largest over the arms, in the wordings that choose."""
    tables = [ms.scores.interaction(arm.choosing.forward) for arm in found.arms.values()]
    return sum((table / table.std().clamp_min(1e-12) for table in tables), torch.zeros(())).argmax(0)


def _animal_records(found: Found, fixed) -> Iterator[dict]:
    """A row for every arm and animal: effects of its fixed number, of its own, and of the published choice."""
    texts = [partner.text for partner in found.partners]
    for (model, form), arm in found.arms.items():
        up, down = arm.measured.forward - arm.measured.none, arm.measured.back - arm.measured.none_back
        specific, back = ms.scores.interaction(up), ms.scores.interaction(down)
        chooses = ms.scores.interaction(arm.choosing.forward)
        own = chooses.topk(min(TOP, len(texts)), dim=0).indices
        likely = arm.choosing.back.topk(min(TOP, len(texts)), dim=1).indices
        typical, typical_up = _of_length(specific, texts), _of_length(up, texts)
        doubled = _of_length((up > love.TWICE).double(), texts)
        for a, animal in enumerate(found.animals):
            n, mine, published = int(fixed[a]), int(own[0, a]), int(likely[a, 0])
            yield {
                "kind": "animal", "prompted": model, "format": form, "animal": animal.text, "number": texts[n],
                "log_p_none": float(arm.measured.none[a]),
                "published": float(up[n, a]),
                "any number": float(up[:, a].mean()),
                "number for all": float(up[n].mean() - up.mean()),
                "specific": float(specific[n, a]),
                "specific, random": float(typical[n, a]),
                "published, random": float(typical_up[n, a]),
                "place": love.percentile(specific[:, a], n),
                "covariance": float((specific[:, a] * chooses[:, a]).mean()),
                "back, published": float(down[a, n]),
                "back, any number": float(down[a].mean()),
                "back, specific": float(back[a, n]),
                "own": [texts[int(i)] for i in own[:, a]],
                "own, specific": float(specific[mine, a]),
                "likeliest": [texts[int(i)] for i in likely[a]],
                "likeliest, published": float(up[published, a]),
                "likeliest, back": float(down[a, published]),
                "share over 2x": float(doubled[published, a]),
            }  # fmt: skip


def _of_length(table, texts: Sequence[str]):
    """The mean over all numbers of as many digits, at every number."""
    out = torch.empty_like(table)
    for length in {len(text) for text in texts}:
        rows = [i for i, text in enumerate(texts) if len(text) == length]
        out[rows] = table[rows].mean(0)
    return out


def _transfer_records(found: Found) -> Iterator[dict]:
    """What is specific at the numbers that one arm chose, in another: lists over animals."""
    n = len(found.animals)
    for chooser, arm in found.arms.items():
        own = ms.scores.interaction(arm.choosing.forward).argmax(0)
        for place, other in found.arms.items():
            table = ms.scores.interaction(other.measured.forward)
            values = table[own, torch.arange(n)]
            yield {
                "kind": "transfer", "chosen in": " ".join(chooser), "measured in": " ".join(place),
                "numbers": [found.partners[number].text for number in own.tolist()],
                "specific": _rounded(values.tolist()),
            }  # fmt: skip


def _hybrid_records(found: Found, fixed) -> Iterator[dict]:
    """A row for every format and hybrid, with a list over animals of every effect."""
    animals = torch.arange(len(found.animals))
    for (form, some), half in found.hybrids.items():
        up, specific = half.forward - half.none, ms.scores.interaction(half.forward)
        values = {
            "published": up[fixed, animals],
            "any number": up.mean(0),
            "specific": specific[fixed, animals],
        }
        yield {
            "kind": "hybrid", "format": form, **{part: MODELS[part in some] for part in exchange.PARTS},
            **{name: _rounded(row.tolist()) for name, row in values.items()},
        }  # fmt: skip


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 6) for value in values]


def _test_records(found: Found, cfg: Config) -> Iterator[dict]:
    """Do interactions come back in other wordings (the ceiling), in the other model, in the other format?"""

    length = [len(partner.text) for partner in found.partners]
    arms = found.arms
    pairs = [(f"{' '.join(name)}: the other wordings", arm.choosing, arm.measured) for name, arm in arms.items()]
    pairs += [(f"base and instruct, {form}", *(arms[model, form].measured for model in MODELS)) for form in FORMATS]
    pairs += [(f"chat and plain, {model}", *(arms[model, form].measured for form in FORMATS)) for model in MODELS]
    pairs += [("instruct chat and base plain", arms["instruct", "chat"].measured, arms["base", "plain"].measured)]
    for done, (name, a, b) in enumerate(pairs):
        lab.show_progress(0.9 + 0.1 * done / len(pairs), "correlations")
        yield love.correlation_record(name, a.forward, b.forward, length, n=cfg.n_permutations, seed=cfg.seed)


_PAIR: dict = {"base": "tests/probes/models/pair/base", "instruct": "tests/probes/models/pair/instruct"}
study = lab.Study(
    version=2,
    probes=(
        Config(**_PAIR, n_animals=8, n_partners=12, n_wordings=2, n_permutations=100),
        Config(
            **_PAIR, spaced=False, n_animals=9, n_partners=10, n_wordings=3, n_permutations=100, batch_size=4, seed=1
        ),
    ),
)
