"""Runs the notebooks as their readers do; rewrites what is stored of their outputs.

python -m tests.notebooks runs/quickstart
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

from tests.commands.running import ROOT

NOTEBOOKS = ROOT / "notebooks"
PATIENCE = 600  # seconds for a cell


def execute(path: Path, folder: Path, **environment: str) -> NotebookNode:
    """A notebook with the outputs of a kernel that was started in a folder."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=PATIENCE,
        kernel_name="python3",
        record_timing=False,
        config=Config({"KernelManager": {"transport_encryption": "auto"}}),  # without, ipykernel warns
        resources={"metadata": {"path": str(folder)}},
    )
    return client.execute(env=os.environ | environment)


def main(workdir: str) -> None:
    """Each of them, with a run, and nothing of this machine in what is stored."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        done = execute(path, NOTEBOOKS, ALEXNET_WORKDIR=str(Path(workdir).resolve()))
        before = nbformat.read(path, as_version=4)
        done.metadata = before.metadata  # not this machine's versions
        nbformat.validate(done)
        path.write_text(nbformat.writes(done) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
