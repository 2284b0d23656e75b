from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deepmtdr.cli import app
from deepmtdr.errors import ServiceError
from deepmtdr.service.settings import ServiceSettings
from deepmtdr.service.settings_file import example_settings, load_settings, read_secret


def written(folder: Path, text: str, first: str = 'folder = "service"\n') -> Path:
    path = folder / "serve.toml"
    path.write_text(first + text)
    return path


def test_the_example_holds_the_defaults_and_every_setting(tmp_path: Path) -> None:
    assert load_settings(written(tmp_path, "", example_settings())) == ServiceSettings(folder=tmp_path / "service")
    whole = re.sub(r"^# (?=[\[a-z_]+[\w.]*( =|\]))", "", example_settings(), flags=re.MULTILINE)
    values = tomllib.loads(whole)
    assert set(values) == set(ServiceSettings.__dataclass_fields__)
    for table in ("receiver", "workers", "retry", "retention", "health"):
        assert set(values[table]) == set(
            ServiceSettings.__dataclass_fields__[table].default_factory().__dataclass_fields__
        )  # type: ignore[misc]
    chosen = load_settings(written(tmp_path, "", whole))
    assert chosen.dicom["pacs"].tls.ca == tmp_path / "hospital.pem"
    assert chosen.dicomweb["archive"].token == f"file:{tmp_path / 'archive.token'}"
    defaults = ServiceSettings()
    assert (chosen.retry, chosen.health) == (defaults.retry, defaults.health)
    assert chosen.receiver.networks == defaults.receiver.networks


PACS = "[dicom.pacs]\nae_title = 'PACS'\nhost = 'pacs.example'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speed = 1", r"unknown key speed; known are folder,"),
        ("[receiver]\nportt = 1", r"receiver: unknown key portt; known are ae_title"),
        ("[receiver]\nport = 'dicom'", r"receiver: port = 'dicom', expected int"),
        ("[receiver]\nport = 70000", r"receiver\.port = 70000"),
        ("[receiver]\nae_title = 'MUCH TOO LONG A TITLE'", r"receiver\.ae_title = .*1 to 16 printable"),
        ("[receiver]\ncalling = ['Ä']", "receiver.calling = 'Ä'"),
        ("[receiver]\nnetworks = ['10.0.0.0/99']", "'10.0.0.0/99', expected addresses"),
        ("[receiver]\non_changed_object = 'ask'", r"on_changed_object = 'ask', expected \"refuse\" or \"supersede\""),
        ("[workers]\ncount = 0", r"workers\.count = 0, expected 1 to 256"),
        ("[workers]\nseconds = 0", r"workers\.seconds = 0, expected more than 0"),
        ("[workers]\nseconds = nan", r"workers: seconds = nan, expected a finite number"),
        ("[workers]\nseconds = 1e300", r"workers\.seconds = 1e\+300, expected more than 0 and at most 3.1536e\+07"),
        ("[receiver]\nidle_seconds = inf", r"receiver: idle_seconds = inf, expected a finite number"),
        ("[receiver]\npdu_seconds = -1", r"receiver\.pdu_seconds = -1, expected more than 0"),
        ("[receiver]\nassociations = 1000", r"receiver\.associations = 1000, expected 1 to 80"),
        ("[receiver]\nconnections_per_address = 0", r"receiver\.connections_per_address = 0, expected 1 to 80"),
        ("[retention]\ndays = -1", r"retention\.days = -1, expected 0 to 36500"),
        ("[retention]\nlargest_gb = nan", r"retention: largest_gb = nan, expected a finite number"),
        ("least_free_mb = -1", r"least_free_mb = -1, expected 0 to 1e\+09"),
        (f"{PACS}\nseconds = 0", r"dicom\.pacs\.seconds = 0, expected more than 0"),
        ("[fhir.a]\nurl = 'https://x'\nseconds = -5", r"fhir\.a\.seconds = -5, expected more than 0"),
        ('[workers]\nweights = "a\\u0000b"', r"workers\.weights contains a null character"),
        ("[retry]\nfactor = 0.5", r"retry\.factor = 0\.5, expected 1 to 1000"),
        ("[retry]\nfirst_wait = 9\nlongest_wait = 5", r"retry\.longest_wait = 5, expected at least first_wait, 9"),
        ("stop_seconds = -1", r"stop_seconds = -1, expected 0 to 3.1536e\+07"),
        ("[health]\nport = -1", r"health\.port = -1, expected 0 to 65535"),
        ("[dicom.pacs]\nhost = 'x'", r"dicom\.pacs\.ae_title = ''"),
        ("[dicom.pacs]\nae_title = 'PACS'", r"dicom\.pacs\.host is empty"),
        (f"{PACS}\nport = 0", r"dicom\.pacs\.port = 0, expected 1 to 65535"),
        ("[dicomweb.a]\nurl = 'ftp://x'", r"dicomweb\.a\.url = 'ftp://x', expected https"),
        ("[fhir.a]\nurl = 'https://me:word@x'", "without user, password and query"),
        ("[fhir.a]\nurl = 'https://x'\ntoken = 'abc'", r"fhir\.a\.token is not \"env:NAME\" or \"file:PATH\""),
        ("[fhir.a]\nurl = 'https://x'\n[dicomweb.a]\nurl = 'https://x'", "destination 'a' occurs 2 times"),
        ("[", "no valid TOML"),
        ("[receiver]\ntls = { ca = 'ca.pem' }", r"receiver\.tls has no certificate, .* without TLS; add"),
        ("[receiver]\ntls = { key = 'own.key' }", r"receiver\.tls has no certificate"),
        (f"{PACS}\ntls = {{ ca = 'ca.pem' }}", r"dicom\.pacs\.encrypted is false, .* without TLS; set"),
        (f"{PACS}\nencrypted = true\ntls = {{ key = 'own.key' }}", r"dicom\.pacs\.tls has a key, but no certificate"),
        ("[fhir.a]\nurl = 'http://x'\ntls = { ca = 'ca.pem' }", r"fhir\.a\.url begins with http:, .* without TLS; use"),
        (
            "[dicomweb.a]\nurl = 'https://x'\ntls = { key = 'own.key' }",
            r"dicomweb\.a\.tls has a key, but no certificate",
        ),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_its_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ServiceError, match=rf"serve\.toml: .*{message}") as error:
        load_settings(written(tmp_path, text))
    assert "abc" not in str(error.value), "a secret is not repeated"


def test_the_folder_of_the_service_must_be_set(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="no `folder`"):
        load_settings(written(tmp_path, "[retry]", ""))


def test_a_secret_is_read_from_a_variable_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("abc\n")
    monkeypatch.setenv("TOKEN", "def")
    assert (read_secret(f"file:{tmp_path / 'token'}"), read_secret("env:TOKEN")) == ("abc", "def")
    with pytest.raises(ServiceError, match="GONE is not set"):
        read_secret("env:GONE")


def test_the_verbs_print_the_example_and_report_errors_in_one_line(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["serve", "--example"]).stdout == example_settings()
    assert CliRunner().invoke(app, ["serve"]).exit_code == 2
    for verb in ("serve", "queue"):
        result = CliRunner().invoke(app, [verb, str(written(tmp_path, "speed = 1"))])
        assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1 and "speed" in result.stderr
