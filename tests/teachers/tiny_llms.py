"""Tiny LLMs with random weights and a BPE trained on the spot, saved as transformers would find them."""

from __future__ import annotations

from pathlib import Path

from magister.models.torchvision_guard import guard

CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{% if p.type == 'image' %}<image>{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}"
    "<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<pad>", "<s>", "</s>", "<image>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


def tokenizer():
    """A byte-level BPE of some 400 tokens that adds no ``<s>`` by itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    texts = ["Find the people and places in each post.", "Text: Anna flew to Oslo.\nEntities: Anna, Oslo\n\n"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )


def text_llm(folder: Path, *, chat: bool = False, sliding: int = 0, context: int = 256) -> str:
    """A Llama, or with ``sliding`` a Gemma 3 of that window."""
    guard()
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    made = tokenizer()
    shape = {
        "vocab_size": len(made),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": context,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.4,
    }
    if sliding:
        kinds = ["sliding_attention", "full_attention"] * 2
        shape["num_hidden_layers"] = 4
        model = Gemma3ForCausalLM(
            Gemma3TextConfig(**shape, sliding_window=sliding, layer_types=kinds, query_pre_attn_scalar=1)
        )
    else:
        model = LlamaForCausalLM(LlamaConfig(**shape))
    if sliding:  # as made, its scaled embeddings drown what attention adds, and no test could see an error there
        model.model.embed_tokens.weight.data.mul_(0.05)
    if chat:
        made.chat_template = CHAT
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return str(folder)


def vision_llm(folder: Path, *, chat: bool = True) -> str:
    """A LLaVA: a CLIP that cuts 32 x 32 pictures into 16 patches, and a Llama."""
    guard()
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    torch.manual_seed(0)
    made = tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=32,
        initializer_range=0.4,
    )
    text = LlamaConfig(
        vocab_size=len(made),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.4,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=SPECIAL.index("<image>"),
        vision_feature_layer=-1,
        initializer_range=0.4,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    _as_published(folder / "model.safetensors")
    size = {"height": 32, "width": 32}
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False),
        tokenizer=made,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT if chat else None,
    ).save_pretrained(folder)
    return str(folder)


def _as_published(path: Path) -> None:
    """The vision tower's weights under the names of published LLaVAs, which vLLM knows and transformers reads too."""
    from safetensors.torch import load_file, save_file

    weights = load_file(path)
    renamed = {k.replace("vision_tower.", "vision_tower.vision_model."): v for k, v in weights.items()}
    save_file(renamed, path, metadata={"format": "pt"})


def qwen2_vl(folder: Path) -> str:
    """A Qwen2-VL: pictures of any size as patches of 28 x 28, positions in three dimensions."""
    guard()
    import torch
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    torch.manual_seed(0)
    made = tokenizer()
    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    made.add_special_tokens({"additional_special_tokens": marks})
    made.image_token = "<|image_pad|>"
    start, end, image, video = made.convert_tokens_to_ids(marks)
    text = {
        "vocab_size": len(made),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0},
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.4,
    }
    config = Qwen2VLConfig(
        text_config=text,
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "patch_size": 14},
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
        initializer_range=0.4,
    )
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=28 * 28 * 4, max_pixels=28 * 28 * 16),
        tokenizer=made,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>"),
    ).save_pretrained(folder)
    return str(folder)
