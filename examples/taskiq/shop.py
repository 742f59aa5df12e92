# shop.py
from taskiq import SmartRetryMiddleware

from minibroker.contrib.taskiq import MinibrokerBroker, MinibrokerResultBackend

broker = (
    MinibrokerBroker()  # the one line: it was ListQueueBroker(...) or AioPikaBroker(...)
    .with_result_backend(MinibrokerResultBackend())
    .with_middlewares(SmartRetryMiddleware(default_retry_count=2, default_delay=0.1))
)


@broker.task
async def total(prices: list[int]) -> int:
    return sum(prices)


@broker.task
async def mail(who: str) -> None:
    print("mail to", who, flush=True)


@broker.task(retry_on_error=True)
async def charge(card: int) -> None:
    raise ValueError(f"card {card} is refused")
