"""Structural alignment against loops over neighbours, the full similarity matrix, and cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from magister.students.fusion.alignment import Edges, align, descriptors, embed, nearest_neighbours, similarity


def graph(count: int, *edges: tuple[int, int]) -> Edges:
    found = np.zeros((count, count), dtype=bool)
    for a, b in edges:
        found[a, b] = found[b, a] = True
    return found


def random_graph(count: int, seed: int, share: float = 0.15) -> Edges:
    drawn = np.triu(np.random.default_rng(seed).random((count, count)) < share, 1)
    return drawn | drawn.T


def test_degrees_are_counted_in_buckets_of_powers_of_two() -> None:
    """A star of four leaves, one of which has a tail: degrees 4, 1, 1, 1, 2, 1."""
    star = graph(6, (0, 1), (0, 2), (0, 3), (0, 4), (4, 5))
    centre, leaf, _, _, inner, tail = descriptors(star)
    assert centre == pytest.approx([3.01, 1, 0])  # three of degree 1, one of 2; the tail two hops away
    assert leaf == pytest.approx([0.02, 0.01, 1])
    assert inner == pytest.approx([1.03, 0, 1])
    assert tail == pytest.approx([0, 1, 0.01])


@pytest.mark.parametrize("seed", range(3))
def test_descriptors_are_those_of_a_walk(seed: int) -> None:
    edges = random_graph(20, seed)
    near = [set(np.flatnonzero(row)) for row in edges]
    expected = np.zeros((20, 1 + int(math.log2(max(len(n) for n in near)))))
    for node in range(20):
        second = {there for here in near[node] for there in near[here]} - near[node] - {node}
        for weight, reached in ((1.0, near[node]), (0.01, second)):
            for other in reached:
                expected[node, int(math.log2(len(near[other])))] += weight
    np.testing.assert_allclose(descriptors(edges), expected, atol=1e-12)


def test_every_node_a_landmark_is_the_full_similarity() -> None:
    found = descriptors(random_graph(40, 0))
    exact = similarity(found, found)
    nodes = embed(found, landmarks=40, unit=False)
    np.testing.assert_allclose(nodes @ nodes.T, exact, atol=1e-6)
    default = embed(found, unit=False)  # 10 log2(40) > 40
    np.testing.assert_allclose(default @ default.T, exact, atol=1e-6)


def test_some_landmarks_come_near_and_are_always_the_same() -> None:
    found = descriptors(random_graph(120, 1, 0.05))
    exact = similarity(found, found)
    errors = []
    for landmarks in (10, 40, 70):
        nodes = embed(found, landmarks, unit=False)
        assert nodes.shape[1] <= landmarks
        errors.append(np.abs(nodes @ nodes.T - exact).mean())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01
    np.testing.assert_array_equal(embed(found), embed(found))


def test_an_alignment_is_objects_by_tokens_and_survives_repeated_access() -> None:
    objects, tokens = random_graph(10, 2, 0.3), random_graph(24, 3)
    first = align(objects, tokens)
    assert first.shape == (10, 24)
    for _ in range(3):
        np.testing.assert_array_equal(align(objects, tokens), first)
    assert ((first > 0).sum(1) == 5).all()
    assert first.max() <= 1.0

    # By the full similarity matrix of the union, object by object.
    union = np.zeros((34, 34), dtype=bool)
    union[:10, :10], union[10:, 10:] = objects, tokens
    found = descriptors(union)
    exact = similarity(found, found)
    for o in range(10):
        distances = [math.sqrt(max(0.0, 2 - 2 * exact[o, 10 + t])) for t in range(24)]
        best = sorted(range(24), key=lambda t: (round(distances[t], 5), t))[:5]
        np.testing.assert_allclose(first[o].sum(), sum(math.exp(-distances[t]) for t in best), atol=1e-5)


def test_like_places_are_aligned() -> None:
    """The middle of a star of objects with the middle of a star of tokens, its leaves with the leaves."""
    star = graph(4, (0, 1), (0, 2), (0, 3))
    tokens = graph(7, (0, 3), (1, 3), (2, 3), (4, 5), (5, 6))
    found = align(star, tokens, nearest=1)
    assert found.argmax(1).tolist() == [3, 0, 0, 0]
    assert found.max(1) == pytest.approx(1.0, abs=1e-6)


def test_fewer_tokens_than_are_wanted() -> None:
    found = align(graph(2, (0, 1)), graph(3, (0, 1), (1, 2)))
    assert (found > 0).all()
    assert align(graph(1), graph(1)).tolist() == [[1.0]]


def test_parts_are_linked_with_those_most_like_them() -> None:
    vectors = np.array([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1], [0, 0]])
    linked = nearest_neighbours(vectors, 1)
    assert linked.tolist() == graph(5, (0, 1), (2, 3)).tolist()  # what is not there has no edges
    assert (nearest_neighbours(vectors[:4], 9) == ~np.eye(4, dtype=bool)).all()
    assert not nearest_neighbours(vectors[4:], 2).any()
