"""`fgonnx evaluate`: what it writes, that it goes on where it stopped, and what it says about bad input."""

import csv
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from fgonnx.audit.evaluate import journal
from tests import skips
from tests.cli_support import IMAGES, ROOT, SHAPES, SMALL, good, model, refused, run, written

DRAWN = ("--methods", "fullgrad,gradient", "--measures", "sparseness,deletion:steps=4")
QUICK = ("--preprocess", "unit", "--methods", "fullgrad,gradient", "--measures", "sparseness", "--batch-size", "2")


@pytest.fixture
def small(tmp_path):
    return model(SMALL, tmp_path / "small.onnx")


@pytest.fixture
def photos(tmp_path):
    return pictures(tmp_path / "photos")


def pictures(folder, count=3, size=(12, 10), seed=0):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 255, (*size, 3), np.uint8))
    return folder


def evaluate(small, data, out, *more):
    pictures_of_maps = () if more[: len(DRAWN)] == DRAWN else ("--shown", "0")
    return run("evaluate", small, data, "-o", out, *QUICK, *pictures_of_maps, *more)


def ended(code, result):
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def results(out):
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def summary(out):
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))


def test_writes_results_summary_figures_and_one_page(small, photos, tmp_path):
    out = tmp_path / "out"
    ended(0, evaluate(small, photos, out, *DRAWN))
    assert {
        "index.html",
        "results.csv",
        "summary.csv",
        "summary.json",
        "journal.jsonl",
        "maps.png",
        "maps.svg",
        "deletion_steps=4.png",
        "deletion_steps=4.svg",
    } <= set(written(out))
    rows = results(out)
    assert len(rows) == 3 * 2 * 2
    assert {(r["image"], r["method"], r["measure"]) for r in rows} == {
        (f"{i}.png", method, measure)
        for i in range(3)
        for method in ("fullgrad", "gradient")
        for measure in ("sparseness", "deletion:steps=4")
    }
    for entry in summary(out)["results"]:
        values = [
            float(r["value"]) for r in rows if (r["method"], r["quantity"]) == (entry["method"], entry["quantity"])
        ]
        assert entry["mean"] == pytest.approx(np.mean(values))
        assert min(values) <= entry["low"] <= entry["mean"] <= entry["high"] <= max(values)


def test_the_page_is_whole_and_loads_nothing(small, photos, tmp_path):
    ended(0, evaluate(small, photos, tmp_path / "out", *DRAWN))
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.feed(page)
    sources = [attributes["src"] for tag, attributes in tags if tag == "img"]
    assert len(sources) == 2
    assert all(s.startswith("data:image/") for s in sources)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in tags}


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_results(small, photos, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    ended(0, evaluate(small, photos, whole, *DRAWN))
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for kept, torn in ((1, b""), (4, lines[4][:20]), (len(lines) - 1, lines[-1][:-1])):
        shutil.rmtree(cut, ignore_errors=True)
        cut.mkdir()
        (cut / "journal.jsonl").write_bytes(b"".join(lines[:kept]) + torn)
        ended(0, evaluate(small, photos, cut, *DRAWN))
        for name in ("results.csv", "summary.csv", "index.html", "maps.svg"):
            assert (cut / name).read_bytes() == (whole / name).read_bytes()
        first, again = (json.loads((folder / "summary.json").read_bytes()) for folder in (whole, cut))
        del first["command"], again["command"]  # they name their folders
        assert again == first


def test_what_is_done_is_not_done_again(small, photos, tmp_path, monkeypatch):
    ended(0, evaluate(small, photos, tmp_path / "out"))
    monkeypatch.setattr(journal.Journal, "add", lambda *_: pytest.fail("measured again"))
    ended(0, evaluate(small, photos, tmp_path / "out"))


def test_methods_and_measures_may_be_added(small, photos, tmp_path):
    out = tmp_path / "out"
    ended(0, evaluate(small, photos, out))
    ended(0, evaluate(small, photos, out, "--methods", "edge", "--measures", "complexity"))
    assert {(r["method"], r["measure"]) for r in results(out)} == {("edge", "complexity")}
    ended(0, evaluate(small, photos, out, "--methods", "edge,gradient", "--measures", "complexity,sparseness"))
    assert len(results(out)) == 3 * 2 * 2


@pytest.mark.parametrize(
    ("more", "differs"), [(("--seed", "3"), "seed"), (("--limit", "2"), "data"), (("--batch-size", "3"), "batch_size")]
)
def test_a_folder_of_another_run_is_refused(more, differs, small, photos, tmp_path):
    ended(0, evaluate(small, photos, tmp_path / "out"))
    assert f"made otherwise ({differs} differ)" in ended(2, evaluate(small, photos, tmp_path / "out", *more))


def test_files_that_cannot_be_read_are_counted_named_and_left_out(small, photos, tmp_path):
    (photos / "notes.txt").write_text("no picture")
    (photos / "broken.png").write_bytes(b"\x89PNG no more")
    (photos / ".hidden").write_text("nobody minds")
    out = tmp_path / "out"
    said = ended(1, evaluate(small, photos, out))
    assert "skipped 2:" in said
    assert "notes.txt: is not a picture" in said
    assert "broken.png" in said
    assert {r["image"] for r in results(out)} == {"0.png", "1.png", "2.png"}
    assert set(summary(out)["data"]["skipped"]) == {"notes.txt", "broken.png"}
    # the same is said of a run that finds everything done
    assert "skipped 2:" in ended(1, evaluate(small, photos, out))


def test_a_folder_without_pictures_is_refused(small, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no picture" in ended(2, evaluate(small, tmp_path / "empty", tmp_path / "out"))


@pytest.mark.parametrize("names", [("0", "1"), ("dog", "n00000001")])
def test_class_folders_give_labels(names, small, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("n00000000 dog\nn00000001 cat\nn00000002 cow\nn00000003 owl\n")
    for i, name in enumerate(names):
        pictures(tmp_path / "val" / name, 2, seed=i)
    out = tmp_path / "out"
    ended(0, evaluate(small, tmp_path / "val", out, "--labels", labels, "--target", "label"))
    assert all(r["label"] == r["target"] for r in results(out))
    found = {r["image"]: (r["label"], r["predicted"]) for r in results(out)}
    assert {image.split("/")[0]: label for image, (label, _) in found.items()} == {names[0]: "0", names[1]: "1"}
    assert summary(out)["data"]["accuracy"] == np.mean([a == b for a, b in found.values()])


def test_class_folders_that_are_no_classes_are_named(small, tmp_path):
    for name in ("0", "zebra", "9"):
        pictures(tmp_path / "val" / name, 1)
    said = ended(2, evaluate(small, tmp_path / "val", tmp_path / "out"))
    assert "2 of 3 folders are not classes of this model: '9', 'zebra'" in said
    assert not (tmp_path / "out").exists()


def test_the_true_class_cannot_be_explained_where_it_is_not_known(small, photos, tmp_path):
    assert "--target label needs classes" in ended(2, evaluate(small, photos, tmp_path / "out", "--target", "label"))


def masks(folder, size=(12, 10), count=2):
    folder.mkdir()
    for i in range(count):
        mask = np.zeros(size, np.uint8)
        mask[: size[0] // 2] = 255
        cv2.imwrite(str(folder / f"{i}.png"), mask)
    return folder


WITH_MASKS = ("--measures", "energy,pointing-game", "--methods", "edge")
IN_PARTS = ("--measures", "part-removal", "--methods", "gradient")


def test_masks_are_where_the_evidence_is(small, photos, tmp_path):
    out = tmp_path / "out"
    ended(0, evaluate(small, photos, out, *WITH_MASKS, "--masks", masks(tmp_path / "masks")))
    inside = {r["image"]: r["value"] for r in results(out) if r["quantity"] == "inside"}
    assert float(inside["0.png"]) > 0
    assert inside["2.png"] == ""  # it has none
    gain = {r["image"]: r["value"] for r in results(out) if r["quantity"] == "gain"}
    assert float(gain["0.png"]) == pytest.approx(2 * float(inside["0.png"]))  # half of the picture


def test_boxes_are_masks(small, photos, tmp_path):
    drawn = masks(tmp_path / "masks")
    boxes = tmp_path / "boxes"
    boxes.mkdir()
    (boxes / "boxes.csv").write_text("image,left,top,right,bottom\n0.png,0,0,10,6\n1.png,0,0,4,6\n1.png,4,0,10,6\n")
    for out, folder in (("a", drawn), ("b", boxes)):
        ended(0, evaluate(small, photos, tmp_path / out, *WITH_MASKS, "--masks", folder))
    assert results(tmp_path / "a") == results(tmp_path / "b")


def test_a_mask_of_another_size_is_named(small, photos, tmp_path):
    wrong = masks(tmp_path / "masks", size=(9, 9), count=1)
    said = ended(1, evaluate(small, photos, tmp_path / "out", *WITH_MASKS, "--masks", wrong))
    assert "is 9 x 9 pixels, its picture 10 x 12 pixels" in said
    assert {r["image"] for r in results(tmp_path / "out")} == {"1.png", "2.png"}


def test_measures_that_need_masks_say_so(small, photos, tmp_path):
    said = ended(2, evaluate(small, photos, tmp_path / "out", *WITH_MASKS))
    assert "energy, pointing-game cannot be measured without masks: give --masks" in said


def test_an_archive_holds_pictures_classes_and_masks(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 255, (3, 64, 64, 3), np.uint8), np.array([0, 3, 5])
    mask = np.zeros((3, 64, 64), bool)
    mask[:, 10:30, 10:30] = True
    np.savez(tmp_path / "data.npz", x=x, y=y, mask=mask)
    good("evaluate", SHAPES, tmp_path / "data.npz", "-o", tmp_path / "out", *WITH_MASKS, "--target", "label")
    assert [r["target"] for r in results(tmp_path / "out")[:3]] == ["0", "3", "5"]


@pytest.mark.parametrize("kind", ["pictures", "arrays"])
def test_an_archive_holds_samples_without_each_part(kind, small, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (3, 64, 64, 3), np.uint8)
    if kind == "arrays":
        x = rng.normal(size=(3, 3, 8, 8)).astype(np.float32)
    without = np.repeat(x[:, None], 4, axis=1)
    for part in range(3):  # the samples do not have the last one
        without[:, part, 2 * part : 2 * part + 2] = 0
        without[:, part, :, 2 * part : 2 * part + 2] = 0
    np.savez(tmp_path / "data.npz", x=x, without=without)
    model = SHAPES if kind == "pictures" else small
    good("evaluate", model, tmp_path / "data.npz", "-o", tmp_path / "out", *IN_PARTS)
    values = [float(r["value"]) for r in results(tmp_path / "out") if r["quantity"] == "correlation"]
    assert len(values) == 3
    assert all(-1 <= value <= 1 for value in values)


def test_measures_of_parts_say_what_they_need(small, photos, tmp_path):
    said = ended(2, evaluate(small, photos, tmp_path / "out", *IN_PARTS))
    assert "part-removal cannot be measured without pictures of the samples without each part" in said


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.zeros(3)}, "holds no samples"),
        ({"x": np.zeros((2, 3, 8, 8), np.float32), "y": np.array([0, 7])}, "a class of 0..3 for each of the 2 samples"),
        ({"x": np.zeros((2, 3, 8, 8), np.float32), "mask": np.zeros((1, 8, 8))}, "mask has the shape"),
        (
            {"x": np.zeros((2, 3, 8, 8), np.float32), "without": np.zeros((2, 3, 8, 8), np.float32)},
            "give float32 of (2, parts, 3, 8, 8), each sample without each of its parts",
        ),
        (
            {"x": np.zeros((2, 3, 8, 8), np.float32), "without": np.zeros((2, 5, 3, 8, 8), np.uint8)},
            "without is uint8 of the shape (2, 5, 3, 8, 8); give float32",
        ),
    ],
)
def test_archives_that_do_not_fit_are_refused(arrays, message, small, tmp_path):
    np.savez(tmp_path / "data.npz", **arrays)
    assert message in refused("evaluate", small, tmp_path / "data.npz", "-o", tmp_path / "out")


def test_samples_that_hold_nan_are_left_out(small, tmp_path):
    x = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
    x[1, 0, 0, 0] = np.nan
    np.savez(tmp_path / "data.npz", x=x)
    said = ended(1, run("evaluate", small, tmp_path / "data.npz", "-o", tmp_path / "out", *QUICK, "--shown", "0"))
    assert "000001" in said
    assert {r["image"] for r in results(tmp_path / "out")} == {"000000", "000002"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--methods", "gradcam"), "gradcam"),
        (("--measures", "deletoin"), "did you mean 'deletion'"),
        (("--target", "true"), "--target true does not exist; choose one of: predicted, label"),
        (("--masks", "nowhere"), "the masks 'nowhere' are not a folder"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(more, message, small, photos, tmp_path):
    assert message in ended(2, evaluate(small, photos, tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


def test_psi_is_given_with_the_method(small, photos, tmp_path):
    out = tmp_path / "out"
    asked = ("fullgrad", "fullgrad:psi=positive", "net-fullgrad:psi=positive:focus=0.5")
    ended(0, evaluate(small, photos, out, "--methods", ",".join(asked)))
    values = {name: [r["value"] for r in results(out) if r["method"] == name] for name in asked}
    assert len({tuple(v) for v in values.values()}) == 3
    for name in ("fullgrad:psi=upwards", "grad-cam:psi=positive"):
        said = ended(2, evaluate(small, photos, tmp_path / "other", "--methods", name))
        assert "psi" in said


def test_a_method_that_does_not_go_with_the_model_is_left_out(small, photos, tmp_path):
    said = ended(1, evaluate(small, photos, tmp_path / "out", "--methods", "gradient,grad-cam:layer=nowhere"))
    assert "left out 1: grad-cam:layer=nowhere" in said
    assert {r["method"] for r in results(tmp_path / "out")} == {"gradient"}


def test_without_the_extra_it_says_what_to_install(small, photos, tmp_path, monkeypatch):
    from fgonnx.cli import evaluate as command

    monkeypatch.setattr(command, "find_spec", lambda name: None)
    said = ended(2, evaluate(small, photos, tmp_path / "out"))
    assert "pip install " in said


def test_the_command_line_starts_without_the_extra():
    code = "import sys; sys.modules.update(dict.fromkeys(('matplotlib', 'jinja2', 'scipy'))); import fgonnx.cli"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_null_baselines_come_out_last_on_the_example(tmp_path):
    sys.path.insert(0, str(ROOT / "examples"))
    import shapes

    x, y, mask = shapes.dataset(12, seed=3)
    np.savez(tmp_path / "shapes.npz", x=x, y=y, mask=mask)
    said = good(
        "evaluate",
        SHAPES,
        tmp_path / "shapes.npz",
        "-o",
        tmp_path / "out",
        "--methods",
        "fullgrad,edge,random",
        "--measures",
        "pixel-perturbation,insertion:steps=20,energy",
    )
    assert re.search(r"measured on 12 images", said)
    means = {
        (e["measure"], e["method"]): e["mean"] for e in summary(tmp_path / "out")["results"] if e["quantity"] != "gain"
    }
    for null in ("edge", "random"):
        assert means["pixel-perturbation", "fullgrad"] < means["pixel-perturbation", null]
        assert means["insertion:steps=20", "fullgrad"] > means["insertion:steps=20", null]
        assert means["energy", "fullgrad"] > means["energy", null]


@pytest.mark.slow
def test_the_shipped_pictures_are_measured_without_any_option(tmp_path):
    good("evaluate", SHAPES, IMAGES, "-o", tmp_path / "out", "--measures", "sparseness")
    assert {r["image"] for r in results(tmp_path / "out")} == {p.name for p in IMAGES.iterdir()}


def test_the_page_fits_a_narrow_window_and_the_keyboard_reaches_what_scrolls(small, photos, tmp_path):
    play = skips.without("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        skips.now(skips.BROWSER)
    ended(0, evaluate(small, photos, tmp_path / "out", *DRAWN))
    with play.sync_playwright() as playing:
        browser = playing.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": 400, "height": 800}, color_scheme=scheme)
            page.goto((tmp_path / "out" / "index.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= 400
            assert page.evaluate("[...document.images].every(image => image.alt)")
            assert page.evaluate("[...document.querySelectorAll('.wide')].every(e => e.tabIndex === 0 && e.ariaLabel)")
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
        browser.close()
