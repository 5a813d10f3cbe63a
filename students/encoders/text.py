"""Text backbones: any transformers encoder or decoder, with LoRA where asked, and texts as sub-tokens of words."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...models.names import resolve
from ...models.torchvision_guard import guard

#: Name of `attend` among transformers' attention implementations.
ATTENTION = "magister_sdpa"

#: Texts whose sub-tokens are remembered; knowledge texts come back every epoch.
CACHE = 50_000


class UnsupportedBackbone(ValueError):
    """A backbone that cannot do what is asked of it: says which, what is missing and what to take instead."""


class TooLong(ValueError):
    """A text longer than the backbone reads, where windows cannot serve: says which example and by how much."""


@dataclass(frozen=True)
class Piece:
    """A sub-token: its id and the characters of the text that it stands for."""

    id: int
    start: int
    end: int


class SubTokens:
    """A tokenizer that keeps track of words.

    Each word is split on its own (a byte-level or sentencepiece vocabulary is given the blank before it), so a
    sub-token never spans two words and the same word has the same sub-tokens in every view.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.is_fast:
            raise UnsupportedBackbone(f"{tokenizer.name_or_path}: its tokenizer gives no offsets; a fast one does")
        self.tokenizer = tokenizer
        self.first = _one_of(tokenizer.cls_token_id, tokenizer.bos_token_id)
        self.separator = _one_of(tokenizer.sep_token_id, tokenizer.eos_token_id)
        self.end = _one_of(tokenizer.eos_token_id, tokenizer.sep_token_id)
        self.pad = _one_of(tokenizer.pad_token_id, self.end, 0)
        self.unknown = _one_of(tokenizer.unk_token_id, self.pad)
        self.mask = tokenizer.mask_token_id
        self._words: dict[str, tuple[Piece, ...]] = {}
        self._texts: dict[str, tuple[int, ...]] = {}

    def word(self, word: str, blank_before: bool) -> tuple[Piece, ...]:
        """One word's sub-tokens, offsets counted within the word; never empty (an unknown one where there is none)."""
        key = " " + word if blank_before else word
        if key not in self._words:
            if len(self._words) >= CACHE:
                self._words.clear()
            coded = self.tokenizer(
                key, add_special_tokens=False, return_offsets_mapping=True, truncation=False, padding=False
            )
            shift = len(key) - len(word)
            found = tuple(
                Piece(i, max(start - shift, 0), max(end - shift, 0))
                for i, (start, end) in zip(coded["input_ids"], coded["offset_mapping"], strict=True)
            )
            # A mark for the blank alone has no characters of the word; a word must have more than that.
            whole = any(p.end for p in found)
            self._words[key] = found if whole else (Piece(self.unknown, 0, len(word)),)
        return self._words[key]

    def words(self, text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[Piece, ...]]:
        """The sub-tokens of each word, offsets counted in the text."""
        found = []
        for start, end in spans:
            pieces = self.word(text[start:end], start > 0 and text[start - 1].isspace())
            found.append(tuple(Piece(p.id, p.start + start, p.end + start) for p in pieces))
        return found

    def text(self, text: str) -> tuple[int, ...]:
        """The sub-token ids of a running text, without special tokens."""
        if text not in self._texts:
            if len(self._texts) >= CACHE:
                self._texts.clear()
            coded = self.tokenizer(text, add_special_tokens=False, truncation=False, padding=False, verbose=False)
            self._texts[text] = tuple(coded["input_ids"])
        return self._texts[text]


class TextEncoder(nn.Module):
    """A backbone with everything its rows need to be read.

    Attributes:
        model: the transformers model, wrapped by peft where LoRA is used.
        sub_tokens: its tokenizer.
        decoder: whether it reads from left to right.
        hidden: width of its states.
        limit: the longest row it reads, in sub-tokens.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, max_tokens: int | None = None) -> None:
        super().__init__()
        self.model: Any = model
        self.sub_tokens = SubTokens(tokenizer)
        config = self.plain.config
        self.decoder = is_decoder(config)
        self.hidden: int = config.hidden_size
        positions = getattr(config, "max_position_embeddings", None)
        positions = positions and positions - self.first_position
        self.limit: int = min(n for n in (max_tokens, positions, tokenizer.model_max_length) if n)
        self.token_types: bool = getattr(config, "type_vocab_size", 0) > 1

    @property
    def plain(self) -> Any:
        """The transformers model without peft's wrapping (the LoRA layers stay in it)."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

    @property
    def body(self) -> Any:
        """The transformer stack: what gives hidden states, without a language-model head."""
        return self.plain.base_model if self.decoder else self.plain

    @property
    def embeddings(self) -> nn.Module:
        """The input embeddings of the vocabulary."""
        return self.plain.get_input_embeddings()

    @cached_property
    def first_position(self) -> int:
        """Number of the first position: RoBERTa and its kin count from the padding id onwards."""
        positions = getattr(getattr(self.plain, "embeddings", None), "position_embeddings", None)
        padding = getattr(positions, "padding_idx", None)
        return 0 if padding is None else padding + 1

    @cached_property
    def _arguments(self) -> frozenset[str]:
        return frozenset(inspect.signature(inspect.unwrap(type(self.body).forward)).parameters)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        added: Tensor | None = None,
        before: Tensor | None = None,
    ) -> Tensor:
        """States ``[R, T, d]`` of padded rows ``[R, T]``.

        Args:
            input_ids, attention_mask, token_type_ids: ``[R, T]``.
            added: ``[R, T, d]`` to add to the input embeddings.
            before: ``[R, m, d]`` vectors that stand before the row. They share position 0, so that the row keeps the
                positions it has without them, and their own states are not returned.
        """
        inputs: dict[str, Any] = {"attention_mask": attention_mask}
        if self.decoder:
            inputs["use_cache"] = False
        if token_type_ids is not None and self.token_types:
            inputs["token_type_ids"] = token_type_ids
        if added is None and before is None:
            return self.body(input_ids=input_ids, **inputs).last_hidden_state
        embeddings = self.embeddings(input_ids)
        if added is not None:
            embeddings = embeddings + added.to(embeddings.dtype)
        if before is not None:
            embeddings, inputs = self._put_before(before, embeddings, inputs)
        states = self.body(inputs_embeds=embeddings, **inputs).last_hidden_state
        return states if before is None else states[:, before.shape[1] :]

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        before: Tensor | None = None,
        max_new_tokens: int = 128,
    ) -> list[list[int]]:
        """Greedy continuations of padded rows ``[R, T]`` by a decoder.

        A list that ends with the end token finished by itself; the others ran into ``max_new_tokens``.
        """
        from transformers import DynamicCache

        # The rows' ends must meet: padding goes to the left, and a prompt stays in front of it.
        rows, width = input_ids.shape
        offset = width - attention_mask.sum(1, keepdim=True)
        positions = torch.arange(width, device=input_ids.device) - offset
        mask = (positions >= 0).to(attention_mask.dtype)
        positions = positions.clamp(min=0)
        embeddings = self.embeddings(input_ids.gather(1, positions))
        if before is not None:
            length = before.shape[1]
            embeddings = torch.cat([before.to(embeddings.dtype), embeddings], 1)
            mask = torch.cat([mask.new_ones(rows, length), mask], 1)
            positions = torch.cat([positions.new_zeros(rows, length), positions], 1)
        cache = DynamicCache(config=self.plain.config.get_text_config())
        inputs: dict[str, Tensor] = {"inputs_embeds": embeddings}
        head = self.plain.get_output_embeddings()
        said: list[list[int]] = [[] for _ in range(rows)]
        open_ = torch.ones(rows, dtype=torch.bool, device=mask.device)
        for _ in range(max_new_tokens):
            output = self.body(
                **inputs, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            )
            token = head(output.last_hidden_state[:, -1]).argmax(-1)
            for row in open_.nonzero()[:, 0].tolist():
                said[row].append(int(token[row]))
            open_ &= token != self.sub_tokens.end
            if not open_.any():
                break
            inputs = {"input_ids": token[:, None]}
            positions = positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(rows, 1)], 1)
        return said

    def _put_before(self, before: Tensor, embeddings: Tensor, inputs: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        (rows, length), width = before.shape[:2], embeddings.shape[1]
        if "position_ids" not in self._arguments:
            raise UnsupportedBackbone(
                f"{self.plain.config.model_type} takes no position_ids, so a prompt would shift the text: "
                "set prompt_length=0"
            )
        grown = {
            name: torch.cat([value.new_full((rows, length), name == "attention_mask"), value], 1)
            for name, value in inputs.items()
            if isinstance(value, Tensor)
        }
        positions = torch.cat([torch.zeros(length), torch.arange(width)]).long() + self.first_position
        grown["position_ids"] = positions.to(embeddings.device).expand(rows, -1)
        return torch.cat([before.to(embeddings.dtype), embeddings], 1), {**inputs, **grown}


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """transformers' sdpa attention, in fp32 where a CPU is to compute gradients.

    There the backward pass of torch's fused bf16 kernel is slow: 50 ms a layer for 16 rows of 40, and 3 ms in fp32.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if query.device.type != "cpu" or query.dtype == torch.float32 or not torch.is_grad_enabled():
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        attention_mask = attention_mask.float()
    with torch.autocast("cpu", enabled=False):
        states, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), attention_mask, **kwargs)
    return states.to(query.dtype), None


def use_attention(model: Any) -> None:
    """Make a transformers model attend by `attend`, where it has sdpa attention."""
    if model._supports_sdpa:
        _register()
        model.set_attn_implementation(ATTENTION)


@cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, attend)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def is_decoder(config: Any) -> bool:
    """Whether a transformers config is that of a left-to-right language model."""
    guard()
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL,
    )
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED,
    )

    return config.model_type in CAUSAL and config.model_type not in MASKED


def load(name: str, tokenizer: str | Path | None = None, max_tokens: int | None = None) -> TextEncoder:
    """The backbone of that name (`models.names.resolve`) or path in fp32, with sdpa attention where it has it.

    Raises `UnsupportedBackbone` for an encoder-decoder.
    """
    guard()
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

    path = resolve(name)
    config = AutoConfig.from_pretrained(path)
    if config.is_encoder_decoder:
        raise UnsupportedBackbone(f"{name} is an encoder-decoder; take an encoder (BERT) or a decoder (Gemma, Qwen)")
    auto = AutoModelForCausalLM if is_decoder(config) else AutoModel
    for name_of_it in ("attention_probs_dropout_prob", "attention_dropout"):
        if getattr(config, name_of_it, 0):
            setattr(config, name_of_it, 0.0)  # there is no fused kernel for it on a CPU: 40 % of a step
    model = auto.from_pretrained(path, config=config, dtype=torch.float32)
    use_attention(model)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # never read, and LoRA would train it
    return TextEncoder(model, AutoTokenizer.from_pretrained(tokenizer or path), max_tokens)


def with_lora(model: nn.Module, rank: int, alpha: float, dropout: float, whole: Sequence[str] = ()) -> Any:
    """The model with a LoRA adapter on every linear layer (Hu et al., 2022), everything else frozen but the modules
    named in ``whole``, which are trained and kept with the adapter."""
    guard()
    from peft import LoraConfig, get_peft_model

    settings: Any = {"lora_alpha": alpha}  # a fraction will do, whatever peft's annotation says
    config = LoraConfig(
        r=rank, **settings, lora_dropout=dropout, target_modules="all-linear", modules_to_save=list(whole) or None
    )
    return spare_casts(get_peft_model(model, config))


def spare_casts(model: Any) -> Any:
    """Stop peft's adapters from casting their inputs to fp32, which autocast would cast back: 10 % of a step."""
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False
    return model


@contextmanager
def merged(model: Any) -> Iterator[None]:
    """A model whose LoRA adapters are added into its weights: one product a layer where there were three.

    The weights come back bit for bit, which subtracting the adapters again would not give. Gradients must not be taken
    inside. A model without adapters is left alone.
    """
    if not hasattr(model, "peft_config"):
        yield
        return
    guard()
    from peft.tuners.lora import LoraLayer

    layers: list[Any] = [m for m in model.modules() if isinstance(m, LoraLayer)]
    kept = [layer.get_base_layer().weight.data for layer in layers]
    try:
        for layer, weight in zip(layers, kept, strict=True):
            deltas = [layer.get_delta_weight(name) for name in layer.active_adapters]
            layer.get_base_layer().weight.data = sum(deltas, start=weight)
            # Not `model.disable_adapter`: that would also take back modules that were trained whole.
            layer.enable_adapters(False)
        yield
    finally:
        for layer, weight in zip(layers, kept, strict=True):
            layer.get_base_layer().weight.data = weight
            layer.enable_adapters(True)


def _one_of(*ids: int | None) -> Any:
    """The first id that there is, or None."""
    return next((i for i in ids if i is not None), None)
