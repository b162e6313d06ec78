#!/usr/bin/env python3
"""Holds what `nfl finetune` and `nfl merge` write to PEFT and to llama.cpp's own tools; run it by hand.

usage: adapter.py NFL MATERIAL LLAMA_CPP_BIN   (needs torch, transformers, peft, gguf)

- the folder of a run loads in PEFT, and every weight that PEFT merges is that of `nfl merge --level f32` within 1e-5;
- llama-completion says with adapter.gguf what `nfl run --adapter` says.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import torch
from peft import PeftModel
from transformers import LlamaForCausalLM

NFL, MATERIAL, TOOLS = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
MODEL = MATERIAL / "derived/stories260K-llama-F32.gguf"
CHECKPOINT = MATERIAL / "derived/stories260K-hf-llama"
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def nfl(*arguments):
    return subprocess.run([NFL, *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def pairs(weight, heads):
    """Rows as GGUF has them: those that are turned together side by side."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def merged_weights(folder):
    base = LlamaForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(base, folder)
    assert any(weight.abs().max() > 0 for name, weight in tuned.named_parameters() if "lora_B" in name)
    return tuned.merge_and_unload()


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plays = (MATERIAL / "finetune/text/tinyshakespeare.txt").read_text()[:60_000].split("\n\n")
        lines = [json.dumps({"text": "\n\n".join(plays[start : start + 4])}) for start in range(0, len(plays), 4)]
        (folder / "plays.jsonl").write_text("\n".join(lines))
        run = folder / "run"
        numbers = ["--steps", 40, "--length", 512, "--rate", "2e-3"]
        nfl("finetune", "--qlora", MODEL, "--data", folder / "plays.jsonl", "--output", run, *numbers)

        nfl("merge", MODEL, "--adapter", run, "--level", "f32", "--output", folder / "merged.gguf")
        ours = {tensor.name: tensor.data for tensor in gguf.GGUFReader(folder / "merged.gguf").tensors}
        model = merged_weights(run)
        worst = 0.0
        for place, layer in enumerate(model.model.layers):
            for module, tensor in NAMES.items():
                weight = layer.get_submodule(module).weight.detach().numpy()
                heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
                if tensor in heads:
                    weight = pairs(weight, heads[tensor])
                worst = max(worst, abs(weight - ours[f"blk.{place}.{tensor}.weight"]).max())
        print(f"weights merged by PEFT and by nfl differ by {worst:.1e} at the most")
        assert worst <= 1e-5

        prompt, tokens = "Once upon a time", 48
        options = ["--temperature", 0, "--tokens", tokens, "--raw", "--quiet"]
        said = nfl("run", MODEL, prompt, "--adapter", run, *options)
        command = [TOOLS / "llama-completion", "-m", MODEL, "--lora", run / "adapter.gguf", "-p", prompt]
        command += ["-n", tokens, "--temp", 0, "-no-cnv", "--no-display-prompt", "-fa", "off"]
        other = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout
        print(f"nfl:       {said!r}\nllama.cpp: {other!r}")
        assert said.strip() and other.strip().startswith(said.strip()[:60])


main()
