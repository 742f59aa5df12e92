"""The signup service, twice: with the slow work in the request, and with the slow work in queues.

Run: python app.py, with SIGNUP_MODE=request or SIGNUP_MODE=queued (see settings.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import minibroker
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from database import Analytics, User, Users
from mail import MailRefused, send_welcome_mail
from photo import make_avatar
from queues import NewPhoto, NewUser
from settings import Settings


class Signup(BaseModel):
    """What the form sends; the photo is uploaded already, this is its path."""

    name: str
    email: str
    photo: str


class Welcome(BaseModel):
    """The answer."""

    user_id: int


def request_app(settings: Settings) -> FastAPI:
    """The service as it often starts: everything before the answer. The user waits 2.5 s."""
    app = FastAPI()
    users = Users(settings.folder, settings.save_seconds)
    analytics = Analytics(settings.folder, settings.analytics_seconds)

    @app.post("/signup", status_code=201)
    async def signup(form: Signup) -> Welcome:
        user = await _save(users, form)
        await asyncio.to_thread(make_avatar, Path(form.photo), settings.folder / "avatars", user.id)
        try:
            await send_welcome_mail(user, settings.smtp_port)
        except MailRefused as error:
            # The user is saved, the avatar is made, and still all she sees is an error page.
            raise HTTPException(502, f"no welcome mail: {error}") from error
        await asyncio.to_thread(analytics.count_signup, user.id)
        return Welcome(user_id=user.id)

    return app


def queued_app(settings: Settings) -> FastAPI:
    """The same service with a broker: save, hand over, answer."""
    users = Users(settings.folder, settings.save_seconds)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with minibroker.connect(settings.broker_url, name="signup-app") as broker:
            app.state.broker = broker
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/signup", status_code=201)
    async def signup(form: Signup) -> Welcome:
        user = await _save(users, form)
        broker: minibroker.Broker = app.state.broker
        # Returns when all three are safe on the broker's disk. If the broker dies meanwhile, the
        # client reconnects and sends them again, and the broker knows what it has already.
        await asyncio.gather(
            broker.queue("avatars").publish(NewPhoto(user.id, form.photo)),
            broker.queue("mails").publish(NewUser(user.id)),
            broker.queue("analytics").publish(NewUser(user.id)),
        )
        return Welcome(user_id=user.id)

    return app


async def _save(users: Users, form: Signup) -> User:
    return await asyncio.to_thread(users.save, form.name, form.email)


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = Settings.from_environment()
    app = {"request": request_app, "queued": queued_app}[settings.mode](settings)
    uvicorn.run(app, host="127.0.0.1", port=settings.app_port, log_level="warning")


if __name__ == "__main__":
    main()
