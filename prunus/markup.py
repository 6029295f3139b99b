"""XML from outside as plain data, within limits: no document type, hence no entities; elements know their lines."""

import dataclasses
from xml.parsers import expat

from prunus.decoding import DATA, DecodingError, Limits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Element:
    """An element of an XML document: its tag, its line (from 1), its text and its child elements."""

    tag: str
    line: int
    text: str
    children: tuple["Element", ...] = ()

    def all(self, tag: str) -> list["Element"]:
        """Return the children with this tag."""
        return [child for child in self.children if child.tag == tag]

    def first(self, tag: str) -> "Element | None":
        """Return the first child with this tag, or None."""
        return next(iter(self.all(tag)), None)


class _Builder:
    """Collects the open elements: (tag, line, pieces of text, children)."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.items = limits, 0
        self.open = list[tuple[str, int, list[str], list[Element]]]()
        self.root: Element | None = None
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.data
        self.parser.StartDoctypeDeclHandler = self.refuse

    def refuse(self, *declaration: object) -> None:
        raise DecodingError("it declares a document type, which is not read", self.parser.CurrentLineNumber)

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        line = self.parser.CurrentLineNumber
        self.items += 1 + len(attributes)
        if len(self.open) >= self.limits.depth:
            raise DecodingError(f"it is nested more than {self.limits.depth} deep", line)
        if self.items > self.limits.items:
            raise DecodingError(f"it holds more than {self.limits.items:,} items", line)
        self.open.append((tag, line, [], []))

    def data(self, text: str) -> None:
        if self.open:
            self.open[-1][2].append(text)

    def end(self, _: str) -> None:
        tag, line, text, children = self.open.pop()
        element = Element(tag=tag, line=line, text="".join(text).strip(), children=tuple(children))
        if self.open:
            self.open[-1][3].append(element)
        else:
            self.root = element


def from_xml(text: str, limits: Limits = DATA) -> Element:
    """Return the root element of XML `text`.

    Raises:
        DecodingError: it is not XML, declares a document type (which may hold entities), or exceeds the limits.
    """
    if len(text) > limits.size:
        raise DecodingError(f"it has {len(text):,} characters, and at most {limits.size:,} are read")
    builder = _Builder(limits)
    try:
        builder.parser.Parse(text.strip(), True)
    except expat.ExpatError as error:
        raise DecodingError(f"it is not valid XML: {expat.ErrorString(error.code)}", error.lineno) from error
    assert builder.root is not None  # else expat has refused it
    return builder.root
