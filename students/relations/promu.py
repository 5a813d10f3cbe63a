"""PROMU: text and picture fused by cross-attention, aligned by prompted soft labels (Hu et al., ACM MM 2023)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from .. import best_of
from ..encoders.captions import CAPTION
from ..encoders.prompter import Prompter, prompter, prompts
from ..encoders.text import UnsupportedBackbone
from ..fused import Fused, FusedConfig, Fusion
from ..fusion.coattention import Block
from ..fusion.contrast import different
from ..fusion.copies import COMMON, tells
from ..fusion.prompted import contrast, prompt_vectors, soft_cross_entropy, soft_labels, sure
from ..saving import CheckpointError
from ..settings import Clash
from ..system import Picture, UnsupportedView

#: What a part of a picture is asked to show, and what a picture with its text is asked to be about.
NOUN_TEMPLATES = ("a picture of {}",)
RELATION_TEMPLATES = ("a picture of {}", "the relation is {}", "a picture that shows the relation {}")

#: Relations of prompts: English labels of properties that Wikidata has of people, organisations, places and works.
RELATIONS = tuple(
    "parent, child, sibling, spouse, unmarried partner, relative, significant person, student of, doctoral advisor, "
    "influenced by, employer, occupation, position held, member of, member of sports team, member of political party, "
    "head coach, head of government, chief executive officer, founded by, owned by, parent organization, subsidiary, "
    "headquarters location, country of citizenship, place of birth, place of death, residence, educated at, "
    "ethnic group, religion, language spoken, award received, nominated for, participant in, winner, cast member, "
    "performer, director, author, composer, producer, characters, present in work, part of, has part, different from, "
    "said to be the same as, located in, capital, country, shares border with, location, point of interest, sport, "
    "league, competition, opponent, product, manufacturer, brand, sponsor".split(", ")
)

#: The start of the contrast's temperature.
_TEMPERATURE = 0.07

#: What is not taken over from another student: its answers, and the nouns it was asked.
_OWN = ("head.", "nouns.")


class PROMUConfig(FusedConfig):
    """What a `PROMU` is made of.

    Attributes:
        layers, attention_heads: of the fusion: cross-attention to the picture's cells.
        pretraining: weight of the losses named in ``pretrain_by``, which learn beside the task's; 0 for none.
        pretrain_by: ``contrast`` and ``matching`` of texts and pictures; ``entities`` and ``relations``, alignment by
            prompted soft labels, which need an image encoder with a text side (`encoders.prompter`).
        space: width of the space in which texts and pictures are compared.
        nouns: how many words parts of pictures are asked to show.
        label_temperature: of the soft labels; lower is harder.
        least: soft labels whose largest probability is below it teach nothing.
        start: the folder of a `PROMU` (or of the run that trained it, of any task) whose encoder and fusion it takes
            over, or None.
    """

    crops: ClassVar[int] = 3

    layers: int = Field(2, ge=1)
    attention_heads: int = Field(8, ge=1)
    pretraining: float = Field(0.1, ge=0)
    pretrain_by: tuple[Literal["contrast", "matching", "entities", "relations"], ...] = ("contrast", "matching")
    space: int = Field(256, ge=1)
    nouns: int = Field(200, ge=2)
    label_temperature: float = Field(0.05, gt=0)
    least: float = Field(0.2, ge=0, le=1)
    start: str | None = None

    def clashes(self, recipe: Any) -> Iterator[Clash]:
        """Soft labels without a prompter."""
        yield from super().clashes(recipe)
        asked = [name for name in self.pretrain_by if name in ("entities", "relations")]
        if asked and recipe.images and self.image_encoder and not prompts(self.image_encoder):
            said = f"pretrain_by {asked[0]} needs an image_encoder with a text side"
            yield ("pretrain_by", "image_encoder"), f"{said}: open_clip:NAME@WEIGHTS or caption:NAME"


class PROMU(Fused):
    """The text's states read the picture's cells by cross-attention; losses of pre-training align the two.

    ``H_0`` are the states of any transformers encoder, ``P`` the projected cells of the whole picture and three parts
    of it, ``H_l = Block_l(H_{l-1}, P)`` (`fusion.coattention`). A tagging or a pair head reads the last, ``H_L``; of a
    row without a picture, ``H_0``. Beside the task's loss, on the same examples, in training (`fusion.prompted`):

    - contrast: the text's and the picture's mean states, in a common space;
    - matching: do text and picture belong together? asked of ``H_L`` with its own and with a neighbour's picture;
    - entities: what does each part show? a layer over its cells, which have read the text, learns the soft labels that
      the prompter gives to prompts with nouns;
    - relations: the same of the whole picture with prompts of `RELATIONS`, by ``H_L``.

    The paper pre-trains with these losses, equally weighted, on news photos and captions, and then tunes for the task;
    here they are auxiliary losses. In two runs: one with a large ``pretraining``, then one with its folder as
    ``start``, for the same task or the other. The prompter is the text side of the frozen image encoder; the paper
    trains one. Nouns are the content words that most training captions and texts have (the paper: 1000 nouns by a
    parser), and relations are 62 in place of 1000. States are pooled by their mean, not by ``[CLS]``. Every text fits
    its own picture; one that another example shares is no negative. A part of the picture has cells of its own (in the
    release the object tensor holds the whole picture).

    Ablations: ``pretraining: 0``, or any part of ``pretrain_by``.
    """

    NAME = "promu"
    Config = PROMUConfig
    GRID, DEPTHS = 4, 1
    config: PROMUConfig

    @classmethod
    def prepare(cls, config: Any, schemas: Mapping[str, Any], examples: Sequence[Any]) -> dict[str, Any]:
        """With ``entities``, the nouns."""
        if not config.pretraining or "entities" not in config.pretrain_by:
            return {}
        return {"nouns": common_words(examples, config.nouns)}

    @classmethod
    def create(cls, config: Any, schemas: Mapping[str, Any], examples: Sequence[Any] = ()) -> PROMU:
        """A new student, with the encoder and the fusion of ``start`` if it names one."""
        student = super().create(config, schemas, examples)
        if config.start:
            student.go_on_from(cls.from_pretrained(best_of(config.start)))
        return student

    def go_on_from(self, earlier: PROMU) -> None:
        """Take over what both have, but for the head; a `CheckpointError` if encoder or fusion differ."""
        own, theirs = self.state_dict(), earlier.state_dict()
        fits = lambda key: key in own and key in theirs and own[key].shape == theirs[key].shape
        needed = [k for k in own.keys() | theirs.keys() if k.startswith(("encoder.", "look.", "layers."))]
        wrong = sorted(key for key in needed if not fits(key))
        if wrong:
            raise CheckpointError(f"start: it is made with other settings; differing: {', '.join(wrong)}")
        taken = {key: theirs[key] for key in own if fits(key) and not key.startswith(_OWN)}
        self.load_state_dict({**own, **taken})

    def parts(self) -> None:
        """The fusion, and what each loss of pre-training learns by."""
        config, width = self.config, self.encoder.hidden
        self.by = config.pretrain_by if config.pretraining and self.levels else ()
        if not self.levels:
            return
        if width % config.attention_heads:
            heads = config.attention_heads
            raise UnsupportedBackbone(
                f"attention_heads={heads} do not divide the width {width} of the backbone's states"
            )
        block = lambda: Block(width, config.attention_heads, 2 * width, config.dropout)
        classify = lambda labels: nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, labels))
        channels = self.levels[0][1]
        self.look = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width))
        self.layers = nn.ModuleList(block() for _ in range(config.layers))
        if "contrast" in self.by:
            self.text_space, self.picture_space = nn.Linear(width, config.space), nn.Linear(width, config.space)
            self.log_temperature = nn.Parameter(torch.tensor(_TEMPERATURE).log())
        if "matching" in self.by:
            self.matched = nn.Linear(width, 2)
        if "entities" in self.by:
            if not self.vocabulary.get("nouns"):
                raise UnsupportedView(
                    "pretrain_by entities: its nouns come from the training examples, and there are none"
                )
            self.read_text, self.nouns = block(), classify(len(self.vocabulary["nouns"]))
        if "relations" in self.by:
            self.relations = classify(len(RELATIONS))
        self._prompted: dict[str, Tensor] = {}

    # --- the fusion ---

    def fuse(self, tensors: dict[str, Tensor], picture: Picture | None) -> Fusion:
        """``H_L`` of the rows and, in training, the losses of pre-training."""
        states = self.encode(tensors)
        if picture is None:
            return Fusion(states)
        cells = self.look(picture.levels[0])
        fused = self.meet(states, cells, picture.present)
        losses = self._pretraining(tensors, states, fused, cells, picture) if self.training and self.by else {}
        return Fusion(fused, {f"pretraining_{k}": self.config.pretraining * loss for k, loss in losses.items()})

    def meet(self, states: Tensor, cells: Tensor, present: Tensor) -> Tensor:
        """``H_L [R, T, d]`` of ``H_0`` and cells ``[R, M, d]``; ``H_0`` where none is ``present [R]``."""
        mask, fused = present[:, None].expand(cells.shape[:2]), states
        for layer in self.layers:
            fused = layer(fused, cells, mask)
        return torch.where(present[:, None, None], fused, states)

    # --- pre-training ---

    def _pretraining(
        self, tensors: dict[str, Tensor], states: Tensor, fused: Tensor, cells: Tensor, picture: Picture
    ) -> dict[str, Tensor]:
        """Each loss by name, over the examples that have a picture (the first row of each); nothing without any."""
        first = tensors["item_row"]
        rows = first[picture.present[first]]
        if not len(rows):
            return {}
        mask, frozen = tensors["attention_mask"][rows].bool(), picture.levels[-1][rows]
        states, fused, cells = states[rows], fused[rows], cells[rows]
        unlike, found = different(frozen), {}
        parts = lambda cells: cells.unflatten(1, (1 + self.config.crops, -1)).mean(2)
        if "contrast" in self.by:
            texts, pictures = self.text_space(_mean(states, mask)), self.picture_space(parts(cells)[:, 0])
            found["contrast"] = contrast(texts, pictures, self.log_temperature.exp(), negatives=unlike)
        if "matching" in self.by:
            other = torch.arange(len(rows), device=rows.device).roll(1)
            wrong = self.meet(states, cells[other], torch.ones_like(rows, dtype=torch.bool))
            said = self.matched(torch.cat([_mean(fused, mask), _mean(wrong, mask)]))
            fits = torch.cat([torch.ones_like(rows), (~unlike).long().gather(1, other[:, None])[:, 0]])
            found["matching"] = F.cross_entropy(said.float(), fits)
        if "entities" in self.by:
            seen = parts(self.read_text(cells, states, mask))[:, 1:]
            found["entities"] = self._aligned(self.nouns(seen), frozen[:, 1:], "nouns")
        if "relations" in self.by:
            found["relations"] = self._aligned(self.relations(_mean(fused, mask)), frozen[:, 0], "relations")
        return found

    def _aligned(self, logits: Tensor, pictures: Tensor, asked: str) -> Tensor:
        """How far logits ``[..., M]`` are from the soft labels of frozen vectors ``[..., c]``."""
        labels = soft_labels(pictures, self.prompts(asked).to(pictures.device), self.config.label_temperature)
        return soft_cross_entropy(logits, labels, sure(labels, self.config.least))

    @cached_property
    def prompter(self) -> Prompter:
        """The text side of the image encoder, loaded when soft labels are first asked for."""
        return prompter(self.config.image_encoder or "", self.image_encoder)

    def prompts(self, asked: str) -> Tensor:
        """Vectors ``[M, c]`` of the prompts for ``nouns`` or ``relations``, made once."""
        if asked not in self._prompted:
            words = self.vocabulary["nouns"] if asked == "nouns" else RELATIONS
            templates = NOUN_TEMPLATES if asked == "nouns" else RELATION_TEMPLATES
            said = [self.prompter([template.format(word) for word in words]) for template in templates]
            self._prompted[asked] = prompt_vectors(torch.stack(said))
        return self._prompted[asked]


def common_words(examples: Sequence[Any], count: int) -> list[str]:
    """The content words that most examples have in caption or text, in lower case; ties by the alphabet."""
    counts = Counter[str]()
    for example in examples:
        said = f"{example.text} {example.context.get(CAPTION, '')}".lower()
        counts.update(word for word in set(re.findall(r"[^\W\d_]+", said)) if tells(word, COMMON))
    return [word for word, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:count]]


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    """The mean ``[N, d]`` of states ``[N, T, d]`` that are there, ``[N, T]``."""
    weights = mask.to(states.dtype)
    return (states * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
