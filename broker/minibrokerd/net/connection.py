"""One connection: bytes from the socket to commands for the engine, frames back to the socket.

What a peer may cost before it logged in and after is bounded here: frame sizes on the prefix alone, one
frame before login, deadlines (kept by the server's sweep), and output that nobody reads.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from minibroker.contract import limits
from minibroker.contract.errors import ERRORS
from minibroker.contract.rows import Phase
from minibroker.contract.versions import PROTOCOL_VERSIONS
from minibroker.contract.wire import LENGTH, RUN
from minibrokerd import __version__
from minibrokerd.access.checker import Checker
from minibrokerd.access.door import MISSING, UNKNOWN
from minibrokerd.access.quotas import Quota
from minibrokerd.access.rights import Grant
from minibrokerd.core.core import error_header
from minibrokerd.core.model.effects import Outgoing
from minibrokerd.core.model.inputs import NEEDS_ROOM, Attach, Disconnected, Flow, Frame
from minibrokerd.net import listening
from minibrokerd.net.frames import ARRAY_OF_4, BadFrame, read_frame
from minibrokerd.net.outgoing import frame_of
from minibrokerd.net.seam import Broker
from minibrokerd.net.strangers import FIRST_BYTES, Stranger, recognise
from minibrokerd.net.tls import SealedTransport
from minibrokerd.process import logs
from minibrokerd.process.logs import events

# Smaller output is joined into one write, larger is written in pieces.
JOIN_BYTES: Final = 256 * 1024
LARGE_BYTES: Final = 1024 * 1024  # a frame above it that came in pieces is not copied
MAX_TEXT_CHARS: Final = 500
# Of an enumeration, for what each frame passes: a global name is found in a tenth of the time.
NEW, ATTACHED = Phase.NEW, Phase.ATTACHED
_ARRAYS: Final = (b"", bytes([ARRAY_OF_4]))  # what can be the begin of a payload
LINGER_S: Final = 0.5  # for a stranger to take its answer
ONLY_TLS: Final = "this port takes encrypted connections only; connect with minibrokers://"


class Refusal(Exception):
    """The peer may not go on; the code and the text go into its last frame."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class ServerConnection(asyncio.Protocol):
    """The protocol of one stream of bytes, and the engine's sink for it."""

    def __init__(self, broker: Broker, number: int) -> None:
        self._broker = broker
        self.number = number
        self.phase = Phase.NEW
        self.session = 0
        self.client = ""  # the name that it gave itself
        self.peer = ""  # the address and port of its other end
        self.host = ""
        self.is_inside = False  # it belongs to the broker itself, and needs no token
        self.grant: Grant | None = None  # what its token allows; None: it came without one
        self._quota: Quota | None = None  # that this connection is counted in
        self._submit: Callable[[Frame], None] = broker.engine.submit
        self._jitter = broker.engine.jitter
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._has_unfinished = False  # the server counts what is in the buffer
        self._waits = False  # for a turn in which it is heard, before its login
        self._out: list[Any] = []
        self._out_bytes = 0
        now_s = broker.loop.time()
        self.opened_s = now_s
        self.received_s = now_s  # when bytes last came
        self.sent_s = now_s
        self.frame_since_s: float | None = None  # since when a frame is incomplete
        self.stalled_since_s: float | None = None
        self._handed_bytes = 0  # to the transport, over the connection's life
        self._written_bytes = 0  # of those, what the peer's side had taken at the last look
        self._closing = False

    # -- what the loop calls ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; asyncio.Protocol."""
        # uvloop's transports do not inherit from asyncio's; they are the same by interface.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=limits.OUTPUT_SOFT_BYTES)
        address = transport.get_extra_info("peername")
        if address:
            self.host, self.peer = address[0], listening.show(*address[:2])
        if not self._broker.has_room_for(self):
            self.give_way()

    def data_received(self, data: bytes) -> None:
        """Cut frames and submit them; asyncio.Protocol."""
        self.received_s = self._broker.loop.time()
        if self._closing:
            return
        if self.phase is NEW:
            self._buffer += data
            if not self._waits:
                self._waits = True
                self._broker.turns.take(self._hear)
        elif not self._broker.stopping:
            # After the signal to stop all stays unanswered, and its client sends it again after a resume: so the
            # stop comes to an end under any load, and nothing is refused that a moment later is welcome.
            try:
                self._cut(data)
            except BadFrame as error:
                self._refuse("protocol_error", str(error))
        if self._buffer or self._has_unfinished or self._closing:
            self._note_unfinished()

    def eof_received(self) -> bool:
        """Let who has not logged in wait with the end of it, too; asyncio.Protocol."""
        if self.phase is not Phase.NEW or self._transport is None:
            return False
        self._broker.turns.take(self._transport.close)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the core; asyncio.Protocol. What was received before has been applied."""
        self._closing = True
        self._note_unfinished()
        self._broker.gone(self)
        if self._quota is not None:
            self._quota.connections -= 1
        if logs.tells(
            "debug"
        ):  # which costs as much as all else here, and a crowd may leave at once
            events.debug("connection_closed", **self.fields())
        if self.phase is Phase.NEW:
            self._broker.engine.certainty.forget(self._hear)
        else:
            self._broker.engine.sinks.pop(self.number, None)
            self._broker.engine.submit(Disconnected(self.number))

    def pause_writing(self) -> None:
        """The peer does not read: deliver nothing more to it; asyncio.Protocol."""
        self._broker.engine.submit(Flow(self.number, paused=True))

    def resume_writing(self) -> None:
        """The peer reads again; asyncio.Protocol."""
        self._broker.engine.submit(Flow(self.number, paused=False))

    # -- in -----------------------------------------------------------------------------------------

    def _hear(self) -> None:
        """Take what came of who has not logged in: all of it so far, as it may have waited."""
        if not (self._closing or self._broker.engine.certainty.lets_in(self._hear)):
            return
        self._waits = False
        if self._closing:
            return
        data, self._buffer, self.frame_since_s = bytes(self._buffer), bytearray(), None
        try:
            if self._broker.stopping:
                raise Refusal("shutting_down", "the server is stopping; connect again later")
            self._cut(data)
            if self._buffer[LENGTH.size : LENGTH.size + 1] not in _ARRAYS:
                raise BadFrame("a payload starts with 0x94, and this one never will")
        except Refusal as error:
            self._refuse(error.code, str(error))
        except BadFrame as error:
            stranger = recognise(data[:FIRST_BYTES]) if self.phase is Phase.NEW else None
            if stranger is None:
                self._refuse("protocol_error", str(error))
            else:
                self._answer(stranger)
        self._note_unfinished()

    def _cut(self, data: bytes) -> None:
        at, size = self._fill(data) if self._buffer else 0, len(data)
        while size - at >= LENGTH.size and not self._closing:
            (length,) = LENGTH.unpack_from(data, at)
            if length > limits.MAX_LOGIN_FRAME_BYTES:  # what is short may always come
                self._check_length(length)
            end = at + LENGTH.size + length
            if end > size:
                break
            self._take(data[at + LENGTH.size : end])
            at = end
        if at < size and not self._closing:
            self._buffer += data[at:] if at else data
            self.frame_since_s = self.received_s

    def _fill(self, data: bytes) -> int:
        """Give the frame that was begun what it still needs of `data`; return how much that was."""
        at = max(LENGTH.size - len(self._buffer), 0)
        if at:
            self._buffer += data[:at]
            if len(self._buffer) < LENGTH.size:
                return len(data)
            self._check_length(int.from_bytes(self._buffer, "big"))
        missing = LENGTH.size + int.from_bytes(self._buffer[: LENGTH.size], "big")
        missing -= len(self._buffer)
        self._buffer += data[at : at + missing] if at or missing < len(data) else data
        if missing > len(data) - at:
            return len(data)
        payload = memoryview(self._buffer)[LENGTH.size :]
        self._buffer = bytearray()
        self.frame_since_s = None
        # A large frame is never copied: a hostile one must not cost a multiple of what was sent.
        self._take(payload if len(payload) > LARGE_BYTES else bytes(payload))
        return at + missing

    def _note_unfinished(self) -> None:
        if self._closing:
            self._buffer = bytearray()
        if self._buffer or self._has_unfinished:
            self._has_unfinished = bool(self._buffer)
            self._broker.unfinished.note(self, len(self._buffer))

    def refuse_unfinished(self, text: str) -> None:
        """End the connection, whose frame is too much; unfinished.Sender."""
        self._refuse("limit_reached", text, retryable=True)
        self._note_unfinished()

    def _check_length(self, length: int) -> None:
        most = limits.MAX_LOGIN_FRAME_BYTES if self.phase is Phase.NEW else limits.MAX_FRAME_BYTES
        if length > most:  # on the prefix alone: never wait for a hostile body
            raise BadFrame(f"a frame of {length} bytes exceeds {most}")

    def _take(self, payload: bytes | memoryview) -> None:
        frame, phase = read_frame(payload, self.number, self._jitter()), self.phase
        for part in frame.parts:
            if phase not in part.row.phases:
                raise BadFrame(
                    f"{part.row.op} is not allowed on a connection that is {phase.value}"
                )
        if phase is NEW:
            self._login(frame)
        elif phase is ATTACHED and frame.sequence is not None:
            raise BadFrame("frames of an attached connection have a request number, no sequence")
        elif frame.sequence is None and frame.needs == NEEDS_ROOM:
            raise BadFrame("publish needs a sequence")  # a refusal of it would name nothing
        else:
            self._submit(frame)

    def _login(self, frame: Frame) -> None:
        part = frame.parts[0]
        spoken = [version.number for version in PROTOCOL_VERSIONS]
        if part.protocol not in spoken:
            raise Refusal(
                "login_refused",
                f"this server speaks protocol {' and '.join(map(str, spoken))}, the client {part.protocol}; "
                "use a client of the same major version",
            )
        if len(frame.parts) > 1 or frame.sequence is not None or frame.request is not None:
            raise BadFrame("the first frame of a connection has one part and no number of its own")
        if len(frame.columns) != RUN.size * getattr(part, "runs", 0):
            raise BadFrame(f"the columns of {part.row.op} have {len(frame.columns)} bytes")
        client = getattr(part, "client", "")
        if len(client.encode()) > limits.MAX_CLIENT_NAME_BYTES:
            raise BadFrame(f"the name of a client exceeds {limits.MAX_CLIENT_NAME_BYTES} bytes")
        if not self._may_come_in(part.token):
            return
        session = getattr(part, "session", None)
        if session is not None and not hmac.compare_digest(part.secret, self._secret(session)):
            raise Refusal(
                "login_refused", "the session or its secret is not known here; start with hello"
            )
        self._broker.engine.sinks[self.number] = self
        self.client = client
        command = part.row.login(self.number, part, frame.columns, self.grant)
        self._broker.engine.submit(command)
        self.phase = Phase.ATTACHED if isinstance(command, Attach) else Phase.OPEN
        self._broker.entered(self)

    def _secret(self, session: int) -> bytes:
        """Return the secret of a session: it is right for the owner of the token that the session began with."""
        owner = self.grant.name.encode() if self.grant is not None else b""
        text = session.to_bytes(8, "big") + owner
        return hmac.digest(self._broker.session_key, text, hashlib.sha256)

    def _may_come_in(self, token: str) -> bool:
        """Note what the token allows; False: it is refused, by now or in a moment."""
        door, loop = self._broker.door, self._broker.loop
        if door.is_open or self.is_inside:
            return True
        self.grant = door.identify(token, time.time())
        if self.grant is not None:
            quota = door.quotas.of(self.grant, loop.time())
            if quota is not None and not quota.may_connect():
                most = self.grant.limits.connections
                text = f"there are {most} connections of the token {self.grant.name!r}, which may have no more"
                self._refuse("limit_reached", text, retryable=True)
                return False
            self._quota = quota
            if quota is not None:
                quota.connections += 1
            self._submit = Checker(self._broker.engine, self.grant, quota, loop.time).submit
            return True
        text = UNKNOWN if token else MISSING
        delay_s = door.failures.note(self.host, loop.time())
        if not delay_s:
            self._refuse("token_refused", text)
            return False
        self._closing = True  # whatever else comes is not looked at
        loop.call_later(delay_s, self._refuse_late, text)
        return False

    def _refuse_late(self, text: str) -> None:
        self._broker.door.failures.done(self.host)
        self._closing = self._transport is None or self._transport.is_closing()
        self._refuse("token_refused", text)

    def give_way(self) -> None:
        """End a connection that has not logged in: there are too many."""
        self._refuse("busy", "this server has as many connections as it may have files open")

    def cut(self, text: str) -> None:
        """End a connection that has logged in, because its token is not valid any more."""
        if self.phase is not Phase.NEW:
            self._refuse("token_refused", text)

    # -- out ----------------------------------------------------------------------------------------

    def send(self, outgoing: Outgoing) -> None:
        """Take one frame; engine.Sink."""
        if self._closing:
            return
        header = outgoing.header
        if header["op"] == "welcome":
            self.session = header["session"]
            header |= {"secret": self._secret(self.session), "version": __version__}
            events.debug("session_opened", **self.fields())
        pieces = outgoing.pieces or frame_of(header, outgoing.columns, outgoing.bodies)
        self._out += pieces
        self._out_bytes += sum(map(len, pieces))
        if self._out_bytes > limits.OUTPUT_HARD_BYTES:
            self.flush()  # one chunk of small requests must not gather answers without end

    def flush(self) -> None:
        """Write what was taken; engine.Sink."""
        transport = self._transport
        if not self._out or transport is None:
            return
        out, size = self._out, self._out_bytes
        self._out, self._out_bytes = [], 0
        self._handed_bytes += size
        self.sent_s = self._broker.loop.time()
        if transport.is_closing():
            return
        if size <= JOIN_BYTES:
            transport.write(b"".join(out))
        else:
            transport.writelines(out)
        if transport.get_write_buffer_size() > limits.OUTPUT_HARD_BYTES:
            self.end("it does not read what it is sent")

    def ahead(self, outgoing: Outgoing) -> Callable[[], None] | None:
        """Encode a frame that `send` will get; return what sends it from the writer thread; engine.Sink.

        That may be called while the loop stands still and waits for it. None: something goes before the frame, or
        there is no socket to be written to, as under TLS, where the bytes have to be sealed in their order.
        """
        data = b"".join(frame_of(outgoing.header, outgoing.columns, outgoing.bodies))
        outgoing.pieces = [data]
        transport = self._transport
        if transport is None or self._out or self._closing or transport.get_write_buffer_size():
            return None
        socket = None if transport.is_closing() else transport.get_extra_info("socket")
        if socket is None:
            return None
        descriptor = socket.fileno()

        def write() -> None:
            try:
                sent = os.write(descriptor, data)
            except OSError:
                return  # `send` gives all of it to the transport, which sees the same error, or waits
            outgoing.pieces = [data[sent:]]

        return write

    def fields(self) -> dict[str, Any]:
        """Return what tells this connection from others, for an event."""
        return {
            "connection": self.number,
            "session": self.session,
            "client": self.client,
            "peer": self.peer,
        } | ({"token": self.grant.name} if self.grant is not None else {})

    def refused(self, code: str, text: str) -> None:
        """Note that the peer may not go on; engine.Sink."""
        self._broker.refused(self, code, text)

    def drop(self) -> None:
        """End the connection at once, and write nothing more; engine.Sink."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Write what was taken and end the connection; engine.Sink."""
        self.flush()
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def end(self, why: str) -> None:
        """Cut the connection off; who has logged in is told why, if its socket takes that at once."""
        self._broker.ended(self, why)
        if self.session:
            outgoing = Outgoing(self.number, 0, error_header("protocol_error", why, None, None))
            tell = self.ahead(outgoing)
            if tell is not None:
                tell()
            elif isinstance(self._transport, SealedTransport) and outgoing.pieces:
                self._transport.write_now(outgoing.pieces[0])
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def heartbeat(self) -> None:
        """Send a sign of life."""
        self.send(Outgoing(self.number, 0, {"op": "pong"}))
        self.flush()

    def farewell(self, text: str) -> None:
        """Tell the peer that the server stops, and close."""
        self.send(Outgoing(self.number, 0, {"op": "goodbye", "text": text}))
        self.close()

    def stalled_s(self, now_s: float) -> float:
        """Return for how long a non-empty output buffer has made no progress, in seconds."""
        size = self._transport.get_write_buffer_size() if self._transport is not None else 0
        # Not the size of the buffer: that of a slow reader is filled up again while it reads.
        written_bytes = self._handed_bytes - size
        if not size or written_bytes > self._written_bytes or self.stalled_since_s is None:
            self.stalled_since_s = now_s if size else None
        self._written_bytes = written_bytes
        return 0.0 if self.stalled_since_s is None else now_s - self.stalled_since_s

    def refuse_plain(self, transport: asyncio.Transport, first: bytes) -> None:
        """Answer a peer that does not speak TLS, in the clear; tls.Connection."""
        self._transport = transport
        self._closing = True  # whatever else comes is not looked at
        self._broker.turns.take(partial(self._refuse_plain, first))

    def _refuse_plain(self, first: bytes) -> None:
        assert self._transport is not None, "it was given"
        self._closing = self._transport.is_closing()
        stranger = recognise(first[:FIRST_BYTES])
        if stranger is None:
            self._refuse("login_refused", ONLY_TLS, "no TLS")
        else:
            self._answer(stranger)

    def tls_failed(self, text: str) -> None:
        """Note that the TLS of the peer ends the connection; tls.Connection."""
        self._closing = True
        self._broker.refused(self, "login_refused", f"TLS: {text}", "TLS")

    def _answer(self, stranger: Stranger) -> None:
        """Tell a peer that speaks something else so in its own words, and close."""
        if stranger.answer is None:
            self._refuse("protocol_error", stranger.text, stranger.speaks)
            return
        self._closing = True
        self._broker.refused(self, "protocol_error", stranger.text, stranger.speaks)
        if self._transport is not None:
            self._transport.write(stranger.answer)
            # Closing at once would discard the answer, if some of what was sent is not read yet.
            if self._transport.can_write_eof():
                self._transport.write_eof()
            self._broker.loop.call_later(LINGER_S, self._transport.close)

    def _refuse(
        self, code: str, text: str, speaks: str = "", *, retryable: bool | None = None
    ) -> None:
        """One error frame, then the end: the state of the stream is lost."""
        if self._closing:
            return  # the core has said so already, in the same frame's apply
        text = text[:MAX_TEXT_CHARS]  # it may quote what the peer sent
        header = {
            "op": "error",
            "code": code,
            "text": text,
            "retryable": ERRORS[code].error.retryable if retryable is None else retryable,
        }
        self.send(Outgoing(self.number, 0, header))
        self._broker.refused(self, code, text, speaks)
        self.close()
