"""A tokenizer or chat template of a stranger: whatever it does, an error for people, within its memory and time."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from counting_model import byte_tokenizer

from pimc import child, text
from pimc.diagnostics import InputError
from pimc.limits import TEXT_CPU_S
from pimc.text import ModelInfo, Stream, TextCodec

INFO = ModelInfo(name="bytes", max_seq=64, prefill_chunk=8)


def codec(template: str | None = None, tokenizer: str | None = None) -> TextCodec:
    info = ModelInfo.from_json({**INFO.to_json(), "chat_template": template})
    return TextCodec(tokenizer or byte_tokenizer(), info)


def changed(**parts: object) -> str:
    return json.dumps({**json.loads(byte_tokenizer()), **parts})


def process(of: TextCodec) -> subprocess.Popen[bytes]:
    running = of._child._running
    assert running is not None
    return running.process


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ 1/0 }}", "ZeroDivisionError"),
        ("{{ range(10**9) }}", "OverflowError"),
        ("{{ '%10000000000d' % 1 }}", "memory|OverflowError|ValueError"),
        ("{{ 'x' * 10**10 }}", "memory"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
        ("{{ '\\ud800' }}", "UnicodeEncodeError"),
        ("{{ [].append(1) }}", "SecurityError"),
    ],
)
def test_hostile_templates(template: str, message: str) -> None:
    hostile = codec(template)
    with pytest.raises(InputError, match=message) as caught:
        hostile.encode("hi", chat=True)
    assert len(str(caught.value)) < 700
    assert hostile.encode("hi", chat=False) == [104, 105]  # the process works, or a new one does


@pytest.mark.parametrize(
    "loop",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 2 ** (2 ** 40) }}",  # holds the interpreter's lock
    ],
)
def test_a_template_without_end_is_stopped(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = codec(loop)
    # As a stranger's template: but a test need not wait ten seconds.
    monkeypatch.setattr(child, "TEXT_WALL_S", type(child.TEXT_WALL_S)(1, "s", ""))
    began = time.monotonic()
    with pytest.raises(InputError, match=r"within 1 s|memory"):
        slow.encode("hi", chat=True)
    assert time.monotonic() - began < 5


@pytest.mark.slow
def test_answers_are_bounded() -> None:
    with pytest.raises(InputError, match="more than 32 MiB"):
        codec("{{ 'x' * (33 * 2**20) }}").encode("hi", chat=True)


@pytest.mark.slow
def test_processor_time_is_bounded() -> None:
    began = time.process_time()
    with pytest.raises(InputError, match=f"used more than {TEXT_CPU_S.text}"):
        codec("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}").encode("", chat=True)
    assert time.process_time() - began < 2


def test_padding_is_for_batches() -> None:
    padding = {
        "strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "!",
    }  # fmt: skip
    assert codec(tokenizer=changed(padding=padding)).encode("hi", chat=False) == [104, 105]


def test_a_tokenizer_that_takes_all_memory() -> None:
    replace = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 200_000}
    blow = {"type": "Sequence", "normalizers": [replace, replace, replace]}
    with pytest.raises(InputError, match=r"the binary's tokenizer used more than 1 GiB of memory"):
        codec(tokenizer=changed(normalizer=blow)).encode("aaaa", chat=False)


def test_panics_of_the_native_tokenizer(capfd: pytest.CaptureFixture[str]) -> None:
    model = {**json.loads(byte_tokenizer())["model"], "vocab": {"a": 0}, "merges": [], "unk_token": "<unk>"}
    broken = {"type": "Split", "pattern": {"Regex": "(?:x+x+)+y|("}, "behavior": "Isolated", "invert": False}
    for hostile in (changed(model=model), changed(pre_tokenizer=broken), "[" * 100_000, "{", "\0", "null"):
        with contextlib.suppress(InputError):
            codec(tokenizer=hostile).encode("hi xxxxx", chat=False)
    assert capfd.readouterr() == ("", "")


@contextlib.contextmanager
def answering(monkeypatch: pytest.MonkeyPatch, code: str) -> Iterator[None]:
    """The process runs ``code`` instead: as if a tokenizer had taken it over."""
    popen = subprocess.Popen
    run: Callable[..., object] = lambda command, **rest: popen([*command[:3], code], **rest)  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(child.subprocess, "Popen", run)
        yield


#: Without it, the process may be gone before the question is written.
HEARD = "import sys; i = sys.stdin.buffer; i.read(int.from_bytes(i.read(4), 'big'))\n"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (HEARD + "import os; os.write(1, b'\\xff\\xff\\xff\\xff')", "more than 32 MiB"),
        (HEARD + "import os; os.write(1, b'\\0\\0\\0\\1[')", "no proper answer"),
        (HEARD + "import os; os.write(1, b'\\0\\0\\0\\2[]')", "no proper answer"),
        (HEARD + "import os; os.write(1, b'\\0\\1\\0\\0' + b'[' * 65536)", "no proper answer"),
        (HEARD + "import os; os.write(1, b'\\0\\0\\0\\2\\xff\\xff')", "no proper answer"),
        ("import os; os.write(1, b'\\0')", "ended with exit code 0"),
        ("raise SystemExit(5)", "ended with exit code 5"),
        ("import os; os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    ],
)
def test_a_process_that_answers_nonsense(monkeypatch: pytest.MonkeyPatch, code: str, message: str) -> None:
    with answering(monkeypatch, code), pytest.raises(InputError, match=message):
        codec()


def test_answers_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    good = codec()
    for answer in ({}, {"ids": 3}, {"ids": [-1]}, {"ids": ["x"]}, {"texts": []}, {"texts": [1]}):
        monkeypatch.setattr(good._child, "ask", lambda *_, found=answer: found)
        with pytest.raises(InputError, match="no proper"):
            good.encode("hi", chat=False)
        with pytest.raises(InputError, match="no proper"):
            good.decode([1])


def test_the_process_sees_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    text_codec = codec()
    environment = subprocess.run(
        ["ps", "-wwE", "-p", str(process(text_codec).pid)] if sys.platform == "darwin"
        else ["ps", "eww", "-o", "command=", "-p", str(process(text_codec).pid)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "PYTHONUTF8" in environment
    assert "SECRET_TOKEN" not in environment


def test_memory_can_be_watched_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS, which enforces no limit of memory."""
    watched = child.Child("pimc.text_worker", poll_memory=True)
    monkeypatch.setattr(child, "TEXT_MEMORY", type(child.TEXT_MEMORY)(1 << 20, "bytes", ""))
    question = {"do": "render", "values": {}, "template": "{% for a in range(99999) %}{{ [a] * 1000 }}{% endfor %}"}
    with pytest.raises(InputError, match="used more than 1 MiB of memory"):
        watched.ask(question, "it")


def test_one_process_serves_a_codec_and_ends_with_it() -> None:
    text_codec = codec()
    first = process(text_codec)
    text_codec.decode(text_codec.encode("hi", chat=False))
    assert process(text_codec) is first
    first.kill()
    first.wait()
    assert text_codec.encode("hi", chat=False) == [104, 105]
    second = process(text_codec)
    assert second is not first
    del text_codec
    gc.collect()
    assert second.poll() is not None


def test_an_interrupt_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = codec("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
    running = process(busy)
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            busy.encode("", chat=True)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert running.poll() is not None


def test_the_process_ends_with_its_parent() -> None:
    template = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    script = (
        "import sys, threading, time\n"
        "from pimc.child import Child\n"
        "c = Child('pimc.text_worker')\n"
        f"threading.Thread(target=c.ask, args=({{'do': 'render', 'values': {{}}, 'template': {template!r}}}, 'it'),"
        " daemon=True).start()\n"
        "while not c.started: time.sleep(0.01)\n"
        "time.sleep(0.5)\n"
        "print(c._running.process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(pid, 0)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        state = child.resident_bytes(pid)
        if not state:
            return
        time.sleep(0.05)
    raise AssertionError("the process is alive five seconds after its parent")


def test_threads_and_forks_share_a_codec() -> None:
    shared = codec()
    with ThreadPoolExecutor(8) as pool:
        texts = [f"text {i}" for i in range(64)]
        assert list(pool.map(lambda t: shared.decode(shared.encode(t, chat=False)), texts)) == texts
    ours = process(shared)
    pid = os.fork()
    if pid == 0:
        right = shared.decode(shared.encode("fork", chat=False)) == "fork" and process(shared).pid != ours.pid
        shared.close()
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert shared.decode(shared.encode("parent", chat=False)) == "parent"
    assert process(shared) is ours


def test_the_prompt_has_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="not Unicode"):
        codec().encode("\udcff", chat=False)
    monkeypatch.setattr(text, "PROMPT_BYTES", type(text.PROMPT_BYTES)(3, "bytes", ""))
    with pytest.raises(InputError, match="the prompt has more than 3 bytes"):
        codec().encode("four", chat=False)


def test_streaming_costs_the_same_for_every_token() -> None:
    stream, text_codec = Stream(shared := codec()), codec()
    sizes: list[int] = []
    decode = shared.decode_each
    shared.decode_each = lambda *lists: sizes.append(sum(map(len, lists))) or decode(*lists)  # type: ignore[method-assign]
    written = "aé世🌍 " * 40
    pieces = [stream.push(token) for token in text_codec.encode(written, chat=False)]
    assert "".join(pieces) + stream.finish() == written == stream.text
    assert max(sizes) <= 16


def test_bytes_that_never_make_a_character_are_shown() -> None:
    text_codec = codec()
    continuation = text_codec.encode("世", chat=False)[1]
    stream = Stream(text_codec)
    pieces = [stream.push(continuation) for _ in range(20)]
    assert any(pieces)
    assert stream.text + stream.finish() == "\ufffd" * 20
