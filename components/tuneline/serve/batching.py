"""Many requests, one pass of the network: a thread takes what waits, up to a number of tokens, and answers it.

There is no delay to fill a batch: while one pass runs, what arrives waits, and is the next one. Requests take turns row
by row, so that a short one that comes after a long one is in the very next pass. Each version has a batcher of its own,
which answers all that it has taken before it ends.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any, Protocol

from tuneline.inputs import Inputs

if TYPE_CHECKING:
    import numpy as np

    from tuneline.serve.bodies import Question
    from tuneline.serve.model import Classifier

TOKENIZE_CHARACTERS = 100_000
"""About so much text is tokenized between two passes; a request at least, which may be longer."""
_LONGEST_WAIT = 60


class FullError(Exception):
    """Too much waits already.

    Args:
        seconds: after which there may be room.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many texts are waiting; try again in {seconds} s")
        self.seconds = seconds


class Watcher(Protocol):
    """What is told of the work."""

    def passed(self, texts: int, tokens: int, seconds: float) -> None:
        """A pass of the network has answered so many rows."""
        ...

    def waits(self, change: int) -> None:
        """So many texts more wait for their answers, or fewer."""
        ...


class _Job:
    """A request on its way."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.future: Future[np.ndarray] = Future()
        self.inputs = Inputs([])
        self.answers: Any = None
        self.next = self.done = 0

    def start(self, inputs: Inputs, labels: int) -> None:
        import numpy as np

        self.inputs, self.answers = inputs, np.empty((len(inputs.rows), labels), dtype=np.float32)


class Batcher:
    """Answers questions with one classifier, from a thread of its own.

    Args:
        classifier: what answers.
        pass_tokens: tokens in one pass of the network, at most; a row that has more goes alone.
        most_texts: texts that may wait; a request that comes when nothing waits may have more.
        watcher: is told of passes and of the queue.
    """

    def __init__(self, classifier: Classifier, pass_tokens: int, most_texts: int, watcher: Watcher) -> None:
        self.classifier, self.pass_tokens, self.most_texts = classifier, pass_tokens, most_texts
        self.watcher = watcher
        self._change = threading.Condition()
        self._arrived: deque[_Job] = deque()
        self._waiting = 0
        self._rate = 0.0  # texts a second, of late
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, question: Question) -> Future[np.ndarray]:
        """Take a question; its answer will be probabilities, fp32 [texts, labels]. Whoever cancels it gives it up.

        Raises:
            FullError: too much waits.
            RuntimeError: it was closed.
        """
        job, texts = _Job(question), len(question.texts)
        with self._change:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            if self._waiting and self._waiting + texts > self.most_texts:
                raise FullError(min(_LONGEST_WAIT, math.ceil(self._waiting / self._rate)) if self._rate else 1)
            self._arrived.append(job)
            self._count(texts)
            self._change.notify()
        return job.future

    def close(self) -> None:
        """Take no more. What was taken is answered, and then the thread ends."""
        with self._change:
            self._closed = True
            self._change.notify()

    def join(self, seconds: float) -> bool:
        """Wait for the end of a closed batcher; whether it came."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the thread works."""
        return self._thread.is_alive()

    def _count(self, texts: int) -> None:
        self._waiting += texts
        self.watcher.waits(texts)

    def _work(self) -> None:
        going: deque[_Job] = deque()
        while (arrived := self._take(wait=not going)) or going:
            going.extend(self._tokenized(arrived))
            going = deque(self._wanted(going))
            if rows := fill(going, self.pass_tokens):
                self._pass(rows, going)

    def _take(self, wait: bool) -> list[_Job]:
        """What has arrived; nothing where `wait` is off, or after the end."""
        taken: list[_Job] = []
        characters = 0
        with self._change:
            while wait and not self._arrived and not self._closed:
                self._change.wait()
            while self._arrived and characters < TOKENIZE_CHARACTERS:
                taken.append(self._arrived.popleft())
                characters += sum(map(len, taken[-1].question.texts))
        return taken

    def _tokenized(self, jobs: list[_Job]) -> list[_Job]:
        """The jobs, with their tokens; those whose texts cannot be tokenized have failed, and only those."""
        if not (jobs := self._wanted(jobs)):
            return []
        try:
            inputs = self._inputs([job.question for job in jobs])
        except BaseException as error:  # the Rust library's panics are no Exceptions
            if len(jobs) == 1:
                self._end(jobs[0], error)
                return []
            return [good for job in jobs for good in self._tokenized([job])]
        for job, own in zip(jobs, inputs, strict=True):
            job.start(own, len(self.classifier.labels))
        return jobs

    def _inputs(self, questions: Sequence[Question]) -> list[Inputs]:
        texts = [text for question in questions for text in question.texts]
        pairs = [text for question in questions for text in question.pairs or []]
        return self.classifier.inputs_of(texts, pairs or None).parts([len(question.texts) for question in questions])

    def _wanted(self, jobs: Iterable[_Job]) -> list[_Job]:
        """Those that nobody has given up."""
        wanted = []
        for job in jobs:
            if job.future.cancelled():
                self._end(job, None)
            else:
                wanted.append(job)
        return wanted

    def _pass(self, rows: list[tuple[_Job, int]], going: deque[_Job]) -> None:
        started = time.perf_counter()
        try:
            answers = self.classifier.predict_proba_inputs(_joined(rows), len(rows))
        except BaseException as error:
            for job in {id(job): job for job, _ in rows}.values():
                if job in going:
                    going.remove(job)
                self._end(job, error)
            return
        seconds = time.perf_counter() - started
        self._rate = 0.9 * (self._rate or len(rows) / seconds) + 0.1 * len(rows) / seconds
        self.watcher.passed(len(rows), sum(len(job.inputs.rows[place]) for job, place in rows), seconds)
        for (job, place), answer in zip(rows, answers, strict=True):
            job.answers[place] = answer
            job.done += 1
            if job.done == len(job.answers):
                self._end(job, job.inputs.mean(job.answers))

    def _end(self, job: _Job, result: Any) -> None:
        """Hand the result, an array or an error, to who waits for it, if somebody still does."""
        with self._change:
            self._count(-len(job.question.texts))
        try:
            if isinstance(result, BaseException):
                job.future.set_exception(result)
            elif result is not None:
                job.future.set_result(result)
        except InvalidStateError:
            pass  # cancelled meanwhile


def fill(going: deque[_Job], most_tokens: int) -> list[tuple[_Job, int]]:
    """The rows of the next pass, one of each job in turn; jobs all of whose rows are taken leave `going`."""
    rows: list[tuple[_Job, int]] = []
    tokens = 0
    while going:
        job = going[0]
        tokens += len(job.inputs.rows[job.next])
        if rows and tokens > most_tokens:
            break
        rows.append((going.popleft(), job.next))
        job.next += 1
        if job.next < len(job.inputs.rows):
            going.append(job)
    return rows


def _joined(rows: list[tuple[_Job, int]]) -> Inputs:
    """Rows of many jobs as one batch; the mean over windows is taken when all of a job's are there."""
    pair_at = [job.inputs.pair_at[place] for job, place in rows if job.inputs.pair_at]
    return Inputs([job.inputs.rows[place] for job, place in rows], pair_at or None)
