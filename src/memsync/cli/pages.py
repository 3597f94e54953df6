"""A page of the docs as a terminal shows it: its prose, lists and tables fit the width.

It decides the form alone. Code is never broken or cut, because people copy it. A link is shown with
its target only where its words do not name the page.
"""

from textwrap import indent
from typing import Any, ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, ListItem, Markdown, MarkdownContext, MarkdownElement
from rich.segment import Segment
from rich.text import Text

_BULLET = " • "


class _Code(CodeBlock):
    """Code in lines of its own, however long they are."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(indent(self.text.plain.rstrip(), "  "), no_wrap=True, overflow="ignore")


class _Item(ListItem):
    """An item whose lines are not cut at the width, because code may stand in it."""

    def on_child_close(self, context: MarkdownContext, child: MarkdownElement) -> bool:
        """Part code from what stands before it."""
        if isinstance(child, _Code):
            self.elements.append(Text())
        return super().on_child_close(context, child)

    def render_bullet(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The item of a list without numbers."""
        return self._marked(_BULLET, console, options)

    def render_number(
        self, console: Console, options: ConsoleOptions, number: int, last_number: int
    ) -> RenderResult:
        """The item of a list with numbers."""
        width = len(str(last_number)) + 1
        return self._marked(f"{number:>{width}}. ", console, options)

    def _marked(self, mark: str, console: Console, options: ConsoleOptions) -> RenderResult:
        inside = options.update(width=options.max_width - len(mark))
        lines = Segment.split_lines(console.render(self.elements, inside))
        for at, line in enumerate(lines):
            yield Segment(" " * len(mark) if at else mark)
            yield from line
            yield Segment.line()


class Page(Markdown):
    """A page in Markdown."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "fence": _Code,
        "code_block": _Code,
        "list_item_open": _Item,
    }

    def __init__(self, text: str) -> None:
        super().__init__(text, hyperlinks=False)
        for each in self.parsed:
            each.children = _without_needless_targets(each.children or [])


def _without_needless_targets(tokens: list[Any]) -> list[Any]:
    """The tokens of a line, without the links to places of this page, or that their words name."""
    kept: list[Any] = []
    opened = 0
    for token in tokens:
        if token.type == "link_open":
            opened = len(kept)
        kept.append(token)
        if token.type == "link_close":
            target = str(kept[opened].attrs["href"]).partition("#")[0]
            words = "".join(each.content for each in kept[opened:])
            if not target or _name(words) == _name(target):
                kept[opened:] = kept[opened + 1 : -1]
    return kept


def _name(page: str) -> str:
    """A page as `memsync help` takes it, written as a link's target or in words."""
    return page.removeprefix("../").removesuffix(".md").replace(" ", "-")
