"""Buffers that share memory never lose data, however far the cores of a machine drift apart.

Random programs of reads, writes, loops and gathers run on several cores in random order.  Every byte remembers which
buffer wrote it last; a read of a buffer must find its own bytes.  A message arrives as soon as it is sent.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation

from pimc.backends.builder import HbmBuilder, SramBuilder
from pimc.backends.liveness import analyse
from pimc.backends.memory import MemorySpace, _Area, _liveness, allocate_entry
from pimc.backends.order import constant
from pimc.backends.synchronise import TOKEN
from pimc.backends.windows import stream_windows
from pimc.diagnostics import DoesNotFitError, TargetError
from pimc.ir import sram
from pimc.ir.sram_control import ProgramOp
from pimc.ir.sram_structure import AllocOp

CORES = 4
#: The semaphore by which the cores may meet.
MEETING = 31
SPACES = {"activation": MemorySpace(0, 1 << 20), "temp": MemorySpace(1 << 20, 1 << 16)}


@dataclass
class Buffers:
    """Random straight code and loops over buffers; ``live`` are those written and not yet dead."""

    random: random.Random
    b: SramBuilder
    count: int = 0
    semaphore: int = 0

    def new(self, remote: bool = False) -> AllocOp:
        self.count += 1
        size = self.random.choice([32, 64, 96, 256])
        owner = self.b.alloc(f"b{self.count}", size, remote=remote).owner
        assert isinstance(owner, AllocOp)
        return owner

    def write(self, target: AllocOp, source: AllocOp | None) -> None:
        to = self.b.address(target.buffer)
        self.b.vmov_h(to, to if source is None else self.b.address(source.buffer), target.bytes.value.data // 2)

    def gather(self, source: AllocOp, everybody: bool) -> tuple[AllocOp, int, int]:
        b = self.b
        whole = self.new(remote=True)
        size = whole.bytes.value.data // CORES
        base, count = ([0] * CORES, CORES) if everybody else ([0, 0, 2, 2], 2)
        self.semaphore = (self.semaphore + 1) % MEETING
        to = b.address(whole.buffer, [size * core for core in range(CORES)])
        b.nmcast(to, b.address(source.buffer), size, sem=self.semaphore, group_base=b.const(base), group_size=count)
        return whole, self.semaphore, count

    def exchange(self, live: list[AllocOp]) -> None:
        """Some gathers at once, with work before each wait; the results are used before the next exchange."""
        r = self.random
        kinds = [True] if r.random() < 0.5 else [r.random() < 0.5 for _ in range(r.randrange(1, 4))]
        pending = [self.gather(r.choice(live), everybody) for everybody in kinds]
        r.shuffle(pending)
        for whole, semaphore, count in pending:
            self.work(live)
            self.b.wait(sem=semaphore, imm=count)
            live.append(self.copy(whole))

    def copy(self, source: AllocOp) -> AllocOp:
        made = self.new()
        self.write(made, source)
        return made

    def work(self, live: list[AllocOp]) -> None:
        for _ in range(self.random.randrange(3)):
            live.append(self.copy(self.random.choice(live)))
        del live[: max(0, len(live) - 3)]

    def full_exchange(self, live: list[AllocOp]) -> None:
        whole, semaphore, count = self.gather(self.random.choice(live), True)
        self.b.wait(sem=semaphore, imm=count)
        live.append(self.copy(whole))

    def block(self, live: list[AllocOp], depth: int) -> None:
        for _ in range(self.random.randrange(1, 5)):
            kind = self.random.randrange(6)
            if kind < 2:
                self.work(live)
            elif kind < 4 or depth == 2:
                self.exchange(live)
            elif kind == 4:
                lower = self.random.choice([0, 0, 3])
                bound = self.b.const(3)
                with self.b.loop(lower, bound):
                    inner = list(live)
                    self.full_exchange(inner)
                    self.block(inner, depth + 1)
                    self.full_exchange(inner)
                    self.write(live[0], inner[-1])
            else:
                self.work(live)


def program_of(seed: int) -> ProgramOp:
    r = random.Random(seed)
    b, program = SramBuilder.program("main", range(CORES))
    made = Buffers(r, b)
    first = made.new()
    made.write(first, None)
    live = [first]
    made.block(live, 0)
    made.block(live, 0)
    for alloc in live:
        made.copy(alloc)
    return program


@dataclass
class Machine:
    """Cores with byte tags instead of data."""

    program: ProgramOp
    addresses: dict[str, int]
    memory: list[dict[int, str]] = field(default_factory=lambda: [{} for _ in range(CORES)])
    written: dict[tuple[int, str], set[int]] = field(default_factory=dict)
    semaphores: list[dict[int, int]] = field(default_factory=lambda: [{} for _ in range(CORES)])

    def core(self, number: int, block: Block) -> Iterator[None]:
        """Run a core; gives control back before every memory instruction and while it waits."""
        for op in block.ops:
            if isinstance(op, sram.ForOp):
                lower, upper = constant(op.lower), constant(op.upper)
                assert lower is not None
                assert upper is not None
                for _ in range(lower[0], upper[0]):
                    yield from self.core(number, op.body.block)
            elif isinstance(op, sram.SramInstruction):
                yield
                yield from self.instruction(number, op)

    def instruction(self, number: int, op: sram.SramInstruction) -> Iterator[None]:
        name = op.INSTRUCTION.mnemonic
        if name == "vmov.h":
            target, source = self.alloc(op, 0), self.alloc(op, 1)
            if source is not target:
                self.check(number, source, op)
            self.store(number, target, 0, target.bytes.value.data)
        elif name == "nmcast":
            target, source = self.alloc(op, 0), self.alloc(op, 1)
            self.check(number, source, op)
            size = target.bytes.value.data // CORES
            base, count = constant(op.config_values[0]), constant(op.config_values[1])
            assert base is not None
            assert count is not None
            first = base[number if len(base) > 1 else 0]
            for receiver in range(first, first + count[0]):
                self.store(receiver, target, size * number, size)
                there = self.semaphores[receiver]
                semaphore = op.properties["sem"].value.data
                there[semaphore] = there.get(semaphore, 0) + 1
        elif name == "wait":
            semaphore, count = op.properties["sem"].value.data, op.properties["imm"].value.data
            while self.semaphores[number].get(semaphore, 0) < count:
                yield
            self.semaphores[number][semaphore] -= count

    def alloc(self, op: sram.SramInstruction, index: int) -> AllocOp:
        address = op.operands[index].owner
        assert isinstance(address, sram.AddressOp)
        alloc = address.buffer.owner
        assert isinstance(alloc, AllocOp)
        return alloc

    def store(self, core: int, alloc: AllocOp, offset: int, size: int) -> None:
        start = self.addresses[alloc.sym_name.data] + offset
        for byte in range(start, start + size, 8):
            self.memory[core][byte] = alloc.sym_name.data
            self.written.setdefault((core, alloc.sym_name.data), set()).add(byte)

    def check(self, core: int, alloc: AllocOp, op: Operation) -> None:
        start, name = self.addresses[alloc.sym_name.data], alloc.sym_name.data
        written = self.written[core, name]  # a gather in a group writes a part only
        for byte in range(start, start + alloc.bytes.value.data, 8):
            found = self.memory[core].get(byte)
            assert found == name or byte not in written, f"core {core}: {op} reads {name}, finds {found}"

    def run(self, r: random.Random) -> None:
        running = {core: self.core(core, self.program.body.block) for core in range(CORES)}
        speed = [r.choice([1, 5, 50]) for _ in range(CORES)]
        idle = 0
        while running:
            core = r.choices(list(running), [speed[c] for c in running])[0]
            for _ in range(r.choice([1, 1, 40])):
                if next(running[core], "done") == "done":
                    del running[core]
                    break
            idle += 1
            assert idle < 200_000, "deadlock"


@pytest.mark.parametrize("seed", range(60))
def test_no_data_is_lost(seed: int) -> None:
    program = program_of(seed)
    addresses = allocate_entry([program], [], SPACES)[program]
    for attempt in range(6):
        Machine(program, addresses).run(random.Random(seed * 100 + attempt))


def test_no_data_is_lost_where_cores_meet_to_save_memory() -> None:
    met = 0
    for seed in range(40):
        program = program_of(seed)
        sizes = {op.sym_name.data: op.bytes.value.data for op in program.body.walk() if isinstance(op, AllocOp)}
        found = allocate_entry([program], [], SPACES)[program]
        peak = max((found[name] + size for name, size in sizes.items()), default=0)
        little = SPACES | {"activation": MemorySpace(0, peak - 32)}
        try:
            addresses = allocate_entry([program], [], little, semaphore=MEETING)[program]
        except DoesNotFitError:
            continue
        met += TOKEN in addresses
        for attempt in range(6):
            Machine(program, addresses).run(random.Random(seed * 100 + attempt))
    assert met > 2


def test_cores_meet_before_an_exchange_whose_buffer_has_no_room_early() -> None:
    b, program = SramBuilder.program("main", range(CORES))
    work = b.address(b.alloc("work", 1024))
    b.vmov_h(work, work, 512)
    part = b.address(b.alloc("part", 64))
    b.vmov_h(part, work, 32)
    whole = b.alloc("whole", 1024, remote=True)
    b.nmcast(b.address(whole), part, 64, sem=0, group_base=0, group_size=CORES)
    b.wait(sem=0, imm=CORES)
    b.vmov_h(b.address(whole), b.address(whole), 512)
    little = SPACES | {"activation": MemorySpace(0, 1536)}
    with pytest.raises(DoesNotFitError, match="whole"):
        allocate_entry([program], [], little)
    addresses = allocate_entry([program], [], little, semaphore=MEETING)[program]
    assert TOKEN in addresses
    names = [op.name for op in program.body.block.ops]
    assert names.index("sram.wait") < names.index("sram.vmov_h", names.index("sram.nmcast"))
    ModuleOp([program]).verify()


@pytest.mark.parametrize("seed", range(20))
def test_conflicting_buffers_are_apart(seed: int) -> None:
    program = program_of(seed)
    addresses = allocate_entry([program], [], SPACES)[program]
    live = analyse(program)
    allocs = list(live.spans)
    for index, a in enumerate(allocs):
        for other in allocs[index + 1 :]:
            a_start, b_start = addresses[a.sym_name.data], addresses[other.sym_name.data]
            apart = a_start + a.bytes.value.data <= b_start or b_start + other.bytes.value.data <= a_start
            assert apart or not live.conflict(a, other)


def test_memory_is_shared() -> None:
    b, program = SramBuilder.program("main", [0])
    for name in "xyz":
        at = b.address(b.alloc(name, 1024))
        b.vmov_h(at, at, 512)
    assert allocate_entry([program], [], SPACES)[program] == {"x": 0, "y": 0, "z": 0}


def test_a_buffer_from_outside_lives_throughout_a_loop() -> None:
    b, program = SramBuilder.program("main", [0])
    x = b.alloc("x", 64)
    with b.loop(0, 2):
        b.vmov_h(b.address(x), b.address(x), 32)
        inner = b.address(b.alloc("inner", 64))
        b.vmov_h(inner, inner, 32)
    after = b.address(b.alloc("after", 64))
    b.vmov_h(after, after, 32)
    assert allocate_entry([program], [], SPACES)[program] == {"x": 64, "inner": 0, "after": 0}


def test_a_stream_buffer_lives_from_the_signal() -> None:
    b, program = SramBuilder.program("main", [0])
    h, stream = HbmBuilder.program("main", [0])
    x, results = b.alloc("x", 64), b.alloc("results", 64)
    b.vmov_h(b.address(x), b.address(x), 32)
    b.sigh(sem=0)
    y = b.address(b.alloc("y", 64))
    b.vmov_h(y, y, 32)
    b.wait(sem=1, imm=4)
    b.vmov_f(b.address(results), b.address(results), 16)
    h.wait(sem=0, count=1)
    h.rdres(base=0, address=HbmBuilder.local("results"), result=0, count=1)
    h.sig(sem=1)
    (window,) = stream_windows(program, [stream])
    assert (window.buffer, window.begin.name, window.writes) == (results.owner, "sram.sigh", True)
    addresses = allocate_entry([program], [stream], SPACES)[program]
    assert addresses["results"] != addresses["y"]
    assert addresses["x"] in (addresses["results"], addresses["y"])


def test_remote_buffers_have_one_address_in_all_programs() -> None:
    programs = []
    for cores, padding in ((range(2), 256), (range(2, 4), 32)):
        b, program = SramBuilder.program("main", cores)
        pad = b.alloc("pad", padding)
        x = b.alloc("x", 512, remote=True)
        b.port(pad, "in", "input", "f16", (padding // 2,))
        b.nmcast(b.address(x), b.address(pad), 32, sem=0, group_base=0, group_size=4)
        b.wait(sem=0, imm=4)
        b.vmov_h(b.address(x), b.address(pad), 16)
        programs.append(program)
    found = allocate_entry(programs, [], SPACES)
    assert len({addresses["x"] for addresses in found.values()}) == 1


def test_too_large() -> None:
    b, program = SramBuilder.program("main", [0])
    x, y = b.alloc("big", 40_000, memory="temp"), b.alloc("small", 30_000, memory="temp")
    b.vmov_h(b.address(x), b.address(y), 10)
    with pytest.raises(TargetError, match=r"'small' does not fit the temp memory .* big \(40000 bytes\)"):
        allocate_entry([program], [], SPACES)
    ModuleOp([program]).verify()


def test_too_large_for_the_room_that_is_left_in_pieces() -> None:
    """The message does not contradict itself: what is in use fits in all, but no run of free bytes is long enough."""
    b, program = SramBuilder.program("main", [0])
    fixed, x = b.alloc("fixed", 16, memory="temp"), b.alloc("x", 20_000, memory="temp")
    b.vmov_h(b.address(x), b.address(fixed), 8)
    space = MemorySpace(0x100, 32768)
    area = _Area(_liveness([program], [])[program], "temp", space, share=False)
    holder, wanted = area.allocs
    area.placed[holder] = space.base + 16_000
    with pytest.raises(TargetError) as caught:
        area.place(wanted, area.first_fit(wanted, area.taken(wanted)))
    text = str(caught.value)
    assert "'x' does not fit the temp memory of 32768 bytes: it takes 20000 bytes" in text
    assert "the buffers in use with it leave 32752, but the longest run of them is 16752" in text
    assert "max_seq" not in (caught.value.hint or "")
