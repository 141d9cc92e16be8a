"""Controllers: MAC streams, bursts, transfers, control commands; the DRAM trace against the independent checker."""

from __future__ import annotations

import numpy as np
import pytest
from sim.programs import port, program, run, target

from pimc.ir.bank_layout import GemvLayout, TileGeometry, linear_place
from pimc.isa.hbm import HBM_ISA
from pimc.runtime_sim import Machine, RunResult
from pimc.runtime_sim.checker import check_trace

f32 = np.float32
GEOMETRY = TileGeometry(4, 16, 32, 16, 32, 32)
COMMANDS = {
    "nop",
    "halt",
    "set",
    "add",
    "addr",
    "loop",
    "endl",
    "wait",
    "sig",
    "wrgb",
    "act",
    "mac",
    "pre",
    "rdres",
    "rd",
    "wr",
    "ref",
}


def test_all_commands_have_a_case() -> None:
    assert {i.mnemonic for i in HBM_ISA.instructions} == COMMANDS


def verify(result: RunResult) -> None:
    """The trace obeys the rules as the checker, which shares no code with the engine, states them."""
    trace = result.trace
    assert trace is not None
    assert trace.lost == 0
    for p in np.unique(trace.pch):
        assert check_trace(target().hbm, trace.of_pch(int(p))) == []


def tree(products: np.ndarray) -> np.ndarray:
    while products.shape[-1] > 1:
        half = products.shape[-1] // 2
        products = products[..., :half] + products[..., half:]
    return products[..., 0]


def gemv_stream(layout: GemvLayout, results: int) -> str:
    """Commands of one GEMV with the input at 0x1000 and the results at ``results``."""
    slice_bytes = 2 * layout.slice_elements
    lines = ["wait s0, 1"]
    last = None
    for visit in layout.visits():
        if (visit.block, visit.chunk) != last:
            columns = visit.segments[0].columns
            for q in range(4):
                at = 0x1000 + (q % layout.ksplit) * slice_bytes + visit.chunk * 1024
                lines.append(f"wrgb 0b{1 << q:04b}, h31, {at}, 0, {columns}, 0")
            last = (visit.block, visit.chunk)
        lines.append(f"act 0b1111, h31, {visit.row}")
        clear = int(visit.chunk == 0)
        lines += [f"mac 0b1111, {s.column}, 0, {s.columns}, {s.slot % 32}, {clear}, h0" for s in visit.segments]
        lines.append("pre 0b1111")
    lines += [f"rdres 0b1111, h31, {results}, 0, {layout.slots}", "sig s1", "halt"]
    return "\n".join(lines)


@pytest.mark.parametrize(("n", "k", "ksplit"), [(100, 576, 4), (40, 300, 1), (64, 1100, 2), (30, 64, 2)])
def test_gemv_in_the_banks(n: int, k: int, ksplit: int) -> None:
    """A GEMV in the compiler's layout: bit-exact in the order of docs/numerics.md, and close to numpy."""
    rng = np.random.default_rng(0)
    layout = GemvLayout(GEOMETRY, k, n, ksplit)
    w = rng.normal(size=(n, k)).astype(np.float16)
    x = np.zeros(layout.padded_k, np.float16)
    x[:k] = rng.normal(size=k)
    packed = layout.pack(w.view(np.uint16))
    core = f"""
        sigh s0
        wait s1, r0, 4
        config parts, {ksplit}
        li r1, 0x8000
        li r2, 0x4000
        li r3, {n}
        vredp r2, r1, r3
        halt
    """
    loaded = program(
        core,
        gemv_stream(layout, 0x8000),
        inputs=[port("x", "f16", len(x), 0x1000)],
        outputs=[port("y", "f16", n, 0x4000)],
        rows=layout.rows,
        images={q: packed[q] for q in range(4)},
    )
    result = run(loaded, {"x": x}, trace=True)
    products = np.zeros((n, ksplit, layout.slice_elements), f32)
    padded = np.zeros((n, layout.padded_k), f32)
    padded[:, :k] = w.astype(f32)
    products = (padded * x.astype(f32)).reshape(n, ksplit, -1, 16)
    sums = tree(products)
    partial = np.zeros((n, ksplit), f32)
    for column in range(sums.shape[2]):
        partial += sums[:, :, column]
    total = partial[:, 0].copy()
    for v in range(1, ksplit):
        total += partial[:, v]
    np.testing.assert_array_equal(result.outputs["y"], total.astype(np.float16))
    np.testing.assert_allclose(result.outputs["y"].astype(f32), padded @ x.astype(f32), rtol=5e-3, atol=2e-2)
    assert result.stats.mac_columns[:4].tolist() == [layout.mac_columns] * 4
    verify(result)


def test_loops_registers_and_bursts() -> None:
    """wr and rd through nested loops with register arithmetic; each pseudo-channel has its own piece."""
    stream = """
        set h1, 0x1000
        set h2, 0x2000
        set h3, 256
        set h4, 0
        wait s3, 1
        loop h31, 2
        loop h31, 3
        wr 0b1111, h4, 0, 5, 2, 2, h1
        rd 0b1111, h4, 0, 5, 2, 2, h2
        addr h1, h1, h3
        addr h2, h2, h3
        add h4, h4, 1
        nop
        endl
        endl
        loop h31, 0
        rd 0b1111, h4, 999, 5, 2, 2, h2
        loop h31, 1
        endl
        endl
        ref 0b1111
        sig s7
        halt
    """
    core = "sigh s3\nwait s7, r0, 4\nhalt"
    n = 6 * 4 * 32
    loaded = program(core, stream, inputs=[port("a", "f16", n, 0x1000)], outputs=[port("b", "f16", n, 0x2000)], rows=6)
    a = np.random.default_rng(1).normal(size=n).astype(np.float16)
    result = run(loaded, {"a": a}, trace=True)
    np.testing.assert_array_equal(result.outputs["b"], a)
    assert result.stats.dram_commands["REF"][0] == 1
    assert result.stats.hbm_bytes_written[:4].tolist() == [6 * 64] * 4
    verify(result)


def test_masks_and_result_order() -> None:
    """Masked commands are skipped; rdres ranks the pseudo-channels of its mask."""
    image = np.ones((1, 16, 512), np.float16).view(np.uint16)
    stream = """
        wait s0, 1
        set h5, 3
        wrgb 0b1010, h31, 0x1000, 0, 1, 32
        act 0b1010, h31, 0
        mac 0b1010, 0, 0, 1, 1, 1, h5
        pre 0b1010
        rdres 0b1010, h31, 0x2000, 4, 1
        sig s1
        halt
    """
    x = np.arange(64, dtype=np.float16)
    loaded = program(
        "sigh s0\nwait s1, r0, 4\nhalt",
        stream,
        inputs=[port("x", "f16", 64, 0x1000)],
        outputs=[port("y", "f32", 32, 0x2000)],
        rows=1,
        images=dict.fromkeys(range(4), image),
    )
    y = run(loaded, {"x": x}).outputs["y"]
    expected = [x[16:32].astype(f32).sum()] * 16 + [x[48:64].astype(f32).sum()] * 16
    np.testing.assert_array_equal(y, expected)


def test_register_from_the_core() -> None:
    """hset gives the stream its row; sigh and wait order it."""
    image = np.zeros((4, 16, 512), np.float16)
    image[:] = np.arange(4)[:, None, None]
    stream = "wait s0, 1\nset h6, 0x2000\nrd 0b0001, h5, 0, 0, 0, 1, h6\nsig s1\nhalt"
    core = "li r1, 3\nhset 5, r1\nsigh s0\nwait s1, r0, 4\nhalt"
    loaded = program(core, stream, outputs=[port("y", "f16", 16, 0x2000)], images={0: image.view(np.uint16)})
    assert run(loaded).outputs["y"].tolist() == [3.0] * 16


@pytest.mark.parametrize(("address", "count"), [(0, 16), (1024 * 3 + 64, 5000), (65536 - 32, 3001), (4096, 40000)])
def test_transfer_round_trip(address: int, count: int) -> None:
    """hwr, hrd: bytes come back, and lie where the linear address says."""
    core = f"""
        li r1, 0x1000
        li r2, {address}
        li r3, {2 * count}
        hwr r1, r2, r3
        li r4, 0x20000
        hrd r4, r2, r3
        halt
    """
    loaded = program(core, inputs=[port("a", "f16", count, 0x1000)], outputs=[port("b", "f16", count, 0x20000)])
    a = np.random.default_rng(2).integers(0, 0x7C00, count).astype(np.uint16).view(np.float16)
    machine = Machine(loaded, target(), trace=True)
    result = machine.run("main", {"a": a})
    np.testing.assert_array_equal(result.outputs["b"], a)
    for i in range(0, count, 97):
        q, row, bank, byte = linear_place(address + 2 * i, GEOMETRY)
        assert machine.hbm_row(q, row)[bank, byte // 2] == a.view(np.uint16)[i]
    verify(result)


def test_transfer_of_columns() -> None:
    """hrdb reads the same columns of the pseudo-channels in the mask."""
    rng = np.random.default_rng(3)
    images = {p: rng.integers(0, 0x7C00, (4, 16, 512)).astype(np.uint16) for p in range(8)}
    core = f"""
        config pch_mask, {0b1011}
        config pch_stride, 200
        li r1, 0x1000
        li r2, 2
        li r3, {7 * 32 + 5}
        li r4, 3
        hrdb r1, r2, r3, r4
        halt
    """
    outputs = [port(f"o{i}", "f16", 48, 0x1000 + 200 * i, 1) for i in range(3)]
    result = run(program({1: core}, outputs=outputs, images=images)).outputs
    for rank, q in enumerate((0, 1, 3)):
        np.testing.assert_array_equal(result[f"o{rank}"].view(np.uint16), images[4 + q][2, 7, 80:128])


def test_hbm_persists_between_runs() -> None:
    core = "li r1, 0x1000\nli r2, 0x800\nli r3, 64\nhwr r1, r2, r3\nhalt"
    back = "li r1, 0x1000\nli r2, 0x800\nli r3, 64\nhrd r1, r2, r3\nhalt"
    first = program(core, inputs=[port("a", "f16", 32, 0x1000)])
    second = program(back, outputs=[port("b", "f16", 32, 0x1000)])
    entry = second.entries["main"]
    renamed = {"core": "code/back/core/0"}
    first = type(first)(
        "hpim", "", 4,
        {"main": first.entries["main"], "back": type(entry)({0: renamed["core"]}, {}, (), entry.outputs)},
        {**first.code, renamed["core"]: second.code["code/main/core/0"]},
        decoded={**first.decoded, renamed["core"]: second.decoded["code/main/core/0"]},
    )  # fmt: skip
    machine = Machine(first, target())
    a = np.arange(32, dtype=np.float16)
    machine.run("main", {"a": a})
    np.testing.assert_array_equal(machine.run("back").outputs["b"], a)


def test_streaming_bandwidth() -> None:
    """A long read keeps the data bus near its peak: neighbouring pieces are in different bank groups."""
    count = 4 * 64 * 1024
    core = f"li r1, 0\nli r2, 0\nli r3, {count}\nhrd r1, r2, r3\nhalt"
    images = {p: np.zeros((4, 16, 512), np.uint16) for p in range(4)}
    result = run(program(core, rows=4, images=images), trace=True)
    peak_ns = count / 4 / 32 * 1.25
    assert peak_ns < result.time_fs / 1e6 < 1.25 * peak_ns
    verify(result)


def test_transfers_and_stream_share_the_banks() -> None:
    """Transfers are served between the rows of a MAC stream, refreshes come in time, and both finish."""
    image = np.ones((8, 16, 512), np.float16).view(np.uint16)
    stream = """
        wait s0, 1
        wrgb 0b1111, h31, 0x1000, 0, 32, 0
        set h1, 0
        loop h31, 60
        act 0b1111, h31, 3
        mac 0b1111, 0, 0, 32, 0, 1, h0
        pre 0b1111
        endl
        rdres 0b1111, h31, 0x2000, 0, 1
        sig s1
        halt
    """
    core = "sigh s0\nli r1, 0x8000\nli r2, 0\nli r3, 0x10000\n" + "hrd r1, r2, r3\n" * 4 + "wait s1, r0, 4\nhalt"
    loaded = program(
        core, stream, inputs=[port("x", "f16", 512, 0x1000)], outputs=[port("y", "f32", 64, 0x2000)],
        rows=8, images=dict.fromkeys(range(4), image),
    )  # fmt: skip
    result = run(loaded, {"x": np.ones(512, np.float16)}, trace=True)
    assert result.outputs["y"].tolist() == [512.0] * 64
    assert result.stats.dram_commands["REF"][0] == result.stats.pch_end_fs[0] // target().hbm.fs("nREFI")
    verify(result)
