"""A teacher that runs in this process: any text or vision LLM that transformers loads (``hf:PATH_OR_NAME``).

Requests are answered in left-padded batches of similar length. A prompt that many requests share at its start
(system turn, guidelines, demonstrations) is computed once a batch. Answers do not depend on which requests
share a batch, up to the rounding of the number format: padding is masked, and each request draws from its own
random numbers. An answer with a JSON schema is held to it where llguidance is installed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch

from ...tasks.images import ImageFault
from ..teacher import Reply, Request, Usage, failed
from . import constraints
from .decoding import Draw, Halt, Weigh
from .local import Asked, LocalModel, best_dtype
from .prefix import shared_prefix_cache
from .probabilities import Tokens, spelling, token_texts
from .turns import cut

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
        self.local = LocalModel(model, revision)
        self.spec = spec or f"hf:{model}"
        self.sees_images = self.local.sees_images
        self.batch_size = batch_size
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = dtype or best_dtype(self.device)
        self.constrains = constraints.available()
        self._model: Any = None

    def identity(self) -> dict[str, Any]:
        """Engine, model, revision of its weights, number format, and what holds answers to their schemas."""
        said = self.local.identity("transformers", self.dtype)
        return said | ({"schemas": "llguidance"} if self.constrains else {})

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield the replies of each batch when it is finished."""
        self._load()
        todo, free = iter(requests), 0
        while window := list(islice(todo, self.batch_size * WINDOW)):
            free += 0 if self.constrains else sum(r.prompt.answer_schema is not None for r in window)
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
        if free:
            log.warning(
                "%d answers were not held to their JSON schema while they were generated: llguidance is not "
                "installed (pip install llguidance)",
                free,
            )

    def close(self) -> None:
        """Free the weights; the next `generate` would load them again."""
        self._model = None
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _load(self) -> None:
        """The weights, once."""
        if self._model is not None:
            return
        import transformers

        auto = transformers.AutoModelForImageTextToText if self.sees_images else transformers.AutoModelForCausalLM
        model: Any = auto.from_pretrained(self.local.path, dtype=getattr(torch, self.dtype), use_safetensors=True)
        self.tokenizer = self.local.tokenizer
        ends = model.generation_config.eos_token_id
        self.ends = set(ends if isinstance(ends, list) else [ends]) | {self.tokenizer.eos_token_id}
        self.ends.discard(None)
        # The vendor's sampling defaults (top-p, repetition penalty) do not hold: the request alone decides.
        model.generation_config = transformers.GenerationConfig(
            do_sample=False, eos_token_id=sorted(self.ends), pad_token_id=self.tokenizer.pad_token_id
        )
        self._grammars: constraints.Grammars | None = None
        self._model = model.to(self.device).eval()

    def _prepare(self, request: Request) -> Asked | Reply:
        """The request as the model's text, or why it cannot be one."""
        schema = request.prompt.answer_schema if self.constrains else None
        if schema is not None:
            try:
                self._grammar().matcher(schema)
            except constraints.SchemaFault as fault:
                return failed(request, "rejected", str(fault))
        asked = self.local.ask(request, self.spec, constrained=schema is not None)
        if isinstance(asked, Reply) or asked.images:
            return asked
        return asked.too_long(asked.length, self.local.context) or asked

    def _grammar(self) -> constraints.Grammars:
        """The grammars of this model's words, made when a schema first asks for them (a second or so)."""
        if self._grammars is None:
            vocabulary = self.local.config.get_text_config().vocab_size
            self._grammars = constraints.Grammars(self.tokenizer, vocabulary, self.ends)
        return self._grammars

    def _answer(self, batch: list[Asked]) -> Iterator[Reply]:
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
            yield failed(batch[0].request, "transport", f"the engine failed: {problem}")
            return
        log.warning("a batch of %d failed (%s); its requests are asked one by one", len(batch), problem)
        for asked in batch:
            yield from self._answer([asked])

    @torch.inference_mode()
    def _run(self, batch: list[Asked]) -> list[Reply]:
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
        requests = [a.request for a in batch]
        weigh = Weigh(requests, Draw(requests))
        output = self._model.generate(
            **inputs,
            max_new_tokens=max(halt.limits),
            stopping_criteria=[halt],
            logits_processor=[*self._constraint(batch, width), weigh],
        )
        seconds = (time.perf_counter() - started) / len(batch)
        prompt_tokens = inputs["attention_mask"].sum(1).tolist()
        for row, asked in enumerate(batch):
            said = output[row, width : width + halt.lengths[row]]
            whole = self._decode(said)
            text = cut(whole, asked.stops)
            usage = Usage(prompt_tokens=prompt_tokens[row], completion_tokens=halt.lengths[row])
            replies.append(
                Reply(
                    key=asked.request.key,
                    text=text,
                    finish=halt.finish[row],
                    usage=usage,
                    seconds=seconds,
                    tokens=self._tokens(said.tolist(), weigh.logprobs.get(row), whole, text),
                )
            )
        return replies

    def _decode(self, ids: Any) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _tokens(self, ids: list[int], logprobs: list[float] | None, whole: str, text: str) -> Tokens:
        """The tokens of an answer ``text``, which is what is kept of the ``whole``; none if they were not noted."""
        if logprobs is None:
            return ()
        return spelling(token_texts(self._decode, ids, whole), logprobs[: len(ids)], text)

    def _constraint(self, batch: list[Asked], width: int) -> list[constraints.Constraint]:
        """What holds the batch's answers to their schemas, if any has one."""
        schemas = [a.request.prompt.answer_schema for a in batch]
        if not self.constrains or all(schema is None for schema in schemas):
            return []
        return [self._grammar().constraint(schemas, width)]

    def _text_only(self, batch: list[Asked]) -> dict[str, Any]:
        """``input_ids`` and ``attention_mask`` ``[batch, width]``, and the shared start if computed."""
        padded = self.tokenizer.pad({"input_ids": [a.ids for a in batch]}, return_tensors="pt").to(self.device)
        cache = shared_prefix_cache(self._model, [a.ids for a in batch])
        inputs = {"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"]}
        return inputs | ({"past_key_values": cache} if cache is not None else {})

    def _with_images(self, batch: list[Asked]) -> tuple[dict[str, Any], list[Asked], list[Reply]]:
        """The processor's inputs for the requests that can be asked, these, and the others' failures."""
        bad, good, pictures = [], [], []
        for asked in batch:
            try:
                opened = [image.open() for m in asked.request.prompt.messages for image in m.images]
            except ImageFault as fault:
                bad.append(failed(asked.request, "image", str(fault)))
            else:
                good.append(asked)
                pictures.append(opened)
        if not good:
            return {}, [], bad
        inputs = self._processed(good, pictures)
        lengths = inputs["attention_mask"].sum(1).tolist()
        verdicts = [a.too_long(n, self.local.context) for a, n in zip(good, lengths, strict=True)]
        if any(verdicts):
            bad += [v for v in verdicts if v]
            keep = [i for i, v in enumerate(verdicts) if not v]
            good, pictures = [good[i] for i in keep], [pictures[i] for i in keep]
            inputs = self._processed(good, pictures) if good else {}
        return inputs, good, bad

    def _processed(self, batch: list[Asked], pictures: list[list[Any]]) -> dict[str, Any]:
        texts = [a.text for a in batch]
        inputs = self.local.processor(
            text=texts, images=pictures, padding=True, return_tensors="pt", add_special_tokens=False
        ).to(self.device)
        floats = {k: v.to(self._model.dtype) for k, v in inputs.items() if torch.is_floating_point(v)}
        return {**inputs, **floats}
