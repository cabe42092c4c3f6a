"""The notebook, run by a real kernel on a small run, shows what its sentences promise."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tests.commands.running import ROOT
from tests.notebooks import NOTEBOOKS, execute

PATH = NOTEBOOKS / "inspect_sharded_params.ipynb"
# Where something lies on a machine, and when it was done.
LOCAL = re.compile(r"(?<![\w.)])(~|/[A-Za-z][\w.-]*)/[\w.-]|[A-Z]:\\|\b\d\d:\d\d\b|\b20\d\d-\d\d-\d\d\b")


def said(cell: NotebookNode) -> str:
    """The text that a cell has printed or shown."""
    return "".join(
        output.text if output.output_type == "stream" else output.data.get("text/plain", "")
        for output in cell.outputs
    )


@pytest.fixture(scope="module")
def cells(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, NotebookNode]:
    """By name, with what they gave on a run of 30 steps; started in the root, as some editors do."""
    environment = {"ALEXNET_WORKDIR": str(trained), "IPYTHONDIR": str(tmp_path_factory.mktemp("ipython"))}
    return {cell.id: cell for cell in execute(PATH, ROOT, **environment).cells if cell.cell_type == "code"}


@pytest.fixture(scope="module")
def texts(cells: dict[str, NotebookNode]) -> dict[str, str]:
    return {name: said(cell) for name, cell in cells.items()}


@pytest.mark.slow
def test_nothing_complains(cells: dict[str, NotebookNode]) -> None:
    for name, cell in cells.items():
        assert cell.outputs, name
        for output in cell.outputs:
            assert output.get("name", "stdout") == "stdout", f"{name}: {output.text}"


@pytest.mark.slow
def test_the_run(texts: dict[str, str]) -> None:
    assert texts["run"] == "the run trained\n"
    assert texts["load"] == "step 30, on 8 devices: {'data': 4, 'tower': 2}\n"


@pytest.mark.slow
def test_parameters_and_their_places(texts: dict[str, str]) -> None:
    """A device holds one of two towers, and half of the bytes."""
    assert texts["table"].count("cpu:0 2 4 6") == texts["table"].count("cpu:1 3 5 7") == 16
    numbers, each = re.search(r"([\d,]+) numbers; ([\d,]+) bytes on each device\n$", texts["table"]).groups()
    assert int(numbers.replace(",", "")) * 4 == int(each.replace(",", "")) * 2
    assert "float32 (2, 11, 11, 3, 4)  P('tower')" in texts["kernel"]
    assert re.findall(r"cpu:[\d ]+\d", texts["kernel"]) == ["cpu:0 2 4 6", "cpu:1 3 5 7"]
    assert re.findall(r"cpu:[\d ]*\d", texts["batch"]) == [
        *(f"cpu:{i} {i + 1}" for i in range(0, 8, 2)),
        *(f"cpu:{i}" for i in (0, 2, 4, 6, 1, 3, 5, 7)),
    ]


@pytest.mark.slow
def test_towers(cells: dict[str, NotebookNode], texts: dict[str, str]) -> None:
    assert texts["tower"].startswith("conv1  (11, 11, 3, 4)\n")
    assert texts["tower"].endswith("its slice of the whole: [True, True]\n")
    rows = texts["compare"].splitlines()[1:]
    assert len(rows) == 8
    for row in rows[:-1]:  # fc8's see different classes
        *_, one, other, correlation = map(float, row.split()[1:])
        assert one == pytest.approx(other, rel=0.3)
        assert abs(correlation) < 0.5
    (picture,) = cells["figure3"].outputs
    assert len(picture.data["image/png"]) > 5000


@pytest.mark.slow
def test_responses_and_scores(texts: dict[str, str]) -> None:
    rows = [line.split() for line in texts["responses"].splitlines()[1:]]
    assert " ".join(row[0] for row in rows[0::2]) == (
        "conv1 pool1 conv2 pool2 conv3 conv4 conv5 pool5 fc6 fc7 fc8"
    )
    assert all(float(row[-1]) > 0 for row in rows)
    assert texts["scores"].splitlines() == [
        f"{shape}  scores of 40 pictures as on (1, 1): True, classes: 100%"
        for shape in ("(1, 1)", "(1, 2)", "(4, 2)")
    ]


@pytest.mark.slow
def test_communication(texts: dict[str, str]) -> None:
    assert texts["communication"].endswith("which is what the arithmetic says, to the byte\n")
    assert texts["count"].splitlines() == [
        "forward:  5 all-gathers between towers",
        "backward: 4 reduce-scatters between towers",
    ]
    by_hand, _, *rows = texts["arithmetic"].splitlines()
    assert by_hand == "fc7 by hand: 2 ways x 4 pictures x 8 units x 4 bytes = 256"
    assert "tower   fc7              256            256  equal" in rows
    assert len(rows) == 5 + 8
    assert all(row.endswith("  equal") for row in rows)
    assert texts["alone"] == "none\n"


def test_what_is_stored() -> None:
    """Every cell has its outputs, in order, and a sentence before it; nothing in them is of a machine."""
    notebook = nbformat.read(PATH, as_version=4)
    nbformat.validate(notebook)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in codes] == list(range(1, len(codes) + 1))
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds == ["markdown", *["markdown", "code"] * len(codes)]
    for cell in codes:
        assert cell.metadata == {}
        assert cell.outputs
        found = LOCAL.search(said(cell))
        assert found is None, f"{cell.id}: {found[0]}"
