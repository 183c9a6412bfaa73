"""Checks of arguments: each helper returns an argument in the form that its caller needs, or raises one line.

The line names the argument, says what it must be, and shows what it was. Checks read types, shapes and ranges, so that
they cost microseconds; only `finite` reads all values. Torch is not imported here: a tensor brings it along.
"""

import inspect
import math
import numbers
import operator
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, NoReturn, Protocol, SupportsIndex, TypeGuard, TypeVar, cast, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from transformers import PreTrainedTokenizerBase as Tokenizer


@runtime_checkable
class Unembedding(Protocol):
    """A model with an output for every column of W_U."""

    W_U: "Tensor"


_T = TypeVar("_T")
_S = TypeVar("_S", bound=Sequence)
_MOST_SEED = 2**63 - 1  # torch's generators take no larger one


def refuse(name: str, wanted: str, value: object, advice: str = "") -> NoReturn:
    """Raise the one line: "level must be a number between 0 and 1, not 95"."""
    raise ValueError(f"{name} must be {wanted}, not {described(value)}{advice}")


def described(value: object) -> str:
    """A value in a few words on one line."""
    if is_tensor(value) or isinstance(value, np.ndarray):
        kind = "tensor" if is_tensor(value) else "array"
        return f"a {kind} of shape {list(value.shape)} ({str(value.dtype).removeprefix('torch.')})"
    text = " ".join(ascii(value).split()) if isinstance(value, _PLAIN) else ""
    return (
        text
        if 0 < len(text) <= 60
        else f"a {type(value).__name__}{f' of length {len(value)}' if text and isinstance(value, Sized) else ''}"
    )


_PLAIN = (str, bytes, int, float, complex, list, tuple, set, dict, type(None), np.generic, slice, range)


def is_tensor(value: object) -> "TypeGuard[Tensor]":
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


# Single values.


def number(value: _T, name: str, wanted: str = "a finite number", *, least: float | int = -math.inf) -> _T:
    """A finite real number; True and False are no numbers. `least` itself is allowed."""
    if _real(value, name, wanted) < least:
        refuse(name, wanted, value)
    return value


def _real(value: object, name: str, wanted: str) -> float:
    scalar = value.item() if (is_tensor(value) or isinstance(value, np.ndarray)) and value.ndim == 0 else value
    if isinstance(scalar, bool | np.bool_) or not isinstance(scalar, numbers.Real):
        refuse(name, wanted, value)
    return float(scalar) if math.isfinite(scalar) else refuse(name, wanted, value)


def positive(value: _T, name: str) -> _T:
    wanted = "a positive number"
    return value if _real(value, name, wanted) > 0 else refuse(name, wanted, value)


def share(value: _T, name: str) -> _T:
    """A number strictly between 0 and 1."""
    wanted = "a number between 0 and 1"
    return value if 0 < _real(value, name, wanted) < 1 else refuse(name, wanted, value)


def whole(value: object, name: str, least: int | None = None, most: int | None = None) -> int:
    """A whole number, not written as a fraction (3.0): an int, or one of numpy's or torch's."""
    wanted = _range(least, most)
    if isinstance(value, bool | np.bool_) or (is_tensor(value) and (value.ndim or str(value.dtype) == "torch.bool")):
        refuse(name, wanted, value)
    try:
        n = operator.index(cast(SupportsIndex, value))
    except TypeError:
        refuse(name, wanted, value)
    if (least is not None and n < least) or (most is not None and n > most):
        refuse(name, wanted, value)
    return n


def _range(least: int | None, most: int | None) -> str:
    if most is not None:
        return f"a whole number within {least}..{most}"
    return "a whole number" if least is None else f"a whole number of at least {least}"


def seed(value: object, name: str = "seed") -> int:
    return whole(value, name, 0, _MOST_SEED)


def flag(value: object, name: str) -> bool:
    return value if isinstance(value, bool) else refuse(name, "True or False", value)


def text(value: object, name: str) -> str:
    return value if isinstance(value, str) else refuse(name, "a string", value)


def choice(value: object, name: str, choices: Iterable[str]) -> str:
    if not isinstance(value, str) or value not in choices:
        refuse(name, f"one of {', '.join(choices)}", value)
    return value


def function(value: object, name: str) -> Callable:
    return value if callable(value) else refuse(name, "a function", value)


def progress(value: object) -> Callable[[float], None]:
    """A function of the share that is done. A class, such as tqdm itself, would show nothing."""
    if isinstance(value, type) or not callable(value) or not _takes_one(value):
        refuse("progress", "a function of the share done, as ms.progress_bar(text)", value)
    return value


def _takes_one(function: Callable) -> bool:
    try:
        inspect.signature(function).bind(0.5)
    except TypeError:
        return False
    except ValueError:  # a function of C that does not say what it takes
        pass
    return True


def generator(value: object, name: str = "generator") -> "Generator":
    """A torch.Generator: None would draw from the global one, and no run could be repeated."""
    if not isinstance(value, sys.modules["torch"].Generator):
        refuse(name, "a torch.Generator, as torch.Generator().manual_seed(0)", value)
    return value


def instance(value: object, kind: type[_T], name: str) -> _T:
    return value if isinstance(value, kind) else refuse(name, f"a {kind.__name__}", value)


# Lists.


def items(value: object, name: str, of: str, least: int = 1) -> list:
    """The members of a list, tuple, range, array or tensor in their order; a set has none, a generator ends once."""
    if isinstance(value, str | bytes) or not (isinstance(value, Sequence) or (is_array(value) and value.ndim == 1)):
        refuse(name, f"a list of {of}", value)
    members = value.tolist() if is_array(value) else list(value)
    if len(members) < least:
        raise ValueError(f"{name} must hold at least {least} of its {of}, not {len(members)}")
    return members


def is_array(value: object) -> "TypeGuard[Tensor | np.ndarray]":
    """Whether a value is an array of numpy, a tensor of torch, or turns into one (a column of pandas)."""
    return (is_tensor(value) or hasattr(value, "__array__")) and hasattr(value, "ndim") and hasattr(value, "tolist")


def texts(value: object, name: str, least: int = 1) -> list[str]:
    """A list of strings; a single string would be read letter by letter."""
    strings = items(value, name, "strings", least)
    wrong = next((i for i, string in enumerate(strings) if not isinstance(string, str)), None)
    return strings if wrong is None else refuse(f"{name}[{wrong}]", "a string", strings[wrong])


def seeds(value: object, name: str = "seeds") -> tuple[int, ...]:
    """Different seeds: two equal ones would count a member twice."""
    members = tuple(seed(one, f"{name}[{i}]") for i, one in enumerate(items(value, name, "seeds")))
    return distinct(members, name)


def distinct(members: _S, name: str) -> _S:
    if len(set(members)) < len(members):
        twice = next(one for i, one in enumerate(members) if one in members[:i])
        raise ValueError(f"{name} must be different; {described(twice)} is there twice")
    return members


def ids(value: object, size: int, name: str = "tokens", least: int = 1) -> list[int]:
    """Outputs or token ids 0..size - 1; a negative one would count from the end of the vocabulary."""
    members = items(value, name, "token ids", least)
    if all(type(one) is int for one in members) and (not members or (min(members) >= 0 and max(members) < size)):
        return members  # a thousand ids need no thousand calls
    for i, one in enumerate(members):
        if isinstance(one, bool) or not isinstance(one, numbers.Integral) or not 0 <= int(one) < size:
            raise ValueError(f"{name} must be ids in 0..{size - 1}; {name}[{i}] is {described(one)}")
    return [int(one) for one in members]


def outputs(hooked: "Unembedding", value: object, name: str = "tokens", least: int = 1) -> list[int]:
    """Outputs by id, or by the text of one token: " owl"."""
    members = items(value, name, "outputs: ids, or texts of one token", least)
    if not any(isinstance(one, str) for one in members):
        return ids(members, vocabulary(hooked), name, least)
    for i, one in enumerate(members):
        if isinstance(one, str):
            own = pieces(hooked, one, f"{name}[{i}]")
            if len(own) > 1:
                raise ValueError(
                    f"{name}[{i}] is {one[:60]!r}, which is {len(own)} tokens here; give a text of one, or ids"
                )
            members[i] = own[0]
    return ids(members, vocabulary(hooked), name, least)


def pieces(hooked: "Unembedding", value: str, name: str) -> tuple[int, ...]:
    """The tokens of a text as they stand within a text: behind a word if it starts with a space, else on a new line.

    Alone, some tokenizers put a space before it. Raises where the model's own tokenizer does not give the text back.
    """
    read = getattr(hooked, "tokenizer", None)
    if read is None:
        raise ValueError(f"{name} is the text {value[:60]!r}, and this model has no tokenizer to read it; give ids")
    if value in (added := read.get_added_vocab()):
        return (added[value],)
    seam = "the" if value[:1].isspace() else "\n"
    before, whole = (tuple(read(text, add_special_tokens=False)["input_ids"]) for text in (seam, seam + value))
    texts = [read.decode(list(some)) for some in (before, whole)]
    if not value or whole[: len(before)] != before or texts[1] != texts[0] + value:
        raise ValueError(f"{name} is {value[:60]!r}, which this model's tokenizer does not give back; give ids")
    return whole[len(before) :]


def mapping(value: object, name: str, of: str, least: int = 1) -> Mapping:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        refuse(name, f"a dict of {of} by name", value)
    if len(value) < least:
        raise ValueError(f"{name} is empty; it must hold {of} by name")
    return value


# Vectors of numbers, for statistics.


def vector(value: object, name: str, least: int = 1) -> np.ndarray:
    """Finite numbers along one axis, fp64; True and False count 1 and 0.

    A table is refused and not flattened: its axes (seeds or batches, for example) decide what n is.
    """
    x = _array(value, name, "numbers")
    if x.dtype.kind not in "biuf":
        refuse(name, "a list of numbers", value)
    if len(x) < least:
        raise ValueError(f"{name} needs at least {least} values, not {len(x)}")
    x = np.asarray(x, dtype=np.float64)
    if not np.isfinite(x).all():
        raise ValueError(f"{name} holds NaN or infinity; values must be finite numbers")
    return x


def labels(value: object, name: str, length: int) -> np.ndarray:
    """A label for each of `length` rows, as numbers 0.. of the different labels in their sorted order."""
    x = _array(value, name, "labels")
    if x.dtype.kind not in "biufU" or (x.dtype.kind == "f" and not np.isfinite(x).all()):
        refuse(name, "a list of labels, all strings or all numbers", value)
    if len(x) != length:
        raise ValueError(f"{name} must hold a label for each of {length} rows; it holds {len(x)}")
    return np.unique(x, return_inverse=True)[1]


def _array(value: object, name: str, of: str) -> np.ndarray:
    wanted = f"a list, array or tensor of {of} along one axis"
    if is_tensor(value):
        value = value.detach().cpu()
        x = (value.double() if value.is_floating_point() else value).numpy()
    elif isinstance(value, list | tuple | range) or is_array(value):
        if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
            refuse(name, "an array without masked values; give values.compressed()", value)
        try:
            x = np.asarray(value)
        except (ValueError, TypeError, RuntimeError):
            refuse(name, wanted, value)
    else:
        refuse(name, wanted, value)
    if x.ndim != 1:
        hint = "; a mean over the others gives one value for each replicate" if x.ndim > 1 else ""
        raise ValueError(f"{name} must be {wanted}, not of shape {list(x.shape)}{hint}")
    if isinstance(value, list | tuple) and x.dtype.kind == "U" and not all(isinstance(one, str) for one in value):
        refuse(name, wanted, value)  # numpy turns [1, "a"] into two strings
    return x


def same_length(**sides: Sized) -> None:
    """Vectors of equal length, each with one value for every replicate."""
    lengths = [len(side) for side in sides.values()]
    if len(set(lengths)) > 1:
        raise ValueError(f"{' and '.join(sides)} must be of equal lengths, not {' and '.join(map(str, lengths))}")


# Tensors.


def tensor(value: object, name: str, axes: str, *, floating: bool = False, full: bool = False) -> "Tensor":
    """A tensor with these axes, none of them empty: "*lead sample d" has any number before the last two.

    `floating` refuses integers; `full` also refuses half precision, for sums over many values that need fp32 or fp64.
    """
    if not is_tensor(value):
        refuse(name, f"a tensor [{axes}]", value)
    named = axes.split()
    open_ended = any(axis.startswith("*") for axis in named)
    least = len(named) - open_ended
    fixed = named[0].isdigit() and len(value) != int(named[0]) if value.ndim else False
    if value.ndim < least or (value.ndim > least and not open_ended) or fixed or not value.numel():
        refuse(name, f"a tensor [{axes}]{'' if value.numel() else ' that is not empty'}", value)
    if value.is_complex() or ((floating or full) and not value.is_floating_point()):
        refuse(name, "a tensor of floating-point numbers; convert it with .float() where its scale is right", value)
    if full and value.itemsize < 4:
        refuse(name, "fp32 or fp64; convert it with .float()", value)
    return value


def finite(x: "Tensor", name: str) -> "Tensor":
    """Raise for NaN and infinity; reads all values once."""
    if x.is_floating_point():
        low, high = x.detach().aminmax()
        if not bool(low.isfinite() & high.isfinite()):
            raise ValueError(f"{name} holds NaN or infinite values; give finite ones")
    return x


def values(value: object, name: str, axes: str, *, floating: bool = False, full: bool = False) -> "Tensor":
    """`tensor` and `finite`."""
    return finite(tensor(value, name, axes, floating=floating, full=full), name)


def same_shape(**sides: "Tensor") -> None:
    """Check the shapes of tensors that are compared value by value: broadcasting would compare other values."""
    shapes = [list(side.shape) for side in sides.values()]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"{' and '.join(sides)} must be of one shape, not {' and '.join(map(str, shapes))}")


def width(x: "Tensor", size: int, name: str) -> "Tensor":
    """The length of the last axis."""
    if x.shape[-1] != size:
        raise ValueError(f"{name} must have {size} on its last axis, not shape {list(x.shape)}")
    return x


def parameters(value: object, own: "Mapping[str, Tensor]", name: str = "parameters") -> "Mapping[str, Tensor]":
    """Tensors for some of a model's own parameters, each of its shape and precision."""
    given = mapping(value, name, "tensors", 0)
    for key, one in given.items():
        if key not in own:
            raise ValueError(f"{name} hold the unknown parameter {key!r}; this model has {', '.join(own)}")
        tensor(one, f"{name}[{key!r}]", "*axis", floating=True)
        if one.shape != own[key].shape:
            raise ValueError(f"{name}[{key!r}] has shape {tuple(own[key].shape)}, not {tuple(one.shape)}")
        if one.dtype != own[key].dtype:
            raise ValueError(f"{name}[{key!r}] must be {own[key].dtype}, not {one.dtype}; convert it")
    return given


# Models and what they read.


def model(value: _T, name: str = "model", *, evaluated: bool = True) -> _T:
    """A hooked model; in eval mode, if its outputs will be used."""
    _check_hooked(value, name)
    if evaluated:
        require_eval(value, name)
    return value


def _check_hooked(value: object, name: str) -> None:
    if isinstance(value, type) or not (hasattr(value, "run_with_hooks") and hasattr(value, "cfg")):
        refuse(name, "a hooked model (HookedMLP, or what load_language_model gives)", value)


def require_eval(model: object, name: str = "model") -> None:
    """Raise where the model, a module in it or the model that it wraps is in train mode."""
    _check_hooked(model, name)
    said = "the model" if name == "model" else name
    for prefix, root in (("", model), ("original_model", getattr(model, "original_model", None))):
        named = getattr(root, "named_modules", None)
        if named is None and getattr(root, "training", False):
            raise ValueError(f"{said} is in train mode; call {name}.eval() first")
        for inner, module in named() if named else ():
            if module.training:
                where = ".".join(part for part in (prefix, inner.replace("_original_component.", "")) if part)
                raise ValueError(
                    f"{said} is in train mode{f' (its part {where})' if where else ''}; call {name}.eval() first"
                )


def tokenizer(value: object) -> "Tokenizer":
    """A tokenizer of Hugging Face: it can be called with a text, and turns ids into a text."""
    if not callable(value) or not hasattr(value, "decode"):
        refuse("tokenizer", "a tokenizer, as model.tokenizer", value)
    return value


def vocabulary(hooked: "Unembedding") -> int:
    """Number of outputs."""
    return hooked.W_U.shape[-1]


def embedding(hooked: "Unembedding") -> int:
    """Number of token ids that a language model takes: its embedding's rows, more than its outputs or fewer.

    Stacked models have an embedding each.
    """
    return hooked.W_E.shape[-2] if hasattr(hooked, "W_E") else vocabulary(hooked)


UNPADDED = "give every prompt as its own ids, without padding (a list of tensors may have several lengths)"


def prompt(value: object, size: int | None, name: str) -> "Tensor":
    """Token ids [pos] as a tensor of whole numbers, at least one, all in 0..size - 1."""
    if not is_tensor(value) or value.ndim != 1:
        refuse(name, "token ids as a tensor [pos] of whole numbers", value, _how(value))
    if not len(value):
        raise ValueError(f"{name} is empty; every prompt needs a token")
    return in_vocabulary(value, size, name)


def prompts(value: object, size: int | None, name: str = "prompts") -> list:
    """A list of prompts, each a tensor [pos]."""
    if is_tensor(value) and value.ndim == 2:
        value = list(value)
    if not isinstance(value, list | tuple):
        refuse(name, "a list of prompts, each a tensor [pos] of token ids", value, _how(value))
    if not value:
        raise ValueError(f"{name} is empty; there is no prompt")
    return [prompt(one, size, f"{name}[{i}]") for i, one in enumerate(value)]


def batch(value: object, size: int | None, name: str) -> "Tensor":
    """Token ids [batch, pos] of prompts of one length."""
    if isinstance(value, Mapping):
        refuse(name, "token ids as a tensor [batch, pos] of whole numbers", value, _how(value))
    return in_vocabulary(tensor(value, name, "batch pos"), size, name)


def _how(value: object) -> str:
    """The advice for a text, which has no ids yet, and for a tokenizer's own output, which may hold padding."""
    if isinstance(value, str):
        return "; make them with mechsub.chat or prompts.plain"
    return f"; {UNPADDED}" if isinstance(value, Mapping) else ""


def same_dtype(given: "Tensor", own: "Tensor", name: str) -> None:
    """A product of tensors of two dtypes has no meaning of its own: torch refuses it in its own words."""
    if given.dtype != own.dtype:
        raise ValueError(f"{name} must be {own.dtype}, as the model is, not {given.dtype}; convert it by .to()")


def in_vocabulary(tokens: "Tensor", size: int | None, name: str) -> "Tensor":
    """Token ids within 0..size - 1, of any shape."""
    if tokens.is_floating_point() or tokens.is_complex() or str(tokens.dtype) == "torch.bool":
        refuse(name, "token ids as whole numbers", tokens)
    if tokens.itemsize < 4:
        refuse(name, "token ids of 32 or 64 bits (.long())", tokens)
    low, high = (int(end) for end in tokens.aminmax())
    if low < 0 or (size is not None and high >= size):
        most = "" if size is None else f" and at most {size - 1}"
        raise ValueError(f"{name} must hold token ids of at least 0{most}, not {low if low < 0 else high}")
    return tokens


def position(value: object, length: int, name: str = "pos") -> int:
    """A position among `length`, possibly counted from the end: -1 is the last."""
    return whole(value, name, -length, length - 1)
