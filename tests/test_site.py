"""The documentation as a site: every link leads somewhere, nothing comes from elsewhere, and a browser finds its way.

It needs the extra ``docs`` and Chromium or Chrome with its driver, and is skipped where they are not, unless
REQUIRE_BROWSER is set.
"""

import functools
import re
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest

pytest.importorskip("selenium")
pytest.importorskip("material")

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from make_site import ROOT, make_site

pytestmark = pytest.mark.enable_socket

LANGUAGES = ("en", "zh")
WIDTHS = {"desktop": 1280, "phone": 375}


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Builds the site of both languages and serves it; yields its directory and its address."""
    directory = tmp_path_factory.mktemp("site")
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_QuietHandler, directory=str(directory))) as server:
        address = f"http://127.0.0.1:{server.server_port}/"
        make_site(directory, address, minutes=0.1)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield directory, address
        server.shutdown()


class Page(HTMLParser):
    """What a page links, what it loads, and the places in it that can be linked."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value is not None}
        self.ids.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") not in ("canonical", "alternate", "next", "prev"):
            self.loads.append(values["href"])
        elif "src" in values:
            self.loads.append(values["src"])


def test_every_link_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site: tuple[Path, str]) -> None:
    directory, address = site
    pages = {path: Page(path) for path in directory.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 60
    broken = []
    for path, page in pages.items():
        here = urljoin(address, path.relative_to(directory).as_posix())
        assert [load for load in page.loads if not urljoin(here, load).startswith((address, "data:"))] == []
        for link in {*page.links, *page.loads}:
            target = urlsplit(urljoin(here, link))
            if f"{target.scheme}://{target.netloc}/" != address:
                continue
            file = directory / unquote(target.path).lstrip("/")
            file = file / "index.html" if target.path.endswith("/") else file
            there = pages.get(file)
            if not file.exists() or (target.fragment and there and unquote(target.fragment) not in there.ids):
                broken.append(f"{path.relative_to(directory)}: {link}")
    assert broken == []


def test_the_list_for_language_models_leads_to_pages(site: tuple[Path, str]) -> None:
    there, links = (
        re.findall(r"\]\(([^)]+)\)", (directory / "llms.txt").read_text(encoding="utf-8"))
        for directory in (ROOT / "docs", site[0])
    )
    assert len(links) == len(there) > 0
    assert [link for link in links if not (site[0] / link / "index.html").is_file()] == []


def show(browser: Chrome, address: str, *, width: int = WIDTHS["desktop"], scheme: str = "light") -> None:
    """Opens a page as a new reader does, on a desktop or a phone, with the colours that the system prefers."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(address)
    browser.execute_script("localStorage.clear()")
    browser.get(address)


def until(browser: Chrome, condition: Any) -> Any:  # noqa: ANN401 - what the condition returns
    return WebDriverWait(browser, 10, ignored_exceptions=[Exception]).until(condition)


def element(browser: Chrome, selector: str) -> WebElement:
    found: WebElement = until(browser, lambda b: b.find_element(By.CSS_SELECTOR, selector))
    return found


def loaded(browser: Chrome) -> list[str]:
    """Returns the addresses of what the page loaded."""
    entries = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    names: list[str] = browser.execute_script(entries)
    return names


def heading(browser: Chrome) -> str:
    return element(browser, "article h1").text.rstrip("¶").strip()


def pages_of(directory: Path, language: str) -> set[str]:
    """Returns the paths of a language's pages, relative to the site."""
    found = (directory / language).rglob("index.html")
    return {f"{page.parent.relative_to(directory).as_posix()}/" for page in found}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_way_from_page_to_page_visits_all_and_each_fits_the_screen(
    site: tuple[Path, str], browser: Chrome, language: str, width: str
) -> None:
    directory, address = site
    scheme = "dark" if width == "phone" else "light"
    show(browser, f"{address}{language}/", width=WIDTHS[width], scheme=scheme)
    visited = set()
    while True:
        here = browser.current_url.removeprefix(address)
        assert here not in visited
        visited.add(here)
        assert heading(browser), here
        body = element(browser, "body")
        assert body.get_attribute("data-md-color-scheme") == ("slate" if scheme == "dark" else "default")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= WIDTHS[width], here
        assert all(name.startswith(address) for name in loaded(browser)), here
        following = browser.find_elements(By.CSS_SELECTOR, "a.md-footer__link--next")
        if not following:
            break
        browser.execute_script("arguments[0].click()", following[0])
        until(browser, lambda b, before=here: b.current_url.removeprefix(address) != before)
    assert visited == pages_of(directory, language)
    log = browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert [entry for entry in log if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_tabs_and_the_list_of_pages_lead_to_what_they_name(
    site: tuple[Path, str], browser: Chrome, language: str
) -> None:
    show(browser, f"{site[1]}{language}/")
    tabs = [tab.text for tab in browser.find_elements(By.CSS_SELECTOR, ".md-tabs__link")]
    assert len(tabs) >= 5
    element(browser, f".md-tabs__item:nth-child({tabs.index({'en': 'Guides', 'zh': '指南'}[language]) + 1}) a").click()
    until(browser, lambda b: "/guide/" in b.current_url)
    names = [link.text for link in browser.find_elements(By.CSS_SELECTOR, ".md-nav--primary a.md-nav__link")]
    wanted = {"en": "Fine-tune", "zh": "微调"}[language]
    assert wanted in names
    browser.find_element(By.LINK_TEXT, wanted).click()
    until(browser, lambda b: b.current_url.endswith("/guide/fine-tune/"))
    assert heading(browser) == wanted


def test_the_menu_of_a_phone_opens_and_leads_on(site: tuple[Path, str], browser: Chrome) -> None:
    show(browser, site[1] + "zh/guide/fine-tune/", width=WIDTHS["phone"])
    menu = element(browser, "label.md-header__button[for=__drawer]")
    menu.click()
    link = until(browser, lambda b: b.find_element(By.LINK_TEXT, "评估"))
    until(browser, lambda _: link.is_displayed())
    browser.execute_script("arguments[0].click()", link)
    until(browser, lambda b: b.current_url.endswith("/zh/guide/evaluate/"))


def test_the_language_switch_stays_on_the_page(site: tuple[Path, str], browser: Chrome) -> None:
    show(browser, site[1] + "en/tutorial/loss/")
    for language, there, name in (("zh", "zh/tutorial/loss/", "损失"), ("en", "en/tutorial/loss/", "The loss")):
        until(browser, lambda b: sum(name.endswith("sitemap.xml") for name in loaded(b)) == 2)
        element(browser, ".md-header .md-select button").click()
        link = element(browser, f".md-select__link[hreflang={language}]")
        until(browser, lambda _, link=link: link.is_displayed())
        link.click()
        until(browser, lambda b, there=there: b.current_url == site[1] + there)
        assert heading(browser) == name
        assert element(browser, "html").get_attribute("lang") == language


@pytest.mark.parametrize(
    ("language", "words", "page"),
    [("en", "perplexity", "en/reference/losses/"), ("en", "NonFiniteLossError", "en/reference/training/"),
     ("zh", "过拟合", "zh/tutorial/"), ("zh", "分词器", "zh/guide/")],
)  # fmt: skip
def test_the_search_finds_pages_and_leads_to_them(
    site: tuple[Path, str], browser: Chrome, language: str, words: str, page: str
) -> None:
    show(browser, f"{site[1]}{language}/")
    box = element(browser, "input.md-search__input")
    box.send_keys(words)
    results = until(browser, lambda b: b.find_elements(By.CSS_SELECTOR, "a.md-search-result__link"))
    links = [str(result.get_attribute("href")) for result in results]
    assert any(page in link for link in links), links
    box.send_keys(Keys.ARROW_DOWN, Keys.ENTER)
    until(browser, lambda b: b.current_url != f"{site[1]}{language}/")
    assert re.search(words, element(browser, "article").text)


def test_the_colours_can_be_switched(site: tuple[Path, str], browser: Chrome) -> None:
    show(browser, f"{site[1]}en/")
    element(browser, "label[title='Dark colours']").click()
    until(browser, lambda b: b.find_element(By.TAG_NAME, "body").get_attribute("data-md-color-scheme") == "slate")


def test_a_model_works_on_the_site(site: tuple[Path, str], browser: Chrome) -> None:
    show(browser, f"{site[1]}en/guide/page/")
    element(browser, "a[href$='model.html']").click()
    until(browser, lambda b: b.current_url == f"{site[1]}model.html")
    until(browser, lambda b: len(b.find_elements(By.CLASS_NAME, "token")) > 10)
    assert len(browser.find_elements(By.CSS_SELECTOR, "#knows-bars .bar")) == 4
    log = browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert [entry for entry in log if entry["level"] == "SEVERE" and "favicon" not in entry["message"]] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_first_page_leads_to_the_readers_language(site: tuple[Path, str], browser: Chrome, language: str) -> None:
    agent = browser.execute_script("return navigator.userAgent")
    wanted = {"userAgent": agent, "acceptLanguage": {"en": "en-GB", "zh": "zh-CN"}[language]}
    browser.execute_cdp_cmd("Emulation.setUserAgentOverride", wanted)
    browser.get(site[1])
    until(browser, lambda b: b.current_url == f"{site[1]}{language}/")
