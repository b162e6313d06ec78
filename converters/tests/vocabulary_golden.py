"""Makes vocabulary_golden.tsv and vocabulary_special.json with llama.cpp's own converter, as judges of the tests.

usage: python vocabulary_golden.py LLAMA_CPP MATERIAL   (needs transformers==4.57.1, sentencepiece, numpy; no torch)

vocabulary_golden.tsv: name, SHA-256 of the tokenizer entries exactly as a GGUF file holds them (key, type, value).
vocabulary_special.json: random post-processors and configurations, and the special-token entries they lead to.
The folders that are laid out here are those of vocabulary_support.rs.
"""

import hashlib
import importlib.machinery
import json
import logging
import random
import shutil
import sys
import tempfile
from pathlib import Path
from unittest.mock import MagicMock

LLAMA_CPP, MATERIAL, HERE = Path(sys.argv[1]), Path(sys.argv[2]), Path(__file__).parent
sys.path[:0] = [str(LLAMA_CPP), str(LLAMA_CPP / "gguf-py")]


class AnyAttribute(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock()


class Tensor(metaclass=AnyAttribute):
    pass


import transformers  # noqa: E402  (before the stand-in for torch)
from transformers import AutoConfig, AutoTokenizer  # noqa: E402, F401

torch = MagicMock()
torch.Tensor = Tensor
torch.__spec__ = importlib.machinery.ModuleSpec("torch", None)
sys.modules.update({"torch": torch, "torch.nn": MagicMock(), "torch.nn.functional": MagicMock()})

import gguf  # noqa: E402
from conversion.base import TextModel  # noqa: E402
from conversion.llama import LlamaModel  # noqa: E402
from conversion.phi import Phi3MiniModel  # noqa: E402
from conversion.qwen import Qwen2Model  # noqa: E402

logging.disable(logging.CRITICAL)

LLAMA_3 = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)


def read(path):
    return json.loads((MATERIAL / path).read_text(encoding="utf-8"))


def llama_3_names():
    first = [
        "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
        "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>",
        "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
    ]
    return first + [f"<|reserved_special_token_{index}|>" for index in range(3, 248)]


def added_token(content, **more):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"content": content, **flags, **more}


def special(content, type_id=0):
    return {"SpecialToken": {"id": content, "type_id": type_id}}


def sequence(name, type_id=0):
    return {"Sequence": {"id": name, "type_id": type_id}}


def llama_3():
    merges = (MATERIAL / "tokenizers/llama3.2/vocab.bpe").read_text(encoding="utf-8").split("\n")
    begin = "<|begin_of_text|>"
    names = list(enumerate(llama_3_names(), 128000))
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": LLAMA_3}, "behavior": "Isolated", "invert": False}
    template = {
        "type": "TemplateProcessing",
        "single": [special(begin), sequence("A")],
        "pair": [special(begin), sequence("A"), special(begin, 1), sequence("B", 1)],
        "special_tokens": {begin: {"id": begin, "ids": [128000], "tokens": [begin]}},
    }
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": id, **added_token(name)} for id, name in names],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": {"type": "Sequence", "processors": [{**byte_level, "use_regex": True}, template]},
        "decoder": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
            "vocab": read("tokenizers/llama3.2/encoder.json"),
            "merges": [merge for merge in merges if merge],
        },
    }
    config = {
        "bos_token": begin, "eos_token": "<|eot_id|>", "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": {str(id): added_token(name) for id, name in names},
        "chat_template": (MATERIAL / "chat-templates/meta-llama-Llama-3.2-3B-Instruct.jinja").read_text(),
    }
    return tokenizer, config


def folders():
    """Name, and the files: a path in the material is copied, an object is written as JSON."""
    tokenizers, checkpoints = "tokenizers/", "checkpoints/"
    configs = checkpoints + "configs/"
    phi = {
        "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "vocab_size": 32064, "bos_token_id": 1,
        "eos_token_id": 32000, "pad_token_id": 32000,
    }
    falcon = {
        "architectures": ["FalconForCausalLM"], "model_type": "falcon", "vocab_size": 65024, "bos_token_id": 11,
        "eos_token_id": 11,
    }
    falcon_tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "add_prefix_space": False,
    }
    tokenizer, tokenizer_config = llama_3()
    mixtral, granite, qwen = checkpoints + "mixtral-8x7b-instruct/", checkpoints + "granite-3.1-1b-a400m/", \
        tokenizers + "qwen2.5-instruct/"
    small = ["config.json", "generation_config.json", "special_tokens_map.json", "tokenizer_config.json"]
    phi_files = {name: f"{tokenizers}phi-3-mini/{name}" for name in ["tokenizer.json", "tokenizer_config.json"]}
    mistral = {
        "bos_token": "<s>", "add_bos_token": True, "add_eos_token": False,
        "added_tokens_decoder": {"3": added_token("[INST]"), "32767": added_token("a▁b", special=False)},
        "chat_template": [{"name": "default", "template": "D"}, {"name": "tool use", "template": "T"}],
    }
    return {
        "llama-spm": {"config.json": configs + "llama2_7b.json", "tokenizer.model": tokenizers + "llama2/tokenizer.model"},
        "phi-3": {"config.json": phi, "tokenizer.model": tokenizers + "llama2/tokenizer.model", **phi_files},
        "falcon": {
            "config.json": falcon, "tokenizer_config.json": falcon_tokenizer,
            "tokenizer.json": tokenizers + "falcon-tokenizer/tokenizer.json",
        },
        "gpt-2": {
            "config.json": configs + "gpt2.json", "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer"},
            "vocab.json": tokenizers + "gpt2.vocab", "merges.txt": tokenizers + "gpt2.merges.txt",
        },
        "qwen2": {name: qwen + name for name in [*small, "added_tokens.json", "vocab.json", "merges.txt"]},
        "llama-bpe": {
            "config.json": configs + "llama3_2_3b.json", "tokenizer.json": tokenizer,
            "tokenizer_config.json": tokenizer_config,
        },
        "mixtral": {
            **{name: mixtral + name for name in [*small, "tokenizer.json"]},
            "tokenizer.model": tokenizers + "mistral/tokenizer.model.v1",
        },
        "granite": {name: granite + name for name in [*small, "tokenizer.json"]},
        "phi-2": {
            "config.json": configs + "phi-2.json", "tokenizer.json": tokenizers + "phi-2/tokenizer.json",
            "tokenizer_config.json": tokenizers + "phi-2/tokenizer_config.json",
        },
        "mistral-v3": {
            "config.json": configs + "mistral_7b_v03.json", "tokenizer_config.json": mistral,
            "tokenizer.model": tokenizers + "mistral/mistral_instruct_tokenizer_240323.model.v3",
        },
    }


def lay_out(root, files):
    root.mkdir()
    for name, content in files.items():
        if isinstance(content, str):
            shutil.copyfile(MATERIAL / content, root / name)
        else:
            (root / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def entries(writer, known):
    return [(key, value) for key, value in writer.kv_data[0].items() if key not in known]


def convert(root):
    config = json.loads((root / "config.json").read_text())
    architecture = config["architectures"][0]
    classes = {
        "LlamaForCausalLM": LlamaModel, "MistralForCausalLM": LlamaModel, "MixtralForCausalLM": LlamaModel,
        "GraniteMoeForCausalLM": LlamaModel, "Phi3ForCausalLM": Phi3MiniModel, "Qwen2ForCausalLM": Qwen2Model,
    }
    default = type("Default", (TextModel,), {"model_arch": gguf.MODEL_ARCH.GPT2})
    model = object.__new__(classes.get(architecture, default))
    model.dir_model, model.hparams, model.origin_hf_arch, model.is_mistral_format = root, config, architecture, False
    model.gguf_writer = gguf.GGUFWriter(None, "llama")
    known = set(model.gguf_writer.kv_data[0])
    model.set_vocab()
    packed = b""
    for key, value in entries(model.gguf_writer, known):
        packed += model.gguf_writer._pack_val(key, gguf.GGUFValueType.STRING, add_vtype=False)
        packed += model.gguf_writer._pack_val(value.value, value.type, add_vtype=True, sub_type=value.sub_type)
    return hashlib.sha256(packed).hexdigest()


NAMES = ["<s>", "</s>", "<unk>", "<pad>", "<sep>", "<cls>", "<mask>"]


def random_template(dice):
    name = lambda: dice.choice(NAMES)  # noqa: E731
    single = [special(name())] * (dice.random() < 0.6) + [sequence("A")] + [special(name())] * (dice.random() < 0.6)
    between = [special(name()) for _ in range(dice.choice([0, 0, 1, 2]))]
    first = single[:1] if "SpecialToken" in single[0] and dice.random() < 0.8 else []
    last = single[-1:] if "SpecialToken" in single[-1] and dice.random() < 0.8 else []
    pair = first + [sequence("A")] + between + [sequence("B")] + last
    tokens = {name: {"id": name, "ids": [258 + id], "tokens": [name]} for id, name in enumerate(NAMES)}
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}


def random_case(dice):
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    roberta = {
        "type": "RobertaProcessing", "sep": ["</s>", 259], "cls": ["<s>", 258], "trim_offsets": True,
        "add_prefix_space": False,
    }
    template = random_template(dice)
    post_processor = dice.choice([
        None, byte_level, roberta, template, template, {"type": "Sequence", "processors": [byte_level, template]},
    ])
    tokenizer_config, config = {"tokenizer_class": "PreTrainedTokenizerFast"}, {"vocab_size": 300}
    for role in ["bos", "eos", "unk", "sep", "pad", "cls", "mask"]:
        if dice.random() < 0.5:
            content = dice.choice([*NAMES, "nowhere", None, ""])
            tokenizer_config[f"{role}_token"] = {"content": content} if dice.random() < 0.3 and content else content
        if dice.random() < 0.3:
            tokenizer_config[f"add_{role}_token"] = dice.choice([True, False, None])
        if dice.random() < 0.4:
            config[f"{role}_token_id"] = dice.choice([258, 259, 260, None, [258], 3])
    if dice.random() < 0.2:
        config["text_config"] = {"bos_token_id": 261, "eos_token_id": 262, "vocab_size": 300}
    return {"post_processor": post_processor, "tokenizer_config": tokenizer_config, "config": config}


def special_entries(root, case):
    added = [{"id": id, **added_token(name)} for id, name in enumerate(NAMES, 258)]
    tokenizer = {"added_tokens": added, "post_processor": case["post_processor"], "model": {}}
    lay_out(root, {
        "tokenizer.json": tokenizer, "tokenizer_config.json": case["tokenizer_config"], "config.json": case["config"],
    })
    writer = gguf.GGUFWriter(None, "llama")
    known = set(writer.kv_data[0])
    gguf.SpecialVocab(root).add_to_gguf(writer, quiet=True)
    return [[key, value.value] for key, value in entries(writer, known)]


def main():
    with tempfile.TemporaryDirectory() as root:
        lines = []
        for name, files in folders().items():
            lay_out(Path(root) / name, files)
            lines.append(f"{name}\t{convert(Path(root) / name)}\n")
        (HERE / "vocabulary_golden.tsv").write_text("".join(lines))
        dice = random.Random(7)
        cases = [random_case(dice) for _ in range(60)]
        for index, case in enumerate(cases):
            case["entries"] = special_entries(Path(root) / f"special-{index}", case)
            if case["post_processor"]:
                # The map of ids is the same in all of them: the test puts it back.
                text = json.dumps(case["post_processor"])
                case["post_processor"] = json.loads(text, object_hook=lambda part: {
                    key: value for key, value in part.items() if key != "special_tokens"
                })
        text = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
        (HERE / "vocabulary_special.json").write_text(f"[\n{text}\n]\n")


main()
