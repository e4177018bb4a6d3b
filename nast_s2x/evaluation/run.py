"""Runs SimulEval's evaluator over a test set at several chunk sizes, in blocks, by one or more processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch
from simuleval.evaluator import SentenceLevelEvaluator
from tqdm import tqdm

from nast_s2x.agents.segments import check_first_segment
from nast_s2x.agents.speech_to_speech import NastSpeechToSpeechAgent
from nast_s2x.agents.speech_to_text import NastSpeechToTextAgent
from nast_s2x.agents.streams import StreamingAgent
from nast_s2x.device import parse_dtype
from nast_s2x.errors import NastError
from nast_s2x.evaluation.instances import INSTANCES, TimedAgent, UtteranceLoader
from nast_s2x.evaluation.items import Item
from nast_s2x.evaluation.settings import RunSettings
from nast_s2x.evaluation.shards import WAVS, Block, blocks_of, is_complete, join
from nast_s2x.inference.loading import load_system
from nast_s2x.inference.streaming import SynthesisWindow
from nast_s2x.inference.system import System

AGENTS: dict[str, type[StreamingAgent]] = {"text": NastSpeechToTextAgent, "speech": NastSpeechToSpeechAgent}


class UtteranceError(ValueError):
    """An utterance could not be translated; the message names it and the reason."""


def open_bundle(setup: RunSettings) -> System:
    """Load the system of ``setup``, with its voice.

    Raises:
        FileNotFoundError, ValueError: it is missing or damaged; it has no voice to write speech with.
    """
    if setup.target_type not in AGENTS:
        raise NastError(f"the target type is {' or '.join(AGENTS)}, got {setup.target_type!r}")
    parse_dtype(setup.dtype)
    if setup.segment_ms < 1:
        raise NastError(f"segments must be at least 1 ms long, got {setup.segment_ms} ms")
    check_first_segment(setup.first_segment_ms)
    bundle = load_system(setup.model, setup.data, setup.device, parse_dtype(setup.dtype))
    if setup.target_type == "speech":
        if setup.vocoder is not None:
            bundle = bundle.with_vocoder(setup.vocoder)
        bundle.require_vocoder()
    return bundle


class Engine:
    """Translates blocks of utterances with one loaded system.

    Args:
        setup: how the system is run.
        bundle: the system, if it has been loaded already.
        stop: asked before each utterance; True ends a block early.
    """

    def __init__(
        self, setup: RunSettings, bundle: System | None = None, stop: Callable[[], bool] = lambda: False
    ) -> None:
        self.setup, self.stop = setup, stop
        self.bundle = open_bundle(setup) if bundle is None else bundle
        self._agents: dict[str, TimedAgent] = {}

    def agent(self, chunk: str) -> TimedAgent:
        """The agent of a chunk size."""
        if chunk not in self._agents:
            setup, agent_class = self.setup, AGENTS[self.setup.target_type]
            flags = Namespace(
                chunk_ms=chunk,
                lookahead_ms=setup.lookahead_ms,
                wait_chunks=setup.wait_chunks,
                vocoder=None,  # the bundle has it
                synthesis_lookahead=SynthesisWindow.lookahead_frames
                if setup.synthesis_lookahead is None
                else setup.synthesis_lookahead,
            )
            maker = agent_class.stream_maker(self.bundle, flags)
            self._agents[chunk] = TimedAgent(agent_class(flags, make_stream=maker))
        return self._agents[chunk]

    def run(self, block: Block, advance: Callable[[], None] = lambda: None) -> Block:
        """Translate what a block still lacks; returns it.

        Args:
            advance: called after each utterance.
        Raises:
            UtteranceError: names the utterance; those before it are logged.
        """
        remaining = block.items[block.done() :]
        if not remaining:
            return block
        loader = UtteranceLoader(remaining, self.stop)
        evaluator = SentenceLevelEvaluator(loader, {}, {}, self._arguments(block))
        instance_class = type(
            "Instance", (INSTANCES[self.setup.target_type],), {"first_segment_ms": self.setup.first_segment_ms}
        )
        evaluator.instance_class = instance_class
        evaluator.iterator = _ticking(loader, advance)
        try:
            evaluator(self.agent(block.chunk))
        except Exception as error:
            item = loader.current
            name = f"{item.place}: {item.id} ({item.audio})" if item else str(block.folder)
            reason = str(error) or type(error).__name__
            raise UtteranceError(f"{name}, chunk size {block.chunk}: {reason}") from error
        return block

    def _arguments(self, block: Block) -> Namespace:
        wavs = block.home / WAVS
        block.folder.mkdir(parents=True, exist_ok=True)
        if self.setup.target_type == "speech":
            wavs.mkdir(exist_ok=True)
        return Namespace(
            output=str(block.folder),
            wavs=wavs,
            source_type="speech",
            target_type=self.setup.target_type,
            source_segment_size=self.setup.segment_ms,
            eval_latency_unit="word",
            start_index=0,
            end_index=len(block.items),
            continue_unfinished=True,  # else the evaluator would empty the log
            score_only=False,
            no_scoring=True,
            no_progress_bar=True,
        )


def evaluate(
    folder: Path,
    items: Sequence[Item],
    setup: RunSettings,
    chunks: Sequence[str],
    workers: int = 1,
    progress: bool = False,
    bundle: System | None = None,
) -> None:
    """Run the chunk sizes that ``folder`` does not have yet, going on where an earlier run stopped.

    Args:
        folder: home of the evaluation; its settings are the caller's business, see
            :func:`~nast_s2x.evaluation.settings.take_folder`.
        chunks: chunk sizes in ms, ``offline`` included, as the folders are called.
        workers: processes; with 1 the work is done here.
        bundle: the system, if it has been loaded already (used with one worker).
    Raises:
        UtteranceError: an utterance could not be translated. What was finished before is kept.
        OSError: a worker process has died.
    """
    if workers < 1:
        raise NastError(f"there must be at least one worker, got {workers}")
    with locked(folder):
        unfinished = [chunk for chunk in chunks if not is_complete(folder / chunk, len(items))]
        blocks = {chunk: blocks_of(folder / chunk, chunk, items) for chunk in unfinished}
        done = {block: block.done() for chunk in unfinished for block in blocks[chunk]}
        before = len(items) * (len(chunks) - len(unfinished)) + sum(done.values())
        total = len(items) * len(chunks)
        missing = {chunk: len(blocks[chunk]) for chunk in unfinished}
        with tqdm(total=total, initial=before, desc="translating", unit="utt", disable=not progress) as bar:
            completed = _here(done, setup, bundle, bar) if workers == 1 else _by_workers(done, setup, workers, bar)
            for block in completed:
                missing[block.chunk] -= 1
                if not missing[block.chunk]:
                    join(blocks[block.chunk])


def _here(blocks: Mapping[Block, int], setup: RunSettings, bundle: System | None, bar: tqdm) -> Iterator[Block]:
    """Run blocks (with the number of utterances that each has already) in this process, and yield each."""
    if not blocks:
        return
    before = torch.get_num_threads()
    torch.set_num_threads(setup.threads)
    try:
        engine = Engine(setup, bundle)
        yield from (engine.run(block, bar.update) for block in blocks)
    finally:
        torch.set_num_threads(before)


def _by_workers(blocks: Mapping[Block, int], setup: RunSettings, workers: int, bar: tqdm) -> Iterator[Block]:
    """Run blocks (with the number of utterances that each has already) by processes, and yield each when it is done."""
    if not blocks:
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(setup, stop))
    try:
        with _interrupts_ignored():  # which the workers inherit: this process tells them when to stop
            futures: list[Future[Block]] = [pool.submit(_work, block) for block in blocks]
        for future in as_completed(futures):
            block = future.result()
            bar.update(len(block.items) - blocks[block])
            yield block
    except BrokenProcessPool as error:
        raise OSError("a worker process has died, perhaps of too little memory: take fewer workers") from error
    finally:
        stop.set()  # workers finish the utterance they are at, so that nothing is lost
        pool.shutdown(wait=True, cancel_futures=True)


def _ticking(loader: UtteranceLoader, advance: Callable[[], None]) -> Iterator[int]:
    """The loader's utterances; ``advance`` is called when the next one is asked for."""
    for index in loader:
        yield index
        advance()


_engine: Engine | None = None  # of a worker process


def _start_worker(setup: RunSettings, stop: Any) -> None:
    global _engine
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(setup.threads)
    _engine = Engine(setup, stop=stop.is_set)


def _work(block: Block) -> Block:
    assert _engine is not None, "the worker has not been started"
    return _engine.run(block)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only worker processes call this"
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ctrl-C does nothing for a moment, nor ever to processes that are started in it."""
    if threading.current_thread() is not threading.main_thread():  # only that one may change signals
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of ``folder`` for a while.

    Raises:
        ValueError: another run is at work in it.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise NastError(f"another run is at work in {folder}") from None
        yield
