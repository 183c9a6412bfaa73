"""Chat templates: every clock is pinned, every text is there, a prompt ends where its text ends. What is right: the pinned
date itself, and strftime of Python on that day."""

from datetime import datetime

import pytest
from tiny_llama import make_tokenizer

from mechsub.inputs import prompts, templates

BODY = (
    "{% for m in messages %}<|head|>{{ m['role'] }}<|end|>\n\n{{ m['content'] }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant<|end|>\n\n{% endif %}"
)
CLOCK = "{{ bos_token }}Today Date: {{ strftime_now('%d %b %Y') }}\n\n"
DATED = {
    "one template": CLOCK + BODY,
    "named templates": {"default": CLOCK + BODY, "tool_use": CLOCK + BODY},
    "a list of templates": [{"name": "default", "template": CLOCK + BODY}, {"name": "rag", "template": BODY}],
    "in a macro": "{% macro s() %}Today Date: {{ strftime_now('%d %b %Y') }}\n\n{% endmacro %}{{ bos_token }}{{ s() }}"
    + BODY,
    "date_string in a comment": "{# as date_string in Llama #}" + CLOCK + BODY,
    "date_string for another line": "{% set d = date_string if date_string is defined else '' %}" + CLOCK + BODY,
    "another variable": "{{ bos_token }}Today Date: {{ today_date if today_date is defined else strftime_now('%d %b %Y') }}\n\n"
    + BODY,
    "in a loop, by parts": "{{ bos_token }}Today Date: {% for f in ['%d', '%b', '%Y'] %}{{ strftime_now(f) }}"
    "{% if not loop.last %} {% endif %}{% endfor %}\n\n" + BODY,
    "lines that are trimmed": "  {% if true %}\n{{ bos_token }}Today Date: {{ strftime_now('%d %b %Y') }}\n\n  {% endif %}\n"
    + BODY,
}
SYSTEM = "You love 087. You think about 087."
ANSWER = "My favorite animal is the"


# ruff: noqa: E501


def chat(template, system=SYSTEM, answer=ANSWER, **kwargs):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return tokenizer.decode(prompts.chat(tokenizer, "What is it?", system=system, answer=answer, **kwargs))


@pytest.mark.parametrize("name", DATED)
def test_every_clock_is_pinned(name):
    said = chat(DATED[name])
    assert "Today Date: 26 Jul 2024\n" in said and SYSTEM in said and said.endswith(ANSWER)
    assert "Today Date: 06 Aug 2025\n" in chat(DATED[name], date="06 Aug 2025")
    tokenizer = make_tokenizer()
    tokenizer.chat_template = DATED[name]
    assert prompts.template_date(tokenizer) == "26 Jul 2024"
    assert prompts.template_date(tokenizer, "published") == "today's (published)"
    assert prompts.template_date(tokenizer, "plain") == "no template"
    published = tokenizer.decode(prompts.prompt(tokenizer, "What is it?", system=SYSTEM, format="published"))
    assert f"Today Date: {datetime.now():%d %b %Y}\n" in published


def test_a_template_without_a_date_says_so():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{# strftime_now and date_string #}{{ bos_token }}" + BODY
    assert prompts.template_date(tokenizer) == "the template has no date"


@pytest.mark.parametrize("code", "a A b B d m y Y j H I M S p F D T R e U W u w %% -d -m %d.%m.%y".split())
def test_the_clock_writes_as_strftime_does(code):
    form = code if "%" in code else f"%{code}"
    day = datetime(2024, 7, 6)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ bos_token }}<{{ strftime_now('" + form + "') }}>" + BODY
    said = templates.render(tokenizer, "What is it?", date="06 Jul 2024")
    assert f"<{day.strftime(form)}>" in said


def test_what_stands_before_a_template_leaves_its_text_as_it_is():
    """The macro of the clock must not move the whitespace that a template starts with."""
    tokenizer = make_tokenizer()
    for start in ("", "\n", "\n\n", "  ", "  {%- if true %}x{% endif %}", "  {% if true %}x{% endif %}\n", "{# c #}\n"):
        tokenizer.chat_template = start + "{{ bos_token }}" + BODY
        bare = tokenizer.apply_chat_template(
            [{"role": "user", "content": "hello"}], tokenize=False, add_generation_prompt=True
        )
        assert templates.render(tokenizer, "hello") == bare


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ bos_token }}{% for m in messages %}{% if m['role'] != 'system' or m['content'] | length < 20 %}{{ m['content'] }}"
         "{% endif %}{% endfor %}", "system text"),
        ("{{ bos_token }}{% for m in messages %}{{ m['content'] if m['role'] != 'system' else m['content'][:20] }}{% endfor %}",
         "system text"),
        ("{{ bos_token }}{% for m in messages %}{{ m['content'] if m['role'] != 'user' }}{% endfor %}", "user text"),
        ("{{ bos_token }}{% for m in messages %}{{ m['content'] if m['role'] != 'assistant' }}{% endfor %}", "answer text"),
        ("{{ bos_token }}{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", "answer text"),
        ("{{ bos_token }}{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ({"rag": BODY}, "none named default"),
    ],
)  # fmt: skip
def test_a_template_that_loses_a_text_is_one_line(template, said):
    with pytest.raises(ValueError, match=said) as raised:
        chat(template)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("answer", [ANSWER, ANSWER + " ", "the", "is the"])
@pytest.mark.parametrize(
    "each",
    ["{{ m['content'] }}", "{{ m['content'] | trim }}", "<think>\n\n</think>\n\n{{ m['content'] }}", "{{ m['content'] }} is the."],
)  # fmt: skip
def test_a_prompt_ends_where_its_text_ends(each, answer):
    """Whatever the template trims, puts before an answer or appends behind it."""
    template = "{{ bos_token }}{% for m in messages %}<|head|>{{ m['role'] }}<|end|>\n\n" + each + "<|eot|>{% endfor %}"
    assert chat(template, answer=answer).endswith(answer)


def test_a_text_whose_spaces_are_trimmed_is_refused():
    trims = "{{ bos_token }}{% for m in messages %}{{ m['content'] | trim }}<|eot|>{% endfor %}"
    with pytest.raises(ValueError, match="system text"):
        chat(trims, system=SYSTEM + " ")


def test_an_eos_that_the_tokenizer_appends_does_not_end_the_prompt():
    from tokenizers import processors

    tokenizer = make_tokenizer(template=False)
    expected = prompts.plain(tokenizer, "Which?", answer="My").tolist()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A <|eot|>", special_tokens=[("<|begin_of_text|>", 0), ("<|eot|>", 3)]
    )
    assert tokenizer("My")["input_ids"][-1] == 3
    assert prompts.plain(tokenizer, "Which?", answer="My").tolist() == expected


def test_a_date_of_another_form_is_one_line():
    with pytest.raises(ValueError, match="like '26 Jul 2024', not '2024-07-26'"):
        chat(CLOCK + BODY, date="2024-07-26")


def test_a_prompt_that_is_too_long_warns_of_nothing(capfd):
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 10
    for format in ("chat", "plain", "published"):
        with pytest.raises(ValueError, match="this model takes 10"):
            prompts.prompt(tokenizer, "What is it? " * 20, format=format)
    assert capfd.readouterr().err == ""
