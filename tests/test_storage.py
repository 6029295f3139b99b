"""A folder is whole or not there, whatever fails in between."""

import hashlib

import pytest

from prunus import storage


def write(path, text):
    with storage.whole_folder(path) as aside:
        (aside / "one").write_text(text)
        (aside / "two").write_text(text)


def contents(path):
    return {file.name: file.read_text() for file in path.iterdir()}


def test_a_folder_is_made_with_its_parents_and_replaced(tmp_path):
    path = tmp_path / "a" / "b"
    write(path, "first")
    write(path, "second")
    assert contents(path) == {"one": "second", "two": "second"}
    assert list(path.parent.iterdir()) == [path]
    assert storage.current(path) == path


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [False, True])
def test_what_fails_in_the_body_leaves_the_folder(tmp_path, error, before):
    path = tmp_path / "folder"
    if before:
        write(path, "first")
    with pytest.raises(error), storage.whole_folder(path) as aside:
        (aside / "one").write_text("half")
        raise error
    assert path.exists() == before
    assert list(tmp_path.iterdir()) == ([path] if before else [])
    assert not before or contents(path) == {"one": "first", "two": "first"}


@pytest.mark.parametrize("fail_at", range(3))
def test_a_rename_that_fails_leaves_the_old_folder(tmp_path, monkeypatch, fail_at):
    path = tmp_path / "folder"
    write(path, "first")
    renames = []
    rename = type(path).rename

    def failing(self, target):
        renames.append(self.name)
        if len(renames) == fail_at + 1:
            raise OSError("no")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(path), "rename", failing)
        if fail_at < 2:
            with pytest.raises(OSError, match="no"):
                write(path, "second")
        else:
            write(path, "second")
    assert contents(path)["one"] == ("first" if fail_at < 2 else "second")
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_died_is_cleaned_up(tmp_path):
    path = tmp_path / "folder"
    write(path, "first")
    path.rename(tmp_path / ".folder.replaced")
    (tmp_path / ".folder.writing").mkdir()
    assert contents(storage.current(path))["one"] == "first"
    write(path, "second")
    assert contents(path)["one"] == "second"
    assert list(tmp_path.iterdir()) == [path]


def test_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"some bytes")
    assert storage.sha256(tmp_path / "file") == hashlib.sha256(b"some bytes").hexdigest()
