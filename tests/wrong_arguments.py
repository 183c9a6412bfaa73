"""Every usual way in which an argument is wrong, by kind of argument; what comes of a call with it, as one line.

`python tests/wrong_arguments.py` calls every function of tests/argument_table.py, without the tests' type checks, as
users run it, and prints a JSON line for every call.
"""

import contextlib
import io
import json
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mechsub.models.language import ModelUnavailable

PACKAGE = Path(__file__).parent.parent / "mechsub"


@dataclass(frozen=True)
class Argument:
    """wrong(value) -> label -> a wrong value; same(value) -> label -> another way to say what was meant.

    `right`: labels of wrong values that are none for this function, and why: what it computes is right. `says`: words,
    any of which names the argument, where its own name is not in the message.
    """

    wrong: Callable[[Any], dict]
    same: Callable[[Any], dict] = lambda value: {}
    right: Mapping[str, str] = field(default_factory=dict)
    says: tuple[str, ...] = ()
    out: frozenset[str] = frozenset()  # labels that are not wrong for this argument, and not tried

    def values(self, value) -> dict:
        return {label: bad for label, bad in self.wrong(value).items() if label not in self.out}


def argument(wrong, same=lambda value: {}):
    """A kind: kind(right={...}, says=(...), out=(...)) is an argument of it."""

    def kind(*, right=None, says=(), out=(), more=None) -> Argument:
        both = wrong if more is None else lambda value: {**wrong(value), **more(value)}
        return Argument(both, same, right or {}, tuple(says), frozenset(out))

    return kind


def generated(value):
    return (one for one in value)


# Single values.

number = argument(
    lambda value: {
        "NaN": float("nan"),
        "infinity": float("inf"),
        "minus infinity": -float("inf"),
        "text": str(value),
        "None": None,
        "bool": True,
        "list": [value],
        "tensor of several": torch.ones(3),
        "complex": 1j,
    },
    lambda value: {"numpy": np.float64(value), "tensor": torch.tensor(value, dtype=torch.float64)},
)
positive = argument(lambda value: {**number().wrong(value), "zero": 0, "negative": -1.0}, number().same)
share = argument(
    lambda value: {**number().wrong(value), "zero": 0.0, "one": 1, "per cent": 95, "negative": -0.5}, number().same
)


def count(least: int, most: int | None = None, **options) -> Argument:
    def wrong(value):
        above = {} if most is None else {"too large": most + 1}
        return {
            "too small": least - 1,
            "negative": -7,
            "fraction": value + 0.5,
            "float": float(value),
            "bool": True,
            "text": str(value),
            "None": None,
            "list": [value],
            "NaN": float("nan"),
            "infinity": float("inf"),
            "tensor of several": torch.ones(3).long(),
            **above,
        }

    return argument(wrong, lambda value: {"numpy": np.int64(value), "tensor": torch.tensor(value)})(**options)


def seed(**options) -> Argument:
    def wrong(value):
        return {
            "negative": -1,
            "float": 1.0,
            "fraction": 0.5,
            "bool": True,
            "text": "0",
            "None": None,
            "list": [0],
            "too large": 2**64,
            "NaN": float("nan"),
            "generator": torch.Generator(),
        }

    return argument(wrong, lambda value: {"numpy": np.int64(value)})(**options)


flag = argument(lambda value: {"text": "no", "None": None, "number": 1, "list": [True]})
choice = argument(
    lambda value: {
        "unknown": f"{value}x",
        "upper case": value.upper(),
        "None": None,
        "number": 1,
        "list": [value],
        "bytes": value.encode(),
        "empty": "",
    }
)
text = argument(lambda value: {"None": None, "number": 1, "list": [value], "bytes": str(value).encode()})
function = argument(lambda value: {"None": None, "number": 1, "text": "mean"})
generator = argument(lambda value: {"None": None, "seed": 0, "numpy": np.random.default_rng(0)})


def outputs(size: int, **options) -> Argument:
    def wrong(value):
        return {
            "empty": slice(2, 2),
            "beyond the end": slice(value.start, size + 1),
            "only beyond": slice(size, size + 3),
            "backwards": slice(3, 1),
            "number": 1,
            "list": [0, 1],
            "None": None,
            "fractions": slice(0.0, 2.0),
            "range": range(2),
            "bools": slice(False, True),
            "text": "0:2",
            "before the start": slice(-size - 1, None),
        }

    return argument(wrong, lambda value: {"from the end": slice(value.start - size, value.stop)})(**options)


# Lists.

texts = argument(
    lambda value: {
        "one text": value[0],
        "bytes": value[0].encode(),
        "set": set(value),
        "generator": generated(value),
        "dict": dict.fromkeys(value),
        "empty": [],
        "numbers": [1] * len(value),
        "None": None,
        "None in it": [*value[:-1], None],
        "nested": [value],
    },
    lambda value: {"tuple": tuple(value), "numpy": np.array(value)},
)


def ids(size: int, **options) -> Argument:
    """Outputs or token ids within 0..size - 1."""

    def wrong(value):
        return {
            "one number": value[0],
            "text": "123",
            "set": set(value),
            "generator": generated(value),
            "empty": [],
            "dict": dict.fromkeys(value),
            "None": None,
            "negative": [*value[:-1], -1],
            "too large": [*value[:-1], size],
            "fraction": [*value[:-1], 0.5],
            "floats": [float(one) for one in value],
            "bools": [True] * len(value),
            "texts": [str(one) for one in value],
            "nested": [list(value)],
            "float tensor": torch.tensor(value).float(),
            "table": torch.tensor(value)[None],
            "repeated": [value[0], *value[:-1]],
            "mask": torch.ones(size).bool(),
        }

    def same(value):
        return {"tuple": tuple(value), "tensor": torch.tensor(value), "numpy": np.array(value)}

    return argument(wrong, same)(**options)


def one_token_each(size: int, *, right: Mapping[str, str] | None = None, **options) -> Argument:
    """`ids`, or texts of one token each; "1" is one."""
    return ids(size, right={"texts": "each is one token", **(right or {})}, **options)


def seeds(**options) -> Argument:
    def wrong(value):
        return {
            "number": 3,
            "text": "012",
            "set": {0, 1},
            "generator": generated(value),
            "empty": (),
            "None": None,
            "negative": (0, -1),
            "floats": (0.0, 1.0),
            "fraction": (0, 0.5),
            "bools": (False, True),
            "repeated": (1, 1),
            "texts": ("0", "1"),
            "None in it": (0, None),
            "too large": (0, 2**64),
            "table": torch.zeros(2, 2).long(),
            "float tensor": torch.arange(2.0),
        }

    return argument(wrong, lambda value: {"list": list(value), "tensor": torch.tensor(list(value))})(**options)


def vector(least: int, *, paired: bool = False, **options) -> Argument:
    """Numbers along one axis; `paired` with another argument of the same length."""

    def wrong(value):
        value = list(value)
        return {
            "table": [value, value],
            "tensor [seed, batch]": torch.tensor([value, value]),
            "number": value[0],
            "0-d array": np.array(value[0]),
            "too few": value[: least - 1],
            "empty": [],
            "column": np.array([value]).T,
            "NaN": [*value[:-1], float("nan")],
            "infinity": [*value[:-1], float("inf")],
            "None": None,
            "None in it": [*value[:-1], None],
            "texts": [str(one) for one in value],
            "text": "1.0 2.0",
            "text in it": [*value[:-1], "1.0"],
            "set": set(value),
            "generator": generated(value),
            "dict": dict(enumerate(value)),
            "ragged": [value, value[:-1]],
            "complex": np.array(value) * 1j,
            **({"other length": [*value, *value]} if paired else {}),
        }

    def same(value):
        import pandas

        array = np.array(value, dtype=np.float64)
        return {
            "tuple": tuple(value),
            "numpy": array,
            "tensor": torch.from_numpy(array),
            "pandas": pandas.Series(array),
            "requires_grad": torch.from_numpy(array).clone().requires_grad_(),
        }

    return argument(wrong, same)(**options)


def labels(**options) -> Argument:
    def wrong(value):
        value = list(value)
        return {
            "other length": value[:-1],
            "text": "a" * len(value),
            "table": [value, value],
            "None in it": [*value[:-1], None],
            "NaN": [*map(float, value[:-1]), float("nan")],
            "generator": generated(value),
            "number": 1,
            "mixed": [*value[:-1], "a"],
        }

    def same(value):
        return {"texts": [f"{one:03d}" for one in value], "numpy": np.array(value), "tensor": torch.tensor(value)}

    return argument(wrong, same)(**options)


# Tensors.


def tensor(**options) -> Argument:
    def wrong(value):
        last, broken = tuple(n - 1 for n in value.shape), {}
        for name, bad in (("NaN", float("nan")), ("infinity", float("inf"))):
            broken[name] = value.detach().double().to(value.dtype).clone()
            broken[name][last] = bad
        return {
            "list": value.tolist(),
            "numpy": value.detach().numpy(),
            "None": None,
            "text": "tensor",
            "number": 1.0,
            "one axis more": value[None].expand(3, *value.shape),
            "one axis fewer": value[0],
            "0-d": value.flatten()[0],
            "transposed": value.mT if value.ndim > 1 else value[:, None],
            "empty": value[:0],
            "no features": value[..., :0],
            "other width": value[..., :-1],
            "one wide": value[..., :1],
            "shorter": value[:-1],
            "ints": value.long(),
            "bytes": value.mul(50).clamp(0, 255).byte(),
            "bool": value > 0,
            "half": value.half(),
            "bf16": value.bfloat16(),
            "complex": value + 0j,
            **broken,
        }

    def same(value):
        return {
            "requires_grad": value.clone().requires_grad_(),
            "not contiguous": torch.stack([value, value], -1)[..., 0],
        }

    return argument(wrong, same)(**options)


def prompt(size: int, **options) -> Argument:
    """Token ids [pos]."""

    def wrong(value):
        return {
            "list": value.tolist(),
            "numpy": value.numpy(),
            "None": None,
            "text": "hello",
            "number": 1,
            "batch": value[None],
            "0-d": value[0],
            "empty": value[:0],
            "floats": value.float(),
            "bool": value > 0,
            "negative": value - 10_000,
            "-1": torch.tensor([*value[:-1], -1]),
            "too large": torch.tensor([*value[:-1], size]),
        }

    return argument(wrong, lambda value: {"int32": value.int()})(**options)


def prompts(size: int, **options) -> Argument:
    def wrong(value):
        first = prompt(size).wrong(value[0])
        return {
            "one prompt": value[0],
            "one text": "hello",
            "texts": ["hello"],
            "empty": [],
            "None": None,
            "set": set(value),
            "generator": generated(value),
            "dict": dict(enumerate(value)),
            **{f"a prompt: {label}": [*value[1:], bad] for label, bad in first.items()},
        }

    return argument(wrong, lambda value: {"tuple": tuple(value), "int32": [one.int() for one in value]})(**options)


def model(**options) -> Argument:
    def wrong(value):
        return {"None": None, "text": "gpt2", "class": type(value), "list": [value], "module": torch.nn.Linear(2, 2)}

    return argument(wrong)(**options)


def tensors(**options) -> Argument:
    """A dict of tensors by name."""

    def wrong(value):
        name = next(iter(value))
        bad = {
            f"a value: {label}": {**value, name: one}
            for label, one in tensor().wrong(value[name]).items()
            if label not in ("half", "bf16")
        }
        return {
            "None": None,
            "list": list(value.values()),
            "tensor": value[name],
            "empty": {},
            "text": "weights",
            "numbers as names": dict(enumerate(value.values())),
            "a value: of one member": {**value, name: value[name][:1]},
            **bad,
        }

    return argument(wrong)(**options)


# What comes of a call.


def outcome(call: Callable, known: dict, name: str, value, says: tuple[str, ...]) -> dict:
    """The exception's fault, if it has one ("" for a proper refusal), or the result."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            return {"result": call(**{**known, name: value})}
    except Exception as error:
        return {"fault": fault(error, (name, *says)), "said": f"{type(error).__name__}: {error}"}


def fault(error: Exception, names: tuple[str, ...]) -> str:
    message = str(error)
    if not isinstance(error, ValueError | TypeError | ModelUnavailable):
        return f"a {type(error).__name__} is not for arguments"
    if PACKAGE not in Path(traceback.extract_tb(error.__traceback__)[-1].filename).parents:
        return "not refused by mechsub"
    if "\n" in message or not 0 < len(message) < 500:
        return "not one line"
    return "" if any(name in message for name in names) else "the argument is not named"


def leaves(result) -> list[torch.Tensor]:
    """All numbers of a result, as fp64 tensors."""
    if isinstance(result, torch.Tensor):
        return [] if result.is_complex() else [result.detach().double().cpu()]
    if isinstance(result, np.ndarray):
        return [torch.from_numpy(np.asarray(result, dtype=np.float64))]
    if isinstance(result, bool | int | float | np.number):
        return [torch.tensor(float(result), dtype=torch.float64)]
    if isinstance(result, Mapping):
        return [leaf for value in result.values() for leaf in leaves(value)]
    if isinstance(result, list | tuple):
        return [leaf for value in result for leaf in leaves(value)]
    if isinstance(result, torch.nn.Module):
        return [leaf for value in result.parameters() for leaf in leaves(value)]
    if is_dataclass(result):
        return [leaf for value in vars(result).values() for leaf in leaves(value)]
    return []


def equal(a, b) -> bool:
    a, b = leaves(a), leaves(b)
    if [one.shape for one in a] != [one.shape for one in b]:
        return False
    return all(torch.allclose(x, y, rtol=1e-5, atol=1e-5, equal_nan=True) for x, y in zip(a, b, strict=True))


def calls(name: str, make: Callable[[], dict], arguments: Mapping[str, Argument], call: Callable):
    """A dict for every call of one function: which argument, how it was wrong, and what is to be said against it."""
    for key, kind in arguments.items():
        for label, value in kind.values(make()[key]).items():
            yield {
                "function": name,
                "argument": key,
                "label": label,
                **judged(kind, label, outcome(call, make(), key, value, kind.says)),
            }
        for label, value in kind.same(make()[key]).items():
            seen = outcome(call, make(), key, value, kind.says)
            if label in kind.out:
                continue
            problem = (
                ""
                if "result" in seen and equal(seen["result"], call(**make()))
                else f"not the same: {seen.get('said', 'other numbers')}"
            )
            yield {"function": name, "argument": key, "label": f"= {label}", "problem": problem}


def judged(kind: Argument, label: str, seen: dict) -> dict:
    if "result" in seen:
        return {"problem": "" if label in kind.right else f"accepted: {str(seen['result'])[:80]!r}"}
    said = f"{seen['fault']}: {seen['said'][:200]}" if seen["fault"] else ""
    return {
        "problem": "refused, but the table says that it is right" if label in kind.right else said,
        "said": seen["said"],
    }


def main() -> None:
    import argument_table

    for name, (make, arguments) in argument_table.table().items():
        for line in calls(name, make, arguments, argument_table.resolve(name)):
            print(json.dumps({key: value for key, value in line.items() if key != "said" or "--said" in sys.argv}))


if __name__ == "__main__":
    main()
