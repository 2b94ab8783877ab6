"""The page of `fgonnx view` in headless Chromium: what it shows, and that it can be used by everyone, offline."""

import base64
import json
import re

import numpy as np
import onnx
import pytest
from PIL import Image

import fgonnx
from fgonnx import Explainer
from fgonnx.engine.rewrite.options import Options
from fgonnx.jobs.reading import Reading
from fgonnx.pictures.read import images
from tests import skips
from tests.cli_support import IMAGES, ROOT, SHAPES, SMALL, model
from tests.view_support import Tab, browser, launched, serving, write  # noqa: F401

SCHEMA = ROOT / "fgonnx" / "jobs" / "record.schema.json"
LIMIT = 1e-3  # of the maximum of the map
DESKTOP = {"width": 1200, "height": 900}
LOAD = 5.0  # seconds until the page can be used, from this machine's disk


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with serving(write(tmp_path_factory.mktemp("site"))) as address:
        yield address


@pytest.fixture(scope="module")
def opened(browser, site):  # noqa: F811
    tab = Tab(browser, viewport=DESKTOP).open(site)
    yield tab
    tab.context.close()


@pytest.fixture
def tab(opened, site):
    """The page with its first picture, as after a start."""
    page = opened.page
    if page.locator("#psi").input_value() != "abs":
        opened.after(lambda: page.locator("#psi").select_option("abs"))
    opened.sample("circle.png")
    if page.locator("#all").get_attribute("aria-expanded") == "true":
        page.locator("#all").click()
    yield opened
    page.set_viewport_size(DESKTOP)
    page.emulate_media(forced_colors="none")
    assert opened.wrong == []
    assert [url for url in opened.asked if not url.startswith((site, "data:", "blob:"))] == []


def expected(name, target=None, **options):
    return Explainer(SHAPES, **options)([IMAGES / name], target)


def same_map(found, explanation):
    map_ = explanation.saliency[0]
    np.testing.assert_allclose(np.reshape(found.map, map_.shape), map_, rtol=0, atol=LIMIT * np.abs(map_).max())


class TestExplains:
    @pytest.mark.parametrize("name", ["star.png", "ring.png"])
    def test_a_picture_of_the_gallery_as_python_does(self, tab, name):
        tab.sample(name)
        found, wanted = tab.result(), expected(name)
        assert found.target == wanted.target[0]
        assert tab.text("#classes label:has(input:checked) .name") == name.removesuffix(".png")
        same_map(found, wanted)
        np.testing.assert_allclose(found.contributions, wanted.contributions[0], rtol=0, atol=1e-4)

    def test_the_class_that_is_clicked(self, tab):
        before = tab.result()
        tab.after(tab.page.locator("#classes label", has_text="ring").click)
        found = tab.result()
        same_map(found, expected("circle.png", "ring"))
        assert found.target != before.target

    def test_a_class_by_its_name(self, tab):
        tab.page.locator("#other").fill("triang")
        tab.after(lambda: tab.page.keyboard.press("Enter"))
        same_map(tab.result(), expected("circle.png", "triangle"))
        assert tab.page.locator("#classes input").count() == 6

    def test_no_class_of_that_name(self, tab):
        tab.page.locator("#other").fill("zebra")
        tab.page.keyboard.press("Tab")
        assert "no such class" in tab.page.locator("#other").evaluate("e => e.validationMessage")

    def test_the_signed_map(self, tab):
        tab.after(lambda: tab.page.locator("#psi").select_option("signed"))
        same_map(tab.result(), expected("circle.png", psi="signed"))
        assert tab.text("#low") == "against"

    def test_a_file(self, tab):
        tab.after(lambda: tab.page.locator("#file").set_input_files(IMAGES / "cross.png"))
        same_map(tab.result(), expected("cross.png"))

    @pytest.mark.parametrize("ending", ["webp", "jpg", "png"])
    def test_a_file_that_is_to_be_turned(self, tab, tmp_path, ending):
        path, exif = tmp_path / f"turned.{ending}", Image.Exif()
        exif[0x0112] = 6
        with Image.open(IMAGES / "cross.png") as image:
            sides = image.convert("RGB").resize((90, 60), box=(0, 0, 64, 50))
        sides.save(path, exif=exif, **({"lossless": True} if ending == "webp" else {}))
        tab.after(lambda: tab.page.locator("#file").set_input_files(path))
        wanted = Explainer(SHAPES)([path])
        same_map(tab.result(), wanted)
        with tab.page.expect_download() as download:
            tab.page.locator("#json").click()
        notes = json.loads(download.value.path().read_text(encoding="utf-8"))["notes"]
        assert notes[0] == images.read(path).notes[0]
        assert tab.text("#notes") == f"The picture: {notes[0]}."
        tab.sample("star.png")
        assert not tab.page.locator("#notes").is_visible()

    @pytest.mark.parametrize("event", ["drop", "paste"])
    def test_a_picture_that_is_dropped_or_pasted(self, tab, event):
        content = base64.b64encode((IMAGES / "square.png").read_bytes()).decode()
        give = """([event, content]) => {
            const data = new DataTransfer();
            const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
            data.items.add(new File([bytes], "square.png", { type: "image/png" }));
            const given = { bubbles: true, dataTransfer: data, clipboardData: data };
            const Kind = event === "drop" ? DragEvent : ClipboardEvent;
            document.body.dispatchEvent(new Kind(event, given));
        }"""
        tab.after(lambda: tab.page.evaluate(give, [event, content]))
        same_map(tab.result(), expected("square.png"))

    def test_the_camera_frame_after_frame(self, tab):
        start = tab.page.locator("#camera")
        tab.after(start.click)
        tab.after(lambda: None)
        assert tab.page.evaluate("fgonnxPage.picture.name") == "camera"
        assert start.get_attribute("aria-pressed") == "true"
        tab.page.evaluate("window.drawing = setInterval(() => fgonnxPage.stage.draw(), 1)")  # as a slider does
        for _ in range(3):
            tab.after(lambda: None)
        tab.page.evaluate("clearInterval(window.drawing)")
        start.click()
        assert start.get_attribute("aria-pressed") == "false"
        tab.page.wait_for_selector("#busy", state="hidden")
        assert len(tab.result().map) == 64 * 64

    def test_what_is_no_picture_is_refused_and_the_page_goes_on(self, tab):
        broken = {"name": "<b>x.png", "mimeType": "image/png", "buffer": b"no picture"}
        tab.after(lambda: tab.page.locator("#file").set_input_files(broken))
        assert "'<b>x.png' cannot be decoded" in tab.text("#error")
        tab.sample("star.png")
        assert not tab.page.locator("#error").is_visible()

    def test_where_a_graph_fails_no_other_map_is_left(self, tab):
        tab.page.evaluate("fgonnxPage.choice = { ...fgonnxPage.choice, file: 'data/nothing.onnx' }")
        tab.sample("ring.png")
        tab.wrong.clear()  # the browser's own line about the file
        assert "data/nothing.onnx" in tab.text("#error")
        assert tab.page.evaluate("fgonnxPage.stage.levels === null && fgonnxPage.result === null")
        assert tab.text("#sum") == ""
        assert tab.text("#classes .name >> nth=0") == "ring"
        tab.page.evaluate("fgonnxPage.choice = fgonnxPage.model.maps[0]")
        tab.sample("star.png")
        same_map(tab.result(), expected("star.png"))


class TestShows:
    def test_the_certificate(self, tab):
        found = tab.result()
        assert f"the sum of {len(found.contributions)} contributions" in tab.text("#sum")
        assert tab.page.locator("#strip > div").count() == len(found.contributions)
        assert tab.page.locator("#bars tbody tr").count() == 8
        tab.page.locator("#all").click()
        assert tab.page.locator("#bars tbody tr").count() == len(found.contributions)

    def test_a_pixel(self, tab):
        tab.page.locator("#stage").focus()
        tab.page.keyboard.press("ArrowRight")
        found = tab.result()
        said = re.match(r"column 33, row 32, map ([\d.e+-]+), ", tab.text("#probe"))
        assert float(said[1]) == pytest.approx(found.map[32 * 64 + 33], rel=1e-2)

    def test_the_time_of_every_step(self, tab):
        assert tab.page.locator("#times dt").all_inner_texts()[:4] == ["Decode", "Prepare", "Predict", "Explain"]

    def test_a_record_of_the_usual_form(self, tab):
        jsonschema = skips.without("jsonschema")
        with tab.page.expect_download() as download:
            tab.page.locator("#json").click()
        record = json.loads(download.value.path().read_text(encoding="utf-8"))
        jsonschema.validate(record, json.loads(SCHEMA.read_text(encoding="utf-8")))
        assert download.value.suggested_filename == "circle.json"
        assert record["target"]["label"] == "circle"
        assert record["input"]["sha256"] == fgonnx.jobs.samples.digest(IMAGES / "circle.png")
        x = fgonnx.Preprocessing.from_json(json.dumps(record["preprocessing"])).apply(
            images.read(IMAGES / "circle.png").rgb
        )
        assert record["tensor"] == fgonnx.jobs.provenance.array_of(x)
        assert record["completeness"]["relative"] < 1e-5

    def test_a_picture_to_save(self, tab):
        with tab.page.expect_download() as download:
            tab.page.locator("#png").click()
        with Image.open(download.value.path()) as saved:
            assert saved.size == (640, 640)


class TestForEveryone:
    def test_by_the_keyboard_alone(self, tab):
        page = tab.page

        def to(what):
            for _ in range(40):
                page.keyboard.press("Tab")
                if page.evaluate("s => document.activeElement.matches(s)", what):
                    return
            raise AssertionError(f"{what} is not reached")

        to("#gallery li:nth-child(5) button")
        tab.after(lambda: page.keyboard.press("Enter"))
        assert tab.text("#classes label:has(input:checked) .name") == "star"
        to("#classes input")
        tab.after(lambda: page.keyboard.press("ArrowDown"))
        assert tab.text("#classes label:has(input:checked) .name") != "star"
        assert page.evaluate("document.activeElement.closest('#classes') !== null")
        to("#strip")
        for key in ("Home", "ArrowRight"):
            page.keyboard.press(key)
        assert tab.text("#layer").startswith("1: ")

    def test_everything_that_is_operated_has_a_name(self, tab):
        unnamed = tab.page.evaluate(
            """() => Array.from(document.querySelectorAll("button, input, select, canvas, [role]"))
                .filter(e => !e.closest("[hidden], [aria-hidden='true'], #file, [role=alert], [role=status]"))
                .filter(e => !(e.ariaLabel || e.textContent.trim() || e.closest("label")?.textContent.trim()))
                .map(e => e.outerHTML.slice(0, 80))"""
        )
        assert unnamed == []

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_text_can_be_read(self, tab, scheme):
        tab.page.emulate_media(color_scheme=scheme)
        fronts, backs = ["--text", "--faint", "--accent", "--bad"], ["--card", "--back", "--soft"]
        pairs = tab.page.evaluate(
            """([fronts, backs]) => fronts.flatMap(front => backs.map(back => {
                const box = document.body.appendChild(document.createElement("div"));
                box.style.color = `var(${front})`; box.style.backgroundColor = `var(${back})`;
                const { color, backgroundColor } = getComputedStyle(box);
                box.remove();
                return [front, back, color, backgroundColor];
            }))""",
            [fronts, backs],
        )
        assert len({back for _, _, _, back in pairs}) == 3
        assert {f"{f} on {b}": contrast(c, d) for f, b, c, d in pairs if contrast(c, d) < 4.5} == {}

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_what_is_chosen_is_seen_in_forced_colours(self, tab, scheme):
        tab.page.emulate_media(forced_colors="active", color_scheme=scheme)
        tab.page.locator("#strip").focus()
        tab.page.keyboard.press("Home")
        looks = tab.page.evaluate(
            """() => Object.entries({
                "#views input:checked + span": "#views input:not(:checked) + span",
                "#classes label:has(input:checked)": "#classes label:has(input:not(:checked))",
                "#gallery button[aria-pressed=true]": "#gallery button[aria-pressed=false]",
                "#strip > [aria-selected=true]": "#strip > [aria-selected=false]",
            }).map(([chosen, other]) => [chosen, ...[chosen, other].map((selector) => {
                const { backgroundColor, color, outlineStyle, boxShadow } =
                    getComputedStyle(document.querySelector(selector));
                return selector.startsWith("#strip") ? { boxShadow } : { backgroundColor, color, outlineStyle };
            })])"""
        )
        assert [chosen for chosen, mine, other in looks if mine == other] == []
        for mine in (mine for chosen, mine, _ in looks if "input" in chosen):
            assert contrast(mine["color"], mine["backgroundColor"]) >= 4.5

    def test_on_a_narrow_screen(self, tab):
        tab.page.set_viewport_size({"width": 400, "height": 800})
        tab.page.locator("#all").click()
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 400
        order = [tab.page.locator(s).bounding_box()["y"] for s in ("#stage", "#classes", "#sum", "#times")]
        assert order == sorted(order)

    @pytest.mark.parametrize(("motion", "name"), [("no-preference", "sweep"), ("reduce", "none")])
    def test_without_motion(self, tab, motion, name):
        tab.page.emulate_media(reduced_motion=motion)
        assert tab.page.locator("#busy").evaluate("e => getComputedStyle(e).animationName") == name


def contrast(a, b):
    def luminance(colour):
        channels = [int(n) / 255 for n in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    light, dark = sorted([luminance(a), luminance(b)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


class TestRuns:
    def test_isolated_on_several_threads_and_soon(self, tab):
        assert tab.page.evaluate("crossOriginIsolated")
        assert float(tab.page.locator("html").get_attribute("data-loaded")) < 1000 * LOAD

    @pytest.mark.parametrize(
        ("factor", "kept"), [(1.0, "webgpu"), (1.001, "webgpu"), (1.1, "wasm"), (float("nan"), "wasm")]
    )
    def test_another_provider_is_held_against_webassembly(self, tab, factor, kept):
        """The engine of the other provider is this one, its maps changed."""
        tab.after(
            lambda: tab.page.evaluate(
                """factor => {
                    const [page, own] = [fgonnxPage, fgonnxPage.sessions];
                    window.own ??= own;
                    const changed = async (file, inputs, outputs) => {
                        const found = await window.own.run(file, inputs, outputs);
                        if (!found.outputs.saliency) return found;
                        found.outputs.saliency.data = found.outputs.saliency.data.map(x => x * factor);
                        return found;
                    };
                    page.open = async provider => ({ provider, threads: 1, run: changed, close() {} });
                    own.close = () => {};
                    page.run("webgpu");
                }""",
                factor,
            )
        )
        error = tab.page.locator("#error")
        assert tab.page.evaluate("fgonnxPage.sessions.provider") == kept
        assert error.is_visible() == (kept == "wasm")
        assert kept == "webgpu" or re.search("computes another map here|NaN", error.inner_text())
        tab.page.evaluate("fgonnxPage.sessions = window.own")

    def test_offline_from_one_file_opened_in_a_folder(self, browser, tmp_path):  # noqa: F811
        folder = write(tmp_path, single_file=True, psis=("abs",))
        assert [p.name for p in folder.iterdir()] == ["index.html"]
        tab = Tab(browser, offline=True).open((folder / "index.html").as_uri())
        same_map(tab.result(), expected("circle.png"))
        tab.context.close()
        assert tab.wrong == []
        assert {url.partition(":")[0] for url in tab.asked} <= {"file", "blob", "data"}

    def test_a_browser_that_changes_pixels_is_refused(self, browser, site):  # noqa: F811
        context = browser.new_context()
        context.add_init_script(
            """const own = OffscreenCanvasRenderingContext2D.prototype.getImageData;
            OffscreenCanvasRenderingContext2D.prototype.getImageData = function (...given) {
                const found = own.apply(this, given);
                found.data[5] ^= 1;
                return found;
            };"""
        )
        opened = context.new_page()
        opened.goto(site)
        opened.wait_for_selector("#error:not([hidden])")
        assert "this browser changes the pixels" in opened.locator("#error").inner_text()
        context.close()

    def test_a_folder_opened_without_a_server_says_what_to_do(self, browser, tmp_path):  # noqa: F811
        context = browser.new_context()
        opened = context.new_page()
        opened.goto((write(tmp_path, psis=("abs",)) / "index.html").as_uri())
        assert "--serve" in opened.locator("#error").inner_text()
        context.close()


class TestOtherModels:
    """Names that break out of nothing, and other kinds of inputs and heads."""

    HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a‮b", "", "</title>", "{{x}}")

    def test_hostile_names(self, browser, tmp_path):  # noqa: F811
        proto = onnx.load(SHAPES)
        node = next(n for n in proto.graph.node if n.op_type == "Conv")
        node.name = '<img src=x onerror="alert(2)">'
        model = tmp_path / "<i>m.onnx"
        onnx.save(proto, model)
        labels = tmp_path / "labels.json"
        labels.write_text(json.dumps(dict(enumerate(self.HOSTILE))), encoding="utf-8")
        with serving(write(tmp_path / "site", model, reading=Reading(labels=labels), psis=("abs",))) as address:
            tab = Tab(browser)
            dialogs = []
            tab.page.on("dialog", lambda d: (dialogs.append(d.message), d.dismiss()))
            tab.open(address)
            names = tab.page.locator("#classes .name").all_inner_texts()
            tab.page.locator("#all").click()
            assert tab.page.locator("main img:not(#gallery img), main script, main i > *").count() == 0
            tab.context.close()
        assert dialogs == []
        assert tab.wrong == []
        assert names[0] == self.HOSTILE[0]

    def test_half_precision_channels_last_and_several_methods(self, browser, tmp_path):  # noqa: F811
        text = """<ir_version: 8, opset_import: ["": 18]>
            g (float16[1,8,8,3] x) => (float16[1,3] y) {
              t = Transpose<perm = [0, 3, 1, 2]>(x)
              c = Conv<pads = [1, 1, 1, 1]>(t, w, b)
              r = Relu(c) p = GlobalAveragePool(r) y = Flatten(p) }"""
        proto = onnx.parser.parse_model(text)
        rng = np.random.default_rng(0)
        for name, shape in (("w", (3, 3, 3, 3)), ("b", (3,))):
            proto.graph.initializer.append(
                onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float16), name)
            )
        model = tmp_path / "half.onnx"
        onnx.save(proto, model)
        how = "unit,layout=NHWC"
        page = {"methods": ("fullgrad", "grad-cam"), "psis": ("abs", "positive")}
        with serving(write(tmp_path / "site", model, reading=Reading(preprocess=how), **page)) as address:
            tab = Tab(browser).open(address)
            found = tab.result()
            tab.after(lambda: tab.page.locator("#method").select_option("grad-cam"))
            cam, said = tab.result(), tab.text("#sum")
            tab.context.close()
        x = fgonnx.pictures.read.presets.parse(f"{how},size=8,channels=RGB,dtype=float16").apply(
            images.read(IMAGES / "circle.png").rgb
        )
        explanation = Explainer(model)(x[None])
        assert found.target == explanation.target[0]
        map_ = explanation.saliency[0]
        np.testing.assert_allclose(np.reshape(found.map, map_.shape), map_, rtol=0, atol=2e-2 * map_.max())
        assert cam.contributions is None
        assert "grad-cam has no certificate" in said
        assert tab.wrong == []


SOFTWARE_GPU = (
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
    "--ignore-gpu-blocklist",
)


@pytest.mark.slow
def test_webgpu_in_software(browser, tmp_path):  # noqa: F811
    path = model(SMALL, tmp_path / "m.onnx")
    folder = write(tmp_path / "site", path, reading=Reading(preprocess="unit"), psis=("abs",), webgpu=True)
    with serving(folder) as address, launched(browser.browser_type, *SOFTWARE_GPU) as opened:
        tab = Tab(opened).open(address)
        if not tab.page.evaluate("async () => Boolean(await navigator.gpu?.requestAdapter())"):
            skips.now(skips.BROWSER, "Chromium has no WebGPU in software here")
        before = tab.result()
        tab.after(lambda: tab.page.locator("#provider").select_option("webgpu"))
        assert "WebGPU" in tab.text("#chips")
        assert not tab.page.locator("#error").is_visible()
        after = tab.result()
    np.testing.assert_allclose(after.map, before.map, rtol=0, atol=LIMIT * max(before.map))
    assert tab.wrong == []


@pytest.fixture(scope="module")
def squeezenet(browser, shared, tmp_path_factory):  # noqa: F811
    model, photo = shared / "models" / "squeezenet1_0_fp32.onnx", shared / "images" / "burn_cat.jpg"
    reading = Reading(preprocess="caffe", labels=shared / "labels" / "synset.txt")
    folder = write(tmp_path_factory.mktemp("squeezenet"), model, reading=reading, samples=(photo,), psis=("abs",))
    with serving(folder) as address:
        tab = Tab(browser).open(f"{address}?threads=1")  # others may use the processor's cores
        yield tab, model, photo
        tab.context.close()


@pytest.mark.slow
class TestTrained:
    """SqueezeNet on the photo of a cat."""

    def test_the_map_of_the_cat_is_that_of_python(self, squeezenet):
        tab, model, photo = squeezenet
        explanation = Explainer(model, preprocess="caffe")([photo])
        found = tab.result()
        assert found.target == explanation.target[0]
        assert tab.text("#classes label:has(input:checked) .name") == "Egyptian cat"
        same_map(found, explanation)

    def test_is_explained_in_at_most_three_times_its_inference(self, squeezenet):
        tab, _, _ = squeezenet
        ratios = []
        for _ in range(5):
            tab.sample("burn_cat.jpg")
            ratios.append(tab.page.evaluate("fgonnxPage.result.ms / fgonnxPage.prediction.ms"))
        assert min(ratios) < 3


def test_options_reach_the_page(browser, tmp_path):  # noqa: F811
    folder = write(tmp_path, options=Options(head="output"), profiles=("full", "paper"), psis=("positive",))
    with serving(folder) as address:
        tab = Tab(browser).open(address)
        tab.after(lambda: tab.page.locator("#profile").select_option("paper"))
        same_map(tab.result(), expected("circle.png", psi="positive", profile="paper", head="output"))
        tab.context.close()
    assert tab.wrong == []
