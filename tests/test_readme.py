import csv
import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
RESULTS = README.parent / "benchmarks" / "results" / "cpu-2-cores"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.S | re.M)


def test_readme_has_code_on_its_first_screen():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert lines.index("```python") < 20


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_readme_block_runs(block, capsys):
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def table(first_cells):
    """Rows of the README's table whose header begins with some cells, by their first cell."""
    lines = iter(README.read_text(encoding="utf-8").splitlines())
    header = next(
        cells for line in lines if (cells := _cells(line))[: len(first_cells)] == first_cells
    )
    next(lines)
    rows = {}
    for line in lines:
        if not line.strip().startswith("|"):
            break
        name, *cells = _cells(line)
        rows[name.strip("`")] = dict(zip(header[1:], cells, strict=True))
    return rows


def _cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def measured(folder):
    """Lines of an evaluation's table by detector and population."""
    with (RESULTS / folder / "table.csv").open(newline="") as file:
        return {(line["detector"], line["population"]): line for line in csv.DictReader(file)}


def interval(line, name):
    value, low, high = (f"{float(line[column]):.2f}" for column in (name, *_ends(name)))
    return f"{value} ({low} to {high})"


def _ends(name):
    short = "tpr" if name.startswith("tpr") else name
    return f"{short}_low", f"{short}_high"


def test_the_table_of_detectors_is_what_the_evaluation_found():
    lines = measured("evaluation")
    shown = table(["detector", "AUROC (95 % interval)"])
    assert set(shown) == {detector for detector, _ in lines}
    for detector, row in shown.items():
        whole = lines[detector, "all"]
        tpr = interval(whole, "tpr_at_1_percent_fpr")
        if tpr == "1.00 (1.00 to 1.00)":
            tpr = "1.00"  # nothing missed in any resample
        assert row == {
            "AUROC (95 % interval)": interval(whole, "auroc"),
            "TPR at 1 % FPR": tpr,
            "flagged of copies": f"{whole['flagged']} of {whole['of']}",
            "of ordinary": f"{whole['ordinary_flagged']} of {whole['ordinary']}",
            "random weights": interval(lines[detector, "control: random weights"], "auroc"),
            "without duplicates": interval(lines[detector, "control: without duplicates"], "auroc"),
        }


def test_the_table_of_three_models_is_what_their_evaluations_found():
    shown = table(["detector", "the packaged one"])
    folders = {
        "the packaged one": "evaluation",
        "permutation 1": "evaluation-1",
        "permutation 2": "evaluation-2",
    }
    of_model = {name: measured(folder) for name, folder in folders.items()}
    assert set(shown) == {detector for detector, _ in of_model["the packaged one"]}
    for detector, row in shown.items():
        assert row == {
            name: interval(lines[detector, "all"], "auroc") for name, lines in of_model.items()
        }
