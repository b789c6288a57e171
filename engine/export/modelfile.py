"""Write a Modelfile for Ollama: the chat template of a model in Ollama's own language, if it can be said there exactly."""

from __future__ import annotations

from engine.data.conversations import Message, UnusableRowError
from engine.models.chat_template import ChatTemplate

ROLES = ("system", "user", "assistant")
MARKS = ("\ue000\ue001", "\ue001\ue002", "\ue002\ue003", "\ue003\ue004")  # contents that no template changes


def modelfile(template: ChatTemplate, end_token: str, file: str) -> str:
    """Return the content of a Modelfile for a GGUF file beside it."""
    lines = [f"FROM ./{file}", f'PARAMETER stop "{end_token}"']
    translated = translate(template)
    if translated is None:
        return "\n".join(
            [
                *lines,
                "# The chat template of this model can't be said in Ollama's language. It is in the file: llama-server --jinja uses it.",
                "",
            ]
        )
    return "\n".join([*lines, f'TEMPLATE """{translated}"""', ""])


def translate(template: ChatTemplate) -> str | None:
    """Return the chat template in Ollama's language, or None where conversations would be rendered otherwise.

    Each message has to be rendered by itself: something before its content and something after it, by its role.
    """
    try:
        parts = {role: _parts_of(template, role) for role in ROLES}
        begin = template.tokenizer.bos_token if _begins_with_bos(template) else ""
        # What the template writes before the first question if there is no system message.
        before = template.render([_message("user", MARKS[0])]).partition(MARKS[0])[0].removeprefix(begin)
        default = _without_suffix(before, parts["user"][0])
        prompt = template.render([_message("user", MARKS[0])], add_generation_prompt=True)
        ending = prompt.partition(MARKS[0])[2].removeprefix(parts["user"][1])
        system, user, assistant, other = (
            _message(role, mark) for role, mark in zip(("system", "user", "assistant", "user"), MARKS, strict=True)
        )
        for conversation in ([user], [system, user], [user, assistant, other], [system, user, assistant, other]):
            pieces = [] if conversation[0]["role"] == "system" else [default]
            pieces += [parts[each["role"]][0] + each["content"] + parts[each["role"]][1] for each in conversation]
            rendered = template.render(conversation, add_generation_prompt=True).removeprefix(begin)
            if rendered != "".join([*pieces, ending]):
                return None
    except (UnusableRowError, ValueError):
        return None
    if any(mark in text for text in (*sum(parts.values(), ()), default, ending) for mark in ("{{", "}}", '"""')):
        return None
    roles = "".join(
        f'{{{{ {"if" if number == 0 else "else if"} eq .Role "{role}" }}}}{parts[role][0]}{{{{ .Content }}}}{parts[role][1]}'
        for number, role in enumerate(ROLES)
    )
    first = f'{{{{ if ne (index .Messages 0).Role "system" }}}}{default}{{{{ end }}}}' if default else ""
    return f"{first}{{{{ range .Messages }}}}{roles}{{{{ end }}}}{{{{ end }}}}{ending}"


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _parts_of(template: ChatTemplate, role: str) -> tuple[str, str]:
    """Return what stands before and after the content of a role's message, which is the second or third of a conversation."""
    user = _message("user", MARKS[0])
    if role == "system":
        with_system = template.render([_message("system", MARKS[1]), user])
        before, _mark, rest = with_system.partition(MARKS[1])
        user_before = _parts_of(template, "user")[0]
        begin = template.tokenizer.bos_token if _begins_with_bos(template) else ""
        after = rest.partition(MARKS[0])[0]
        return before.removeprefix(begin), _without_suffix(after, user_before)
    texts = [template.render([user, _message("assistant", MARKS[1]), _message("user", MARKS[2])])]
    between = texts[0].partition(MARKS[1])
    user_to_assistant = between[0].partition(MARKS[0])[2]
    assistant_to_user = between[2].partition(MARKS[2])[0]
    user_after = between[2].partition(MARKS[2])[2]
    assistant_before = _without_prefix(user_to_assistant, user_after)
    longer = template.render(
        [user, _message("assistant", MARKS[1]), _message("user", MARKS[2]), _message("assistant", MARKS[3])]
    )
    assistant_after = longer.partition(MARKS[3])[2]
    if role == "assistant":
        return assistant_before, assistant_after
    return _without_prefix(assistant_to_user, assistant_after), user_after


def _begins_with_bos(template: ChatTemplate) -> bool:
    """Return whether both the template and the tokenizer put the token that begins a text: then programs put it once."""
    bos = template.tokenizer.bos_token
    adds = template.tokenizer("")["input_ids"][:1] == [template.tokenizer.bos_token_id]
    return bool(adds and bos and template.render([_message("user", MARKS[0])]).startswith(bos))


def _without_prefix(text: str, prefix: str) -> str:
    if not text.startswith(prefix):
        raise ValueError("The messages are not rendered one by one.")
    return text.removeprefix(prefix)


def _without_suffix(text: str, suffix: str) -> str:
    if not text.endswith(suffix):
        raise ValueError("The messages are not rendered one by one.")
    return text.removesuffix(suffix)
