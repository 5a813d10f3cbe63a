"""A prompt's turns as the one text that a local LLM reads: by its chat template, or plainly joined."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ...prompts.messages import Message, Part


def chat_text(template: Any, messages: Sequence[Message], vision: bool) -> str | None:
    """The turns by the model's own chat template, with the opening of its answer; None if it has none.

    Args:
        template: the tokenizer, or for a vision LLM the processor.
        messages: the turns.
        vision: pictures are placed by the template, so that turns are given as lists of parts.
    """
    if not getattr(template, "chat_template", None):
        return None
    import jinja2

    try:
        return _apply(template, messages, vision)
    except jinja2.TemplateError:
        if messages[0].role != "system" or len(messages) == 1:
            raise
    # Some templates (Gemma's first ones, Mistral's) refuse a system turn; there it opens the first user turn.
    first = messages[1].model_copy(update={"parts": (*messages[0].parts, Part(text="\n\n"), *messages[1].parts)})
    return _apply(template, [first, *messages[2:]], vision)


def _apply(template: Any, messages: Sequence[Message], vision: bool) -> str:
    turns = [{"role": m.role, "content": _parts(m) if vision else m.text} for m in messages]
    return str(template.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def _parts(message: Message) -> list[dict[str, str]]:
    return [{"type": "image"} if p.text is None else {"type": "text", "text": p.text} for p in message.parts]


def plain_text(messages: Sequence[Message], placeholder: str = "") -> str:
    """The turns as running text for a base model, ``placeholder`` where a picture stands.

    An answer stands on the line below its question, a blank line parts what follows. White space at the end
    goes: a base model continues a cue (``Answer:``) better than a blank after it. Where answers are turns of
    their own, the text ends with the line break that stood before them.
    """
    text = ""
    for message in messages:
        said = "".join(placeholder if p.text is None else p.text for p in message.parts).strip()
        text += ("\n" if message.role == "assistant" else "\n\n") + said
    shown = any(m.role == "assistant" for m in messages)
    return text.lstrip() + ("\n" if shown and messages[-1].role == "user" else "")


_OPENING = re.compile(r"\w[\w ]{0,30}:")


def demonstration_stops(text: str) -> tuple[str, ...]:
    """Where a base model is to be stopped: at a blank line, or when it opens a demonstration of its own.

    The opening is the label (``Text:``) of the prompt's last block, if an earlier block opens with it too.
    """
    *earlier, last = [block.strip() for block in re.split(r"\n\s*\n", text.strip())]
    opening = _OPENING.match(last)
    if opening and any(block.startswith(opening[0]) for block in earlier):
        return ("\n\n", f"\n{opening[0]}")
    return ("\n\n",)


def cut(text: str, stops: tuple[str, ...]) -> str:
    """The text before the first stop string, trimmed; as it is where there are none."""
    if not stops:
        return text
    text = text.lstrip()
    return text[: min([i for s in stops if (i := text.find(s)) >= 0], default=len(text))].rstrip()
