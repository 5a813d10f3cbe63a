"""The visual prefix on tiny random models of each family."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from magister.models.torchvision_guard import guard
from torch import Tensor, nn

guard()

from magister.students.encoders.text import UnsupportedBackbone  # noqa: E402
from magister.students.fusion.prefix import (  # noqa: E402
    PrefixError,
    PrefixStates,
    VisualPrefix,
    attached,
    attention_layers,
)
from transformers import (  # noqa: E402
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5Model,
)

LEVELS = [(4, 6), (4, 10), (1, 12)]
COMMON = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "intermediate_size": 48,
    "pad_token_id": 0,
}
GROUPED = {
    **COMMON,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": None,
}
PLAIN = {**COMMON, "num_attention_heads": 4, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
WINDOWED = ["sliding_attention", "full_attention", "sliding_attention"]

ENCODERS: dict[str, Any] = {
    "bert": lambda: BertModel(BertConfig(**PLAIN), add_pooling_layer=False),
    "roberta": lambda: RobertaModel(RobertaConfig(**PLAIN, max_position_embeddings=64), add_pooling_layer=False),
    "modernbert": lambda: ModernBertModel(
        ModernBertConfig(
            **COMMON,
            num_attention_heads=4,
            local_attention=6,
            layer_types=WINDOWED,
            cls_token_id=1,
            sep_token_id=2,
            bos_token_id=1,
            eos_token_id=2,
        )
    ),
}
DECODERS: dict[str, Any] = {
    "gemma3": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(**GROUPED, head_dim=16, sliding_window=4, layer_types=WINDOWED, query_pre_attn_scalar=16)
    ),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**GROUPED)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**GROUPED, head_dim=16)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED)),
}
FAMILIES = {**ENCODERS, **DECODERS}


def build(family: str) -> tuple[Any, VisualPrefix]:
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    for parameter in model.parameters():  # the usual start of 0.02 would hide mistakes below the tolerances
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.3)
    return model, VisualPrefix(LEVELS, model.config, length=4, hidden=16)


def pictures(batch: int, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, *level, generator=generator) for level in LEVELS]


def text(batch: int = 3, words: int = 9, left: bool = False, padded: bool = True) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(3, 64, (batch, words), generator=generator)
    lengths = torch.tensor([words, words - 3, words - 1, words - 4])[:batch, None] if padded else words
    mask = torch.arange(words).expand(batch, -1) < lengths
    if left:
        mask = mask.flip(1)
    return {"input_ids": ids.masked_fill(~mask, 0), "attention_mask": mask.long()}


def states_of(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    return model(**inputs, output_hidden_states=True).hidden_states[-1]


def assert_same(first: Tensor, second: Tensor, inputs: dict[str, Tensor]) -> None:
    words = inputs["attention_mask"].bool()
    torch.testing.assert_close(first[words], second[words], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_without_image_nothing_changes(family: str, padded: bool) -> None:
    """Per example, in a mixed batch; and features of an absent image may be anything."""
    model, prefix = build(family)
    inputs, features = text(padded=padded), pictures(3)
    plain = states_of(model, inputs)
    for level in features:
        level[1] = float("nan")
    with attached(model, prefix(features, torch.tensor([True, False, True]))):
        mixed = states_of(model, inputs)
    words = inputs["attention_mask"].bool()
    torch.testing.assert_close(mixed[1][words[1]], plain[1][words[1]], rtol=1e-6, atol=1e-6)
    assert (mixed[0] - plain[0]).abs().max() > 1e-2
    assert (mixed[2] - plain[2])[words[2]].abs().max() > 1e-2
    with attached(model, prefix(features, torch.zeros(3, dtype=torch.bool))):
        torch.testing.assert_close(states_of(model, inputs)[words], plain[words], rtol=1e-6, atol=1e-6)
    with attached(model, None):
        assert torch.equal(states_of(model, inputs), plain)


def projections(module: Any, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, int | None]:
    """Queries, keys and values ``[B, heads, T, head_dim]`` of an attention layer, and its window."""
    size = getattr(module, "head_dim", None) or module.attention_head_size
    split = lambda x: x.view(*x.shape[:2], -1, size).transpose(1, 2)
    window = getattr(module, "sliding_window", None)
    if hasattr(module, "query"):
        return split(module.query(hidden)), split(module.key(hidden)), split(module.value(hidden)), None
    if hasattr(module, "Wqkv"):
        query, key, value = (split(x) for x in module.Wqkv(hidden).chunk(3, dim=-1))
    else:
        query, key, value = (split(p(hidden)) for p in (module.q_proj, module.k_proj, module.v_proj))
    if hasattr(module, "q_norm"):
        query, key = module.q_norm(query), module.k_norm(key)
    cos, sin = (t[:, None] for t in kwargs["position_embeddings"])
    turn = lambda x: x * cos + torch.cat([-x[..., size // 2 :], x[..., : size // 2]], -1) * sin
    return turn(query), turn(key), value, window


def by_hand(
    module: Any,
    hidden: Tensor,
    kwargs: dict[str, Any],
    states: PrefixStates,
    layer: int,
    padding: Tensor,
    causal: bool,
) -> Tensor:
    """Attention of one layer, query by query, over prefix and words it may see: ``[B, T, heads * size]``."""
    query, key, value, window = projections(module, hidden, kwargs)
    result = torch.zeros(query.shape[0], query.shape[2], query.shape[1], query.shape[3])
    groups = query.shape[1] // key.shape[1]
    for b, head, i in itertools.product(*map(range, query.shape[:3])):
        near = lambda j, i=i: window is None or (i - j < window and j - i < window)
        seen = [j for j in range(key.shape[2]) if padding[b, j] and near(j) and not (causal and j > i)]
        kv = head // groups
        keys, values = [key[b, kv, j] for j in seen], [value[b, kv, j] for j in seen]
        rows = [p for p in range(states.mask.shape[1]) if states.mask[b, p]]
        keys = [states.keys[layer, b, kv, p] for p in rows] + keys
        values = [states.values[layer, b, kv, p] for p in rows] + values
        if keys:
            weights = (torch.stack(keys) @ query[b, head, i] * query.shape[3] ** -0.5).softmax(0)
            result[b, i, head] = weights @ torch.stack(values)
    return result.flatten(2)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_attention_by_hand(family: str, layer: int) -> None:
    model, prefix = build(family)
    inputs = text()
    states = prefix(pictures(3), torch.tensor([True, True, False]))
    module = attention_layers(model)[layer]
    caught: dict[str, Any] = {}
    # What the attention gives: the input of `o_proj` or `Wo`, or the module's own output.
    output = getattr(module, "o_proj", None) or getattr(module, "Wo", None)

    def catch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        caught.update(hidden=args[0] if args else kwargs["hidden_states"], kwargs=kwargs)

    module.register_forward_pre_hook(catch, with_kwargs=True)
    if output is not None:
        output.register_forward_pre_hook(lambda _, args: caught.update(found=args[0]))
    else:
        module.register_forward_hook(lambda _m, _a, out: caught.update(found=out[0]))
    with torch.no_grad(), attached(model, states):
        model(**inputs)
    padding = inputs["attention_mask"].bool()
    with torch.no_grad():
        expected = by_hand(module, caught["hidden"], caught["kwargs"], states, layer, padding, family in DECODERS)
    torch.testing.assert_close(caught["found"].flatten(2)[padding], expected[padding], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_prefix_and_features(family: str) -> None:
    model, prefix = build(family)
    features = [f.requires_grad_() for f in pictures(3)]
    inputs = text()
    with attached(model, prefix(features, torch.tensor([True, False, True]))):
        found = states_of(model, inputs)
    (found * torch.randn_like(found)).sum().backward()
    for name, parameter in prefix.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert (prefix.weight.grad.abs().sum((1, 2)) > 0).all(), "each layer's projection learns"
    for level in features:
        assert level.grad[[0, 2]].abs().sum() > 0
        assert not level.grad[1].any()


@pytest.mark.parametrize("family", DECODERS)
def test_causality_is_kept(family: str) -> None:
    model, prefix = build(family)
    inputs = text(padded=False)
    changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
    changed["input_ids"][:, 5] = 7
    for present in (True, False):
        with torch.no_grad(), attached(model, prefix(pictures(3), torch.tensor([present] * 3))):
            first, second = states_of(model, inputs), states_of(model, changed)
        torch.testing.assert_close(first[:, :5], second[:, :5], rtol=1e-6, atol=1e-6)
        assert (first[:, 5:] - second[:, 5:]).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_is_not_read(family: str) -> None:
    model, prefix = build(family)
    inputs = text()
    spoilt = {**inputs, "input_ids": inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, 9)}
    if family == "roberta":  # its positions are counted from the ids
        positions = torch.arange(1, 10).expand(3, -1)
        inputs, spoilt = {**inputs, "position_ids": positions}, {**spoilt, "position_ids": positions}
    with torch.no_grad(), attached(model, prefix(pictures(3), torch.ones(3, dtype=torch.bool))):
        assert_same(states_of(model, inputs), states_of(model, spoilt), inputs)


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_order_and_company_do_not_matter(family: str) -> None:
    model, prefix = build(family)
    inputs, features, present = text(), pictures(3), torch.tensor([True, False, True])
    order = torch.tensor([2, 0, 1])
    states = prefix(features, present)
    with torch.no_grad():
        with attached(model, states):
            first = states_of(model, inputs)
        shuffled = {k: v[order] for k, v in inputs.items()}
        with attached(model, prefix([f[order] for f in features], present[order])):
            assert_same(states_of(model, shuffled), first[order], shuffled)
        with attached(model, states.select(order)):
            assert_same(states_of(model, shuffled), first[order], shuffled)
        with attached(model, prefix([f[:1] for f in features], present[:1])):
            alone = {k: v[:1] for k, v in inputs.items()}
            assert_same(states_of(model, alone), first[:1], alone)


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("family", DECODERS)
def test_generation_with_cache_equals_without(family: str, left: bool) -> None:
    """Past the sliding window of 4; padded on the left, and not padded."""
    model, prefix = build(family)
    inputs = text(left=left, padded=left)
    states = prefix(pictures(3), torch.tensor([True, False, True]))
    settings = {
        "max_new_tokens": 8,
        "do_sample": False,
        "return_dict_in_generate": True,
        "output_logits": True,
    }
    plain = model.generate(**inputs, **settings)
    with attached(model, states):
        cached = model.generate(**inputs, **settings)
        slow = model.generate(**inputs, **settings, use_cache=False)
    assert torch.equal(cached.sequences, slow.sequences)
    with_prefix, without = torch.stack(cached.logits), torch.stack(plain.logits)  # [steps, B, vocabulary]
    torch.testing.assert_close(with_prefix, torch.stack(slow.logits), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(with_prefix[:, 1], without[:, 1], rtol=1e-5, atol=1e-5)
    assert (with_prefix - without)[:, [0, 2]].abs().amax((0, 2)).min() > 1e-2
    # The last step reads the prefix itself: not only what the cache remembers of it.
    whole = {"input_ids": cached.sequences[:, :-1]}
    whole["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones(3, 7, dtype=torch.long)], 1)
    whole["position_ids"] = (whole["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), attached(model, states):
        once = model(**whole).logits[:, -1]
    torch.testing.assert_close(cached.logits[-1], once, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cache", ["static", "dynamic"])
def test_beams_and_samples_repeat_the_states(cache: str) -> None:
    model, prefix = build("gemma3")
    inputs = text(left=True)
    states = prefix(pictures(3), torch.tensor([True, False, True]))
    settings = {"max_new_tokens": 5, "do_sample": False, "num_beams": 2, "cache_implementation": cache}
    with attached(model, states.repeat(2)):
        together = model.generate(**inputs, **settings)
    for b in range(3):
        with attached(model, states.select(torch.tensor([b])).repeat(2)):
            alone = model.generate(**{k: v[b : b + 1] for k, v in inputs.items()}, **settings)
        assert torch.equal(alone[0], together[b])
    with attached(model, states), pytest.raises(PrefixError, match=r"repeat\(n\)"):
        model.generate(**inputs, **settings)


@pytest.mark.parametrize("family", ["bert", "modernbert", "gemma3", "qwen3"])
def test_under_lora(family: str) -> None:
    from peft import LoraConfig, get_peft_model

    model, prefix = build(family)
    inputs, states = text(), prefix(pictures(3), torch.tensor([True, False, True]))
    with torch.no_grad(), attached(model, states):
        expected = states_of(model, inputs)
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear")).eval()  # an untrained adapter adds 0
    with attached(wrapped, states):
        found = states_of(wrapped, inputs)
    assert_same(found, expected, inputs)
    found.sum().backward()
    assert prefix.weight.grad.abs().sum() > 0
    assert any("lora_B" in n and p.grad is not None and p.grad.any() for n, p in wrapped.named_parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_autocast(family: str) -> None:
    model, prefix = build(family)
    inputs, present = text(), torch.tensor([True, False, True])
    with attached(model, prefix(pictures(3), present)):
        full = states_of(model, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        states = prefix(pictures(3), present)
        with attached(model, states):
            found = states_of(model, inputs)
    words = inputs["attention_mask"].bool()
    assert torch.isfinite(found[words]).all()
    assert torch.cosine_similarity(found[words].float(), full[words], dim=-1).min() > 0.95
    found.float().sum().backward()
    assert torch.isfinite(prefix.weight.grad).all()


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_nothing_is_left_behind(implementation: str) -> None:
    model, prefix = build("qwen2")
    model.set_attn_implementation(implementation)
    inputs, states = text(), prefix(pictures(3), torch.ones(3, dtype=torch.bool))
    plain = states_of(model, inputs)
    with attached(model, states):
        assert model.config._attn_implementation == "magister_prefix"
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    with pytest.raises(PrefixError, match="for 3 rows"), attached(model, states):
        model(**text(2))
    assert model.config._attn_implementation == implementation
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    assert torch.equal(states_of(model, inputs), plain)
    assert not [name for name in model.state_dict() if "prefix" in name]


def test_a_vision_llm_wears_it_in_its_text_part() -> None:
    """A prefix for the text layers alone; the vision tower attends as before."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, SiglipVisionConfig

    torch.manual_seed(0)
    words = Gemma3TextConfig(**GROUPED, head_dim=16, sliding_window=4, layer_types=WINDOWED)
    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    config = Gemma3Config(
        text_config=words, vision_config=vision, mm_tokens_per_image=4, image_token_index=3, boi_token_index=4
    )
    model = Gemma3ForConditionalGeneration(config).eval()
    assert len(attention_layers(model)) == 3
    prefix = VisualPrefix(LEVELS, model.config)
    ids = torch.tensor([[5, 3, 3, 3, 3, 8, 9]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": (ids == 3).long()}
    inputs["pixel_values"] = torch.randn(1, 3, 28, 28)
    plain = model(**inputs).logits
    with attached(model, prefix(pictures(1), torch.tensor([True]))):
        assert (model(**inputs).logits - plain).abs().max() > 1e-4
    with attached(model, prefix(pictures(1), torch.tensor([False]))):
        torch.testing.assert_close(model(**inputs).logits, plain, rtol=1e-5, atol=1e-6)
    assert torch.equal(model(**inputs).logits, plain)


def test_gates_mix_the_levels_by_layer() -> None:
    """The gated mix of a layer, worked out level by level."""
    _, prefix = build("bert")
    features, present = pictures(2), torch.ones(2, dtype=torch.bool)
    rows = prefix._rows(features, present)
    gates = prefix.gates(rows)
    pooled = (rows[:, 0] + rows[:, 1] + rows[:, 2]) / 3
    for layer in range(3):
        weight, bias = (w[3 * layer : 3 * layer + 3] for w in (prefix.gate.weight, prefix.gate.bias))
        scores = pooled.flatten(1) @ weight.T + bias
        torch.testing.assert_close(gates[:, layer], torch.where(scores > 0, scores, 0.01 * scores).softmax(-1))
    torch.testing.assert_close(gates.sum(-1), torch.ones(2, 3))
    assert (gates[:, 0] - gates[:, 1]).abs().max() > 1e-3
    states = prefix(features, present)
    width = prefix.heads * prefix.head_dim
    for layer in range(3):
        mixed = sum(gates[:, layer, b, None, None] * rows[:, b] for b in range(3))
        both = mixed @ prefix.weight[layer] + prefix.bias[layer]
        for found, expected in ((states.keys, both[..., :width]), (states.values, both[..., width:])):
            joined = found[layer].transpose(1, 2).flatten(2)
            torch.testing.assert_close(joined, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("length", [1, 3, 8])
def test_any_length(length: int) -> None:
    model, _ = build("bert")
    prefix = VisualPrefix(LEVELS, model.config, length=length)
    states = prefix(pictures(2), torch.tensor([True, False]))
    assert states.keys.shape == (3, 2, 4, length, 8)
    assert states.mask.tolist() == [[True] * length, [False] * length]
    with attached(model, states):
        assert torch.isfinite(states_of(model, text(2))).all()


def test_misfits_are_named() -> None:
    model, prefix = build("bert")
    states = prefix(pictures(3), torch.ones(3, dtype=torch.bool))
    with pytest.raises(PrefixError, match="levels of"):
        prefix(pictures(3)[:2], torch.ones(3, dtype=torch.bool))
    with pytest.raises(PrefixError, match="for 2 examples"):
        prefix(pictures(3), torch.ones(2, dtype=torch.bool))
    with attached(model, states), pytest.raises(PrefixError, match="already"), attached(model, states):
        pass
    other, _ = build("llama")
    with attached(other, states), pytest.raises(PrefixError, match="heads"):
        other(**text(3))
    short = PrefixStates(states.keys[:2], states.values[:2], states.mask)
    with pytest.raises(PrefixError, match="2 layers"), attached(model, short):
        pass
    model.gradient_checkpointing_enable()
    with attached(model, states):
        pass
    with pytest.raises(PrefixError, match="checkpointing"), attached(model.train(), states):
        pass


def test_unsupported_backbones_are_named() -> None:
    deberta = DebertaV2Model(DebertaV2Config(**PLAIN))
    t5 = T5Model(T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    crossed = BertModel(BertConfig(**PLAIN, is_decoder=True, add_cross_attention=True))
    with pytest.raises(UnsupportedBackbone, match="DebertaV2Model: 0 attention modules for its 3"):
        attention_layers(deberta)
    with pytest.raises(UnsupportedBackbone, match="T5Model is an encoder-decoder"):
        attention_layers(t5)
    with pytest.raises(UnsupportedBackbone, match="6 attention modules for its 3"):
        attention_layers(crossed)
    with pytest.raises(UnsupportedBackbone, match="holds no transformers model"):
        attention_layers(nn.Linear(2, 2))
