"""Which replica a learner is."""

from __future__ import annotations

import pytest

from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.settings import load_settings
from services.learner.settings import LearnerSettings, ordinal_of


def settings(**more: object) -> LearnerSettings:
    return load_settings(LearnerSettings, {"kafka": "127.0.0.1:1", "store": "file:///nowhere", **more})


def test_a_learner_that_is_alone_is_number_0() -> None:
    assert ordinal_of(settings(), "any-7") == 0


def test_the_number_is_that_of_the_stateful_set_s_pod() -> None:
    assert ordinal_of(settings(replicas=12), "banditmesh-learner-11") == 11
    assert ordinal_of(settings(replicas=3), "learner-2.learner.mesh.svc") == 2


def test_a_number_that_is_set_counts_more_than_the_host_s_name() -> None:
    assert ordinal_of(settings(replicas=3, ordinal=1), "learner-2") == 1


def test_a_host_without_a_number_must_be_told() -> None:
    with pytest.raises(ConfigurationError, match=r"'laptop'.*\n.*BANDITMESH_ORDINAL"):
        ordinal_of(settings(replicas=2), "laptop")


def test_a_number_beyond_the_replicas_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"number 2, counted from 0, of 2.*\n.*BANDITMESH_REPLICAS"):
        ordinal_of(settings(replicas=2), "learner-2")
