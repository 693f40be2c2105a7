"""Half an hour of everything at once, and whether memory stays flat.

``python -m benchmarks.soak [--minutes 30] [--json FILE]``

A server with a tiny model, a CNN and an identity of 4 MiB gets, in turn: requests in sessions and alone,
sealed to both KEMs, and in the clear; new clients that verify it, ask and leave; sealed requests that are
wrong inside; bytes that are no request; and clients that hang up before they sent or received everything.
Right answers are held against onnxruntime in process, wrong requests must get their error. Its resident set
is read every ten seconds. What the first half allocates once (caches, arenas, the replay memory of two
minutes) does not count: the slope is that of the second half.
"""

from __future__ import annotations

import argparse
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.calls import CallWindow, run_calls
from benchmarks.exchanges import prepare, prepare_wrong
from benchmarks.generator import Window, run_window
from benchmarks.load import LoadError, ask_once, split_answer
from benchmarks.machine import choose_cores, describe_machine, on_core, resident_bytes
from benchmarks.report import write_json
from benchmarks.servers import Server, confonnx_repository
from benchmarks.variants import Variant
from benchmarks.workloads import Workload, make_workloads

FLAT = 0.02
"""Memory is flat where the second half certainly added less than this share of it."""

_MODELS = ("tiny", "cnn", "identity-4")
_SAMPLE_SECONDS = 10.0
_GARBAGE = (
    b"POST /ohttp HTTP/1.1\r\nhost: a\r\ncontent-type: message/ohttp-req\r\ncontent-length: 64\r\n\r\n"
    + bytes(64),
    b"POST /ohttp HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nno",
    b"POST /ohttp HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n\r\n",
    b"GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n",
    b"\x16\x03\x01 not HTTP at all\r\n\r\n",
)


@dataclass(frozen=True, slots=True)
class Slope:
    """A line through samples: bytes a second, its standard error, and what that makes of the time covered.

    ``certain``: the growth that would still be likely (two standard errors above), as a share of the mean.
    """

    per_second: float
    error: float
    mean: float
    seconds: float

    @property
    def certain(self) -> float:
        """See the class."""
        return (self.per_second + 2 * self.error) * self.seconds / self.mean

    @property
    def flat(self) -> bool:
        """Whether memory is shown to be flat."""
        return self.certain < FLAT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write the JSON. 0: flat; 1: not shown to be."""
    given = _parse(arguments)
    cores = choose_cores()
    machine = describe_machine(cores)
    with TemporaryDirectory() as directory:
        workloads = make_workloads(_MODELS, Path(directory))
        with confonnx_repository(Path(directory), cores) as server, on_core(cores.generator):
            samples, done = soak(
                server, workloads, seconds=60 * given.minutes, order=random.Random(given.seed)
            )
    second_half = [sample for sample in samples if sample[0] >= samples[-1][0] / 2]
    slope = fit(second_half)
    head = f"{machine.started_at}; {machine.cpus} × {machine.cpu}; {given.minutes:g} minutes"
    printed = f"{head}\n{text(samples, slope, done)}"
    print(printed)
    if given.json is not None:
        document = {
            "text": printed,
            "machine": asdict(machine),
            "samples": samples,
            "slope": asdict(slope),
            "done": done,
        }
        write_json(given.json, document)
    return 0 if slope.flat else 1


def soak(
    server: Server, workloads: Sequence[Workload], *, seconds: float, order: random.Random
) -> tuple[list[tuple[float, int]], Counter[str]]:
    """Everything in turn until the time is over: samples of (seconds, bytes), and how often each was done.

    Samples are taken between turns, when no request is under way, so that payloads in flight are no noise.
    """
    deeds = _deeds(server, workloads, order)
    done: Counter[str] = Counter()
    samples: list[tuple[float, int]] = []
    begin = sampled = time.monotonic()
    while time.monotonic() - begin < seconds:
        for name, deed in order.sample(list(deeds.items()), len(deeds)):
            done[name] += deed()
        if time.monotonic() - sampled >= _SAMPLE_SECONDS:
            sampled = time.monotonic()
            samples.append((sampled - begin, sum(map(resident_bytes, server.pids))))
    return samples, done


def soak_once(server: Server, workloads: Sequence[Workload]) -> Counter[str]:
    """One turn of everything: how often each was done. Raises ``LoadError`` for a wrong answer."""
    return Counter({name: deed() for name, deed in _deeds(server, workloads, random.Random(1)).items()})


def fit(samples: Sequence[tuple[float, int]]) -> Slope:
    """The line of least squares. ``ValueError`` for fewer than three samples."""
    if len(samples) < 3:
        raise ValueError(f"a slope with its spread needs three samples, found {len(samples)}")
    at, size = (np.array(column, float) for column in zip(*samples, strict=True))
    centred = at - at.mean()
    per_second = float(centred @ size / (centred @ centred))
    rest = size - size.mean() - per_second * centred
    error = float(np.sqrt(rest @ rest / (len(at) - 2) / (centred @ centred)))
    return Slope(per_second, error, float(size.mean()), float(at[-1] - at[0]))


def text(samples: Sequence[tuple[float, int]], slope: Slope, done: Counter[str]) -> str:
    """What was done, a dozen samples, the verdict."""
    step = max(1, len(samples) // 12)
    hour = 3600 / 2**20
    return "\n".join(
        [
            ", ".join(f"{name}: {count:,}" for name, count in sorted(done.items())),
            "resident set, MiB: " + " ".join(f"{size / 2**20:.0f}" for _, size in samples[::step]),
            f"second half: {slope.per_second * hour:+.2f} MiB an hour, standard error "
            f"{slope.error * hour:.2f}; of {slope.mean / 2**20:.0f} MiB, {slope.certain:.1%} at most",
            "memory is flat" if slope.flat else f"memory is NOT shown to be flat: the limit is {FLAT:.0%}",
        ]
    )


def _deeds(
    server: Server, workloads: Sequence[Workload], order: random.Random
) -> dict[str, Callable[[], int]]:
    """What is done in turn; each says how many requests it made."""
    tiny, cnn, large = workloads

    def right(variant: Variant, workload: Workload, concurrency: int, count: int) -> Callable[[], int]:
        window = Window(variant, workload, server.port, server.pids, concurrency, count)
        return lambda: len(run_window(window).timings.latencies)

    def client() -> int:
        window = Window(Variant.SESSION_XWING, tiny, server.port, server.pids, 1, 5)
        return len(run_calls(CallWindow(window, server.measurement)).timings.latencies)

    return {
        "tiny in a session": right(Variant.SESSION_XWING, tiny, 8, 1000),
        "tiny, X25519": right(Variant.X25519, tiny, 8, 300),
        "tiny, X-Wing": right(Variant.XWING, tiny, 8, 300),
        "tiny in the clear": right(Variant.PLAIN, tiny, 8, 300),
        "cnn in a session": right(Variant.SESSION_X25519, cnn, 8, 24),
        "4 MiB in a session": right(Variant.SESSION_XWING, large, 4, 12),
        "new client": client,
        "wrong inside": lambda: _wrong(server, tiny),
        "garbage": lambda: _garbage(server),
        "hung up": lambda: _hang_up(server, (tiny, cnn, large), order),
    }


def _wrong(server: Server, workload: Workload) -> int:
    """Sealed requests for an input that the model lacks: each must get a sealed 400."""
    prepared = prepare_wrong(workload, port=server.port, count=20)
    for number, message in enumerate(prepared.messages):
        status = prepared.judge(number, memoryview(ask_once(server.port, message)), workload)
        if status != 400:
            raise LoadError(f"a wrong request got status {status}, not 400")
    return len(prepared.messages)


def _garbage(server: Server) -> int:
    """Bytes that are no request of ours: each must get an error."""
    for message in _GARBAGE:
        status = split_answer(memoryview(ask_once(server.port, message)))[0]
        if not 400 <= status < 500:
            raise LoadError(f"garbage got status {status}: {message[:60]!r}")
    return len(_GARBAGE)


def _hang_up(server: Server, workloads: Sequence[Workload], order: random.Random) -> int:
    """Clients that leave: somewhere within the request, and after it; politely, and with a reset."""
    prepared = [
        prepare(Variant.SESSION_X25519, workload, port=server.port, count=6) for workload in workloads
    ]
    for message in (message for one in prepared for message in one.messages):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(message[: order.choice((order.randrange(len(message)), len(message)))])
            if order.random() < 0.5:  # SO_LINGER of no seconds: closing resets
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return sum(len(one.messages) for one in prepared)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="at least one (default: 30)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every sample, machine-readable")
    parser.add_argument("--seed", type=int, default=1, help="of the order (default: 1)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
