"""The README says what the code says."""

from pathlib import Path

from configs.variants import VARIANTS

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_every_variant_has_its_target() -> None:
    table = README.partition("## Results\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("| `")]
    found = {row[0].strip(" `"): [cell.strip() for cell in row[1:6]] for row in rows}
    assert found == {
        name: [v.words, v.origin, *(f"{100 * e:.2f}" if e else "" for e in (v.top1, v.top5)), v.difference]
        for name, v in VARIANTS.items()
    }
