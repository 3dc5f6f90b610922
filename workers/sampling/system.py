"""The sampler of the system that this runs on: the same names on each."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from workers.sampling.windows import MemorySample, PhasePeaks, ProcessSampler, TreeLook
else:
    from workers.sampling.linux import MemorySample, PhasePeaks, ProcessSampler, TreeLook

__all__ = ["MemorySample", "PhasePeaks", "ProcessSampler", "TreeLook"]
