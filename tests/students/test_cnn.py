"""The text CNN against loops over every window, and what padding must not do."""

from __future__ import annotations

import pytest
import torch
from magister.students.encoders.cnn import KimCNN


def slow(cnn: KimCNN, words: torch.Tensor) -> torch.Tensor:
    """Each filter on each window of a text [T, d] with blank words around it, one by one."""
    width, found = words.shape[1], []
    for span, convolution in zip(cnn.windows, cnn.convolutions, strict=True):
        blank = torch.zeros(span - 1, width)
        padded = torch.cat([blank, words, blank])
        for weight, bias in zip(convolution.weight, convolution.bias, strict=True):
            heard = [
                max(0.0, float(((weight.T * padded[at : at + span]).sum() + bias).detach()))
                for at in range(len(padded) - span + 1)
                if len(words)
            ]
            found.append(max(heard, default=0.0))
    return torch.tensor(found)


def test_is_the_maximum_over_windows() -> None:
    torch.manual_seed(0)
    cnn = KimCNN(4, (2, 5), 7)
    lengths = [6, 1, 3, 0]
    vectors = torch.randn(4, 6, 4)
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    expected = torch.stack([slow(cnn, row[:length]) for row, length in zip(vectors, lengths, strict=True)])
    assert cnn(vectors, mask).shape == (4, 7)
    torch.testing.assert_close(cnn(vectors, mask), expected)
    assert cnn(vectors, mask)[3].eq(0).all()


def test_padding_changes_nothing() -> None:
    torch.manual_seed(1)
    cnn = KimCNN(4, (5, 7), 8)
    vectors, mask = torch.randn(2, 5, 4), torch.ones(2, 5, dtype=torch.bool)
    longer = torch.cat([vectors, torch.full((2, 9, 4), torch.nan)], 1)
    torch.testing.assert_close(cnn(longer, torch.nn.functional.pad(mask, (0, 9))), cnn(vectors, mask))


def test_filters_are_shared_out() -> None:
    assert [c.out_channels for c in KimCNN(2, (5, 7, 9), 8).convolutions] == [4, 2, 2]
    with pytest.raises(ValueError, match="not enough"):
        KimCNN(2, (5, 7), 1)
