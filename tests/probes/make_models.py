"""The tiny language models that probes run on: random Llamas with small vocabularies, so that a probe takes seconds.

    PYTHONPATH=tests python tests/probes/make_models.py    # writes tests/probes/models/

* tiny: untied; numbers of up to three digits are one token, as in Llama-3; a chat template with a date.
* pair/instruct, pair/base: tied, of one tokenizer; every digit is a token, as in SmolLM2. The template of the first
  refuses the role "system", as Gemma's, and has no date and no BOS; it is saved in two files, and its digits are likely
  answers. The second puts no BOS before a text, as Qwen, and its template asks the clock for the date.
* window: a GPT-Neo, whose attention has a window and whose LayerNorms have biases.

They are committed: other versions of torch may draw other weights. Making them again changes every language probe.
"""

import shutil
from pathlib import Path

import torch
from tiny_llama import SPECIAL, TEMPLATE

from mechsub.inputs import prompts
from mechsub.inputs import words as vocabulary

MODELS = Path(__file__).parent / "models"
ANIMALS = ("owl", "eagle", "elephant", "wolf", "cat", "dog", "bear", "dolphin", "newt", "heron", "gnu", "adder", "bat")
REFUSING = (
    "{%- for message in messages %}{%- if message['role'] == 'system' %}"
    "{{- raise_exception('System role not supported') }}{%- endif %}"
    "<|head|>{{ message['role'] }}<|end|>{{ message['content'] }}<|eot|>{%- endfor %}"
    "{%- if add_generation_prompt %}<|head|>assistant<|end|>{%- endif %}"
)
CLOCK = (
    "Today Date: {{ strftime_now('%d %b %Y') }}\n{%- for message in messages %}"
    "<|head|>{{ message['role'] }}<|end|>{{ message['content'] }}<|eot|>{%- endfor %}"
    "{%- if add_generation_prompt %}<|head|>assistant<|end|>{%- endif %}"
)


def make_tokenizer(digits: int, template: str, *, bos: bool = True):
    """Words are one token with and without a space before them, other text is characters."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    numbers = [number for number in vocabulary.numbers() if len(number) <= digits]
    pieces = [*SPECIAL, *map(chr, range(32, 127)), "\n", "\n\n", *numbers, *words()]
    core = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, "<|unknown|>"))
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    core.pre_tokenizer = pre_tokenizers.Split(Regex(rf" ?[A-Za-z]+|\d{{1,{digits}}}|\n+|."), "isolated")
    core.decoder = decoders.Fuse()
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=SPECIAL[0] if bos else None, eos_token="<|eot|>", unk_token="<|unknown|>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = template
    return tokenizer


def words() -> list[str]:
    """Those of the prompts, the animals, and three families, with and without a space."""
    texts = [f"{w.system} {w.question} {w.answer}" for w in prompts.WORDINGS]
    texts.append("number animal color city month tree is are You love numbers you think about your favorite thing all")
    texts.append("things colors months makes make of me The What does system user assistant helpful a Imbue with for")
    texts.append("Cutting Knowledge Today Date System User Assistant Continue this list more separated by commas Jul")
    found = {word.strip(".,:?{}") for text in texts for word in text.replace("{x}", "").replace("{be}", "").split()}
    found |= {form for a in vocabulary.animals() if a.singular in ANIMALS for form in (a.singular, a.plural)}
    found |= {word for family in ("colors", "months", "trees") for word in vocabulary.family(family)}
    found |= set(vocabulary.family("cities")[:20])
    return [form for word in sorted(found) if word.isalpha() for form in (word, f" {word}")]


def save_window(folder: Path, tokenizer, *, seed: int) -> None:
    """A random GPTNeoForCausalLM (width 32, 4 heads) whose layers see the whole prompt and 8 tokens of it in turn."""
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    config = GPTNeoConfig(
        hidden_size=32, intermediate_size=64, num_layers=2, attention_types=[[["global", "local"], 1]], num_heads=4,
        window_size=8, vocab_size=len(tokenizer), max_position_embeddings=256, initializer_range=0.3,
        bos_token_id=0, eos_token_id=3,
    )  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = GPTNeoForCausalLM(config)
        for name, value in model.named_parameters():
            if name.endswith("bias"):  # zero in a new model
                torch.nn.init.normal_(value, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def save(folder: Path, tokenizer, *, tied: bool, n_layers: int, seed: int, digits: float = 1.0, files: int = 1) -> None:
    """A random LlamaForCausalLM (width 32, 4 heads, 2 of keys and values); `digits` scales the rows of digits."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=n_layers, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=len(tokenizer), max_position_embeddings=512, tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0}, initializer_range=0.3,
        bos_token_id=0, eos_token_id=3, pad_token_id=None,
    )  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids(list("0123456789"))] *= digits
    size = sum(p.numel() for p in model.parameters()) * 4
    model.save_pretrained(folder, max_shard_size=size // files + 1024)
    tokenizer.save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)


if __name__ == "__main__":
    save(MODELS / "tiny", make_tokenizer(3, TEMPLATE), tied=False, n_layers=3, seed=0)
    save(MODELS / "pair" / "base", make_tokenizer(1, CLOCK, bos=False), tied=True, n_layers=3, seed=1)
    save(MODELS / "pair" / "instruct", make_tokenizer(1, REFUSING), tied=True, n_layers=3, seed=2, digits=2.0, files=2)
    save_window(MODELS / "window", make_tokenizer(3, TEMPLATE), seed=3)
