"""Answers of many people from one forward pass at a time: the engine behind models that take packs.

One thread computes all answers of a loaded model, step by step. In each step every running answer gets its next token,
and those that begin read a piece of their prompts, so that nobody waits for another's end. Who does not fit waits in
line; when memory runs out, what was kept of old conversations leaves first, then the newest answer goes back to the
line and is computed again later.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial

import torch

from providers.batch_row import AnswerCancelled, NoRoom, Row, too_many_wait
from providers.kept_prefixes import Entry, KeptPrefixes, common_length
from providers.packed_attention import GROWTH, TokenCache, Work, forward
from providers.types import EngineFigures

STEP_SECONDS, STEP_SECONDS_ALONE = 0.4, 1.0  # More pieces of a prompt take longer in all; fewer let others wait.
FIRST_CHUNK, LEAST_CHUNK, LONGEST_PIECE = 64, 32, 2048  # tokens of prompts in one step
LINGER_SECONDS = 2.0
CLOSE_SECONDS = 1.0  # A thread without answers ends at once; nobody waits longer for one that does not.
SHARED = 64  # tokens; who begins like a prompt that is being read by so many more waits for it
SPEED_SECONDS = 5.0

log = logging.getLogger(__name__)


class Abandoned(Exception):
    """Nobody wants anything any more of what a forward pass computes."""


class BatchEngine:
    """Computes the answers of one loaded model and of the adapters on it; holds no weights while nobody asks."""

    def __init__(self, token_bytes: int, budget: int, rows: int, line: int) -> None:
        """Keep keys and values in at most `budget` bytes, `token_bytes` each; at most `rows` answers at once."""
        self._token_bytes, self._budget, self._rows, self._longest_line = token_bytes, budget, rows, line
        self._changed = threading.Condition()
        self._waiting: deque[Row] = deque()
        self._running: list[Row] = []
        self._kept = KeptPrefixes()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._seconds_a_token: float | None = None  # Not measured yet.
        self._written: deque[tuple[float, int]] = deque()
        self._reused = 0
        self._held = (0, 0)

    def answer(self, row: Row) -> None:
        """Compute an answer, waiting for its end.

        Raises AnswerCancelled, RateLimited when too many wait, and what ended the answer.
        """
        with self._changed:
            if len(self._waiting) >= self._longest_line:
                raise too_many_wait()
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="engine", daemon=True)
                thread.start()  # It may be refused; then nobody may count on it.
                self._thread = thread
            self._waiting.append(row)
            self._changed.notify_all()
        row.ended.wait()
        if row.error is not None:
            raise row.error

    def close(self) -> None:
        """Forget what was kept, and let the thread end after the answers that run; with none it has ended."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            idle = None if self._running or self._waiting else self._thread
            if self._thread is None:
                self._kept = KeptPrefixes()
        if idle:
            idle.join(CLOSE_SECONDS)

    def figures(self) -> EngineFigures:
        """Say what the engine does now."""
        with self._changed:
            now = time.monotonic()
            recent = [(at, count) for at, count in self._written if now - at <= SPEED_SECONDS]
            spent = max(now - recent[0][0], 0.1) if recent else SPEED_SECONDS
            return EngineFigures(
                batched=True,
                running=len(self._running),
                waiting=len(self._waiting),
                tokens_per_second=round(sum(count for _, count in recent) / spent, 1),
                cache_bytes=self._held[0],
                cache_limit_bytes=self._budget,
                kept_conversations=self._held[1],
                reused_tokens=self._reused,
            )

    def _run(self) -> None:
        with torch.inference_mode():
            while self._wait():
                try:
                    self._step()
                except BaseException as error:  # Nothing may leave people waiting for a thread that ended.
                    log.exception("a step of the engine failed")
                    for row in [*self._running, *self._line_now()]:
                        self._end(row, error)

    def _wait(self) -> bool:
        """Return once there is something to do; `False` ends the thread."""
        with self._changed:
            while not self._running and not self._waiting:
                if self._closing or not self._changed.wait(LINGER_SECONDS):
                    if self._running or self._waiting:
                        continue
                    if self._closing:
                        self._kept = KeptPrefixes()
                    self._thread = None
                    return False
            return True

    def _step(self) -> None:
        self._admit()
        works = self._fitting(self._plan())
        models: dict[int, list[tuple[Row, Work]]] = {}
        for row, work in works:
            models.setdefault(id(row.model), []).append((row, work))
        for group in models.values():
            self._compute(group)
        self._make_room(0)
        self._held = (self._used(), len(self._kept))

    def _admit(self) -> None:
        """Let go of who left, begin who has been waiting longest, and tell the others their place."""
        for row in [row for row in (*self._running, *self._line_now()) if row.cancelled.is_set()]:
            self._end(row, AnswerCancelled())
        for row in self._line_now():
            try:
                if len(self._running) >= self._rows or not (self._is_being_read(row) or self._begin(row)):
                    self._tell_places()
                    return
            except Exception as error:  # A cache could not be copied: there is less memory than was counted on.
                self._kept = KeptPrefixes()
                self._end(row, error)

    def _tell_places(self) -> None:
        for number, row in enumerate(self._line_now(), 1):
            if row.told_place != number:
                row.told_place = number
                self._guarded(row, partial(row.place, number))

    def _line_now(self) -> list[Row]:
        with self._changed:
            return list(self._waiting)

    def _is_being_read(self, row: Row) -> bool:
        """Say whether another answer is reading a prompt that begins like this one's: then it is computed once."""
        for other in self._running:
            if other.weights is row.weights and other.cache and other.left > 1:
                common = min(common_length(other.array, row.array), len(row.tokens) - 1)
                if common - other.cache.length >= SHARED:
                    return True
        return False

    def _begin(self, row: Row) -> bool:
        """Give a row its cache, with what is known of its beginning; `False` when there is no room yet."""
        tokens, reserve = row.array, len(row.tokens) + min(row.end - len(row.tokens), GROWTH)
        known, entry = self._kept.longest(row.weights, tokens)
        if self._running and not self._make_room((reserve - known) * self._token_bytes, spare=entry):
            return False
        shared = [
            (min(common_length(other.array[: other.cache.length], tokens), len(tokens) - 1), other.cache)
            for other in self._running
            if other.weights is row.weights and other.cache
        ]
        length, beside = max(shared, key=lambda pair: pair[0], default=(0, None))
        if beside is not None and length > known:
            row.cache = beside.copy(length, reserve)
        else:
            row.cache = self._kept.take(row.weights, tokens, reserve) or TokenCache(reserve)
        with self._changed:
            self._reused += row.cache.length
            self._waiting.remove(row)
            self._running.append(row)
        return True

    def _make_room(self, needed: int, spare: Entry | None = None) -> bool:
        """Forget old conversations but `spare` until so many bytes fit; if they cannot, forget none and say so."""
        spared = spare.cache.nbytes if spare else 0
        if needed and self._in_running() + spared + needed > self._budget:
            return False
        while self._used() + needed > self._budget:
            if not self._kept.drop_oldest(spare):
                return False
        return True

    def _in_running(self) -> int:
        return sum(row.cache.nbytes for row in self._running if row.cache)

    def _used(self) -> int:
        return self._in_running() + self._kept.nbytes

    def _plan(self) -> list[tuple[Row, Work]]:
        """Choose what each row computes: its next token, or a piece of its prompt.

        Who has been reading longest gets half of what a step reads, the shortest prompts the rest: short ones need not
        wait for long ones, and no long one waits for ever.
        """
        reading = [row for row in self._running if row.left > 1]
        seconds = STEP_SECONDS if len(self._running) > 1 else STEP_SECONDS_ALONE
        measured = int(seconds / self._seconds_a_token) if self._seconds_a_token else FIRST_CHUNK
        rest = min(max(measured, LEAST_CHUNK), LONGEST_PIECE)
        shares: Counter[Row] = Counter()
        for row, most in (
            *((row, rest // 2) for row in reading[:1]),
            *((row, rest) for row in sorted(reading[1:], key=lambda row: row.left)),
            *((row, rest) for row in reading[:1]),
        ):
            count = min(most, row.left - shares[row], rest)
            shares[row] += count
            rest -= count
        return [(row, row.work(shares[row])) for row in self._running if row.left == 1 or shares[row]]

    def _fitting(self, works: list[tuple[Row, Work]]) -> list[tuple[Row, Work]]:
        """Make room for what a step will write: the newest answers go back to the line if nothing else helps."""
        while not self._make_room(sum(w.cache.growth(len(w.tokens)) for _, w in works) * self._token_bytes):
            newest = self._running[-1]
            works = [(row, work) for row, work in works if row is not newest]
            if len(self._running) == 1:
                self._end(newest, NoRoom())
                break
            newest.cache = None
            with self._changed:
                self._running.remove(newest)
                self._waiting.appendleft(newest)
        return works

    def _compute(self, group: list[tuple[Row, Work]]) -> None:
        """Compute one step of rows of the same model; if that fails, of each for itself, to find whose fault it is."""

        def check() -> None:
            if all(row.cancelled.is_set() for row, _ in group):
                raise Abandoned

        start, failure = time.perf_counter(), None
        try:
            predicted = forward(group[0][0].model, [work for _, work in group], check)
        except Abandoned:
            return
        except Exception as error:
            log.warning("a step of %d answers failed", len(group), exc_info=error)
            failure = error.with_traceback(None)  # It would hold what the failed pass has in memory.
        if failure:
            self._kept = KeptPrefixes()
            if len(group) == 1:
                self._end(group[0][0], failure)
            else:
                for alone in group:
                    self._compute([alone])
            return
        if (count := sum(len(work.tokens) for _, work in group)) >= LEAST_CHUNK:
            seconds = (time.perf_counter() - start) / count
            self._seconds_a_token = (seconds + (self._seconds_a_token or seconds)) / 2
        written = 0
        for (row, work), logits in zip(group, predicted, strict=True):
            before = len(row.tokens)
            self._guarded(row, partial(self._advance, row, work, logits))
            written += len(row.tokens) - before
        with self._changed:
            self._written.append((time.monotonic(), written))
            while time.monotonic() - self._written[0][0] > SPEED_SECONDS:
                self._written.popleft()

    def _advance(self, row: Row, work: Work, logits: torch.Tensor) -> None:
        """Count what was computed, and add the tokens that it predicts; a draft's as far as they are the same."""
        fresh = len(work.tokens) - max(work.places - 1, 0)
        work.cache.length += fresh
        for scores, drafted in zip(logits, [*work.tokens[fresh:], None], strict=work.places > 0):
            token = row.choose(scores[None])
            row.tokens.append(token)
            if row.take(token) or len(row.tokens) >= row.end:
                self._end(row)
                return
            if token != drafted:
                return
            work.cache.length += 1

    def _guarded(self, row: Row, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            self._end(row, error)

    def _end(self, row: Row, error: BaseException | None = None) -> None:
        """Take a row out, keeping what was computed unless that failed."""
        if row.cache and (error is None or isinstance(error, AnswerCancelled)):
            self._kept.keep(row.weights, row.array, row.cache)
        with self._changed:
            for rows in (self._running, self._waiting):
                if row in rows:
                    rows.remove(row)
        row.finish(error)
