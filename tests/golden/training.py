#!/usr/bin/env python3
"""Makes the files of training/ with PyTorch, transformers and PEFT, as judges of tests/training.rs.

usage: training.py LLAMA_CPP [FAMILY…]   (needs torch, transformers, peft, gguf, and a checkout of llama.cpp)

Of each family a tiny random model: FAMILY.gguf is what llama.cpp's own converter makes of it (without a vocabulary), and
FAMILY.safetensors has a low-rank adapter on all its linear maps as PEFT names it (`lora.…`), tokens and labels of two
documents, and what PyTorch makes of them: logits, the gradients of the adapter (`grad.…`), the losses of 50 steps of
AdamW with clipping, and the logits of the model that PEFT merged when it had learned.
"""

import json
import sys
import tempfile
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import save_file

LLAMA_CPP = Path(sys.argv[1])
HERE = Path(__file__).parent / "training"
sys.path.insert(0, str(LLAMA_CPP))

import gguf  # noqa: E402
from conversion import ModelBase, ModelType, get_model_architecture, get_model_class  # noqa: E402

VOCABULARY, TOKENS = 96, 24
RANK, ALPHA, RATE, STEPS = 4, 8, 2e-3, 50

SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "attn_implementation": "eager",
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

GEMMA = {"head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16, "tie_word_embeddings": True}

# The class in transformers, the configuration, PEFT's options.
FAMILIES = {
    "llama": ("Llama", {}, {}),
    "llama3": (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500_000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
            "tie_word_embeddings": True,
        },
        {},
    ),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 16}, {}),
    "qwen2": ("Qwen2", {}, {}),
    "qwen3": ("Qwen3", {"head_dim": 16}, {"use_rslora": True}),
    "gemma2": (
        "Gemma2",
        {**GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        {},
    ),
    "gemma3": (
        "Gemma3",
        {
            **GEMMA,
            "num_hidden_layers": 6,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
                "full_attention": {"rope_type": "linear", "rope_theta": 1_000_000.0, "factor": 8.0},
            },
        },
        {},
    ),
    "granite": (
        "Granite",
        {
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.2,
            "residual_multiplier": 0.6,
            "logits_scaling": 2.0,
        },
        {},
    ),
}

CONFIGS = {"Gemma3": "Gemma3TextConfig"}


def model_of(kind, numbers):
    config = getattr(transformers, CONFIGS.get(kind, f"{kind}Config"))(**{**SMALL, **numbers})
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # What begins as zero or one would hide mistakes.
            if name.endswith("bias"):
                weight.normal_(std=0.1)
            elif "norm" in name:
                weight.add_(torch.randn_like(weight) * 0.1)
            else:
                weight.mul_(4)
    return model


def convert(model, target):
    """The model's GGUF file by llama.cpp's converter."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        # Gemma's embedding is cut to the words that are named.
        words = {"model": {"vocab": {str(number): number for number in range(VOCABULARY)}}, "added_tokens": []}
        (Path(folder) / "tokenizer.json").write_text(json.dumps(words))
        parameters = ModelBase.load_hparams(Path(folder), False)
        converter = get_model_class(get_model_architecture(parameters, ModelType.TEXT))
        converter.set_vocab = lambda self: None
        with torch.inference_mode():
            file_type = gguf.LlamaFileType.ALL_F32
            converter(Path(folder), file_type, target, model_name="tiny").write()


def numbers_of(model, options):
    tuned = peft.get_peft_model(
        model,
        peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", lora_dropout=0.0, **options),
    )
    trained = {
        name.replace(".default", ""): weight for name, weight in tuned.named_parameters() if weight.requires_grad
    }
    for name, weight in trained.items():
        if "lora_B" in name:
            # As zero it would hide the gradient of A.
            torch.nn.init.normal_(weight, std=0.05)
    found = {f"lora.{name}": weight.detach().clone() for name, weight in trained.items()}
    ids = torch.randint(3, VOCABULARY, (2, TOKENS))
    labels = ids.clone()
    labels[:, : TOKENS // 3] = -100
    first = tuned(input_ids=ids, labels=labels)
    first.loss.backward()
    found |= {f"grad.{name}": weight.grad.clone() for name, weight in trained.items()}
    weights = list(trained.values())
    optimizer = torch.optim.AdamW(weights, lr=RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = tuned(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        losses.append(loss.item())
    print(f"  loss {losses[0]:.4f} to {losses[-1]:.4f}")
    with torch.no_grad():
        merged = tuned.merge_and_unload()(input_ids=ids).logits
    return found | {
        "ids": ids,
        "labels": labels,
        "logits": first.logits.detach(),
        "losses": torch.tensor(losses),
        "merged": merged,
    }


def main():
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    for name in sys.argv[2:] or FAMILIES:
        print(name)
        kind, numbers, options = FAMILIES[name]
        model = model_of(kind, numbers)
        convert(model, HERE / f"{name}.gguf")
        found = numbers_of(model, options)
        notes = {"rank": str(RANK), "alpha": str(ALPHA), "options": json.dumps(options)}
        target = HERE / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in found.items()}, target, notes)
        target.chmod(0o644)


main()
