#!/usr/bin/env python3
"""Makes preference.safetensors with PyTorch, transformers and PEFT, as a judge of learning from preferences (DPO).

usage: preference.py   (needs torch, transformers, peft, gguf)

The model and its adapter are those of training/llama.*; three pairs of answers behind their prompts, and what PyTorch makes
of them: the loss, the gradients of the adapter, and the losses of 20 steps of AdamW on all three pairs. The loss is that of
the paper (arXiv:2305.18290, equation 7), the reference is the model with its adapter switched off.
"""

from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
BETA, RATE, STEPS, RANK, ALPHA = 0.5, 2e-3, 20, 4, 8
VOCABULARY, PROMPT = 96, 5
LENGTHS = [(9, 12), (14, 7), (11, 11)]


def likelihood(model, ids):
    logits = model(input_ids=ids[None]).logits[0, PROMPT - 1 : -1]
    return logits.log_softmax(-1).gather(1, ids[PROMPT:, None]).sum()


def loss_of(model, pairs):
    total = 0.0
    for better, worse in pairs:
        with torch.no_grad(), model.disable_adapter():
            reference = likelihood(model, better) - likelihood(model, worse)
        now = likelihood(model, better) - likelihood(model, worse)
        total = total - torch.nn.functional.logsigmoid(BETA * (now - reference))
    return total / len(pairs)


def main():
    torch.set_num_threads(1)
    torch.manual_seed(1)
    given = load_file(HERE / "training/llama.safetensors")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        HERE / "training", gguf_file="llama.gguf", dtype=torch.float32, attn_implementation="eager"
    )
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", lora_dropout=0.0)
    tuned = peft.get_peft_model(model, config).eval()
    trained = {}
    for name, weight in tuned.named_parameters():
        if weight.requires_grad:
            name = name.replace(".default", "")
            trained[name] = weight
            weight.data = given[f"lora.{name}"].clone()
    with torch.no_grad():
        error = (tuned(input_ids=given["ids"]).logits - given["logits"]).abs().max()
    assert error < 1e-5, error
    prompts = torch.randint(3, VOCABULARY, (len(LENGTHS), PROMPT))
    answer = lambda prompt, length: torch.cat([prompt, torch.randint(3, VOCABULARY, (length - PROMPT,))])
    pairs = [tuple(answer(prompt, length) for length in both) for prompt, both in zip(prompts, LENGTHS)]
    found = {f"{place}.{kind}": ids for place, both in enumerate(pairs) for kind, ids in zip(("better", "worse"), both)}
    first = loss_of(tuned, pairs)
    first.backward()
    found |= {f"grad.{name}": weight.grad.clone() for name, weight in trained.items()}
    optimizer = torch.optim.AdamW(list(trained.values()), lr=RATE, weight_decay=0.01)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(tuned, pairs)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"loss {losses[0]:.4f} to {losses[-1]:.4f}")
    found["losses"] = torch.tensor(losses)
    save_file({name: value.contiguous() for name, value in found.items()}, HERE / "training/preference.safetensors")


main()
