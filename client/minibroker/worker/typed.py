"""Bodies as the types of annotations: what a handler's annotation asks for, made out of what was published.

msgspec converts dataclasses, its own Structs, TypedDicts, NamedTuples and what they hold: datetime, UUID, Decimal,
Enum. A pydantic model validates itself, wherever in such a type it stands; pydantic need not be installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from minibroker.contract.errors import BodyError

BYTES: Final = (bytes,)
Convert = Callable[[Any], Any]


def converter(wanted: Any) -> Convert | None:
    """Return what makes a body of the type `wanted` out of a decoded one; None if there is nothing to make.

    What it raises is a `BodyError` that names the place and the reason.

    Raises:
        TypeError: no body can become such a type.
    """
    if wanted is Any or wanted is object:
        return None
    try:
        info = msgspec.inspect.type_info(wanted)
    except (TypeError, ValueError, NameError) as error:
        raise TypeError(f"no body can become {name_of(wanted)}: {error}") from error
    if isinstance(info, msgspec.inspect.CustomType) and not _is_pydantic(info.cls):
        raise TypeError(
            f"no body can become {name_of(wanted)}; annotate it with a dataclass, a msgspec.Struct, a TypedDict, "
            "a pydantic model or a type out of these and of what a body may hold"
        )
    name = name_of(wanted)
    make = msgspec.convert

    def convert(body: Any) -> Any:
        try:
            return make(body, wanted, builtin_types=BYTES, str_keys=True, dec_hook=_validated)
        except msgspec.ValidationError as error:
            raise BodyError(f"the body does not fit {name}: {_reason(error)}") from None

    return convert


def name_of(wanted: Any) -> str:
    """Return the name of a type as errors show it."""
    return wanted.__qualname__ if isinstance(wanted, type) else str(wanted)


def _is_pydantic(kind: Any) -> bool:
    return callable(getattr(kind, "model_validate", None))


def _validated(kind: Any, value: Any) -> Any:
    """Return `value` as the pydantic model `kind`; msgspec asks for what it does not know itself.

    NotImplementedError is how its `dec_hook` says that nobody knows the type.
    """
    if not _is_pydantic(kind):
        raise NotImplementedError(f"no body can become {name_of(kind)}")
    try:
        return kind.model_validate(value)
    except ValueError as error:
        raise ValueError(_told_by_pydantic(error)) from None


def _told_by_pydantic(error: Any) -> str:
    """Return the first faults of a model in one line; pydantic's own text has many."""
    faults = getattr(error, "errors", None)
    if not callable(faults):
        return str(error)
    return "; ".join(
        f"{fault['msg']} - at `{'.'.join(map(str, fault['loc']))}`" for fault in faults()[:3]
    )


def _reason(error: msgspec.ValidationError) -> str:
    return " ".join(str(error).split())
