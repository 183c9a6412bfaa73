"""Must a number rise when an animal does? The cheapest write that raises one and leaves all numbers where they are.

The softmax-bottleneck account of token entanglement says: logits are a linear map of d_model numbers, so outputs cannot
be moved one by one. The study computes whether that binds. It divides the smallest change of the final residual that
raises an animal's log-odds by one nat while every token of numbers keeps its own, by the smallest change that only
raises the animal. 1: nothing is forced; infinite: the animal's direction lies in the span of the numbers' differences.

* price: from the weights alone, exact (a least-squares residual, fp64, the final norm's gain folded in), for log-odds
  among the animals, z_a - mean z, and among the numbers;
* cheapest change: at the state after the prompt without a system message, by exactly one nat, on the sphere to which
  the final RMS norm restricts the state. Log-odds are "among", as above, or of each token against all others, log p /
  (1 - p). The model then runs with the change, and error is the distance of its log-odds from those wanted;
* side effect: how far the numbers' log-odds move, in the model, when the animal is raised and nothing is held (s.d.
  over the tokens that could be held, nats for each nat of the animal).

Prediction for directions that point anywhere alike: sqrt(d / (d - r)), where holding takes r dimensions. Nulls: as many
other tokens of the numbers' norm and frequency; an unembedding of random directions with the same spectrum. Curve: any
number of tokens, drawn from the whole vocabulary; also its median over animals, since prices have a long tail. Unit of
replication: the animal; of prices, the mean over random draws (`--n-draws`) is taken for each. The cheapest change is
made beside one set of matched tokens, the first.

    python -m studies.bottleneck --model smollm2-135m-instruct organisms/110-instruct
"""

import dataclasses
import functools
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import mechsub as ms
from mechsub import lab, threads
from mechsub.designs import love
from mechsub.lab.findings import Finding, mean
from mechsub.lazy import np, scipy_special, torch

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from mechsub.designs.love import LovePrompts

NEAREST = 20  # tokens of a number token's norm and frequency, of which one is drawn
FRACTIONS = (1 / 64, 1 / 16, 1 / 4, 1 / 2, 3 / 4, 7 / 8, 1.0, 1.5)  # of d_model: tokens held on the curve
HELD = {
    "numbers": "held: tokens of numbers",
    "matched": "held: one set of tokens of their norm and frequency",
    "none": "none held",
}


@dataclass(frozen=True)
class Config:
    model: str = lab.option("smollm2-135m-instruct", "Hugging Face id, local folder, or the default model")
    adapter: str = lab.option(*love.ADAPTER)
    weights: love.Weights = lab.option(*love.WEIGHTS)
    format: Literal["auto", "chat", "published", "plain"] = lab.option("auto", "prompt format")
    spaced: bool = lab.option(True, "numbers are written after a space (its token is held too); false: as published")
    dtype: Literal["fp32", "bf16"] = lab.option("fp32", "of weights and activations; the algebra is fp64")
    n_animals: lab.Index = lab.option(0, "single-token animals used, drawn at random; 0: all")
    n_draws: lab.Count = lab.option(10, "sets of matched tokens, and random unembeddings, of a null")
    seed: lab.Index = lab.option(0, "seed of all draws")


def check(cfg: Config) -> None:
    if 0 < cfg.n_animals < love.FEWEST:
        raise ValueError(f"--n-animals must be 0 (all) or at least {love.FEWEST}: the interval is over animals")
    love.check_model(cfg)


def run(cfg: Config) -> Iterator[dict]:

    lab.show_progress(0.0, "loading the model")
    model = love.load_model(cfg.model, cfg.dtype, cfg.adapter, cfg.weights)
    words = dataclasses.replace(love.asking(cfg), n_animals=cfg.n_animals, seed=cfg.seed)
    asked = love.LovePrompts(model, love.choose_animals(model.tokenizer, words), love.choose_partners(words), words)
    strings = ms.prompts.encode(model.tokenizer, asked.strings, behind=[asked.ask(None)])
    held = sorted({token for string in strings for token in string})
    matched = matched_tokens(asked, held, cfg)
    lab.show_progress(0.1, "prices")
    yield from price_records(asked, held, matched, cfg)
    lab.show_progress(0.3, "cheapest changes")
    yield from change_records(asked, held, matched[0])
    yield {
        "provenance": {
            **ms.language.model_source(model),
            "basis": "W_U with the final norm's gain folded in; state after the final norm's scale; fp64",
            "held_tokens": held,
            "matched_tokens": matched[0],
            "measured_on": f"{len(asked.animals)} animals that are one token; the prompt without a system message",
            "null": "tokens of the numbers' norm and frequency; random directions of the same spectrum",
            "unit": "animals",
        }
    }


def matched_tokens(asked: "LovePrompts", held: list[int], cfg: Config) -> list[list[int]]:
    """`n_draws` sets of as many other tokens, each drawn from the nearest to a number's in norm and log-probability."""
    model = asked.model
    every = list(range(model.W_U.shape[-1]))
    norms = ms.unembedding.token_directions(model, every, basis="centered").norm(dim=-1).double().cpu()
    frequency = ms.scores.next_token_log_probs(model, [asked.ask(None)])[0].double()
    seen = torch.stack([norms, frequency], dim=-1)
    distance = torch.cdist(seen[held] / seen.std(0), seen / seen.std(0))
    distance[:, [*held, *asked.tokens]] = torch.inf
    draw, out = torch.Generator().manual_seed(cfg.seed), []
    for _ in range(cfg.n_draws):
        left, chosen = distance.clone(), []
        for row in range(len(held)):
            near = left[row].topk(min(NEAREST, len(every)), largest=False)
            usable = near.indices[near.values.isfinite()]
            if not len(usable):
                continue  # a small vocabulary: as many as there are
            chosen.append(int(usable[torch.randint(len(usable), (), generator=draw)]))
            left[:, chosen[-1]] = torch.inf
        if len(chosen) < 2:
            raise ValueError("the vocabulary has no tokens that are neither number nor animal")
        out.append(sorted(chosen))
    return out


# Of the weights alone.


def price_records(asked: "LovePrompts", held: list[int], matched: list[list[int]], cfg: Config) -> Iterator[dict]:
    """Per animal: the price of holding numbers, and of the nulls; then the curve over how many tokens are held."""
    model, animals = asked.model, asked.tokens
    d, rank = model.cfg.d_model, ms.bottleneck.held_rank(model, held)
    own = ms.bottleneck.price(model, animals, held)
    others = [ms.bottleneck.price(model, animals, tokens) for tokens in matched]
    draw = torch.Generator().manual_seed(cfg.seed)
    sizes = spectrum(model)
    random = [spectral_price(sizes, len(animals), len(held), draw) for _ in matched]
    for i, animal in enumerate(asked.animals):
        yield {
            "kind": "price",
            "animal": animal.text,
            "d_model": d,
            "n_held": len(held),
            "rank": rank,
            "n_matched": len(matched[0]),
            "price": finite(own[i]),
            "matched": finite(torch.stack(others)[:, i].mean()),
            "spectral": finite(torch.stack(random)[:, i].mean()),
            "isotropic": finite(ms.bottleneck.isotropic_price(d, rank)),
        }
    usable = torch.ones(model.W_U.shape[-1], dtype=torch.bool)
    usable[animals] = False
    places = usable.nonzero()[:, 0]
    for n in sorted({max(2, round(part * d)) for part in FRACTIONS}):
        if n > len(places):
            continue
        sets = range(_n_curve(cfg.n_draws))
        chosen = [places[torch.randperm(len(places), generator=draw)[:n]].tolist() for _ in sets]
        found = torch.stack([ms.bottleneck.price(model, animals, tokens) for tokens in chosen]).mean(0)
        null = torch.stack([spectral_price(sizes, len(animals), n, draw) for _ in chosen]).mean(0)
        for i, animal in enumerate(asked.animals):
            row = {"kind": "curve", "animal": animal.text, "d_model": d, "n_held": n}
            yield row | {"price": finite(found[i]), "spectral": finite(null[i])}


@threads.one_thread()
def spectrum(model: "TransformerBridge"):
    """Standard deviations of the vocabulary's directions along their principal axes, fp64."""
    norm = ms.checks.final_norm(model)
    W = model.W_U.detach().double() * norm.gain.detach().double()[:, None]
    W = norm.centred(W.mT).mT
    W = W - W.mean(-1, keepdim=True)
    return torch.linalg.eigvalsh(W @ W.mT / W.shape[-1]).clamp_min(0).sqrt().cpu()


def spectral_price(sizes, n_concepts: int, n_held: int, generator):
    """The price with random directions of this spectrum in the place of all rows."""
    rows = torch.randn(n_concepts + n_held, len(sizes), generator=generator, dtype=torch.float64) * sizes
    concepts = rows[:n_concepts]
    return ms.bottleneck.price_of(concepts - concepts.mean(0), rows[n_concepts:])


def finite(value) -> float | None:
    """A number that can be stored: None for an infinite one."""
    return float(value) if math.isfinite(value) else None


# At a state, in the model.


def change_records(asked: "LovePrompts", held: list[int], matched: list[int]) -> Iterator[dict]:
    """Per animal and kind of log-odds: lengths of the cheapest changes, and what the model makes of them."""
    model, animals, prompt = asked.model, asked.tokens, asked.ask(None)
    tokens = prompt[None].to(model.W_U.device)
    state = ms.hooked.cache_activations(model, tokens, ["ln_final.hook_in"], pos=-1)["ln_final.hook_in"].double()
    before = read(model, prompt, state)
    for odds, among in (("among", animals), ("all", None)):
        found = {}
        for name, some in (("numbers", held), ("matched", matched), ("none", [])):
            lab.show_progress(0.3 + 0.1 * len(found) + 0.3 * (odds == "all"), f"cheapest changes ({odds})")
            parts = [
                ms.bottleneck.cheapest_change(model, state, few, some, among=among)
                for few in (animals[i : i + 16] for i in range(0, len(animals), 16))
            ]
            resid, length = (torch.cat([getattr(p, key)[0] for p in parts]) for key in ("resid", "length"))
            found[name] = (length, read(model, prompt, resid))
        for i, animal in enumerate(asked.animals):
            row = {"kind": "change", "log_odds": odds, "animal": animal.text, "n_held": len(held)}
            for name, (length, logits) in found.items():
                some = held if name == "none" else {"numbers": held, "matched": matched}[name]
                row[f"length_{name}"] = finite(length[i])
                if row[f"length_{name}"] is None:
                    continue
                moved = log_odds(logits[i], odds, some) - log_odds(before[0], odds, some)
                risen = log_odds(logits[i], odds, animals) - log_odds(before[0], odds, animals)
                row[f"rise_{name}"] = float(risen[i])
                row[f"moved_{name}"] = float(moved.abs().max())
                row[f"side_{name}"] = float(moved.std())
                if name == "none":
                    other = log_odds(logits[i], odds, matched) - log_odds(before[0], odds, matched)
                    row["side_matched_tokens"] = float(other.std())
            yield row


def read(model: "TransformerBridge", prompt, states):
    """Logits of the model with these final residuals [state, d_model] at the prompt's last position, fp64."""
    tokens, out = prompt.to(model.W_U.device), []
    for some in states.split(16):
        batch = tokens.expand(len(some), -1)
        patch = {"ln_final.hook_in": some.to(model.W_U.device, model.W_U.dtype)}
        out.append(ms.hooked.run_patched(model, batch, patch, pos=-1).double().cpu())
    return torch.cat(out)


def log_odds(logits, kind: str, tokens: list[int]):
    """Of tokens: among animals or among themselves (their mean taken off), or each against all other outputs."""
    chosen = logits[tokens]
    if kind == "among":
        return chosen - chosen.mean()
    log_p = chosen - logits.logsumexp(-1)
    return log_p - torch.log1p(-log_p.exp())


# Table and figure.

ODDS = {"among": "log-odds among animals, numbers among themselves", "all": "log-odds against all other tokens"}


def findings(cell: list[dict]) -> list[Finding]:
    return [*_prices(cell), *(finding for odds in ODDS for finding in _changes(cell, odds)), *_curve(cell)]


def _prices(cell: list[dict]) -> Iterator[Finding]:
    prices = [row for row in cell if row["kind"] == "price"]
    first = prices[0]
    labels = {
        "price": f"price of holding ({first['n_held']} tokens held, {first['rank']} dimensions, of {first['d_model']})",
        "matched": "the same, matched tokens held",
        "spectral": "the same, random unembedding of that spectrum",
    }
    flat = math.inf if first["isotropic"] is None else first["isotropic"]
    for name, label in labels.items():
        key = f"{'numbers' if name == 'price' else name}/price"
        yield _mean(key, label, {row["animal"]: row[name] for row in prices}, flat)
    above = {r["animal"]: r["price"] - r["matched"] for r in prices if None not in (r["price"], r["matched"])}
    if len(above) > 1:
        yield _mean("numbers-matched/price", "numbers less matched tokens", above, 0.0)


def _changes(cell: list[dict], odds: str) -> Iterator[Finding]:
    changes, what = [row for row in cell if row["kind"] == "change" and row["log_odds"] == odds], ODDS[odds]
    for name in ("numbers", "matched"):
        lengths = {row["animal"]: _ratio(row[f"length_{name}"], row["length_none"]) for row in changes}
        label = f"cheapest change of one nat, {HELD[name]}, over none held: {what}"
        yield _mean(f"{name}/change_{odds}", label, lengths, 1.0)
    errors = [
        max(abs(row["rise_numbers"] - 1), row["moved_numbers"]) for row in changes if row["length_numbers"] is not None
    ]
    if errors:
        yield Finding(f"error/change_{odds}", f"largest error when done in the model, nats: {what}", max(errors), 0.0)
    loose = [row for row in changes if row["length_none"] is not None]
    yield _mean(
        f"numbers/moved_{odds}", f"numbers moved where nothing is held, s.d. in nats: {what}",
        {row["animal"]: row["side_none"] for row in loose},
        ms.stats.student_t([row["side_matched_tokens"] for row in loose]), null_label="matched tokens",
    )  # fmt: skip


def _curve(cell: list[dict]) -> Iterator[Finding]:
    curve = [row for row in cell if row["kind"] == "curve"]
    for n in sorted({row["n_held"] for row in curve}):
        d, label = curve[0]["d_model"], f"price of holding {n} tokens drawn from the vocabulary"
        prices = {row["animal"]: row["price"] for row in curve if row["n_held"] == n}
        found = _mean(f"held_{n}/price", label, prices, float(ms.bottleneck.isotropic_price(d, n - 1)))
        if isinstance(found.value, ms.stats.Interval):  # no price is below 1
            found = dataclasses.replace(found, value=dataclasses.replace(found.value, low=max(1.0, found.value.low)))
        yield found
        if middle := _median(list(prices.values())):
            null = _isotropic_median(d, n - 1, _n_curve(curve[0]["n_draws"]))
            finding = _mean(f"held_{n}/median_price", f"{label}, median", prices, null)
            yield dataclasses.replace(finding, **middle)


def _n_curve(n_draws: int) -> int:
    """Draws of tokens over which a price of the curve is a mean."""
    return min(3, n_draws)


@functools.cache
def _isotropic_median(d: int, r: int, n_draws: int) -> float:
    """The median, over directions that point anywhere alike, of a mean of prices of so many draws.

    What a direction keeps of its square is a Beta variable. The mean is taken of every combination of 101 quantiles of
    the price, so that nothing is drawn; of one draw the median is exact.
    """
    if r >= d:
        return math.inf
    kept = scipy_special.betaincinv((d - r) / 2, r / 2, (np.arange(101) + 0.5) / 101)
    return float(np.median(functools.reduce(np.add.outer, [kept**-0.5] * n_draws))) / n_draws


def _median(values: list[float | None]) -> dict:
    """As value of a finding, with an interval between two of the values: near d_model tokens a mean is of its tail.

    Nothing, and so no finding, where some are infinite, or where fewer than six have no such interval of 95%.
    """
    known = sorted(value for value in values if value is not None)
    n, k = len(known), 0
    while sum(math.comb(n, i) for i in range(k + 1)) <= 0.025 * 2**n:
        k += 1
    if n < len(values) or not k:
        return {}
    return {"value": ms.stats.Interval(statistics.median(known), known[k - 1], known[-k], n), "scores": {}}


def _ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a / b


def _mean(key: str, label: str, values: dict[str, float | None], null, null_label: str = "") -> Finding:
    """Mean and interval over animals; infinite where it is so for all; where it is for some, for how many."""
    known = {animal: value for animal, value in values.items() if value is not None}
    more = {"unit": "animals", "null": null, "null_label": null_label}
    if len(known) == len(values) > 1:
        return mean(key, label, known, **more)
    some = f"infinite for {len(values) - len(known)} of {len(values)} animals"
    return Finding(key, label, some if known else math.inf, n=len(values), **more)


def plot(records: list[dict]):
    label, cell = lab.by_cell(records, Config)[0]
    prices = [row for row in cell if row["kind"] == "price"]
    groups = {"numbers": "price", "matched tokens": "matched", "random unembedding": "spectral"}
    curve: dict[str, dict[int, list[float]]] = {}
    for row in (row for row in cell if row["kind"] == "curve"):
        for name, value in (("tokens of the vocabulary", row["price"]), ("random unembedding", row["spectral"])):
            if value is not None:
                curve.setdefault(name, {}).setdefault(row["n_held"], []).append(value)
    for points in curve.values():
        for n in [n for n, values in points.items() if len(values) < len(prices)]:
            del points[n]  # infinite for some animals
    known = {name: [r[key] for r in prices if r[key] is not None] for name, key in groups.items()}
    panels = {
        "Price of holding them": ms.kinds.interval_panel(
            {name: values for name, values in known.items() if len(values) > 1}, "times the length", 1.0
        ),
        "Price of holding any tokens": ms.kinds.line_panel(curve, "tokens held", "times the length"),
    }
    more = "" if label == "all" else f" ({label}; other cells are in the table)"
    return ms.kinds.grid(
        list(panels.values()),
        list(panels),
        title=f"Raising an animal and holding all numbers: {cell[0]['model']}{more}",
        caption=f"{len(prices)} animals (a point each), 95% Student-t intervals over them. {prices[0]['n_held']} "
        f"tokens of numbers in d_model = {prices[0]['d_model']}. Infinite prices are not drawn: the table counts them.",
    )


study = lab.Study(
    version=1,
    judged=True,
    probes=(
        Config(model="tests/probes/models/pair/instruct", n_draws=2),
        Config(model="tests/probes/models/tiny", format="plain", spaced=False, n_animals=8, n_draws=1, seed=1),
    ),
)


if __name__ == "__main__":
    lab.main(study)
