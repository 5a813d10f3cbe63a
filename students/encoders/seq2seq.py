"""Encoder-decoders: a pretrained one (T5), or an encoder's weights on both sides (Rothe et al., TACL 2020)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...models.names import resolve
from ...models.torchvision_guard import guard
from . import text
from .text import SubTokens, UnsupportedBackbone


class Seq2Seq(nn.Module):
    """An encoder-decoder as `System` wants a backbone: rows in, states out, and answers written from states.

    Attributes:
        model: the transformers model, wrapped by peft where LoRA is used.
        sub_tokens: its tokenizer.
        decoder: whether rows are read from left to right: they are not.
        hidden, width: width of the encoder's and of the decoder's states.
        limit: the longest row it reads, in sub-tokens.
        start, end: the sub-tokens before and behind every answer.
        fresh: names of the modules that no pretrained weights were there for (a warm-started decoder's attention to
            the encoder).
    """

    decoder = False

    def __init__(
        self, model: nn.Module, tokenizer: Any, max_tokens: int | None = None, fresh: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.sub_tokens, self.fresh = SubTokens(tokenizer), fresh
        config = self._reader.config
        self.hidden: int = config.hidden_size
        self.width: int = getattr(self.plain.config, "decoder", config).hidden_size
        positions = getattr(config, "max_position_embeddings", None)
        places: Any = getattr(getattr(self._reader, "embeddings", None), "position_embeddings", None)
        if positions and getattr(places, "padding_idx", None) is not None:
            positions -= places.padding_idx + 1  # RoBERTa and its kin count from the padding id onwards
        self.limit: int = min(n for n in (max_tokens, positions, tokenizer.model_max_length) if n)
        self.token_types: bool = getattr(config, "type_vocab_size", 0) > 1
        start = self.plain.config.decoder_start_token_id
        self.start: int = self.sub_tokens.first if start is None else start
        self.end: int = self.sub_tokens.separator

    @property
    def plain(self) -> Any:
        """The transformers model without peft's wrapping (the LoRA layers stay in it)."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

    @property
    def _reader(self) -> Any:
        return self.plain.get_encoder()

    @property
    def embeddings(self) -> nn.Module:
        """The input embeddings of the encoder's vocabulary."""
        found: nn.Module = self._reader.get_input_embeddings()
        return found

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """The encoder's states ``[R, T, d]`` of padded rows ``[R, T]``."""
        types = {"token_type_ids": token_type_ids} if self.token_types and token_type_ids is not None else {}
        states: Tensor = self._reader(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
        return states

    def decode(self, memory: Tensor, mask: Tensor, ids: Tensor, cache: Any = None) -> tuple[Tensor, Tensor]:
        """The decoder's states ``[I, L, width]`` and logits ``[I, L, V]`` behind each of some sub-tokens.

        Args:
            memory, mask: states ``[I, S, d]`` to attend to, and which of them count ``[I, S]``.
            ids: ``[I, L]``, beginning with `start`; padding on the right changes nothing before it.
            cache: of `new_cache`, which then holds the sub-tokens before ``ids``.
        """
        said = self.plain(
            encoder_outputs=(memory,),
            attention_mask=mask,
            decoder_input_ids=ids,
            past_key_values=cache,
            use_cache=cache is not None,
            output_hidden_states=True,
        )
        return said.decoder_hidden_states[-1], said.logits

    def new_cache(self) -> Any:
        """An empty cache for `decode`; its ``reorder_cache`` follows a beam search."""
        from transformers import DynamicCache, EncoderDecoderCache

        return EncoderDecoderCache(DynamicCache(), DynamicCache())

    def fresh_parameters(self) -> list[nn.Parameter]:
        """The trainable parameters that no pretrained weights were there for."""
        return [p for name in self.fresh for p in self.plain.get_submodule(name).parameters() if p.requires_grad]


def load(name: str, tokenizer: str | Path | None = None, max_tokens: int | None = None, layers: int = 0) -> Seq2Seq:
    """The encoder-decoder of that name or path; an encoder's name makes one that is warm-started on both sides.

    Args:
        name: as `models.names.resolve` knows it.
        tokenizer: where its tokenizer lies, if elsewhere.
        max_tokens: the longest row, or None for the backbone's own limit.
        layers: how many (the first) of an encoder's layers the warm-started decoder has; 0 for all.

    Raises:
        UnsupportedBackbone: a decoder, or an encoder that cannot attend to another.
    """
    guard()
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

    path = resolve(name)
    config = AutoConfig.from_pretrained(path)
    fresh: tuple[str, ...] = ()
    if config.is_encoder_decoder:
        model = AutoModelForSeq2SeqLM.from_pretrained(path, dtype=torch.float32)
        text.use_attention(model)
    else:
        model, fresh = _warm_started(name, path, config, layers)
    made = AutoTokenizer.from_pretrained(tokenizer or path)
    encoder = Seq2Seq(model, made, max_tokens, fresh)
    if not config.is_encoder_decoder:  # what transformers' own generation reads
        model.config.decoder_start_token_id, model.config.eos_token_id = encoder.start, encoder.end
        model.config.pad_token_id = encoder.sub_tokens.pad
    return encoder


def _warm_started(name: str, path: str, config: Any, layers: int) -> tuple[Any, tuple[str, ...]]:
    """An encoder's weights as encoder and as decoder, and the decoder's modules that they do not fill."""
    from transformers import AutoModel, AutoModelForCausalLM, EncoderDecoderModel

    if text.is_decoder(config):
        raise UnsupportedBackbone(f"{name} is a decoder; take an encoder-decoder (T5) or an encoder (minilm)")
    own: dict[str, Any] = {"is_decoder": True, "add_cross_attention": True}
    if layers:
        own["num_hidden_layers"] = layers
    if getattr(config, "attention_probs_dropout_prob", 0):
        own["attention_probs_dropout_prob"] = config.attention_probs_dropout_prob = 0.0  # as in `text.load`
    with _quiet():
        reader = AutoModel.from_pretrained(path, config=config, dtype=torch.float32)
        try:
            found: Any = AutoModelForCausalLM.from_pretrained(
                path, dtype=torch.float32, output_loading_info=True, **own
            )
            writer, info = found
        except (TypeError, ValueError) as error:
            raise UnsupportedBackbone(f"{name} cannot be a decoder: {error}") from None
    if not getattr(writer.config, "add_cross_attention", False):
        raise UnsupportedBackbone(f"{name} has no attention to an encoder; BERT, RoBERTa and their kin have")
    if getattr(reader, "pooler", None) is not None:
        reader.pooler = None
    for model in (reader, writer):
        text.use_attention(model)
    head = next(n for n, module in writer.named_modules() if module is writer.get_output_embeddings())
    modules = dict(writer.named_modules())
    missing = dict.fromkeys(key.rpartition(".")[0] for key in sorted(info["missing_keys"]))
    fresh = tuple(f"decoder.{n}" for n in missing if n != head and not list(modules[n].children()))
    return EncoderDecoderModel(encoder=reader, decoder=writer), fresh


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' report of the weights that were not there: they are those that `Seq2Seq.fresh` names."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
