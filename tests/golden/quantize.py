#!/usr/bin/env python3
"""Makes quantize.tsv: what llama.cpp's own tools make of a set of checkpoints, as one hash a file.

usage: quantize.py LLAMA_CPP CHECKPOINT... > quantize.tsv

LLAMA_CPP is a llama.cpp source tree with build/bin/llama-quantize; the Python that runs this has torch, transformers and gguf.
The checkpoints are those of the shared material (derived/stories260K-hf-*) and two made here:
  nfl synthesize tests/golden/seeded-dense.json --output seeded-dense --seed 7 --dtype f16
  nfl synthesize tests/golden/seeded-moe.json --output seeded-moe --seed 7 --dtype f16
Each checkpoint is converted with convert_hf_to_gguf.py --outtype f32, and that file is quantised to every level.
Columns: checkpoint, level, `ok` or `refused`, sha256 over the tensors in order of their names, each as
"<name> <type> <dimensions joined by x>\\n" followed by its bytes.
"""

import hashlib
import pathlib
import subprocess
import sys
import tempfile

LEVELS = """F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q2_K_S Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K IQ4_NL
IQ4_XS""".split()


def digest(path):
    from gguf import GGUFReader

    total = hashlib.sha256()
    for tensor in sorted(GGUFReader(path).tensors, key=lambda tensor: tensor.name):
        shape = "x".join(str(int(size)) for size in tensor.shape)
        total.update(f"{tensor.name} {tensor.tensor_type.name} {shape}\n".encode())
        total.update(tensor.data.tobytes())
    return total.hexdigest()


def main():
    upstream, checkpoints = pathlib.Path(sys.argv[1]), sys.argv[2:]
    sys.path.insert(0, str(upstream / "gguf-py"))
    for checkpoint in checkpoints:
        name = pathlib.Path(checkpoint).name
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder) / "f32.gguf"
            convert = [sys.executable, upstream / "convert_hf_to_gguf.py", checkpoint, "--outtype", "f32", "--outfile", source]
            subprocess.run(convert, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            print(name, "F32", "ok", digest(source), sep="\t", flush=True)
            for level in LEVELS:
                target = pathlib.Path(folder) / f"{level}.gguf"
                quantize = [upstream / "build/bin/llama-quantize", source, target, level]
                done = subprocess.run(quantize, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                if done.returncode == 0:
                    print(name, level, "ok", digest(target), sep="\t", flush=True)
                else:
                    print(name, level, "refused", "-", sep="\t", flush=True)
                target.unlink(missing_ok=True)


main()
