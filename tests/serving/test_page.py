"""The web page in a real Chromium: by mouse, by keyboard, as a screen reader is told of it, and without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image
from served import Direct

from evodeploy.engines.opener import open_engine
from evodeploy.serving.app import create_app
from evodeploy.serving.settings import Limits

pytestmark = pytest.mark.slow

SAMPLE = Path(__file__).parents[2] / "sample"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    from evodeploy.exporter.to_onnx import onnx_from_model
    from evodeploy.models.checkpoint import load_checkpoint
    from evodeploy.onnx_files import write_onnx

    path = tmp_path_factory.mktemp("page") / "digits.onnx"
    write_onnx(onnx_from_model(load_checkpoint(SAMPLE / "digits.pth"), tokens=True), path)
    with open_engine(path, "onnxruntime") as engine:
        yield Direct(engine)


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("here is no Chromium: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, digits, listening):
    """A page that may talk to the service alone; whatever goes wrong in it fails the test."""
    address = listening(create_app(lambda: digits, "digits", Limits()))
    opened = browser.new_page(viewport={"width": 1000, "height": 900})
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    opened.on("filechooser", lambda _: None)  # Playwright begins to watch for one at the first listener, not at once
    opened.on(
        "request", lambda r: None if f"//{address}/" in r.url or r.url.startswith("blob:") else wrong.append(r.url)
    )
    opened.goto(f"http://{address}/")
    opened.wait_for_selector("#model:has-text('digits')")  # nothing that evaluates text: the page forbids it
    yield opened
    opened.close()
    assert wrong == []


def colours(page, selector):
    script = f"""() => {{ const c = document.querySelector({selector!r});
        return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; }}"""
    return page.evaluate(script)


def test_a_picture_gets_its_classes_and_its_tokens(page, tmp_path):
    assert page.inner_text("#model") == "evo_deit_digits, 64 pixels, FP32; keeps 50 %, 50 % of the tokens"
    page.set_input_files("#file", SAMPLE / "images" / "digit-7-0.png")
    page.wait_for_selector("#answer:not([hidden])")
    labels = page.locator("#labels li")
    assert labels.count() == 5
    assert page.is_hidden("#token")
    assert labels.first.inner_text().split("\n")[0] == "7"
    assert page.inner_text("#status").startswith("digit-7-0.png: 7, ")
    assert page.locator("#maps figure").count() == 2
    assert page.locator("#maps figcaption").first.inner_text() == "Selection 1: 32 of 64 tokens stayed"
    assert colours(page, "#maps canvas") != colours(page, "#canvas")
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert Image.open(tmp_path / "page.png").height > 700


def test_it_is_used_by_keyboard(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    outline = page.evaluate("getComputedStyle(document.getElementById('drop')).outlineStyle")
    assert outline == "solid"
    with page.expect_file_chooser() as chosen:
        page.keyboard.press("Enter")
    chosen.value.set_files(SAMPLE / "images" / "digit-3-0.png")
    page.wait_for_selector("#status:has-text(': 3, ')")


def test_what_changes_is_announced_and_named(page):
    assert page.get_attribute("#status", "aria-live") == "polite"
    assert page.get_by_label("Drop a picture here").count() == 1
    page.set_input_files("#file", SAMPLE / "images" / "digit-3-0.png")
    page.wait_for_selector("#answer:not([hidden])")
    assert page.get_by_role("img", name="The picture as the network sees it").count() == 1
    assert page.get_by_role("img", name="Selection 2: 32 of 64 tokens stayed").count() == 1
    assert page.get_by_role("heading", level=1).count() == 1


def test_a_picture_that_is_none_is_told(browser, digits, listening, tmp_path):
    address = listening(create_app(lambda: digits, "digits", Limits()))
    (tmp_path / "broken.png").write_bytes(b"no image")
    page = browser.new_page()
    page.goto(f"http://{address}/")
    page.set_input_files("#file", tmp_path / "broken.png")
    page.wait_for_selector("#status.wrong")
    assert "not a readable image" in page.inner_text("#status")
    assert page.is_hidden("#answer")
    page.close()


def test_an_elastic_model_has_a_slider_and_every_answer_its_command(browser, listening, small_elastic):
    with open_engine(small_elastic, "onnxruntime") as engine:
        backend = Direct(engine)
        address = listening(create_app(lambda: backend, "small", Limits()))
        page = browser.new_page(viewport={"width": 360, "height": 700})
        page.goto(f"http://{address}/")
        page.wait_for_selector("#budget:visible")
        assert page.get_by_label("Tokens to keep").count() == 1
        assert (page.get_attribute("#ratio", "min"), page.input_value("#ratio")) == ("0.1", "0.5")
        page.set_input_files("#file", SAMPLE / "images" / "digit-7-0.png")
        page.wait_for_selector("#status:has-text('keeping 50 %, 50 %')")
        page.focus("#ratio")
        page.keyboard.press("End")
        page.wait_for_selector("#status:has-text('keeping 100 %, 100 %')")
        expected = f"curl --data-binary '@digit-7-0.png' 'http://{address}/v1/predict?keep_ratio=1'"
        assert page.inner_text("#curl") == expected
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.close()


def test_a_token_is_asked_for(browser, digits, listening):
    address = listening(create_app(lambda: digits, "digits", Limits(), "secret"))
    page = browser.new_page()
    page.goto(f"http://{address}/")
    page.wait_for_selector("#token:visible")
    page.fill("#token", "secret")
    page.keyboard.press("Enter")
    page.wait_for_selector("#model:has-text('digits')")
    page.set_input_files("#file", SAMPLE / "images" / "digit-5-0.png")
    page.wait_for_selector("#status:has-text(': 5, ')")
    page.close()


def test_the_interface_is_described_without_a_network(page):
    page.click("text=The interface of this server")
    page.wait_for_selector(".path")
    assert page.locator(".path").count() == 10
    assert "POST /v1/predict" in page.inner_text("main")
