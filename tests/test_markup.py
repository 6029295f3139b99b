"""XML from outside: elements with their lines, and what is refused."""

import pytest

from prunus.decoding import DecodingError, Limits
from prunus.markup import from_xml


def test_elements_know_their_lines():
    root = from_xml("\n<a>\n <b>one</b>\n <b>two <c/>three</b>\n</a>".strip())
    assert (root.tag, root.line) == ("a", 1)
    assert [(each.text, each.line) for each in root.all("b")] == [("one", 2), ("two three", 3)]
    assert root.all("b")[1].first("c").line == 3 and root.first("c") is None


def test_no_entity_is_expanded():
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>'
    with pytest.raises(DecodingError, match=r"document type.*line 1"):
        from_xml(bomb)
    with pytest.raises(DecodingError, match="document type"):
        from_xml('<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>')


@pytest.mark.parametrize("text", ["", "no", "<a>", "<a></b>", "<a/><b/>", "<a>&unknown;</a>", "\x00"])
def test_what_is_no_xml_is_refused(text):
    with pytest.raises(DecodingError, match="not valid XML"):
        from_xml(text)


def test_limits():
    with pytest.raises(DecodingError, match="nested more than 3 deep"):
        from_xml("<a><b><c><d/></c></b></a>", Limits(depth=3))
    with pytest.raises(DecodingError, match="more than 5 items"):
        from_xml("<a>" + "<b/>" * 9 + "</a>", Limits(items=5))
    with pytest.raises(DecodingError, match="at most 4 are read"):
        from_xml("<abc/>", Limits(size=4))
