"""A page as the text that is seen on it, a figure as lines that can be compared and read."""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

UNSEEN = ("script", "style", "title")
LINES = (
    "address", "article", "aside", "blockquote", "dd", "details", "div", "dl", "dt", "figcaption", "figure", "footer",
    "h1", "h2", "h3", "h4", "header", "img", "li", "main", "nav", "ol", "p", "pre", "section", "summary", "table",
    "tbody", "thead", "tr", "ul", "br",
)  # fmt: skip
CELLS = ("td", "th")
WORDS = ("span", "small")  # may be set apart by the style alone


class _Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.unseen += tag in UNSEEN
        self._apart(tag)
        if tag in CELLS:
            self.parts.append(" | ")
        if tag == "img":
            self.parts.append(f"[{dict(attrs).get('alt')}]\n")

    def handle_endtag(self, tag: str) -> None:
        self.unseen -= tag in UNSEEN
        self._apart(tag)

    def handle_data(self, data: str) -> None:
        if not self.unseen:
            self.parts.append(re.sub(r"\s+", " ", data))

    def _apart(self, tag: str) -> None:
        if tag in LINES:
            self.parts.append("\n")
        elif tag in WORDS:
            self.parts.append(" ")


def visible(page: str) -> str:
    """The text of a page, a line for each paragraph, list item and row of a table; pictures as what is said of them."""
    seen = _Seen()
    seen.feed(page)
    lines = (" ".join(line.split()).removeprefix("| ") for line in "".join(seen.parts).split("\n"))
    return "".join(f"{line}\n" for line in lines if line)


NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
LONGEST = 240  # of a path's commands that are written out


def drawn(path: Path) -> str:
    """A figure, an element a line: texts as such and not as the outlines of their letters, coordinates to a tenth of a
    point, the names that Matplotlib makes for clips and marks in their order."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    lines: list[str] = []
    _element(ElementTree.parse(path, parser).getroot(), 0, lines)
    names: dict[str, str] = {}
    text = "\n".join(lines)
    for name in re.findall(r"\b[a-zA-Z][0-9a-f]{10}\b", text):
        names.setdefault(name, f"name{len(names) + 1}")
    return re.sub(r"\b[a-zA-Z][0-9a-f]{10}\b", lambda found: names[found[0]], text) + "\n"


def _element(element: ElementTree.Element, depth: int, lines: list[str]) -> None:
    tag = element.tag.rpartition("}")[2]
    if tag in ("metadata", "style"):
        return
    texts = [str(child.text).strip() for child in element if child.tag is ElementTree.Comment]
    shown = " ".join(f"{key.rpartition('}')[2]}={_attribute(key, value)}" for key, value in element.attrib.items())
    if texts:  # its letters follow, as outlines
        places = [_rounded(child.attrib["transform"]) for child in element if "transform" in child.attrib]
        styles = [child.attrib.get("style", "") for child in element if child.tag is not ElementTree.Comment]
        lines.append(f"{' ' * depth}{tag} {shown} {texts} {' '.join(places + styles)}".rstrip())
        return
    if tag not in ("defs", "g") or element.get("style") or element.get("transform") or element.get("id"):
        lines.append(f"{' ' * depth}{tag} {shown}".rstrip())
        depth += 1
    for child in element:
        _element(child, depth, lines)


def _attribute(key: str, value: str) -> str:
    value = _rounded(" ".join(value.split()))
    if key == "d" and len(value) > LONGEST:
        numbers = re.findall(r"-?\d+(?:\.\d+)?", value)
        digest = hashlib.sha256(value.encode()).hexdigest()[:12]
        return f"{value[:60]}… {len(numbers)} numbers {digest}"
    return value


def _rounded(text: str) -> str:
    """Each fraction to a tenth, but for those of one or less, such as a width or an opacity."""
    return NUMBER.sub(lambda found: f"{float(found[0]):.1f}" if abs(float(found[0])) > 1 else found[0][:5], text)
