"""Plain chat templates for models that came without one: base models such as GPT-2, and DialoGPT."""

from __future__ import annotations

from typing import Any

PLAIN_STOP = "\nUser:"

PLAIN = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}\n\n"
    "{% elif message['role'] == 'user' %}User: {{ message['content'] }}\n"
    "{% else %}Assistant: {{ message['content'] }}\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)

DIALOGUE = "{% for message in messages %}{{ message['content'] }}{{ eos_token }}{% endfor %}"


def plain_template(config: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return the template for a model without one, and the strings at which its answer ends.

    DialoGPT was trained on turns that are separated by its end-of-text token (its model card); its config.json
    names the task "conversational".
    """
    if "conversational" in (config.get("task_specific_params") or {}):
        return DIALOGUE, ()
    return PLAIN, (PLAIN_STOP,)
