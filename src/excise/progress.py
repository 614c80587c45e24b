"""Progress that a person can watch: a bar on a terminal, a line now and then in a log."""

import logging
import sys
import time
from collections.abc import Callable

logger = logging.getLogger("excise")

SPARSE_SECONDS = 15.0
"""Least time between two progress lines where standard error is not a terminal."""


class Progress:
    """Counts steps of known total; use as a context manager and call ``advance``.

    Args:
        total: number of units in all.
        unit: what is counted, in the plural: ``"prompts"``.
        label: what is being done.
        clock: seconds, monotonic (replaced in tests).
    """

    def __init__(self, total: int, unit: str, label: str, clock: Callable[[], float] = time.monotonic) -> None:
        from tqdm import tqdm

        self.total, self.unit, self.label, self.done = total, unit, label, 0
        self._clock = clock
        self._start = self._last = clock()
        self._bar = tqdm(total=total, unit=f" {unit}", desc=label, leave=False) if sys.stderr.isatty() else None

    def __enter__(self) -> "Progress":
        return self

    def advance(self, count: int = 1) -> None:
        """Mark ``count`` more units as done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = self._clock()
        if now - self._last >= SPARSE_SECONDS:
            self._last = now
            left = (now - self._start) * (self.total - self.done) / self.done
            logger.info("%s: %d of %d %s, about %.0f s left", self.label, self.done, self.total, self.unit, left)

    def __exit__(self, kind: object, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        if kind is None:
            seconds = self._clock() - self._start
            logger.info("%s: %d %s in %.1f s", self.label, self.done, self.unit, seconds)
