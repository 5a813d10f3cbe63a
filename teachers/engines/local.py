"""What the engines that run a model on this machine share: its files, and a request as the text it reads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...models.names import resolve
from ...models.packaged import ModelNotFound
from ...models.torchvision_guard import guard
from ..teacher import Reply, Request, failed
from .turns import chat_text, demonstration_stops, plain_text


@dataclass(frozen=True)
class Asked:
    """A request as the model's text: token ids with one placeholder a picture, and where its answer ends.

    ``stops`` is empty for an answer that is held to a schema: its grammar ends it.
    """

    request: Request
    text: str
    images: int
    stops: tuple[str, ...]
    ids: list[int]

    @property
    def length(self) -> int:
        """Tokens of the text; a picture counts as one until it is seen."""
        return len(self.ids)

    def too_long(self, length: int, context: int | None) -> Reply | None:
        """A failed reply if a prompt of ``length`` tokens and its answer do not fit into the context together."""
        limit = self.request.prompt.max_tokens
        if context is None or length + limit <= context:
            return None
        detail = f"prompt {length} + answer {limit} tokens; the context is {context}"
        return failed(self.request, "too_long", detail)


class LocalModel:
    """A model's files: configuration, tokenizer, identity. The weights are the engine's.

    The configuration is read at once, so that a wrong name fails early; the tokenizer when it is first needed.

    Args:
        model: a folder, a hub name, or a packaged model's short name.
        revision: what the identity says of the weights; the hub's commit or the folder's hash if not given.

    Raises:
        ModelNotFound: there is no such model on this machine (or hub).
    """

    def __init__(self, model: str, revision: str = "") -> None:
        guard()
        import transformers
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as SEES

        self.name, self.path = model, resolve(model)
        try:
            self.config: Any = transformers.AutoConfig.from_pretrained(self.path)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelNotFound(f"no model {model!r} that transformers can read: {reason}") from None
        self.sees_images = self.config.model_type in SEES
        self.context: int | None = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        self._revision = revision

    def identity(self, engine: str, dtype: str) -> dict[str, Any]:
        """Engine, model, revision of its weights and number format."""
        if not self._revision:
            commit = getattr(self.config, "_commit_hash", None)
            self._revision = commit or folder_digest(Path(self.path))
        name = Path(self.name).resolve().name if Path(self.name).is_dir() else self.name
        return {"engine": engine, "model": name, "revision": self._revision, "dtype": dtype}

    @cached_property
    def processor(self) -> Any:
        """What turns pictures and text into inputs; None for a text LLM."""
        import transformers

        return transformers.AutoProcessor.from_pretrained(self.path) if self.sees_images else None

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer, padding on the left."""
        import transformers

        made: Any = (
            self.processor.tokenizer if self.processor else transformers.AutoTokenizer.from_pretrained(self.path)
        )
        made.padding_side = "left"
        if made.pad_token_id is None:
            made.pad_token = made.eos_token
        return made

    def ask(self, request: Request, spec: str, constrained: bool) -> Asked | Reply:
        """The request as the model's text, or why it cannot be one."""
        messages = request.prompt.messages
        images = sum(len(m.images) for m in messages)
        if images and not self.sees_images:
            return failed(request, "image", f"{spec} cannot see; put the pictures into words first")
        placeholder = self._placeholder() if images else ""
        if images and any(placeholder in m.text for m in messages):
            return failed(request, "image", f"the text holds {placeholder!r}, which this model reads as a picture")
        stops = request.prompt.stop
        text = chat_text(self.processor or self.tokenizer, messages, vision=self.sees_images)
        if text is not None:
            ids = self._tokens(text, add_bos=False)
        else:
            plain = plain_text(messages, placeholder)
            ids = self._tokens(plain, add_bos=True)
            text, stops = (self.tokenizer.bos_token or "") + plain, stops + demonstration_stops(plain)
        return Asked(request, text, images, () if constrained else stops, ids)

    def _placeholder(self) -> str:
        """What stands for a picture in the text that the processor reads (Gemma 3 has two such tokens)."""
        return str(getattr(self.processor, "boi_token", None) or self.processor.image_token)

    def _tokens(self, text: str, add_bos: bool) -> list[int]:
        """Token ids; plain text gets the ``<bos>`` that some tokenizers leave out (a chat has its own)."""
        ids = list(self.tokenizer(text, add_special_tokens=add_bos)["input_ids"])
        bos = self.tokenizer.bos_token_id
        return [bos, *ids] if add_bos and bos is not None and ids[:1] != [bos] else ids


def best_dtype(device: str) -> str:
    """The number format to run in: ``bfloat16`` where the device computes in it."""
    import torch

    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


def folder_digest(folder: Path) -> str:
    """SHA-256 over a local model's weights, configuration, tokenizer and templates; not over its path."""
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in {".safetensors", ".json", ".jinja", ".model", ".txt"}:
            with path.open("rb") as file:
                whole.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
