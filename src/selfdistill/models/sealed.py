"""Files of weights that hold their own checksum: safetensors whose metadata say what the file's SHA-256 is.

The checksum is that of the whole file with zeros in the checksum's place, so that no other file is needed to check one.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from selfdistill.files import read_file

_KEY, _BLANK = "checksum", "0" * 64
_LARGEST = 2**34  # bytes


def seal_weights(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return tensors as the content of a safetensors file that holds its checksum.

    Args:
        tensors: by name, on the CPU.

    Example:
        >>> import torch
        >>> content = seal_weights({"weight": torch.ones(2)})
        >>> content == seal_weights({"weight": torch.ones(2)}), len(content)
        (True, 176)
    """
    from safetensors.torch import save

    content = save(dict(tensors), dict(metadata or {}) | {_KEY: f'"{_BLANK}"'})  # JSON, as the rest may be
    return content.replace(_BLANK.encode(), hashlib.sha256(content).hexdigest().encode(), 1)


def read_weights(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read a safetensors file and check its checksum; one of another program, which has none, is read as it is.

    Args:
        path: the file; no link is followed.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read, or is a link.
        ValueError: it is damaged, or not safetensors; what is wrong without the name of the file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = read_file(path, _LARGEST)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError("it is damaged, or another file (its checksum differs)")
    try:
        tensors: dict[str, Tensor] = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"it is damaged ({' '.join(str(error).split())})") from None
    sealed = str((header.get("__metadata__") or {}).get(_KEY, "")).strip('"')
    if sealed and hashlib.sha256(content.replace(sealed.encode(), _BLANK.encode(), 1)).hexdigest() != sealed:
        raise ValueError("it is damaged (its checksum differs)")
    return tensors
