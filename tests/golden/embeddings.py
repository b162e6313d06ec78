#!/usr/bin/env python3
"""Makes embeddings.json with PyTorch and transformers, and reranker.gguf with the gguf package, as judges of tests/embed.rs.

usage: embeddings.py MATERIAL   (needs torch, transformers, sentencepiece, gguf)

`texts`: the states behind the last norm of stories260K, pooled in three ways, of a few texts.
`logprobs`: the likeliest tokens and their log-probabilities, step by step of a greedy reply of the same model.
`ranking`: the scores of a small BERT with a random classifier for pairs of texts; reranker.gguf holds its weights.
"""

import json
import sys
from pathlib import Path

import gguf
import sentencepiece
import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaForCausalLM, LlamaModel

MATERIAL, HERE = Path(sys.argv[1]), Path(__file__).parent
TEXTS = [
    "Once upon a time",
    "The dog",
    "Lily went to the park with her mom and saw a big red ball.",
    "",
    "A",
]
WORDS = "the cat dog sat on a mat ran in park red ball big small happy sad where what is who . ?".split()
QUERY = "where is the dog ?"
DOCUMENTS = ["the dog ran in the park .", "a cat sat on the mat .", "red ball", "what is a dog ? the dog is happy ."]


def stories():
    folder = MATERIAL / "derived/stories260K-hf-llama"
    model = LlamaModel.from_pretrained(folder, dtype=torch.float32).eval()
    pieces = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    for text in TEXTS:
        tokens = [1] + pieces.encode(text)
        with torch.no_grad():
            states = model(torch.tensor([tokens])).last_hidden_state[0]
        yield {
            "text": text,
            "tokens": len(tokens),
            "mean": states.mean(0).tolist(),
            "cls": states[0].tolist(),
            "last": states[-1].tolist(),
        }


def logprobs(prompt="Once upon a time", steps=6, top=4):
    folder = MATERIAL / "derived/stories260K-hf-llama"
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    pieces = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    tokens, found = [1] + pieces.encode(prompt), []
    for _ in range(steps):
        with torch.no_grad():
            row = torch.log_softmax(model(torch.tensor([tokens])).logits[0, -1].double(), 0)
        best = row.topk(top)
        found.append([[number, value] for number, value in zip(best.indices.tolist(), best.values.tolist())])
        tokens.append(found[-1][0][0])
    return {"prompt": prompt, "top": found}


def reranker():
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + WORDS
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, hidden_act="gelu_pytorch_tanh", num_labels=1, initializer_range=0.5,
    )
    torch.manual_seed(11)
    model = BertForSequenceClassification(config).eval()
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.1)
    # A text of llama.cpp's is one segment; a BERT that is asked for pairs must be trained so.
    ids = {word: number for number, word in enumerate(vocabulary)}
    words = lambda text: [ids[word] for word in text.split()]  # noqa: E731
    scores, counts = [], []
    for document in DOCUMENTS:
        tokens = [2, *words(QUERY), 3, *words(document)]
        with torch.no_grad():
            scores.append(model(torch.tensor([tokens])).logits[0, 0].item())
        counts.append(len(tokens))
    write(model, vocabulary, HERE / "reranker.gguf")
    return {"query": QUERY, "documents": DOCUMENTS, "scores": scores, "tokens": counts}


def write(model, vocabulary, path):
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_block_count(2)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_tokenizer_model("bert")
    # As convert_hf_to_gguf.py writes them: a word begins with ▁, special tokens stay as they are.
    writer.add_token_list([word if word.startswith("[") else "▁" + word for word in vocabulary])
    writer.add_token_types([3] * 5 + [1] * len(WORDS))
    writer.add_token_type_count(2)
    for name, number in [("pad", 0), ("unk", 1), ("bos", 2), ("sep", 3), ("mask", 4)]:
        getattr(writer, f"add_{name}_token_id")(number)
    names = {
        "bert.embeddings.word_embeddings": "token_embd",
        "bert.embeddings.position_embeddings": "position_embd",
        "bert.embeddings.token_type_embeddings": "token_types",
        "bert.embeddings.LayerNorm": "token_embd_norm",
        "bert.pooler.dense": "cls",
        "classifier": "cls.output",
    }
    for block in range(2):
        source = f"bert.encoder.layer.{block}"
        for ours, theirs in [
            ("attention.self.query", "attn_q"),
            ("attention.self.key", "attn_k"),
            ("attention.self.value", "attn_v"),
            ("attention.output.dense", "attn_output"),
            ("attention.output.LayerNorm", "attn_output_norm"),
            ("intermediate.dense", "ffn_up"),
            ("output.dense", "ffn_down"),
            ("output.LayerNorm", "layer_output_norm"),
        ]:
            names[f"{source}.{ours}"] = f"blk.{block}.{theirs}"
    for name, weight in model.named_parameters():
        stem, kind = name.rsplit(".", 1)
        writer.add_tensor(f"{names[stem]}.{kind}", weight.detach().float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def rounded(value):
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return {key: rounded(each) for key, each in value.items()} if isinstance(value, dict) else value


document = {"texts": list(stories()), "logprobs": logprobs(), "ranking": reranker()}
(HERE / "embeddings.json").write_text(json.dumps(rounded(document)) + "\n")
