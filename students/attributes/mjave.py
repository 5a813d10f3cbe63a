"""M-JAVE: attributes predicted and values tagged together, from text and picture (Zhu et al., EMNLP 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...tasks.attributes import Example, attribute_of
from ..collate import Item, Layout, pad
from ..encoders.text import TextEncoder, UnsupportedBackbone
from ..fusion.gated import Attention, GlobalGate, RegionGate
from ..heads.tags import Tags, decode_values, encode_values, merge_values
from ..queries import check_marked
from ..settings import BackboneConfig, Clash
from ..student import Batch, Output, View
from ..system import System, UnsupportedView
from ..units import lay, unit_states

#: Probabilities stay this far from 0 and 1 where their logarithm is taken.
_EPSILON = 1e-6


class MJAVEConfig(BackboneConfig):
    """What an `MJAVE` is made of.

    Attributes:
        frozen: leave the backbone as it is and train what stands on it, as the paper does.
        width: ``D``, of both attentions and of the layers before the outputs.
        region_gate: ``scalar`` as published, or ``bilinear`` (`fusion.gated.RegionGate`).
        consistency: weight of the divergence between the attributes predicted and those that the tags imply.
        threshold: an attribute less probable than this is absent, whatever is tagged; 0 leaves it to the tags.
    """

    tasks = ("attributes",)

    frozen: bool = False
    width: int = Field(200, ge=1)
    region_gate: Literal["scalar", "bilinear"] = "scalar"
    consistency: float = Field(0.5, ge=0)
    threshold: float = Field(0.0, ge=0, lt=1)

    def clashes(self, recipe: Any) -> Iterator[Clash]:
        """An adapter on a frozen backbone; no text to tag."""
        if self.frozen and self.lora_rank:
            yield ("frozen", "lora_rank"), "frozen: true trains no adapter: lora_rank: 0"
        if not recipe.text:
            yield ("text", "student"), "mjave marks values in the text: text: true"

    def pretrained(self, images: bool) -> str:
        """The backbone, how it is tuned, and the image encoder."""
        said = super().pretrained(images)
        return said.replace("(all weights)", "(frozen)", 1) if self.frozen else said


class _Picture(NamedTuple):
    """Regions ``[B, K, c]``, vectors ``[B, C]`` of the whole, and which pictures there are, ``[B]``."""

    regions: Tensor
    whole: Tensor
    present: Tensor


class MJAVE(System):
    """Joint attribute prediction and value tagging (Zhu et al., EMNLP 2020).

    Tokens ``h_i`` of the text, regions ``v_k`` and vector ``v_G`` of the picture, attributes ``a`` of the schema:

    - ``s_i = sum_j alpha_ij W_v h_j`` (self-attention), ``x_i = sum_k beta_ik W_v' v_k`` (attention over regions);
    - ``h'_i = s_i + g_i x_i`` with the global gate ``g_i``;
    - ``y_a = sigmoid(W (W_3 sum_i h_i + W_4 sum_i h'_i + W_5 h_cls))``: which attributes there are;
    - ``y_v,i = softmax(W (W_8 h_i + W_9 h'_i + W_10 y_a + sum_k beta_ik r_k W_v' v_k))`` with the region gate ``r_k``:
      a BIO tag for each token, without a CRF.

    The loss is the tags' cross entropy + the attributes' binary one + ``consistency`` times `bernoulli_kl` between
    ``y_a`` and what the tags imply (`implied`). Unlike the authors' release, both attentions have their softmax, the
    divergence cannot be negative, and the backbone may be tuned. Tokens are sub-tokens, in Chinese single characters.
    Attributes that gold does not mention count as absent. Without a picture all gates are 0: the text-only model.
    """

    NAME = "mjave"
    Config = MJAVEConfig
    GRID, DEPTHS = 7, 1
    config: MJAVEConfig
    encoder: TextEncoder

    def build(self) -> None:
        """Its parts."""
        config, schemas, encoder, levels = self.config, self.schemas, self.encoder, self.levels
        if encoder.decoder:
            raise UnsupportedBackbone(f"{config.backbone} has no [CLS] that has read the text: take an encoder (BERT)")
        if config.frozen:
            encoder.requires_grad_(False)
        self.layout = Layout(encoder, config.context_tokens)
        names = tuple(dict.fromkeys(a.name for a in schemas["attributes"].attributes))
        self.tags = Tags(names)
        hidden, width = encoder.hidden, config.width
        self.dropout = nn.Dropout(config.dropout)
        self.reread = Attention(hidden, hidden, width)
        if levels:
            regions, whole = levels[0][1], levels[-1][1]
            self.look = Attention(hidden, regions, width)
            self.global_gate = GlobalGate(hidden, whole)
            self.region_gate = RegionGate(len(names), regions, config.region_gate)
        parts = lambda *inputs: nn.ModuleList([nn.Linear(size, width, bias=False) for size in inputs])
        self.attribute_parts = parts(hidden, width, hidden)  # W_3, W_4, W_5
        self.attribute = nn.Linear(width, len(names))
        self.tag_parts = parts(hidden, width, len(names))  # W_8, W_9, W_10
        self.tag = nn.Linear(width, len(self.tags))

    def train(self, mode: bool = True) -> Self:
        """Training mode; a frozen backbone stays in eval mode."""
        super().train(mode)
        if self.config.frozen:
            self.encoder.eval()
        return self

    def collate(self, examples: Sequence[Example], view: View | None = None) -> Batch:
        """Rows of the texts (`units.lay`), ``tags [B, W]`` and ``attributes [B, A]`` of those with ``gold [B]``.

        Counted besides what gold cannot teach: ``unknown_sub_tokens`` of the texts, which all look alike to the
        backbone.
        """
        view = view or self.view
        self._check(examples, view)
        laid = lay(self.layout, [Item(i, e) for i, e in enumerate(examples)], view)
        tensors, counts = laid.tensors, laid.counts
        unknown = self.encoder.sub_tokens.unknown
        counts["unknown_sub_tokens"] = sum(unknown in piece for text in laid.texts for piece in text.pieces)
        tags: list[list[int]] = []
        for example, text in zip(examples, laid.texts, strict=True):
            own, remarks = encode_values(example, tuple(example.gold.values) if example.gold else (), text, self.tags)
            tags.append(own or [0] * len(text.pieces))
            counts += remarks
        tensors["tags"] = pad(tags)
        held = [{n for n, values in e.gold.values.items() if values} if e.gold else set() for e in examples]
        tensors["attributes"] = torch.tensor([[float(name in own) for name in self.tags.labels] for own in held])
        tensors["gold"] = torch.tensor([e.gold is not None for e in examples])
        tensors["units"] = tensors["word_mask"][tensors["gold"]].sum()[None]
        if view.images:
            pictures, more = self.pictures(examples)
            tensors |= pictures
            counts += more
        return Batch(tensors, examples, view, dict(+counts))

    def _check(self, examples: Sequence[Example], view: View) -> None:
        """Refuse what this student cannot be shown or asked."""
        if not view.text:
            raise UnsupportedView("without text there is nothing to tag")
        if view.prompt or view.explain:
            raise UnsupportedView("this student has no conditional prompt and does not explain")
        for example in examples:
            for name in dict.fromkeys((*example.asked, *(example.gold.values if example.gold else ()))):
                check_marked(example, attribute_of(self.schemas["attributes"], example, name), "tags it")

    def forward(self, batch: Batch) -> Output:
        """The three losses; ``tags [B, W, K]`` (log probabilities), ``attributes [B, A]`` and ``word_mask [B, W]``."""
        tensors = batch.tensors
        states = self.encoder(tensors["input_ids"], tensors["attention_mask"], tensors["token_type_ids"])
        words = self.dropout(unit_states(states, tensors)).float()
        whole = self.dropout(states[tensors["item_row"], 0]).float()
        tags, attributes = self.read(words, tensors["word_mask"], whole, self._picture(tensors))
        scores = {"tags": tags, "attributes": attributes.sigmoid(), "word_mask": tensors["word_mask"]}
        if not tensors["gold"].any():
            return Output(None, {}, scores)
        losses = self._losses(tags, attributes, tensors)
        return Output(losses["tags"] + losses["attributes"] + self.config.consistency * losses["kl"], losses, scores)

    def _picture(self, tensors: Mapping[str, Tensor]) -> _Picture | None:
        """What is seen of the examples' pictures; None where no example has one."""
        if "image.present" not in tensors or self.levels is None:
            return None
        last = tensors[f"image.level{len(self.levels) - 1}"]  # the encoder's own vector, or the regions again
        return _Picture(tensors["image.level0"], last.mean(1), tensors["image.present"])

    def read(self, words: Tensor, mask: Tensor, whole: Tensor, picture: _Picture | None) -> tuple[Tensor, Tensor]:
        """Tags' log probabilities ``[B, W, K]`` and attributes' logits ``[B, A]``: the equations above.

        Args:
            words, mask: states ``[B, W, d]`` of the tokens, and which of them there are.
            whole: ``[B, d]``, the state of ``[CLS]``.
            picture: what is seen, or None.
        """
        weights, values = self.reread(words, words, mask)
        fused = weights @ values
        if picture is not None:
            looks, views = self.look(words, picture.regions)
            fused = fused + self.global_gate(words, picture.whole, picture.present) * (looks @ views)
        total = lambda states: (states.float() * mask[..., None]).sum(1)
        inputs = (total(words), total(fused), whole)
        attributes = self.attribute(_sum(self.attribute_parts, inputs)).float()
        predicted = attributes.sigmoid()
        hidden = _sum(self.tag_parts, (words, fused, predicted[:, None]))
        if picture is not None:
            let_through = self.region_gate(predicted, picture.regions, picture.present)
            hidden = hidden + (looks * let_through[:, None]) @ views
        return self.tag(hidden).float().log_softmax(-1), attributes

    def _losses(self, tags: Tensor, attributes: Tensor, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        gold = tensors["gold"]
        tags, attributes, mask = tags[gold], attributes[gold], tensors["word_mask"][gold]
        evidence = implied(tags.exp(), mask)
        return {
            "tags": F.nll_loss(tags[mask], tensors["tags"][gold][mask]),
            "attributes": F.binary_cross_entropy_with_logits(attributes, tensors["attributes"][gold]),
            "kl": bernoulli_kl(attributes.sigmoid(), evidence).mean(),
        }

    def answer(self, examples: Sequence[Example], view: View) -> tuple[list[tuple[Any, Any]], Mapping[str, int]]:
        """The surest span of each attribute asked; absent where there is none, or below the ``threshold``."""
        batch = self.collate([e.model_copy(update={"gold": None}) for e in examples], view)
        scores = self(batch.to(self.device)).scores
        posteriors, probabilities = scores["tags"].exp().cpu(), scores["attributes"].tolist()
        answered = []
        for example, posterior, sure in zip(examples, posteriors, probabilities, strict=True):
            text = self.layout.read(example)
            own = posterior[: len(text.pieces)]
            found = decode_values(example, example.asked, text, own.argmax(-1).tolist(), own, self.tags)
            for name, probability in zip(self.tags.labels, sure, strict=True):
                if name in found and probability < self.config.threshold:
                    found[name] = (), 1.0 - probability
            answered.append(merge_values(example, [found]))
        return answered, batch.counts


def implied(tags: Tensor, mask: Tensor) -> Tensor:
    """How far the tags speak for each attribute: the mean of ``max_i P(B-a)`` and ``max_i P(I-a)``, ``[B, A]``.

    Of probabilities ``[B, W, 1 + 2 A]`` (`heads.tags.Tags`) and a mask ``[B, W]``.
    """
    strongest = tags.masked_fill(~mask[..., None], 0.0).amax(1)
    return strongest[:, 1:].unflatten(-1, (-1, 2)).mean(-1)


def bernoulli_kl(first: Tensor, second: Tensor) -> Tensor:
    """``KL(Bernoulli(p) || Bernoulli(q))`` of probabilities of one shape; never negative."""
    p, q = first.clamp(_EPSILON, 1 - _EPSILON), second.clamp(_EPSILON, 1 - _EPSILON)
    return p * (p.log() - q.log()) + (1 - p) * ((1 - p).log() - (1 - q).log())


def _sum(layers: nn.ModuleList, inputs: Sequence[Tensor]) -> Tensor:
    """The sum of what each layer makes of its input."""
    first, *others = (layer(one) for layer, one in zip(layers, inputs, strict=True))
    for other in others:
        first = first + other
    return first
