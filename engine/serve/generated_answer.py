"""An answer while a model writes it: what the thread that computes adds to, and what the caller reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, Literal

from engine.serve.errors import BusyError

if TYPE_CHECKING:
    from torch import Tensor

    from engine.serve.adapter import SequenceAdapter
    from engine.serve.answer_grammar import GrammarState
    from engine.serve.decoder import SharedDecoder
    from engine.serve.key_value_cache import CachedSequence
    from engine.serve.text_stream import TextStream, ToolCall
    from engine.serve.token_logprobs import LogprobReader, TokenLogprob
    from engine.serve.token_sampler import TokenSampler

STEP_TIMEOUT = 60.0  # seconds after which a caller gives up waiting for the next token
FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of a prompt, those of them that an earlier request had computed, and those of the answer."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of an answer, whose text may be empty. The last piece has a reason why the answer ended, and the usage."""

    text: str
    tokens: int
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    logprobs: tuple[TokenLogprob, ...] = ()  # of its tokens, where they were asked for
    calls: tuple[ToolCall, ...] = ()  # of tools; the last piece has them


class GeneratingAnswer:
    """One answer in the thread that computes.

    prompt: token ids. limit: most tokens of the answer. end_ids: tokens that end it. grammar: what the answer is held to, None for
    free text. logprobs: reads how likely tokens were, None where nobody asks. on_end: called once, however it ends.
    """

    def __init__(
        self,
        decoder: SharedDecoder,
        adapter: SequenceAdapter,
        prompt: list[int],
        limit: int,
        end_ids: frozenset[int],
        sampler: TokenSampler,
        text: TextStream,
        grammar: GrammarState | None,
        on_end: Callable[[], None],
        logprobs: LogprobReader | None = None,
    ) -> None:
        self.decoder = decoder
        self.adapter = adapter
        self.ids = list(prompt)
        self.prompt_tokens = len(prompt)
        self.limit = limit
        self.end_ids = end_ids
        self.sampler = sampler
        self.text = text
        self.grammar = grammar
        self.logprobs = logprobs
        self.sequence: CachedSequence | None = None
        self.cached_tokens = 0  # of the prompt, that an earlier request had computed
        self.started = Event()
        self.abandoned = False
        self.ended = False
        self.pieces: SimpleQueue[Piece | Exception] = SimpleQueue()
        self._on_end = on_end

    def open_sequence(self, spare_blocks: int) -> bool:
        """Take a place in the model's cache for what there is so far and the next token; return whether there is room."""
        sequence = self.decoder.cache.open(self.adapter.owner, self.ids, len(self.ids) + 1, spare_blocks)
        if sequence is None:
            return False
        if self.started.is_set():
            self.pieces.put(Piece("", 0))  # the caller's patience begins anew
        else:
            self.cached_tokens = sequence.reused
        self.sequence = sequence
        return True

    def pause(self) -> None:
        """Give the place in the cache back and keep the tokens: they are read again once there is room."""
        if self.sequence is not None:
            self.decoder.cache.close(self.sequence)
            self.sequence = None

    @property
    def is_paused(self) -> bool:
        """Return whether the answer has begun and waits for room in the cache."""
        return self.started.is_set() and self.sequence is None and not self.ended

    @property
    def tokens_left(self) -> int:
        """Return the most tokens that may still come."""
        return self.limit - (len(self.ids) - self.prompt_tokens)

    def add_token(self, logits: Tensor) -> None:
        """Choose the next token from logits: (vocabulary,), and hand out the text that it completes."""
        token = self.sampler.choose(logits, self.grammar.allowed() if self.grammar else None)
        self.ids.append(token)
        if token in self.end_ids:
            self._finish("stop", "", ())
            return
        shown = self.text.add(token)
        logprobs = (self.logprobs.read(logits, token),) if self.logprobs else ()
        if self.grammar is not None:
            self.grammar.add(token)
        if self.text.stopped or (self.grammar is not None and self.grammar.complete):
            self._finish("stop", shown, logprobs)
        elif self.tokens_left <= 0:
            self._finish("length", shown, logprobs)
        else:
            self.pieces.put(Piece(shown, 1, logprobs=logprobs))

    def fail(self, error: Exception) -> None:
        """End the answer with an error, which the caller gets instead of the next piece."""
        self.pieces.put(error)
        self.end()

    def end(self) -> None:
        """Give the place in the model's cache back."""
        if not self.ended:
            self.ended = True
            self.pause()
            self._on_end()

    def _finish(self, reason: FinishReason, shown: str, logprobs: tuple[TokenLogprob, ...]) -> None:
        usage = Usage(self.prompt_tokens, len(self.ids) - self.prompt_tokens, self.cached_tokens)
        rest = self.text.end()
        calls = self.text.calls
        self.pieces.put(Piece(shown + rest, 1, "tool_calls" if calls else reason, usage, logprobs, calls))
        self.end()


class AnswerStream(Iterator[Piece]):
    """The pieces of an answer, as they are written. Closing it, also by no longer keeping it, ends the answer."""

    def __init__(self, answer: GeneratingAnswer) -> None:
        self._answer = answer
        self._is_over = False

    def __next__(self) -> Piece:
        if self._is_over:
            raise StopIteration
        try:
            piece = self._answer.pieces.get(timeout=STEP_TIMEOUT)
        except Empty:
            if self._answer.is_paused or not self._answer.pieces.empty():
                return Piece("", 0)  # it goes on when its turn comes
            self.close()
            raise BusyError("The answer took too long and was abandoned.", STEP_TIMEOUT) from None
        if isinstance(piece, Exception):
            self.close()
            raise piece
        self._is_over = piece.finish_reason is not None
        return piece

    def close(self) -> None:
        """End the answer at the model's next step; its place is free then."""
        self._is_over = True
        self._answer.abandoned = True

    def __enter__(self) -> AnswerStream:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
