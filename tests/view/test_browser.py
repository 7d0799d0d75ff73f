"""The viewer in a real browser, Debian's Chromium without WebGL: what a person sees and does."""

import shutil
from collections.abc import Iterator

import pytest

from heatproof.live import joined
from heatproof.live.study_images import StudyImages
from heatproof.view.live_collection import LiveCollection
from heatproof.view.study_collection import StudyCollection
from heatproof.view.viewer import Viewer

from .serve import served
from .stores import CLASSES, NASTY

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-webgl", "--disable-3d-apis"),
]
#: Milliseconds after which a test gives up: far more than any answer takes.
PATIENCE = 20_000


@pytest.fixture(scope="module")
def browser() -> Iterator:
    api = pytest.importorskip("playwright.sync_api", reason="Playwright's Python client is not installed")
    with api.sync_playwright() as running:
        found = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def stored(study):
    with served(Viewer(StudyCollection(study, StudyImages(study)))) as url:
        yield url


@pytest.fixture(scope="module")
def at_work():
    asked = {"methods": ["gradcam", "layercam"], "target": "predicted", "layers": None, "options": {}, "limit": 4}
    live = joined.network("shapes", {}, "cpu", ["shapes"], asked)
    with served(Viewer(LiveCollection(live), live)) as url:
        yield url


class Seen:
    """A page, with what it asked for and what it complained about."""

    def __init__(self, browser, url: str, width: int = 1280, height: int = 900):
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(PATIENCE)
        self.elsewhere: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", self._asked)
        self.page.on("console", lambda told: self.errors.append(told.text) if told.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self._url = url
        self.page.goto(url)
        self.page.wait_for_selector(".hp-map img")

    def _asked(self, request) -> None:
        if not request.url.startswith((self._url, "data:", "blob:")):
            self.elsewhere.append(request.url)

    @property
    def map(self) -> str:
        """The first map's pixels."""
        return self.page.eval_on_selector(".hp-over", "image => image.src")

    @property
    def image(self) -> str:
        """The image's pixels."""
        return self.page.eval_on_selector(".hp-image img", "image => image.src")

    def until(self, script: str, given=None):
        """Waits until a condition holds in the page."""
        self.page.wait_for_function(script, arg=given)

    def slide(self, name: str, value: float) -> None:
        """Moves a slider and waits until the first map is another one."""
        before = self.map
        self.page.locator(f"#{name} input[type=range]").evaluate(
            "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', {bubbles: true})) }",
            str(value),
        )
        self.until("before => document.querySelector('.hp-over')?.src !== before", before)

    def title(self) -> str:
        """The name of the image that is shown."""
        return self.page.inner_text(".hp-stage h2")

    def close(self) -> None:
        """Nothing was asked of another address, and nothing failed."""
        self.page.close()
        assert not self.elsewhere and not self.errors


def test_a_person_looks_at_stored_results(browser, stored):
    seen = Seen(browser, stored)
    assert not seen.page.evaluate("!!document.createElement('canvas').getContext('webgl')")
    # the first image, and one chosen from the list
    assert seen.title() == seen.page.inner_text(".hp-row[aria-current] b")
    seen.page.locator(".hp-row").nth(4).click()
    seen.until("name => document.querySelector('.hp-stage h2').innerText !== name", seen.title())
    assert seen.title() == "04.png" == seen.page.inner_text(".hp-row[aria-current] b")
    # sliders
    seen.slide("hp-opacity", 0.9)
    seen.slide("hp-threshold", 0.5)
    clean, said = seen.image, seen.page.inner_text(".hp-says")
    seen.slide("hp-severity", 3)
    assert seen.image != clean and seen.page.inner_text(".hp-says") != said
    assert "under gaussian-noise, severity 3" in seen.page.inner_text(".hp-says")
    assert seen.page.inner_text(".hp-noise tr[aria-current] th") == "3"
    assert "mean of 2 comparisons" in seen.page.inner_text("#hp-numbers")
    seen.page.screenshot()
    seen.close()


def test_filters_and_names(browser, stored):
    seen = Seen(browser, stored)
    seen.page.locator("#hp-finding button").first.click()
    seen.page.get_by_label("Prediction changes under noise").check()
    seen.until("document.querySelector('.hp-count').innerText.startsWith('8 of 30')")
    assert seen.page.locator(".hp-row em.hp-changed").count() == 8
    seen.page.get_by_label("Prediction changes under noise").uncheck()
    for name in NASTY:
        seen.page.locator("#hp-search input, #hp-search textarea").first.fill(name)
        seen.until("document.querySelector('.hp-count').innerText.startsWith('1 of 30')")
        seen.until("name => document.querySelector('.hp-row b')?.innerText === name", name)
        seen.page.locator(".hp-row").first.click()
        seen.until("name => document.querySelector('.hp-stage h2').innerText === name", name)
        assert any(words in seen.page.inner_text(".hp-says") for words in CLASSES)
        if name == NASTY[1]:
            seen.until("getComputedStyle(document.querySelector('.hp-stage h2 bdi')).unicodeBidi === 'isolate'")
    seen.close()


def test_keys(browser, stored):
    seen = Seen(browser, stored)
    first = seen.title()
    seen.page.keyboard.press("ArrowRight")
    seen.until("name => document.querySelector('.hp-stage h2').innerText !== name", first)
    seen.page.keyboard.press("ArrowLeft")
    seen.until("name => document.querySelector('.hp-stage h2').innerText === name", first)
    seen.page.keyboard.press("o")
    assert seen.page.eval_on_selector(".hp-over", "image => getComputedStyle(image).visibility") == "hidden"
    seen.page.keyboard.press("o")
    assert seen.page.eval_on_selector(".hp-over", "image => getComputedStyle(image).visibility") == "visible"
    seen.page.keyboard.press("]")
    seen.until("document.querySelector('.hp-says').innerText.includes('severity 1')")
    seen.page.keyboard.press("]")
    seen.until("document.querySelector('.hp-says').innerText.includes('severity 3')")
    assert seen.page.locator("#hp-severity input[type=number]").input_value() == "3"
    seen.page.locator("#hp-finding button").first.click()
    box = seen.page.locator("#hp-search input, #hp-search textarea").first
    box.fill("o")
    box.press("ArrowRight")  # keys that are typed belong to the box
    assert seen.title() == first
    seen.close()


def test_a_person_erases_a_region(browser, at_work):
    seen = Seen(browser, at_work)
    box = seen.page.locator(".hp-image canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    seen.page.mouse.move(x - 20, y)
    seen.page.mouse.down()
    seen.page.mouse.move(x + 20, y + 10, steps=4)
    seen.page.mouse.up()
    seen.page.wait_for_selector(".hp-effect")
    told = seen.page.inner_text("#hp-region")
    assert "Without this region the probability of" in told and "The region is" in told
    assert seen.page.locator("#hp-region tbody tr").count() == 2
    before = seen.page.inner_text(".hp-effect")
    seen.slide("hp-severity", 2)  # the same region of the noisy image
    seen.until("document.querySelector('.hp-says').innerText.includes('severity 2')")
    assert seen.page.locator(".hp-noise tbody tr").count() == 2 and before
    seen.page.click(".hp-clear")
    seen.until("!document.querySelector('.hp-effect')")
    seen.close()


@pytest.mark.parametrize("which", ["stored", "at_work"])
def test_a_narrow_screen_is_not_scrolled_sideways(browser, which, request):
    seen = Seen(browser, request.getfixturevalue(which), 390, 844)
    seen.slide("hp-severity", 1)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert seen.page.locator(".hp-image img").bounding_box()["y"] < 844
    seen.close()
