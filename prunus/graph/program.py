"""A network's graph in one piece, as an export gives it or a run at another width."""

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

REGIONS = ("wrap_with_autocast", "wrap_with_set_grad_enabled")


@dataclasses.dataclass(frozen=True)
class Program:
    """A network's graph, with what stands behind its placeholders.

    Attributes:
        graph: operators alone; what is called under autocast or no_grad stands among them.
        graph_signature: what each placeholder is.
        constants: tensors that are neither parameters nor buffers, by name.
        root: the module whose attributes the graph names.
    """

    graph: Graph
    graph_signature: ExportGraphSignature
    constants: Mapping[str, Any]
    root: nn.Module


def flattened(exported: ExportedProgram) -> Program:
    """Return an export's graph with the graphs of its regions (autocast, no_grad) in their places."""
    root, graph = exported.graph_module, exported.graph
    if any(_region(node, root) is not None for node in graph.nodes):
        graph = Graph()
        _copy(root, graph, {}, "")
    return Program(graph, exported.graph_signature, exported.constants, root)


def _copy(module: GraphModule, graph: Graph, new: dict[Node, Any], path: str) -> Any:
    """Copy the nodes of `module`, which lies at `path`, into `graph`; return what it returns."""
    for node in module.graph.nodes:
        body = _region(node, module)
        if body is not None:
            names = [inside for inside in body.graph.nodes if inside.op == "placeholder"]
            given = map_arg(node.args[len(node.args) - len(names) :], new.__getitem__)
            inside = dict(zip(names, given, strict=True))
            new[node] = _copy(body, graph, inside, f"{path}{_body(node).target}.")
        elif node.op == "output" and path:
            return map_arg(node.args[0], new.__getitem__)
        elif node.target is operator.getitem and isinstance(found := new[node.args[0]], tuple | list):
            new[node] = found[node.args[1]]
        elif node not in new and not _is_body(node, module):
            new[node] = copied = graph.node_copy(node, new.__getitem__)
            if node.op == "placeholder":
                copied.name = node.name  # by which the signature knows it
            elif node.op == "get_attr":
                copied.target = f"{path}{node.target}"
    return None


def _body(node: Node) -> Node:
    """Return the node that names the graph of a region."""
    return next(argument for argument in node.args if isinstance(argument, Node) and argument.op == "get_attr")


def _is_body(node: Node, module: GraphModule) -> bool:
    return node.op == "get_attr" and bool(node.users) and all(_region(user, module) is not None for user in node.users)


def _region(node: Node, module: GraphModule) -> GraphModule | None:
    """Return the graph that an operator runs as it is, if it is such an operator."""
    name = getattr(node.target, "_name", getattr(node.target, "__name__", ""))
    if node.op != "call_function" or name not in REGIONS:
        return None
    found = module.get_submodule(str(_body(node).target))
    return found if isinstance(found, GraphModule) else None
