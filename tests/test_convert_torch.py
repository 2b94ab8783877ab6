"""From PyTorch: both exporters, against torch's autograd and the literal FullGrad algorithm."""

import io
import json
import os
import zipfile
from functools import cache

import numpy as np
import onnx
import pytest

from tests import skips

torch = skips.without("torch")
skips.without("onnxscript")

from torch import nn  # noqa: E402

import fgonnx  # noqa: E402
from fgonnx import converters  # noqa: E402
from fgonnx.errors import FgonnxError  # noqa: E402
from tests.witness import literal, tokennets  # noqa: E402
from tests.witness.torchnets import NETS, SHAPES  # noqa: E402

# torch's exporters warn of their own internals
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

BUILD = {name: NETS[name] for name in ("plain", "vgg", "mobilenet_v2", "convtranspose")}
BUILD["vit"] = tokennets.NETS["vit"]
UNFOLDED = ("vgg", "convtranspose")
every_net = pytest.mark.parametrize("name", BUILD)
both_exporters = pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])


def case(name):
    build, shape = BUILD[name]
    return build(0), np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def converted(net, path, x, **options):
    return converters.convert(net, path / "net.onnx", example_input=x, **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Reports of conversions by (name, exporter, fold), each made once."""

    @cache
    def make(name, exporter, fold=True):
        net, x = case(name)
        return converted(net, tmp_path_factory.mktemp(name), x, exporter=exporter, fold=fold)

    return make


@pytest.mark.slow
@both_exporters
@every_net
def test_the_file_is_the_network(name, exporter, made):
    report = made(name, exporter)
    assert {m.verdict for m in report.measurements} == {"passed"}, report.measurements
    assert {m.quantity for m in report.measurements} == {"output output", "input-gradient", "FullGrad map"}
    assert report.worst("output") < 1e-5
    assert report.inputs["input"][0] == report.outputs["output"][0] == "N"


@pytest.mark.slow
@both_exporters
@pytest.mark.parametrize("name", UNFOLDED)
def test_the_map_is_that_of_the_literal_algorithm(name, exporter, made):
    net, x = case(name)
    found = fgonnx.Explainer(made(name, exporter, False).path, profile="reference")(x)
    truth = literal.saliency(net, x, found.target)
    assert np.abs(found.saliency - truth).max() < 1e-4 * truth.max()


# Only dynamo folds BatchNormalization into transposed convolutions.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fold"), [*((n, True) for n in BUILD if n != "convtranspose"), *((n, False) for n in UNFOLDED)]
)
def test_two_exporters_give_one_map(name, fold, made):
    x = case(name)[1]
    a, b = (fgonnx.Explainer(made(name, exporter, fold).path)(x).saliency for exporter in ("dynamo", "torchscript"))
    assert np.abs(a - b).max() < 1e-4 * b.max()


@both_exporters
@pytest.mark.parametrize("fold", [True, False])
def test_batch_normalisation_is_folded_by_choice(fold, exporter, made):
    nodes = onnx.load(made("vgg", exporter, fold).path).graph.node
    assert any(n.op_type == "BatchNormalization" for n in nodes) is not fold


@pytest.mark.parametrize(
    ("activation", "stripped"),
    [(nn.Softmax(1), "Softmax"), (nn.LogSoftmax(1), "LogSoftmax"), (nn.Sigmoid(), "Sigmoid")],
)
def test_the_logits_become_an_output(activation, stripped, tmp_path):
    net, x = case("plain")
    report = converted(nn.Sequential(net, activation), tmp_path, x)
    assert report.passed
    assert (report.head, report.head_stripped) == ("logits", stripped)
    with torch.no_grad():
        truth = net(torch.from_numpy(x)).numpy()
    found = fgonnx.Explainer(tmp_path / "net.onnx")(x).outputs["logits"]
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-5)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(3, 4)

    def forward(self, x, y):
        return torch.relu(self.a(x)) * self.b(y), self.b(y)


@both_exporters
def test_several_inputs_and_outputs(exporter, tmp_path):
    report = converted(TwoInputs().eval(), tmp_path, (torch.randn(2, 6), torch.randn(2, 3)), exporter=exporter)
    assert report.passed, report.measurements
    assert (len(report.inputs), len(report.outputs)) == (2, 2)


# files


def script_file(net, x, path):
    torch.jit.trace(net, torch.from_numpy(x)).save(path)


def program_file(net, x, path):
    free = ({0: torch.export.Dim("N")},)
    torch.export.save(torch.export.export(net, (torch.from_numpy(x),), dynamic_shapes=free), path)


@pytest.mark.parametrize(("save", "name"), [(script_file, "net.pt"), (program_file, "net.pt2")])
def test_files(save, name, tmp_path):
    net, x = case("plain")
    save(net, x, tmp_path / name)
    with pytest.raises(FgonnxError, match=r"loading it runs whatever code it names, .*--allow-pickle"):
        converted(tmp_path / name, tmp_path, x)
    assert converted(tmp_path / name, tmp_path, x, allow_pickle=True).passed


class Evil:
    """An object whose pickle runs a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("part", ["sample_inputs", "constants", "weights", "all"])
def test_a_program_that_runs_something_is_refused_before_it_does(part, tmp_path):
    net, x = case("plain")
    program_file(net, x, tmp_path / "good.pt2")
    stream = io.BytesIO()
    torch.save(Evil(f"touch {tmp_path / 'ran'}"), stream)
    with zipfile.ZipFile(tmp_path / "good.pt2") as good, zipfile.ZipFile(tmp_path / "evil.pt2", "w") as evil:
        for name in good.namelist():
            replaced = (part in name or part == "all") and not name.endswith((".json", "version", "format"))
            evil.writestr(name, stream.getvalue() if replaced else good.read(name))
    with pytest.raises(FgonnxError, match="of which torch unpickles and evaluates parts"):
        converted(tmp_path / "evil.pt2", tmp_path, x)
    assert not (tmp_path / "ran").exists()


def test_a_pickled_module_needs_a_word(tmp_path):
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.randn(2, 3, 2, 2)
    torch.save(net, tmp_path / "net.pt")
    with pytest.raises(FgonnxError, match="is a pickle: loading it runs whatever code it names"):
        converted(tmp_path / "net.pt", tmp_path, x)
    assert converted(tmp_path / "net.pt", tmp_path, x, allow_pickle=True).passed


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_state_dict_is_not_a_network(wrapped, tmp_path):
    net, x = case("plain")
    weights = net.state_dict()
    torch.save({"state_dict": weights, "epoch": 3} if wrapped else weights, tmp_path / "net.pt")
    for source in (tmp_path / "net.pt", weights):
        with pytest.raises(FgonnxError, match=r"holds only weights .* its class is missing"):
            converted(source, tmp_path, x)


class Decides(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("net", "x", "options", "message"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), Decides()), (2, 3, 8, 8), {}, "layer '1' (Decides)"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (2, 5, 8, 8), {}, "layer '0' (Conv2d)"),
        (nn.Flatten(), None, {}, "give example_input"),
        (nn.Flatten(), (2, 3), {"exporter": "other"}, "choose one of: dynamo, torchscript"),
        (nn.Flatten(), (2, 3), {"signature": "a"}, "torch knows no option signature"),
    ],
)
def test_refusals_name_the_layer(net, x, options, message, tmp_path):
    with pytest.raises(FgonnxError) as caught:
        converted(net, tmp_path, None if x is None else torch.randn(*x), **options)
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_tracing_a_decision_is_noted(tmp_path):
    report = converted(
        nn.Sequential(nn.Conv2d(3, 4, 3), Decides()), tmp_path, torch.ones(2, 3, 8, 8), exporter="torchscript"
    )
    assert any("tracing follows one branch only" in note for note in report.notes)


# the command


def test_the_command_prints_the_proof_and_writes_it_into_the_file(tmp_path):
    from tests.cli_support import good

    net, x = case("plain")
    script_file(net, x, tmp_path / "net.pt")
    (tmp_path / "labels.txt").write_text("\n".join("abcdefghij"))
    shape = ",".join(map(str, (1, *SHAPES["plain"][1:])))
    printed = good(
        "convert",
        tmp_path / "net.pt",
        "-o",
        tmp_path / "net.onnx",
        "--input-shape",
        shape,
        "--allow-pickle",
        "--preprocess",
        "unit",
        "--labels",
        tmp_path / "labels.txt",
    )
    assert "input-gradient" in printed
    assert printed.endswith("passed")
    known = {p.key: p.value for p in onnx.load(tmp_path / "net.onnx").metadata_props}
    assert json.loads(known["fgonnx.conversion"])["passed"] is True
    assert json.loads(known["fgonnx.labels"]) == list("abcdefghij")


def test_the_command_takes_a_network_from_code(tmp_path):
    from tests.cli_support import good

    (tmp_path / "own_net.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())\n"
    )
    source = f"{tmp_path / 'own_net.py'}:build"
    assert "FullGrad map" in good("convert", source, "-o", tmp_path / "net.onnx", "--input-shape", "1,3,8,8")


def test_the_command_fails_where_parity_fails(tmp_path):
    from tests.cli_support import run

    net, x = case("plain")
    script_file(net, x, tmp_path / "net.pt")
    np.save(tmp_path / "x.npy", x)
    done = run(
        "convert",
        tmp_path / "net.pt",
        "-o",
        tmp_path / "net.onnx",
        "--allow-pickle",
        "--example",
        tmp_path / "x.npy",
        "--tolerance",
        "0",
    )
    assert done.exit_code == 1, done.output
    assert "failed" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.pt"], "no such file or folder"),
        (["os.path:nothing"], "gives no network"),
        (["x.pt", "--input-shape", "a,b"], "is not a list of sizes"),
        (["x.pt", "--input-shape", "1,2", "--example", "x.npy"], "not both"),
    ],
)
def test_the_command_refuses(arguments, message, tmp_path):
    from tests.cli_support import refused

    assert message in refused("convert", *arguments, "-o", tmp_path / "net.onnx")


@pytest.mark.slow
def test_following_the_tutorial(tmp_path, monkeypatch):
    from tests.tutorials import follow

    follow("torch", tmp_path, monkeypatch)


# layers that work in place


class Added(nn.Module):
    """A residual block as torchvision writes it: the sum, too, is overwritten."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.p, self.q, self.relu = nn.BatchNorm2d(6), nn.BatchNorm2d(6), nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.q(self.b(self.relu(self.p(self.a(x)))))
        y += x
        return self.relu(y)


def trained(net):
    """Return a network whose statistics and biases are not those of the start."""
    rng = torch.Generator().manual_seed(1)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            for values in (m.running_mean, m.weight.data, m.bias.data):
                values += 0.5 * torch.randn(values.shape, generator=rng)
            m.running_var += torch.rand(m.running_var.shape, generator=rng)
    return net.eval()


HEAD = (nn.AdaptiveAvgPool2d(2), nn.Flatten())
IN_PLACE = {
    "behind BatchNormalization": (nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 6, 3)),
    "behind a convolution": (nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
    "other activations": (nn.Conv2d(3, 6, 3), nn.SiLU(inplace=True), nn.Conv2d(6, 6, 3), nn.Hardswish(inplace=True)),
    "LeakyReLU, Dropout": (
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.LeakyReLU(inplace=True),
        nn.Conv2d(6, 6, 3),
        nn.Dropout(inplace=True),
    ),
    "twice": (nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.ReLU6(inplace=True), nn.Conv2d(6, 6, 3)),
    "residual": (nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), Added(), Added()),
}


either_exporter = pytest.mark.parametrize("exporter", [pytest.param("dynamo", marks=pytest.mark.slow), "torchscript"])


@either_exporter
@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("name", IN_PLACE)
def test_layers_that_work_in_place(name, fold, exporter, tmp_path):
    torch.manual_seed(0)
    net = trained(nn.Sequential(*IN_PLACE[name], *HEAD, nn.Linear(24, 4)))
    report = converted(net, tmp_path, torch.randn(2, 3, 12, 12), exporter=exporter, fold=fold)
    assert [m.verdict for m in report.measurements] == ["passed"] * 6, report.measurements


@either_exporter
@pytest.mark.parametrize("fold", [True, False])
def test_a_layer_without_bias_is_no_site_of_simple_fullgrad(exporter, fold, tmp_path):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3, bias=False)
    net, x = nn.Sequential(*layers, nn.Flatten(), nn.Linear(180, 4)).eval(), torch.randn(2, 3, 12, 12).numpy()
    converted(net, tmp_path, x, exporter=exporter, fold=fold)
    found = fgonnx.Explainer(tmp_path / "net.onnx", method="simple-fullgrad", profile="reference")(x, [1, 2])
    truth = literal.simple_fullgrad(net, x, [1, 2])
    np.testing.assert_allclose(found.saliency, truth, atol=1e-4 * truth.max())
