"""Runs the real huggingface_hub against the hub of the tests, to prove that hub's faithfulness.

The test tests/web/repository.rs starts it with the interpreter that NFL_TEST_HUB_PYTHON names (one that has
huggingface_hub), HF_ENDPOINT set, and the folder to work in as argument.
"""

import hashlib
import pathlib
import sys

from huggingface_hub import HfApi, hf_hub_download, snapshot_download

folder = pathlib.Path(sys.argv[1])
api = HfApi()

info = api.model_info("someone/tiny-GGUF")
assert len(info.sha) == 40
files = {entry.path: entry for entry in api.list_repo_tree("someone/tiny-GGUF", recursive=True)}
path = hf_hub_download("someone/tiny-GGUF", "tiny-F16.gguf", cache_dir=folder / "cache")
digest = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
assert digest == files["tiny-F16.gguf"].lfs.sha256, digest
snapshot = snapshot_download("someone/tiny-GGUF", cache_dir=folder / "cache")
assert sorted(p.name for p in pathlib.Path(snapshot).iterdir()) == sorted(files)

api.create_repo("someone/new")
source = folder / "upload.gguf"
source.write_bytes(bytes(range(256)) * 4096)
api.upload_file(path_or_fileobj=source, path_in_repo="upload.gguf", repo_id="someone/new")
api.upload_file(path_or_fileobj=b"hello", path_in_repo="README.md", repo_id="someone/new")
back = hf_hub_download("someone/new", "upload.gguf", cache_dir=folder / "back")
assert pathlib.Path(back).read_bytes() == source.read_bytes()
back = hf_hub_download("someone/new", "README.md", cache_dir=folder / "back")
assert pathlib.Path(back).read_text() == "hello"
print("faithful")
