"""From a spec string to a teacher."""

from __future__ import annotations

from typing import Any

from ..tasks.task import DataFault
from .teacher import Teacher

#: The forms a spec may have, with what each means.
FORMS = {
    "demo": "Gemma 3 270M out of its Python package, offline",
    "hf:PATH_OR_NAME": "any text or vision LLM of transformers, in this process",
    "vllm:PATH_OR_NAME": "the same on vLLM, far faster; a LoRA adapter by vllm:MODEL?adapter=DIR",
    "openai:MODEL@BASE_URL": "any OpenAI-compatible endpoint, for example openai:qwen3@http://localhost:8000/v1",
    "batch:DIR?model=NAME": "OpenAI Batch files, written to DIR and answered later by whoever",
}


class UnknownTeacher(ValueError):
    """A spec that names no teacher: lists the forms there are."""

    def __init__(self, spec: str) -> None:
        forms = "; ".join(f"{form} ({meaning})" for form, meaning in FORMS.items())
        super().__init__(f"unknown teacher {spec!r}; the forms are: {forms}")


def teacher(spec: str, **limits: Any) -> Teacher:
    """The teacher that a spec names. Engines are imported only when they are named.

    Args:
        limits: for an ``openai:`` endpoint: ``concurrency``, ``rpm``, ``tpm``, ``timeout``, ``patience`` (see
            `OpenAITeacher`); None stands for the default.

    Raises:
        UnknownTeacher: the spec has none of the `FORMS`.
        DataFault: limits are given for a teacher that is no endpoint.
        ModelNotFound: the form is right, but there is no such model.
    """
    kind, _, name = spec.partition(":")
    limits = {option: value for option, value in limits.items() if value is not None}
    if limits and kind != "openai":
        raise DataFault(
            spec.partition("@")[0], f"has no {', '.join(limits)}", "only an openai: endpoint has such limits"
        )
    if spec == "demo":
        from .engines.demo import demo

        return demo()
    if kind == "hf" and name:
        from .engines.transformers import TransformersTeacher

        return TransformersTeacher(name)
    if kind == "vllm" and name.partition("?")[0]:
        from .engines.vllm import VLLMTeacher

        return VLLMTeacher.of_spec(spec)
    if kind == "openai" and name:
        from .engines.openai import OpenAITeacher

        return OpenAITeacher.of_spec(spec, **limits)
    if kind == "batch" and name.partition("?")[0]:
        from .engines.batch import BatchTeacher

        return BatchTeacher.of_spec(spec)
    raise UnknownTeacher(spec.partition("@")[0])  # what follows may hold credentials
