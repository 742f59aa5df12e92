"""How commands ask the HTTP port of a broker: its JSON API, with the token that the environment has for it."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final, NoReturn, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

import click

from minibroker.session.arguments import (
    ENCRYPTION_VARIABLES,
    TOKEN_FILE_VARIABLE,
    TOKEN_VARIABLE,
)
from minibrokerd.cli.http_options import DEFAULT, HTTP_TOKEN_FILE_VARIABLE, HTTP_TOKEN_VARIABLE
from minibrokerd.cli.options import Function, shared_option, timeout_s
from minibrokerd.cli.printing import fail
from minibrokerd.process import exits

# In this order; those of the HTTP port go before those of the port for clients, which are good here as well.
TOKENS: Final = (
    (HTTP_TOKEN_VARIABLE, HTTP_TOKEN_FILE_VARIABLE),
    (TOKEN_VARIABLE, TOKEN_FILE_VARIABLE),
)
TOKEN_ADVICE: Final = "; set " + " or ".join(variable for variable, _ in TOKENS)
NO_API: Final = (
    "which is not how a broker answers. "
    "Give the address of its HTTP port with --http or MINIBROKER_HTTP"
)
MOST_SAID_BYTES: Final = 10_000  # of a refusal
Result = TypeVar("Result")


class Away(Exception):
    """No HTTP port of a broker answers there; the text says where, why, and what to do, `cause` only why."""

    def __init__(self, text: str, cause: str) -> None:
        super().__init__(text)
        self.cause = cause


class Refused(Exception):
    """The port answered, with a refusal: its status, and the code out of the table of the API."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


class HttpAddress(click.ParamType):  # type: ignore[type-arg]  # it takes none in older releases
    """Where an HTTP port is: host:port, or a URL, as of a proxy with TLS in front of it."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it as a URL without a slash at its end; click.ParamType."""
        text = str(value)
        url = text if "://" in text else f"http://{text}"
        try:
            parts = urlsplit(url)
            is_one = parts.scheme in ("http", "https") and bool(parts.hostname)
            has_port = parts.port is not None or "://" in text
        except ValueError:
            is_one = has_port = False
        if not (is_one and has_port) or parts.query or parts.fragment or parts.username:
            self.fail(
                f"{text!r} is no address like {DEFAULT}, [::1]:7273 or https://minibroker.example",
                param,
                ctx,
            )
        return url.rstrip("/")


def http_option(function: Function) -> Function:
    """Add `--http` to a command that asks the HTTP port."""
    return shared_option(
        "--http",
        type=HttpAddress(),
        default=DEFAULT,
        help="Address of the broker's HTTP port, or the URL of a proxy in front of it.",
    )(function)


def token() -> str:
    """Return the token for the HTTP port; empty: there is none in this environment.

    Raises:
        click.UsageError: the file that should have it cannot be read, or has something else.
    """
    for variable, file_variable in TOKENS:
        if said := os.environ.get(variable):
            return _checked(said.strip(), variable)
        if path := os.environ.get(file_variable):
            try:
                said = Path(path).read_text("ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise click.UsageError(f"{file_variable}={path}: {error}") from error
            return _checked(said, f"{file_variable}={path}")
    return ""


def _checked(said: str, where: str) -> str:
    if not said.isprintable():  # http.client would refuse it with a text that shows it
        raise click.UsageError(f"{where}: it holds no token, or more than one line")
    return said


class _Stay(HTTPRedirectHandler):
    """Follows nobody: urllib would take the token along to whatever host it is sent to."""

    def redirect_request(self, *_: Any) -> None:
        """Make no other request; urllib."""


class HttpApi:
    """The API of one broker, at a URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {said}"} if (said := token()) else {}
        self._context = _context() if url.startswith("https:") else None

    def get(self, path: str, **query: Any) -> Any:
        """Return what the API answers, all of it within `--timeout`.

        Raises:
            Away: nobody answers, or not as a broker does.
            Refused: it has said no.
        """
        wait_s = timeout_s()
        try:
            return within(wait_s, partial(self._get, path, wait_s, query))
        except TimeoutError as error:
            raise self._away(error) from error

    def _get(self, path: str, wait_s: float, query: Mapping[str, Any]) -> Any:
        with self._open(path, {}, wait_s, query) as answer:
            try:
                return json.load(answer)
            except (OSError, ValueError, HTTPException) as error:
                raise self._away(error) from error

    def open(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        silence_s: float = 0.0,
        **query: Any,
    ) -> HTTPResponse:
        """Return an answer to be read as it comes, which may be silent for so long; raises as `get` does."""
        return self._open(path, headers or {}, max(timeout_s(), silence_s), query)

    def _open(
        self, path: str, headers: Mapping[str, str], wait_s: float, query: Mapping[str, Any]
    ) -> HTTPResponse:
        request = Request(
            f"{self.url}/api/v1/{path}?{urlencode(query)}", headers={**self._headers, **headers}
        )
        try:
            opener = build_opener(ProxyHandler({}), HTTPSHandler(context=self._context), _Stay)
            answer: HTTPResponse = opener.open(request, timeout=wait_s)
        except HTTPError as error:
            raise _refusal(error) from error
        except (URLError, OSError, ValueError, HTTPException) as error:
            raise self._away(error) from error
        return answer

    def _away(self, error: Exception) -> Away:
        why = error.reason if isinstance(error, URLError) else error
        if isinstance(why, ssl.SSLCertVerificationError):
            cause = f"its certificate is not trusted: {why.verify_message}"
            advice = f"give the CA that signed it with {ENCRYPTION_VARIABLES['ca']}."
            return Away(f"{self.url}: {cause}; {advice}", cause)
        cause = str(why)
        text = f"no HTTP port of a broker answers at {self.url}: {cause}. "
        return Away(text + "Give its address with --http or MINIBROKER_HTTP.", cause)


def within(limit_s: float, work: Callable[[], Result]) -> Result:
    """Return what `work` does, or raise what it raises, in a thread of its own: a socket bounds each read only.

    Raises:
        TimeoutError: it takes longer; what it still does, nobody waits for.
    """
    ended: SimpleQueue[Callable[[], Result]] = SimpleQueue()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised where somebody waits
            ended.put(partial(_throw, error))
        else:
            ended.put(lambda: result)

    Thread(target=run, name="minibroker-http-api", daemon=True).start()
    try:
        tell = ended.get(timeout=limit_s)
    except Empty:
        raise TimeoutError(f"no whole answer within {limit_s:g} s") from None
    return tell()


def _throw(error: BaseException) -> NoReturn:
    raise error


def _context() -> ssl.SSLContext:
    """Return how the broker's certificate is checked: by the CA that clients go by, or those of this system."""
    variable = ENCRYPTION_VARIABLES["ca"]
    ca = os.environ.get(variable) or None
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise click.UsageError(f"{variable}={ca}: {error}") from error


def _refusal(error: HTTPError) -> Refused:
    with error:
        try:
            said = json.loads(error.read(MOST_SAID_BYTES))
            code, text = str(said["code"]), str(said["text"])
            advice = TOKEN_ADVICE if code in {"token_needed", "wrong_token"} else ""
            return Refused(error.code, code, text + advice)
        except (OSError, ValueError, TypeError, KeyError):  # not the API of a broker
            return Refused(error.code, "", f"{error.code} {error.reason}, {NO_API}")


@contextmanager
def asking(url: str) -> Iterator[HttpApi]:
    """Yield the API at a URL; whatever it refuses ends the command with a message and a code of the table."""
    try:
        yield HttpApi(url)
    except Refused as error:
        fail(f"{url} refused: {error}", exits.REFUSED, error.code)
    except Away as error:
        fail(str(error), exits.UNREACHABLE)
