"""Tokenizers that put a space before a text, as Llama-2's, Mistral's and Phi-3's do, trained on words of prompts."""

from mechsub.inputs import prompts, words

SPECIAL = ["<unk>", "<s>", "</s>", "<|user|>"]


def make(kind: str, *, lower: bool = False):
    """kind: "prepend" (a normalizer, as Llama-2's file has it), or a scheme of Metaspace: "always" or "first"."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    scheme = "always" if kind == "prepend" else kind
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True)
    texts = [
        f"{w.love(a.plural, 'animal', plural=True)} {w.question} {w.answer} {a.singular}"
        for w in prompts.WORDINGS
        for a in words.animals()[:40]
    ]
    special = [*SPECIAL, *(f"<0x{i:02X}>" for i in range(256))]
    alphabet = [*map(chr, range(33, 127)), "▁"]
    trainer = trainers.BpeTrainer(
        vocab_size=1200, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts * 3 + list("0123456789") * 5, trainer)
    steps = [normalizers.Lowercase()] * lower
    if kind == "prepend":
        core.pre_tokenizer = None
        steps += [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    if steps:
        core.normalizer = normalizers.Sequence(steps)
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
        "{% elif m['role'] == 'system' %}{{ m['content'] }} {% else %} {{ m['content'] }}{% endif %}{% endfor %}"
    )
    return tokenizer
