"""Where bf16 is real: processors and GPUs that multiply it in hardware, told by what they declare.

Declared, not timed: a timing would differ between two runs on a busy machine, and with it the weights.
"""

from __future__ import annotations

import torch


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether matrices are multiplied in bf16.

    Args:
        precision: bf16 and fp32 decide; auto asks the device.
        device: where the model is.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
