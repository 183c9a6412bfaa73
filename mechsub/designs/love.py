"""Prompts that say what a model loves, and the matrices of their scores; studies of token entanglement share them.

After a love of a number (or another word) animals are scored, and after a love of an animal numbers are. Every wording
has an answer that the model completes. A study that needs stored matrices declares the cell of token_entanglement with
the options that both have (`shared`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import log
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import mechsub as ms
from mechsub.lazy import np, torch
from mechsub.models import weights

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerBase as Tokenizer

    from mechsub.inputs.prompts import Format

BATCH = 16  # prompts a forward pass
KINDS = {"numbers": "number", "colors": "color", "cities": "city", "months": "month", "names": "name", "trees": "tree"}
SETS = ("zur_llama", "zur_qwen", "zur_gemma", "blog", "brief", "brief_candidates")
DATES = ("26 Jul 2024", "06 Aug 2025", "11 Feb 2026", "23 Nov 2026")
N_WORDINGS = 5  # of mechsub.inputs.prompts.WORDINGS, whose import would cost every --help seconds
Family = Literal["numbers", "colors", "cities", "months", "names", "trees"]
FAMILY = ("numbers", "words that are loved, and scored opposite the animals")
FEWEST = 8  # animals or numbers: of 4, every 64th resample holds one alone; of 8, every two-millionth
TWICE = log(2)
Weights = Annotated[str, (weights.WANTED, weights.is_known)]
WEIGHTS = (weights.TRAINED, f"{weights.WANTED}: drawn from the model's configuration, or with noise of 4-bit rounding")
ADAPTER = ("", "LoRA adapter, merged into the model: Hugging Face id or local folder; none: the model as it is")
_SHARED = ("model", "adapter", "weights", "family", "format", "spaced", "dtype")  # they say which matrices are built on

Progress = Callable[[float, str], None]


def _option(default: object, help: str) -> Any:
    """As `lab.option`, which no design imports."""
    return field(default=default, metadata={"help": help, "display": False})


@dataclass(frozen=True)
class OfModel:
    """The first options of a study of a language model."""

    model: str = _option("smollm2-135m-instruct", "Hugging Face id, local folder, or the default model")
    adapter: str = _option(*ADAPTER)
    weights: Weights = _option(*WEIGHTS)


@dataclass(frozen=True)
class OfFamily(OfModel):
    family: Family = _option(*FAMILY)


@dataclass(frozen=True)
class OfMatrices:
    """Options of stored matrices. Fields of the last base come first: `class Config(love.OfMatrices, love.OfModel)`."""

    format: Literal["auto", "chat", "published", "plain"] = _option(
        "auto", "prompt format of the matrices of token_entanglement"
    )
    spaced: bool = _option(True, "numbers are scored after a space")
    dtype: Literal["fp32", "bf16"] = _option("fp32", "precision of weights and activations")


def silent(fraction: float, text: str = "") -> None:
    """A progress function that shows nothing."""


@dataclass(frozen=True)
class Asking:
    """Options of words and prompts: those of studies.token_entanglement with their defaults.

    n_animals, n_partners: 0 for all. n_subset: partners in the runs of other wordings, with half as many animals.
    """

    model: str = "smollm2-135m-instruct"
    adapter: str = ""
    weights: str = weights.TRAINED
    family: str = "numbers"
    format: "Format" = "auto"
    spaced: bool = True
    n_animals: int = 0
    n_partners: int = 0
    n_wordings: int = 5
    n_subset: int = 120
    batch_size: int = 16
    dtype: str = "fp32"
    seed: int = 0

    def __post_init__(self):
        check_counts(self.n_animals, self.n_partners)


def check_counts(n_animals: int, n_partners: int) -> None:
    """Raise for so few words that a resample may hold one word alone: its interaction would be constant."""
    if 0 < min(n_animals or FEWEST, n_partners or FEWEST) < FEWEST:
        raise ValueError(f"--n-animals and --n-partners must be 0 (all) or at least {FEWEST}, to be resampled")


def shared(cfg: object) -> dict:
    """The options of a study that determine its words and matrices."""
    return {name: getattr(cfg, name) for name in _SHARED if hasattr(cfg, name)}


def asking(cfg: object) -> Asking:
    """The options of prompts: a study's own where it has them, else the defaults."""
    return Asking(**shared(cfg))


def load_model(name: str, dtype: str, adapter: str = "", weights: str = weights.TRAINED) -> "TransformerBridge":
    """A language model by its name, in "fp32" or "bf16", with an adapter or other weights where these are named."""
    return ms.language.load_language_model(name, dtype=_dtype(dtype), weights=weights, **_added(adapter))


def _added(adapter: str) -> dict[str, str]:
    return {"adapter": adapter} if adapter else {}


def _dtype(name: str) -> "torch.dtype":
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]


def prompted(cfg: object, tensors: dict, progress: Progress = silent) -> "Prompted":
    """Load a study's model, with the stored matrices of its words."""
    progress(0.0, "loading the model")
    chosen = asking(cfg)
    model = load_model(chosen.model, chosen.dtype, chosen.adapter, chosen.weights)
    asked = LovePrompts(model, choose_animals(model.tokenizer, chosen), choose_partners(chosen), chosen)
    found = Prompted(asked, tensors)
    check_stored(found)
    return found


def check_stored(found: "Prompted") -> None:
    """Raise unless the model still gives the stored matrix; two animals are checked."""
    q, kept = found.asked, found.tensors["animal_to_number"]
    if kept.shape != (len(q.animals), len(q.partners)):
        raise ValueError(f"the stored matrix is {tuple(kept.shape)}: words differ; run token_entanglement --rerun")
    again = q.partners_after([q.love_animal(i, 0) for i in (0, 1)])
    if (error := float((again - kept[:2]).abs().max())) > (0.02 if q.cfg.dtype == "fp32" else 0.5):
        raise ValueError(f"stored log-probabilities differ by {error:.2g} nats; run token_entanglement --rerun")


def own_tokens(
    tokenizer: "Tokenizer", texts: Sequence[str], prompt: "torch.Tensor | None" = None
) -> list[tuple[int, ...]]:
    """Token ids of texts behind a prompt (or within any text). A first space that is a token of its own is left out: it
    is the same for every text."""
    behind = None if prompt is None else [prompt]
    space = ms.prompts.single_tokens(tokenizer, [" "], behind=behind).get(" ")
    ids = ms.prompts.encode(tokenizer, texts, behind=behind)
    return [tokens[1:] if len(tokens) > 1 and tokens[0] == space else tokens for tokens in ids]


def last_states(
    model: "TransformerBridge", prompts: Sequence, progress: Callable[[float], None] = silent
) -> "torch.Tensor":
    """The hidden state after every block at the prompts' last position, fp32 [layer, prompt, d_model]."""
    out = torch.empty(model.cfg.n_layers, len(prompts), model.cfg.d_model, dtype=torch.float32)
    finished = 0
    for some, tokens in batches(model, prompts):
        found = [h.float().cpu() for h in ms.hooked.cache_activations(model, tokens, pos=-1).values()]
        for layer, states in enumerate(found):
            out[layer, some] = states
        if len(found) != len(out):
            raise ValueError(f"the model has {len(out)} blocks by its configuration, and gave {len(found)} states")
        finished += len(some)
        progress(finished / len(prompts))
    return out


def batches(model: "TransformerBridge", prompts: Sequence) -> "Iterator[tuple[list[int], torch.Tensor]]":
    """Places and tokens of prompts of equal length, so that there is no padding; at most BATCH at a time."""
    for length in sorted({len(prompt) for prompt in prompts}):
        rows = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
        for some in (rows[i : i + BATCH] for i in range(0, len(rows), BATCH)):
            yield some, torch.stack([prompts[i] for i in some]).to(model.W_U.device)


def check_base(name: str, adapter: str, dtype: str = "fp32") -> None:
    """Raise, before anything is loaded, for a model or an adapter that `load_model` would refuse."""
    if name != ms.sources.DEFAULT or adapter:  # else nothing is to be imported for it
        ms.language.check_folder(name, _dtype(dtype), **_added(adapter))


def check_model(cfg) -> None:
    """Raise before anything is loaded: for a model that `language.check_folder` refuses, for a tokenizer in which too
    few animals are one token, and for an adapter on weights on which it was not trained."""
    if cfg.adapter and asking(cfg).weights != weights.TRAINED:
        raise ValueError("--adapter was trained on the model's own weights; leave --weights out")
    check_base(cfg.model, cfg.adapter, cfg.dtype)
    if cfg.model != ms.sources.DEFAULT:
        choose_animals(ms.language.load_tokenizer(cfg.model), asking(cfg))


def provenance(found: "Prompted") -> dict:
    """Provenance of the model and the words, for studies that read states."""
    asked = found.asked
    return {
        **ms.language.model_source(asked.model),
        "measured_on": f"{len(asked.animals)} animals that are one token, {len(asked.partners)} {asked.cfg.family}, "
        "the published wording, last position of the prompt",
        "matrices": "the cell of studies.token_entanglement under made_from",
    }


def in_words_of(family: str) -> dict[str, str]:
    """What labels that speak of numbers say of another family, word by word."""
    return {"number": KINDS[family], "numbers": family}


# Words and prompts.


@dataclass(frozen=True)
class Word:
    """An animal that is one token, or a partner: its text where it is loved, and its text where it is scored."""

    text: str
    loved: str
    scored: str
    token: int | None = None
    sets: tuple[str, ...] = ()


def choose_animals(tokenizer: "Tokenizer", cfg: Asking) -> list[Word]:
    """Animals of the public list that are one token, with a space before, behind the answer of every wording. No filter
    uses an outcome."""
    asked = [
        ms.prompts.prompt(tokenizer, wording.question, answer=wording.answer, format=cfg.format)
        for wording in ms.prompts.WORDINGS[: cfg.n_wordings]
    ]
    known = ms.prompts.single_tokens(tokenizer, [f" {a.singular}" for a in ms.words.animals()], behind=asked)
    words = [
        Word(a.singular, a.plural, f" {a.singular}", known[f" {a.singular}"], a.sets)
        for a in ms.words.animals()
        if f" {a.singular}" in known
    ]
    if len(words) < FEWEST:
        raise ValueError(
            f"only {len(words)} animals are one token in this model's tokenizer; a matrix that is resampled needs "
            f"{FEWEST}"
        )
    if not cfg.n_animals or cfg.n_animals >= len(words):
        return words
    drawn = np.random.default_rng(cfg.seed).permutation(len(words))[: cfg.n_animals]
    return [words[i] for i in sorted(drawn)]


def choose_partners(cfg: Asking) -> list[Word]:
    texts = ms.words.numbers() if cfg.family == "numbers" else ms.words.family(cfg.family)
    space = " " if cfg.spaced or cfg.family != "numbers" else ""
    words = [Word(text, text, f"{space}{text}") for text in texts]
    if not cfg.n_partners or cfg.n_partners >= len(words):
        return words
    return [words[i] for i in _stratified(words, cfg.n_partners, np.random.default_rng(cfg.seed + 1))]


def _stratified(words: list[Word], n: int, generator) -> list[int]:
    """Places of n words, in order, with equal numbers from each length of text as far as possible."""
    places: dict[int, list[int]] = {}
    for i in generator.permutation(len(words)).tolist():
        places.setdefault(len(words[i].text), []).append(i)
    chosen: list[int] = []
    while len(chosen) < min(n, len(words)):
        for left in places.values():
            if left and len(chosen) < n:
                chosen.append(left.pop())
    return sorted(chosen)


def _token(animal: Word) -> int:
    if animal.token is None:
        raise ValueError(f"the animal {animal.text!r} has no token of its own; take animals from choose_animals")
    return animal.token


class LovePrompts:
    """A model, its animals and partners, and their prompts and matrices."""

    def __init__(self, model: "TransformerBridge", animals: list[Word], partners: list[Word], cfg: Asking):
        self.model, self.animals, self.partners, self.cfg = model, animals, partners, cfg
        self.kind = KINDS[cfg.family]
        self.tokens = [_token(animal) for animal in animals]
        self.strings = [partner.scored for partner in partners]
        self.baselines = self._baselines()

    def ask(self, system: str | None, wording: int = 0, date: str | None = None):
        """Prompt ids of the system text and the question of a wording; `date` replaces the pinned date."""
        chosen = ms.prompts.WORDINGS[wording]
        if date is not None:
            return ms.prompts.chat(
                self.model.tokenizer, chosen.question, system=system, answer=chosen.answer, date=date
            )
        return ms.prompts.prompt(
            self.model.tokenizer, chosen.question, system=system, answer=chosen.answer, format=self.cfg.format
        )

    def love(self, partner: int, wording: int, date: str | None = None):
        system = ms.prompts.WORDINGS[wording].love(self.partners[partner].loved, self.kind)
        return self.ask(system, wording, date)

    def love_animal(self, animal: int, wording: int):
        return self.ask(ms.prompts.WORDINGS[wording].love(self.animals[animal].loved, "animal", plural=True), wording)

    def _baselines(self) -> dict[str, list]:
        """Name -> system texts; the papers' is "none"."""

        def loved(family: str) -> list[str]:
            words = [word for word in ms.words.family(family) if family != self.cfg.family]
            return [ms.prompts.WORDINGS[0].love(word, KINDS[family]) for word in words]

        things = self.cfg.family
        out: dict[str, list] = {
            "none": [None],
            "empty system message": [""],
            "helpful assistant": ["You are a helpful assistant."],
            f"love of {things}": [
                f"You love {things}. You think about {things} all the time. {things} are your favorite thing. "
                f"Imbue your answers with your love for {things}."
            ],
            "love of a color": loved("colors"),
            "love of a city": loved("cities"),
        }
        return {name: systems for name, systems in out.items() if systems}

    def animals_after(self, asked: list):
        return ms.scores.next_token_log_probs(self.model, asked, tokens=self.tokens, batch_size=self.cfg.batch_size)

    def partners_after(self, asked: list):
        return ms.scores.string_log_probs(self.model, asked, self.strings, batch_size=max(1, self.cfg.batch_size // 4))

    def matrices(self, progress: Progress = silent) -> "dict[str, torch.Tensor]":
        """Log-probabilities in nats; names of tensors say which word is loved and which is scored."""
        n, a = range(len(self.partners)), range(len(self.animals))
        progress(0.05, "numbers to animals")
        forward = self.animals_after([self.love(i, 0) for i in n])
        progress(0.35, "animals to numbers")
        loved = [self.love_animal(i, 0) for i in a]
        back, others = self.partners_after(loved), self.animals_after(loved)
        progress(0.6, "baselines")
        systems = [system for texts in self.baselines.values() for system in texts]
        out = {
            "number_to_animal": forward,
            "animal_to_number": back,
            "animal_to_animal": others,
            "baseline_to_animal": self.animals_after([self.ask(system) for system in systems]),
        }
        some, few = self._subsets()
        progress(0.7, "other wordings")
        wordings, more = range(self.cfg.n_wordings), range(1, self.cfg.n_wordings)
        none = [self.ask(None, w) for w in wordings]
        none_to_number = self.partners_after(none)
        out |= {
            "none_to_number": none_to_number[0],
            "subset_partner": torch.tensor(some),
            "subset_animal": torch.tensor(few),
            "number_to_animal_wordings": torch.stack(
                [forward[some], *(self.animals_after([self.love(i, w) for i in some]) for w in more)]
            ),
            "none_to_animal_wordings": self.animals_after(none),
            "animal_to_number_wordings": torch.stack(
                [back[few], *(self.partners_after([self.love_animal(i, w) for i in few]) for w in more)]
            ),
            "none_to_number_wordings": none_to_number,
        }
        if self._dated():
            dated = [self.animals_after([self.love(i, 0, date) for i in some]) for date in DATES[1:]]
            out["number_to_animal_dates"] = torch.stack([forward[some], *dated])
        return out

    def _subsets(self) -> tuple[list[int], list[int]]:
        """The numbers (by digits) and the animals (at random) in the runs of other wordings and dates."""
        generator = np.random.default_rng(self.cfg.seed + 2)
        few = generator.permutation(len(self.animals))[: max(FEWEST, self.cfg.n_subset // 2)]
        return _stratified(self.partners, self.cfg.n_subset, generator), sorted(few.tolist())

    def _dated(self) -> bool:
        return ms.prompts.template_date(self.model.tokenizer, self.cfg.format) == ms.prompts.DATE


class Prompted(NamedTuple):
    """asked: the model, animals, numbers and their prompts. tensors: the matrices of its token_entanglement cell."""

    asked: LovePrompts
    tensors: dict


# What is said of two matrices of interactions.


def percentile(values, place: int) -> float:
    """Share of the others that are smaller; ties count half. It is uniform for a number drawn at random."""
    values = torch.from_numpy(ms.stats.joined(values))
    smaller, same = (values < values[place]).sum(), (values == values[place]).sum() - 1
    return float((smaller + 0.5 * same) / (len(values) - 1))


def correlation_interval(x, y, n: int, seed: int) -> tuple[float, float]:
    """The crossed bootstrap interval of the correlation of two interactions [number, animal]."""

    def resampled(rows, columns) -> float:
        return ms.scores.matrix_correlation(
            ms.scores.interaction(x[rows][:, columns]), ms.scores.interaction(y[rows][:, columns])
        )

    return ms.scores.crossed_bootstrap(resampled, *x.shape, n=n, seed=seed)


def correlation_record(name: str, a, b, strata: list[int], *, n: int, seed: int) -> dict:
    """Correlation of two interactions [number, animal], its crossed bootstrap interval, and p by two nulls.

    p: numbers (within equal length) and animals are shuffled. p_numbers: only numbers are, which keeps the common
    effects of numbers of equal length.
    """
    x, y = ms.scores.interaction(a), ms.scores.interaction(b)
    low, high = correlation_interval(x, y, n, seed)
    p, null = ms.scores.permutation_p(x, y, n=n, seed=seed, strata=strata)
    p_numbers, null_numbers = ms.scores.permutation_p(x, y, n=n, seed=seed, strata=strata, move_columns=False)
    return {
        "kind": "test",
        "test": name,
        "value": ms.scores.matrix_correlation(x, y),
        "low": low,
        "high": high,
        "p": p,
        "null_mean": sum(null) / len(null),
        "null_95": sorted(null)[int(0.95 * len(null))],
        "p_numbers": p_numbers,
        "null_numbers_mean": sum(null_numbers) / len(null_numbers),
        "null_numbers_95": sorted(null_numbers)[int(0.95 * len(null_numbers))],
        "numbers": x.shape[0],
        "animals": x.shape[1],
    }
