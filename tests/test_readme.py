"""The README says what the code says: its tables, and the names of commands, fields and exit codes."""

import dataclasses
import functools
import re
from pathlib import Path

from alexnet_jax import errors
from alexnet_jax.config.building import build
from alexnet_jax.figures.__main__ import FIGURES, OF_TWO
from configs import imagenet
from configs.variants import VARIANTS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def rows(head: str) -> list[list[str]]:
    """The cells of the table with this head."""
    lines = README.partition(f"\n| {head} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def named(head: str) -> list[str]:
    """The code in a table's first column."""
    return [name for first, *_ in rows(head) for name in re.findall(r"`([^`]+)`", first)]


def test_every_variant_has_its_target() -> None:
    found = {row[0].strip("`"): row[1:6] for row in rows("variant | what | figure of")}
    assert found == {
        name: [v.words, v.origin, *(f"{100 * e:.2f}" if e else "" for e in (v.top1, v.top5)), v.difference]
        for name, v in VARIANTS.items()
    }


def test_names() -> None:
    """Tables have all that there is; commands, fields and exit codes are those of the code."""
    assert {*named("name | what")} == {*FIGURES, OF_TWO}
    recipes = {str(path.relative_to(ROOT)) for path in ROOT.glob("configs/*.py") if path.stem[0] != "_"}
    assert {*named("config | what")} == recipes - {"configs/variants.py"}
    for module in {*re.findall(r"python -m ((?:alexnet_jax|benchmarks|configs|tests)\.[\w.]+)", README)}:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    values = dataclasses.asdict(build(imagenet.get_config().to_dict()))
    sections = "|".join(name for name, value in values.items() if isinstance(value, dict))
    fields = {*re.findall(rf"(?:`|--config\.)((?:{sections})\.(?!py)\w+(?:\.\w+)*)", README)}
    assert len(fields) > 20
    for field in fields:
        functools.reduce(dict.__getitem__, field.split("."), values)
    codes = re.search(r"\*\*Exit codes\.\*\* (.*?)\.\n", README, re.DOTALL)[1]
    found = {int(number) for number in re.findall(r"(?:^|,\s)(\d+) ", codes.replace("\n", " "))}
    assert found == {code for name, code in vars(errors).items() if name.isupper()}
