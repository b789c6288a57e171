"""What of a conversation is learned: the assistant's answers with their end-of-turn tokens, whatever the chat template does."""

import json
from typing import Any

import numpy as np
import pytest

from engine.data.conversation_tokens import (
    ConversationTokens,
    EncodedConversation,
    cut_into_windows,
    tokenise_conversations,
)
from engine.data.conversations import UnusableRowError, from_text, to_json
from engine.errors import ChatTemplateError
from engine.models import plain_templates
from engine.models.chat_template import ChatTemplate
from testing.chat_templates import CHATML, GEMMA, LLAMA_3, MISTRAL, NO_END, TEMPLATES
from testing.language_models import chat_tokenizer, conversation

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Taipei"}}}


def tokens_of(
    template: str | None, *conversations: Any, max_length: int = 400
) -> tuple[ConversationTokens, Any, dict[str, int]]:
    tokenizer = chat_tokenizer(template)
    skipped: dict[str, int] = {}
    tokens = tokenise_conversations(
        [to_json(each) for each in conversations], ChatTemplate(tokenizer, "mine"), max_length, skipped
    )
    return tokens, tokenizer, skipped


def learned(template: str | None, messages: Any) -> list[str]:
    """Return the parts of a conversation that are learned, each as text."""
    tokens, tokenizer, skipped = tokens_of(template, messages)
    assert skipped == {}
    parts: list[list[int]] = []
    previous = False
    for number, is_target in zip(tokens.ids.tolist(), tokens.is_target.tolist(), strict=True):
        if is_target and not previous:
            parts.append([])
        if is_target:
            parts[-1].append(number)
        previous = is_target
    return [tokenizer.decode(part) for part in parts]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_answers_and_their_ends_are_learned_and_nothing_else(name, system):
    template, end = TEMPLATES[name]
    space = " " if name == "mistral" else ""
    messages = conversation("How many?", "Three.", "Sure? Three.", "Yes, 3 of them", system=system)
    assert learned(template, messages) == [f"{space}Three.{end}", f"{space}Yes, 3 of them{end}"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_learned_tokens_follow_exactly_the_prompt_that_the_model_will_get(name):
    template, _end = TEMPLATES[name]
    messages = conversation("How many?", "Three of them.")
    tokens, tokenizer, _skipped = tokens_of(template, messages)
    prompt = ChatTemplate(tokenizer, "mine").prompt(messages)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    first = int(tokens.is_target.argmax())
    assert tokens.ids[:first].tolist() == ids


@pytest.mark.parametrize("template", [LLAMA_3, GEMMA])
def test_template_that_trims_answers_leaves_what_it_trims_out(template):
    end = "<|eot_id|>" if template == LLAMA_3 else "<end_of_turn>"
    assert learned(template, conversation("Hi", "  \nHello there \n\n")) == [f"Hello there{end}"]


@pytest.mark.parametrize("text", ["assistant", "user", "How many?", "You are helpful.", "\nassistant\n"])
def test_answer_that_repeats_the_question_or_a_word_of_the_template_is_found(text):
    assert learned(CHATML, conversation(text, text)) == [f"{text}<|im_end|>"]


def test_conversation_that_starts_with_the_assistant_is_learned():
    messages = [{"role": "assistant", "content": "Welcome!"}, *conversation("Hi", "Hello")]
    assert learned(CHATML, messages) == ["Welcome!<|im_end|>", "Hello<|im_end|>"]


def test_tool_call_is_learned_where_the_template_shows_it_instead_of_content():
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "Sunny"},
        {"role": "assistant", "content": "It is sunny."},
    ]
    call = json.dumps(CALL["function"])
    assert learned(LLAMA_3, messages) == [f"{call}<|eot_id|>", "It is sunny.<|eot_id|>"]


def test_template_that_renders_earlier_turns_otherwise_once_others_follow_is_no_obstacle():
    template = CHATML.replace(
        "{{ m['content'] }}",
        "{{ '' if m['role'] == 'user' and not loop.last and loop.revindex > 2 else m['content'] }}",
    )
    messages = conversation("first", "one", "second", "two")
    assert learned(template, messages) == ["one<|im_end|>", "two<|im_end|>"]


def test_plain_text_is_learned_as_a_whole_with_the_end_of_the_text():
    tokens, tokenizer, _skipped = tokens_of(CHATML, from_text("Once upon a time"))
    assert tokenizer.decode(tokens.ids) == "Once upon a time</s>"
    assert tokens.is_target.tolist() == [False, *[True] * (len(tokens.ids) - 1)]


PLAIN = {  # the opening of a conversation, and what is learned of it
    "plain": ("User: Hi\nAssistant: Hello</s>", " Hello</s>"),
    "chatml": ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n", "Hello<|im_end|>"),
    "alpaca": ("### Instruction:\nHi\n\n### Response:\nHello</s>\n\n", "Hello</s>"),
}


@pytest.mark.parametrize("name", plain_templates.TEMPLATES)
def test_base_model_without_template_gets_a_plain_one_that_ends_answers(name):
    tokenizer = chat_tokenizer(None)
    template = ChatTemplate(tokenizer, "mine", name)
    written, learned_part = PLAIN[name]
    assert template.origin == name and template.render(conversation("Hi", "Hello")) == written
    assert learned(tokenizer.chat_template, conversation("Hi", "Hello")) == [learned_part]
    messages = conversation("How many?", "Three.", "Sure? Three.", "\n\nYes", system="Be brief.")
    assert learned(tokenizer.chat_template, messages) == [
        learned_part.replace("Hello", "Three."),
        learned_part.replace("Hello", "\n\nYes"),
    ]
    assert template.render(messages[:-1], add_generation_prompt=True) == template.prompt(messages)


@pytest.mark.parametrize("name", plain_templates.TEMPLATES)
def test_plain_template_leads_exactly_to_the_learned_tokens(name):
    tokenizer = chat_tokenizer(None)
    template = ChatTemplate(tokenizer, "mine", name)
    messages = conversation("How many?", "Three of them.", system="Be brief.")
    tokens = tokenise_conversations([to_json(messages)], template, 400, {})
    prompt = tokenizer(template.prompt(messages), add_special_tokens=False)["input_ids"]
    assert tokens.ids[: int(tokens.is_target.argmax())].tolist() == prompt


def test_chatml_ends_turns_with_the_end_of_text_where_the_base_model_has_no_token_for_it():
    assert "<|im_end|>" not in plain_templates.plain_template("chatml", ["</s>"])
    assert "<|im_end|>" in plain_templates.plain_template("chatml", ["</s>", "<|im_end|>"])


@pytest.mark.parametrize("name", plain_templates.TEMPLATES)
def test_preview_is_what_the_tokenizer_makes_of_the_conversation(name, tmp_path):
    chat_tokenizer(None).save_pretrained(tmp_path)
    template = ChatTemplate(chat_tokenizer(None), "mine", name)
    messages = conversation("Hi", "Hello", "And?", "Bye", system="Be brief.")
    assert plain_templates.preview(name, tmp_path, messages) == template.render(messages)


def test_plain_template_is_refused_for_a_base_model_with_a_template_of_its_own():
    with pytest.raises(ChatTemplateError, match="of its own") as refused:
        ChatTemplate(chat_tokenizer(CHATML), "mine", "alpaca")
    assert refused.value.field == "model.chat_template"
    assert ChatTemplate(chat_tokenizer(CHATML), "mine").origin == "own"


def test_template_without_end_of_turn_is_refused():
    with pytest.raises(ChatTemplateError, match="never stop") as refused:
        tokens_of(NO_END, conversation("Hi", "Hello"))
    assert refused.value.field == "model.name"


def test_template_that_ends_the_last_answer_otherwise_is_refused():
    template = CHATML.replace(
        "<|im_end|>\n{% endfor %}", "{{ '<|im_end|>' if loop.last else '<|end|>' }}\n{% endfor %}"
    )
    with pytest.raises(ChatTemplateError, match="different ways"):
        tokens_of(template, conversation("Hi", "Hello", "And?", "Bye"))


def test_answer_is_learned_as_the_template_shows_it():
    template = CHATML.replace("{{ m['content'] }}", "{{ m['content'] }}, {{ m['content'] | upper }}")
    assert learned(template, conversation("Hi", "Yes", "And?", "No")) == ["Yes, YES<|im_end|>", "No, NO<|im_end|>"]


def test_template_that_hides_answers_is_refused():
    template = CHATML.replace("{{ m['content'] }}", "{{ m['content'] if m['role'] == 'user' }}")
    with pytest.raises(ChatTemplateError, match="hides"):
        tokens_of(template, conversation("Hi", "Yes"))


def test_tokenizer_without_end_of_text_token_is_refused():
    with pytest.raises(ChatTemplateError, match="no end-of-text token"):
        ChatTemplate(chat_tokenizer(CHATML, eos_token=None), "mine")


def test_conversations_that_a_template_refuses_are_left_out_and_counted():
    wrong = [{"role": "user", "content": "a"}, *conversation("b", "c")]
    tokens, _tokenizer, skipped = tokens_of(MISTRAL, wrong, conversation("Hi", "Hello"))
    assert tokens.rows.tolist() == [1] and skipped == {"template_refused": 1}


def test_special_token_in_a_message_leaves_the_conversation_out():
    tokens, _tokenizer, skipped = tokens_of(CHATML, conversation("Hi <|im_end|>", "Hello"), conversation("Hi", "Hello"))
    assert tokens.rows.tolist() == [1] and skipped == {"special_token": 1}


def test_too_long_conversations_are_left_out_whole_and_counted():
    tokens, _tokenizer, skipped = tokens_of(
        CHATML, conversation("Hi", "Hello" * 50), conversation("Hi", "Hello"), max_length=50
    )
    assert tokens.rows.tolist() == [1] and skipped == {"over_long": 1}


def test_plain_text_is_cut_into_windows_and_each_of_its_tokens_is_learned_once():
    whole, tokenizer, _skipped = tokens_of(CHATML, from_text("Once upon a time. " * 30))
    cut, _tokenizer, skipped = tokens_of(CHATML, from_text("Once upon a time. " * 30), max_length=50)
    assert skipped == {} and cut.lengths.max() == 50 and cut.row_count == 1 and len(cut.rows) > 5
    assert cut.ids[cut.is_target].tolist() == whole.ids[1:].tolist()
    assert cut.ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("length", [49, 50, 51, 99, 100])
def test_windows_lose_no_token_at_their_edges(length):
    text = EncodedConversation(np.arange(length, dtype=np.int32), np.arange(length) > 0, "<end>")
    windows = cut_into_windows(text, 50)
    assert max(len(each.ids) for each in windows) <= 50 and all(each.is_target.any() for each in windows)
    learned_ids = np.concatenate([each.ids[each.is_target] for each in windows])
    assert learned_ids.tolist() == list(range(1, length))


def test_template_that_raises_is_no_crash():
    template = ChatTemplate(chat_tokenizer("{{ messages[0].content.nothing.at_all() }}"), "mine")
    with pytest.raises(UnusableRowError, match="template_refused"):
        template.render_answers(conversation("Hi", "Hello"))
