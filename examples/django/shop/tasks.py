# shop/tasks.py
try:
    from django.tasks import task
except ImportError:  # before Django 6.0
    from django_tasks import task


@task
def total(prices):
    return sum(prices)


@task(priority=-10)
async def mail(who):
    print("mail to", who, flush=True)


@task
def charge(card):
    raise ValueError(f"card {card} is refused")
