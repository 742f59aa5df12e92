"""The panels of the dashboard for Grafana: what each shows, in PromQL; dashboard.py makes a dashboard of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

# What every expression is narrowed to by the variables at the top of the dashboard.
BROKER: Final = 'job="$job",instance="$instance"'
QUEUE: Final = f'{BROKER},queue=~"$queue"'
WORK: Final = f'{QUEUE},queue!~".*[.]dlq"'
DEAD: Final = f'{BROKER},queue=~".*[.]dlq"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `series` are expressions of PromQL by their legends; `red` is where a value turns red."""

    title: str
    meaning: str
    series: Mapping[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    stacked: bool = False
    red: float | None = None


def _rate(name: str, labels: str = QUEUE) -> str:
    return f"rate({name}{{{labels}}}[$__rate_interval])"


def _top(expression: str) -> str:
    """Return the ten largest: a chart with 10,000 lines is none."""
    return f"topk(10, {expression})"


def _quantiles(name: str) -> dict[str, str]:
    buckets = f"sum by (le) ({_rate(f'{name}_bucket', BROKER)})"
    return {
        f"{label} below": f"histogram_quantile({share}, {buckets})"
        for label, share in (("50 %", 0.5), ("90 %", 0.9), ("99 %", 0.99))
    }


def _slowest(name: str) -> dict[str, str]:
    buckets = f"sum by (queue, le) ({_rate(f'{name}_bucket', WORK)})"
    return {"{{queue}}": _top(f"histogram_quantile(0.95, {buckets})")}


def _stat(
    title: str, meaning: str, expression: str, unit: str = "short", red: float | None = None
) -> Panel:
    return Panel(title, meaning, {title: expression}, unit, "stat", 4, 4, red=red)


PANELS: Final[Mapping[str, Sequence[Panel]]] = {
    "Now": (
        _stat(
            "Ready",
            "Messages that wait for a consumer.",
            f'sum(minibroker_queue_messages{{{WORK},state="ready"}})',
        ),
        _stat(
            "Begun",
            "Messages that are worked on.",
            f'sum(minibroker_queue_messages{{{WORK},state="begun"}})',
        ),
        _stat(
            "Oldest ready",
            "For how long the message that waits longest has been ready.",
            f"max(minibroker_queue_oldest_ready_age_seconds{{{WORK}}})",
            "s",
            600,
        ),
        _stat(
            "Dead",
            "Messages in dead-letter queues.",
            f"sum(minibroker_queue_messages{{{DEAD}}}) or vector(0)",
            red=1,
        ),
        _stat(
            "Consumers",
            "Consumers, and receives that wait.",
            f"sum(minibroker_queue_consumers{{{WORK}}})",
        ),
        _stat(
            "Up for",
            "Since the start of the broker.",
            f"time() - minibroker_start_time_seconds{{{BROKER}}}",
            "s",
        ),
    ),
    "Queues": (
        Panel(
            "Messages a second",
            "What comes in, what is done, what fails.",
            {
                "published": f"sum({_rate('minibroker_queue_published_total', WORK)})",
                "acked": f"sum({_rate('minibroker_queue_acked_total', WORK)})",
                "failed": f"sum({_rate('minibroker_queue_failed_total', WORK)})",
                "dead-lettered": f"sum({_rate('minibroker_queue_dead_lettered_total', WORK)})",
            },
        ),
        Panel(
            "Messages by state",
            "Ready and begun are the work; held is delivered ahead, delayed waits for its time.",
            {"{{state}}": f"sum by (state) (minibroker_queue_messages{{{WORK}}})"},
            stacked=True,
        ),
        Panel(
            "Attempts that went wrong, a second",
            "Handlers that failed, leases that ended, workers that died.",
            {
                name.replace("_", " "): f"sum({_rate(f'minibroker_queue_{name}_total', WORK)})"
                for name in (
                    "failed",
                    "rejected",
                    "expired",
                    "worker_lost",
                    "lost_settlements",
                )
            },
        ),
        Panel(
            "Ready, the ten longest queues",
            "Where work piles up.",
            {"{{queue}}": _top(f'minibroker_queue_messages{{{WORK},state="ready"}}')},
        ),
        Panel(
            "Oldest ready, the ten worst queues",
            "A queue may be short and late, or long and quick: this is what users feel.",
            {"{{queue}}": _top(f"minibroker_queue_oldest_ready_age_seconds{{{WORK}}}")},
            "s",
        ),
        Panel(
            "Dead, the ten longest queues",
            "The page of the broker says what they died of.",
            {"{{queue}}": _top(f'minibroker_queue_messages{{{DEAD},state="ready"}}')},
        ),
        Panel(
            "Published a second, the ten busiest queues",
            "Who sends.",
            {"{{queue}}": _top(_rate("minibroker_queue_published_total", WORK))},
        ),
        Panel(
            "Acked a second, the ten busiest queues",
            "Who works.",
            {"{{queue}}": _top(_rate("minibroker_queue_acked_total", WORK))},
        ),
        Panel(
            "Waiting without a consumer",
            "Ready messages of queues that nobody consumes.",
            {
                "{{queue}}": _top(
                    f'minibroker_queue_messages{{{WORK},state="ready"}} > 0 '
                    f"and on (job, instance, queue) minibroker_queue_consumers{{{WORK}}} == 0"
                )
            },
        ),
    ),
    "Time": (
        Panel(
            "From publish to begin",
            "Delays and retries included.",
            _quantiles("minibroker_wait_seconds"),
            "s",
        ),
        Panel(
            "From begin to ack",
            "How long handlers take.",
            _quantiles("minibroker_run_seconds"),
            "s",
        ),
        Panel(
            "Sync of the log",
            "A publish with durability sync waits for one.",
            _quantiles("minibroker_log_sync_seconds"),
            "s",
            red=0.25,
        ),
    ),
    "Time by queue": (
        Panel(
            "From publish to begin, 95 % below, the ten slowest queues",
            "Of the first hundred queues that begin something, and of all others together.",
            _slowest("minibroker_queue_wait_seconds"),
            "s",
        ),
        Panel(
            "From begin to the end, 95 % below, the ten slowest queues",
            "How long attempts take, whatever they come to.",
            _slowest("minibroker_queue_run_seconds"),
            "s",
        ),
        Panel(
            "Handlers in use, the ten busiest queues",
            "How many handlers ran at once, in the mean.",
            {"{{queue}}": _top(_rate("minibroker_queue_run_seconds_sum", WORK))},
        ),
        Panel(
            "Handlers wanted",
            "So many at once would work off what waits within five minutes, and what comes meanwhile.",
            {"{{queue}}": _top(f"minibroker_queue_handlers_wanted{{{WORK}}}")},
        ),
        Panel(
            "Idle consumers",
            "The share of their time in which they had nothing: near 1 they are too many, near 0 too few.",
            {
                "{{queue}}": _top(
                    f"{_rate('minibroker_queue_consumer_idle_seconds_total', WORK)} "
                    f"/ {_rate('minibroker_queue_consumer_seconds_total', WORK)}"
                )
            },
            "percentunit",
        ),
        Panel(
            "Queues without times of their own",
            "Their times stand in `others`; `minibroker queue times` knows each.",
            {"in others": f"minibroker_queues_without_times{{{BROKER}}}"},
        ),
    ),
    "Circuits, pauses, schedules, results": (
        Panel(
            "Circuits that are not closed",
            "What a queue, or a key of it, calls fails; nothing is handed out but one message at a time.",
            {"{{queue}}": _top(f"minibroker_queue_circuits_open{{{QUEUE}}} > 0")},
            red=1,
        ),
        Panel(
            "Paused",
            "Queues by name, and how many pauses there are of queues and of workers.",
            {
                "{{queue}}": f"minibroker_queue_paused{{{QUEUE}}} > 0",
                "pauses of {{of}}": f"minibroker_pauses{{{BROKER}}}",
            },
        ),
        Panel(
            "Dead that wait for room",
            "Their dead-letter queue is full: redrive or purge some of it.",
            {"{{queue}}": _top(f"minibroker_queue_dead_waiting_messages{{{BROKER}}} > 0")},
            red=1,
        ),
        Panel(
            "Schedules by state",
            "Waiting: what is due cannot be published, as its queue takes nothing.",
            {"{{state}}": f"minibroker_schedules{{{BROKER}}}"},
        ),
        Panel(
            "Jobs of schedules",
            "What became of their times; misfires are times that passed without a job of their own.",
            {
                "{{outcome}}": f"increase(minibroker_schedule_jobs_total{{{BROKER}}}[$__rate_interval])",
                "misfires": f"increase(minibroker_schedule_misfires_total{{{BROKER}}}[$__rate_interval])",
            },
        ),
        Panel(
            "Late schedules, the ten latest",
            "For how long something is due that has no job yet.",
            {
                "{{schedule}}": _top(
                    f"time() - minibroker_schedule_next_due_time_seconds{{{BROKER}}} > 0"
                )
            },
            "s",
            red=60,
        ),
        Panel(
            "Results",
            "What messages came to and is kept, and those whose result somebody waits for.",
            {
                "kept": f"minibroker_results{{{BROKER}}}",
                "awaited": f"minibroker_results_awaited{{{BROKER}}}",
            },
        ),
        Panel(
            "Memory of results",
            "At 128 MiB the oldest are forgotten before their time.",
            {"results": f"minibroker_results_bytes{{{BROKER}}}"},
            "bytes",
        ),
        Panel(
            "Calls of webhooks",
            "And those that came to nothing.",
            {
                "calls": f"increase(minibroker_webhook_calls_total{{{BROKER}}}[$__rate_interval])",
                "failures": f"increase(minibroker_webhook_failures_total{{{BROKER}}}[$__rate_interval])",
            },
        ),
    ),
    "Log and disk": (
        Panel(
            "Bytes",
            "The log is kept at about twice what lives in it.",
            {
                "on the disk": f"minibroker_log_disk_bytes{{{BROKER}}}",
                "needed": f"minibroker_log_live_bytes{{{BROKER}}}",
            },
            "bytes",
        ),
        Panel(
            "Written a second",
            "Bytes of records, copies that free segments apart.",
            {"written": _rate("minibroker_log_written_bytes_total", BROKER)},
            "Bps",
        ),
        Panel(
            "Records of a batch",
            "Records that share a sync: the more, the busier.",
            {
                "mean": f"{_rate('minibroker_log_batch_records_sum', BROKER)} "
                f"/ {_rate('minibroker_log_batch_records_count', BROKER)}"
            },
        ),
        Panel(
            "Segments in reserve, and lack of space",
            "Three when all is well; publishes are refused before acks are.",
            {
                "in reserve": f"minibroker_log_reserve_segments{{{BROKER}}}",
                "lacks space": f"minibroker_log_lacks_space{{{BROKER}}}",
            },
        ),
        Panel(
            "Damaged messages",
            "The disk did not give back what was written: any is too many.",
            {
                "{{queue}}": f"increase(minibroker_queue_damaged_total{{{BROKER}}}[$__rate_interval]) > 0"
            },
            red=1,
        ),
        Panel(
            "Recovery",
            "How much of the log a start has read.",
            {"read": f"minibroker_recovery_ratio{{{BROKER}}}"},
            "percentunit",
        ),
    ),
    "Log on several machines": (
        Panel(
            "Who leads",
            "1 for each broker that takes work; the others stand by.",
            {"{{instance}}": 'minibroker_phase{job="$job",phase="ready"}'},
        ),
        Panel(
            "How far brokers are behind that stand by",
            "What a takeover has still to read is as old as that.",
            {"{{instance}}": 'minibroker_stream_lag_seconds{job="$job"}'},
            "s",
            red=10,
        ),
        Panel(
            "Appends wait",
            "For the servers of NATS: the crash of the one that leads the stream takes 4 to 9 s.",
            {"{{instance}}": 'minibroker_stream_stalled_seconds{job="$job"}'},
            "s",
            red=15,
        ),
        Panel(
            "Epoch",
            "One more with each broker that came to lead.",
            {"epoch": 'max(minibroker_stream_epoch{job="$job"})'},
        ),
        Panel(
            "Bytes of the stream",
            "Near its limit publishes are refused; a limit of 0 is none.",
            {
                "bytes": 'minibroker_stream_bytes{job="$job"}',
                "limit": 'minibroker_stream_limit_bytes{job="$job"}',
            },
            "bytes",
        ),
        Panel(
            "Servers of NATS that are behind, and who leads the stream",
            "The loss of another one stops appends while one is behind.",
            {
                "behind": 'minibroker_stream_servers_behind{job="$job"}',
                "{{server}} leads": 'minibroker_stream_leader{job="$job"}',
            },
        ),
    ),
    "Retained logs": (
        Panel(
            "How far groups are behind, the ten furthest",
            "Messages behind the position of a group. One that grows is not worked off; one that retention "
            "overtakes loses messages.",
            {"{{queue}}": _top(f"minibroker_group_lag_messages{{{QUEUE}}}")},
        ),
        Panel(
            "Published to logs, the ten busiest",
            "Offsets a second.",
            {"{{queue}}": _top(_rate("minibroker_retained_next_offset"))},
        ),
        Panel(
            "Size of logs, the ten largest",
            "Bytes of their files, after compression, compaction and retention.",
            {"{{queue}}": _top(f"minibroker_retained_bytes{{{QUEUE}}}")},
            "bytes",
        ),
    ),
    "Clients": (
        Panel(
            "Handed to clients a second, the ten busiest",
            "By session; those beyond the oldest hundred are `others`.",
            {"{{client}} {{session}}": _top(_rate("minibroker_session_delivered_total", BROKER))},
        ),
        Panel(
            "Published a second, the ten busiest clients",
            "By session; those beyond the oldest hundred are `others`.",
            {"{{client}} {{session}}": _top(_rate("minibroker_session_published_total", BROKER))},
        ),
        Panel(
            "How full consumers are, the ten fullest",
            "Messages that a consumer has, of those that it may have.",
            {
                "{{client}} {{queue}}": _top(
                    f"minibroker_consumer_outstanding_messages{{{BROKER}}} "
                    f"/ minibroker_consumer_prefetch_messages{{{BROKER}}}"
                )
            },
            "percentunit",
        ),
    ),
    "Process": (
        Panel(
            "Memory",
            "Publishes may get `busy` at the limit.",
            {
                "resident": f"process_resident_memory_bytes{{{BROKER}}}",
                "of it messages": f"minibroker_memory_bytes{{{BROKER}}}",
                "limit": f"minibroker_memory_limit_bytes{{{BROKER}}}",
            },
            "bytes",
        ),
        Panel(
            "Processors in use",
            "The loop has one; the disk and reading back have threads.",
            {"used": _rate("process_cpu_seconds_total", BROKER)},
        ),
        Panel(
            "Lateness of the loop",
            "What everything in the broker waits for.",
            _quantiles("minibroker_loop_lag_seconds"),
            "s",
        ),
        Panel(
            "Connections and sessions",
            "A session outlives its connection for a while.",
            {
                "connections": f"minibroker_connections{{{BROKER}}}",
                "sessions": f"minibroker_sessions{{{BROKER}}}",
                "limit": f"minibroker_connections_limit{{{BROKER}}}",
            },
        ),
        Panel(
            "Open files",
            "Each connection takes one.",
            {
                "open": f"process_open_fds{{{BROKER}}}",
                "limit": f"process_max_fds{{{BROKER}}}",
            },
        ),
        Panel(
            "Queues",
            "Dead-letter queues too.",
            {"queues": f"minibroker_queues{{{BROKER}}}"},
        ),
    ),
}
