"""An index over a folder of reports, so that it can be put on a web server as it is."""

from __future__ import annotations

from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

from harness.errors import BadInput
from harness.report import page
from harness.report.language import ENGLISH, Language
from harness.wording import Words, line

GENERATOR = "Weighbridge"


@dataclass(frozen=True)
class Page:
    """A page of ours: where it is from the index, what it is, its first sentence, and when its data were."""

    href: str
    place: str
    title: str
    description: str
    made: str


def write(folder: Path, language: Language = ENGLISH) -> tuple[Path, int]:
    """Writes index.html into the folder, over all of our pages below it, and returns it with their number.

    Raises BadInput where there are none, where an index.html is there that is none of these, and for what cannot be
    read or written.
    """
    index = folder / "index.html"
    try:
        mine = _about(index) if index.exists() else {}
        if index.exists() and mine.get("kind") != "index":
            raise BadInput(
                f"{index} is no index of ours: name a folder that holds reports, each in a folder of its own"
            )
        found = [_page(folder, path) for path in sorted(folder.rglob("*.html")) if path != index]
        pages = sorted((each for each in found if each), key=lambda each: (each.made, each.place), reverse=True)
        if not pages:
            raise BadInput(f"{folder} holds no report: `weighbridge report` writes them")
        index.write_text(render(pages, language), encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot make an index of {folder}: {error.strerror or error}") from error
    return index, len(pages)


def render(pages: list[Page], language: Language) -> str:
    told = Words("1 report") if len(pages) == 1 else Words("{count} reports", count=len(pages))
    if newest := pages[0].made[:10]:
        told = Words("{reports}, the newest of {day}", reports=told, day=newest)
    return page.render(
        "site.html",
        language,
        title=language.say("Weighbridge reports"),
        description=language(told),
        pages=pages,
        kind="index",
    )


def _page(folder: Path, path: Path) -> Page | None:
    about = _about(path)
    if about.get("generator") != GENERATOR or about.get("kind") == "index":
        return None
    place = path.relative_to(folder)
    shown = place.parent if place.name == "index.html" else place
    told = {name: line(about.get(name, "")) for name in ("title", "description", "date")}
    return Page(quote(place.as_posix()), line(str(shown)), told["title"], told["description"], told["date"])


def _about(path: Path) -> dict[str, str]:
    reader = _Head()
    reader.feed(path.read_text("utf-8", errors="replace")[:20000])
    return reader.found


class _Head(HTMLParser):
    """The <meta> of a page by name, and its title."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self._in_title = tag == "title" and "title" not in self.found
        if tag == "meta" and (name := known.get("name")):
            self.found.setdefault(name.removeprefix("weighbridge:"), known.get("content") or "")

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.found["title"] = data
            self._in_title = False
