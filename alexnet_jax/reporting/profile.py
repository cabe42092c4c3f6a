"""A profile of some steps, layer by layer, for TensorBoard."""

import contextlib
from collections.abc import Callable, Iterator

import jax

from alexnet_jax.learning.step import Health
from alexnet_jax.storage.workdir import Workdir


class Profile:
    """`--config.profile_steps=N`: the N steps after the one that is compiled; process 0 alone writes it."""

    def __init__(self, workdir: Workdir, first: int, steps: int, say: Callable[[str], None]):
        self._path, self._say = str(workdir.path), say
        begin = first + 2 if workdir.writes and steps else None
        self._begin, self._end = begin, begin and begin + steps
        self._under_way = False

    def step(self, number: int, before: Health | None) -> contextlib.AbstractContextManager:
        """A context around the start of a step; `before` is the health of the step before."""
        if number == self._begin:
            jax.block_until_ready(before)
            with self._tolerated():
                options = jax.profiler.ProfileOptions()
                options.python_tracer_level = 0  # of every Python call: large, and nothing about devices
                jax.profiler.start_trace(self._path, profiler_options=options)
                self._under_way = True
        if number == self._end:
            self.close(before)
        if not self._under_way:
            return contextlib.nullcontext()
        return jax.profiler.StepTraceAnnotation("train", step_num=number)

    def close(self, last: Health | None = None) -> None:
        """Writes it, once the last of its steps has ended."""
        if not self._under_way:
            return
        self._under_way = False
        jax.block_until_ready(last)
        with self._tolerated():
            jax.profiler.stop_trace()
            self._say(f"profile in {self._path}/plugins/profile; TensorBoard shows it with pip install xprof")

    @contextlib.contextmanager
    def _tolerated(self) -> Iterator[None]:
        """A run does not end for want of its profile."""
        try:
            yield
        except (RuntimeError, OSError) as error:
            self._say(f"not profiled: {error}")
