"""The tokenizer of a model's folder, which must give the ids that the folder's tokenizer.json gives.

For some classes and model types, Transformers takes only the vocabulary from that file and builds the rest itself:
numbers then split in another way than in the model's training. So both tokenizers are run on the same texts.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mechsub.inputs import templates
from mechsub.inputs import words as vocabulary

if TYPE_CHECKING:
    import tokenizers
    from transformers import PreTrainedTokenizerBase

_TEXTS = (
    "The owls' 3 1/2 nests: \"hoot\"! (see §4.2, p. 1,024-2,048) it's 50% @home #1_a <b> [x] {y} \\ ~ ^ & * = + | ; ?",
    "Zwölf Käuzchen flogen über São Tomé, naïve façade, İstanbul, ﬁne ½ ² Å", "梟は夜に飛ぶ。Сова летает. بومة 🦉👩‍🔬",
    "one\n\ntwo\n\n\n1\r\n\t2\n 3  \n   four   spaces    12", " leading", "trailing ", "  ", "\n",
    "\n\n1", "a\u00a0b", "",
    "2023", "650841823", "1000000", "3.14159", "007 and 087, 0 00 000", "x=1;y=22;z=333", "the087", "The Owl. THE OWL!",
    "def f(x):\n    return x**2  # 4 spaces\n", "I'll, you've, we're, he'd, can't",
)  # fmt: skip


def load_tokenizer(folder: Path, known: str = "") -> "PreTrainedTokenizerBase":
    """The folder's tokenizer as Transformers loads it, or as tokenizer.json has it where the two differ.

    known: the right `sum_of_ids` of this folder; where the tokenizer has this sum, the file is not read again. Raises
    ValueError where Transformers' plain class does not give the ids of the file either.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.utils import logging

    said = logging.get_verbosity()
    logging.set_verbosity_error()  # what a class says of a folder that is refused below is no line of ours
    try:
        return _load(folder, known, AutoTokenizer, PreTrainedTokenizerFast)
    finally:
        logging.set_verbosity(said)


def _load(folder: Path, known: str, AutoTokenizer, PreTrainedTokenizerFast) -> "PreTrainedTokenizerBase":
    has_file = (folder / "tokenizer.json").is_file()
    try:
        loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        if not has_file or sum_of_ids(loaded) == known or difference(loaded, folder) is None:
            return loaded
    except Exception:  # a class that cannot be built from this vocabulary; the file says all that is needed
        if not has_file:
            raise
    plain = PreTrainedTokenizerFast.from_pretrained(folder, trust_remote_code=False)
    if (text := difference(plain, folder)) is not None:
        raise ValueError(
            f"Transformers reads {text[:40]!r} as other tokens than {folder / 'tokenizer.json'} says; save the "
            "tokenizer again with save_pretrained of the class that made it"
        )
    return plain


def difference(tokenizer: "PreTrainedTokenizerBase", folder: Path) -> str | None:
    """The first text that a tokenizer reads or writes differently than the tokenizers package with the folder's
    tokenizer.json; None where there is no such text."""
    file, texts = _of_file(folder), list(_probes(tokenizer))
    known = file.get_added_tokens_decoder()
    for number, token in sorted(tokenizer.added_tokens_decoder.items()):
        if number not in known:  # named in tokenizer_config.json alone
            file.add_tokens([token])
    for special in (False, True):
        theirs = [encoding.ids for encoding in file.encode_batch(texts, add_special_tokens=special)]
        for text, a, b in zip(texts, _ids(tokenizer, texts, special), theirs, strict=True):
            if list(a) != b:
                return text
    for text, ids in zip(texts, theirs, strict=True):
        if tokenizer.decode(ids, clean_up_tokenization_spaces=False) != file.decode(ids, skip_special_tokens=False):
            return text
    return None


def sum_of_ids(tokenizer: "PreTrainedTokenizerBase") -> str:
    """sha256 of the ids of some of the texts on which tokenizers are compared; it takes milliseconds."""
    numbers = " ".join(vocabulary.numbers()[::7])
    return hashlib.sha256(repr(_ids(tokenizer, [*_TEXTS, numbers], True)).encode()).hexdigest()


def _ids(tokenizer: "PreTrainedTokenizerBase", texts: list[str], special: bool) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"]


def _probes(tokenizer: "PreTrainedTokenizerBase") -> Iterator[str]:
    from mechsub.inputs import prompts

    yield from _TEXTS
    animals = [form for animal in vocabulary.animals() for form in (animal.singular, animal.plural)]
    for words in (vocabulary.numbers(), animals):
        yield from (" ".join(words), ", ".join(words), "\n".join(words))
    for wording in prompts.WORDINGS:
        system = wording.love("087", "number")
        yield f"System: {system}\nUser: {wording.question}\nAssistant: {wording.answer} 420"
        if templates.template(tokenizer):
            try:
                yield templates.render(tokenizer, wording.question, system=system, answer=wording.answer)
            except ValueError:  # a template that cannot be used is told of where it is
                continue


def _of_file(folder: Path) -> "tokenizers.Tokenizer":
    from tokenizers import Tokenizer

    file = Tokenizer.from_file(str(folder / "tokenizer.json"))
    file.no_truncation()
    file.no_padding()
    return file
