"""The committed record of the detector that fits 16 images, and what its page says of it."""

import json

from tests.scripts import load_script


def test_sixteen_images_are_learned() -> None:
    study = load_script("studies/detection.py")
    record = json.loads(study.RESULT.read_text())
    assert (record["untrained"]["n"], record["evaluation"]["n"], record["evaluation"]["boxes"]) == (16, 16, 72)
    assert record["untrained"]["map_50"] <= 0.01
    assert record["evaluation"]["map_50"] >= 0.10
    # It is of the recipe that the script has today.
    recipe = study.RECIPE.resolve("resnet18", trained=False)
    for name, value in record["recipe"].items():
        own = getattr(recipe, name)
        assert value == (list(own) if isinstance(own, tuple) else own), name
    assert "The same 16 images of COCO's train2017 (72 boxes) that it was trained on" in study.caption(record)
    assert f"{100 * record['evaluation']['map_50']:.1f}" in study.precision_table(record)
