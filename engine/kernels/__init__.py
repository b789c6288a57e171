"""A faster way through the same weights: BERT-like encoders with LoRA, layer by layer, with hand-written gradients.

The adapter still lives in PEFT's modules; only the arithmetic is ours. `fused_forward` and `fused_body` give None where a model,
an adapter or a device is not one that it knows, and then the plain way is used. Both give the same logits and
gradients; engine/tests/test_kernels.py holds it to that.
"""

from engine.kernels.encoder import fused_body, fused_forward

__all__ = ["fused_body", "fused_forward"]
