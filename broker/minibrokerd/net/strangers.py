"""Peers that speak something else: recognised by their first bytes, and answered so that they can show it.

Somebody gave a health check or a client library the wrong address. The one line in the server's log,
and the text that the other side shows, should be enough to find out. Pure: bytes in, values out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

FIRST_BYTES: Final = 64  # that are looked at

_TLS_ALERT: Final = bytes.fromhex("15 0301 0002 02 28")  # fatal, handshake_failure
_HTTP2_SETTINGS: Final = bytes.fromhex("000000 04 00 00000000")
_HTTP2_GOAWAY: Final = 7
_HTTP_1_1_REQUIRED: Final = 13
_POSTGRES_ASKS: Final = (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30")  # for TLS, or GSS
_PROXY_2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_METHODS: Final = "GET HEAD POST PUT DELETE OPTIONS PATCH TRACE CONNECT PROPFIND"
_REDIS: Final = "PING AUTH HELLO INFO SELECT CLIENT QUIT"
_MEMCACHED: Final = (
    "get gets set add replace append prepend cas delete incr decr version stats mg ms mn"
)
_BEANSTALKD: Final = (
    "put reserve reserve-with-timeout use watch ignore list-tubes stats-tube stats-job"
)
_NATS: Final = (b"CONNECT {", b'{"verbose"', b"SUB ", b"PUB ")


@dataclass(frozen=True, slots=True)
class Stranger:
    """What a peer speaks, the text for it, and the bytes that carry the text; None: an error frame of ours does.

    Behind a PROXY header stands a client of ours, which shows it.
    """

    speaks: str
    text: str
    answer: bytes | None


def recognise(first: bytes) -> Stranger | None:
    """Return what `first`, the first bytes of a connection, speak; None: perhaps the protocol of minibroker.

    To be asked about bytes that were refused: what a client of ours sends might look like something else, too.
    """
    for speaks, knows, advice, answer in _ROWS:
        if knows(first):
            text = f"this is minibroker, which does not speak {speaks}; {advice}"
            return Stranger(speaks, text, None if answer is None else answer(first, text))
    return None


# -- how each is recognised ---------------------------------------------------------------------------


def _begins(*prefixes: bytes) -> Callable[[bytes], bool]:
    # Of a long prefix four bytes have to do: more may not have come.
    longest = max(map(len, prefixes))
    return lambda first: (
        first.startswith(prefixes)
        or (4 <= len(first) < longest and any(prefix.startswith(first) for prefix in prefixes))
    )


def _words(words: str) -> Callable[[bytes], bool]:
    known = {word.encode() for word in words.split()}
    return lambda first: first.replace(b"\r", b" ").replace(b"\n", b" ").partition(b" ")[0] in known


def _is_resp(first: bytes) -> bool:
    return (first[:1] == b"*" and first[1:2].isdigit()) or _words(_REDIS)(first)


def _is_mqtt(first: bytes) -> bool:
    return first[:1] == b"\x10" and (b"\0\4MQTT" in first[:12] or b"\0\6MQIsdp" in first[:12])


def _is_kafka(first: bytes) -> bool:
    """A size, an ApiVersions or Metadata request, a small version, a client name of a sensible size."""
    if len(first) < 14:
        return False
    _, key, version, _, name = struct.unpack_from(">IHHIh", first)
    return key in (3, 18) and version <= 16 and -1 <= name <= 255


def _is_postgres(first: bytes) -> bool:
    return first[4:8] in (b"\0\3\0\0", *_POSTGRES_ASKS)


def _is_text(first: bytes) -> bool:
    return all(32 <= byte < 127 or byte in b"\r\n\t" for byte in first[:16])


# -- what each can show -------------------------------------------------------------------------------


def _line(form: str) -> Callable[[bytes, str], bytes]:
    return lambda first, text: form.format(text=text).encode()


def _nothing(_: bytes, __: str) -> bytes:
    return b""


def _http(first: bytes, text: str) -> bytes:
    body = b"" if first.startswith(b"HEAD ") else f"{text}\n".encode()
    return (
        "HTTP/1.1 400 Bad Request\r\nServer: minibroker\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(text) + 1}\r\nConnection: close\r\n\r\n"
    ).encode() + body


def _http2(_: bytes, text: str) -> bytes:
    said = bytes(4) + _HTTP_1_1_REQUIRED.to_bytes(4, "big") + text.encode()
    head = len(said).to_bytes(3, "big") + bytes([_HTTP2_GOAWAY, 0]) + bytes(4)
    return _HTTP2_SETTINGS + head + said


def _tls(_: bytes, __: str) -> bytes:
    return _TLS_ALERT


def _amqp(_: bytes, __: str) -> bytes:
    return b"AMQP\0\0\0\0"  # no version of it is spoken here: the header is the whole answer


def _mqtt(first: bytes, text: str) -> bytes:
    """A CONNACK that refuses: from version 5 on with a reason, before that with "server unavailable"."""
    at = first.find(b"MQTT")
    if at < 0 or first[at + 4 : at + 5] < b"\5":
        return b"\x20\x02\x00\x03"
    reason = text.encode()[:100]
    properties = b"\x1f" + len(reason).to_bytes(2, "big") + reason
    rest = b"\0\x84" + bytes([len(properties)]) + properties
    return b"\x20" + bytes([len(rest)]) + rest


def _postgres(first: bytes, text: str) -> bytes:
    said = f"SFATAL\0VFATAL\0C08P01\0M{text}\0\0".encode()
    # After a "no" it goes on without encryption, and reads.
    no = b"N" if first[4:8] in _POSTGRES_ASKS else b""
    return no + b"E" + (len(said) + 4).to_bytes(4, "big") + said


_ELSEWHERE: Final = "check the address and the port"
_Row = tuple[str, Callable[[bytes], bool], str, Callable[[bytes, str], bytes] | None]
# The first row that knows the bytes counts, so the vaguer ones stand below.
_ROWS: Final[tuple[_Row, ...]] = (
    ("PROXY", _begins(b"PROXY ", _PROXY_2), "switch it off where the connection comes through", None),
    ("HTTP/2", _begins(b"PRI * HTTP/2"), _ELSEWHERE, _http2),
    ("NATS", _begins(*_NATS), _ELSEWHERE, _line("-ERR '{text}'\r\n")),
    ("STOMP", _begins(b"CONNECT\n", b"CONNECT\r\n", b"STOMP\n", b"STOMP\r\n"), _ELSEWHERE,
     _line("ERROR\nmessage:{text}\n\n\0")),
    ("HTTP", _words(_METHODS), _ELSEWHERE, _http),
    ("TLS", lambda first: first[:2] == b"\x16\3", "connect without encryption, with minibroker://", _tls),
    ("AMQP", _begins(b"AMQP"), _ELSEWHERE, _amqp),
    ("MQTT", _is_mqtt, _ELSEWHERE, _mqtt),
    ("SSH", _begins(b"SSH-"), _ELSEWHERE, _line("{text}\r\n")),
    ("SMTP", _words("EHLO HELO"), _ELSEWHERE, _line("554 {text}\r\n")),
    ("Redis", _is_resp, _ELSEWHERE, _line("-ERR {text}\r\n")),
    ("memcached", _words(_MEMCACHED), _ELSEWHERE, _line("SERVER_ERROR {text}\r\n")),
    ("memcached", lambda first: first[:1] == b"\x80", _ELSEWHERE, _nothing),
    ("beanstalkd", _words(_BEANSTALKD), _ELSEWHERE, _line("INTERNAL_ERROR {text}\r\n")),
    ("PostgreSQL", _is_postgres, _ELSEWHERE, _postgres),
    ("Kafka", _is_kafka, _ELSEWHERE, _nothing),
    ("this text", _is_text, _ELSEWHERE, _line("ERROR {text}\r\n")),
)  # fmt: skip
