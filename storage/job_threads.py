"""Threads for blocking jobs that coroutines await.

A hop to a thread through `concurrent.futures` and `asyncio.wait` takes five turns of the event loop
and two objects with locks of their own. A `Job` takes one turn.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Job(asyncio.Future[T], Generic[T]):
    """The result of a blocking call on a thread, as a future of the loop that awaits it.

    The thread cannot be cancelled. A task that is cancelled while it awaits a job with `is_held`
    gets the cancellation when the call has ended.
    """

    is_held = False
    _waiter: tuple[Callable[[Any], object], Context] | None = None
    """The first callback, which is the task that awaits the job. It is called by `finish`."""

    def add_done_callback(
        self, fn: Callable[[Any], object], /, *, context: Context | None = None
    ) -> None:
        """Call `fn` when the job has ended, as other futures do."""
        if self._waiter is None and not self.done():
            self._waiter = fn, context or copy_context()
        else:
            super().add_done_callback(fn, context=context)

    def remove_done_callback(self, fn: Callable[[Any], object], /) -> int:
        """Remove a callback, and return how many were removed."""
        removed = super().remove_done_callback(fn)
        if self._waiter is not None and self._waiter[0] == fn:
            self._waiter = None
            removed += 1
        return removed

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the future, but not the call. Returns False if it is held or has ended."""
        if self.is_held or not super().cancel(msg):
            return False
        if self._waiter is not None:
            (fn, context), self._waiter = self._waiter, None
            self.get_loop().call_soon(fn, self, context=context)
        return True

    def finish(self, result: T | None, error: BaseException | None) -> None:
        """Set the result of the call. Called by the event loop itself, not by a task.

        The task that awaits the job resumes at once. Other futures would resume it in the next
        turn of the loop, and each turn costs system calls.
        """
        if self.cancelled():
            return
        if error is None:
            self.set_result(result)  # type: ignore[arg-type]
        else:
            self.set_exception(error)
        if self._waiter is not None:
            (fn, context), self._waiter = self._waiter, None
            context.run(fn, self)


Then = Callable[[Job[Any]], None]
"""Passes a job on to another thread, which calls `finish_jobs`. Raises if that is impossible."""

Outcome = tuple[Job[Any], Any, BaseException | None]
"""A job with the result or the error of its call."""


def finish_jobs(outcomes: Iterable[Outcome]) -> None:
    """Set the results of jobs of one loop, from any thread. The loop wakes up once.

    Nothing happens if the loop is closed, because nothing awaits the jobs any more.
    """
    done = list(outcomes)
    if done:
        with contextlib.suppress(RuntimeError):
            done[0][0].get_loop().call_soon_threadsafe(_finish_each, done)


def _finish_each(outcomes: list[Outcome]) -> None:
    for job, result, error in outcomes:
        job.finish(result, error)


class JobThreads:
    """At most `count` threads, which are started when they are needed, and run jobs in order."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._queue: SimpleQueue[tuple[Job[Any], Callable[[], Any], Then | None] | None]
        self._queue = SimpleQueue()
        self._lock = threading.Lock()
        self._unfinished = 0
        self._is_closed = False
        self._threads: list[threading.Thread] = []

    def start(self, call: Callable[[], T], then: Then | None = None) -> Job[T]:
        """Run a call on a thread. Raises RuntimeError after `close`.

        With `then`, the job is passed on if the call succeeds, and has the result of that.
        """
        job: Job[T] = Job(loop=asyncio.get_running_loop())
        with self._lock:
            if self._is_closed:
                raise RuntimeError(f"the threads {self._name} are closed")
            self._unfinished += 1
            self._queue.put((job, call, then))
            if len(self._threads) < min(self._unfinished, self._count):
                name = f"{self._name}_{len(self._threads)}"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        return job

    def close(self) -> None:
        """Run the jobs that were started, and end the threads."""
        with self._lock:
            self._is_closed = True
            for _ in self._threads:
                self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            self._finish(*item)
            # The call refers to the data that it wrote.
            del item

    def _finish(self, job: Job[Any], call: Callable[[], Any], then: Then | None) -> None:
        result, error = None, None
        try:
            result = call()
            if then is not None:
                then(job)
        except BaseException as raised:  # noqa: BLE001 - the caller gets it
            error = raised
        with self._lock:
            self._unfinished -= 1
        if then is None or error is not None:
            finish_jobs([(job, result, error)])
        # The traceback of the error refers to this frame, which must not keep the data of the call.
        del job, call, then, result, error
