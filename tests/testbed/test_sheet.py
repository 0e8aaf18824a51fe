from PIL import Image

from memattn.testbed import load_manifest, load_pipeline, sampling, sheet


def test_sheet_shows_every_group(tmp_path, monkeypatch):
    monkeypatch.setattr(sheet, "_PROMPTS", 2)
    monkeypatch.setattr(sheet, "_SEEDS", (0,))
    monkeypatch.setattr(sampling, "STEPS", 2)
    file = tmp_path / "sheet.png"
    sheet.save_sheet(load_pipeline(), load_manifest(), file)
    # four groups with training pictures above samples, one without, four gaps; doubled in size
    with Image.open(file) as image:
        assert image.size == (2 * 2 * 64, 2 * (9 * 64 + 4 * 8))
    assert [f.name for f in tmp_path.iterdir()] == ["sheet.png"]
