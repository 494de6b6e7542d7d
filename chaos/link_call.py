"""A TCP proxy on the way between two parts, which can hurt what passes: reset, delayed, one-way, cut.

One thread with an event loop of its own a link. Each connection is two streams of pieces; every trouble is looked up
when a piece is delivered, so it strikes what is under way, too.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from launch.stack.ports import LOOPBACK, hold_port

PIECE_BYTES = 64 * 1024  # read at once
PIECES = 256  # under way in one direction of a connection: 16 MiB, then the sender is held back
TURN_LIMIT_S = 10.0  # a trouble takes effect within milliseconds; a busy machine may need longer
RESET = struct.pack("ii", 1, 0)  # SO_LINGER, on, for 0 s: close() sends RST and drops what was not sent

Address = tuple[str, int]
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Pieces = asyncio.Queue[tuple[float, bytes]]  # due by the loop's clock


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happens to the bytes of a link."""

    budget_bytes: int | None = None  # both directions together, of each connection, before it is reset
    delay_s: float = 0.0
    one_way: bool = False
    cut: bool = False


NONE = Trouble()


class TcpLink:
    """Listens on ``address`` and hands on to ``target``. A target that is away looks like a reset connection."""

    def __init__(self, target: Address | None = None) -> None:
        self.target = target  # may be set later, and changed: the next connection goes there
        self.trouble = NONE
        self._port = hold_port()
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)
        self._thread.start()
        self._wait(self._listen())

    @property
    def address(self) -> Address:
        """Where callers connect, for as long as the link lives."""
        return LOOPBACK, self._port.number

    # The troubles (chaos/scenario.py, Link)

    def reset_after(self, size_bytes: int) -> None:
        """Each connection, present and new, is reset (RST) once that many more bytes went through: amid a PDU."""
        self._wait(self._suffer(Trouble(budget_bytes=size_bytes)))

    def delay(self, seconds: float) -> None:
        """Every piece arrives that much later, both ways."""
        self._wait(self._suffer(Trouble(delay_s=seconds)))

    def one_way(self) -> None:
        """The caller is heard and never answered."""
        self._wait(self._suffer(Trouble(one_way=True)))

    def cut(self) -> None:
        """Connections are reset and new ones refused."""
        self._wait(self._suffer(Trouble(cut=True)))

    def heal(self) -> None:
        """Bytes flow; connections that were tampered with are reset."""
        self._wait(self._suffer(NONE))

    def close(self) -> None:
        """Ends every connection and lets the port go."""
        if self._loop.is_closed():
            return
        self._wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TURN_LIMIT_S)
        self._loop.close()
        self._port.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # In the loop

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(TURN_LIMIT_S)

    async def _listen(self) -> None:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(self.address)
        self._server = await asyncio.start_server(self._serve, sock=listener, limit=PIECE_BYTES, backlog=128)

    async def _suffer(self, trouble: Trouble) -> None:
        """1. What comes from now on meets the new trouble. 2. What is there: reset where it was, or is, broken."""
        self.trouble = trouble
        if trouble.cut and self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._connections):
            connection.left_bytes = trouble.budget_bytes
            if trouble.cut or (trouble == NONE and connection.tampered):
                connection.reset()
        if not trouble.cut and self._server is None:
            await self._listen()
        await asyncio.sleep(0)  # the resets are on their way when the caller goes on

    async def _end(self) -> None:
        await self._suffer(Trouble(cut=True))
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, (reader, writer))
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


class _Connection:
    """One caller, and the target on its behalf."""

    def __init__(self, link: TcpLink, caller: Stream) -> None:
        self.left_bytes = link.trouble.budget_bytes
        self.tampered = False
        self._link = link
        self._caller = caller
        self._writers = [caller[1]]

    async def run(self) -> None:
        """Until both sides have ended, or it was reset."""
        target = await self._reach()
        if target is None:
            self.reset()
            return
        self._writers.append(target[1])
        await asyncio.gather(self._pass_on(self._caller, target), self._pass_on(target, self._caller, answers=True))
        for writer in self._writers:
            writer.close()

    async def _reach(self) -> Stream | None:
        try:
            return await asyncio.open_connection(*(self._link.target or ("", 0)), limit=PIECE_BYTES)
        except OSError:
            return None

    async def _pass_on(self, source: Stream, sink: Stream, *, answers: bool = False) -> None:
        """Pieces wait for their time in a queue, so that a delay is a delay and no lower rate."""
        pieces: Pieces = asyncio.Queue(PIECES)
        delivery = asyncio.create_task(self._deliver(pieces, sink[1], answers=answers))
        piece = b"-"
        while piece:
            try:
                piece = await source[0].read(PIECE_BYTES)
            except OSError:  # this side was reset: so is the other
                self.reset()
                piece = b""
            await pieces.put((self._link.trouble.delay_s + asyncio.get_running_loop().time(), piece))
        await delivery

    async def _deliver(self, pieces: Pieces, sink: asyncio.StreamWriter, *, answers: bool) -> None:
        piece = b"-"
        while piece:  # the empty piece is the end of the stream
            due_s, piece = await pieces.get()
            await asyncio.sleep(due_s - asyncio.get_running_loop().time())
            if sink.is_closing():
                continue
            if answers and self._link.trouble.one_way:
                self.tampered = True
            elif piece:
                await self._write(piece, sink)
            else:
                with suppress(OSError):
                    sink.write_eof()

    async def _write(self, piece: bytes, sink: asyncio.StreamWriter) -> None:
        passed = piece if self.left_bytes is None else piece[: self.left_bytes]
        try:
            sink.write(passed)
            await sink.drain()
        except OSError:
            self.reset()
        if self.left_bytes is not None:
            self.left_bytes -= len(passed)
            if self.left_bytes <= 0:
                self.reset()

    def reset(self) -> None:
        """RST to both sides."""
        for writer in self._writers:
            held = writer.get_extra_info("socket")
            with suppress(OSError):
                held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
