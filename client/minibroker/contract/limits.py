"""Every number that both sides must agree on: sizes in bytes, times in milliseconds.

A limit stands here once; the server enforces it, the client stays below it, protocol.md prints it.
"""

from typing import Final

from minibroker.contract.versions import PROTOCOL_VERSIONS

PROTOCOL_VERSION: Final = PROTOCOL_VERSIONS[-1].number  # what a client says
DEFAULT_PORT: Final = 7272

MAX_HEADER_BYTES: Final = 16 * 1024
MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
MAX_LOGIN_FRAME_BYTES: Final = 4 * 1024
# Headers and body of one message, unless the server says more.
MAX_MESSAGE_BYTES: Final = 1024 * 1024
MAX_MESSAGES_PER_FRAME: Final = 1_000
MAX_PARTS_PER_FRAME: Final = 64
MAX_RUNS_PER_FRAME: Final = 10_000

# Frames of a session that carry a sequence and have no answer yet: this is the flow control.
MAX_UNANSWERED_FRAMES: Final = 1_024
MAX_UNANSWERED_BYTES: Final = 16 * 1024 * 1024
MAX_UNFINISHED_BYTES: Final = 64 * 1024 * 1024  # of frames still arriving, all connections together
FRAME_OUTCOME_MS: Final = 600_000  # how long a silent session's frame outcomes are kept

MAX_PREFETCH: Final = 10_000
MAX_WAIT_MS: Final = 3_600_000
MIN_LEASE_MS: Final = 10
MAX_LEASE_MS: Final = 43_200_000  # 12 h, as SQS
MAX_DELAY_MS: Final = 2**53  # "delays of any length": the largest integer every language can hold

MAX_CONSUMERS_PER_CONNECTION: Final = 10_000
MAX_RECEIVES_PER_CONNECTION: Final = 10_000  # that wait for their answer
MAX_SESSIONS: Final = 100_000  # that the server remembers, connected or not
MAX_QUEUES: Final = 250_000  # unless the server was told another number

MAX_QUEUE_NAME_CHARS: Final = 124  # a DLQ adds the suffix
GROUP_MARK: Final = "@"  # between the name of a retained log and that of a group
DLQ_SUFFIX: Final = ".dlq"
MAX_STATS_QUEUES: Final = 1_000  # in one answer to stats
MAX_PEEK_SKIP: Final = 10_000  # further on, a listing goes by its cursor
MAX_CURSOR_BYTES: Final = 64
MAX_STATE_CHARS: Final = 8  # of the name of a message's state
MAX_EXCHANGES: Final = 10_000
MAX_BINDINGS: Final = 100_000  # of all exchanges
MAX_SCANNED_BINDINGS: Final = 1_000  # of an exchange of type headers or hash, which looks at each
MAX_TOPIC_WORDS: Final = 500_000  # of the patterns of all; what several begin with counts once
MAX_PATTERN_BYTES: Final = 255  # of a binding; of a routing key, too, as in AMQP
MAX_MATCHED_HEADERS: Final = 32  # of a message, for exchanges that look at them
MAX_TARGETS: Final = 1_000  # queues that one message is routed to
MAX_ROUTED: Final = 10_000  # entries that one part makes in all queues
MAX_UNUSED: Final = 10_000  # temporary queues that ended, of which a server knows that they did
MAX_LISTED: Final = 1_000  # exchanges, or bindings, in one answer
MAX_SCHEMA_BYTES: Final = 12 * 1024  # of a queue, as JSON text
MAX_SCHEMAS: Final = 1_000  # queues that have one
MAX_POLICIES: Final = 200  # and limits of operators; each is looked at for each new queue
MAX_POLICY_PRIORITY: Final = 1_000_000
MAX_LOG_READ_BYTES: Final = 4 * 1024 * 1024  # of one answer to a reader, about; whole frames
MAX_GROUPS_OF_LOG: Final = 1_000
MAX_SEEKS: Final = 2**18  # of a group; then it is made anew
LEAST_COMPACTION_MS: Final = 1_000  # between two of a retained log
MAX_OFFSET: Final = 2**46 - 1
MAX_SCHEDULES: Final = 10_000
MAX_SCHEDULES_SHOWN: Final = 1_000  # in one answer
MAX_SCHEDULE_BYTES: Final = 16 * 1024  # headers and body of the job of one schedule
MAX_CRON_CHARS: Final = 256  # of an expression; a list of all minutes has 169
MAX_ZONE_BYTES: Final = 64
MAX_PAUSES: Final = 10_000
MAX_VERSION_BYTES: Final = 64  # of an application, as numbers with dots
MAX_RESULT_BYTES: Final = 64 * 1024  # what one message came to
MAX_RESULT_MS: Final = 604_800_000  # for which it is kept
MAX_AFTER: Final = 1_000  # messages that one message waits for
MAX_AFTER_BYTES: Final = 8 * 1024  # of the runs that name them
MAX_AFTER_PER_FRAME: Final = 10_000  # that those of one frame wait for, counted for each of them
# Messages that others of a server wait for, counted once for each of those.
MAX_AWAITED: Final = 100_000
MAX_RESULTS: Final = 100_000  # that are kept; beyond these two bounds the oldest are forgotten
MAX_RESULTS_BYTES: Final = 128 * 1024 * 1024
MAX_NOTE_BYTES: Final = 200  # of a progress
MAX_KEY_WEIGHT: Final = 1_000
MAX_KEY_BYTES: Final = 255  # of a unique key and of a dedupe id, too
MAX_PRIORITY: Final = 9  # goes first; 0 is that of messages without one
MAX_MODE_CHARS: Final = 16  # of a word that says how
MAX_CLIENT_NAME_BYTES: Final = 200
MAX_ERROR_CLASS_BYTES: Final = 200
MAX_ERROR_TEXT_BYTES: Final = 1_024
MAX_CAUSE_CHARS: Final = 16  # of the name of what ended an attempt
MAX_GROUP_CHARS: Final = 16  # of the name of an error group
MAX_GROUPS: Final = 500  # error groups in one answer
MAX_GROUPED: Final = 10_000  # dead messages that one answer has grouped
MAX_REDRIVE_IDS: Final = 500  # of a redrive that goes on by itself
MAX_REDRIVE_RATE: Final = 1_000_000  # messages a second
MAX_CANARY: Final = 100  # messages that go first
MAX_HISTORY_TEXT_BYTES: Final = 8 * 1024  # all error texts of one message
HISTORY_FIRST: Final = 5  # attempts kept from the start and from the end of a history
HISTORY_LAST: Final = 5

LOGIN_DEADLINE_MS: Final = 5_000
# Before the login: of so many peers a turn of the server's loop hears something, or sees their end. A step of a
# handshake is as much as all of them; the others wait for the next turns.
STRANGERS_PER_TURN: Final = 8
FRAME_DEADLINE_MS: Final = 30_000
HEARTBEAT_MS: Final = 15_000  # each way; a session is dead after two without a sign of life
# From a start until what had been begun is handed out although its client is not back: that tries again every
# RECONNECT_PAUSE_MS, and then has what every login has.
RESUME_WAIT_MS: Final = LOGIN_DEADLINE_MS
RECONNECT_PAUSE_MS: Final = 500  # the longest of a client between two tries
GIVEN_NAMES: Final = "gen-"  # how names of queues begin that the server gives
SESSION_KEPT_MS: Final = 60_000  # at the least, after its last connection ended
OUTPUT_SOFT_BYTES: Final = 1024 * 1024  # deliveries to this connection pause above it
OUTPUT_HARD_BYTES: Final = 8 * 1024 * 1024
OUTPUT_STALL_MS: Final = 10_000
DELIVERY_BYTES: Final = 1024 * 1024  # one delivery frame carries about this much, or one message
