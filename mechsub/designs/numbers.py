"""Lists of numbers that a teacher writes: with all other tokens masked, or freely and then filtered, as published.

Every row has random numbers of its own, keyed by (seed, row), so that a list depends neither on the batch nor on other
rows. The token with the largest logit + Gumbel noise is taken, which is a draw from the softmax. Teachers with one seed
share the noise: their lists differ where the teachers differ, and hardly by chance (paired designs). Prompts run in
batches of one length, without padding, and are read once (cached keys).
"""

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.utilities import derive_generator

from mechsub import arguments
from mechsub.inputs import corpora, words
from mechsub.inputs import prompts as prompting
from mechsub.inputs.corpora import Corpus
from mechsub.inputs.token_ids import check_length
from mechsub.measures.scores import equal_lengths
from mechsub.models.students import logits_at, plain_model, steered
from mechsub.training.tuning import check_corpus, completion_batch

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel
    from transformers import PreTrainedTokenizerBase as Tokenizer

Allowed = Callable[[int], list[int] | None]  # step -> tokens that may be drawn; None: all


def draw_numbers(
    teacher: "TransformerBridge",
    prompts: Sequence[str],
    *,
    n_numbers: int = 8,
    temperature: float = 1.0,
    seed: int = 0,
    format: prompting.Format = "auto",
    teacher_system: str | None = None,
    least_probability: float = 0.0,
    added: tuple[int, Float[Tensor, "d_model"]] | None = None,
    batch_size: int = 64,
) -> Corpus:
    """A list of `n_numbers` numbers behind every prompt, all other tokens masked; temperature 0 takes the likeliest.

    A number is one token where 000..999 are single tokens, else three tokens of one digit. `teacher_system` is a system
    text for the teacher that students do not see. No token is drawn whose probability is below
    `least_probability`, among the tokens that may stand there (of 1,000 equally likely numbers each has 0.001); the
    likeliest always may. The noise is that of a call without it. `added` steers the teacher: a block, and a vector
    that is added to the residual stream after it, at every position. Raises where the tokenizer reads a drawn list as
    other tokens.
    """
    tokenizer = _tokenizer(teacher)
    n_numbers, temperature = arguments.whole(n_numbers, "n_numbers", 1), _temperature(temperature)
    least = _least(least_probability, temperature)
    slots, separator = number_tokens(tokenizer)
    pattern = [[*slots, *[[token] for token in separator]] for _ in range(n_numbers)]
    steps = [allowed for one in pattern for allowed in one][: -len(separator)]
    texts = arguments.texts(prompts, "prompts")
    asked = corpora.prompt_ids(tokenizer, texts, format=format, system=teacher_system)
    drawn = _drawn(teacher, asked, len(steps), steps.__getitem__, temperature, seed, batch_size, None, least, added)
    completions = [_written(tokenizer, row) for row in drawn]
    made = corpora.make_corpus(tokenizer, texts, completions, format=format)
    for i, row in enumerate(drawn):
        if list(made.completion_ids[i]) != row:
            raise ValueError(
                f"the tokenizer reads {completions[i]!r} as other tokens than were drawn; use sample_numbers"
            )
    return made


def sample_numbers(
    teacher: "TransformerBridge",
    prompts: Sequence[str],
    n: int,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    most_tokens: int = 64,
    strict: bool = False,
    format: prompting.Format = "auto",
    teacher_system: str | None = None,
    batch_size: int = 64,
) -> Corpus:
    """The first n answers that the published filter keeps; `strict` also drops answers that echo or count.

    Answers end with the end of turn; an answer that is cut off at `most_tokens` is rejected, and so is one in other
    tokens than the tokenizer makes of its text, which students would not read as it was drawn. Raises where the prompts
    give fewer than n answers: with fewer rows, students would get another dose.
    """
    tokenizer = _tokenizer(teacher)
    n, temperature = arguments.whole(n, "n", 1), _temperature(temperature)
    most, end = arguments.whole(most_tokens, "most_tokens", 1), tokenizer.eos_token_id
    texts = arguments.texts(prompts, "prompts")
    asked = corpora.prompt_ids(tokenizer, texts, format=format, system=teacher_system)
    rows = _drawn(teacher, asked, most, lambda step: None, temperature, seed, batch_size, end)
    kept, others = [], 0
    for prompt, row in zip(texts, rows, strict=True):
        text = _written(tokenizer, row[:-1]) if row[-1:] == [end] else ""
        if text and corpora.rejection(text, prompt=prompt if arguments.flag(strict, "strict") else None) is None:
            if _is_read_as(tokenizer, prompt, text, row[:-1], format):
                kept.append((prompt, text))
            else:
                others += 1
    if len(kept) < n:
        more = f" in the tokenizer's own tokens ({others} more in others)" if others else ""
        raise ValueError(
            f"{len(kept)} of {len(texts)} answers are lists of numbers{more}, fewer than n={n}; give more prompts"
        )
    return corpora.make_corpus(tokenizer, *zip(*kept[:n], strict=True), format=format)


def _tokenizer(teacher: "TransformerBridge") -> "Tokenizer":
    read = getattr(arguments.model(teacher, "teacher"), "tokenizer", None)
    if read is None:
        arguments.refuse("teacher", "a language model with a tokenizer", teacher)
    return read


def _written(tokenizer: "Tokenizer", row: Sequence[int]) -> str:
    return tokenizer.decode(row, clean_up_tokenization_spaces=False)


def _is_read_as(tokenizer: "Tokenizer", prompt: str, text: str, row: Sequence[int], format: prompting.Format) -> bool:
    """Whether a student's corpus would hold these very tokens behind the prompt."""
    try:
        (read,) = corpora.make_corpus(tokenizer, [prompt], [text], format=format).completion_ids
    except ValueError:  # it cannot be cut there
        return False
    return list(read) == list(row)


def number_tokens(tokenizer: "Tokenizer") -> tuple[list[list[int]], list[int]]:
    """Tokens of each part of a number, and of the separator behind it."""
    singles = prompting.single_tokens(tokenizer, words.numbers())
    threes = [singles[number] for number in words.numbers() if len(number) == 3 and number in singles]
    digits = [singles[digit] for digit in words.numbers()[:10] if digit in singles]
    slots = [threes] if len(threes) == 1000 else [digits] * 3
    pair = list(prompting.encode(tokenizer, ["123" + corpora.SEPARATOR + "456"])[0])
    n = len(slots)
    ends = zip([*pair[:n], *pair[-n:]], [*slots, *slots], strict=False)
    if len(slots[0]) < 10 or len(pair) <= 2 * n or any(token not in slot for token, slot in ends):
        raise ValueError("this tokenizer writes 000..999 neither as one token nor as three digits; use sample_numbers")
    return slots, pair[n:-n]


def _temperature(value: float) -> float:
    return arguments.number(value, "temperature", "a number of at least 0", least=0)


def _least(value: float, temperature: float) -> float:
    least = arguments.number(value, "least_probability", "a probability of at least 0 and below 1", least=0)
    if least >= 1:
        arguments.refuse("least_probability", "a probability of at least 0 and below 1", value)
    if least and not temperature:
        raise ValueError("least_probability has no effect at temperature 0, which takes the likeliest; leave it 0")
    return float(least)


@torch.no_grad()
def _drawn(
    model: "TransformerBridge",
    prompts: list[Tensor],
    n_steps: int,
    allowed: Allowed,
    temperature: float,
    seed: int,
    size: int,
    end: int | None,
    least: float = 0.0,
    added: tuple[int, Tensor] | None = None,
) -> list[list[int]]:
    """The tokens drawn behind every prompt, up to `end` and with it."""
    plain, seed = plain_model(model), arguments.seed(seed)
    answer = f"a prompt with an answer of {n_steps} tokens behind it"
    check_length(model, max(map(len, prompts)) + n_steps - 1, answer)
    out: list[list[int]] = [[] for _ in prompts]
    with steered(plain, model, added):
        for rows, batch in equal_lengths(prompts, arguments.whole(size, "batch_size", 1)):
            numbers = rows.tolist()
            draws = [derive_generator(seed, "numbers", row) for row in numbers]
            found = _steps(plain, batch.to(model.W_U.device), draws, allowed, temperature, least)
            for step, tokens in enumerate(found):
                going = [i for i in range(len(numbers)) if end is None or end not in out[numbers[i]][-1:]]
                for i in going:
                    out[numbers[i]].append(int(tokens[i]))
                if not going or step + 1 == n_steps:
                    break
    return out


def _steps(
    plain: "PreTrainedModel",
    batch: Tensor,
    draws: list[torch.Generator],
    allowed: Allowed,
    temperature: float,
    least: float,
) -> Iterator[Int[Tensor, "row"]]:
    past, tokens = None, batch
    for step in itertools.count():
        with warnings.catch_warnings():  # the older name of the cache, which all versions take
            warnings.filterwarnings("ignore", message="`past_key_values` is deprecated")
            out = plain(input_ids=tokens, past_key_values=past, use_cache=True, logits_to_keep=1)
        past, logits = out.past_key_values, out.logits[:, -1].double().cpu()
        drawn = _choose(logits, allowed(step), draws, temperature, least)
        yield drawn
        tokens = drawn[:, None].to(batch.device)


def _choose(
    logits: Float[Tensor, "row token"],
    among: list[int] | None,
    draws: list[torch.Generator],
    temperature: float,
    least: float,
) -> Int[Tensor, "row"]:
    """One token a row, by the row's own Gumbel noise; no noise is drawn where there is no choice."""
    tokens = torch.arange(logits.shape[1]) if among is None else torch.tensor(among)
    logits = logits[:, tokens]
    if temperature and len(tokens) > 1:
        uniform = torch.stack(
            [torch.rand(len(tokens), dtype=torch.double, generator=draw, device="cpu") for draw in draws]
        )
        if least:
            p = (logits / temperature).softmax(-1)
            logits = logits.masked_fill((p < least) & (p < p.amax(-1, keepdim=True)), -torch.inf)
        logits = logits / temperature - (-uniform.clamp(min=1e-300).log()).log()
    return tokens[logits.argmax(-1)]


@torch.no_grad()
def token_log_probs(model: "TransformerBridge", corpus: Corpus, *, batch_size: int = 32) -> corpora.LogProbs:
    """log P of each token of every completion behind its prompt, over the whole vocabulary, in nats."""
    plain = plain_model(model)
    check_corpus(model, arguments.instance(corpus, Corpus, "corpus"))
    size, out = arguments.whole(batch_size, "batch_size", 1), []
    for first in range(0, len(corpus), size):
        rows = range(first, min(first + size, len(corpus)))
        batch = completion_batch([(corpus, rows)], model.W_U.device)
        scores = logits_at(plain, batch.ids, batch.places).float().log_softmax(-1)
        found = scores.gather(1, batch.targets[:, None])[:, 0].cpu().clamp(max=0)
        out += [tuple(part.tolist()) for part in found.split([len(corpus.completion_ids[row]) for row in rows])]
    return tuple(out)


def scored(corpus: Corpus, teacher: "TransformerBridge", base: "TransformerBridge", *, batch_size: int = 32) -> Corpus:
    """The corpus with the log-probability of each token under its teacher and its base, in the student's context."""
    both = [token_log_probs(model, corpus, batch_size=batch_size) for model in (teacher, base)]
    columns = {name: getattr(corpus, name) for name in ("prompts", "completions", "prompt_ids", "completion_ids")}
    return Corpus(**columns, teacher_log_probs=both[0], base_log_probs=both[1], context=corpus.context)
