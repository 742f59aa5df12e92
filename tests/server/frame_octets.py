"""Frames as bytes, written by hand from protocol.md: no encoder of ours or of anybody else made them.

Behind each # stands what the bytes of its line mean; an integer in a map is big-endian, in a column little-endian.
"""

from __future__ import annotations


def octets(text: str) -> bytes:
    """Return the bytes of a vector: hex, a comment behind each #."""
    return bytes.fromhex(" ".join(line.partition("#")[0] for line in text.splitlines()))


HELLO = octets("""
    0000002e 94 c4 25  # payload: 46 bytes; header: 37
    81 a5 7061727473 91 83  # map of 1: "parts": list of 1: map of 3
    a2 6f70 a5 68656c6c6f  # "op": "hello"
    a8 70726f746f636f6c 01 a6 636c69656e74 a1 77  # "protocol": 1, "client": "w"
    c4 00 c4 00 c4 00  # no columns, no lengths, no blob
""")
RESUME = octets("""
    00000087 94 c4 66  # payload: 135 bytes; header: 102
    81 a5 7061727473 91 86  # map of 1: "parts": list of 1: map of 6
    a2 6f70 a6 726573756d65 a8 70726f746f636f6c 01  # "op": "resume", "protocol": 1
    a7 73657373696f6e cf 0000010000000001  # "session": 0x10000000001 (big-endian, as msgpack has it)
    a6 736563726574 c420 faea1d384319c7bcfbbb63d4adb60547  # "secret": bin of 32
    867ce38a7104dc1723e60eb8b0e06f3d
    a6 636c69656e74 a1 77 a4 72756e73 01  # "client": "w", "runs": 1
    c4 18  # columns: 24
    0300000000010000 01000000  # token 0x10000000003, origin 1
    0000000000000000 02000000  # first 0, count 2
    c4 00 c4 00  # no lengths, no blob
""")
ATTACH = octets("""
    00000060 94 c4 57  # payload: 96 bytes; header: 87
    81 a5 7061727473 91 84  # map of 1: "parts": list of 1: map of 4
    a2 6f70 a6 617474616368 a8 70726f746f636f6c 01  # "op": "attach", "protocol": 1
    a7 73657373696f6e cf 0000010000000001  # "session": 0x10000000001
    a6 736563726574 c420 faea1d384319c7bcfbbb63d4adb60547  # "secret": bin of 32
    867ce38a7104dc1723e60eb8b0e06f3d
    c4 00 c4 00 c4 00  # no columns, no lengths, no blob
""")
PUBLISH = octets("""
    00000050 94 c4 3d  # payload: 80 bytes; header: 61
    83 a5 7061727473 91 83  # map of 3: "parts": list of 1: map of 3
    a2 6f70 a7 7075626c697368 a5 7175657565 a1 71  # "op": "publish", "queue": "q"
    a5 636f756e74 01  # "count": 1
    a8 73657175656e6365 01 ae 616e7377657265645f62656c6f77 01  # "sequence": 1, "answered_below": 1
    c4 00  # no columns
    c4 08  # lengths: 8
    00000000 02000000  # no headers, a body of 2 bytes
    c4 02  # blob: 2
    6869  # hi
""")
PUBLISH_TERMS = octets("""
    0000006c 94 c4 59  # payload: 108 bytes; header: 89
    83 a5 7061727473 91 85  # map of 3: "parts": list of 1: map of 5
    a2 6f70 a7 7075626c697368 a5 7175657565 a1 71  # "op": "publish", "queue": "q"
    a5 636f756e74 01  # "count": 1
    ac 6d61785f617474656d707473 03 a8 6c656173655f6d73 ce 0001d4c0  # "max_attempts": 3, "lease_ms": 120,000
    a8 73657175656e6365 01 ae 616e7377657265645f62656c6f77 01  # "sequence": 1, "answered_below": 1
    c4 00 c4 08 00000000 02000000 c4 02 6869  # no columns, lengths: 8: no headers, a body of 2; blob: hi
""")
PUBLISH_SHARED = octets("""
    00000079 94 c4 59  # payload: 121 bytes; header: 89
    83 a5 7061727473 91 86  # map of 3: "parts": list of 1: map of 6
    a2 6f70 a7 7075626c697368 a5 7175657565 a1 71  # "op": "publish", "queue": "q"
    a5 636f756e74 02  # "count": 2
    a8 64656c61795f6d73 cd 1388 a3 6b6579 a1 6b  # "delay_ms": 5,000, "key": "k"
    a8 656e636f64696e67 01  # "encoding": 1 (for all of them)
    a8 73657175656e6365 02 ae 616e7377657265645f62656c6f77 02  # "sequence": 2, "answered_below": 2
    c4 00  # no columns
    c4 10  # lengths: 16
    00000000 01000000 04000000 02000000  # headers of 0 and 4, bodies of 1 and 2
    c4 07  # blob: 7
    07  # 7
    81a16101 ccff  # headers {"a": 1}, 255
""")
PUBLISH_COLUMNS = octets("""
    000000aa 94 c4 5c  # payload: 170 bytes; header: 92
    83 a5 7061727473 91 84  # map of 3: "parts": list of 1: map of 4
    a2 6f70 a7 7075626c697368 a5 7175657565 a1 71  # "op": "publish", "queue": "q"
    a5 636f756e74 03  # "count": 3
    a7 636f6c756d6e73 93 a8 64656c61795f6d73 a3 6b6579  # "columns": list of 3: "delay_ms", "key",
    a8 656e636f64696e67  # "encoding"
    a8 73657175656e6365 02 ae 616e7377657265645f62656c6f77 01  # "sequence": 2, "answered_below": 1
    c4 2a  # columns: 42
    0000000000000000 0700000000000000  # delays 0 and 7
    0000000000002000  # and 2^53
    01000000 00000000 02000000 61 c3a9  # keys: 3 lengths, then "a", none, "é"
    000100  # encodings
    c4 18  # lengths: 24
    00000000 01000000 00000000 01000000  # bodies of 1 byte
    00000000 01000000
    c4 03  # blob: 3
    780779  # x, 7, y
""")
PUBLISH_UNIQUE = octets("""
    000000b3 94 c4 83  # payload: 179 bytes; header: 131
    83 a5 7061727473 91 86  # map of 3: "parts": list of 1: map of 6
    a2 6f70 a7 7075626c697368 a5 7175657565 a1 71  # "op": "publish", "queue": "q"
    a5 636f756e74 02  # "count": 2
    ab 756e697175655f6d6f6465 a7 7265706c616365  # "unique_mode": "replace"
    b0 6465647570655f77696e646f775f6d73 cd ea60  # "dedupe_window_ms": 60,000
    a7 636f6c756d6e73 92 aa 756e697175655f6b6579  # "columns": list of 2: "unique_key",
    a9 6465647570655f6964  # "dedupe_id"
    a8 73657175656e6365 01 ae 616e7377657265645f62656c6f77 01  # "sequence": 1, "answered_below": 1
    c4 13  # columns: 19
    01000000 00000000 6b  # unique keys: 2 lengths, then "k", none
    02000000 00000000 6964  # dedupe ids: "id", none
    c4 10  # lengths: 16
    00000000 02000000 00000000 02000000  # bodies of 2 bytes
    c4 04  # blob: 4
    6869796f  # hi, yo
""")
BEGIN = octets("""
    00000041 94 c4 20  # payload: 65 bytes; header: 32
    81 a5 7061727473 91 83  # map of 1: "parts": list of 1: map of 3 (neither sequence nor request)
    a2 6f70 a5 626567696e a5 7175657565 a1 71 a4 72756e73 01  # "op": "begin", "queue": "q", "runs": 1
    c4 18  # columns: 24
    0300000000010000 01000000  # token, origin
    0100000000000000 03000000  # first 1, count 3
    c4 00 c4 00  # no lengths, no blob
""")
ACK = octets("""
    00000071 94 c4 38  # payload: 113 bytes; header: 56
    83 a5 7061727473 91 83  # map of 3: "parts": list of 1: map of 3
    a2 6f70 a3 61636b a5 7175657565 a1 71 a4 72756e73 02  # "op": "ack", "queue": "q", "runs": 2
    a8 73657175656e6365 02 ae 616e7377657265645f62656c6f77 02  # "sequence": 2, "answered_below": 2
    c4 30  # columns: 48
    0300000000010000 01000000  # token, origin
    0000000000000000 02000000  # first 0, count 2
    0300000000010000 01000000  # token, origin
    0300000000000000 01000000  # first 3, count 1
    c4 00 c4 00  # no lengths, no blob
""")
NACK = octets("""
    000000a1 94 c4 49  # payload: 161 bytes; header: 73
    83 a5 7061727473 91 84  # map of 3: "parts": list of 1: map of 4
    a2 6f70 a4 6e61636b a5 7175657565 a1 71 a4 72756e73 02  # "op": "nack", "queue": "q", "runs": 2
    a8 64656c61795f6d73 ce 000186a0  # "delay_ms": 100,000
    a8 73657175656e6365 cd 0200  # "sequence": 512
    ae 616e7377657265645f62656c6f77 02  # "answered_below": 2
    c4 4f  # columns: 79
    0300000000010000 01000000  # token, origin
    0000000000000000 01000000  # first 0, count 1
    0300000000010000 01000000  # token, origin
    0200000000000000 02000000  # first 2, count 2
    0a000000 00000000 56616c75654572726f72  # classes: "ValueError", none
    02000000 03000000 6e6f e282ac  # texts: "no", "€"
    c4 00 c4 00  # no lengths, no blob
""")
REJECT = octets("""
    00000065 94 c4 3b  # payload: 101 bytes; header: 59
    83 a5 7061727473 91 83  # map of 3: "parts": list of 1: map of 3
    a2 6f70 a6 72656a656374 a5 7175657565 a1 71  # "op": "reject", "queue": "q"
    a4 72756e73 01  # "runs": 1
    a8 73657175656e6365 02 ae 616e7377657265645f62656c6f77 00  # "sequence": 2, "answered_below": 0
    c4 21  # columns: 33
    0300000000010000 01000000  # token, origin
    0300000000000000 01000000  # first 3, count 1
    01000000 45 00000000  # class "E", an empty text
    c4 00 c4 00  # no lengths, no blob
""")
RELEASE = octets("""
    00000050 94 c4 2f  # payload: 80 bytes; header: 47
    82 a5 7061727473 91 83  # map of 2: "parts": list of 1: map of 3
    a2 6f70 a7 72656c65617365 a5 7175657565 a1 71  # "op": "release", "queue": "q"
    a4 72756e73 01  # "runs": 1
    a7 72657175657374 ce ffffffff  # "request": 4,294,967,295 (2^32 - 1)
    c4 18  # columns: 24
    0300000000010000 01000000  # token, origin
    0000000000000000 04000000  # first 0, count 4
    c4 00 c4 00  # no lengths, no blob
""")
EXTEND = octets("""
    00000057 94 c4 36  # payload: 87 bytes; header: 54
    82 a5 7061727473 91 84  # map of 2: "parts": list of 1: map of 4
    a2 6f70 a6 657874656e64 a5 7175657565 a1 71  # "op": "extend", "queue": "q"
    a4 72756e73 01  # "runs": 1
    a8 6c656173655f6d73 cd ea60 a7 72657175657374 00  # "lease_ms": 60,000, "request": 0
    c4 18  # columns: 24
    0300000000010000 01000000  # token, origin
    0200000000000000 01000000  # first 2, count 1
    c4 00 c4 00  # no lengths, no blob
""")
MIXED = octets("""
    000000c2 94 c4 67  # payload: 194 bytes; header: 103
    83 a5 7061727473 93  # map of 3: "parts": list of 3
    83 a2 6f70 a5 626567696e a5 7175657565 a1 71  # map of 3: "op": "begin", "queue": "q"
    a4 72756e73 01  # "runs": 1
    83 a2 6f70 a4 6e61636b a5 7175657565 a1 71  # map of 3: "op": "nack", "queue": "q"
    a4 72756e73 01  # "runs": 1 (no delay: as the retry policy says)
    83 a2 6f70 a3 61636b a5 7175657565 a1 71  # map of 3: "op": "ack", "queue": "q"
    a4 72756e73 01  # "runs": 1
    a8 73657175656e6365 02 ae 616e7377657265645f62656c6f77 01  # "sequence": 2, "answered_below": 1
    c4 52  # columns: 82
    0300000000010000 01000000  # begin
    0000000000000000 01000000  # first 0, count 1
    0300000000010000 01000000  # nack
    0100000000000000 01000000  # first 1, count 1
    01000000 45 01000000 74  # its error
    0300000000010000 01000000  # ack
    0200000000000000 02000000  # first 2, count 2
    c4 00 c4 00  # no lengths, no blob
""")
CONSUME = octets("""
    00000056 94 c4 4d  # payload: 86 bytes; header: 77
    82 a5 7061727473 91 85  # map of 2: "parts": list of 1: map of 5
    a2 6f70 a7 636f6e73756d65 a5 7175657565 a1 71  # "op": "consume", "queue": "q"
    a8 636f6e73756d6572 ce ffffffff  # "consumer": 4,294,967,295
    a8 7072656665746368 cd 2710  # "prefetch": 10,000
    a8 6c656173655f6d73 ce 02932e00 a7 72657175657374 07  # "lease_ms": 43,200,000, "request": 7
    c4 00 c4 00 c4 00  # no columns, no lengths, no blob
""")
CANCEL = octets("""
    0000002f 94 c4 26  # payload: 47 bytes; header: 38
    82 a5 7061727473 91 82  # map of 2: "parts": list of 1: map of 2
    a2 6f70 a6 63616e63656c a8 636f6e73756d6572 01  # "op": "cancel", "consumer": 1
    a7 72657175657374 07  # "request": 7
    c4 00 c4 00 c4 00  # no columns, no lengths, no blob
""")
RECEIVE = octets("""
    0000004e 94 c4 45  # payload: 78 bytes; header: 69
    82 a5 7061727473 91 85  # map of 2: "parts": list of 1: map of 5
    a2 6f70 a7 72656365697665 a5 7175657565 a1 71  # "op": "receive", "queue": "q"
    a5 636f756e74 cd 03e8  # "count": 1,000
    a7 776169745f6d73 ce 0036ee80 a8 6c656173655f6d73 0a  # "wait_ms": 3,600,000, "lease_ms": 10
    a7 72657175657374 07  # "request": 7
    c4 00 c4 00 c4 00  # no columns, no lengths, no blob
""")
PEEK = octets("""
    00000038 94 c4 2f  # payload: 56 bytes; header: 47
    82 a5 7061727473 91 84  # map of 2: "parts": list of 1: map of 4
    a2 6f70 a4 7065656b a5 7175657565 a1 71 a5 636f756e74 02  # "op": "peek", "queue": "q", "count": 2
    a4 736b6970 01 a7 72657175657374 07  # "skip": 1, "request": 7
    c4 00 c4 00 c4 00  # no columns, no lengths, no blob
""")
REDRIVE = octets("""
    00000057 94 c4 36  # payload: 87 bytes; header: 54
    82 a5 7061727473 91 84  # map of 2: "parts": list of 1: map of 4
    a2 6f70 a7 72656472697665 a5 7175657565 a5 712e646c71  # "op": "redrive", "queue": "q.dlq"
    a4 72756e73 01 a5 636f756e74 01 a7 72657175657374 07  # "runs": 1, "count": 1, "request": 7
    c4 18  # columns: 24
    0000000000000000 01000000  # token 0, origin 1
    0400000000000000 01000000  # first 4, count 1
    c4 00 c4 00  # no lengths, no blob
""")
QUEUE_SET = octets("""
    0000005a 94 c4 51  # payload: 90 bytes; header: 81
    82 a5 7061727473 91 83  # map of 2: "parts": list of 1: map of 3
    a2 6f70 a9 71756575655f736574 a5 7175657565 a5 6f74686572  # "op": "queue_set", "queue": "other"
    a8 73657474696e6773 82 a8 6c656173655f6d73 cd 4e20  # "settings": map of 2: "lease_ms": 20,000
    aa 6475726162696c697479 a4 6c617a79  # "durability": "lazy"
    a7 72657175657374 07  # "request": 7
    c4 00 c4 00 c4 00  # no columns, no lengths, no blob
""")
QUEUE_DECLARE = octets("""
    00000048 94 c4 3f  # payload: 72 bytes; header: 63
    82 a5 7061727473 91 83  # map of 2: "parts": list of 1: map of 3
    a2 6f70 ad 71756575655f6465636c617265  # "op": "queue_declare"
    a5 7175657565 a1 71  # "queue": "q"
    a8 73657474696e6773 81 a8 6c656173655f6d73 0a  # "settings": map of 1: "lease_ms": 10
    a7 72657175657374 07  # "request": 7
    c4 00 c4 00 c4 00  # no columns, no lengths, no blob
""")
STATS = octets("""
    00000024 94 c4 1b  # payload: 36 bytes; header: 27
    82 a5 7061727473 91 81  # map of 2: "parts": list of 1: map of 1 (the server and all queues)
    a2 6f70 a5 7374617473 a7 72657175657374 07  # "op": "stats", "request": 7
    c4 00 c4 00 c4 00  # no columns, no lengths, no blob
""")
PING = octets("""
    00000024 94 c4 1b  # payload: 36 bytes; header: 27
    82 a5 7061727473 91 81  # map of 2: "parts": list of 1: map of 1
    a2 6f70 a4 70696e67 a7 72657175657374 cc c8  # "op": "ping", "request": 200
    c4 00 c4 00 c4 00  # no columns, no lengths, no blob
""")
BARE_PING = octets("""
    0000001a 94 c4 11  # payload: 26 bytes; header: 17
    81 a5 7061727473 91 81  # map of 1: "parts": list of 1: map of 1
    a2 6f70 a4 70696e67  # "op": "ping"
    c4 00 c4 00 c4 00  # no columns, no lengths, no blob
""")
GOODBYE = octets("""
    0000001d 94 c4 14  # payload: 29 bytes; header: 20
    81 a5 7061727473 91 81  # map of 1: "parts": list of 1: map of 1
    a2 6f70 a7 676f6f64627965  # "op": "goodbye"
    c4 00 c4 00 c4 00  # no columns, no lengths, no blob
""")

# Three that the server answers them with; the others stand in test_server_vectors.py.
CONFIRM = octets("""
    00000048 94 c4 3f  # payload: 72 bytes; header: 63
    83 a2 6f70 a7 636f6e6669726d  # map of 3: "op": "confirm"
    a7 726573756c7473 91 83  # "results": list of 1: map of 3
    a6 6f726967696e 01 a5 6669727374 00  # "origin": 1, "first": 0
    aa 6475726162696c697479 a4 73796e63  # "durability": "sync"
    a8 73657175656e6365 01  # "sequence": 1
    c4 00 c4 00 c4 00  # no columns, no lengths, no blob
""")
DELIVER = octets("""
    000000b3 94 c4 53  # payload: 179 bytes; header: 83
    88 a2 6f70 a7 64656c69766572 a5 7175657565 a1 71  # map of 8: "op": "deliver", "queue": "q"
    a5 746f6b656e cf 0000010000000003  # "token": 0x10000000003
    a8 6c656173655f6d73 ce 02932e00  # "lease_ms": 43,200,000
    a5 636f756e74 02 a4 72756e73 02 a5 6b65796564 c3  # "count": 2, "runs": 2, "keyed": true
    a8 636f6e73756d6572 ce ffffffff  # "consumer": 4,294,967,295
    c4 45  # columns: 69
    01000000 0000000000000000 01000000  # origin 1, first 0, count 1
    01000000 00 00 0068e5cf8b010000  # attempt 1, not marked, bytes, 1,700,000,000,000
    01000000 0100000000000000 01000000  # origin 1, first 1, count 1
    01000000 00 01 0068e5cf8b010000  # attempt 1, not marked, msgpack, the same instant
    01000000 00000000 61  # keys: "a", none
    c4 10  # lengths: 16
    00000000 01000000 00000000 01000000  # bodies of 1 byte
    c4 02  # blob: 2
    7807  # x, 7
""")
PONG = octets("""
    0000001c 94 c4 13  # payload: 28 bytes; header: 19
    82 a2 6f70 a4 706f6e67 a7 72657175657374 cc c8  # map of 2: "op": "pong", "request": 200
    c4 00 c4 00 c4 00  # no columns, no lengths, no blob
""")
