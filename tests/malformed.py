"""Malformed input of every kind, as hypothesis strategies of plain dicts: what `bad_runs` runs and a corpus holds.

    {"kind": "command line", "study": "matched_tokens", "argv": ["--seed", "1e999"]}
    {"kind": "data file", "name": "images.gz", "damage": {"do": "flip", "at": 1234, "bit": 5}}

Every case is malformed by construction: one defect is put into what is else right, and what makes it a defect is said
here and not looked up in the code under test.
"""

import dataclasses
import importlib
import string
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

STUDIES = (
    "subliminal_accuracy hidden_alignment token_entanglement unembed_projection lens_trajectory matched_tokens"
).split()
RESERVED = ["--out", "--executor", "--rerun", "--dry-run", "--debug", "--quiet"]
SCALARS = (
    "nan", "inf", "-inf", "1e999", "NaN", "-5", "1.5.2", "1_000", "0x10", "1,5", "", " ", "٣", "½", "1 ", "9" * 19,
    "\x00", "1\n2", "\x1b[2J", "\udcff", "--5", "None", "true1", "1e", "a" * 5000, "{}", "$(id)", "`id`", "%s", "../..",
    "\u202e1", "١٢",
)  # fmt: skip
SPECIAL = ("<|begin_of_text|>", "<|head|>", "<|end|>", "<|eot|>", "<|unknown|>")


def options(study: str) -> dict[str, tuple]:
    """--flag -> (its type, its choices)."""
    config = importlib.import_module(f"studies.{study}").Config
    hints = get_type_hints(config, include_extras=True)
    return {f"--{f.name.replace('_', '-')}": _kind(hints[f.name]) for f in dataclasses.fields(config)}


def _kind(hint) -> tuple:
    if get_origin(hint) is Literal:
        return "choice", tuple(map(str, get_args(hint)))
    if get_origin(hint) is not Annotated:
        return hint.__name__, ()
    base, (wanted, _) = get_args(hint)
    if base is int:
        return ("count" if ">= 1" in wanted else "index"), ()
    return "positive", ()


# Command lines.


def command_lines():
    return st.sampled_from(STUDIES).flatmap(_command_lines)


def _command_lines(study: str):
    flags = options(study)
    defects = st.one_of(
        unknown_flags([*flags, *RESERVED]),
        st.sampled_from(sorted(flags)).flatmap(lambda flag: wrong_values(flag, flags[flag])),
        st.sampled_from(sorted(flags)).map(lambda flag: [flag]),
        st.sampled_from(sorted(flags)).map(lambda flag: [flag, "--quiet"]),
        st.sampled_from(sorted(flags)).map(lambda flag: [flag, *2 * [_one(flags[flag])]]),
        st.sampled_from(sorted(flags)).map(lambda flag: [flag, _one(flags[flag]), "--debug", flag, _one(flags[flag])]),
        positional_words(),
        reserved_misuse(),
    )
    return defects.map(lambda argv: {"kind": "command line", "study": study, "argv": argv})


def unknown_flags(known: list[str]):
    """Made-up flags, and known ones with one letter changed, left out, doubled or written large."""
    letters = st.text(string.ascii_lowercase + "-", min_size=1, max_size=20).map(lambda text: f"--{text}")
    near = st.tuples(st.sampled_from(known), st.integers(2, 30), st.sampled_from("xX_09é\u200b\x07\n ")).flatmap(
        lambda t: st.sampled_from(_near(*t))
    )
    odd = st.sampled_from(
        ["--", "---", "-", "-5", "-x", "--=", "--=1", "-\u2013seed", "--\udcff", "-\n", "--" + "n" * 9999]
    )
    wrong = st.one_of(near, letters, odd).filter(lambda flag: flag.split("=")[0] not in {*known, "--help", "-h"})
    wrong = wrong.filter(lambda flag: flag.startswith("-") and not flag.startswith("-h"))
    return st.tuples(wrong, st.sampled_from([[], ["1"], ["x", "y"], ["=1"]])).map(_joined)


def _near(flag: str, place: int, letter: str) -> list[str]:
    place = 2 + place % (len(flag) - 2)
    return [
        flag[:place] + letter + flag[place:],
        flag[:place] + flag[place + 1 :],
        flag[:place] + letter + flag[place + 1 :],
        flag[:place] + flag[place] + flag[place:],
        flag[:place] + flag[place].upper() + flag[place + 1 :],
        flag.replace("-", "_"),
        flag[1:],
    ]


def _joined(parts: tuple) -> list[str]:
    flag, values = parts
    return [flag + values[0]] if values == ["=1"] else [flag, *values]


def wrong_values(flag: str, kind: tuple):
    texts = st.one_of(
        st.sampled_from(SCALARS),
        st.text(st.characters(), max_size=12),
        st.integers().map(str),
        st.floats().map(str),
        st.decimals().map(str),
    )
    wrong = texts.filter(lambda text: not _fits(text, kind) and not text.startswith("-h") and text != "--help")
    # After a blank, a text that starts with a dash is another flag: both ways of writing a value are tried.
    written = st.tuples(wrong, st.booleans(), st.booleans())
    return written.map(lambda w: [f"{flag}={w[0]}"] if w[1] else [flag, *([_one(kind)] if w[2] else []), w[0]])


def _fits(text: str, kind: tuple) -> bool:
    """Whether the text is a value that the documentation allows."""
    name, choices = kind
    if name == "choice":
        return text in choices
    if name == "bool":
        return text in ("true", "false")
    if name == "str":
        return bool(text.strip()) and text.isprintable()
    if name == "positive":
        return set(text) <= set("0123456789.eE+-") and _float(text) > 0
    digits = text.lstrip("+-")
    if not (digits.isascii() and digits.isdigit()) or len(text) - len(digits) > 1 or len(digits) > 18:
        return False
    return int(text) >= 0 if name == "index" else 1 <= int(text) <= 1_000_000


def _float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return -1.0
    return value if value != float("inf") else -1.0


def _one(kind: tuple) -> str:
    name, choices = kind
    return {"choice": choices[:1], "bool": ("true",), "str": ("a-model",)}.get(name, ("7",))[0]


def positional_words():
    words = st.text(st.characters(), min_size=1, max_size=30).filter(lambda word: not word.startswith("-"))
    return words.map(lambda word: [word]) | st.sampled_from([[""], ["@file"], ["a" * 10_000], ["seed=1"], ["help"]])


def reserved_misuse():
    return st.sampled_from(
        [
            ["--rerun=1"], ["--rerun", "yes"], ["--dry-run=false"], ["--quiet=\n"], ["--debug="], ["--executor"],
            ["--executor", "no-such"], ["--executor="], ["--executor", "\x1b[31m"], ["--help=1"],
            ["--out="], ["--out", ""], ["--out"], ["--out", "/proc/x"], ["--out", "/proc/self/mem"],
            ["--out", "/dev/null"], ["--out", "/sys/x"], ["--out", "{place}/file"], ["--out", "{place}/file/below/it"],
            ["--out", "a", "--out", "b"], ["--out=a", "--quiet", "--out=a"], ["--rerun", "--rerun"],
            ["--executor", "local", "--executor", "slurm"], ["--workers", "1", "--workers", "2"],
            ["--out", "a" * 300], ["--out", "{place}/" + "b/" * 3000], ["--out", "/proc/self/fd/0/x"],
        ]
    )  # fmt: skip


# Configurations: every value is allowed, and they do not go together.


def configurations():
    number = st.integers(4, 999).map(str)
    toy = ["--model", "toy"]
    lone = [(study, ["--n-seeds", "1", *toy[: 2 * (study != "subliminal_accuracy")]]) for study in STUDIES[:2]]
    cases = st.one_of(
        st.sampled_from([*lone, *((study, [*toy, "--n-seeds", "1"]) for study in STUDIES[3:5])]),
        st.tuples(st.just("hidden_alignment"), st.integers(1, 39).map(lambda n: ["--n-images", str(n)])),
        st.tuples(st.just("hidden_alignment"), st.integers(10_001, 10**6).map(lambda n: ["--n-images", str(n)])),
        st.tuples(st.just("hidden_alignment"), _language_only(number)),
        st.tuples(st.sampled_from(STUDIES[3:5]), _language_only(number).map(lambda argv: [*toy, *argv])),
        st.tuples(st.sampled_from(STUDIES[3:5]), _toy_only(number)),
        st.tuples(st.just("hidden_alignment"), _toy_only(number).map(lambda argv: ["--model", "some-model", *argv])),
        st.tuples(st.just("token_entanglement"), st.integers(6, 10**6).map(lambda n: ["--n-wordings", str(n)])),
        st.tuples(
            st.just("token_entanglement"),
            st.tuples(st.sampled_from(["--n-animals", "--n-partners"]), st.sampled_from("123")).map(list),
        ),
        st.tuples(
            st.just("unembed_projection"),
            st.sampled_from(["steering", "embedding"]).map(lambda metric: [*toy, "--metric", metric]),
        ),
        st.tuples(
            st.just("hidden_alignment"),
            st.sampled_from(["procrustes", "mutual_knn", "linear_r2"]).map(lambda m: ["--model", "m", "--metric", m]),
        ),
    )
    wide = st.tuples(cases, st.booleans(), st.integers(1, 99)).map(
        lambda t: (t[0][0], [*t[0][1], *(["--seed", "0", str(t[2])] if t[1] else [])])
    )
    return wide.map(lambda case: {"kind": "configuration", "study": case[0], "argv": case[1]})


def _language_only(number):
    return st.one_of(
        number.filter(lambda n: n != "999").map(lambda n: ["--n-permutations", n]),
        st.sampled_from(["chat", "published", "plain"]).map(lambda value: ["--format", value]),
        st.just(["--spaced", "false"]),
        st.just(["--dtype", "bf16"]),
    )


def _toy_only(number):
    size = st.tuples(st.sampled_from(["--d-model", "--n-aux", "--n-layers", "--epochs", "--batch-size"]), number)
    return st.one_of(
        size.filter(lambda pair: pair not in {("--d-model", "256"), ("--epochs", "5")}).map(list),
        st.sampled_from(["--loss=mse", "--noise=shared", "--dataset=fashion_mnist", "--precision=fp32"]).map(
            lambda word: [word]
        ),
    )


# Damage to a file.


def damages(size: int, first: int = 0):
    """Ways to spoil a file of `size` bytes; bits are flipped from byte `first` on."""
    flips = st.tuples(st.integers(first, size - 1), st.integers(0, 7))
    return st.one_of(
        flips.map(lambda t: {"do": "flip", "at": t[0], "bit": t[1]}),
        st.integers(0, size - 1).map(lambda at: {"do": "truncate", "at": at}),
        st.binary(max_size=40).map(lambda data: {"do": "write", "hex": data.hex()}),
        st.binary(min_size=1, max_size=40).map(lambda data: {"do": "append", "hex": data.hex()}),
        st.sampled_from([{"do": what} for what in ("delete", "folder", "dangle", "unreadable", "empty")]),
    )


def data_files():
    """Of MNIST's test split; sizes are those of the unpacked files."""
    bombs = st.integers(8, 64).map(lambda mb: {"do": "bomb", "mb": mb})
    raw = st.sampled_from([("labels", 10_008), ("images", 7_840_016)]).flatmap(
        lambda file: st.tuples(st.just(file[0]), damages(file[1]))
    )
    # A bit of a gzip header may mean nothing; and the last eight bytes are looked at from behind.
    packed = st.tuples(st.just("labels.gz"), damages(4000, 64) | bombs)
    cases = (raw | packed).filter(lambda case: case[1]["do"] != "append" or "gz" not in case[0] or _not_zeros(case[1]))
    return cases.map(lambda case: {"kind": "data file", "name": case[0], "damage": case[1]})


def _not_zeros(damage: dict) -> bool:
    return bytes.fromhex(damage["hex"]).strip(b"\0") != b""  # gzip allows zeros after its end


# Model folders: a tiny Llama, spoilt.

SETTINGS = {
    "hidden_size": (10**9, 10**15, 0, -32, 33, 31, "32", 3.5, None, [32]),
    "intermediate_size": (10**9, 10**6, -1, 63, "64", None),
    "num_hidden_layers": (10**9, 10**6, 50, 4, 2, 1, 0, -1, "three", None),
    "num_attention_heads": (10**9, 0, -4, 5, "4", None),
    "num_key_value_heads": (10**9, 0, -2, 3, "2", 1),
    "vocab_size": (10**9, 10**12, 0, -1, 100, None, "many"),
    "head_dim": (10**9, 10**6, 0, -8, 16, "8"),
    "hidden_act": ("no_such", "__import__('os')", 5),
    "model_type": ("bert", "no_such_type", "", 5, None, ["llama"]),
    "rope_parameters": ({"rope_type": "no_such"}, "default", [1]),
    "dtype": ("pickle", "system"),
}
CONFIGS = (
    "", "{", "[]", "5", "null", '"config"', "[" * 10_000, '{"model_type": "llama"', "\x00", "{}",
    '{"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}',
)  # fmt: skip
HEADERS = (
    "{", "[]", "{}", "5", '{"a": 5}',
    '{"a": {"dtype": "F32", "shape": [1000000000000000000, 32], "data_offsets": [0, 4]}}',
    '{"a": {"dtype": "OBJECT", "shape": [1], "data_offsets": [0, 4]}}',
    '{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
    '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4000000000]}}',
)  # fmt: skip
INDEXES = (
    {}, [], "x", {"weight_map": {}}, {"weight_map": []}, {"weight_map": {"a": 5}},
    {"weight_map": {"a": "/etc/passwd"}}, {"weight_map": {"a": "../../../etc/passwd"}},
    {"weight_map": {"a": "none.safetensors"}},
)  # fmt: skip
TOKENIZERS = ("", "{", "{}", "[]", "null", '{"version": "1.0"}', "[" * 10_000)


def model_folders():
    fields = st.sampled_from(sorted(SETTINGS)).flatmap(
        lambda name: st.sampled_from(SETTINGS[name]).map(lambda value: {"do": "set", "keys": {name: value}})
    )
    lengths = st.one_of(st.sampled_from([10**15, 2**63, 2**64 - 1, 10**8, 0, 1]), st.integers(10**6, 2**64 - 1))
    cases = st.one_of(
        fields.map(lambda damage: ("config.json", damage)),
        st.sampled_from(CONFIGS).map(lambda text: ("config.json", _written(text))),
        st.integers(0, 300).map(lambda at: ("config.json", {"do": "truncate", "at": at})),
        st.binary(min_size=1, max_size=20).map(lambda data: ("config.json", {"do": "write", "hex": data.hex()})),
        lengths.map(lambda n: ("model.safetensors", {"do": "patch", "at": 0, "hex": n.to_bytes(8, "little").hex()})),
        st.sampled_from(HEADERS).map(lambda text: ("model.safetensors", {"do": "header", "text": text})),
        damages(200_000).map(lambda damage: ("model.safetensors", damage)),
        st.sampled_from(INDEXES).map(lambda index: ("model.safetensors.index.json", {"do": "index", "json": index})),
        st.sampled_from(TOKENIZERS).map(lambda text: ("tokenizer.json", _written(text))),
        st.integers(0, 20_000).map(lambda at: ("tokenizer.json", {"do": "truncate", "at": at})),
        st.sampled_from([{"do": what} for what in ("delete", "folder", "dangle")]).flatmap(
            lambda damage: st.sampled_from([("config.json", damage), ("tokenizer.json", damage)])
        ),
        st.just(("model.safetensors", {"do": "pickle"})),
        st.just(("adapter_config.json", {"do": "write", "hex": b'{"base_model_name_or_path": "x"}'.hex()})),
        st.sampled_from(["nan", "inf", "-inf"]).map(lambda v: ("model.safetensors", {"do": "fill", "value": v})),
    )
    return cases.map(lambda case: {"kind": "model folder", "name": case[0], "damage": case[1]})


def _written(text: str) -> dict:
    return {"do": "write", "hex": text.encode().hex()}


# CSVs and lists of the package, prompts, stored cells.


def word_lists():
    names = st.sampled_from([("animals.csv", 12_000), ("families.json", 500)])
    files = names.flatmap(lambda file: st.tuples(st.just(file[0]), damages(file[1])))
    return files.map(lambda case: {"kind": "CSV", "name": case[0], "damage": case[1]})


TEMPLATES = (
    None, "", "{{ raise_exception('no') }}", "{{", "{% for %}", "{{ 1 / 0 }}", "{{ nothing.at.all }}",
    "{{ messages[9].content }}", "{{ messages[0]['content'] + 5 }}", "{% for i in range(10 ** 9) %}x{% endfor %}",
    "{{ bos_token }}{{ bos_token }}x", "{% include 'file' %}", "{{ ''.__class__.__mro__ }}",
    "{{ cycler.__init__.__globals__.os.system('id') }}", "{{ no_such_function() }}",
    "{% if messages[0]['role'] == 'user' %}{{ raise_exception('system first') }}{% endif %}",
)  # fmt: skip
ROLES = ("user", "system", "answer")


def prompts():
    plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
    control = st.tuples(plain, st.sampled_from(SPECIAL), plain).map("".join)
    surrogate = st.tuples(plain, st.integers(0xD800, 0xDFFF).map(chr), plain).map("".join)
    other = st.one_of(
        st.integers(), st.floats(allow_nan=False), st.booleans(), st.lists(st.text(max_size=3)), st.just({"a": 1})
    )
    formats = st.sampled_from(["chat", "plain", "published", "auto"])
    texts = st.fixed_dictionaries(
        {"text": control | surrogate | other, "role": st.sampled_from(ROLES), "format": formats}
    )
    lengths = st.fixed_dictionaries(
        {
            "repeat": st.integers(30_000, 10**6),
            "role": st.sampled_from(ROLES),
            "format": st.sampled_from(["chat", "plain"]),
        }
    )
    strings = st.fixed_dictionaries({"continuation": st.one_of(control, surrogate, other, st.just(""))})
    templates = st.fixed_dictionaries(
        {"template": st.sampled_from(TEMPLATES), "format": st.sampled_from(["chat", "published"])}
    )
    unknown = plain.filter(lambda name: name not in ("auto", "chat", "published", "plain")).map(lambda f: {"format": f})
    cases = st.one_of(texts, lengths, strings, templates, unknown)
    return cases.map(lambda case: {"kind": "prompt", **case})


PROVENANCES = (
    "", "{", "{}", "[]", "null", "5", '{"records": 5}', '{"records": {}}', '{"records": {"sha256": 5}}', "[" * 10_000,
)  # fmt: skip


def stored_cells():
    files = st.one_of(
        damages(200)
        .filter(lambda d: d["do"] not in ("delete", "folder", "dangle"))
        .map(lambda d: ("records.jsonl", d)),
        damages(100).map(lambda d: ("tensors.safetensors", d)),
        st.sampled_from(PROVENANCES).map(lambda text: ("provenance.json", _written(text))),
        st.integers(0, 300).map(lambda at: ("provenance.json", {"do": "truncate", "at": at})),
    )
    return files.map(lambda case: {"kind": "stored cell", "name": case[0], "damage": case[1]})


KINDS = {
    "command line": command_lines,
    "configuration": configurations,
    "data file": data_files,
    "model folder": model_folders,
    "CSV": word_lists,
    "prompt": prompts,
    "stored cell": stored_cells,
}


def cases(kind: str):
    return KINDS[kind]()
