# shop.py
import dramatiq
from dramatiq.results import Results

from minibroker.contrib.dramatiq import MinibrokerBackend, MinibrokerBroker

dramatiq.set_broker(MinibrokerBroker())  # the one line: it was RedisBroker() or RabbitmqBroker()
dramatiq.get_broker().add_middleware(Results(backend=MinibrokerBackend()))


@dramatiq.actor(store_results=True)
def total(prices):
    return sum(prices)


@dramatiq.actor
def mail(who):
    print("mail to", who, flush=True)


@dramatiq.actor(max_retries=1, min_backoff=100, max_backoff=200)
def charge(card):
    raise ValueError(f"card {card} is refused")
