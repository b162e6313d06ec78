#!/usr/bin/env python3
"""Makes bitsandbytes.json with bitsandbytes on a processor, as the judge of tests/bitsandbytes.rs.

usage: bitsandbytes.py   (needs bitsandbytes 0.50, torch, numpy; in another folder, for its own name hides the package)

Numbers come from a formula that the test has too, so that the file holds only SHA-256 digests of what bitsandbytes makes
of them: NF4 with double quantisation of matrices, and parameters and states of AdamW8bit behind each of some steps.

PyTorch takes square roots from MKL, whose last bit depends on the processor; here they are rounded correctly.
"""

import hashlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path = [place for place in sys.path if Path(place or ".").resolve() != HERE]

import bitsandbytes  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from bitsandbytes import functional  # noqa: E402

torch.set_num_threads(1)
torch.Tensor.sqrt = lambda tensor: torch.from_numpy(np.sqrt(tensor.numpy()))

# The rows of the second are no multiple of a block, and its last block is not full; the third has no scales to mean.
MATRICES = [(260, 128), (41, 172), (1, 64)]
PARAMETERS, STEPS = 4483, 6
RATE, DECAY = 2e-3, 0.01


def numbers(seed, count):
    """From −1 to 1, of all magnitudes down to 2⁻¹²."""
    places = np.arange(count, dtype=np.int64)
    spread = ((places + 1) * (7919 + 2 * seed) * 104729 % 65521).astype(np.float32)
    size = np.float32(2.0) ** -(places // 7 % 13).astype(np.float32)
    return torch.from_numpy((spread / np.float32(32760.5) - np.float32(1.0)) * size)


def digest(tensor):
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def matrix(seed, rows, width):
    weights = numbers(seed, rows * width).reshape(rows, width)
    packed, state = functional.quantize_4bit(weights, quant_type="nf4", compress_statistics=True)
    # `dequantize_4bit` of 0.50.2 reads the wrong scales where rows are no multiple of a block and of 16.
    back = functional.dequantize_4bit(packed, state)
    return {
        "shape": [rows, width],
        "packed": digest(packed),
        "codes": digest(state.absmax),
        "scales": digest(state.state2.absmax),
        "offset": state.offset.item(),
        "dequantized": digest(back),
    }


def adamw():
    parameter = torch.nn.Parameter(numbers(100, PARAMETERS))
    optimizer = bitsandbytes.optim.AdamW8bit([parameter], lr=RATE, weight_decay=DECAY)
    steps = []
    for step in range(STEPS):
        parameter.grad = numbers(200 + step, PARAMETERS)
        optimizer.step()
        state = optimizer.state[parameter]
        steps.append(
            {
                "parameter": digest(parameter.detach()),
                "first": digest(state["state1"]),
                "first_scales": digest(state["absmax1"]),
                "second": digest(state["state2"]),
                "second_scales": digest(state["absmax2"]),
            }
        )
    return {"count": PARAMETERS, "rate": RATE, "decay": DECAY, "steps": steps}


found = {
    "version": bitsandbytes.__version__,
    "signed": digest(functional.create_dynamic_map(signed=True)),
    "unsigned": digest(functional.create_dynamic_map(signed=False)),
    "nf4": [matrix(seed, *shape) for seed, shape in enumerate(MATRICES)],
    "adamw": adamw(),
}
(HERE / "bitsandbytes.json").write_text(json.dumps(found, indent=1) + "\n")
