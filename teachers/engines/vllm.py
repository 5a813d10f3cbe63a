"""A teacher that runs in this process on vLLM: ``vllm:PATH_OR_NAME``, text or vision LLMs, LoRA adapters.

The model reads the very text that `transformers` gives it: by its chat template, or plainly joined for a base
model, pictures where the template placed them. A prompt's start that was computed before is not computed again
(prefix caching), nor is a picture (it is known by the hash of its content). An answer with a JSON schema is held
to it by vLLM's own guidance backend, white space as in `constraints`. Replies come out as they finish: at any
moment no more than `IN_FLIGHT` answers are on their way, and all that is lost with the process is these.

vLLM's surface is narrow here, so that another release can be followed: ``LLM`` to start it, and of its engine
``renderer.render_cmpl``, ``add_request``, ``step`` and ``abort_request``.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count, islice
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from ...models.packaged import ModelNotFound
from ...models.torchvision_guard import guard
from ...tasks.images import ImageFault
from ..teacher import Finish, Reply, Request, Usage, failed, sampling_seed
from .constraints import SPACING
from .local import Asked, LocalModel, best_dtype, folder_digest
from .prefix import prefix_order
from .probabilities import Tokens, spelling, token_texts
from .turns import cut

#: So many requests are with the engine at once: as many as it decodes together, and pictures of no more in memory.
IN_FLIGHT = 256
#: So many requests are read ahead and put in an order in which equal starts meet.
WINDOW = 4096
#: An answer that says the same up to 32 tokens four times over (at least 32 tokens in all) is stopped as a loop.
LOOP = {"min_pattern_size": 8, "max_pattern_size": 32, "min_count": 4}
#: On the CPU, memory for keys and values where ``VLLM_CPU_KVCACHE_SPACE`` (in GiB) does not say.
CPU_CACHE_BYTES = 1 << 30
#: On the CPU, tokens in a block of the prefix cache: a shared start counts in whole blocks (vLLM's own default is 128).
CPU_BLOCK = 32
#: The ranks that vLLM has room for; an adapter takes the next larger one.
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


class WrongOption(ValueError):
    """A spec with an option that there is not: lists those there are."""


class VLLMTeacher:
    """An LLM of vLLM as a teacher.

    The configuration is read at once (a wrong name fails early), the weights at the first `generate`.

    Args:
        model: a folder, a hub name, or a packaged model's short name.
        spec: what made it; ``vllm:`` and the model if not given.
        revision: what its identity says of the weights; the hub's commit or the folder's hash if not given.
        adapter: a PEFT LoRA adapter's folder.
        dtype: ``bfloat16`` where the device computes in it, else ``float32`` (``float16`` on older GPUs).
        gpus: so many GPUs share the model (tensor parallel).
        context: most tokens of prompt and answer; as many as the model reads and memory holds if not given.
        prefix_caching: False computes every prompt anew (for comparison; the answers are the same).

    Raises:
        ModelNotFound: there is no such model or adapter on this machine, or vLLM is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        spec: str = "",
        revision: str = "",
        adapter: str = "",
        dtype: str = "",
        gpus: int = 1,
        context: int = 0,
        prefix_caching: bool = True,
    ) -> None:
        if find_spec("vllm") is None:
            raise ModelNotFound(
                f"model {model!r} is to run on vLLM, which is not installed: pip install 'magister[vllm]'; on a "
                "machine without a GPU see `make test-vllm` for the packages of its CPU build"
            )
        guard()
        import torch

        self.local = LocalModel(model, revision)
        self.spec = spec or f"vllm:{model}"
        self.sees_images = self.local.sees_images
        self.on_gpu = torch.cuda.is_available()
        self.dtype = dtype or best_dtype("cuda" if self.on_gpu else "cpu")
        self.adapter, self._rank = adapter, _rank(adapter)
        self.gpus, self._asked_context, self.prefix_caching = gpus, context, prefix_caching
        self._engine: Any = None

    @classmethod
    def of_spec(cls, spec: str) -> VLLMTeacher:
        """The teacher of ``vllm:MODEL`` or ``vllm:MODEL?adapter=DIR&gpus=2&context=8192`` (each part optional).

        Raises:
            WrongOption: what follows the question mark is no option.
            ModelNotFound: see the class.
        """
        model, mark, query = spec.partition(":")[2].partition("?")
        kinds = {"adapter": str, "gpus": int, "context": int}
        options: dict[str, Any] = {}
        try:
            for name, value in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(mark)):
                options[name] = kinds[name](value)
        except (LookupError, ValueError):
            raise WrongOption(
                f"{spec!r}: after the ? may stand adapter=DIR, gpus=N and context=N, with & between"
            ) from None
        return cls(model, spec=spec, **options)

    def identity(self) -> dict[str, Any]:
        """Engine, model, revision of its weights, number format, what holds answers to schemas, the adapter."""
        said = self.local.identity("vllm", self.dtype) | {"schemas": "llguidance"}
        return said | ({"adapter": folder_digest(Path(self.adapter))} if self.adapter else {})

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield each reply when it is finished. What is on its way when the caller stops is given up."""
        self._load()
        todo = _in_prefix_order(requests)
        flying: dict[str, _Flight] = {}
        try:
            while True:
                while len(flying) < IN_FLIGHT and (request := next(todo, None)) is not None:
                    taken = self._submit(request)
                    if isinstance(taken, Reply):
                        yield taken
                    else:
                        flying[taken.id] = taken
                if not flying:
                    return
                for output in self._engine.step():
                    flight = flying.get(output.request_id)
                    reply = self._landed(output, flight) if flight else None
                    if reply is not None:
                        del flying[output.request_id]
                        yield reply
        finally:
            if flying:
                with suppress(Exception):  # an engine that broke down has nothing to give up
                    self._engine.abort_request(list(flying))

    def close(self) -> None:
        """End the engine and its processes; the next `generate` would start it again."""
        if self._engine is not None:
            self._engine.engine_core.shutdown()
            self._engine = None

    def _load(self) -> None:
        """Start the engine, once. What the user has set in the environment holds."""
        if self._engine is not None:
            return
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        settings: dict[str, Any] = {}
        if not self.on_gpu:
            # One process: it starts in a fifth of the time, and the guard of torchvision holds in it.
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
            settings |= {"enforce_eager": True, "block_size": CPU_BLOCK}
            if "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
                settings["kv_cache_memory_bytes"] = CPU_CACHE_BYTES
        import vllm

        if guard():
            _import_in_this_process(self.local.config)
        if self.adapter:
            settings |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": self._rank}
        self._engine = vllm.LLM(
            self.local.path,
            dtype=self.dtype,
            tensor_parallel_size=self.gpus,
            max_model_len=self._asked_context or -1,  # -1: what memory holds of the model's own
            enable_prefix_caching=self.prefix_caching,
            # Not xgrammar: without free white space it writes no blank at all, a form that our demonstrations never
            # show. Gemma 3 270M then said half as much (731 tokens for 1,515, 64 posts), `{"entities":[]}` wherever
            # it was looked at.
            structured_outputs_config={"backend": "guidance", "disable_any_whitespace": True},
            limit_mm_per_prompt={"video": 0, "audio": 0},
            load_format="safetensors",
            use_tqdm_on_load=False,
            **settings,
        ).llm_engine
        self.context = int(self._engine.model_config.max_model_len)
        self._numbers = count()

    def _submit(self, request: Request) -> _Flight | Reply:
        """Hand a request to the engine, or say why it cannot be asked; nothing of it can stop the others."""
        asked = self.local.ask(request, self.spec, constrained=request.prompt.answer_schema is not None)
        if isinstance(asked, Reply):
            return asked
        too_long = asked.too_long(asked.length, self.context)
        if too_long:
            return too_long
        flight = _Flight(str(next(self._numbers)), asked, time.perf_counter())
        try:
            (ready,) = self._engine.renderer.render_cmpl([_prompt(asked)])
            too_long = asked.too_long(len(ready["prompt_token_ids"]), self.context)  # now its pictures are counted
            if too_long:
                return too_long
            self._engine.add_request(flight.id, ready, self._sampling(asked), lora_request=self._lora())
        except ImageFault as fault:
            return failed(request, "image", str(fault))
        except Exception as error:
            return failed(request, "rejected", f"the engine does not take it: {type(error).__name__}: {error}"[:300])
        return flight

    def _sampling(self, asked: Asked) -> Any:
        """What decides how the answer is drawn; the vendor's sampling defaults (top-p, penalties) do not hold."""
        from vllm.sampling_params import (
            RepetitionDetectionParams,
            RequestOutputKind,
            SamplingParams,
            StructuredOutputsParams,
        )

        request, schema = asked.request, asked.request.prompt.answer_schema
        return SamplingParams(
            temperature=request.temperature,
            seed=sampling_seed(request) if request.temperature > 0 else None,
            max_tokens=request.prompt.max_tokens,
            logprobs=0 if request.logprobs else None,  # 0: of the chosen token, and of no other
            repetition_detection=RepetitionDetectionParams(**LOOP),
            structured_outputs=StructuredOutputsParams(json={**schema, "x-guidance": SPACING}) if schema else None,
            # With stop strings each token is looked at, see `_landed`; vLLM's own would end an answer at a
            # blank line before its first word.
            output_kind=RequestOutputKind.CUMULATIVE if asked.stops else RequestOutputKind.FINAL_ONLY,
        )

    def _lora(self) -> Any:
        if not self.adapter:
            return None
        from vllm.lora.request import LoRARequest

        return LoRARequest("adapter", 1, self.adapter)

    def _landed(self, output: Any, flight: _Flight) -> Reply | None:
        """The reply, if the answer has ended by itself or at one of its stop strings."""
        said, asked = output.outputs[0], flight.asked
        stopped = any(stop in said.text.lstrip() for stop in asked.stops)
        if not (stopped or output.finished):
            return None
        if not output.finished:
            self._engine.abort_request([flight.id])
        if not stopped and said.finish_reason not in ("stop", "length", "repetition"):
            return failed(asked.request, "transport", f"the engine gave it up: {said.finish_reason}")
        finish: Finish = "length" if said.finish_reason == "length" and not stopped else "stop"
        text = cut(said.text, asked.stops)
        return Reply(
            key=asked.request.key,
            text=text,
            finish=finish,
            detail="stopped by the engine: it repeats itself" if said.finish_reason == "repetition" else "",
            usage=Usage(
                prompt_tokens=len(output.prompt_token_ids),
                completion_tokens=len(said.token_ids),
                cached_tokens=output.num_cached_tokens or 0,
            ),
            seconds=time.perf_counter() - flight.started,
            tokens=_tokens(self.local.tokenizer, said, text) if asked.request.logprobs else (),
        )


@dataclass(frozen=True)
class _Flight:
    """A request on its way: the engine's name for it, and when it was handed over."""

    id: str
    asked: Asked
    started: float


def _tokens(tokenizer: Any, said: Any, text: str) -> Tokens:
    """The tokens of an answer ``text``, which is what is kept of ``said``, the engine's completion.

    vLLM masks before it weighs, and weighs before temperature (``logprobs_mode`` as it is by default).
    """
    ids = list(said.token_ids)
    logprobs = [at[token].logprob for at, token in zip(said.logprobs, ids, strict=True)]
    texts = token_texts(lambda some: str(tokenizer.decode(some, skip_special_tokens=True)), ids, said.text)
    return spelling(texts, logprobs, text)


def _in_prefix_order(requests: Iterable[Request]) -> Iterator[Request]:
    todo = iter(requests)
    while window := list(islice(todo, WINDOW)):
        yield from prefix_order(window)


def _prompt(asked: Asked) -> dict[str, Any]:
    """A request as vLLM takes it: token ids, pictures, and their content hashes, so that none is read twice."""
    images = [image for message in asked.request.prompt.messages for image in message.images]
    if not images:
        return {"prompt_token_ids": asked.ids}
    return {
        "prompt_token_ids": asked.ids,
        "multi_modal_data": {"image": [image.open() for image in images]},
        "multi_modal_uuids": {"image": [image.sha256() for image in images]},
    }


def _import_in_this_process(config: Any) -> None:
    """Have vLLM look at the model's class here: the process it would start for it lacks the torchvision guard."""
    from vllm import ModelRegistry

    for name in config.architectures or []:
        known = ModelRegistry.models.get(name)
        if known is not None:
            ModelRegistry.register_model(name, known.load_model_cls())


def _rank(adapter: str) -> int:
    """The rank to make room for; 0 without an adapter."""
    if not adapter:
        return 0
    try:
        rank = json.loads((Path(adapter) / "adapter_config.json").read_text())["r"]
        return next(room for room in RANKS if room >= rank)
    except (OSError, ValueError, LookupError, TypeError, StopIteration) as error:
        raise ModelNotFound(
            f"no LoRA adapter of PEFT with a rank up to {RANKS[-1]} in {adapter!r} ({type(error).__name__}: {error})"
        ) from None
