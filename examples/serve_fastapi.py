"""Serve an exported network: the label, the probability and the decision for each image that is sent to it.

selfdistill export RUN --probabilities --out photos.onnx
python examples/serve_fastapi.py photos.onnx --threshold 0.83
curl --data-binary @cat.jpg http://127.0.0.1:8000
"""

import argparse
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from fastapi import FastAPI, HTTPException, Request
from PIL import Image, ImageOps


def prepare(image: Image.Image, size: int, interpolation: str, crop_pct: float, crop_mode: str) -> Image.Image:
    """Return the square that the network was tested on: small images squeezed, of others the middle, or squashed."""
    image = ImageOps.exif_transpose(image).convert("RGB")
    if size <= 64:
        return image.resize((size, size), Image.Resampling.BILINEAR)
    side, shorter = round(size / crop_pct), min(image.size)
    width, height = (side if crop_mode == "squash" else side * old // shorter for old in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling[interpolation.upper()])
    return resized.crop((left, top, left + size, top + size))


def make_app(file: Path, threshold: float) -> FastAPI:
    """Return the service of an exported file; below the threshold that ``predict --abstain`` prints it is not sure."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    known = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    if known.get("output") != "probabilities":
        raise SystemExit(f"{file} gives logits: export it with --probabilities")

    usual = {"interpolation": "bilinear", "crop_pct": 0.875, "crop_mode": "center"}  # of earlier versions
    resizing = known["image_size"], *(known.get(name, value) for name, value in usual.items())

    async def classify(request: Request) -> dict[str, Any]:
        try:
            image = prepare(Image.open(io.BytesIO(await request.body())), *resizing)
        except (OSError, Image.DecompressionBombError) as error:
            raise HTTPException(415, "the body is not an image") from error
        x = (np.asarray(image, np.float32) / 255 - known["mean"]) / known["std"]
        ((p,),) = session.run(None, {"images": x.transpose(2, 0, 1)[None].astype(np.float32)})
        label, probability = known["classes"][p.argmax()], float(p.max())
        decision = label if probability >= threshold else "not sure"
        return {"label": label, "probability": probability, "decision": decision}

    app = FastAPI(title="selfdistill")
    app.add_api_route("/", classify, methods=["POST"])
    return app


if __name__ == "__main__":
    import uvicorn

    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("file", type=Path, help="what selfdistill export --probabilities wrote")
    options.add_argument("--threshold", type=float, default=0.0, help="of predict --abstain (default: always answer)")
    args = options.parse_args()
    uvicorn.run(make_app(args.file, args.threshold))
