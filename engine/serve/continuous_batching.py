"""One thread writes all answers, a token of each in every step. Answers join and leave between two steps."""

from __future__ import annotations

import atexit
import time
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread

from engine.errors import EngineError
from engine.serve.batch import DecoderRow
from engine.serve.errors import BusyError
from engine.serve.generated_answer import GeneratingAnswer
from engine.serve.predictor import answer_errors

PROMPT_TOKENS = 128  # that a step reads beside the answers that it continues: more would let those stall
LONGEST_STEP = 10.0  # seconds that the end of the process waits for
LONGEST_WAIT = 60.0  # seconds that a refused caller is told to wait


class ContinuousBatching:
    """Writes answers of many callers with common steps of their models.

    Answers take room in their model's cache as they grow. Where it is full, the one that began last waits until there is room again, and
    then reads its tokens once more. The one that began first always goes on, so each answer comes to its end.

    places: answers at a time. most_waiting: further ones that may wait. patience: seconds that one waits at most.
    before_step: called by the thread that computes, before each step.
    """

    def __init__(
        self, places: int, most_waiting: int, patience: float, before_step: Callable[[], None] = lambda: None
    ) -> None:
        self.places = places
        self.most_waiting = most_waiting
        self.patience = patience
        self.before_step = before_step
        self.step_seconds = 0.1
        self._waiting: deque[GeneratingAnswer] = deque()
        self._live: list[GeneratingAnswer] = []
        self._changed = Condition()
        self._owner: Thread | None = None
        self._stopping = False

    def start(self, answer: GeneratingAnswer) -> None:
        """Wait until the answer has a place. Raises BusyError if none becomes free in time."""
        with self._changed:
            if len(self._waiting) >= self.most_waiting:
                answer.end()
                raise BusyError("More answers are waiting than can be written soon.", self.seconds_to_place())
            self._waiting.append(answer)
            if self._owner is None:  # only now: a process that forks before its first request would lose the thread
                self._owner = Thread(target=self._run, name="generation", daemon=True)
                self._owner.start()
                atexit.register(self.stop)  # Python ends a thread that computes in C++ by aborting the process
            self._changed.notify_all()
        if answer.started.wait(self.patience):
            return
        with self._changed:
            if answer.started.is_set():
                return
            self._waiting.remove(answer)
            answer.end()
        raise BusyError("All places are taken by answers that are being written.", self.seconds_to_place())

    def stop(self) -> None:
        """Let the thread end after its step; answers that are being written get no further pieces."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._owner is not None:
            self._owner.join(LONGEST_STEP)

    def state(self) -> dict[str, int]:
        """Return how many answers are being written and how many wait, for people and monitoring."""
        return {"answers": len(self._live), "waiting_answers": len(self._waiting)}

    def seconds_to_place(self) -> float:
        """Return after how many seconds an answer ends at the latest."""
        tokens = min((answer.tokens_left for answer in list(self._live)), default=0)
        return min(LONGEST_WAIT, tokens * self.step_seconds)

    def _run(self) -> None:
        while not self._stopping:
            with self._changed:
                while not self._waiting and not self._live and not self._stopping:
                    self._changed.wait()
                # The places of answers that are over, or whose caller has left, become free.
                for answer in (*self._live, *self._waiting):
                    if answer.abandoned:
                        answer.end()
                self._live = [answer for answer in self._live if not answer.ended]
                self._waiting = deque(answer for answer in self._waiting if not answer.ended)
                self._make_room()
                self._join()
            if self._live and not self._stopping:
                self._step()

    def _join(self) -> None:
        """Give free places to those that wait, the first one first; each needs room in its model's cache, too.

        Answers of one model never overtake each other, so those in `_live` stand in the order in which they began.
        """
        full = set()
        for answer in list(self._waiting):
            if len(self._live) >= self.places:
                return
            beside = sum(other.decoder is answer.decoder for other in self._live)
            if answer.decoder in full or not answer.open_sequence(spare_blocks=beside):
                full.add(answer.decoder)
                continue
            self._waiting.remove(answer)
            self._live.append(answer)
            answer.started.set()

    def _make_room(self) -> None:
        """Let the answers grow by their next token. Where there is no room, those that began last are paused."""
        for answer in list(self._live):
            while answer.sequence is not None and not answer.decoder.cache.grow(answer.sequence, len(answer.ids)):
                last = next(other for other in reversed(self._live) if other.decoder is answer.decoder)
                last.pause()
                self._live.remove(last)
                self._waiting.appendleft(last)

    def _step(self) -> None:
        """Let each model take one step for its answers."""
        self.before_step()
        for decoder in dict.fromkeys(answer.decoder for answer in self._live):
            answers = [answer for answer in self._live if answer.decoder is decoder]
            started = time.monotonic()
            try:
                with answer_errors():
                    step_answers(answers, PROMPT_TOKENS)
            except EngineError as error:
                for answer in answers:
                    answer.fail(error)
            self.step_seconds += 0.1 * (time.monotonic() - started - self.step_seconds)


def step_answers(answers: list[GeneratingAnswer], prompt_tokens: int) -> None:
    """Compute the next token of answers of one model, and so many tokens of the prompts that are not read to their end."""
    budget = prompt_tokens
    rows: list[DecoderRow] = []
    writing: list[GeneratingAnswer] = []
    for answer in answers:
        assert answer.sequence is not None
        unread = len(answer.ids) - answer.sequence.length
        count = unread if unread == 1 else min(unread, budget)
        if not count:
            continue
        budget -= count if unread > 1 else 0
        start = answer.sequence.length
        ids = answer.ids[start : start + count]
        rows.append(DecoderRow(answer.sequence, answer.adapter, ids, answer.ids, is_last=count == unread))
        if count == unread:
            writing.append(answer)
    logits = answers[0].decoder.step(rows)
    for answer, row in zip(writing, logits, strict=True):
        try:
            answer.add_token(row)
        except EngineError as error:
            answer.fail(error)
