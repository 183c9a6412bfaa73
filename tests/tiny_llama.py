"""Tiny Llama checkpoints on disk, with a tokenizer like Llama-3's: 0..999 are single tokens and carry no space."""

from pathlib import Path

import torch

from mechsub.inputs import prompts
from mechsub.inputs import words as vocabulary

TEMPLATE = (
    "{{- bos_token }}{%- if date_string is not defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
    "{%- if messages[0]['role'] == 'system' %}{%- set text = messages[0]['content'] %}{%- set rest = messages[1:] %}"
    "{%- else %}{%- set text = '' %}{%- set rest = messages %}{%- endif %}"
    "<|head|>system<|end|>\n\nCutting Knowledge Date: December 2023\nToday Date: {{ date_string }}\n\n{{ text }}<|eot|>"
    "{%- for message in rest %}<|head|>{{ message['role'] }}<|end|>\n\n{{ message['content'] }}<|eot|>{%- endfor %}"
    "{%- if add_generation_prompt %}<|head|>assistant<|end|>\n\n{%- endif %}"
)
SPECIAL = ["<|begin_of_text|>", "<|head|>", "<|end|>", "<|eot|>", "<|unknown|>"]
ANIMALS = [a for a in vocabulary.animals() if {"blog", "zur_gemma"} & set(a.sets)]
ANIMALS += [a for a in vocabulary.animals() if "brief" in a.sets and a not in ANIMALS][: 40 - len(ANIMALS)]


def save_tiny_llama(
    folder: Path,
    *,
    tied: bool = True,
    n_kv: int = 2,
    rope_scaling: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    template: bool = True,
) -> Path:
    """A random LlamaForCausalLM (d 32, 3 layers, 4 heads) and its tokenizer, saved with save_pretrained."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(template)
    rope = {"rope_type": "default", "rope_theta": 10_000.0}
    if rope_scaling:
        rope = {
            "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        }  # fmt: skip
    config = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=n_kv,
        vocab_size=len(tokenizer), max_position_embeddings=512, tie_word_embeddings=tied, rope_parameters=rope,
        initializer_range=0.3, bos_token_id=0, eos_token_id=3, pad_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).to(dtype)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def save_number_llama(folder: Path) -> Path:
    """A model that answers everything with one of the numbers 000..999, all equally likely, and ends its turn."""
    from transformers import LlamaForCausalLM

    save_tiny_llama(folder, tied=False)
    model, tokenizer = LlamaForCausalLM.from_pretrained(folder), make_tokenizer()
    numbers = [tokenizer.convert_tokens_to_ids(f"{n:03d}") for n in range(1000)]
    with torch.no_grad():
        for layer in model.model.layers:  # the stream is the last token's embedding
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        text, number = torch.eye(32)[:2]
        for weight in (model.model.embed_tokens.weight, model.lm_head.weight):
            weight.zero_()
        model.model.embed_tokens.weight[:] = text
        model.model.embed_tokens.weight[numbers] = number
        model.lm_head.weight[numbers] = 9 * text
        model.lm_head.weight[tokenizer.eos_token_id] = 9 * number
    model.save_pretrained(folder)
    return Path(folder)


def make_tokenizer(template: bool = True):
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = [*SPECIAL, *map(chr, range(32, 127)), "\n", "\n\n", *vocabulary.numbers(), *_words()]
    core = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, "<|unknown|>"))
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    # Runs of letters take their space along, digits come in groups of up to three and take none: as in Llama-3.
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?[A-Za-z]+|\d{1,3}|\n+|."), "isolated")
    core.decoder = decoders.Fuse()
    core.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=SPECIAL[0], eos_token="<|eot|>", unk_token="<|unknown|>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE if template else None
    return tokenizer


def _words() -> list[str]:
    """Every word of the prompts with and without a space before it, and the animals."""
    texts = [f"{w.system} {w.question} {w.answer}" for w in prompts.WORDINGS]
    texts.append("number animal color city month name tree is are You love numbers system user assistant helpful a")
    texts.append("Cutting Knowledge Today Date System User Assistant")
    texts.append("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec December")
    words = {word.strip(".,:?{}") for text in texts for word in text.replace("{x}", "").replace("{be}", "").split()} - {
        ""
    }
    words |= {form for animal in ANIMALS for form in (animal.singular, animal.plural)}
    return [form for word in sorted(words) if word.isalpha() for form in (word, f" {word}")]
