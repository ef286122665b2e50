"""What runs -> the bytes by which torch's memory rises above its beginning on a CPU; numpy's are not counted."""

from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile


def peak(way: Callable[[], object]) -> int:
    """Run it once, and map it to that many bytes."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        way()
    results: Any = record.profiler.kineto_results  # pyright: ignore[reportOptionalMemberAccess]
    events = [event for event in results.events() if event.name() == "[memory]"]
    total = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        most = max(most, total)
    return most
