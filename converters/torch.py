"""From PyTorch: modules, exported programs and TorchScript, by either of torch's own exporters."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import onnx

from fgonnx.errors import FgonnxError, InputError, ModelError, OptionError
from fgonnx.fields import check_choice
from fgonnx.wording import parameter

from .finish import finish
from .network import (
    Array,
    Block,
    Inputs,
    Linearised,
    Network,
    Seed,
    Site,
    as_inputs,
    exporting,
    needs,
    paired,
    reason,
    refused_code,
)
from .options import Conversion, ConversionOptions
from .report import ConversionReport

with needs("torch", "torch"):
    import torch
    from torch.overrides import TorchFunctionMode

Exporter = Literal["dynamo", "torchscript"]
EXPORTERS: tuple[str, ...] = ("dynamo", "torchscript")
OPSET = 20

_CODE = {
    "TorchScript": "a TorchScript file, a program",
    "ExportedProgram": "an exported program (.pt2), of which torch unpickles and evaluates parts",
}
_TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
_SITES = {"conv1d", "conv2d", "conv3d", "batch_norm", *_TRANSPOSED}


def convert(
    model: Any,
    path: str | Path,
    *,
    example_input: Any = None,
    exporter: Exporter | None = None,
    fold: bool = True,
    allow_pickle: bool = False,
    **options: Unpack[ConversionOptions],
) -> ConversionReport:
    """Convert a PyTorch network and prove the result.

    Parameters
    ----------
    model : torch.nn.Module, torch.export.ExportedProgram, torch.jit.ScriptModule or path
        The network, put into eval mode; or a file that may be loaded (`allow_pickle`): TorchScript, .pt2, or a pickled
        module.
    path : path-like
        The .onnx file to write.
    example_input : array, tensor, or tuple of those
        Inputs with a batch axis; an exported program may bring its own.
    exporter : {"dynamo", "torchscript"}, optional
        Which of torch's exporters; "torchscript" for ScriptModules, else "dynamo".
    fold : bool
        Whether BatchNormalization is folded into the convolution before it. The map depends on it where that
        convolution has a bias: two sites become one.
    allow_pickle : bool
        Whether files may be loaded. That runs whatever code they name or hold: a pickled module by Python, TorchScript
        by torch's interpreter, and the reader of .pt2 unpickles and evaluates parts of it.
    **options
        See `fgonnx.converters.ConversionOptions`.

    Returns
    -------
    ConversionReport

    Raises
    ------
    FgonnxError
        If the source is not a network, does not take the example, or cannot be exported; layers are named.
    """
    conversion = Conversion(**options)
    net = load(Path(model), allow_pickle=allow_pickle) if isinstance(model, str | Path) else model
    program = net if isinstance(net, torch.export.ExportedProgram) else None
    if isinstance(net, dict):
        raise ModelError(_only_weights(net, f"'{model}'" if isinstance(model, str | Path) else "the state dict"))
    if program is None and not isinstance(net, torch.nn.Module):
        raise InputError(f"a torch.nn.Module, ExportedProgram or ScriptModule is needed, not {type(net).__name__}")
    if example_input is None and program is not None and program.example_inputs is not None:
        example_input = program.example_inputs[0]
    if example_input is None:
        raise InputError(f"torch does not say what a module takes: give {parameter('example_input')}")
    example = as_inputs(example_input)
    module: Any = net if program is None else program.module()
    if program is None:
        module.eval()
    scripted = isinstance(module, torch.jit.ScriptModule)
    chosen = exporter or ("torchscript" if scripted else "dynamo")
    _check_exporter(chosen, scripted, program is not None)
    run = _runner(module)
    with _naming_layers(module, "does not take the example input") as _:
        run(example)
    notes: list[str] = []
    if chosen == "dynamo":
        proto = _dynamo(program if program is not None else module, example, conversion.opset or OPSET, fold, notes)
    else:
        proto = _torchscript(module, example, conversion.opset or OPSET, fold, notes)
    kind = "ExportedProgram" if program is not None else "TorchScript" if scripted else type(module).__name__
    if scripted:
        notes.append("TorchScript's interpreter does not show its layers: the FullGrad map is not compared")
    network = Network(
        "torch",
        kind,
        f"torch.onnx ({chosen})",
        run,
        _lineariser(module, shows_layers=not scripted),
        packages=("torch", "onnxscript"),
        notes=tuple(notes),
    )
    return finish(proto, network, path, example, conversion)


def _check_exporter(exporter: str, scripted: bool, program: bool) -> None:
    check_choice("exporter", exporter, EXPORTERS)
    if scripted and exporter == "dynamo":
        raise OptionError(
            f"TorchScript is exported by {parameter('exporter', 'torchscript')}; dynamo needs the module or "
            "torch.export"
        )
    if program and exporter == "torchscript":
        raise OptionError(f"an ExportedProgram is exported by {parameter('exporter', 'dynamo')}")


# files


def load(path: Path, *, allow_pickle: bool = False) -> Any:
    """Load a TorchScript file, a .pt2 file, or a pickled module, where that is allowed, or the weights of a state dict.

    Raises
    ------
    ModelError
        If the file is not to be loaded, or cannot be read.
    """
    from .detect import recognise

    kind = recognise(path).kind
    if kind in _CODE and not allow_pickle:
        raise ModelError(refused_code(path, f"is {_CODE[kind]}"))
    try:
        if kind == "TorchScript":
            return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        if kind == "ExportedProgram":
            return torch.export.load(path)
        with contextlib.suppress(Exception):  # it holds more than tensors in containers
            return torch.load(path, map_location="cpu", weights_only=True)
        if allow_pickle:
            return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # torch raises many kinds
        raise ModelError(f"'{path}' cannot be loaded by torch: {reason(error)}") from error
    raise ModelError(refused_code(path))


def _only_weights(values: dict[Any, Any], where: str) -> str:
    """Return the message for a state dict, of which the network's class is missing."""
    inner = next((v for k, v in values.items() if str(k) in ("state_dict", "model", "model_state_dict")), values)
    names = [str(k) for k in inner] if isinstance(inner, dict) else []
    few = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return (
        f"{where} holds only weights (a state dict of {len(names)} entries: {few}), not the network: its class is "
        "missing. In Python: net = YourClass(...); net.load_state_dict(...); fgonnx.converters.convert(net, path, "
        "example_input=x)"
    )


# export


def _dynamo(source: Any, example: Inputs, opset: int, fold: bool, notes: list[str]) -> onnx.ModelProto:
    with needs("torch", "onnxscript"):
        import onnxscript  # noqa: F401
    # torch.export treats a size of 1 as a constant.
    tensors = tuple(torch.from_numpy(a if len(a) > 1 else np.concatenate([a, a])) for a in example)
    options: dict[str, Any] = {"dynamo": True, "opset_version": opset, "optimize": fold, "verbose": False}
    if isinstance(source, torch.export.ExportedProgram):
        with _quiet(), exporting("torch.onnx"):
            return _proto(torch.onnx.export(source, **options), fold)
    with _naming_layers(source, "cannot be exported by torch.onnx"), _quiet():
        try:
            free = tuple({0: torch.export.Dim("N", min=1)} for _ in tensors)
            program = torch.onnx.export(source, tensors, dynamic_shapes=free, **options)
        except Exception as error:
            if "Constraints violated" not in str(error) and "specialized" not in str(error):
                raise
            notes.append("the network is made for one batch size: its own code fixes it")
            fixed = tuple(torch.from_numpy(a) for a in example)
            program = torch.onnx.export(source, fixed, **options)
    return _proto(program, fold)


def _proto(program: Any, fold: bool) -> onnx.ModelProto:
    from onnxscript import optimizer

    if not fold:  # torch's own optimisation would fold BatchNormalization together with the constants
        optimizer.fold_constants(program.model)
        optimizer.remove_unused_nodes(program.model)
    proto: onnx.ModelProto = program.model_proto
    return proto


def _torchscript(module: Any, example: Inputs, opset: int, fold: bool, notes: list[str]) -> onnx.ModelProto:
    tensors = tuple(torch.from_numpy(a) for a in example)
    names = [f"input_{i}" for i in range(len(tensors))]
    buffer = io.BytesIO()
    with _naming_layers(module, "cannot be exported by torch.onnx"), _quiet(), torch.no_grad():
        outputs = module(*tensors)
        count = len(outputs) if isinstance(outputs, tuple | list) else 1
        external = [*names, *(f"output_{i}" for i in range(count))]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.onnx.export(
                module,
                tensors,
                buffer,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=opset,
                input_names=names,
                output_names=external[len(names) :],
                dynamic_axes={f: {0: "N"} for f in external},
                do_constant_folding=fold,
                training=torch.onnx.TrainingMode.EVAL if fold else torch.onnx.TrainingMode.PRESERVE,
            )
    frozen = {str(w.message).splitlines()[0] for w in caught if w.category.__name__ == "TracerWarning"}
    notes += [f"tracing follows one branch only, a decision that depends on values is fixed: {w}" for w in frozen]
    return onnx.load_from_string(buffer.getvalue())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' own messages; relevant ones become an error or a note."""
    loggers = [logging.getLogger(n) for n in ("torch", "torch.onnx", "onnxscript")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        silent = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _naming_layers(module: Any, what: str) -> Iterator[None]:
    """Name the innermost layer whose forward pass raised an exception."""
    entered: list[str] = []
    hooks = []
    named = [] if isinstance(module, torch.jit.ScriptModule | torch.export.ExportedProgram) else module.named_modules()
    for name, layer in named:
        label = f"layer '{name}' ({type(layer).__name__})" if name else f"{type(layer).__name__}"
        hooks += [
            layer.register_forward_pre_hook(lambda *_, label=label: entered.append(label)),
            layer.register_forward_hook(lambda *_: entered.pop() and None),
        ]
    try:
        yield
    except FgonnxError:
        raise
    except Exception as error:  # torch and its exporters raise many kinds
        where = entered[-1] if entered else ""
        raise ModelError(
            f"the network {what}{f', at {where}' if where else ''}: {reason(error)}. Check the shape of the example "
            "input (--input-shape); decisions that depend on values need torch.where or torch.cond"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()


# the source as the reference


def _runner(module: Any) -> Callable[[Inputs], list[Array]]:
    def run(inputs: Inputs) -> list[Array]:
        with torch.no_grad():
            return [np.asarray(y.detach()) for y in _tensors(module(*(torch.from_numpy(a) for a in inputs)))]

    return run


def _tensors(outputs: Any) -> list[Any]:
    """List the tensors of an output in the order in which torch's exporters flatten it."""
    return [y for y in torch.utils._pytree.tree_leaves(outputs) if isinstance(y, torch.Tensor)]


class _Sites(TorchFunctionMode):
    """Record every call of a convolution or BatchNormalization."""

    def __init__(self) -> None:
        self.found: list[Site] = []
        self._alive: list[Any] = []  # so that no id is used twice
        self._contents: dict[tuple[int, int], object] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        y = func(*args, **kwargs)
        name = func.__name__.partition(".")[0]
        if name not in _SITES:
            return y
        source, rest = (args[0], args[1:]) if args else (kwargs["input"], ())
        named = {k: v for k, v in kwargs.items() if k != "input"}
        with torch.no_grad():
            bias = func(torch.zeros_like(source), *rest, **named)
        handed_on = y.clone()  # a layer that works in place, such as ReLU(inplace=True), overwrites this one
        self.found.append(Site(name, self._content(source), y, bias, self._content(handed_on)))
        return handed_on

    def _content(self, tensor: Any) -> object:
        """Return what stands for the content of a tensor, which changes when it is written to in place."""
        self._alive.append(tensor)
        return self._contents.setdefault((id(tensor), tensor._version), object())


def _lineariser(module: Any, *, shows_layers: bool) -> Callable[[Inputs, Seed], Linearised]:
    def linearise(inputs: Inputs, seed: Seed) -> Linearised:
        tensors = [torch.from_numpy(a) for a in inputs]
        x = tensors[seed.input].clone().requires_grad_()
        tensors[seed.input] = x
        # Layers that work in place may overwrite what the backward pass of the layer before needs.
        with torch.autograd.graph.allow_mutation_on_saved_tensors():
            with torch.enable_grad(), _Sites() as sites:
                outputs = _tensors(module(*tensors))
            s = seed.scores(outputs[seed.output], torch.log, torch.from_numpy(seed.weights))
            leaves = [x, *(site.output for site in sites.found)]
            gradient, *cotangents = torch.autograd.grad(s.sum(), leaves, allow_unused=True)
        blocks = _blocks(sites.found, cotangents) if shows_layers else None
        return Linearised(gradient.numpy(), blocks)

    return linearise


def _blocks(sites: Sequence[Site], cotangents: Sequence[Any]) -> tuple[Block, ...]:
    return paired(
        (s.source, s.handed_on, (g * s.bias).numpy(), s.layer == "batch_norm", s.layer in _TRANSPOSED)
        for s, g in zip(sites, cotangents, strict=True)
        if g is not None
    )
