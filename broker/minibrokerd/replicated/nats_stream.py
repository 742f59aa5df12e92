"""The stream of `stream.py` on NATS JetStream, by nats-py; what it sends for an append is in `nats_appends.py`."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from minibrokerd.process.logs import OwnText, events
from minibrokerd.replicated.failures import (
    LoginRefused,
    StreamUnfit,
    StreamUnreachable,
)
from minibrokerd.replicated.nats_appends import Appends, Told
from minibrokerd.replicated.nats_client import new_client, unless
from minibrokerd.replicated.nats_login import (
    LoginUnusable,
    denied_subject,
    login_of,
    refusal,
    tls_of,
)
from minibrokerd.replicated.stream import (
    PART_BYTES,
    EntriesGone,
    Entry,
    Info,
    Outcome,
    StreamAway,
    Unknown,
)
from minibrokerd.replicated.stream_address import StreamAddress, here_and_elsewhere
from minibrokerd.replicated.stream_settings import config_of, unfit

ANSWER_S: Final = 2.0
# For what is read. A replica that lives answers in milliseconds; of three one that is gone is asked ten times in a
# row once in 59,049 reads. In two seconds it would be four times, once in 81.
READ_S: Final = 5.0
ASK_AGAIN_S: Final = 0.5
CONNECT_S: Final = 2
OPEN_S: Final = 15.0  # that a start waits for a leader: an election takes 4 to 9 s
TOLD_S: Final = 3.0  # without a leader: it is said what is missing
AGAIN_S: Final = 0.25
END_S: Final = 1.0
PING_S: Final = 1  # twice unanswered, and another server is tried
PENDING_BYTES: Final = 64 * 1024 * 1024  # a batch is handed over whole
HEADERS_BYTES: Final = 4 * 1024
MOST_MESSAGES: Final = 1_000  # of one answer to a read
SEQUENCE: Final = "Nats-Sequence"
SUBJECT: Final = "Nats-Subject"
TIME_STAMP: Final = "Nats-Time-Stamp"
STATUS: Final = "Status"
END_OF_BATCH: Final = "204"
NOT_FOUND: Final = "404"
# Codes of errors of JetStream.
NO_STREAM: Final = 10059
NO_PEERS: Final = (10004, 10005, 10008, 10009)  # a cluster that has just started, or has no leader


class NotLetIn(StreamAway):
    """The servers do not take who asks, or must not be told; it stays so until somebody changes something."""


class NatsStream:
    """One stream, over one connection that is made again when it is lost; see `Stream`."""

    def __init__(self, address: StreamAddress) -> None:
        self.name = str(address)
        self.beside = address.beside
        self._address = address
        self._client: Any = None
        self._appends: Appends | None = None
        self._closed = asyncio.Event()  # the connection is given up by nats-py
        self._errors: tuple[type[BaseException], ...] = (OSError, TimeoutError)
        self._inbox = ""
        self._answers: dict[str, asyncio.Queue[Any]] = {}
        self._asked = 0
        self._ears: dict[
            str, Callable[[Any], Any]
        ] = {}  # by subject, what a new connection listens for
        self.said = ""  # the last thing that the client said of the connection
        self._denied = ""  # what a server does not let us do, since the last append or question
        self._told: set[str] = set()  # of that, what was logged

    # -- a start ------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, make the stream if there is none, and see that its settings are safe.

        Raises:
            LoginRefused, NoClient, StreamUnfit, StreamUnreachable
        """
        began_s, is_told = monotonic(), False
        while True:
            try:
                await self._connect()
                said = await self._ask("STREAM.INFO", b"", ANSWER_S)
                error = said.get("error")
                if error is not None and error["err_code"] == NO_STREAM:
                    said = await self._make()
                    error = said.get("error")
                if error is None:
                    self._look_at(said)
                    return
                if error["err_code"] not in NO_PEERS:
                    raise StreamUnfit(self.name, [error.get("description", str(error))])
                reason = error["description"]
            except StreamAway as away:
                reason = str(away)
                if isinstance(away, NotLetIn):
                    await self.close()
                    raise LoginRefused(self.name, reason) from away
            if monotonic() - began_s > TOLD_S and not is_told:
                is_told = True
                events.warning("log_stalled", stream=OwnText(self.name), text=OwnText(reason))
            if monotonic() - began_s > OPEN_S:
                await self.close()
                advice = "see that most servers of NATS run and reach each other, then start again"
                raise StreamUnreachable(self.name, reason, advice)
            await asyncio.sleep(AGAIN_S)

    async def connect(self) -> None:
        """Connect, and leave all else to the first append; StreamAway."""
        await self._connect()

    async def _connect(self) -> None:
        if not self._is_given_up:
            return
        client, error_of_nats = new_client(self._address)
        self._errors = (error_of_nats, OSError, TimeoutError)
        closed = self._closed = asyncio.Event()
        address = self._address

        async def on_closed() -> None:
            closed.set()

        refused = asyncio.Event()

        async def on_error(error: Exception) -> None:
            self.said = str(error) or type(error).__name__
            if refusal(self.said):
                refused.set()
            self._is_denied(denied_subject(self.said, address))

        here, elsewhere = await asyncio.to_thread(here_and_elsewhere, address.servers)
        places = here + elsewhere  # the shorter way first

        async def on_disconnected() -> None:
            appends.lost()
            # nats-py would let whoever waits for an answer wait for its time-out.
            for answer in getattr(client, "_resp_map", {}).values():
                if not answer.done():
                    answer.set_exception(ConnectionError("the connection was lost"))
            with suppress(LoginUnusable):  # what was read before may still do
                client.options |= {"tls": tls_of(address)} if address.tls else {}

        self.said, inbox = "", f"{address.inbox}.{os.urandom(12).hex()}"
        appends = Appends(client, address, inbox, lambda error: str(self._away(error)))
        client.on_awaited = appends.answered
        try:
            options = {"inbox_prefix": address.inbox, **login_of(address)}
            if address.tls:
                options["tls"] = tls_of(address)
            # Each server twice at the most; once connected, it is to try for ever.
            connecting = client.connect(
                servers=[f"{address.scheme}://{place}" for place in places],
                dont_randomize=True,
                name="minibroker",
                connect_timeout=CONNECT_S,
                reconnect_time_wait=AGAIN_S,
                max_reconnect_attempts=1,
                ping_interval=PING_S,
                closed_cb=on_closed,
                error_cb=on_error,
                disconnected_cb=on_disconnected,
                pending_size=PENDING_BYTES,
                **options,
            )
            await unless(connecting, refused, OPEN_S)
            await client.subscribe(f"{inbox}.*", cb=self._answered)
            for subject, heard in self._ears.items():
                await client.subscribe(subject, cb=heard)
            await client.flush()  # an append does not wait for what nats-py has yet to write
            client.options["max_reconnect_attempts"] = -1
        except LoginUnusable as error:
            raise NotLetIn(str(error)) from error
        except self._errors as error:
            await self._end(client)
            said = self.said or _words(error)
            if reason := refusal(said):
                raise NotLetIn(reason) from error
            raise StreamAway(f"no server answers ({said})") from error
        if not self.beside and client.connected_url.netloc in here:
            self.beside = str(client._server_info.get("server_name", ""))
        self._client, self._inbox, self._appends = client, inbox, appends

    @property
    def _is_given_up(self) -> bool:
        """Whether nobody makes the connection again; nats-py does not always say so, as behind a refused login."""
        return self._client is None or self._closed.is_set() or bool(self._client.is_closed)

    def _is_denied(self, what: str) -> None:
        self._denied = what or self._denied
        if what and what not in self._told:
            self._told.add(what)
            text = f"this broker may not {what}"
            events.warning("log_denied", stream=OwnText(self.name), text=OwnText(text))

    async def _make(self) -> dict[str, Any]:
        config = config_of(self._address)
        return await self._ask("STREAM.CREATE", json.dumps(config).encode(), 5.0)

    def _look_at(self, said: Mapping[str, Any]) -> None:
        faults = unfit(said["config"], self._address)
        most = self._client.max_payload
        if most < PART_BYTES + HEADERS_BYTES:
            faults.append(
                f"max_payload of the server is {most}, {PART_BYTES + HEADERS_BYTES} is needed"
            )
        if faults:
            raise StreamUnfit(self.name, faults)

    # -- appending ----------------------------------------------------------------------------------

    async def append(
        self, parts: Sequence[bytes], expected: int, *, is_epoch: bool = False
    ) -> Outcome:
        """Publish one message, or an atomic batch of them; see `Stream`."""
        if not self.is_connected:
            return await self._unconnected()
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def told(outcome: Outcome) -> None:
            if not answer.done():
                answer.set_result(outcome)

        appends = self._send(parts, expected, told, is_epoch=is_epoch)
        try:
            return await answer
        finally:
            if not answer.done():
                appends.forget()

    def begin(self, parts: Sequence[bytes], expected: int, told: Told) -> None:
        """Publish as `append` does; see `Stream`."""
        if self.is_connected:
            self._send(parts, expected, told, is_epoch=False)
        else:  # not handed to the client: it would send it when it is connected again, long after
            away = Unknown("not connected to a server", is_led=False)
            asyncio.get_running_loop().call_soon(told, away)

    def _send(
        self, parts: Sequence[bytes], expected: int, told: Told, *, is_epoch: bool
    ) -> Appends:
        assert self._appends is not None, "connected"
        self._appends.begin(parts, expected, told, is_epoch=is_epoch)
        return self._appends

    async def _unconnected(self) -> Outcome:
        if self._is_given_up:
            try:
                await self._connect()
            except StreamAway as away:
                return Unknown(str(away), is_led=False)
        return Unknown("not connected to a server", is_led=False)

    # -- reading ------------------------------------------------------------------------------------

    async def read(self, first: int, most_bytes: int) -> list[Entry]:
        """Read by a direct get of a batch, from whichever replica answers; see `Stream`."""
        await self._connect()
        wish = {"seq": first, "batch": MOST_MESSAGES, "max_bytes": most_bytes}
        answers: asyncio.Queue[Any] = asyncio.Queue()
        tokens: list[str] = []
        found: list[Entry] = []
        try:
            async with asyncio.timeout(READ_S):
                message = await self._first_answer(json.dumps(wish).encode(), answers, tokens)
                answered = message.subject
                while (entry := self._entry(message)) is not None:
                    found.append(entry)
                    message = await answers.get()
                    while message.subject != answered:
                        message = await answers.get()
        except self._errors as error:
            if not found:
                raise self._away(error) from error
        finally:
            for token in tokens:
                del self._answers[token]
        return _from(first, found)

    async def _first_answer(
        self, wish: bytes, answers: asyncio.Queue[Any], tokens: list[str]
    ) -> Any:
        """Ask until some replica answers. The servers ask one by chance, also one that is gone without a word.

        They find that out after minutes, and a third of all questions would wait for its answer.
        """
        subject = f"$JS.API.DIRECT.GET.{self._address.stream}"
        while True:
            self._asked += 1
            tokens.append(token := str(self._asked))
            self._answers[token] = answers
            await self._client.publish(subject, wish, reply=f"{self._inbox}.{token}")
            try:
                return await asyncio.wait_for(answers.get(), ASK_AGAIN_S)
            except TimeoutError:
                continue

    def _entry(self, message: Any) -> Entry | None:
        headers = {str(getattr(name, "value", name)): at for name, at in message.headers.items()}
        status = headers.get(STATUS)
        if status in (END_OF_BATCH, NOT_FOUND):
            return None
        if status is not None:
            raise StreamAway(f"status {status} {headers.get('Description', '')}".rstrip())
        is_epoch = headers[SUBJECT] == self._address.epoch_subject
        return Entry(int(headers[SEQUENCE]), is_epoch, message.data)

    async def _answered(self, message: Any) -> None:
        answers = self._answers.get(message.subject.rpartition(".")[2])
        if answers is not None:  # else it is late
            answers.put_nowait(message)

    # -- what else there is -------------------------------------------------------------------------

    async def info(self) -> Info:
        """Ask for the state of the stream; see `Stream`."""
        said = await self._ask_well("STREAM.INFO", b"")
        state, cluster = said["state"], said.get("cluster") or {}
        replicas = cluster.get("replicas") or []
        leader = cluster.get("leader") or ("" if replicas else "the only one")
        return Info(
            state["first_seq"],
            state["last_seq"],
            state["bytes"],
            leader,
            (*((leader,) if leader else ()), *(each["name"] for each in replicas)),
            tuple(
                each["name"] for each in replicas if each.get("offline") or not each.get("current")
            ),
            said["config"].get("max_bytes", 0),
        )

    async def purge(self, below: int) -> None:
        """Purge by sequence; see `Stream`."""
        await self._ask_well("STREAM.PURGE", json.dumps({"seq": below}).encode())

    async def step_down(self, preferred: str = "") -> None:
        """Ask the leader to step down; see `Stream`."""
        wish = {"placement": {"preferred": preferred}} if preferred else {}
        await self._ask_well("STREAM.LEADER.STEPDOWN", json.dumps(wish).encode())

    async def say(self, word: bytes) -> None:
        """Publish to a subject that is not stored; see `Stream`."""
        if self._client is not None and self._client.is_connected:
            with suppress(*self._errors):
                await self._client.publish(self._address.alive_subject, word)

    async def hear(self, heard: Callable[[bytes], None]) -> None:
        """Subscribe to that subject; see `Stream`."""

        async def said(message: Any) -> None:
            heard(message.data)

        await self._listen(self._address.alive_subject, said)

    async def answer(self, answer_to: Callable[[bytes], bytes | None]) -> None:
        """Answer what operators ask, from now on; StreamAway."""

        async def asked(message: Any) -> None:
            said = answer_to(message.data)
            if said is not None and message.reply:
                with suppress(*self._errors):
                    await self._client.publish(message.reply, said)

        await self._listen(self._address.asked_subject, asked)

    async def _listen(self, subject: str, heard: Callable[[Any], Any]) -> None:
        await self._connect()
        try:
            await self._client.subscribe(subject, cb=heard)
        except self._errors as error:
            raise self._away(error) from error
        self._ears[subject] = heard

    async def ask_brokers(self, question: bytes, wait_s: float, most: int) -> list[bytes]:
        """Return what brokers answer within `wait_s`, `most` of them; StreamAway."""
        await self._connect()
        self._asked += 1
        token = str(self._asked)
        answers = self._answers[token] = asyncio.Queue()
        found: list[bytes] = []
        try:
            reply = f"{self._inbox}.{token}"
            await self._client.publish(self._address.asked_subject, question, reply=reply)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    while len(found) < most and (said := (await answers.get()).data):
                        found.append(said)  # an empty one is of the server: nobody listens
        except self._errors as error:
            raise StreamAway(_words(error)) from error
        finally:
            del self._answers[token]
        return found

    async def newest_claim(self) -> tuple[Entry, str] | None:
        """Return a replica's newest epoch record, and when it was stored (RFC 3339); None: none. StreamAway."""
        await self._connect()
        wish = json.dumps({"last_by_subj": self._address.epoch_subject}).encode()
        tokens: list[str] = []
        try:
            async with asyncio.timeout(READ_S):
                message = await self._first_answer(wish, asyncio.Queue(), tokens)
        except self._errors as error:
            raise StreamAway(_words(error)) from error
        finally:
            for token in tokens:
                del self._answers[token]
        if STATUS in (headers := message.headers or {}):
            return None
        return Entry(int(headers[SEQUENCE]), True, message.data), headers.get(TIME_STAMP, "")

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now; see `Stream`."""
        return self._client is not None and bool(self._client.is_connected)

    async def _ask_well(self, verb: str, wish: bytes) -> dict[str, Any]:
        await self._connect()
        said = await self._ask(verb, wish, ANSWER_S)
        if "error" in said:
            raise StreamAway(said["error"].get("description", "an error without a word"))
        return said

    async def _ask(self, verb: str, wish: bytes, timeout_s: float) -> dict[str, Any]:
        subject = f"$JS.API.{verb}.{self._address.stream}"
        try:
            answer = await self._client.request(subject, wish, timeout=timeout_s)
        except self._errors as error:
            raise self._away(error) from error
        said: dict[str, Any] = json.loads(answer.data)
        return said

    def _away(self, error: BaseException) -> StreamAway:
        """Return why a question has no answer."""
        denied, self._denied = self._denied, ""
        if denied:
            return NotLetIn(f"this broker may not {denied}; let it, in the servers of NATS")
        return StreamAway(_words(error))

    async def close(self) -> None:
        """Close the connection; see `Stream`."""
        client, self._client = self._client, None
        if client is not None:
            await self._end(client)

    async def _end(self, client: Any) -> None:
        try:
            with suppress(*self._errors):
                async with asyncio.timeout(
                    END_S
                ):  # behind a handshake that failed it waits for ever
                    await client.close()
        finally:
            client.drop()


def _from(first: int, found: list[Entry]) -> list[Entry]:
    """Return what is without a gap from `first` on; EntriesGone if that one is not there, but others are."""
    if found and found[0].sequence != first:
        raise EntriesGone(first, found[0].sequence)
    for index, entry in enumerate(found):
        if entry.sequence != first + index:
            return found[:index]
    return found


def _words(error: BaseException) -> str:
    words = {
        "NoRespondersError": "the stream has no leader",
        "TimeoutError": "no answer in time",
        "NoServersError": "no server can be reached",
    }
    return words.get(type(error).__name__) or str(error) or type(error).__name__
