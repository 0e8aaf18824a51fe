"""What a page is made of, as the tests of all pages read it."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "line", "circle", "link"}


class Tags(HTMLParser):
    """Collects tags with their attributes, and checks that they are nested."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
