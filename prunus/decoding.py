"""Files and text from outside as plain data: JSON and YAML, within limits on their kind and size.

Their authors are not trusted: a decoder here takes bounded memory and time, and raises only `DecodingError`
and, for a file, `OSError`. The result is dictionaries, lists, strings, numbers, booleans and None; the caller
checks whether it is what it needs.
"""

import contextlib
import dataclasses
import errno
import json
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import yaml

MIB = 2**20


class DecodingError(ValueError):
    """Text that is not JSON or YAML, or exceeds a limit; names the problem and, where known, the line."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem if line is None else f"{problem} (line {line})")
        self.problem, self.line = problem, line


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits on what is read.

    Attributes:
        size: of the text, in bytes or characters.
        depth: of nested containers.
        digits: of an integer.
        items: of all containers together, with YAML's aliases expanded.
    """

    size: int = 256 * MIB
    depth: int = 100
    digits: int = 40
    items: int = 20_000_000


DATA = Limits()  # for what programs write: plans, states, records, indexes
SETTINGS = Limits(size=MIB // 4, items=100_000)  # for what people write: recipes and overrides


def read_bytes(path: Path, most: int = DATA.size, *, follow: bool = True) -> bytes:
    """Return the content of a regular file; pipes and devices, which may block or never end, are not read.

    Args:
        most: bytes.
        follow: whether `path` itself may be a symbolic link.

    Raises:
        OSError: there is no such file, or it cannot be read.
        DecodingError: it is not a regular file, or it is too large.
    """
    with regular_file(path, follow=follow) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise DecodingError(f"it has {size:,} bytes, and at most {most:,} are read")
        return file.read(most)


@contextlib.contextmanager
def regular_file(path: Path, *, follow: bool = True) -> Iterator[BinaryIO]:
    """Open a regular file, to read parts of it.

    Raises:
        OSError, DecodingError: as `read_bytes`.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise DecodingError("it is a symbolic link, which is not followed") from error
        raise
    except ValueError as error:  # a NUL, or text that no file system can store
        raise DecodingError(f"no file can have this name ({error})") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise DecodingError("it is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read_text(path: Path, most: int = DATA.size, *, follow: bool = True) -> str:
    """Return the text of a regular file in UTF-8, without the byte-order mark that some editors write.

    Raises:
        OSError, DecodingError: as `read_bytes`; or the file is not UTF-8.
    """
    try:
        return read_bytes(path, most, follow=follow).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DecodingError(f"it is not UTF-8 text: {error.reason} at byte {error.start}") from error


def from_json(text: str, limits: Limits = DATA, *, without: Collection[str] = ()) -> Any:
    """Return the value of JSON `text`; NaN and the infinities are accepted as numbers.

    Args:
        text: the document.
        limits: of the result.
        without: keys that are dropped from every object while it is read, which saves their memory.

    Raises:
        DecodingError: it is not JSON, or exceeds the limits.
    """
    _check_size(text, limits)

    def whole(digits: str) -> int:
        if len(digits) > limits.digits:
            raise DecodingError(f"a whole number of {len(digits):,} digits, and at most {limits.digits} are read")
        return int(digits)

    def kept(item: dict[str, Any]) -> dict[str, Any]:
        for key in without:
            item.pop(key, None)
        return item

    try:
        value = json.loads(text, parse_int=whole, object_hook=kept if without else None)
    except DecodingError:
        raise
    except RecursionError as error:
        raise DecodingError(f"it is nested more than {limits.depth} deep") from error
    except ValueError as error:
        raise DecodingError(f"it is not valid JSON: {error}") from error
    _check(value, limits)
    return value


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML in which `1e-4` is a number, not a string as in YAML 1.1, and dates are text."""


_FLOAT, _TIMESTAMP = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"
_NUMBERS = (_FLOAT, "tag:yaml.org,2002:int")
_POWER = re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(_FLOAT, _POWER, list("-+0123456789"))


def from_yaml(text: str, limits: Limits = SETTINGS) -> Any:
    """Return the value of YAML `text`.

    Raises:
        DecodingError: it is not YAML, or exceeds the limits.
    """
    return yaml_document(text, limits)[1]


def yaml_document(text: str, limits: Limits = SETTINGS) -> tuple[yaml.Node | None, Any]:
    """Return the root node of YAML `text`, whose nodes know their lines, and the value.

    Raises:
        DecodingError: it is not YAML, or exceeds the limits.
    """
    _check_size(text, limits)
    try:
        _check_depth(text, limits)  # before any recursive code reads it
        node = _composed(text)
        if node is None:
            return None, None
        _count(node, limits, {}, set())
        value = yaml.load(text, Loader)  # a safe loader; it makes its own nodes, since merged keys change them
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise DecodingError(str(getattr(error, "problem", None) or error), mark.line + 1 if mark else None) from error
    except DecodingError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, AttributeError) as error:  # from a constructor
        raise DecodingError(f"it holds a value that cannot be read: {error}") from error
    _check(value, limits)
    return node, value


def _composed(text: str) -> yaml.Node | None:
    loader = Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _check_size(text: str, limits: Limits) -> None:
    if len(text) > limits.size:
        raise DecodingError(f"it has {len(text):,} characters, and at most {limits.size:,} are read")


def _check_depth(text: str, limits: Limits) -> None:
    depth = 0
    for event in yaml.parse(text, Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > limits.depth:
            raise DecodingError(f"it is nested more than {limits.depth} deep", event.start_mark.line + 1)


def _count(node: yaml.Node, limits: Limits, known: dict[int, tuple[int, int]], above: set[int]) -> tuple[int, int]:
    """Return (items, depth) of a node with its aliases expanded; refuse a node that exceeds the limits."""
    if id(node) in known:
        return known[id(node)]
    line = node.start_mark.line + 1
    if id(node) in above:
        raise DecodingError("an alias holds itself", line)
    if isinstance(node, yaml.ScalarNode):
        if node.tag in _NUMBERS and len(node.value) > limits.digits + len("-0x."):
            raise DecodingError(f"a number of {len(node.value):,} digits, and at most {limits.digits} are read", line)
        return 1, 0
    pairs = isinstance(node, yaml.MappingNode)
    children = [part for pair in node.value for part in pair] if pairs else node.value
    counts = [_count(child, limits, known, above | {id(node)}) for child in children]
    items, depth = 1 + sum(number for number, _ in counts), 1 + max((deep for _, deep in counts), default=0)
    if items > limits.items or depth > limits.depth:
        raise DecodingError(f"with its aliases expanded it is more than {limits.items:,} items, or too deep", line)
    known[id(node)] = items, depth
    return items, depth


def _check(value: Any, limits: Limits) -> None:
    """Refuse what is nested too deep, too large, or not plain data."""
    level, depth, items, most = [value], 0, 0, 10**limits.digits
    while level:
        if depth > limits.depth:
            raise DecodingError(f"it is nested more than {limits.depth} deep")
        items += len(level)
        if items > limits.items:
            raise DecodingError(f"it holds more than {limits.items:,} items")
        inner = list[Any]()
        for each in level:
            if isinstance(each, Mapping):
                inner += [*each, *each.values()]
            elif isinstance(each, list):
                inner += each
            elif type(each) is int:
                if abs(each) >= most:
                    raise DecodingError(f"it holds a whole number of more than {limits.digits} digits")
            elif each is not None and type(each) not in (str, float, bool):
                raise DecodingError(f"it holds a {type(each).__name__}: numbers, text, lists and mappings are read")
        level, depth = inner, depth + 1
