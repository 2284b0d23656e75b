from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deepmtdr.cli import app
from deepmtdr.errors import ClinicError
from deepmtdr.service.settings import ServiceSettings, example_settings, load_settings, read_secret


def written(folder: Path, text: str, first: str = 'folder = "service"\n') -> Path:
    path = folder / "serve.toml"
    path.write_text(first + text)
    return path


def test_the_example_is_the_defaults_and_names_every_setting(tmp_path: Path) -> None:
    assert load_settings(written(tmp_path, "", example_settings())) == ServiceSettings(folder=tmp_path / "service")
    whole = re.sub(r"^# (?=[\[a-z_]+[\w.]*( =|\]))", "", example_settings(), flags=re.MULTILINE)
    values = tomllib.loads(whole)
    assert set(values) == set(ServiceSettings.__dataclass_fields__)
    for table in ("receiver", "workers", "retry", "health"):
        assert set(values[table]) == set(
            ServiceSettings.__dataclass_fields__[table].default_factory().__dataclass_fields__
        )  # type: ignore[misc]
    chosen = load_settings(written(tmp_path, "", whole))
    assert chosen.dicom["pacs"].tls.ca == tmp_path / "hospital.pem"
    assert chosen.dicomweb["archive"].token == f"file:{tmp_path / 'archive.token'}"
    defaults = ServiceSettings()
    assert (chosen.retry, chosen.health) == (defaults.retry, defaults.health)
    assert chosen.receiver.networks == defaults.receiver.networks


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("speed = 1", r"unknown key speed; known are folder,"),
        ("[receiver]\nportt = 1", r"receiver: unknown key portt; known are ae_title"),
        ("[receiver]\nport = 'dicom'", r"receiver: port = 'dicom', expected int"),
        ("[receiver]\nport = 70000", r"receiver\.port = 70000"),
        ("[receiver]\nae_title = 'MUCH TOO LONG A TITLE'", "1 to 16 letters"),
        ("[receiver]\ncalling = ['Ä']", "receiver.calling = 'Ä'"),
        ("[receiver]\nnetworks = ['10.0.0.0/99']", "'10.0.0.0/99', expected addresses"),
        ("[workers]\ncount = 0", "at least 1"),
        ("[workers]\nseconds = 0", "zero or less"),
        ("[retry]\nfactor = 0.5", "retry: factor 0.5"),
        ("[dicom.pacs]\nhost = 'x'", r"dicom\.pacs\.ae_title = ''"),
        ("[dicom.pacs]\nae_title = 'PACS'", r"dicom\.pacs: host ''"),
        ("[dicomweb.a]\nurl = 'ftp://x'", r"a\.url = 'ftp://x', expected https"),
        ("[fhir.a]\nurl = 'https://me:word@x'", "without a password"),
        ("[fhir.a]\nurl = 'https://x'\ntoken = 'abc'", "a.token holds a text"),
        ("[fhir.a]\nurl = 'https://x'\n[dicomweb.a]\nurl = 'https://x'", "expected one name for each"),
        ("[", "no valid TOML"),
    ],
)
def test_what_cannot_be_right_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ClinicError, match=rf"serve\.toml: .*{said}") as error:
        load_settings(written(tmp_path, text))
    assert "abc" not in str(error.value), "a secret is not repeated"


def test_the_folder_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(ClinicError, match="no folder"):
        load_settings(written(tmp_path, "[retry]", ""))


def test_a_secret_stands_in_a_variable_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("abc\n")
    monkeypatch.setenv("TOKEN", "def")
    assert (read_secret(f"file:{tmp_path / 'token'}"), read_secret("env:TOKEN")) == ("abc", "def")
    with pytest.raises(ClinicError, match="GONE is not set"):
        read_secret("env:GONE")


def test_the_verbs_print_an_example_and_refuse_in_one_line(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["serve", "--example"]).stdout == example_settings()
    assert CliRunner().invoke(app, ["serve"]).exit_code == 2
    for verb in ("serve", "queue"):
        result = CliRunner().invoke(app, [verb, str(written(tmp_path, "speed = 1"))])
        assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1 and "speed" in result.stderr
