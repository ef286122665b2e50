"""Memory that training frees stays with its process."""

import os
import subprocess
import sys

import pytest

# Page faults of a step that takes and frees 96 MB, before and after, told by the system.
COUNT = """
import resource
import torch
from pipeline.allocator import keep_freed_memory

def faults():
    for _ in range(12):  # the first ones grow the heap
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        tensors = [torch.ones(4 << 20) for _ in range(6)]
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

plain = faults()
keep_freed_memory()
print(plain, faults())
"""

# What glibc begins with, and would raise by itself after a step or two, or not, by where its blocks happen to lie.
FIXED = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' allocators have no such setting")
def test_a_step_takes_the_memory_that_the_last_one_freed() -> None:
    environment = os.environ | FIXED
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True, env=environment)
    plain, kept = map(int, done.stdout.split())
    assert kept < plain / 100
