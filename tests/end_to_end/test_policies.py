"""What a policy places is what the binary does: its instructions, read unit by unit and operation by operation.

Five policies on four models.  Every operation gets a location of its own behind ``place``, by which the instructions of
the binary are found that came of it; the binary runs in the simulator, with all checks, against PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache

import model_families
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.passes import ModulePass

import pimc
from pimc.backends.lower.choices import places_for
from pimc.driver.compile import Compiled, Options, compile_model, plan
from pimc.driver.explain import explain
from pimc.ir import nn
from pimc.ir.locations import source_location
from pimc.ir.stages import is_compute
from pimc.passes.machine import Machine
from pimc.passes.policy import Placement, Policy
from pimc.targets import Target, load_target

POLICIES = ("paper", "cost", "no-bank-pim", "no-sram-pim", "vector-only")
#: Units that do nothing but arithmetic on matrices: only for operations that are placed on them.
MATRIX = frozenset({"bank_pim", "systolic", "sram_pim"})
#: Units that serve every operation: addresses, operands and results, turned matrices.
SERVING = frozenset({"scalar", "transfer", "network", "transpose"})
#: Commands of a controller by which the units of its banks work.
BANK_COMMANDS = frozenset({"wrgb", "act", "mac", "rdres"})


@dataclass
class Placed:
    """An observer that gives every placed operation its own location, and notes the kind of its unit."""

    target: Target
    kinds: dict[str, tuple[str, str]] = field(default_factory=dict)
    domains: dict[str, str] = field(default_factory=dict)

    def before(self, index: int, pass_: ModulePass, module: ModuleOp) -> None:
        """Nothing."""

    def after(self, index: int, pass_: ModulePass, module: ModuleOp, seconds: float) -> None:
        """Behind ``place``: locations, and what ``--explain`` says."""
        if pass_.name != "place":
            return
        for op in module.walk():
            if is_compute(op):
                name = f"op{len(self.kinds)}"
                op.location = source_location(name)
                domain = op.attributes["pim.domain"]
                assert isinstance(domain, StringAttr)
                self.kinds[name] = (op.name, self.target.unit(self.target.domain(domain.data).unit).kind)
                self.domains[name] = domain.data
        told = {item.location: item for item in explain(module, "op*")}
        assert {name: item.decision.rpartition(" in ")[2] for name, item in told.items()} == self.domains
        assert all(item.reason for item in told.values())


def units_by_operation(compiled: Compiled, placed: Placed) -> dict[str, set[str]]:
    """The kinds of units whose instructions came of each operation."""
    found: dict[str, set[str]] = {name: set() for name in placed.kinds}
    program = compiled.program
    for tensor, decoded in program.decoded.items():
        isa, locations = program.stream_isa(tensor), program.locations[tensor]
        for pc, number in enumerate(decoded.op):
            instruction = isa.instructions[int(number)]
            where = locations.at(pc) or ""
            for name in where.replace(",", " ").split():
                if name in found:
                    found[name].add(_kind(isa.name, instruction.mnemonic, instruction.unit, compiled.target))
    return found


def _kind(isa: str, mnemonic: str, unit: str, target: Target) -> str:
    if isa == "sram":
        return target.unit(unit).kind
    return "bank_pim" if mnemonic.lower() in BANK_COMMANDS else "transfer"


def check_units(compiled: Compiled, placed: Placed) -> None:
    """Every operation's work is done by the unit that it is placed on, and by no other that could have done it."""
    found = units_by_operation(compiled, placed)
    assert sum(map(bool, found.values())) > 2
    for name, units in found.items():
        operation, kind = placed.kinds[name]
        assert units & MATRIX <= {kind}, f"{operation} is placed on {kind}, and uses {units}"
        if kind in MATRIX:
            assert kind in units, f"{operation} is placed on {kind}, and uses {units}"
        if kind == "transfer":
            assert units - {"vector"} <= SERVING, f"{operation}: {units}"
        if kind == "vector" and operation in ("nn.linear", "nn.matmul", "nn.attention", "nn.attention_full", "nn.conv"):
            assert "vector" in units, f"{operation}: {units}"


def check_policy(policy: str, placed: Placed) -> None:
    """The units that a policy gives no work have none, and those of its name have some."""
    kinds = {kind for _, kind in placed.kinds.values()}
    unused = {"no-bank-pim": {"bank_pim"}, "no-sram-pim": {"sram_pim"}, "vector-only": MATRIX}
    assert not kinds & unused.get(policy, set())


def build(source: torch.nn.Module, policy: str, **options: object) -> tuple[Compiled, Placed]:
    """Compile, with a location for every operation."""
    chosen = Options(policy=policy, **options)  # type: ignore[arg-type]
    placed = Placed(load_target("hpim"))
    return compile_model(source, options=chosen, observers=[placed]), placed


@cache
def expected_logits(name: str, count: int) -> NDArray[np.float32]:
    """PyTorch's logits of a decoder."""
    return model_families.torch_logits(model_families.build(name), model_families.random_tokens(count))


def check_logits(compiled: Compiled, name: str) -> None:
    """A padded chunk of prefill and four decoded tokens of a decoder, against PyTorch."""
    chunk = model_families.CHUNK
    tokens, expected = model_families.random_tokens(chunk + 3), expected_logits(name, chunk + 3)
    runner = model_families.Runner(pimc.Executable(compiled.in_memory(), compiled.target))
    assert np.abs(runner.prefill(tokens[: chunk - 1], 0) - expected[chunk - 2]).max() < model_families.BOUND
    for position in range(chunk - 1, len(tokens)):
        logits = runner.decode(tokens[position], position)
        assert np.abs(logits - expected[position]).max() < model_families.BOUND, position


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["llama", pytest.param("opt", marks=pytest.mark.slow)])
def test_decoder(name: str, policy: str) -> None:
    chunk = model_families.CHUNK
    compiled, placed = build(model_families.build(name), policy, max_seq=model_families.MAX_SEQ, prefill_chunk=chunk)
    check_units(compiled, placed)
    check_policy(policy, placed)
    check_logits(compiled, name)


@pytest.mark.parametrize("policy", POLICIES)
def test_encoder(policy: str) -> None:
    model = model_families.build("bert")
    inputs, counts = model_families.encoder_inputs("bert")
    compiled, placed = build(model, policy, shapes={"input_ids": inputs["input_ids"].shape})
    check_units(compiled, placed)
    check_policy(policy, placed)
    executable = pimc.Executable(compiled.in_memory(), compiled.target)
    found = executable.run(inputs).outputs["last_hidden_state"]
    error = np.abs(found[counts] - model_families.hidden_states(model, inputs)[counts]).max()
    assert error < model_families.BOUND


def at_random(seed: int) -> Policy:
    """Each operation in any domain that can do it."""
    random = np.random.default_rng(seed)

    def place(op: nn.NnOp, machine: Machine) -> Placement:
        places = places_for(op, machine.target)
        return Placement(places[int(random.integers(len(places)))].domain, "drawn")

    return Policy(f"random-{seed}", "a test", place)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))])
def test_any_placement_that_is_not_refused_is_right(seed: int) -> None:
    """Weights and caches that the entries of a decoder share, on different units."""
    chunk = model_families.CHUNK
    options = Options(max_seq=model_families.MAX_SEQ, prefill_chunk=chunk)
    placed = Placed(load_target("hpim"))
    chosen = replace(plan(options), policy=at_random(seed))
    compiled = compile_model(model_families.build("llama"), planned=chosen, observers=[placed])
    check_units(compiled, placed)
    check_logits(compiled, "llama")


class Mlp(torch.nn.Module):
    """Two linear layers with biases, and a product of computed tensors."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = torch.nn.Linear(40, 70), torch.nn.Linear(70, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.up(x))
        return self.down(hidden) @ self.down(hidden).transpose(0, 1)


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("policy", POLICIES)
def test_mlp(policy: str, rows: int) -> None:
    model = Mlp().half().float().eval()
    x = torch.randn(rows, 40, generator=torch.Generator().manual_seed(1)).half().float()
    chosen = Options(policy=policy)
    placed = Placed(load_target("hpim"))
    compiled = compile_model(model, (x,), options=chosen, observers=[placed])
    check_units(compiled, placed)
    check_policy(policy, placed)
    executable = pimc.Executable(compiled.in_memory(), compiled.target)
    found = np.asarray(executable(x.numpy()), np.float32)
    with torch.no_grad():
        wanted = model(x).numpy()
    assert np.abs(found - wanted).max() < model_families.BOUND * np.abs(wanted).max()


class Cnn(torch.nn.Module):
    """Convolutions with steps, padding and groups, a pooling, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 36, 3, stride=2, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(36, 24, 3, groups=4, bias=False),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(24 * 4 * 4, 10),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.mark.parametrize("policy", POLICIES)
def test_convolutions(policy: str) -> None:
    model = Cnn().half().float().eval()
    x = torch.randn(1, 3, 21, 21, generator=torch.Generator().manual_seed(1)).half().float()
    placed = Placed(load_target("hpim"))
    compiled = compile_model(model, (x,), options=Options(policy=policy), observers=[placed])
    check_units(compiled, placed)
    check_policy(policy, placed)
    found = np.asarray(pimc.Executable(compiled.in_memory(), compiled.target)(x.numpy()), np.float32)
    with torch.no_grad():
        wanted = model(x).numpy()
    assert np.abs(found - wanted).max() < model_families.BOUND * np.abs(wanted).max()


class Wide(torch.nn.Module):
    """A linear layer, and a product of computed tensors with sizes that fill no block of a unit."""

    def __init__(self, inputs: int, outputs: int, rows: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(inputs, outputs)
        self.shape = (rows, inputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        return torch.matmul(y.transpose(-1, -2), torch.tanh(y)) * 0.1

    def example(self) -> torch.Tensor:
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(1)).half().float()


@pytest.mark.parametrize(
    ("inputs", "outputs", "rows", "pipeline"),
    [(300, 130, 37, None), (1100, 70, 19, "...,tile{share=20},..."), (65, 129, 1, None)],
)
def test_products_of_the_vector_unit(inputs: int, outputs: int, rows: int, pipeline: str | None) -> None:
    model = Wide(inputs, outputs, rows)
    model.linear.half().float()
    x = model.example()
    found = np.asarray(pimc.compile(model, (x,), policy="vector-only", pipeline=pipeline)(x.numpy()), np.float32)
    with torch.no_grad():
        wanted = model(x).numpy()
    assert np.abs(found - wanted).max() < model_families.BOUND * np.abs(wanted).max()


def test_instructions_of_the_vector_unit_do_not_depend_on_sizes() -> None:
    counts = []
    for inputs, outputs, rows in ((2048, 4096, 20), (1024, 8192, 70)):
        model = torch.nn.Linear(inputs, outputs, device="meta")
        x = torch.empty(rows, inputs, device="meta")
        program = pimc.compile(model, (x,), policy="vector-only", shapes_only=True).program
        counts.append(max(len(words) for name, words in program.code.items() if "/core/" in name))
    assert max(counts) < 1.2 * min(counts), counts


@pytest.mark.parametrize(("rows", "columns", "depth"), [(64, 64, 64), (16, 64, 512), (8, 128, 128)])
def test_the_estimate_of_a_product_on_the_vector_unit(rows: int, columns: int, depth: int) -> None:
    a, b = np.ones((rows, depth), np.float32), np.ones((columns, depth), np.float32)
    executable = pimc.compile(Product(), (torch.from_numpy(a), torch.from_numpy(b)), policy="vector-only")
    estimate = Machine.load("hpim").product_fs("vector", rows, columns, depth) / 1e6
    assert executable.run(a, b).cycles == pytest.approx(estimate, rel=0.1)


class Product(torch.nn.Module):
    """A product with a transposed matrix."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b.transpose(0, 1)
