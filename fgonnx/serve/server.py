"""The service: listening, stopping, and everything in between."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import uvicorn

from fgonnx import bounds
from fgonnx.errors import OptionError
from fgonnx.fields import idle
from fgonnx.serve import rest, rpc
from fgonnx.serve.catalogue import Catalogue
from fgonnx.serve.desk import Desk
from fgonnx.serve.options import Serving
from fgonnx.serve.served import How
from fgonnx.serve.watch import Watch
from fgonnx.wording import parameter

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_KEEP_ALIVE = 75
"""Seconds that an idle connection is kept: longer than proxies keep theirs, lest they write into a closed one."""


_LONGEST = 300  # characters of a line about a connection

_LAST = 2
"""Seconds for the last answers to be sent."""


class Service:
    """Models behind HTTP and gRPC.

    Parameters
    ----------
    models : sequence of str
        Paths, or NAME=PATH: of files, or of folders of versions.
    how : How, optional
        How they are explained.
    serving : Serving, optional
        Where the service listens, and what it takes on.
    watch : Watch, optional
        Metrics and log.

    Raises
    ------
    FgonnxError
        A model is not there, or cannot be explained.

    Notes
    -----
    Models are loaded here, and run once: a service that listens is ready.
    """

    def __init__(
        self,
        models: Sequence[str],
        how: How | None = None,
        serving: Serving | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.serving = serving or Serving()
        self.how = replace(how or How(), condition=self.serving.explain_if)
        if self.serving.max_wait and self.how.running.batch_size == 1:
            raise idle("max_wait", self.serving.max_wait, f"{parameter('batch_size', 1)} runs requests one by one")
        self.watch = watch or Watch(self.serving.log)
        self.catalogue = Catalogue(models, self.how, self.serving)
        self.desk = Desk(self.catalogue, self.serving, self.watch)
        self.port = self.grpc_port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def run(self, started: Callable[[], None] = lambda: None, *, signals: bool = True) -> None:
        """Listen until it is stopped, by `stop` or a signal; requests that were taken on are answered.

        Parameters
        ----------
        started : callable
            Called when it listens.
        signals : bool
            Whether SIGINT and SIGTERM stop it.

        Raises
        ------
        OptionError
            An address is taken, or is none.
        """
        limits = replace(bounds.current(), pixels=min(bounds.current().pixels, self.serving.max_pixels))
        with bounds.bounded(limits), _signals(self.stop if signals else None), _told(self.watch):
            asyncio.run(self._run(started))

    def stop(self) -> None:
        """Have the service stop; may be called from any thread, and from a signal handler."""
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._stop.set)

    async def _run(self, started: Callable[[], None]) -> None:
        s = self.serving
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        listening = _listening(s.host, s.port)
        self.port = listening.getsockname()[1]
        calls = None
        if s.grpc:
            host = f"[{s.host}]" if ":" in s.host else s.host
            try:
                calls, self.grpc_port = rpc.server(self.desk, f"{host}:{s.grpc_port}")
            except OSError as error:
                listening.close()
                raise OptionError(f"the port {s.grpc_port} of '{s.host}' is not free for gRPC; give another") from error
        self.desk.open()
        web = _Web(
            uvicorn.Config(
                rest.app(self.desk),
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=_LAST,
            )
        )
        tasks = [asyncio.create_task(web.serve(sockets=[listening]))]
        if s.reload:
            tasks.append(asyncio.create_task(self.catalogue.watch(self.watch.tell)))
        if calls is not None:
            await calls.start()
        while not web.started and not tasks[0].done():
            await asyncio.sleep(0.001)
        self.watch.tell("started", models=list(self.catalogue.entries), port=self.port, grpc_port=self.grpc_port)
        started()
        await self._stop.wait()
        for task in tasks[1:]:
            task.cancel()
        await self.desk.drained(s.grace)  # it listens meanwhile, and answers 503
        await self.catalogue.close()
        if calls is not None:
            await calls.stop(_LAST)
        web.should_exit = True
        await asyncio.gather(*tasks, return_exceptions=True)
        self.desk.close()
        self.watch.tell("stopped")


class _Web(uvicorn.Server):
    """A server that leaves signals to the service."""

    def capture_signals(self) -> Any:
        return contextlib.nullcontext()


class _Lines(logging.Handler):
    """What uvicorn says of connections, as lines of the service's log."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(logging.WARNING)
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        self._watch.tell("connection", level=record.levelname.lower(), said=record.getMessage()[:_LONGEST])


@contextlib.contextmanager
def _told(watch: Watch) -> Iterator[None]:
    """Have the log hold what uvicorn would write to stderr."""
    logger, handler = logging.getLogger("uvicorn.error"), _Lines(watch)
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


@contextlib.contextmanager
def _signals(stop: Callable[[], None] | None) -> Iterator[None]:
    """Have signals stop the service within a block; a second one ends the process as usual."""
    if stop is None:
        yield
        return

    def handle(number: int, frame: Any) -> None:
        signal.signal(number, before[signal.Signals(number)])
        stop()

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises
    ------
    OptionError
        The address is taken, or is none.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Without the number of TCP, asyncio leaves Nagle's algorithm on: answers wait 40 ms for an acknowledgement.
        made = socket.socket(family[0], family[1], socket.IPPROTO_TCP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(family[4])
    except OSError as error:
        why = error.strerror or str(error)
        raise OptionError(f"the address '{host}', port {port}, cannot be listened on ({why}); give another") from error
    return made
