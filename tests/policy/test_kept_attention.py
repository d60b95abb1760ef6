"""kept_attention.py against PyTorch's own attention."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from rlaif.policy import kept_attention
from rlaif.policy.kept_attention import attend

SCALE = 0.3


def inputs(dtype, bias_rows, seed=0):
    """5 rows of 2 heads, 7 queries, 11 keys of 4 numbers; some keys are hidden. And a gradient of the output."""
    draw = torch.Generator().manual_seed(seed)
    q, k, v, grad = (torch.randn(5, 2, n, 4, generator=draw) for n in (7, 11, 11, 7))
    hidden = torch.rand(bias_rows, 1, 7, 11, generator=draw) < 0.3
    hidden[..., 0] = False
    bias = torch.zeros(hidden.shape).masked_fill_(hidden, torch.finfo(torch.float32).min)
    return [x.requires_grad_() for x in (q, k, v.to(dtype))], bias, grad.to(dtype)


def run(attention, tensors, grad):
    out = attention(*tensors)
    return [out.detach(), *torch.autograd.grad(out, tensors, grad)]


@pytest.mark.parametrize("bias_rows", [1, 5])
@pytest.mark.parametrize("cache_bytes", [1, 2 * 4 * 2 * 7 * 11, 2**22])  # a row at a time, two, all
def test_the_formulas_are_attentions(cache_bytes, bias_rows, monkeypatch):
    monkeypatch.setattr(kept_attention, "CACHE_BYTES", cache_bytes)
    tensors, bias, grad = inputs(torch.float32, bias_rows)
    ours = run(lambda q, k, v: kept_attention._Kept.apply(q, k, v, bias.expand(5, -1, -1, -1), SCALE), tensors, grad)
    plain = run(lambda q, k, v: scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=SCALE), tensors, grad)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=0)


@pytest.mark.parametrize("keep_bytes", [0, 2**25])
def test_in_bfloat16_only_its_rounding_differs(keep_bytes, monkeypatch):
    """Five products of numbers rounded to 8 bits. Scores rounded like that, of up to 30 here, would be off by a tenth."""
    monkeypatch.setattr(kept_attention, "KEEP_BYTES", keep_bytes)
    tensors, bias, grad = inputs(torch.bfloat16, 5)
    with torch.no_grad():
        tensors[0] *= 20
    ours = run(lambda q, k, v: attend(q, k, v, bias, SCALE, torch.bfloat16), tensors, grad)
    assert [x.dtype for x in ours] == [torch.bfloat16, torch.float32, torch.float32, torch.bfloat16]
    plain = run(lambda q, k, v: scaled_dot_product_attention(q, k, v.float(), attn_mask=bias, scale=SCALE), tensors, grad.float())
    for one, other in zip(ours, plain, strict=True):
        assert (one.float() - other.float()).norm() < 0.012 * other.float().norm()


def test_long_rows_go_to_the_fused_kernel(monkeypatch):
    tensors, bias, _ = inputs(torch.bfloat16, 1)
    kept = 5 * 2 * 7 * 11 * 2
    for keep_bytes, expected in ((kept, True), (kept - 1, False)):
        monkeypatch.setattr(kept_attention, "KEEP_BYTES", keep_bytes)
        out = attend(*tensors, bias, SCALE, torch.bfloat16)
        assert ("Kept" in type(out.grad_fn).__name__) is expected


def test_in_float32_attention_is_the_fused_kernels_to_the_bit():
    tensors, bias, _ = inputs(torch.float32, 5)
    assert torch.equal(attend(*tensors, bias, SCALE, torch.float32), scaled_dot_product_attention(*tensors, attn_mask=bias, scale=SCALE))
