"""Several processes on this machine, each as on a host of its own: the rehearsal of a run on a cluster.

    python launch/processes.py [--print] N --config=configs/quickstart.py --workdir=runs/two

Each has one GPU where there are N of them, or else the CPU devices that the config simulates. TERM and Ctrl-C
are passed on to all, a second Ctrl-C ends them at once. The exit code is the first that is not 0.
"""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
USAGE = "usage: python launch/processes.py [--print] N --config=FILE --workdir=DIR"
GRACE = 60  # seconds in which the others notice by themselves that one has ended badly


class Processes:
    """All of them, their output behind their numbers."""

    def __init__(self, commands: list[list[str]]):
        self._asked = False
        # In sessions of their own: the terminal's Ctrl-C comes to this process alone.
        self._running = [
            subprocess.Popen(
                words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
            )
            for words in commands
        ]
        self._readers = [threading.Thread(target=self._show, args=item) for item in enumerate(self._running)]
        for reader in self._readers:
            reader.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pass_on)

    def wait(self) -> int:
        """The first exit code that is not 0; those who do not notice it are ended."""
        first, since = 0, 0.0
        while None in (codes := [process.poll() for process in self._running]):
            time.sleep(0.1)
            bad = next(filter(None, codes), 0)
            if bad and not first:
                first, since = bad, time.monotonic()
            if first and time.monotonic() > since + GRACE:
                self._send(signal.SIGKILL)
        for reader in self._readers:
            reader.join()
        first = first or next((process.returncode for process in self._running if process.returncode), 0)
        return first if first >= 0 else 128 - first  # as a shell names a signal

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._send(signal.SIGKILL if self._asked and number == signal.SIGINT else signal.SIGTERM)
        self._asked = True

    def _send(self, number: signal.Signals) -> None:
        for process in self._running:
            if process.poll() is None:
                process.send_signal(number)

    def _show(self, number: int, process: subprocess.Popen) -> None:
        for line in process.stdout:
            sys.stdout.buffer.write(f"[{number}] ".encode() + line)
            sys.stdout.flush()


def main(words: list[str]) -> int:
    show = words[:1] == ["--print"]
    number, *flags = (words[1:] if show else words) or [""]
    if not number.isdecimal() or int(number) == 0 or not flags:
        print(USAGE, file=sys.stderr)
        return 2
    commands = plan(int(number), flags)
    if show:
        print("\n".join(map(shlex.join, commands)))
        return 0
    return Processes(commands).wait()


def plan(processes: int, flags: list[str]) -> list[list[str]]:
    """The command of each process."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    joins = [f"--coordinator_address=localhost:{port}", f"--num_processes={processes}"]
    own = [[f"--process_id={i}"] for i in range(processes)]
    if gpus() >= processes:
        own = [[*words, f"--local_device_ids={i}"] for i, words in enumerate(own)]
    return [[sys.executable, "-m", "alexnet_jax.main", *joins, *words, *flags] for words in own]


def gpus() -> int:
    """How many NVIDIA GPUs there are, or are let be seen."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len(visible.split(",")) if visible else 0
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    return listed.stdout.count("GPU ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
