"""``torch.compile(model, backend="pimc")``: captured graphs run on the simulated hardware.

Each graph that PyTorch captures is compiled when it is first called, for the shapes of that call; parameters and
buffers become stored weights with the values they have then.  A graph that cannot be compiled runs in eager PyTorch;
the reason goes to the logger ``pimc.torch_backend`` and into the report.  Importing this module (PyTorch does it when
the backend is named) lets PyTorch capture ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN``, which it otherwise runs in eager mode
without asking any backend::

    compiled = torch.compile(model.eval(), backend="pimc")
    with torch.inference_mode():
        compiled(x)
    print(pimc.torch_backend.report())
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from torch._dynamo import config as _capture

from pimc.diagnostics import InputError, PimcError, UsageError

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from pimc.driver.compile import Options
    from pimc.runtime import Executable

logger: Final = logging.getLogger(__name__)

_OPTIONS: Final = ("target", "overrides", "policy", "pipeline", "plugins")
_STATIC: Final = "_dynamo_static_input_type"

_capture.allow_rnn = True  # a setting of the whole process: PyTorch has none for one backend

Result = TypeVar("Result")
Runner: TypeAlias = Callable[[Sequence[object]], "Ran"]


@dataclass(frozen=True)
class Ran:
    """What a run on the hardware gave: the graph's results, and its cycles."""

    results: list[object]
    cycles: int


@dataclass(frozen=True)
class Refusal:
    """A graph that runs in eager PyTorch: its number in order of capture, and why."""

    graph: int
    reason: str

    def __str__(self) -> str:
        return f"graph {self.graph}: {self.reason}"


@dataclass(frozen=True)
class Report:
    """What became of the graphs: how many were compiled, which were refused, how often either kind ran, and the cycles
    of all runs on the hardware.

    A graph counts once for each set of input shapes that it was called with.
    """

    compiled: int
    refused: tuple[Refusal, ...]
    hardware_runs: int
    eager_runs: int
    cycles: int = 0

    def __str__(self) -> str:
        lines = [f"{self.compiled} graph(s) compiled, {len(self.refused)} refused", *map(str, self.refused)]
        if self.hardware_runs:
            lines.append(
                f"{self.hardware_runs} run(s) on the hardware, {self.cycles} cycles; {self.eager_runs} in eager"
            )
        else:
            lines.append(f"NOTHING RAN ON THE HARDWARE{self._why()}")
        return "\n  ".join(lines)

    def _why(self) -> str:
        if self.compiled or self.refused or self.eager_runs:
            return ""
        return (
            ": PyTorch captured no graph, so that whatever ran, ran in eager PyTorch; "
            "torch._dynamo.explain(model)(inputs) says what broke the capture"
        )


@dataclass
class Backend:
    """A backend with counters of its own; ``torch.compile(model, backend=Backend())`` takes one as well."""

    _captured: int = 0
    _compiled: int = 0
    _refused: list[Refusal] = field(default_factory=list)
    _hardware_runs: int = 0
    _eager_runs: int = 0
    _cycles: int = 0

    def __call__(
        self,
        module: torch.fx.GraphModule,
        example_inputs: Sequence[object],
        *,
        options: Mapping[str, object] | None = None,
        **_: object,
    ) -> Callable[..., object]:
        """What PyTorch calls with a captured graph; ``options`` are ``target``, ``overrides``, ``policy``,
        ``pipeline``, ``plugins`` as :func:`pimc.compile` takes them.
        """
        chosen = _options(options or {})
        self._captured += 1
        return _Graph(self, self._captured, module, chosen)

    def report(self) -> Report:
        """What became of the graphs so far."""
        return Report(self._compiled, tuple(self._refused), self._hardware_runs, self._eager_runs, self._cycles)

    def reset(self) -> None:
        """Set the counters to zero."""
        self._captured = self._compiled = self._hardware_runs = self._eager_runs = self._cycles = 0
        self._refused.clear()

    def note_compiled(self, graph: int) -> None:
        """Count a compiled graph."""
        self._compiled += 1
        logger.info("graph %d compiled", graph)

    def note_refused(self, graph: int, reason: str) -> None:
        """Count a graph that runs in eager PyTorch."""
        self._refused.append(Refusal(graph, reason))
        logger.warning("graph %d runs in eager PyTorch: %s", graph, reason)

    def note_run(self, cycles: int | None) -> None:
        """Count a call, with its cycles on the hardware; None: it ran in eager PyTorch."""
        if cycles is not None:
            self._hardware_runs += 1
            self._cycles += cycles
        else:
            self._eager_runs += 1


_DEFAULT: Final = Backend()


def compile_graph(
    module: torch.fx.GraphModule, example_inputs: Sequence[object], **kwargs: object
) -> Callable[..., object]:
    """The backend named "pimc"."""
    return _DEFAULT(module, example_inputs, **kwargs)  # type: ignore[arg-type]  # PyTorch's own keywords


def report() -> Report:
    """What became of the graphs of ``torch.compile(..., backend="pimc")`` so far."""
    return _DEFAULT.report()


def reset() -> None:
    """Set the counters of the backend "pimc" to zero."""
    _DEFAULT.reset()


def _options(options: Mapping[str, object]) -> Options:
    from pimc.driver.compile import Options, plan

    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        raise UsageError(f"the backend has no option '{unknown[0]}'", hint=f"it has: {', '.join(_OPTIONS)}")
    chosen = Options(**options)  # type: ignore[arg-type]  # checked by plan
    plan(chosen)
    return chosen


@dataclass
class _Graph:
    """A captured graph: compiled for each set of shapes that it is called with."""

    backend: Backend
    number: int
    module: torch.fx.GraphModule
    options: Options
    runners: dict[Hashable, Runner | None] = field(default_factory=dict)

    def __call__(self, *inputs: object) -> object:
        key = tuple(_key(value, static) for value, static in zip(inputs, self._static(), strict=True))
        if key not in self.runners:
            self.runners[key] = self._guarded(lambda: self._compile(inputs))
        runner = self.runners[key]
        found = None if runner is None else self._guarded(lambda: runner(inputs))
        self.backend.note_run(None if found is None else found.cycles)
        return self.module(*inputs) if found is None else found.results

    def _static(self) -> list[bool]:
        """Of each input, whether it is a parameter or buffer of the model."""
        nodes = self.module.graph.find_nodes(op="placeholder")
        return [_STATIC in (node.meta.get("tensor_dict") or {}) for node in nodes]

    def _guarded(self, run: Callable[[], Result]) -> Result | None:
        """What ``run`` returns; None, and a note, where it raises."""
        try:
            return run()
        except PimcError as error:
            self.backend.note_refused(self.number, str(error))
        except Exception as error:
            logger.debug("internal error", exc_info=True)
            self.backend.note_refused(self.number, f"internal error: {type(error).__name__}: {error}")
        return None

    def _compile(self, inputs: Sequence[object]) -> Runner:
        from pimc.driver.compile import compile_imported
        from pimc.frontends.torch_program import export_module, import_program, prepare
        from pimc.runtime import Executable

        _check(inputs)
        static = self._static()
        names = [node.name for node in self.module.graph.find_nodes(op="placeholder")]
        frozen, examples = _freeze(self.module, inputs, static, names)
        program = prepare(export_module(frozen, examples))
        compiled = compile_imported(import_program(program, f"graph_{self.number}"), options=self.options)
        places = [place for place, fixed in enumerate(static) if not fixed]
        runner = _runner(Executable(compiled.in_memory(), compiled.target), program, places)
        self.backend.note_compiled(self.number)
        return runner


def _key(value: object, static: bool) -> Hashable:
    """What of an input a compiled graph depends on: shape and type, of weights also their state, of numbers all."""
    import torch

    if not isinstance(value, torch.Tensor):
        return (type(value), value)
    version = value._version if static and not value.is_inference() else 0
    return (tuple(value.shape), value.dtype, str(value.device), id(value) if static else 0, version)


def _check(inputs: Sequence[object]) -> None:
    import torch

    tensors = [value for value in inputs if isinstance(value, torch.Tensor)]
    if torch.is_grad_enabled() and any(value.requires_grad for value in tensors):
        raise InputError("gradients are wanted", hint="call the model under torch.inference_mode()")
    elsewhere = {str(value.device) for value in tensors if value.device.type != "cpu"}
    if elsewhere:
        raise InputError(f"inputs on {', '.join(sorted(elsewhere))}", hint="move the model to the CPU")


def _freeze(
    module: torch.fx.GraphModule, inputs: Sequence[object], static: Sequence[bool], names: Sequence[str]
) -> tuple[torch.nn.Module, list[object]]:
    """A module that holds the static inputs and takes the others, and the others; numbers are held, too."""
    import torch

    class Frozen(torch.nn.Module):  # type: ignore[misc]  # local because torch is imported late
        """The graph with its weights."""

        def __init__(self) -> None:
            super().__init__()
            self.graph = module
            self.paths: list[str | None] = []
            taken: set[str] = set()
            for value, fixed, name in zip(inputs, static, names, strict=True):
                path = _path(name)
                path = name if path in taken else path
                self.paths.append(path if fixed else None)
                if fixed:
                    taken.add(path)
                    _hold(self, path, value)

        def forward(self, *given: object) -> object:
            rest = iter(given)
            found = [
                self.get_buffer(path) if path else next(rest) if isinstance(value, torch.Tensor) else value
                for path, value in zip(self.paths, inputs, strict=True)
            ]
            return self.graph(*found)

    others = [
        value for value, fixed in zip(inputs, static, strict=True) if not fixed and isinstance(value, torch.Tensor)
    ]
    return Frozen().eval(), others


def _path(name: str) -> str:
    """The path of a weight from PyTorch's name of the graph's input:
    ``l_fn_modules_layers_modules_0_parameters_weight_`` -> ``layers.0.weight``.
    """
    parts = re.split(r"_(?:modules|parameters|buffers)_", name)
    return ".".join(part.strip("_") for part in parts[1:] or parts if part.strip("_")) or name


def _hold(root: torch.nn.Module, path: str, value: object) -> None:
    """Put a tensor at ``path`` below ``root``, with plain modules on the way."""
    import torch

    *parents, leaf = path.split(".")
    for parent in parents:
        if not hasattr(root, parent):
            root.add_module(parent, torch.nn.Module())
        root = getattr(root, parent)
    assert isinstance(value, torch.Tensor)
    root.register_buffer(leaf, value.detach())


def _runner(executable: Executable, program: ExportedProgram, places: Sequence[int]) -> Runner:
    """Tensors in, tensors (and what else the graph returns) out; ``places`` are the inputs that are not weights."""
    import numpy as np
    import torch

    from pimc.frontends.fx_state import output_names

    (output,) = program.graph.find_nodes(op="output")
    names = output_names(program)
    results = output.args[0]

    def run(inputs: Sequence[object]) -> Ran:
        given = [value for place in places if isinstance(value := inputs[place], torch.Tensor)]
        arrays = [(value.float() if value.dtype == torch.bfloat16 else value).detach().numpy() for value in given]
        ran = executable.run(*arrays, entry="main")
        found = [
            torch.from_numpy(np.array(ran.outputs[names[place]])).to(result.meta["val"].dtype)
            if place in names
            else result
            for place, result in enumerate(results)
        ]
        return Ran(found, ran.cycles)

    return run


__all__ = ["Backend", "Refusal", "Report", "compile_graph", "report", "reset"]
