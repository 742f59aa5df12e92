"""Place an order."""

from shop import mail, pack

mail.delay("bob@example.com", "thank you")
mail.apply_async(("bob@example.com", "how is the teapot?"), countdown=10)
mail.apply_async(("bob@example.com", "your code of this minute"), expires=60, priority=9)
pack.delay("teapot")
pack.delay("unicorn")
