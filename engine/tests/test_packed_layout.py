"""Tokens that packed conversations begin with in common are computed once."""

import torch

from engine.kernels.packed_layout import PackedLayout, share_prefixes

CONVERSATIONS = [[1, 2, 3, 9, 9], [1, 2, 3, 4], [7, 2, 3], [1, 2, 3, 9, 8, 5], [1, 2, 3, 4]]


def end_to_end(conversations: list[list[int]]) -> torch.Tensor:
    return torch.tensor([token for each in conversations for token in each])


def layout_of(conversations: list[list[int]]) -> PackedLayout:
    return share_prefixes(end_to_end(conversations), [len(each) for each in conversations])


def test_each_beginning_is_computed_once_wherever_its_conversations_lie():
    layout = layout_of(CONVERSATIONS)
    ids = end_to_end(CONVERSATIONS)
    beginnings = {tuple(each[: end + 1]) for each in CONVERSATIONS for end in range(len(each))}
    computed_ids = layout.to_computed(ids)
    assert len(computed_ids) == len(beginnings) == 11
    assert layout.to_all(computed_ids).tolist() == ids.tolist()
    assert layout.sharing is not None
    assert layout.first_tokens().tolist() == [0, 3, 0, 4, 4]
    first = layout.sharing.computed.split(layout.lengths)
    assert first[1].tolist() == first[4].tolist() and set(first[2].tolist()).isdisjoint(first[0].tolist())


def test_gradient_is_that_of_autograd():
    layout = layout_of(CONVERSATIONS)
    x = torch.randn(11, 3, requires_grad=True)
    of_all = torch.randn(22, 3)
    layout.to_all(x).backward(of_all)
    assert x.grad is not None and torch.allclose(layout.gradient_to_computed(of_all), x.grad, atol=1e-6)


def test_nothing_is_copied_where_conversations_have_too_little_in_common():
    layout = layout_of([[1, *range(10, 70)], [1, *range(100, 160)]])
    x = torch.randn(122, 2)
    assert layout.sharing is None
    assert all(each(x) is x for each in (layout.to_all, layout.to_computed, layout.gradient_to_computed))
