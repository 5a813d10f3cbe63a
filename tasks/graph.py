"""Entities, relations and knowledge graphs: what completion, alignment and linking stand on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from .images import Image
from .record import Record
from .task import DataFault, closed_object


class Entity(Record):
    """An entity as a graph or a knowledge base describes it; also a candidate, as it is shown to a teacher.

    ``attributes`` are its literal facts (``population``: ``("83,166,711",)``); ``name`` falls back to the id.
    """

    id: str = Field(min_length=1)
    name: str = ""
    aliases: tuple[str, ...] = ()
    description: str = ""
    attributes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    images: tuple[Image, ...] = ()

    @property
    def title(self) -> str:
        """Its name, or its id where it has none."""
        return self.name or self.id


class Relation(Record):
    """A relation of a graph: its id, its name in prose and, where there is one, its guideline."""

    name: str = Field(min_length=1)
    title: str = ""
    guideline: str = ""


class Ranking(Record):
    """An answer that ranks entities: their ids, the best first, with scores where the ranker has any.

    Empty says that there is none: no counterpart, NIL. As gold it holds the one right id, or none.
    """

    ranking: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _parallel(self) -> Ranking:
        if self.scores and len(self.scores) != len(self.ranking):
            raise ValueError(f"{len(self.scores)} scores for {len(self.ranking)} entities")
        if len(set(self.ranking)) != len(self.ranking):
            raise ValueError("an entity is ranked twice")
        return self

    @property
    def best(self) -> str | None:
        """The first entity, or None."""
        return self.ranking[0] if self.ranking else None


@dataclass(frozen=True)
class KnowledgeGraph:
    """Entities, relations, and triples as integers.

    Attributes:
        name: what it is called, for example ``db15k``.
        entities: in the order of their numbers.
        relations: in the order of their numbers.
        triples: split name to an int64 array of shape (triples, 3): head, relation and tail as numbers. The split
            ``train`` is what is known; a graph that has no splits holds all its triples there.
        notes: counted remarks of the reader.

    Raises:
        DataFault: an id stands twice, or a triple names a number that there is not.
    """

    name: str
    entities: tuple[Entity, ...]
    relations: tuple[Relation, ...] = ()
    triples: dict[str, np.ndarray] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.number) != len(self.entities):
            twice = _first_twice([e.id for e in self.entities])
            raise DataFault(self.name, f"the entity id {twice!r} stands twice", "each entity has an id of its own")
        if len(self.relation_number) != len(self.relations):
            twice = _first_twice([r.name for r in self.relations])
            raise DataFault(self.name, f"the relation {twice!r} stands twice")
        for split, triples in self.triples.items():
            if triples.ndim != 2 or triples.shape[1] != 3:
                raise DataFault(self.name, f"the {split} triples have the shape {triples.shape}, not (triples, 3)")
            limits = (len(self.entities), len(self.relations), len(self.entities))
            if len(triples) and (triples.min() < 0 or (triples.max(axis=0) >= limits).any()):
                raise DataFault(self.name, f"a {split} triple names an entity or a relation that is not there")

    @cached_property
    def number(self) -> dict[str, int]:
        """Entity id to its number."""
        return {e.id: i for i, e in enumerate(self.entities)}

    @cached_property
    def relation_number(self) -> dict[str, int]:
        """Relation name to its number."""
        return {r.name: i for i, r in enumerate(self.relations)}

    def entity(self, id: str) -> Entity:
        """The entity of that id; a `KeyError` that says so, if there is none."""
        if id not in self.number:
            raise KeyError(f"{self.name} has no entity {id!r}")
        return self.entities[self.number[id]]

    def all_triples(self, splits: Sequence[str] | None = None) -> np.ndarray:
        """The triples of these splits (default: of all) under one another, shape (triples, 3)."""
        chosen = [self.triples[split] for split in (self.triples if splits is None else splits)]
        return np.concatenate(chosen) if chosen else np.empty((0, 3), np.int64)


def _first_twice(names: Sequence[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""


def numbered_choice(candidates: Sequence[Entity], none: bool) -> dict[str, Any]:
    """JSON schema of a teacher's choice among numbered candidates: 1 is the first, 0 says none of them."""
    numbers = [*([0] if none else []), *range(1, len(candidates) + 1)]
    return closed_object({"choice": {"type": "integer", "enum": numbers}})
