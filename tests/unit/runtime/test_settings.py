"""Settings from the environment."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from banditmesh.runtime.addresses import HostPort
from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.settings import (
    COMMON,
    OF_ONE_SERVICE,
    PREFIX,
    ServiceSettings,
    UsesKafka,
    UsesRedis,
    UsesStore,
    UsesTokens,
    describe,
    load_settings,
    unknown_variables,
    variable,
)
from services.crs_engine.settings import EngineSettings
from services.importer.settings import ImporterSettings
from services.joiner.settings import JoinerSettings
from services.learner.settings import LearnerSettings
from services.tracker.settings import TrackerSettings


class EverythingSettings(ServiceSettings, UsesKafka, UsesRedis, UsesStore, UsesTokens):
    """A service that needs all there is."""


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(PREFIX + name, value)


def test_a_service_starts_on_defaults_alone() -> None:
    settings = load_settings(ServiceSettings)
    assert settings.grpc_address == HostPort("0.0.0.0", 50051)
    assert settings.log_format == "auto"


def test_addresses_are_parsed_when_the_settings_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    given(
        monkeypatch,
        KAFKA="a:1,b:2",
        REDIS="redis://h:3",
        STORE="s3://bucket?endpoint=http://h:4",
        TOKEN_KEYS="k1:00ff",
        GRPC_ADDRESS="127.0.0.1:0",
    )
    settings = load_settings(EverythingSettings)
    assert str(settings.kafka) == "a:1,b:2"
    assert settings.redis.url == "redis://h:3"
    assert str(settings.store) == "s3://bucket?endpoint=http://h:4&region=us-east-1"
    assert settings.grpc_address == HostPort("127.0.0.1", 0)
    assert settings.token_keys.get_secret_value() == "k1:00ff"


def test_the_command_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, METRICS_PORT="1", LOG_LEVEL="error")
    settings = load_settings(ServiceSettings, {"metrics_port": 2, "log_level": None})
    assert (settings.metrics_port, settings.log_level) == (2, "error")


def test_every_wrong_variable_is_named_with_its_value_and_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, KAFKA="a:1", REDIS="h:6379", STORE="ftp://x", TOKEN_KEYS="k:00", METRICS_PORT="many")
    with pytest.raises(ConfigurationError) as wrong:
        load_settings(EverythingSettings)
    text = str(wrong.value)
    assert "BANDITMESH_REDIS = 'h:6379': expected redis://" in text
    assert "BANDITMESH_STORE = 'ftp://x': expected s3://" in text
    assert "BANDITMESH_METRICS_PORT = 'many'" in text
    assert "KAFKA" not in text


def test_a_missing_variable_is_named_with_its_meaning() -> None:
    with pytest.raises(ConfigurationError, match=r"BANDITMESH_KAFKA is not set \(bootstrap servers"):
        load_settings(EverythingSettings)


def test_an_empty_variable_is_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, KAFKA="", METRICS_PORT="")
    with pytest.raises(ConfigurationError, match="BANDITMESH_KAFKA is not set"):
        load_settings(EverythingSettings)
    assert load_settings(ServiceSettings).metrics_port == 9090


def test_a_wrong_option_is_named_as_an_option() -> None:
    with pytest.raises(ConfigurationError, match="--grpc-address = 'nowhere': expected host:port"):
        load_settings(ServiceSettings, {"grpc_address": "nowhere"})


def test_a_password_in_a_wrong_address_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, REDIS="redis+sentinel://user:hunter2@h:6379")
    with pytest.raises(ConfigurationError) as wrong:
        load_settings(EverythingSettings)
    assert "hunter2" not in str(wrong.value)


def test_secrets_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, KAFKA="a:1", REDIS="redis://u:hunter2@h:3", STORE="file:///x", TOKEN_KEYS="k1:00ff")
    shown = repr(load_settings(EverythingSettings))
    assert "00ff" not in shown
    assert "hunter2" not in shown


def test_a_misspelt_variable_is_found_and_a_neighbours_is_not() -> None:
    environ = {"BANDITMESH_KAFAK": "a:1", "BANDITMESH_STORE": "file:///x", "OTHER": "1", "BANDITMESH_LOG_LEVEL": "info"}
    assert unknown_variables(ServiceSettings, environ) == ["BANDITMESH_KAFAK"]


def test_no_service_takes_the_settings_of_another_for_typing_errors() -> None:
    of_services = {EngineSettings, ImporterSettings, JoinerSettings, LearnerSettings, TrackerSettings}
    for one, other in itertools.product(of_services, of_services):
        assert unknown_variables(one, {variable(name): "1" for name in other.model_fields}) == []
    of_one = {name for kind in of_services for name in kind.model_fields}
    of_all = {name for kind in COMMON for name in kind.model_fields}
    assert of_one - of_all == OF_ONE_SERVICE  # and none that no service has any more


def test_every_setting_is_described() -> None:
    described = list(describe(EverythingSettings))
    assert all(meaning for _, _, meaning in described)
    assert ("BANDITMESH_KAFKA", "required", "bootstrap servers, host:port,host:port") in described


def test_an_address_carries_what_is_needed_to_use_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that a service cannot take the address and forget the rest."""
    (tmp_path / "ca.pem").touch()
    given(
        monkeypatch,
        REDIS="rediss://h:1",
        REDIS_PREFIX="mesh1:",
        REDIS_USERNAME="u",
        REDIS_PASSWORD="hunter2",
        REDIS_CA_FILE=str(tmp_path / "ca.pem"),
        KAFKA="a:1",
        KAFKA_SECURITY_PROTOCOL="SASL_SSL",
        KAFKA_SASL_MECHANISM="SCRAM-SHA-512",
        KAFKA_USERNAME="k",
        KAFKA_PASSWORD="hunter3",
    )
    settings = load_settings(JoinerLike)
    access = settings.redis.access
    assert (access.prefix, access.username, access.password, access.ca_file) == (
        "mesh1:",
        "u",
        "hunter2",
        tmp_path / "ca.pem",
    )
    kafka = settings.kafka.access
    assert (kafka.protocol, kafka.mechanism, kafka.username, kafka.password) == (
        "SASL_SSL",
        "SCRAM-SHA-512",
        "k",
        "hunter3",
    )
    assert "hunter" not in f"{settings!r} {settings.redis} {settings.kafka}"


class JoinerLike(ServiceSettings, UsesKafka, UsesRedis):
    """A service that needs both."""


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"},
            "PLAIN needs BANDITMESH_KAFKA_USERNAME and BANDITMESH_KAFKA_PASS",
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "OAUTHBEARER"},
            "OAUTHBEARER needs BANDITMESH_KAFKA_TOKEN",
        ),
        ({"KAFKA_USERNAME": "u", "KAFKA_PASSWORD": "p"}, "set BANDITMESH_KAFKA_SECURITY_PROTOCOL to SASL_SSL"),
        ({"KAFKA_CA_FILE": "/etc/hostname"}, "set BANDITMESH_KAFKA_SECURITY_PROTOCOL to SSL or SASL_SSL"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_CERTIFICATE_FILE": "/etc/hostname"},
            "a certificate needs its key",
        ),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_CA_FILE": "/none.pem"}, "the file '/none.pem' cannot be read"),
        ({"KAFKA_SECURITY_PROTOCOL": "TLS"}, "BANDITMESH_KAFKA_SECURITY_PROTOCOL = 'TLS'"),
        ({"REDIS_PREFIX": "{mesh}"}, "BANDITMESH_REDIS_PREFIX = '{mesh}'"),
        ({"REDIS_CA_FILE": "/none.pem"}, "the file '/none.pem' cannot be read"),
    ],
)
def test_what_is_missing_or_contradicts_itself_is_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], says: str
) -> None:
    given(monkeypatch, **{"KAFKA": "a:1", "REDIS": "redis://h:1", **variables})
    with pytest.raises(ConfigurationError) as wrong:
        load_settings(JoinerLike)
    assert says in str(wrong.value)
