"""The web page in a real Chromium: by mouse, by keyboard, with a screen reader's roles, and without a network."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from served import Direct

from evodeploy.elastic import ElasticStage
from evodeploy.engines.opener import open_engine
from evodeploy.preprocess import cropped
from evodeploy.serving.app import create_app
from evodeploy.serving.budget import Budget
from evodeploy.serving.service import running
from evodeploy.serving.settings import Limits, Settings
from evodeploy.specs import Preprocessing

pytestmark = pytest.mark.slow

IMAGES = Path(__file__).parents[2] / "sample" / "images"


@pytest.fixture(scope="module")
def digits(digits_onnx):
    with open_engine(digits_onnx, "onnxruntime") as engine:
        yield Direct(engine)


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


def facts(page):
    return [re.sub(r"\d+ ms", "N ms", each.replace("\xa0", " ")) for each in page.locator(".facts").all_inner_texts()]


def best(page):
    return page.locator(".labels li:first-child span:first-child").all_inner_texts()


def curl(page, folder):
    """What the shown command answers."""
    if shutil.which("curl") is None:
        pytest.skip("here is no curl")
    run = subprocess.run(["bash", "-c", page.inner_text("#curl")], cwd=folder, capture_output=True, check=True)
    return json.loads(run.stdout)


def test_pictures_get_their_classes_and_their_tokens(page):
    assert page.inner_text("#model") == "evo_deit_digits, 64 pixels, FP32; keeps 50\xa0% of the tokens"
    page.set_input_files("#file", [IMAGES / "digit-7-0.png"])
    page.wait_for_selector("#status:has-text('digit-7-0.png: 7, 91.2')")
    page.set_input_files("#file", [IMAGES / f"digit-{digit}-0.png" for digit in range(6)])
    page.wait_for_selector("#status:has-text('6 pictures in ')")
    assert page.locator(".card h3").all_inner_texts() == [f"digit-{digit}-0.png" for digit in (0, 1, 2, 3, 4, 5, 7)]
    assert best(page) == list("0123457")
    assert page.locator(".labels").first.locator("li").count() == 5
    assert facts(page) == ["in N ms, keeping 50 % of the tokens"] * 7
    assert page.is_hidden("#token")
    maps = page.locator(".card").first.locator("figure")
    assert maps.all_inner_texts() == [f"Selection {number}: 32 of 64 tokens kept" for number in (1, 2)]
    assert colours(page, ".maps canvas") != colours(page, ".seen")
    page.click("text=Clear")
    assert page.is_hidden("#answers") and page.locator(".card").count() == 0


@pytest.mark.parametrize("mode", ["center", "squash"])
def test_the_crop_that_is_drawn_is_the_networks(browser, digits, listening, tmp_path, mode):
    how = Preprocessing(crop_pct=0.5, crop_mode=mode, interpolation="bilinear")
    other = copy.copy(digits)
    other.info = dataclasses.replace(digits.info, preprocessing=how)
    across, down = np.meshgrid(np.arange(480), np.arange(300))
    picture = Image.fromarray(np.stack([across // 2, down * 255 // 300, 0 * down], 2).astype(np.uint8))
    picture.save(tmp_path / "ramp.png")
    page = browser.new_page()
    page.goto(f"http://{listening(create_app(lambda: other, 'digits', Limits()))}/")
    page.wait_for_selector("#model:has-text('digits')")
    page.set_input_files("#file", tmp_path / "ramp.png")
    page.wait_for_selector("#status:has-text(' ms')")
    seen = np.array(colours(page, ".seen")).reshape(240, 240, 4)[..., :3]
    page.close()
    assert np.abs(seen - cropped(picture, 240, how).astype(int)).max() <= 4


def test_it_is_used_by_keyboard(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    outline = page.evaluate("getComputedStyle(document.getElementById('drop')).outlineStyle")
    assert outline == "solid"
    with page.expect_file_chooser() as chosen:
        page.keyboard.press("Enter")
    chosen.value.set_files([IMAGES / "digit-3-0.png", IMAGES / "digit-4-0.png"])
    page.wait_for_selector("#status:has-text('2 pictures in ')")
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.wait_for_selector("#status:has-text('sample.png: 7, ')")
    assert curl(page, "/")["labels"][0]["name"] == "7"


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_pictures_are_dropped_and_pasted(page, how):
    script = """([how, bytes]) => {
        const carried = new DataTransfer();
        for (const name of ["a.png", "b.png"]) carried.items.add(new File([new Uint8Array(bytes)], name));
        const event = how === "drop" ? new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true })
            : new ClipboardEvent("paste", { clipboardData: carried, bubbles: true });
        document.querySelector("footer").dispatchEvent(event); }"""
    page.evaluate(script, [how, list((IMAGES / "digit-5-0.png").read_bytes())])
    page.wait_for_selector("#status:has-text('2 pictures in ')")
    assert best(page) == ["5", "5"]


def test_what_changes_is_announced_and_named(page):
    assert page.get_attribute("#status", "aria-live") == "polite"
    assert page.get_by_label("Drop pictures here").count() == 1
    page.set_input_files("#file", IMAGES / "digit-3-0.png")
    page.get_by_role("img", name="Selection 2: 32 of 64 tokens kept").wait_for()
    assert page.get_by_role("img", name="digit-3-0.png as the network sees it").count() == 1
    assert page.get_by_role("region", name="Answers").get_by_role("listitem").count() == 6  # and five classes
    assert page.get_by_role("heading", level=1).count() == 1


def test_a_picture_that_is_none_is_named_among_the_others(browser, digits, listening, tmp_path):
    address = listening(create_app(lambda: digits, "digits", Limits()))
    (tmp_path / "broken.png").write_bytes(b"no image")
    page = browser.new_page()
    page.goto(f"http://{address}/")
    page.set_input_files("#file", tmp_path / "broken.png")
    page.wait_for_selector("#status.wrong:has-text('broken.png: the body is not a readable image')")
    page.set_input_files("#file", [IMAGES / "digit-3-0.png", tmp_path / "broken.png"])
    page.wait_for_selector("#status.wrong:has-text(', 1 of them not answered')")
    assert best(page) == ["3"]
    assert ["not a readable image" in each for each in facts(page)] == [False, True, True]
    page.set_input_files("#file", [{"name": "a.png", "mimeType": "image/png", "buffer": b"x"}] * 101)
    page.wait_for_selector("#status.wrong:has-text('101 pictures are more')")
    assert page.locator(".card").count() == 3
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_elastic_model_has_a_slider_and_answers_their_command_on_a_phone(browser, listening, small_elastic, scheme):
    with open_engine(small_elastic, "onnxruntime") as engine:
        backend = Direct(engine)
        address = listening(create_app(lambda: backend, "small", Limits()))
        page = browser.new_page(viewport={"width": 380, "height": 700}, color_scheme=scheme)
        page.goto(f"http://{address}/")
        page.wait_for_selector("#budget:visible")
        assert page.get_by_label("Tokens to keep").count() == 1
        assert page.get_by_label("Automatic").is_hidden()  # no target is set, for which the server would choose
        assert (page.get_attribute("#ratio", "min"), page.input_value("#ratio")) == ("0.1", "0.5")
        page.set_input_files("#file", [IMAGES / "digit-7-0.png", IMAGES / "digit-3-0.png"])
        page.wait_for_selector("#status:has-text('2 pictures in ')")
        assert facts(page) == ["in N ms, keeping 50 % of the tokens"] * 2
        page.focus("#ratio")
        page.keyboard.press("End")
        page.wait_for_selector(".card:last-child .facts:has-text('keeping 100')")
        page.wait_for_selector("#status:has-text('2 pictures in ')")
        assert facts(page) == ["in N ms, keeping 100 % of the tokens"] * 2
        expected = f"curl --data-binary '@digit-7-0.png' 'http://{address}/v1/predict?keep_ratio=1'"
        assert page.inner_text("#curl") == expected
        assert curl(page, IMAGES)["keep_ratios"] == [1.0, 1.0]
        assert page.evaluate("document.documentElement.scrollWidth") <= 380
        for selector in ("h1", "#model", ".small", "#status", "#sample", "#curl", ".facts", ".labels li", "footer a"):
            assert contrast(page, selector) >= 4.5, selector
        page.close()


def test_an_elastic_model_has_its_own_ratios_until_the_slider_is_moved(browser, listening, small_elastic):
    with open_engine(small_elastic, "onnxruntime") as engine:
        backend = Direct(engine)
        backend.info = dataclasses.replace(engine.info, keep_ratios=(0.75, 0.5))
        page = browser.new_page()
        page.goto(f"http://{listening(create_app(lambda: backend, 'small', Limits()))}/")
        page.wait_for_selector("#budget:visible")
        own = "75\xa0%, 50\xa0%"
        assert page.inner_text("#model").endswith(f"keeps {own} of the tokens") and page.inner_text("#chosen") == own
        page.set_input_files("#file", IMAGES / "digit-7-0.png")
        page.wait_for_selector("#status:has-text('digit-7-0.png: ')")
        assert facts(page) == ["in N ms, keeping 75 %, 50 % of the tokens"]
        page.focus("#ratio")
        page.keyboard.press("End")
        page.wait_for_selector(".facts:has-text('keeping 100')")
        assert page.inner_text("#chosen") == "100\xa0%"
        page.close()


@pytest.mark.parametrize(("low", "high", "shown"), [(55, 58, ("0.55", "0.58")), (7, 29, ("0.07", "0.29"))])
def test_the_ends_of_the_slider_are_those_of_the_model(browser, digits, listening, low, high, shown):
    """In floats 0.55 times 100 is above 55, and 0.29 times 100 below 29."""
    page = page_of(browser, digits, listening, ElasticStage(100, low, high))
    assert page.is_visible("#budget")
    assert (page.get_attribute("#ratio", "min"), page.get_attribute("#ratio", "max")) == shown
    page.close()


def test_a_model_that_takes_no_whole_per_cent_has_no_slider(browser, digits, listening):
    page = page_of(browser, digits, listening, ElasticStage(196, 104, 104))
    assert page.is_hidden("#budget")
    page.close()


def page_of(browser, digits, listening, stage):
    other = copy.copy(digits)
    other.info = dataclasses.replace(digits.info, keep_ratios=(stage.high / stage.tokens,), elastic=(stage,))
    page = browser.new_page()
    page.goto(f"http://{listening(create_app(lambda: other, 'digits', Limits()))}/")
    page.wait_for_selector("#model:has-text('digits')")
    return page


def test_with_a_target_the_server_chooses_the_ratio_unless_one_is_asked_for(browser, small_elastic):
    settings = Settings(small_elastic, port=0, max_batch=2, budget=Budget(30, 0.3, 0.75))
    with running(settings) as service:
        page = browser.new_page()
        page.goto(service.address)
        page.wait_for_selector("#budget:visible")
        assert "keeps 30\xa0% to 75\xa0% of the tokens, to answer within 30000 ms" in page.inner_text("#model")
        assert page.get_by_label("Automatic").is_checked() and page.get_by_label("Tokens to keep").is_disabled()
        page.set_input_files("#file", IMAGES / "digit-7-0.png")
        page.wait_for_selector("#status:has-text('digit-7-0.png: ')")
        assert facts(page) == ["in N ms, keeping 75 % of the tokens"]
        assert page.inner_text("#curl") == f"curl --data-binary '@digit-7-0.png' '{service.address}/v1/predict'"
        page.get_by_label("Automatic").uncheck()
        page.wait_for_selector(".facts:has-text('keeping 50')")
        page.keyboard.press("Enter")  # which sends the form
        page.wait_for_selector("#status:empty")
        assert page.get_by_label("Tokens to keep").is_enabled()
        page.get_by_label("Automatic").check()
        page.wait_for_selector(".facts:has-text('keeping 75')")
        page.close()


def contrast(page, selector):
    """Of a text to what is behind it, as WCAG 2 counts it: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""
    script = f"""() => {{ let on = document.querySelector({selector!r}); const ink = getComputedStyle(on).color;
        const clear = "rgba(0, 0, 0, 0)"; while (getComputedStyle(on).backgroundColor === clear) on = on.parentElement;
        return [ink, getComputedStyle(on).backgroundColor]; }}"""
    lights = []
    for colour in page.evaluate(script):
        shares = [int(each) / 255 for each in re.findall(r"\d+", colour)[:3]]
        linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in shares]
        lights.append(float(np.dot((0.2126, 0.7152, 0.0722), linear)) + 0.05)
    return max(lights) / min(lights)


def test_a_token_is_asked_for(browser, digits, listening):
    address = listening(create_app(lambda: digits, "digits", Limits(), "secret"))
    page = browser.new_page()
    page.goto(f"http://{address}/")
    page.wait_for_selector("#token:visible")
    page.fill("#token", "secret")
    page.keyboard.press("Enter")
    page.wait_for_selector("#model:has-text('digits')")
    page.set_input_files("#file", IMAGES / "digit-5-0.png")
    page.wait_for_selector("#status:has-text(': 5, ')")
    page.close()


@pytest.mark.parametrize("width", [1000, 380])
def test_the_interface_is_described_without_a_network(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.click("text=The interface of this server")
    page.wait_for_selector(".path >> nth=9")
    assert page.locator(".path").count() == 10
    predict = page.locator(".path", has_text="POST /v1/predict").inner_text()
    for expected in ("keep_ratio: number, in the query", '"probability": number', "Body, image/*: bytes"):
        assert expected in predict
    infer = page.locator(".path", has_text="POST /v2/models/{model}/infer").inner_text()
    assert '"data"?: […]  # numbers, flat or nested' in infer
    here, document = page.url.removesuffix("/docs"), page.evaluate("fetch('openapi.json').then((got) => got.json())")
    expected = [
        each["source"].replace("SERVER", here)
        for methods in document["paths"].values()
        for operation in methods.values()
        for each in operation["x-codeSamples"]
    ]
    assert page.locator(".sample").all_inner_texts() == expected
    assert page.evaluate("document.documentElement.scrollWidth") <= width
