"""What only a process of its own shows: signals, a terminal, a closed pipe, what gets imported."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest

SLOW = """\
import time
from plait.methods import Array, Weights, method

@method(paper="https://example.org", locality="element")
def slow(weights: Weights) -> Array:
    '''Take the first model, slowly.'''
    time.sleep(0.1)
    return weights[0]
"""
RUN = (sys.executable, "-m", "plait")


@pytest.fixture
def slow(house):
    (house / "slow.py").write_text(SLOW)
    (house / "slow.yml").write_text("models: [{model: a}, {model: b}]\nmerge_method: slow\n")
    return ("merge", "slow.yml", "out", "--methods", "slow.py", "--threads", "1")


def _imported(*arguments: str) -> set[str]:
    code = (
        f"import sys; sys.argv = ['plait', *{arguments!r}]\n"
        "import atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from plait.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("merge", "--help"), ("completion", "zsh")])
def test_help_imports_nothing_heavy(arguments):
    imported = _imported(*arguments)
    assert "plait.cli" in imported
    assert not imported & {"numpy", "numba", "torch", "transformers", "rich", "yaml", "safetensors", "tokenizers"}


def test_the_list_of_methods_compiles_nothing():
    assert not _imported("methods") & {"numba", "torch", "transformers", "rich"}


def test_ctrl_c_keeps_what_is_done_and_the_next_run_goes_on(house, slow):
    with subprocess.Popen(
        [*RUN, *slow, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        seen = []
        for line in running.stdout:
            seen.append(json.loads(line)["event"])
            if seen.count("progress") == 3:  # the header, a tensor, and one after it: the first is in the journal
                running.send_signal(signal.SIGINT)
                break
        out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "the same command goes on there" in err
    assert "Traceback" not in err
    assert json.loads(out.splitlines()[-1])["event"] == "interrupted"
    assert not (house / "out").exists()
    again = subprocess.run([*RUN, *slow, "--json"], check=True, capture_output=True, text=True)
    events = [json.loads(line) for line in again.stdout.splitlines()]
    assert events[0]["event"] == "resume"
    assert events[-1]["event"] == "done"
    assert not list(house.glob("out?*"))


def test_a_second_ctrl_c_ends_it_at_once(house, slow):
    busy = "print('busy', flush=True), time.sleep(50)"
    (house / "slow.py").write_text(SLOW.replace("time.sleep(0.1)", busy))
    began = time.monotonic()
    with subprocess.Popen(
        [*RUN, *slow, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert "busy\n" in running.stdout
        running.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.5)  # what the thread is at is waited for
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=20)
    assert time.monotonic() - began < 40
    assert running.returncode == 130
    assert err.strip().startswith("Stopped at once.")
    assert "event" not in out
    assert sorted(path.name for path in house.glob("out*")) == ["out.partial"]


def _on_a_terminal(*arguments: str) -> tuple[str, str]:
    """Run with stderr on a terminal of 100 columns; return stdout and what the terminal was sent."""
    ours, theirs = pty.openpty()
    sent: list[bytes] = []

    def read() -> None:
        try:
            while part := os.read(ours, 65536):
                sent.append(part)
        except OSError:  # Linux says so when the other end is closed
            return

    reader = threading.Thread(target=read)
    reader.start()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    for name in ("NO_COLOR", "CI", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        environment.pop(name, None)
    done = subprocess.run([*RUN, *arguments], check=True, stdout=subprocess.PIPE, stderr=theirs, env=environment)
    os.close(theirs)
    reader.join(10)
    os.close(ours)
    return done.stdout.decode(), b"".join(sent).decode()


def test_a_terminal_gets_a_bar_with_rate_time_left_and_tensor(slow):
    out, shown = _on_a_terminal(*slow)
    assert out.startswith("out: 21 tensors")
    assert "━" in shown
    assert "/s" in shown
    assert "0:00:0" in shown
    assert "model.layers.0.self_attn" in shown
    assert shown.rstrip().endswith(("\x1b[2K", "\x1b[?25h")), "the bar goes away at the end"


def test_a_terminal_gets_no_bar_when_quiet(slow):
    assert _on_a_terminal(*slow, "-q") == ("", "")


def test_a_reader_that_leaves_causes_no_traceback(house):
    with subprocess.Popen([*RUN, "plan", "ties.yml", "-v"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 1
