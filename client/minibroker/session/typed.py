"""Bodies as types of the application: how an object of one is written, and how a type reads it back.

msgspec does both for dataclasses, attrs classes, its own Structs, TypedDicts, NamedTuples and what they hold:
datetime, UUID, Decimal, Enum and more. A pydantic model writes and validates itself, wherever in such a type it
stands; pydantic need not be installed. What is written is a plain body: any client can read it.

An object is written only if its own type reads it back. A value such as a datetime, which a plain body would turn
into a str for good, is written only where a type says what it becomes again: inside such an object, or in a queue
that was given the type of its bodies.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, Final

import msgspec
from msgspec import inspect as kinds

from minibroker.contract.bodies import SCALARS, Encoded, encode_body
from minibroker.contract.errors import BodyError, SchemaMismatch
from minibroker.session.json_schema import JsonSchema

BYTES: Final = (bytes,)
UNTYPED: Final = (None, Any, object, bytes)  # types of bodies that are left as they are
Convert = Callable[[Any], Any]
Written = tuple[bytes, int]

_PLAIN: Final = (
    kinds.AnyType, kinds.NoneType, kinds.BoolType, kinds.IntType, kinds.FloatType, kinds.StrType, kinds.BytesType,
    kinds.ListType, kinds.UnionType,
)  # fmt: skip
_ADVICE: Final[Mapping[str, str]] = {
    "datetime": "its isoformat()",
    "date": "its isoformat()",
    "time": "its isoformat()",
    "timedelta": "its total_seconds()",
    "UUID": "its str()",
    "Decimal": "its str()",
    "set": "a list",
    "frozenset": "a list",
    "bytearray": "its bytes()",
    "memoryview": "its bytes()",
}


# ---- reading ----


def converter(wanted: Any) -> Convert | None:
    """Return what makes a body of the type `wanted` out of a decoded one; None if there is nothing to make.

    What it raises is a `BodyError` that names the place and the reason.

    Raises:
        TypeError: no body can become such a type.
    """
    if wanted is Any or wanted is object or type(wanted) is JsonSchema:
        return None
    _info_of(wanted)
    name = name_of(wanted)
    make = msgspec.convert

    def convert(body: Any) -> Any:
        try:
            return make(body, wanted, builtin_types=BYTES, str_keys=True, dec_hook=_validated)
        except msgspec.ValidationError as error:
            raise BodyError(f"the body does not fit {name}: {_reason(error)}") from None

    return convert


def _info_of(wanted: Any) -> kinds.Type:
    try:
        info = kinds.type_info(wanted)
    except (TypeError, ValueError, NameError) as error:
        raise TypeError(f"no body can become {name_of(wanted)}: {error}") from error
    try:
        msgspec.convert(None, wanted, dec_hook=_validated)
    except msgspec.ValidationError:
        pass  # as nothing but None is None
    except (
        TypeError,
        NotImplementedError,
    ) as error:  # an Enum of tuples, a union that cannot be told apart
        raise TypeError(f"no body can become {name_of(wanted)}: {error}") from error
    for part in _parts_of(info):
        if isinstance(part, kinds.CustomType) and not _is_pydantic(part.cls):
            inside = "" if part.cls is wanted else f": it holds {name_of(part.cls)}"
            raise TypeError(
                f"no body can become {name_of(wanted)}{inside}; annotate it with a dataclass, a msgspec.Struct, a "
                "TypedDict, a pydantic model or a type out of these and of what a body may hold"
            )
    return info


def _parts_of(info: Any) -> list[kinds.Type]:
    """Return a type and all that it is made of."""
    found: list[kinds.Type] = []
    seen = set()
    open_parts = [info]
    while open_parts:
        part = open_parts.pop()
        if isinstance(part, tuple):
            open_parts += part
        elif isinstance(part, kinds.Field):
            open_parts.append(part.type)
        elif isinstance(part, kinds.Type) and id(part) not in seen:
            seen.add(id(part))
            found.append(part)
            open_parts += [getattr(part, name) for name in part.__struct_fields__]
    return found


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


# ---- writing ----


def write(body: Any) -> Written:
    """Return the bytes and the encoding of a body that may hold objects of the application's types.

    Raises:
        TypeError: it holds something that would not arrive as it was sent; says where, and what to do.
    """
    if type(body) is Encoded:
        return body.raw, body.encoding
    return encode_body(_made(body, _plain))


def write_any(value: Any) -> Written:
    """Return the bytes and the encoding of a value, which pays nothing for `write` where it is a plain body."""
    try:
        return encode_body(value)
    except TypeError:
        return write(value)


def write_all(bodies: Iterable[Any]) -> list[Written]:
    """Return all `bodies` written; TypeError names the first that cannot be by its index."""
    return [_at(index, write, body) for index, body in enumerate(bodies)]


def plain_maker(wanted: Any) -> Convert:
    """Return what makes a plain body of one of the type `wanted`; it raises TypeError if the body does not fit.

    Or SchemaMismatch, where a JSON Schema is wanted.

    Raises:
        TypeError: no body can be of such a type.
    """
    if type(wanted) is JsonSchema:
        fits = wanted.checked
        return lambda body: fits(_made(body, _plain))
    convert = converter(wanted)
    plain = _plain if convert is None or _has_plain_values(_info_of(wanted)) else _builtins
    return lambda body: _checked(_made(body, plain), convert)


def make_all(make: Convert, bodies: Iterable[Any]) -> list[Any]:
    """Return what `make` makes of each of `bodies`; TypeError, or SchemaMismatch, names the first by its index."""
    return [_at(index, make, body) for index, body in enumerate(bodies)]


def _at(index: int, make: Convert, body: Any) -> Any:
    try:
        return make(body)
    except TypeError as error:
        raise TypeError(f"bodies[{index}]: {error}") from None
    except SchemaMismatch as error:
        raise SchemaMismatch(f"bodies[{index}]: {error}") from None


def _made(body: Any, plain: Convert) -> Any:
    try:
        return plain(body)
    except RecursionError:
        raise TypeError("the body is nested too deeply, or holds itself") from None
    except Unwritable as error:
        raise TypeError(f"{error}{_place_of(error.value, body)}") from None


def _has_plain_values(info: kinds.Type) -> bool:
    """Return whether a type leaves open what its values are, or says that they are plain: as without a type."""
    return all(
        isinstance(part.key_type, (kinds.StrType, kinds.AnyType))
        if isinstance(part, kinds.DictType)
        else isinstance(part, _PLAIN)
        for part in _parts_of(info)
    )


class Unwritable(Exception):
    """This value in a body cannot be sent; never leaves this module."""

    def __init__(self, value: Any, reason: str) -> None:
        super().__init__(reason)
        self.value = value


def _plain(value: Any) -> Any:
    """Return a value of a body without a type as what a plain body may hold; objects by their fields."""
    kind: Any = type(value)
    if kind in SCALARS:
        return value
    if kind is dict:
        return {_key(name, value): _plain(item) for name, item in value.items()}
    if kind is list or kind is tuple:
        return [_plain(item) for item in value]
    if not _has_fields(kind):
        raise Unwritable(value, _advice(value))
    return _checked(_builtins(value), _converter_of(kind))


def _key(name: Any, value: Any) -> str:
    if type(name) is not str:
        raise Unwritable(value, f"a dict has the key {name!r:.50}, which is no str; send its str()")
    return name


def _has_fields(kind: type) -> bool:
    return (
        issubclass(kind, msgspec.Struct)
        or hasattr(kind, "__dataclass_fields__")
        or hasattr(kind, "__attrs_attrs__")
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
        or _is_pydantic(kind)
    )


@lru_cache(maxsize=512)
def _converter_of(kind: Hashable) -> Convert | None:
    return converter(kind)


def _checked(value: Any, convert: Convert | None) -> Any:
    """Return a written value if its type reads it back."""
    if convert is not None:
        try:
            convert(value)
        except BodyError as error:
            raise TypeError(f"{error}, and no worker could read it") from None
    return value


def _builtins(value: Any, unknown: Convert | None = None) -> Any:
    try:
        return msgspec.to_builtins(
            value, builtin_types=BYTES, str_keys=True, enc_hook=unknown or _unknown
        )
    except TypeError as error:  # a key, or an Enum of what is neither str nor int
        raise Unwritable(value, f"{name_of(type(value))} cannot be sent: {error}") from None


def _unknown(value: Any) -> Any:
    """Return a value that msgspec does not know as one that it does: pydantic's."""
    if not _is_pydantic(type(value)):
        raise Unwritable(value, _advice(value))
    fields = value.model_dump(by_alias=True, round_trip=True, warnings=False)
    return _builtins(fields, _told_to_pydantic)


def _told_to_pydantic(value: Any) -> Any:
    """Return a value of a model that only pydantic knows (a Path, an address) as pydantic writes it."""
    if hasattr(value, "get_secret_value"):
        raise Unwritable(
            value, "a secret is not written by pydantic; let a field_serializer of the model do so"
        )
    kind: Any = type(value)
    if _is_pydantic(kind):
        return _unknown(value)
    try:
        return _adapter_of(kind).dump_python(value, mode="json")
    except Exception:  # noqa: BLE001 - of several kinds, and what to do is the same
        raise Unwritable(value, _advice(value)) from None


@lru_cache(maxsize=512)
def _adapter_of(kind: Hashable) -> Any:
    return import_module("pydantic").TypeAdapter(kind)


# ---- errors ----


def _advice(value: Any) -> str:
    kind = type(value)
    instead = _ADVICE.get(kind.__name__) or ("its value" if hasattr(kind, "__members__") else "")
    if instead:
        return (
            f"{name_of(kind)} cannot be sent by itself, as it would arrive as something else: send {instead}; or "
            'give the queue the type of its bodies, `broker.queue("emails", Email)`; or publish a dataclass, '
            "msgspec.Struct or pydantic model that has it in a field"
        )
    return (
        f"{kind.__module__}.{kind.__qualname__} cannot be sent: a body may hold None, bool, 64-bit int, float, "
        "str, bytes, list, tuple and dict with str keys, and dataclasses, msgspec.Structs and pydantic models "
        "(in these datetime, UUID, Decimal, Enum and sets, too)"
    )


def _place_of(wanted: Any, body: Any) -> str:
    """Return where `wanted` is in `body`, as ` - at `$.items[2].at``; empty if that is the body, or not found."""
    open_values: list[tuple[str, Any]] = [("$", body)]
    for path, value in open_values:  # it grows meanwhile, up to a bound: a body may hold itself
        if value is wanted:
            return "" if value is body else f" - at `{path}`"
        if len(open_values) < 10_000:
            open_values += _parts(path, value)
    return ""


def _parts(path: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"{path}.{name}", item) for name, item in value.items()]
    names = getattr(value, "__struct_fields__", None) or getattr(value, "__dict__", ())
    if names:
        return [(f"{path}.{name}", getattr(value, name, None)) for name in names]
    slots = getattr(value, "__dataclass_fields__", ())
    if slots:
        return [(f"{path}.{name}", getattr(value, name, None)) for name in slots]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    return []
