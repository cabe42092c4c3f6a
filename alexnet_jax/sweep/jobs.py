"""The runs of a sweep: what each of them is, how it has ended, and what they are together."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from alexnet_jax.arguments import read_words
from alexnet_jax.config.fields import Config
from alexnet_jax.data.packed import refuse_early
from alexnet_jax.errors import ConfigError, RefusedError
from alexnet_jax.sharding.mesh import check_towers
from alexnet_jax.storage.files import replace_text
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.sweep.table import Comparison, Outcome, compare, markdown, notes
from alexnet_jax.training.ancestor import check_ancestor

DIVERGED_TXT = "diverged.txt"  # in the folder of a run: why it has no errors, and need not be tried again


@dataclass(frozen=True)
class SweepRun:
    """A run to be made."""

    variant: str
    config: Config
    flags: tuple[str, ...]  # of alexnet_jax.main
    workdir: Workdir

    @property
    def name(self) -> str:
        return f"{self.variant}, seed {self.config.seed}"


def deal(flags: Mapping[str, tuple[str, ...]], seeds: Sequence[int], root: Workdir) -> list[SweepRun]:
    """Orders all variants with the first seed, then all with the next: a comparison comes first.

    Every variant's flags are read here, so that a mistake in the last costs no time.
    """
    configs = {}
    for variant, words in flags.items():
        try:
            configs[variant] = read_words(words)
            check_towers(configs[variant].mesh, configs[variant].network.towers)
        except ConfigError as error:
            raise ConfigError(f"variant {variant}: {error}") from error
    for one, other in itertools.combinations(configs, 2):
        if configs[one] == replace(configs[other], expected=configs[one].expected):
            raise ConfigError(
                f"variants {one} and {other} are the same with this config; leave one of them out"
            )
    return [
        SweepRun(
            variant,
            replace(config, seed=seed),
            (*flags[variant], f"--config.seed={seed}"),
            Workdir(str(root.path / variant.replace(",", "+") / f"seed-{seed}")),
        )
        for seed in seeds
        for variant, config in configs.items()
    ]


def refuse(jobs: Sequence[SweepRun]) -> None:
    """Says what is missing, or in the way, before the first run takes time."""
    for job in jobs:
        refuse_early(job.config.data, job.config.network.classes)
        job.workdir.check()
        job.workdir.check_metrics(job.config)
        if not job.workdir.begun:
            check_ancestor(job.config)


def outcome(job: SweepRun) -> Outcome | None:
    """The outcome of a run that has ended, and was made as this job would make it."""
    final = job.workdir.final()
    if not final and not (job.workdir.path / DIVERGED_TXT).exists():
        return None
    job.workdir.check_metrics(job.config)
    errors = (final["step"], final["top1_error"], final["top5_error"]) if final else ()
    return Outcome(job.variant, job.config.seed, *errors)


def read_table(
    jobs: Sequence[SweepRun], paper: Mapping[str, str], seeds: int, root: Workdir
) -> list[Comparison]:
    """The table of what is there."""
    if not root.path.is_dir():
        raise RefusedError(f"{root.path} holds no sweep: there is no such folder")
    return compare([ended for job in jobs if (ended := outcome(job))], paper, seeds)


def write_table(
    jobs: Sequence[SweepRun], paper: Mapping[str, str], seeds: int, root: Workdir
) -> list[Comparison]:
    """The table of what is there, as table.md and table.json too."""

    def read() -> list[Comparison]:
        return read_table(jobs, paper, seeds, root)

    rows, written = read(), None
    while rows != written:  # another job may have ended in between, and have written first
        replace_text(root.path / "table.md", f"{markdown(rows)}\n\n{notes(rows)}\n")
        replace_text(root.path / "table.json", json.dumps([asdict(row) for row in rows], indent=1) + "\n")
        rows, written = read(), rows
    return rows
