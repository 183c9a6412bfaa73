"""The tokenizer that is loaded gives the ids that the tokenizers package gives from the folder's tokenizer.json."""

import json

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from mechsub.inputs import prompts, words
from mechsub.inputs.tokenizer import difference, load_tokenizer, sum_of_ids
from mechsub.models import language

TEXTS = [" 087", "My favorite number is 087", "2023", "650841823", " owl", "You love 087.\n\nYou think about 087."]


@pytest.fixture(scope="module")
def core():
    """Digits in groups of up to three, as Llama-3's and OLMo-2's."""
    core = Tokenizer(models.BPE())
    split = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(split, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    texts = [f"{w.love('owls', 'animal', plural=True)} {w.question} {w.answer}" for w in prompts.WORDINGS]
    trainer = trainers.BpeTrainer(
        vocab_size=2200, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    core.train_from_iterator(texts + words.numbers() * 5, trainer)
    return core


def save(core, folder, kind, declared, **settings):
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|end|>").save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    said = {**json.loads(path.read_text()), "tokenizer_class": declared, **settings}
    path.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))


@pytest.mark.parametrize(
    ("kind", "declared"),
    [
        ("llama", "PreTrainedTokenizerFast"), ("llama", "GPT2Tokenizer"), ("llama", "Qwen2Tokenizer"),
        ("llama", "GPTNeoXTokenizer"), ("llama", "CohereTokenizer"), ("llama", "GemmaTokenizer"),
        ("qwen2", "PreTrainedTokenizerFast"), ("qwen2", "LlamaTokenizerFast"), ("qwen2", None),
        ("gpt_neox", "GPTNeoXTokenizerFast"), ("mistral", "LlamaTokenizer"),
    ],
)  # fmt: skip
def test_ids_are_those_of_the_file(core, tmp_path, kind, declared):
    template = "{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}"
    save(core, tmp_path, kind, declared, chat_template=template)
    loaded = load_tokenizer(tmp_path)
    for text in [*TEXTS, *words.numbers()]:
        ids = core.encode(text, add_special_tokens=False).ids
        assert loaded(text, add_special_tokens=False)["input_ids"] == ids
        assert loaded.decode(ids, clean_up_tokenization_spaces=False) == text
    assert (loaded.eos_token, loaded.pad_token, loaded.chat_template) == ("<|end|>", "<|end|>", template)


def test_another_tokenizer_is_noticed(core, tmp_path):
    from transformers import AutoTokenizer

    save(core, tmp_path, "qwen2", None)
    assert difference(AutoTokenizer.from_pretrained(tmp_path), tmp_path) is not None
    save(core, tmp_path, "llama", "PreTrainedTokenizerFast")
    assert difference(AutoTokenizer.from_pretrained(tmp_path), tmp_path) is None


def test_the_default_models_tokenizer_is_that_of_its_file():
    folder = language.default_folder()
    if not language.has_default():
        pytest.skip("the default model is not in the cache")
    loaded = load_tokenizer(folder)
    assert difference(loaded, folder) is None
    assert sum_of_ids(loaded) == language._DEFAULT_IDS


def test_a_model_without_bos_writes_none(tmp_path):
    """TransformerLens makes the EOS the BOS of such a model, and templates would write it."""
    from tiny_llama import save_tiny_llama

    save_tiny_llama(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["bos_token"]
    path.write_text(json.dumps(settings))
    file = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**file, "post_processor": None}))
    tokenizer = language.load_language_model(str(tmp_path)).tokenizer
    text = tokenizer.decode(prompts.chat(tokenizer, "Hello", system="You love 087."))
    assert tokenizer.bos_token is None and text.startswith("<|head|>system")
