"""HTML in which text is escaped by default: only `Markup` is not."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

__all__ = ["Markup", "element", "join"]


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def join(parts: Iterable[object]) -> Markup:
    """The HTML of all parts, one after the other: `Markup` as it is, any other value as escaped text.

    >>> join(["<b>", element("b", "1 < 2"), 3])
    '&lt;b&gt;<b>1 &lt; 2</b>3'
    """
    return Markup("".join(part if isinstance(part, Markup) else escape(str(part)) for part in parts))


def element(tag: str, *children: object, **attributes: str) -> Markup:
    """An element with attributes and children. Underscores in the names of attributes become hyphens.

    >>> element("td", "<b>", style="color:red", aria_label='"a"')
    '<td style="color:red" aria-label="&quot;a&quot;">&lt;b&gt;</td>'
    """
    given = "".join(f' {name.replace("_", "-")}="{escape(value)}"' for name, value in attributes.items())
    return Markup(f"<{tag}{given}>{join(children)}</{tag}>")
