#!/usr/bin/env python3
"""Asks llama-quantize which type each tensor gets, and writes convert_mixture.tsv.

usage: convert_mixture.py LLAMA_QUANTIZE > convert_mixture.tsv

For each shape a sparse F32 GGUF is made; `llama-quantize --dry-run` tells the types without reading a weight. A line holds
the shape, the level, and for each kind of tensor the types over its blocks, run by run; kinds that have the level's own
type in every block are left out.
"""
import re, struct, subprocess, sys, tempfile
from itertools import groupby
from pathlib import Path

LEVELS = {
    "F32": "F32", "F16": "F16", "BF16": "BF16", "Q8_0": "Q8_0", "Q4_0": "Q4_0", "Q4_1": "Q4_1", "Q5_0": "Q5_0",
    "Q5_1": "Q5_1", "Q2_K": "Q2_K", "Q2_K_S": "Q2_K", "Q3_K_S": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_L": "Q3_K",
    "Q4_K_S": "Q4_K", "Q4_K_M": "Q4_K", "Q5_K_S": "Q5_K", "Q5_K_M": "Q5_K", "Q6_K": "Q6_K", "IQ4_NL": "IQ4_NL",
    "IQ4_XS": "IQ4_XS",
}
# name: architecture, blocks, embedding, feed_forward, heads, heads_kv, experts, tied
SHAPES = {
    "stories": ("llama", 5, 64, 172, 8, 4, 0, 0),
    "stories-256": ("llama", 5, 64, 256, 8, 4, 0, 0),
    "dense-32": ("llama", 32, 256, 768, 8, 8, 0, 0),
    "tied-28": ("llama", 28, 512, 1024, 16, 4, 0, 1),
    "tied-odd-22": ("llama", 22, 288, 768, 6, 6, 0, 1),
    "70b": ("llama", 80, 512, 1024, 16, 2, 0, 0),
    "65b": ("llama", 80, 256, 512, 8, 8, 0, 0),
    "mixtral-4x": ("llama", 10, 256, 512, 8, 4, 4, 0),
    "mixtral-8x": ("llama", 32, 512, 1024, 16, 4, 8, 0),
    "mixtral-8x-80": ("llama", 80, 256, 512, 16, 2, 8, 0),
    "mixtral-8x-odd": ("llama", 12, 96, 160, 4, 4, 8, 0),
    "qwen2-80": ("qwen2", 80, 256, 512, 16, 2, 0, 0),
    "falcon-32": ("falcon", 32, 256, 1024, 8, 8, 0, 0),
}
VOCABULARY = 512


def tensors(arch, blocks, embedding, feed_forward, heads, heads_kv, experts, tied):
    key = embedding // heads * heads_kv
    yield "token_embd", [embedding, VOCABULARY]
    yield "output_norm", [embedding]
    if not tied:
        yield "output", [embedding, VOCABULARY]
    for block in range(blocks):
        at = f"blk.{block}."
        yield at + "attn_norm", [embedding]
        yield at + "attn_output", [embedding, embedding]
        if arch == "falcon":
            yield at + "attn_qkv", [embedding, embedding + 2 * key]
            yield at + "ffn_up", [embedding, feed_forward]
            yield at + "ffn_down", [feed_forward, embedding]
            continue
        yield at + "attn_q", [embedding, embedding]
        yield at + "attn_k", [embedding, key]
        yield at + "attn_v", [embedding, key]
        yield at + "ffn_norm", [embedding]
        if experts:
            yield at + "ffn_gate_inp", [embedding, experts]
            yield at + "ffn_gate_exps", [embedding, feed_forward, experts]
            yield at + "ffn_up_exps", [embedding, feed_forward, experts]
            yield at + "ffn_down_exps", [feed_forward, embedding, experts]
        else:
            yield at + "ffn_gate", [embedding, feed_forward]
            yield at + "ffn_up", [embedding, feed_forward]
            yield at + "ffn_down", [feed_forward, embedding]


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def write(path, shape):
    arch, blocks, embedding, feed_forward, heads, heads_kv, experts, _ = shape
    entries = [text("general.architecture") + struct.pack("<I", 8) + text(arch)]
    counts = {
        "context_length": 512, "embedding_length": embedding, "block_count": blocks, "feed_forward_length": feed_forward,
        "attention.head_count": heads, "attention.head_count_kv": heads_kv, "vocab_size": VOCABULARY,
    }
    if experts:
        counts |= {"expert_count": experts, "expert_used_count": 2}
    entries += [text(f"{arch}.{key}") + struct.pack("<II", 4, value) for key, value in counts.items()]
    for key in ("layer_norm_rms_epsilon", "layer_norm_epsilon"):
        entries.append(text(f"{arch}.attention.{key}") + struct.pack("<If", 6, 1e-5))
    listed, offset = [], 0
    for name, dimensions in tensors(*shape):
        head = text(name + ".weight") + struct.pack("<I", len(dimensions))
        listed.append(head + struct.pack(f"<{len(dimensions)}Q", *dimensions) + struct.pack("<IQ", 0, offset))
        elements = 1
        for dimension in dimensions:
            elements *= dimension
        offset += (elements * 4 + 31) // 32 * 32
    head = b"GGUF" + struct.pack("<IQQ", 3, len(listed), len(entries)) + b"".join(entries + listed)
    head += b"\0" * (-len(head) % 32)
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(len(head) + offset)


def types(quantize, path, level):
    run = subprocess.run([quantize, "--dry-run", path, level], capture_output=True, text=True)
    lines = (run.stdout + run.stderr).splitlines()
    found = {}
    for line in lines:
        name = re.search(r"\] (\S+)\.weight +- \[", line)
        if name and "size =" in line:
            new = re.search(r"MiB \((\w+)\)", line) or re.search(r"type = +(\w+),", line)
            found[name[1]] = new[1].upper()
    assert found, lines[-5:]
    return found


def main():
    quantize = sys.argv[1]
    print("# made by convert_mixture.py with llama-quantize; see there")
    for name, shape in SHAPES.items():
        print("shape", name, *shape, sep="\t")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.gguf"
            write(path, shape)
            for level, base in LEVELS.items():
                found = types(quantize, path, level)
                kinds = {}
                for tensor, dimensions in tensors(*shape):
                    kind = tensor.split(".")[-1]
                    kinds.setdefault(kind, []).append(found[tensor])
                cells = []
                for kind, each in kinds.items():
                    if all(one == base for one in each) or (kind.endswith(("_norm", "gate_inp")) and set(each) == {"F32"}):
                        continue
                    runs = ",".join(f"{one}*{len(list(group))}" for one, group in groupby(each))
                    cells.append(f"{kind}={runs}")
                print(name, level, *cells, sep="\t")


main()
