# sending.py
import os
import time
from datetime import timedelta

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
django.setup()

from django.utils import timezone  # noqa: E402
from shop.tasks import charge, mail, total  # noqa: E402

mail.using(run_after=timezone.now() + timedelta(seconds=0.3)).enqueue("Ann")
charged = charge.enqueue(17)
sum_ = total.enqueue([3, 4])
while not (sum_.is_finished and charged.is_finished):
    time.sleep(0.05)
    sum_.refresh()
    charged.refresh()
print("together", sum_.return_value)
print(charged.status, charged.errors[0].exception_class.__name__)
