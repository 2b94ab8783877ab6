"""What writes nodes: the Emitter, the copier of nodes, and what is said of values."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from fgonnx.engine.graph.copy import copy_node
from fgonnx.engine.graph.emit import Emitter, initializer
from fgonnx.engine.graph.values import dims_of, dtype_of, optional, producer_of, required, shaped


@pytest.fixture
def x() -> ir.Value:
    return ir.Value(name="x", shape=ir.Shape(["N", 4]), type=ir.TensorType(ir.DataType.FLOAT16))


@pytest.fixture
def graph(x: ir.Value) -> ir.Graph:
    return ir.Graph([x], [], nodes=[], opset_imports={"": 18}, name="g")


def operators(graph: ir.Graph) -> list[str]:
    return [node.op_type for node in graph]


class TestPlace:
    def test_nodes_go_to_the_end(self, graph: ir.Graph, x: ir.Value) -> None:
        op = Emitter(graph)
        op.Relu(op.Neg(x))
        assert operators(graph) == ["Neg", "Relu"]

    def test_or_in_front_of_a_node_in_the_order_of_writing(self, graph: ir.Graph, x: ir.Value) -> None:
        y = Emitter(graph).Relu(x)
        op = Emitter(graph, before=producer_of(y))
        op.Exp(op.Neg(x))
        assert operators(graph) == ["Neg", "Exp", "Relu"]

    def test_names_are_not_given_twice(self, graph: ir.Graph, x: ir.Value) -> None:
        first, second = Emitter(graph, prefix="p/").Neg(x), Emitter(graph, prefix="p/").Neg(x)
        assert [first.name, second.name] == ["p/Neg", "p/Neg_1"]


class TestTypes:
    def test_a_literal_takes_the_type_of_the_tensor_beside_it(self, graph: ir.Graph, x: ir.Value) -> None:
        y = Emitter(graph).Sub(1.0, x)
        assert dtype_of(y) == dtype_of(required(producer_of(y), 0)) == ir.DataType.FLOAT16

    @pytest.mark.parametrize(
        ("op_type", "outputs", "expected"),
        [
            ("Neg", 1, ["FLOAT16"]),
            ("IsNaN", 1, ["BOOL"]),
            ("Shape", 1, ["INT64"]),
            ("Split", 2, ["FLOAT16", "FLOAT16"]),
            ("MaxPool", 2, ["FLOAT16", "INT64"]),
            ("TopK", 2, ["FLOAT16", "INT64"]),
            ("Dropout", 2, ["FLOAT16", "BOOL"]),
            ("DynamicQuantizeLinear", 3, ["UINT8", "FLOAT", "UINT8"]),
        ],
    )
    def test_of_outputs(self, graph: ir.Graph, x: ir.Value, op_type: str, outputs: int, expected: list[str]) -> None:
        values = Emitter(graph).several(op_type, x, outputs=outputs)
        assert [dtype_of(v).name for v in values] == expected

    def test_where_an_operand_says_it(self, graph: ir.Graph, x: ir.Value) -> None:
        op = Emitter(graph)
        wide = op.Cast(x, to=ir.DataType.DOUBLE.value)
        assert dtype_of(op.CastLike(x, wide)) == ir.DataType.DOUBLE
        assert dtype_of(op.Where(op.IsNaN(x), wide, 0.0)) == ir.DataType.DOUBLE
        assert dtype_of(op.zeros_like(shaped(wide, x))) == ir.DataType.DOUBLE


class TestCopyNode:
    def test_reads_what_takes_the_place_of_values_and_binds_its_outputs(self, graph: ir.Graph, x: ir.Value) -> None:
        op = Emitter(graph)
        y = shaped(op.Slice(x, [0], [2], [1]), ["N", 2])
        z = op.Neg(x)
        bound = {x: z}
        copy = copy_node(producer_of(y), bound, "copy/{}".format, shapes=True)
        assert copy.inputs == (z, *producer_of(y).inputs[1:])
        assert bound[y] is copy.outputs[0]
        assert (copy.outputs[0].name, dtype_of(copy.outputs[0]), dims_of(copy.outputs[0])) == (
            f"copy/{y.name}",
            ir.DataType.FLOAT16,
            dims_of(y),
        )
        assert copy_node(producer_of(y), bound, str, shapes=False).outputs[0].shape is None

    def test_inner_graphs_are_copied_and_read_it_too(self, graph: ir.Graph, x: ir.Value) -> None:
        op = Emitter(graph)
        inner = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="inner")
        inner.outputs.append(Emitter(inner).Neg(x))
        y = op.If(
            op.constant(np.array(True)), then_branch=inner, else_branch=inner.clone(allow_outer_scope_values=True)
        )
        z = op.Abs(x)
        copy = copy_node(producer_of(y), {x: z}, "copy/{}".format, shapes=False)
        for branch in ("then_branch", "else_branch"):
            (read,) = copy.attributes[branch].as_graph()
            assert read.inputs == (z,)
        assert inner[0].inputs == (x,)


class TestWhatIsSaid:
    def test_an_input_that_is_left_out(self, graph: ir.Graph, x: ir.Value) -> None:
        node = producer_of(Emitter(graph).Clip(x, None, 1.0))
        assert required(node, 0) is x
        assert optional(node, 1) is None
        assert optional(node, 3) is None
        for index in (1, 3):
            with pytest.raises(ValueError, match=rf"'fg/Clip' \(Clip\) lacks its input {index}"):
                required(node, index)

    def test_a_shape_a_type_or_a_producer_that_is_not_known(self) -> None:
        v = ir.Value(name="v")
        with pytest.raises(ValueError, match="'v' has no known shape"):
            dims_of(v)
        with pytest.raises(ValueError, match="'v' has no known element type"):
            dtype_of(v)
        with pytest.raises(ValueError, match="'v' is computed by no node"):
            producer_of(v)

    def test_a_shape_that_is_said(self, x: ir.Value) -> None:
        assert dims_of(shaped(ir.Value(name="v"), x)) == (ir.SymbolicDim("N"), 4)
        assert dims_of(shaped(ir.Value(name="v"), [None, 4])) == (ir.SymbolicDim(None), 4)


def test_an_initializer_whose_name_is_taken_gets_another(graph: ir.Graph) -> None:
    first, second = (initializer(graph, "epsilon", np.array(value, np.float32)) for value in (0.1, 0.2))
    assert first.name != second.name
    assert [float(v.const_value.numpy()) for v in (first, second)] == [np.float32(0.1), np.float32(0.2)]
