"""Compares variants: python -m alexnet_jax.sweep --config=FILE --variants="paper no_lrn" --workdir=DIR"""

import contextlib
import re
from textwrap import fill

from absl import flags

from alexnet_jax import arguments, cli
from alexnet_jax.errors import ConfigError, RefusedError, UserError
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.sweep.jobs import deal, outcome, read_table, refuse, write_table
from alexnet_jax.sweep.running import LOG, run_all
from alexnet_jax.sweep.table import notes, terminal_table
from configs.variants import difference

CONFIG = arguments.define_config_flag()
VARIANTS = flags.DEFINE_string("variants", None, "With spaces between; they are compared with the first.")
SEEDS = flags.DEFINE_string("seeds", "0,1,2", "With commas between.")
WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the sweep; a run is in VARIANT/seed-SEED.")
SHARE = flags.DEFINE_string("share", "0/1", "This job's number / how many jobs share the runs, as in 0/7.")
TABLE = flags.DEFINE_boolean("table", False, "Print the table of what is there, and run nothing.")


def main() -> None:
    """Refuses what cannot work, runs what has not ended yet, and prints the table."""
    variants = once("variants", arguments.require(VARIANTS, "'paper no_lrn'").split())
    seeds, share = read_seeds(SEEDS.value), arguments.read_share(SHARE)
    root = Workdir(arguments.require(WORKDIR, "runs/sweep"))
    jobs = deal(read_flags(variants), seeds, root)

    paper = {name: difference(name, variants[0]) for name in variants}

    def show_table() -> None:
        rows = (read_table if TABLE.value else write_table)(jobs, paper, len(seeds), root)
        print(f"\n{terminal_table(rows)}\n\n{fill(notes(rows), 100)}")

    if TABLE.value:
        show_table()
        return
    mine = jobs[share[0] :: share[1]]
    refuse(mine)
    root.path.mkdir(parents=True, exist_ok=True)
    done = sum(outcome(job) is not None for job in mine)
    print(
        f"sweep  {len(variants)} x {len(seeds)} runs (variants x seeds), in {root.path}\n"
        f"here   {len(mine)} of them, {done} done before",
        flush=True,
    )
    try:
        failed = run_all(mine)
    except UserError:
        with contextlib.suppress(RefusedError):
            show_table()
        raise
    show_table()
    print(f"Also in {root.path / 'table.md'} and table.json")
    if failed:
        raise UserError(f"failed runs: {failed}; their {LOG} says why, the same command tries them again")


def read_flags(variants: list[str]) -> dict[str, tuple[str, ...]]:
    """The flags of `alexnet_jax.main` for each variant."""
    file, words = arguments.config_file(CONFIG), arguments.config_words()
    if "seed" in flags.FLAGS[CONFIG.name].override_values:
        raise ConfigError("--config.seed is another one in every run; try --seeds=0,1,2")
    return {variant: (f"--config={file}:{variant}", *words) for variant in variants}


def read_seeds(text: str) -> list[int]:
    """Seeds with commas between."""
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ConfigError(f"--seeds={text} must be whole numbers with commas between, as in 0,1,2")
    return once("seeds", [int(seed) for seed in text.split(",")])


def once(flag: str, values: list) -> list:
    """Values of which each stands for runs of its own."""
    if not values:
        raise ConfigError(f"--{flag} names nothing")
    for value in values:
        if values.count(value) > 1:
            raise ConfigError(f"--{flag} names {value} twice")
    return values


if __name__ == "__main__":
    cli.run(main)
