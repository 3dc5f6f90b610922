"""An overload as a search would read it."""

from __future__ import annotations

from results.capacity.overload import Overload

MS = 1e6


def overload() -> Overload:
    """One in which nothing bad happened."""
    return Overload(
        run_id="r", base_rps=100, peak_rps=130, over_s=4, after_s=8,
        latency_p99_ns=(10 * MS, 90 * MS, 12 * MS), failed_share=0.0, not_sent=0, limited=True,
        back_after_s=2.0, within_before=1.0, within_after=1.0,
        memory_bytes=(100.0, 150.0, 110.0), died="", sent_rps=130.0,
        generator_at_its_end=False, spoiled="",
    )  # fmt: skip
