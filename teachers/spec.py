"""From a spec string to a teacher."""

from __future__ import annotations

from .teacher import Teacher

#: The forms a spec may have, with what each means.
FORMS = {
    "demo": "Gemma 3 270M out of its Python package, offline",
    "hf:PATH_OR_NAME": "any text or vision LLM of transformers, in this process",
    "openai:MODEL@BASE_URL": "any OpenAI-compatible endpoint, for example openai:qwen3@http://localhost:8000/v1",
}


class UnknownTeacher(ValueError):
    """A spec that names no teacher: lists the forms there are."""

    def __init__(self, spec: str) -> None:
        forms = "; ".join(f"{form} ({meaning})" for form, meaning in FORMS.items())
        super().__init__(f"unknown teacher {spec!r}; the forms are: {forms}")


def teacher(spec: str) -> Teacher:
    """The teacher that a spec names. Engines are imported only when they are named.

    Raises:
        UnknownTeacher: the spec has none of the `FORMS`.
        ModelNotFound: the form is right, but there is no such model.
    """
    kind, _, name = spec.partition(":")
    if spec == "demo":
        from .demo import demo

        return demo()
    if kind == "hf" and name:
        from .transformers import TransformersTeacher

        return TransformersTeacher(name)
    if kind == "openai" and name:
        from .openai import OpenAITeacher

        return OpenAITeacher.of_spec(spec)
    raise UnknownTeacher(spec.partition("@")[0])  # what follows may hold credentials
