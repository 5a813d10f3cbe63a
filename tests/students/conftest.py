"""Tiny random backbones in transformers' format, built on the spot, and a few examples of both tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from magister.models.torchvision_guard import guard
from magister.students.student import Output, View
from magister.tasks import attributes, ner, relations

guard()

TEXTS = [
    "RT @ KevinLove : # NBA finals in Oakland with Kawhi Leonard and the Toronto Raptors !",
    "Blue cotton shirt , size M , machine wash , 4GB-DDR memory card and Größe 42 Schuhe",
    "Which words in the text are names of the type person ? List the entities as JSON null",
    '{"entities": [{"text": "Oakland", "type": "LOC"}]} predict: explain: colour: red green blue',
]


def words_tokenizer() -> Any:
    """A lower-case WordPiece tokenizer, as BERT's: the texts' words, and letters for any other word.

    Its vocabulary is written down, not trained: the trainer breaks ties in another order in each process.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = {word for text in TEXTS for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    letters = {letter for word in words for letter in word}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *sorted(letters | words), *sorted(f"##{letter}" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    made = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    made.decoder = decoders.WordPiece()
    made.normalizer, made.pre_tokenizer = normalizer, splitter
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=64, **names)


def bytes_tokenizer(bos: bool) -> Any:
    """A byte-level BPE tokenizer, as Qwen's (without a first token) or Llama's (with one)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<pad>", "<eos>", "<bos>"], initial_alphabet=alphabet)
    made.train_from_iterator(TEXTS * 3, trainer)
    names = {"pad_token": "<pad>", "eos_token": "<eos>"} | ({"bos_token": "<bos>"} if bos else {})
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=256, **names)


def keep(folder: Path, model: Any, tokenizer: Any) -> str:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An encoder that reads 64 sub-tokens."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    tokenizer = words_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    return keep(tmp_path_factory.mktemp("bert"), BertModel(config), tokenizer)


@pytest.fixture(scope="session")
def tiny_gemma(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A decoder with grouped heads and a sliding window."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    tokenizer = bytes_tokenizer(bos=True)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=64,
        max_position_embeddings=256,
        sliding_window=24,
        layer_types=["sliding_attention", "full_attention"],
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    return keep(tmp_path_factory.mktemp("gemma"), Gemma3ForCausalLM(config), tokenizer)


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A decoder without a first token."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    tokenizer = bytes_tokenizer(bos=False)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
        max_position_embeddings=256,
        initializer_range=0.2,
        pad_token_id=0,
        eos_token_id=1,
    )
    return keep(tmp_path_factory.mktemp("qwen"), Qwen2ForCausalLM(config), tokenizer)


@pytest.fixture(scope="session")
def ner_schema() -> ner.Schema:
    return ner.Schema(
        types=(
            ner.EntityType(name="PER", title="person", guideline="names of people"),
            ner.EntityType(name="LOC", title="location", guideline="names of places"),
        )
    )


@pytest.fixture(scope="session")
def product_schema() -> attributes.Schema:
    return attributes.Schema(
        attributes=(
            attributes.Attribute(name="size"),
            attributes.Attribute(name="colour", type="one_of", options=("red", "green", "blue")),
            attributes.Attribute(name="sleeve", type="one_of", options=("long", "short")),
        )
    )


def post(id: str, words: str, *entities: tuple[str, str], **more: Any) -> ner.Example:
    """A post; its entities are (mention, type) pairs, each found where the mention first stands."""
    gold = [ner.Entity(text=m, type=t, start=words.index(m), end=words.index(m) + len(m)) for m, t in entities]
    return ner.Example(id=id, text=words, words=tuple(words.split(" ")), gold=ner.Answer(entities=tuple(gold)), **more)


@pytest.fixture(scope="session")
def posts() -> list[ner.Example]:
    return [
        post(
            "a",
            "RT @ KevinLove : off to Oakland",
            ("KevinLove", "PER"),
            ("Oakland", "LOC"),
            context={"knowledge": "KevinLove plays in Toronto"},
        ),
        post("b", "Kawhi Leonard !", ("Kawhi Leonard", "PER"), context={"knowledge": "Kawhi Leonard is a name"}),
        post("c", "nothing to see in the text", context={"knowledge": "no names here"}),
        post("d", "the Raptors of Toronto and Kawhi", ("Toronto", "LOC"), ("Kawhi", "PER")),
    ]


@pytest.fixture(scope="session")
def products() -> list[attributes.Example]:
    def product(id: str, text: str, **gold: tuple[str, ...]) -> attributes.Example:
        return attributes.Example(
            id=id, text=text, asked=tuple(gold), gold=attributes.Answer(values=dict(gold)), category="shirt"
        )

    return [
        product("p", "Blue cotton shirt size M", size=("M",), colour=("blue",), sleeve=("long",)),
        product("q", "Red shirt, 42cm machine wash", size=("42cm",), colour=("red",), sleeve=()),
        product("r", "green cotton shirt", size=(), colour=("green",), sleeve=("short",)),
    ]


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An encoder-decoder."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    tokenizer = words_tokenizer()
    tokenizer.eos_token, tokenizer.sep_token, tokenizer.cls_token = "[SEP]", None, None
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        dropout_rate=0.0,
        initializer_factor=1.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    return keep(tmp_path_factory.mktemp("t5"), T5ForConditionalGeneration(config), tokenizer)


@pytest.fixture(scope="session")
def relation_schema() -> relations.Schema:
    return relations.Schema(
        relations=(
            relations.RelationType(name="lives_in", title="lives in", guideline="a person and a place"),
            relations.RelationType(name="plays_for", title="plays for", guideline="a person and a team"),
        )
    )


@pytest.fixture(scope="session")
def pairs() -> list[relations.Example]:
    """Pairs in both orders, one without relation."""

    def pair(id: str, text: str, head: str, tail: str, relation: str) -> relations.Example:
        mention = lambda m: ner.Entity(text=m, type="", start=text.index(m), end=text.index(m) + len(m))
        return relations.Example(
            id=id,
            text=text,
            words=tuple(text.split(" ")),
            pair=(mention(head), mention(tail)),
            context={"knowledge": f"{head} and {tail} : {relation} ."},
            gold=relations.Answer(relation=relation),
        )

    return [
        pair("a", "Kawhi Leonard is off to Oakland", "Kawhi Leonard", "Oakland", "lives_in"),
        pair("b", "the Raptors with Kawhi", "Kawhi", "Raptors", "plays_for"),
        pair("c", "KevinLove and the text of Oakland ! # finals", "KevinLove", "Oakland", "None"),
        pair("d", "Leonard , Toronto", "Leonard", "Toronto", "lives_in"),
    ]


@pytest.fixture(scope="session")
def learn() -> Callable[..., Output]:
    """``learn(student, examples, steps, rate)`` trains it on one batch and gives the last output."""

    def run(student: Any, examples: Sequence[Any], steps: int, rate: float = 0.005, view: View | None = None) -> Output:
        torch.manual_seed(0)
        optimizer = torch.optim.AdamW(student.parameter_groups(rate, rate), weight_decay=0.0)
        student.train()
        for _ in range(steps):
            output = student(student.collate(examples, view))
            optimizer.zero_grad()
            output.loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
        student.eval()
        return output

    return run
