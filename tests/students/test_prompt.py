"""The conditional prompt."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from magister.students.fusion.prompt import ConditionalPrompt


def build() -> tuple[ConditionalPrompt, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    mask = torch.arange(7) < torch.tensor([[7], [3], [5]])
    return ConditionalPrompt(32, length=5, heads=4), 0.05 * torch.randn(3, 7, 32), mask


def test_equals_the_definition() -> None:
    """Worked out from the weights, head by head, for one row without its padding."""
    prompt, embeddings, mask = build()
    words = F.layer_norm(embeddings[1, :3], (32,))
    weight, bias = prompt.attention.in_proj_weight, prompt.attention.in_proj_bias
    q, k, v = (x @ weight[i : i + 32].T + bias[i : i + 32] for i, x in ((0, prompt.vectors), (32, words), (64, words)))
    heads = [
        torch.softmax(q[:, s] @ k[:, s].T / 8**0.5, -1) @ v[:, s] for s in (slice(h, h + 8) for h in range(0, 32, 8))
    ]
    mixed = F.layer_norm(prompt.vectors + prompt.attention.out_proj(torch.cat(heads, -1)), (32,))
    expected = (mixed + prompt.feed_forward(mixed)) * embeddings[1, :3].square().mean().sqrt()
    torch.testing.assert_close(prompt(embeddings, mask)[1], expected, rtol=1e-4, atol=1e-6)


def test_padding_does_not_matter() -> None:
    prompt, embeddings, mask = build()
    found = prompt(embeddings, mask)
    assert found.shape == (3, 5, 32)
    spoilt = embeddings.masked_fill(~mask[..., None], float("nan"))
    torch.testing.assert_close(prompt(spoilt, mask.long()), found)
    torch.testing.assert_close(prompt(embeddings[1:2, :3], mask[1:2, :3]), found[1:2])
    with torch.no_grad():  # torch takes another way through attention in evaluation
        torch.testing.assert_close(prompt.eval()(spoilt, mask), found)


def test_depends_on_the_text_and_has_its_size() -> None:
    prompt, embeddings, mask = build()
    found = prompt(embeddings, mask)
    assert (found[0] - found[1]).abs().max() > 1e-3
    changed = embeddings.clone()
    changed[0, 0] += torch.randn(32)
    assert (prompt(changed, mask)[0] - found[0]).abs().max() > 1e-3
    for size in (0.02, 1.0, 5.0):
        scaled = prompt(embeddings / 0.05 * size, mask)
        assert 0.7 * size < scaled.square().mean().sqrt() < 1.5 * size


def test_gradients_reach_everything() -> None:
    prompt, embeddings, mask = build()
    embeddings.requires_grad_()
    found = prompt(embeddings, mask)
    (found * torch.randn_like(found)).sum().backward()
    for name, parameter in prompt.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert embeddings.grad[mask].abs().sum() > 0
    assert not embeddings.grad[~mask].any()


def test_a_row_without_text_is_finite() -> None:
    prompt, embeddings, mask = build()
    mask[1] = False
    found = prompt(embeddings, mask)
    assert torch.isfinite(found).all()
    found.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in prompt.parameters())
    other = prompt(embeddings.flip(1), mask)
    assert torch.equal(found[1], other[1])


def test_bf16_autocast() -> None:
    prompt, embeddings, mask = build()
    with torch.autocast("cpu", torch.bfloat16):
        found = prompt(embeddings, mask)
    torch.testing.assert_close(found.float(), prompt(embeddings, mask), rtol=0.1, atol=0.01)


def test_heads_divide_the_width() -> None:
    with pytest.raises(ValueError, match="8 heads do not divide the width 36"):
        ConditionalPrompt(36)
