"""Whether this process sees a GPU, and if not, why not."""

import os
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia/version")


def sees_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def why_none() -> str:
    """What keeps this process from seeing a GPU, and what to do about it, as far as the machine tells."""
    import torch

    if not torch.backends.cuda.is_built():
        return "this torch is built for CPUs alone: install the registry's build"
    if (hidden := os.environ.get("CUDA_VISIBLE_DEVICES")) in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES={hidden} hides them: unset it"
    if DRIVER.exists():
        return "NVIDIA's driver is loaded, but hands this process none: start its container with --gpus all"
    return "no NVIDIA driver is loaded"
