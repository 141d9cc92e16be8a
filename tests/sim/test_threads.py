"""One executable in many threads, many executables, forked and spawned processes: the results of one thread."""

from __future__ import annotations

import copy
import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

import numpy as np
import pytest
from sim.programs import port, program, target

from pimc.diagnostics import SimError, UsageError
from pimc.isa.program import LoadedProgram
from pimc.runtime import Executable
from pimc.runtime_sim import Machine
from pimc.runtime_sim.pool import writes_hbm
from pimc.targets import Target

T = TypeVar("T")
N = 64
_ADD = f"""
    li r1, 0x1000
    li r2, 0x2000
    li r3, {N}
    vadd.h r2, r1, r1, r3
    halt
"""
#: Adds the input to a row of HBM and puts the sum out.
_SUM = f"""
    li r1, 0x1000
    li r2, 0x2000
    li r3, {N}
    li r4, {2 * N}
    hrd r2, r0, r4
    vadd.h r2, r1, r2, r3
    hwr r2, r0, r4
    halt
"""


def stateless() -> LoadedProgram:
    return program(_ADD, inputs=[port("a", "f16", N, 0x1000)], outputs=[port("b", "f16", N, 0x2000)])


def stateful() -> LoadedProgram:
    images = {p: np.zeros((4, 16, 512), np.uint16) for p in range(4)}
    return program(_SUM, inputs=[port("a", "f16", N, 0x1000)], outputs=[port("b", "f16", N, 0x2000)], images=images)


def small() -> Target:
    """A machine of two cores: much of a short run is what it resets."""
    return target("cores.count=2", "hbm.stacks=1", "hbm.channels=4", "noc.columns=1")


def in_threads(threads: int, work: Callable[[int], T]) -> list[T]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, range(threads)))


def ones(value: float) -> np.ndarray:
    return np.full(N, value, np.float16)


def test_what_keeps_a_state() -> None:
    assert not writes_hbm(stateless())
    assert writes_hbm(stateful())


def test_eight_threads_run_one_executable() -> None:
    """Segmentation faults and false errors before: the arrays of a run were replaced by another's."""
    executable = Executable(stateless(), small())
    cycles = executable.run(ones(1)).cycles

    def work(thread: int) -> None:
        for run in range(50):
            result = executable.run(ones(50 * thread + run))
            assert result.outputs["b"].tolist() == [2.0 * (50 * thread + run)] * N
            assert result.cycles == cycles

    in_threads(8, work)


def test_runs_of_a_program_with_a_state_wait_for_each_other() -> None:
    executable = Executable(stateful(), small())

    def work(_: int) -> list[float]:
        return [float(executable.run(ones(1)).outputs["b"][0]) for _ in range(10)]

    sums = [each for found in in_threads(8, work) for each in found]
    assert sorted(sums) == list(range(1, 81)), "every run saw the one before it"


def test_a_session_holds_others_off() -> None:
    executable = Executable(stateful(), small())

    def work(_: int) -> None:
        for _ in range(5):
            with executable.session():
                first, second = (float(executable.run(ones(1)).outputs["b"][0]) for _ in range(2))
            assert second == first + 1

    in_threads(4, work)


def test_many_executables_in_many_threads() -> None:
    def work(thread: int) -> None:
        executable = Executable(stateful(), small())
        for run in range(5):
            assert float(executable.run(ones(thread)).outputs["b"][0]) == thread * (run + 1)

    in_threads(8, work)


def test_a_machine_is_for_one_run_at_a_time() -> None:
    """Also from inside a run: the arrays under the engine would be replaced."""
    executable = Executable(program("lui r2, 0x7fff\nagain:\naddi r1, r1, 1\nblt r1, r2, again\nhalt"), small())
    with pytest.raises(UsageError, match="from inside a run"):
        executable.run(on_progress=lambda _: executable.run())
    machine = Machine(executable.program, executable.target)
    machine._running.acquire()
    with pytest.raises(UsageError, match="runs already"):
        machine.run("main")


def _in_fork(work: Callable[[], bool]) -> bool:
    pid = os.fork()
    if pid == 0:
        right = False
        try:
            right = work()
        finally:
            os._exit(0 if right else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork_after_a_run() -> None:
    executable = Executable(stateful(), small())
    executable.run(ones(1))
    assert _in_fork(lambda: float(executable.run(ones(1)).outputs["b"][0]) == 2), "the child has the state"
    assert float(executable.run(ones(5)).outputs["b"][0]) == 6, "and the parent its own"

    def fails() -> bool:
        try:
            executable.run(ones(1))
        except SimError as error:
            executable.reset()
            return "forked while" in str(error) and float(executable.run(ones(3)).outputs["b"][0]) == 3
        return False

    inside, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with executable.session(), executable._pool(False).borrowed():
            inside.set()
            go_on.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    torn = _in_fork(fails)
    go_on.set()
    thread.join()
    assert torn, "a state that a fork caught in the middle of a run is refused, and nothing hangs"


def test_copies_have_a_state_of_their_own() -> None:
    """A copied machine would hold addresses of arrays that are not its own."""
    executable = Executable(stateful(), small())
    executable.run(ones(1))
    for other in (copy.deepcopy(executable), pickle.loads(pickle.dumps(executable))):
        assert float(other.run(ones(7)).outputs["b"][0]) == 7
    with pytest.raises(TypeError):
        pickle.dumps(executable._pool(False).first)
    with pytest.raises(TypeError):
        copy.deepcopy(executable._pool(False).first)


def test_spawn() -> None:
    executable = Executable(stateful(), small())
    executable.run(ones(1))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        result = pool.submit(executable.run, ones(9)).result()
    assert float(result.outputs["b"][0]) == 9
