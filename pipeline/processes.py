"""A function over many items in several processes of this machine, which share one value and may be killed."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")
_given: list[Any] = []  # in a process of a pool: the function and the shared value


def in_processes(
    function: Callable[[Shared, Item], Result], shared: Shared, items: Sequence[Item], workers: int, retries: int
) -> Iterator[tuple[int, Result]]:
    """Map items to (index, function(shared, item)) as they finish; one worker is this process.

    What a killed process leaves undone goes to new ones, up to `retries` times. ValueError after that.
    """
    if min(workers, len(items)) <= 1:
        yield from ((index, function(shared, item)) for index, item in enumerate(items))
        return
    left = dict(enumerate(items))
    for _ in range(retries + 1):
        try:
            for index, result in _until_broken(function, shared, list(left.items()), workers):
                del left[index]
                yield index, result
            return
        except BrokenProcessPool:
            continue
    raise ValueError(
        f"in {retries + 1} of {retries + 1} tries a process ended before its work was done. Where no error stands"
        " above, the system killed it, as it does when memory runs out: lower prepare_workers in machine.yaml. The same"
        " command goes on from here"
    )


def _until_broken(
    function: Callable[[Shared, Item], Result], shared: Shared, items: Iterable[tuple[int, Item]], workers: int
) -> Iterator[tuple[int, Result]]:
    """As `in_processes`, until one is killed. No item waits in a pool's queue, which nothing could call back."""
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_settle, initargs=(function, shared)
    )
    running: dict[Future[Result], int] = {}
    try:
        for index, item in items:
            running[pool.submit(_call, item)] = index
            if len(running) == workers:
                yield from _finished(running)
        while running:
            yield from _finished(running)
    finally:
        pool.shutdown()


def _finished(running: dict[Future[Result], int]) -> Iterator[tuple[int, Result]]:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        yield running.pop(future), future.result()


def _settle(function: Callable[[Any, Any], Any], shared: Any) -> None:
    """Make ready a process of a pool: it goes without a word at Ctrl-C, and when its parent is gone."""
    _given[:] = function, shared
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(item: Any) -> Any:
    function, shared = _given
    return function(shared, item)
