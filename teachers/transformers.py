"""A teacher that runs in this process: any text or vision LLM that transformers loads (``hf:PATH_OR_NAME``).

Requests are answered in left-padded batches of similar length. A prompt that many requests share at its start
(system turn, guidelines, demonstrations) is computed once a batch. Answers do not depend on which requests
share a batch, up to the rounding of the number format: padding is masked, and each request draws from its own
random numbers.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ..models.names import resolve
from ..models.packaged import ModelNotFound
from ..models.torchvision_guard import guard
from ..tasks.images import ImageFault
from .decoding import Draw, Halt
from .prefix import shared_prefix_cache
from .teacher import Failure, Reply, Request, Usage
from .turns import chat_text, cut, demonstration_stops, plain_text

log = logging.getLogger(__name__)

#: So many batches are read ahead and sorted by length; more pads less, but answers come later and out of
#: order.
WINDOW = 8


class TransformersTeacher:
    """An LLM of transformers as a teacher.

    The configuration is read at once (a wrong name fails early), the weights at the first `generate`.

    Args:
        model: a folder, a hub name, or a packaged model's short name.
        spec: what made it; ``hf:`` and the model if not given.
        revision: what its identity says of the weights; the hub's commit or the folder's hash if not given.
        batch_size: most requests answered together; halves or doubles memory, never changes answers.
        dtype: ``bfloat16`` where the device computes in it, else ``float32`` (``float16`` on older GPUs).
        device: the GPU if there is one, else the CPU.

    Raises:
        ModelNotFound: there is no such model on this machine (or hub).
    """

    def __init__(
        self,
        model: str,
        *,
        spec: str = "",
        revision: str = "",
        batch_size: int = 16,
        dtype: str = "",
        device: str = "",
    ) -> None:
        guard()
        import transformers
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as SEES

        self.name, self.path, self.spec = model, resolve(model), spec or f"hf:{model}"
        self.batch_size = batch_size
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = dtype or _best_dtype(self.device)
        try:
            self.config = transformers.AutoConfig.from_pretrained(self.path)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelNotFound(f"no model {model!r} that transformers can read: {reason}") from None
        self.sees_images = self.config.model_type in SEES
        self.context = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        self._revision = revision
        self._model: Any = None

    def identity(self) -> dict[str, Any]:
        """Engine, model, revision of its weights and number format."""
        if not self._revision:
            commit = getattr(self.config, "_commit_hash", None)
            self._revision = commit or _folder_digest(Path(self.path))
        name = Path(self.name).resolve().name if Path(self.name).is_dir() else self.name
        return {"engine": "transformers", "model": name, "revision": self._revision, "dtype": self.dtype}

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield the replies of each batch when it is finished."""
        self._load()
        todo = iter(requests)
        while window := list(islice(todo, self.batch_size * WINDOW)):
            ready = []
            for request in window:
                asked = self._prepare(request)
                if isinstance(asked, Reply):
                    yield asked
                else:
                    ready.append(asked)
            ready.sort(key=lambda a: (bool(a.images), a.request.prompt.digest, a.length))
            while ready:
                # Some processors cannot take a batch in which only some prompts have pictures.
                batch = [a for a in ready[: self.batch_size] if bool(a.images) == bool(ready[0].images)]
                del ready[: len(batch)]
                yield from self._answer(batch)

    def close(self) -> None:
        """Free the weights; the next `generate` would load them again."""
        self._model = None
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _load(self) -> None:
        """Weights and tokenizer (or processor), once."""
        if self._model is not None:
            return
        import transformers

        auto = transformers.AutoModelForImageTextToText if self.sees_images else transformers.AutoModelForCausalLM
        model: Any = auto.from_pretrained(self.path, dtype=getattr(torch, self.dtype), use_safetensors=True)
        self.processor: Any = transformers.AutoProcessor.from_pretrained(self.path) if self.sees_images else None
        self.tokenizer: Any = (
            self.processor.tokenizer if self.processor else transformers.AutoTokenizer.from_pretrained(self.path)
        )
        ends = model.generation_config.eos_token_id
        self.ends = set(ends if isinstance(ends, list) else [ends]) | {self.tokenizer.eos_token_id}
        self.ends.discard(None)
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        # The vendor's sampling defaults (top-p, repetition penalty) do not hold: the request alone decides.
        model.generation_config = transformers.GenerationConfig(
            do_sample=False, eos_token_id=sorted(self.ends), pad_token_id=self.tokenizer.pad_token_id
        )
        self._model = model.to(self.device).eval()

    def _prepare(self, request: Request) -> _Asked | Reply:
        """The request as the model's text, or why it cannot be one."""
        messages = request.prompt.messages
        images = sum(len(m.images) for m in messages)
        if images and not self.sees_images:
            return _failed(request, "image", f"{self.spec} cannot see; put the pictures into words first")
        placeholder = self._placeholder() if images else ""
        if images and any(placeholder in m.text for m in messages):
            return _failed(request, "image", f"the text holds {placeholder!r}, which this model reads as a picture")
        text = chat_text(self.processor or self.tokenizer, messages, vision=self.sees_images)
        if text is not None:
            asked = _Asked(request, text, images, request.prompt.stop, self._tokens(text, add_bos=False))
        else:
            text = plain_text(messages, placeholder)
            ids = self._tokens(text, add_bos=True)
            stops = request.prompt.stop + demonstration_stops(text)
            asked = _Asked(request, (self.tokenizer.bos_token or "") + text, images, stops, ids)
        return (images == 0 and self._too_long(asked, asked.length)) or asked

    def _placeholder(self) -> str:
        """What stands for a picture in the text that the processor reads (Gemma 3 has two such tokens)."""
        return str(getattr(self.processor, "boi_token", None) or self.processor.image_token)

    def _tokens(self, text: str, add_bos: bool) -> list[int]:
        """Token ids; plain text gets the ``<bos>`` that some tokenizers leave out (a chat has its own)."""
        ids = list(self.tokenizer(text, add_special_tokens=add_bos)["input_ids"])
        bos = self.tokenizer.bos_token_id
        return [bos, *ids] if add_bos and bos is not None and ids[:1] != [bos] else ids

    def _too_long(self, asked: _Asked, length: int) -> Reply | None:
        """A failed reply if prompt and answer do not fit into the context together."""
        limit = asked.request.prompt.max_tokens
        if self.context is None or length + limit <= self.context:
            return None
        return _failed(
            asked.request,
            "too_long",
            f"prompt {length} + answer {limit} tokens; the context is {self.context}",
        )

    def _answer(self, batch: list[_Asked]) -> Iterator[Reply]:
        """Replies of one batch; if it fails as a whole (memory, a processor's error), each request alone."""
        try:
            replies = self._run(batch)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"[:300]
        else:
            yield from replies
            return
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        if len(batch) == 1:
            yield _failed(batch[0].request, "transport", f"the engine failed: {problem}")
            return
        log.warning("a batch of %d failed (%s); its requests are asked one by one", len(batch), problem)
        for asked in batch:
            yield from self._answer([asked])

    @torch.inference_mode()
    def _run(self, batch: list[_Asked]) -> list[Reply]:
        started = time.perf_counter()
        inputs, batch, replies = self._with_images(batch) if batch[0].images else (self._text_only(batch), batch, [])
        if not batch:
            return replies
        width = inputs["input_ids"].shape[1]
        halt = Halt(
            [a.request.prompt.max_tokens for a in batch],
            [a.stops for a in batch],
            width,
            self.ends,
            self.tokenizer,
        )
        output = self._model.generate(
            **inputs,
            max_new_tokens=max(halt.limits),
            stopping_criteria=[halt],
            logits_processor=[Draw([a.request for a in batch])],
        )
        seconds = (time.perf_counter() - started) / len(batch)
        prompt_tokens = inputs["attention_mask"].sum(1).tolist()
        for row, asked in enumerate(batch):
            said = output[row, width : width + halt.lengths[row]]
            text = self.tokenizer.decode(said, skip_special_tokens=True)
            usage = Usage(prompt_tokens=prompt_tokens[row], completion_tokens=halt.lengths[row])
            replies.append(
                Reply(
                    key=asked.request.key,
                    text=cut(text, asked.stops),
                    finish=halt.finish[row],
                    usage=usage,
                    seconds=seconds,
                )
            )
        return replies

    def _text_only(self, batch: list[_Asked]) -> dict[str, Any]:
        """``input_ids`` and ``attention_mask`` ``[batch, width]``, and the shared start if computed."""
        padded = self.tokenizer.pad({"input_ids": [a.ids for a in batch]}, return_tensors="pt").to(self.device)
        cache = shared_prefix_cache(self._model, [a.ids for a in batch])
        inputs = {"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"]}
        return inputs | ({"past_key_values": cache} if cache is not None else {})

    def _with_images(self, batch: list[_Asked]) -> tuple[dict[str, Any], list[_Asked], list[Reply]]:
        """The processor's inputs for the requests that can be asked, these, and the others' failures."""
        failed, good, pictures = [], [], []
        for asked in batch:
            try:
                opened = [image.open() for m in asked.request.prompt.messages for image in m.images]
            except ImageFault as fault:
                failed.append(_failed(asked.request, "image", str(fault)))
            else:
                good.append(asked)
                pictures.append(opened)
        if not good:
            return {}, [], failed
        inputs = self._processed(good, pictures)
        lengths = inputs["attention_mask"].sum(1).tolist()
        verdicts = [self._too_long(a, n) for a, n in zip(good, lengths, strict=True)]
        if any(verdicts):
            failed += [v for v in verdicts if v]
            keep = [i for i, v in enumerate(verdicts) if not v]
            good, pictures = [good[i] for i in keep], [pictures[i] for i in keep]
            inputs = self._processed(good, pictures) if good else {}
        return inputs, good, failed

    def _processed(self, batch: list[_Asked], pictures: list[list[Any]]) -> dict[str, Any]:
        texts = [a.text for a in batch]
        inputs = self.processor(
            text=texts, images=pictures, padding=True, return_tensors="pt", add_special_tokens=False
        ).to(self.device)
        floats = {k: v.to(self._model.dtype) for k, v in inputs.items() if torch.is_floating_point(v)}
        return {**inputs, **floats}


@dataclass(frozen=True)
class _Asked:
    """A request as the model's text, with its number of pictures, stop strings and tokens of the text."""

    request: Request
    text: str
    images: int
    stops: tuple[str, ...]
    ids: list[int]

    @property
    def length(self) -> int:
        return len(self.ids)


def _failed(request: Request, failure: Failure, detail: str) -> Reply:
    return Reply(key=request.key, finish="error", failure=failure, detail=detail)


def _best_dtype(device: str) -> str:
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


def _folder_digest(folder: Path) -> str:
    """SHA-256 over a local model's weights, configuration, tokenizer and templates; not over its path."""
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in {".safetensors", ".json", ".jinja", ".model", ".txt"}:
            with path.open("rb") as file:
                whole.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
