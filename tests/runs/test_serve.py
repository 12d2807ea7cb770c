"""The example service says of an image what `predict` says of its file."""

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

from selfdistill.config import TrainConfig
from selfdistill.models import build
from selfdistill.runs.export import export_run
from selfdistill.runs.predict import predict_files
from selfdistill.training import load_run
from selfdistill.training.export import save_model
from selfdistill.training.run import load

fastapi = pytest.importorskip("fastapi")
EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_fastapi.py"


@pytest.fixture(
    params=[
        {"image_size": 32},
        {"image_size": 72, "interpolation": "bicubic", "crop_pct": 0.95},
        {"image_size": 72, "crop_mode": "squash"},
    ]
)
def run(request: pytest.FixtureRequest, pictures: Path, tmp_path: Path) -> Path:
    recipe = TrainConfig(data=str(pictures), model="resnet10_cifar", width=4, **request.param)
    (tmp_path / "run").mkdir()
    save_model(build("resnet10_cifar", 3, width=4), recipe, load(recipe), tmp_path / "run", temperature=0.1)
    return tmp_path / "run"


def test_an_export_is_served(run: Path, pictures: Path, tmp_path: Path) -> None:
    from fastapi.testclient import TestClient

    spec = importlib.util.spec_from_file_location("serve_fastapi", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    with pytest.raises(SystemExit, match="--probabilities"):
        example.make_app(export_run(run, "onnx").path, 0.0)
    file = export_run(run, "onnx", probabilities=True).path
    Image.open(next(pictures.glob("test/*/*.png"))).resize((90, 61)).save(tmp_path / "oblong.png")
    ((wanted,), _) = predict_files(load_run(run), [tmp_path / "oblong.png"])
    for threshold, decision in ((wanted.confidence - 1e-3, wanted.label), (wanted.confidence + 1e-3, "not sure")):
        client = TestClient(example.make_app(file, threshold))
        got = client.post("/", content=(tmp_path / "oblong.png").read_bytes()).json()
        assert got == {
            "label": wanted.label,
            "probability": pytest.approx(wanted.confidence, abs=1e-4),
            "decision": decision,
        }
        assert client.post("/", content=b"no image").status_code == 415
