"""Structural alignment of two graphs: nodes are alike if their neighbourhoods have like degrees (REGAL, as in MEGA).

Source: Heimann et al., CIKM 2018 (xNetMF), with the numbers of MEGA (Zheng et al., ACM MM 2021). Everything here is a
pure function in fp64: an alignment depends on its graphs alone, however often it is asked for.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Edges = NDArray[np.bool_]

#: How much degrees two hops away count beside those one hop away.
SECOND_HOP = 0.01

#: Each object is aligned with so many tokens, those most like it in structure.
NEAREST = 5

#: Landmarks are drawn with this seed in every call: another draw would be another alignment.
_SEED = 0

#: Directions of a similarity matrix that are weaker than this share of its strongest are rounding errors.
_RANK = 1e-10


def align(objects: Edges, tokens: Edges, nearest: int = NEAREST) -> Floats:
    """``G [O, T]``: of each object the ``nearest`` tokens ``t`` by structure, each with ``exp(-|y_o - y_t|)``; else 0.

    Args:
        objects, tokens: adjacency ``[O, O]`` and ``[T, T]``, symmetric. An object without edges is aligned as well.
        nearest: tokens an object is aligned with; of equally near ones the first.
    """
    count = len(objects)
    union = np.zeros((count + len(tokens),) * 2, dtype=bool)
    union[:count, :count], union[count:, count:] = objects, tokens
    nodes = embed(descriptors(union))
    distances = np.linalg.norm(nodes[:count, None] - nodes[None, count:], axis=-1)
    # Rounding before sorting: nodes of one structure must be ties on every machine.
    order = np.argsort(distances.round(6), axis=1, kind="stable")[:, :nearest]
    found = np.zeros_like(distances)
    np.put_along_axis(found, order, np.exp(-np.take_along_axis(distances, order, 1)), 1)
    return found


def descriptors(edges: Edges, second_hop: float = SECOND_HOP) -> Floats:
    """``d = d_1 + second_hop * d_2 [n, K]`` of a graph ``[n, n]``: histograms of the degrees of a node's neighbours.

    ``d_1`` counts those one hop away, ``d_2`` those two hops away and no nearer; a degree ``g`` falls into the bucket
    ``floor(log2 g)``.
    """
    edges = edges & ~np.eye(len(edges), dtype=bool)
    degree = edges.sum(1)
    buckets = np.zeros((len(edges), 1 + int(math.log2(max(1, degree.max(initial=1))))))
    some = degree > 0
    buckets[some, np.log2(degree[some]).astype(int)] = 1.0
    second = (edges.astype(int) @ edges.astype(int) > 0) & ~edges & ~np.eye(len(edges), dtype=bool)
    found: Floats = edges @ buckets + second_hop * (second @ buckets)
    return found


def similarity(a: Floats, b: Floats) -> Floats:
    """``exp(-|a_i - b_j|)``, ``[n, m]``, of descriptors ``[n, K]`` and ``[m, K]``."""
    found: Floats = np.exp(-np.linalg.norm(a[:, None] - b[None], axis=-1))
    return found


def embed(found: Floats, landmarks: int | None = None, unit: bool = True) -> Floats:
    """Vectors ``[n, r]`` whose products approximate the nodes' similarities (Nystroem); of length 1 if ``unit``.

    With ``C`` the similarities to ``p`` landmarks and ``W`` those among them, ``C W^-1 C^T`` approximates all. It is
    exact where every node is a landmark, which holds for every graph of up to 58 nodes by the published ``p``.

    Args:
        found: descriptors ``[n, K]``.
        landmarks: ``p``; None for ``10 log2 n``, and never more than ``n``.
    """
    count = len(found)
    wanted = math.ceil(10 * math.log2(count)) if landmarks is None and count > 1 else landmarks or 1
    drawn: Any = np.random.default_rng(_SEED).permutation(count)[:wanted]
    chosen = np.sort(drawn)
    columns = similarity(found, found[chosen])
    # Nodes of one structure make W singular: only its true directions are inverted.
    values, vectors = np.linalg.eigh(columns[chosen])
    kept = values > _RANK * values.max()
    nodes: Floats = columns @ vectors[:, kept] / np.sqrt(values[kept])
    return nodes / np.linalg.norm(nodes, axis=1, keepdims=True).clip(min=_RANK) if unit else nodes


def nearest_neighbours(vectors: Floats, count: int) -> Edges:
    """Adjacency ``[n, n]``: two vectors are linked if one is among the ``count`` nearest of the other, by cosine.

    A vector of zeros stands for nothing: it has no edges.
    """
    there = np.abs(vectors).sum(1) > 0
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=_RANK)
    cosines = (vectors / lengths) @ (vectors / lengths).T
    cosines[~there] = cosines[:, ~there] = -np.inf
    np.fill_diagonal(cosines, -np.inf)
    order = np.argsort(-cosines.round(6), axis=1, kind="stable")[:, :count]
    chosen = np.zeros(cosines.shape, dtype=bool)
    np.put_along_axis(chosen, order, True, 1)
    chosen &= np.isfinite(cosines)
    found: Edges = chosen | chosen.T
    return found
