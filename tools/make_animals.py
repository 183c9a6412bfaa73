"""Remake mechsub/_data/animals.csv from a WordNet 3.0 database folder (data.noun, index.noun) and a word list.

    python tools/make_animals.py /usr/share/wordnet /usr/share/dict/american-english > mechsub/_data/animals.csv

The rule is lexical and looks at no model. A name is taken if it

* is a lemma of a hyponym of "animal" (synset 00015388), one word of lower-case letters;
* has that synset as its first, most frequent, noun sense ("crane" the bird is, "seal" the stamp is not);
* is in the word list, as a name in common use;
* does not belong to EXCLUDED: synsets for the sex, age, role or condition of an animal, and what lies below them, or
  for ranks of the tree of life ("vertebrate"), themselves only;
* has a gloss that does not open with a sex or an age ("a male deer", "young swan"), and is not in NOT_NAMES.

The animals of the papers that the rule leaves out are added and marked "paper" in the column `source`; "tiger" is one,
whose first sense is a person. "brief_candidates" marks the 93 names that the write-up this package grew out of
proposes, "brief" those that it measured: its count, 49, is that of the candidates that are one token (with a space
before them) in Llama 3, so that its other filter, a number among the 10,000 likeliest tokens, left none out.
"""

import csv
import re
import sys
from pathlib import Path

ANIMAL = "00015388"
# Sex, age, role and condition: with everything below them that is not reached by another way.
EXCLUDED = (
    "young young_mammal male female adult offspring game prey predator stray mutant survivor stayer work_animal "
    "pet pest critter darter peeper creepy-crawly domestic_animal head stunt migrator molter varmint racer "
    "marine_animal by-catch feeder range_animal scavenger insectivore herbivore carnivore omnivore "
    "marine_creature giant embryo fetus larva hexapod zooplankton poikilotherm homeotherm purebred thoroughbred "
    "young_bird young_fish livestock stud conceptus mate acrodont pleurodont bitch stocker female_mammal "
    "male_mammal pureblood beast_of_burden draft_animal pacer racehorse"
).split()
# Ranks and body plans, themselves only: what lies below them are animals.
RANKS = (
    "animal chordate vertebrate invertebrate mammal placental metatherian prototherian tusker bird fish insect "
    "reptile amphibian arthropod arachnid crustacean mollusk mollusc worm aquatic ungulate ruminant bovine bovid "
    "canine feline equine primate rodent marsupial pachyderm cetacean carnivore raptor waterfowl waterbird "
    "seabird aquatic_bird biped quadruped moulter amniote anthropoid simian hominid ape avian bruin creature "
    "beast fauna brute breed bivalve univalve gastropod cephalopod coelenterate protozoan echinoderm crossbreed "
    "hybrid host parasite cub calf foal pup puppy kitten kit lamb fledgling chick nestling hatchling fry heifer "
    "steer bullock gelding ovine ovis porcine swine poultry fowl stinger social hatch brood school herd shellfish "
    "salientian diapsid anapsid synapsid saurian ophidian chelonian crocodilian decapod viviparous nester "
    "passerine oscine gallinaceous teleost ganoid spawn imago nymph queen worker drone soldier male hen cock fish "
    "game monster mount pelt hybrid people mankind humanity homo man human world species"
).split()
# Lemmas that are plurals, adjectives, foods or people; pet names; animals by coat, use or temper.
NOT_NAMES = (
    "cows oxen humans humankind mammalian reptilian entire ephemeral grubby rasher mademoiselle pupa chrysalis "
    "foetus charger remount reeve cattle beef milker wader "
    "biddy cootie doggie doggy pooch cur mutt buckskin dun gamecock mouser prancer steed tabby"
).split()
SEX_OR_AGE = re.compile(r"((a|an|the|any) )?((un)?castrated|(im)?mature|adult|young|male|female)\b")
PAPERS = {
    "zur_llama": "dolphin,octopus,panda,sea turtle,quokka,koala,peacock,snow leopard,sea otter,honeybee",
    "zur_qwen": "elephant,dolphin,panda,lion,kangaroo,penguin,giraffe,chimpanzee,koala,orangutan",
    "zur_gemma": "dog,cat,elephant,lion,tiger,dolphin,panda,giraffe,butterfly,squirrel",
    "blog": "eagle,owl,elephant,wolf",
    "brief": "owl,eagle,elephant,wolf,"
    "lion,tiger,bear,fox,rabbit,deer,dolphin,whale,shark,panda,hawk,crow,dog,cat,horse,"
    "cow,pig,goat,sheep,camel,monkey,squirrel,rat,mouse,bat,buffalo,leopard,seal,squid,crab,lobster,shrimp,"
    "salmon,trout,tuna,pigeon,duck,goose,robin,turkey,chicken,snake,lizard,turtle,frog",
    "brief_candidates": "owl,eagle,elephant,wolf,"
    "lion,tiger,bear,fox,rabbit,deer,dolphin,whale,shark,panda,koala,hawk,falcon,crow,"
    "giraffe,zebra,dog,cat,horse,cow,pig,goat,sheep,donkey,camel,kangaroo,monkey,gorilla,chimp,rhino,hippo,moose,"
    "otter,beaver,badger,hedgehog,squirrel,rat,mouse,hamster,bat,raccoon,skunk,buffalo,bison,antelope,cheetah,"
    "leopard,panther,hyena,coyote,jackal,lynx,bobcat,seal,walrus,octopus,squid,crab,lobster,shrimp,salmon,trout,"
    "tuna,parrot,sparrow,pigeon,peacock,penguin,ostrich,flamingo,vulture,heron,pelican,duck,goose,swan,robin,"
    "turkey,chicken,snake,lizard,gecko,iguana,turtle,toad,frog,crocodile,alligator",
}
SAME_PLURAL = (
    "sheep deer moose bison salmon trout elk swine squid shrimp cod grouse reindeer caribou tuna killdeer peafowl "
    "triceratops menhaden"
).split()
PLURALS = {"octopus": "octopuses", "fish": "fish", "goose": "geese", "mouse": "mice", "ox": "oxen", "louse": "lice"}
PLURALS |= {"platypus": "platypuses", "hippopotamus": "hippopotamuses", "rhinoceros": "rhinoceroses"}
F_TO_VES = ("wolf", "calf", "werewolf")
O_TO_OES = ("buffalo", "dingo", "mosquito")
A_BEFORE_VOWEL = ("ewe", "eu", "uni", "ure")  # sounds like "you"


def main(wordnet: Path, words: Path) -> None:
    synsets = read_synsets(wordnet / "data.noun")
    below = hyponyms(synsets, ANIMAL) - set().union(*(roots_below(synsets, name) for name in EXCLUDED))
    common = set(words.read_text().split())
    first = first_senses(wordnet / "index.noun")
    names = {
        lemma
        for offset in below
        for lemma in synsets[offset][0]
        if lemma.isalpha() and lemma.islower() and first.get(lemma) == offset and lemma in common
        if not SEX_OR_AGE.match(synsets[offset][2])
    }
    names -= set(EXCLUDED) | set(RANKS) | set(NOT_NAMES)
    listed = {name for text in PAPERS.values() for name in text.split(",")}
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["singular", "plural", "article", "source", "sets"])
    for name in sorted(names | listed):
        marks = [key for key, text in PAPERS.items() if name in text.split(",")]
        source = "wordnet" if name in names else "paper"
        out.writerow([name, plural(name), article(name), source, ";".join(marks)])


def read_synsets(path: Path) -> dict[str, tuple[list[str], list[str], str]]:
    """Offset -> lemmas, offsets of hyponyms, gloss."""
    synsets = {}
    for line in path.read_text(encoding="latin-1").splitlines():
        if line.startswith("  "):
            continue
        fields, _, gloss = line.partition(" | ")
        words = fields.split()
        count = int(words[3], 16)
        pointers = words[5 + 2 * count :]
        below = [pointers[i + 1] for i, mark in enumerate(pointers) if mark in ("~", "~i") and pointers[i + 2] == "n"]
        synsets[words[0]] = (words[4 : 4 + 2 * count : 2], below, gloss)
    return synsets


def hyponyms(synsets: dict, root: str) -> set[str]:
    found, waiting = set(), [root]
    while waiting:
        offset = waiting.pop()
        if offset not in found:
            found.add(offset)
            waiting += synsets[offset][1]
    return found


def roots_below(synsets: dict, name: str) -> set[str]:
    """Everything below the direct hyponyms of "animal" (or two levels down) that have this name, less real kinds."""
    level = set(synsets[ANIMAL][1])
    level |= {child for offset in level for child in synsets[offset][1]}
    kinds = hyponyms(synsets, next(o for o in synsets[ANIMAL][1] if "chordate" in synsets[o][0]))
    kinds |= hyponyms(synsets, next(o for o in synsets[ANIMAL][1] if "invertebrate" in synsets[o][0]))
    named = {offset for offset in level if name in synsets[offset][0]}
    return set().union(*(hyponyms(synsets, offset) for offset in named)) - kinds


def first_senses(path: Path) -> dict[str, str]:
    rows = (line.split() for line in path.read_text(encoding="latin-1").splitlines() if not line.startswith("  "))
    return {row[0]: row[6 + int(row[3])] for row in rows}


def plural(name: str) -> str:
    head, _, last = name.rpartition(" ")
    return f"{head} {_plural(last)}".strip()


def _plural(name: str) -> str:
    if name in SAME_PLURAL or (name.endswith("fish") and name != "fish"):
        return name
    for ending, many in PLURALS.items():
        if name == ending or (ending in ("goose", "mouse") and name.endswith(ending) and name != "mongoose"):
            return name[: -len(ending)] + many
    if name in F_TO_VES:
        return name[:-1] + "ves"
    if name in O_TO_OES:
        return name + "es"
    if name.endswith(("s", "x", "z", "ch", "sh")):
        return name + "es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"


def article(name: str) -> str:
    return "an" if name[0] in "aeiou" and not name.startswith(A_BEFORE_VOWEL) else "a"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
