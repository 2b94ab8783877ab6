"""The paper's experiments: toy examples with known answers, verdicts, the command on its smallest setting, the page."""

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import parser

from tests import skips

skips.without("jinja2")
skips.without("matplotlib")
skips.without("scipy")

from benchmarks.paper import __main__ as command  # noqa: E402
from benchmarks.paper import ablation, perturbation, record, toys  # noqa: E402
from benchmarks.paper.page import page, verdict  # noqa: E402

ROOT = Path(__file__).parents[1]
STORED = command.stored(ROOT / "docs" / "paper")


@pytest.fixture(scope="module")
def found():
    return toys.run()


def close(values):
    return pytest.approx(values, abs=1e-5)


# Toy examples.


def test_a_saturated_pixel_has_no_gradient_and_all_its_evidence_in_the_biases(found):
    sweep = found["saturation"]["sweep"]
    x = np.array(sweep["at"])
    assert sweep["score"] == close(np.minimum(x, 1))
    assert sweep["full-gradient"] == close(np.minimum(x, 1))
    assert sweep["gradient-x-input"] == close(np.where(x < 1, x, 0))
    assert sweep["biases"] == close(np.where(x < 1, 0, 1))
    assert sweep["integrated-gradients"] == pytest.approx(np.minimum(x, 1), abs=0.02)  # quadrature over a kink


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gradient", [0, 1, 1, 1]),
        ("gradient-x-input", [0, 0.5, 0, 0]),
        ("fullgrad, signed", [1, 0.5, 0, 0]),
        # the site of the outer bias is constant and vanishes; 1 of the input, |-1| of the inner bias where it is active
        ("fullgrad, abs", [0, 2, 1, 1]),
        ("fullgrad, positive", [0, 1, 0, 0]),
    ],
)
def test_maps_of_a_saturated_pixel(found, name, expected):
    assert found["saturation"]["maps"][name] == close(expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gradient-x-input", [0, 0, 0, 0]),
        ("integrated-gradients", [0, -1, -1, -1]),
        ("fullgrad, signed", [1, 0, 0, 0]),
        ("fullgrad, abs", [1, 0, 0, 0]),
    ],
)
def test_a_black_pixel_that_is_the_evidence(found, name, expected):
    assert found["darkness"]["maps"][name] == close(expected)


def test_only_the_full_gradient_follows_a_bias(found):
    bias = found["bias"]
    b = np.array(bias["at"])
    assert bias["score"] == close(1 + 4 * b)
    assert bias["full-gradient"] == close(1 + 4 * b)
    for blind in toys.ATTRIBUTIONS:
        assert bias[blind] == close(np.ones_like(b))


@pytest.mark.parametrize("number", range(len(toys.MAPS)), ids=toys.MAPS)
def test_two_networks_share_a_map_and_not_the_score(found, number):
    first, second = found["pairs"][number]["networks"]
    assert first["map"] == close(second["map"])
    for network in (first, second):
        *w, b = network["parameters"]
        assert network["score"] == close(toys.X @ w + b)  # both are in their linear piece
    assert abs(first["score"] - second["score"]) > 0.1


@pytest.mark.parametrize(
    ("name", "complete", "weakly_dependent"),
    [
        ("gradient", False, True),
        ("gradient-x-input", False, False),
        ("fullgrad, signed", True, False),
        ("fullgrad, abs", False, False),
        ("full-gradient (gradient and bias-gradients)", True, True),
    ],
)
def test_no_map_is_complete_and_weakly_dependent_but_the_full_gradient_is(found, name, complete, weakly_dependent):
    row = next(row for row in found["axioms"] if row["map"] == name)
    assert (row["error"] < 1e-5, row["change"] < 1e-6) == (complete, weakly_dependent)


# Differences, picture by picture.


def values(**methods):
    return {(m, "measure", "change"): dict(zip("abcd", v, strict=True)) for m, v in methods.items()}


@pytest.mark.parametrize(
    ("other", "sign"),
    [([2.0, 3.0, 4.0, 5.5], 1), ([0.0, 1.0, 2.0, 3.5], -1), ([2.0, 1.0, 4.0, 3.0], 0), ([np.nan] * 4, 0)],
)
def test_a_difference_counts_where_its_interval_is_on_one_side_of_zero(other, sign):
    rows = record.against(
        values(ours=[1.0, 2.0, 3.0, 4.0], other=other), "measure", "change", ["ours", "other"], "ours"
    )
    assert "difference" not in rows[0]
    assert record.sign(rows[1]["difference"]) == sign


def test_a_difference_is_taken_of_the_same_pictures():
    found = values(ours=[1.0, 20.0, 300.0, 4000.0], other=[2.0, 21.0, 301.0, 4001.0])
    del found["other", "measure", "change"]["b"]
    (row,) = record.against(found, "measure", "change", ["other"], "ours")
    assert (row["difference"]["mean"], row["difference"]["count"]) == (1.0, 3)


# The page.


@pytest.mark.parametrize(
    ("sign", "expected"),
    [
        (1, ("agrees", "less than random, gradient, grad-cam")),
        (0, ("open", "less than random, gradient; not distinguishable from grad-cam")),
        (-1, ("disagrees", "less than random, gradient; more than grad-cam")),
    ],
)
def test_a_verdict_follows_from_the_differences(sign, expected):
    signs = {
        "random": 1,
        "gradient": 1,
        "grad-cam": sign,
        "simple-fullgrad": -1,
    }  # the last is not in the paper's figure
    means = [{"method": m, "difference": {"low": s - 0.5, "high": s + 0.5}} for m, s in signs.items()]
    assert verdict([{"method": "fullgrad"}, *means], 1, ("less than", "more than")) == expected


def test_the_page_is_what_the_records_render_to():
    written = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    assert page(STORED) == written, "run python -m benchmarks.paper page"


def test_every_record_has_its_figure_and_every_figure_its_record():
    assert set(STORED) == {"perturbation", "grid", "toys", "ablation"}
    assert {p.stem for p in (ROOT / "docs" / "paper").glob("*.png")} == set(STORED)


@pytest.mark.slow
def test_the_command_on_its_smallest_setting(tmp_path):
    example = str(ROOT / "examples" / "shapes.onnx")
    arguments = [
        "--out",
        str(tmp_path / "runs"),
        "--docs",
        str(tmp_path / "docs"),
        "--images",
        "2",
        "--shapes",
        "2",
        "--grid-images",
        "2",
        "--methods",
        "random,gradient,fullgrad",
        "--network",
        example,
        "--pictures",
        str(ROOT / "examples" / "images"),
        "--threads",
        "1",
    ]
    command.main(arguments)
    results = tmp_path / "docs" / "paper"
    written = command.stored(results)
    assert set(written) == {"perturbation", "grid", "toys", "ablation"}
    assert all((results / f"{part}.png").stat().st_size > 5000 for part in written)
    text = (tmp_path / "docs" / "paper.md").read_text(encoding="utf-8")
    assert text == page(written)
    assert all(f"](paper/{part}.png)" in text for part in written)
    (network,) = written["perturbation"]["networks"]
    assert network["images"] == 2
    assert set(network["measures"]) == set(perturbation.MEASURES)
    assert [row["method"] for row in written["ablation"]["measures"]["energy"]["means"]] == [
        *ablation.VARIANTS,
        *ablation.OTHERS,
    ]

    journals = list((tmp_path / "runs").rglob("journal.jsonl"))
    before = {path: path.read_bytes() for path in journals}
    command.main(["ablation", *arguments])
    assert len(journals) == 3
    assert {path: path.read_bytes() for path in journals} == before  # nothing was measured twice
    again = json.loads((results / "ablation.json").read_text(encoding="utf-8"))
    assert again["measures"] == written["ablation"]["measures"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["perturbance"], "there is no part perturbance; there are toys, grid"),
        (["perturbation", "--network", "none.onnx=tf"], "none.onnx; give --network and --pictures"),
    ],
)
def test_a_wrong_request_is_refused(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        command.main([*arguments, "--docs", str(tmp_path)])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("side", "share"), [(7, 0.0), (8, 15 / 64)])
def test_pixels_that_a_network_does_not_read(side, share):
    """Windows of 3 with a stride of 2 cover 7 pixels; an eighth row and column are left over."""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 18]>
        strided (float[N,1,{side},{side}] x) => (float[N,9] y)
        <float[1,1,3,3] w = {{1, 2, 3, 4, 5, 6, 7, 8, 9}}, int64[2] shape = {{-1, 9}}> {{
            c = Conv<strides = [2, 2]>(x, w)  y = Reshape(c, shape)
        }}"""
    )
    assert perturbation.unread(model, samples=64) == share
