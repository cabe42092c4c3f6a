"""The command draws what is asked for, and says what it cannot draw."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from alexnet_jax.errors import CONFIG, REFUSED
from alexnet_jax.figures.__main__ import FIGURES, LINES
from alexnet_jax.storage.workdir import Workdir
from tests.commands.running import here


@pytest.mark.slow
def test_all(workdir: Workdir, data_dir: Path, tmp_path: Path) -> None:
    """Every figure, line art as a drawing too; one that is refused keeps no other from being drawn."""
    shutil.copytree(workdir.path, tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    out, err = here("figures", f"--workdir={tmp_path}/run", "--row=3", data_dir=data_dir, code=REFUSED)
    drawn = [name for name in FIGURES if name != "curves"]
    assert [line.split()[0] for line in out.splitlines() if line[0] != " "] == drawn
    files = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert files == {f"{name}.png" for name in drawn} | {f"{name}.svg" for name in drawn if name in LINES}
    for name in drawn:
        with Image.open(tmp_path / "run" / "figures" / f"{name}.png") as picture:
            assert picture.width == 1400 and picture.height > 200
            assert picture.convert("L").getextrema()[0] < 100
    assert err.splitlines()[0].startswith("curves         not drawn: ")
    assert "Traceback" not in err


def test_one(workdir: Workdir, data_dir: Path, tmp_path: Path) -> None:
    flags = (f"--workdir={workdir.path}", "confusion", f"--out={tmp_path}/table.svg", "--mesh=1x1")
    out, _ = here("figures", *flags, data_dir=data_dir)
    assert out.startswith(f"confusion      {tmp_path}/table.svg\n")
    assert "<svg" in (tmp_path / "table.svg").read_text()


def test_refused(data_dir: Path) -> None:
    for words, complaint, code in (
        (("kernel",), "there is no figure 'kernel'; the nearest name is kernels, of towers,", CONFIG),
        (("kernels", "figur1"), "there is no figure 'figur1'; the nearest name is figure1, of to", CONFIG),
        (("--out=x.png",), "--out=x.png is for one figure; name it", CONFIG),
        (("curves", "--out=x.bmp"), "--out=x.bmp must end in .png, .pdf or .svg", CONFIG),
        (("figure1", "--relu=x", "--tanh=y", "--out=z.txt"), "--out=z.txt must end in .png, .pdf", CONFIG),
        (("curves",), "--workdir is missing", CONFIG),
        (("figure1",), "--relu is missing; try --relu=runs/relu", CONFIG),
        (("curves", "--workdir=/nowhere", "--mesh=2"), "holds no run", REFUSED),
    ):
        _, err = here("figures", *words, data_dir=data_dir, code=code)
        assert err.startswith("error: ") and complaint in err and len(err.splitlines()) == 1, words
