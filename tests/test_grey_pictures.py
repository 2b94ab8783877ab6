"""Pictures for models without an axis of channels: (N, H, W), (H, W), rows of a recurrent network."""

import cv2
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fgonnx.errors import PreprocessingError
from fgonnx.jobs.reading import completed
from fgonnx.pictures.read.complete import complete
from fgonnx.pictures.read.preprocess import Preprocessing
from tests.cli_support import good
from tests.support import draw, model

WEIGHTS = draw(seed=3, k=(4, 1, 3, 3), v=(4, 5), m=(120, 5), gate=(1, 12, 10), again=(1, 12, 4)) | {
    "first": np.array([0]),
    "second": np.array([1]),
    "both": np.array([0, 1]),
    "flat": np.array([-1, 120]),
}
CONV = "c = Conv<pads=[1,1,1,1]>(u, k) r = Relu(c) p = GlobalAveragePool(r) q = Flatten(p) y = MatMul(q, v)"
NETS = {
    "convolution": ("float[N,12,10] x", f"u = Unsqueeze(x, second) {CONV}", "float[N,5] y", (12, 10)),
    "convolution, no batch": ("float[12,10] x", f"u = Unsqueeze(x, both) {CONV}", "float[1,5] y", (12, 10)),
    "convolution, free sizes": ("float[N,H,W] x", f"u = Unsqueeze(x, second) {CONV}", "float[N,5] y", (20, 16)),
    "dense": ("float[N,12,10] x", "f = Reshape(x, flat) y = MatMul(f, m)", "float[N,5] y", (12, 10)),
    "dense, bytes": (
        "uint8[N,12,10] x",
        "a = Cast<to=1>(x) f = Reshape(a, flat) y = MatMul(f, m)",
        "float[N,5] y",
        None,
    ),
    "rows": (
        "float[N,12,10] x",
        "t = Transpose<perm=[1,0,2]>(x) o, h = GRU<hidden_size=4>(t, gate, again) s = Squeeze(h, first) "
        "y = MatMul(s, v)",
        "float[N,5] y",
        (12,),
    ),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("kind", ["panel", "overlay"])
def test_a_picture_is_read_as_grey(name, kind, tmp_path):
    inputs, body, output, size = NETS[name]
    used = {n: a for n, a in WEIGHTS.items() if n in body.replace(",", " ").replace(")", " ").replace("(", " ").split()}
    source = model(f"({inputs}) => ({output}) {{ {body} }}", weights=used)
    onnx.save(source, tmp_path / "net.onnx")
    photo = np.random.default_rng(0).integers(0, 255, (20, 16, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), photo)
    pre = "raw" if size is None else "scale=1/255"
    good(
        *("explain", tmp_path / "net.onnx", tmp_path / "a.png", "-o", tmp_path / "out"),
        *("--preprocess", f"{pre},interpolation=nearest", "--picture", kind),
    )
    map_ = np.load(tmp_path / "out" / "a.npy")
    assert map_.shape == (size or (12, 10))
    assert map_.any()


@pytest.mark.parametrize(("layout", "dims"), [("NHW", (None, 12, 10)), (None, (1, 12, 10))])
def test_the_array_is_the_grey_picture(layout, dims):
    how = complete(Preprocessing(layout=layout, scale=1 / 255), dims, np.float32)
    photo = np.random.default_rng(0).integers(0, 255, (12, 10, 3), dtype=np.uint8)
    assert (how.layout, how.channels, how.size) == ("NHW", "GRAY", (12, 10))
    np.testing.assert_allclose(how.apply(photo), cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY) / 255, rtol=1e-6)
    assert Preprocessing.from_json(how.to_json()) == how


@pytest.mark.parametrize(
    ("pre", "dims", "message"),
    [
        (Preprocessing(layout="NHW"), (1, 1, 12, 10), "layout NHW does not fit"),
        (Preprocessing(layout="NCHW"), (1, 12, 10), "layout NCHW does not fit"),
        (Preprocessing(channels="RGB"), (1, 12, 10), "channels=RGB does not fit"),
        (Preprocessing(), (1, 12), "has 2 axes and a picture needs 4"),
    ],
)
def test_what_does_not_fit_is_refused(pre, dims, message):
    with pytest.raises(PreprocessingError, match=message):
        complete(pre, dims, np.float32)


FREE = {
    "one side": ("float[N,1,12,W] x", "12,18"),
    "both sides": ("float[N,1,H,W] x", "12,18"),
    "the channels too": ("float[N,C,H,W] x", "12,18"),
}
COMMANDS = {
    "explain": ("explain", "NET", "PICTURE", "-o", "OUT"),
    "check": ("check", "NET", "PICTURE"),
    "compare": ("compare", "NET", "NET", "PICTURE", "-o", "OUT"),
    "evaluate": ("evaluate", "NET", "FOLDER", "-o", "OUT", "--methods", "gradient", "--measures", "deletion"),
}


@pytest.mark.parametrize("declared", FREE)
@pytest.mark.parametrize("command", COMMANDS)
def test_pictures_have_the_sizes_that_are_given(command, declared, tmp_path):
    inputs, sides = FREE[declared]
    body = "c = Conv<pads=[1,1,1,1]>(x, k) r = Relu(c) p = GlobalAveragePool(r) q = Flatten(p) y = MatMul(q, v)"
    used = {name: WEIGHTS[name] for name in ("k", "v")}
    onnx.save(model(f"({inputs}) => (float[N,5] y) {{ {body} }}", weights=used), tmp_path / "net.onnx")
    (tmp_path / "in").mkdir()
    photo = np.random.default_rng(0).integers(0, 255, (20, 16, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "in" / "a.png"), photo)
    known = {"NET": "net.onnx", "PICTURE": "in/a.png", "FOLDER": "in", "OUT": "out"}
    asked = [tmp_path / known[word] if word in known else word for word in COMMANDS[command]]
    good(*asked, "--preprocess", "gray,scale=1/255,mean=0.5,std=0.5", "--input-shape", f"1,1,{sides}")
    if command == "explain":
        assert np.load(tmp_path / "out" / "a.npy").shape == (12, 18)


def test_a_shape_that_contradicts_the_preprocessing_is_refused():
    pre = Preprocessing(channels="GRAY", size=(8, 8))
    with pytest.raises(PreprocessingError, match="size 8x8 does not fit"):
        completed(pre, ir.val("x", ir.DataType.FLOAT, ("N", 1, "H", "W")), (1, 1, 12, 18))
