"""The config of a run: a claim's frozen dataclass, with the user's overrides checked against its annotations.

A field's annotation says what it may be, and `pydantic`'s constrained types say more: ``steps: PositiveInt``,
``share: Annotated[float, Field(gt=0, lt=1)]``, ``device: Device``. What breaks one is refused before any unit starts.
"""

import dataclasses
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, TypeAdapter, ValidationError

from throughline.errors import ThroughlineError

__all__ = ["Device", "check_device", "check_unchanged", "override", "restore"]


def _is_device(name: str) -> str:
    import torch  # here, so that the command line can name a field without loading it

    try:
        torch.device(name)
    except RuntimeError:
        raise ValueError(f"a device is cpu, cuda, cuda:1, mps …, got {name!r}") from None
    return name


Device = Annotated[str, AfterValidator(_is_device)]  # the name of a torch device; whether it is there, see check_device


def override(config: Any, assignments: tuple[str, ...]) -> Any:
    """``config`` with ``key=value`` texts applied, each checked against its field's annotation.

    Raises:
        ThroughlineError: not of the form key=value, no such field, or a value that the annotation does not allow; lists
            the fields.
    """
    types = get_type_hints(type(config), include_extras=True)
    fields = {f.name: types[f.name] for f in dataclasses.fields(config) if f.name != "data"}
    known = ", ".join(f"{name}: {_type_name(kind)} = {getattr(config, name)!r}" for name, kind in fields.items())
    changes = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or key not in fields:
            wrong = f"no field {key!r}" if equals else f"{assignment!r} is not of the form key=value"
            raise ThroughlineError(f"--set: {wrong}; the fields are {known}")
        try:
            changes[key] = _value(fields[key], text)
        except ValidationError as error:
            first = error.errors()[0]
            parsed = first["type"].endswith(("_parsing", "_type")) or first["loc"]
            wants = (
                f"{key} wants {_type_name(fields[key])}, got {text!r}" if parsed else f"{key}={text}: {_says(first)}"
            )
            raise ThroughlineError(f"--set: {wants}; the fields are {known}") from None
    return dataclasses.replace(config, **changes)


def restore(kind: type, values: Mapping[str, Any]) -> Any:
    """The config of class ``kind`` that `dataclasses.asdict` turned into ``values``, tuples and nesting included."""
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ThroughlineError(
            f"the stored config does not fit this version of the claim: {where}: {first['msg']}"
        ) from None


def check_device(config: Any) -> None:
    """Refuse a config whose ``device``, if it has one, is not on this machine.

    Raises:
        ThroughlineError: naming the device.
    """
    name = getattr(config, "device", "cpu")
    if name == "cpu":
        return
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):  # what torch raises for want of a GPU, or of a build that knows it
        raise ThroughlineError(
            f"device={name}: this machine has no such device that torch can use; --set device=cpu"
        ) from None


def check_unchanged(config: Any) -> None:
    """Refuse the user's data, if the config has some, when its content is no more what the run was started with.

    Raises:
        DataError: naming the file or folder.
    """
    source = getattr(config, "data", None)
    if source is not None:
        source.check_unchanged()


def _says(error: Any) -> str:
    return str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")


def _value(kind: Any, text: str) -> Any:
    """A text as JSON for a field of this kind, or as it stands: ``12`` may be a number or a name."""
    adapter = TypeAdapter(kind)
    try:
        return adapter.validate_json(text, strict=True)
    except ValidationError as not_json:
        try:
            return adapter.validate_python(text)
        except ValidationError as not_text:
            raise (not_text if not_json.errors()[0]["type"] == "json_invalid" else not_json) from None


def _type_name(kind: Any) -> str:
    """A type as a user may read it: without the constraints, which the message tells."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type_name(inside[0])
    if origin is Literal:
        return " or ".join(map(repr, inside))
    names = ["..." if part is Ellipsis else _type_name(part) for part in inside]
    if origin in (Union, UnionType):
        return " | ".join(names)
    name = "None" if kind is NoneType else getattr(origin or kind, "__name__", str(kind))
    return f"{name}[{', '.join(names)}]" if names else name
