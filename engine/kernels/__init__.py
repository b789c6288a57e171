"""Faster forward and backward passes through BERT-like encoders with LoRA adapters, with gradients written by hand.

The weights stay in the modules of transformers and PEFT; only the arithmetic is ours. `fused_forward` and `fused_body` return None
for a model, adapter or device that they do not cover, and the caller then uses the model itself. Both give the same logits and
gradients; engine/tests/test_kernels.py compares them.
"""

from engine.kernels.attention import PackedTexts
from engine.kernels.encoder import FusedForward, fused_body, fused_forward

__all__ = ["FusedForward", "PackedTexts", "fused_body", "fused_forward"]
