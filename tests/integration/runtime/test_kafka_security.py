"""A Kafka as it is managed: by TLS, with each kind of login, and with users that may do no more than they must."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.local.valkey import Valkey
from banditmesh.runtime.addresses import KafkaAccess, KafkaAddress
from banditmesh.runtime.errors import ConfigurationError, Unavailable
from banditmesh.runtime.kafka.connect import why_not
from banditmesh.runtime.kafka.consumer import KafkaSource
from banditmesh.runtime.kafka.producer import Producer, Record
from banditmesh.runtime.kafka.tokens import HookedTokens, token_provider
from banditmesh.runtime.kafka.topics import Topics, ensure_topics
from banditmesh.runtime.kafka.transaction import TransactionalProducer
from services.learner.reader import KafkaReader
from tests.integration.joiner.harness import by_impression, click, decision, joiner, world
from tests.support.acls import Permission, forbid, permit
from tests.support.eventually import eventually
from tests.support.secured_kafka import SecuredKafka, unsecured_token

# aiokafka 0.14 forgets to close a connection whose login was refused; the garbage collector does it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    with SecuredKafka(tmp_path_factory.mktemp("secured")) as server:
        everything = [
            Permission(resource, "*", operation)
            for resource, operation in (
                ("topic", "Read"), ("topic", "Write"), ("topic", "Create"), ("topic", "DescribeConfigs"),
                ("group", "Read"), ("transactional-id", "Write"),
            )
        ]  # fmt: skip
        asyncio.run(permit(server.bootstrap, "mesh", everything))
        yield server


@pytest_asyncio.fixture
async def topics(fresh_topic_prefix: str) -> Topics:
    return Topics.named(fresh_topic_prefix)


def ways(secured: SecuredKafka) -> dict[str, KafkaAddress]:
    return {
        "PLAIN": secured.address("PLAIN"),
        "SCRAM-SHA-512": secured.address("SCRAM-SHA-512"),
        "OAUTHBEARER": secured.address("OAUTHBEARER"),
        "mutual TLS": secured.mutual_tls,
    }


@pytest.mark.parametrize("way", ["PLAIN", "SCRAM-SHA-512", "OAUTHBEARER", "mutual TLS"])
async def test_everything_that_talks_to_kafka_gets_in(secured: SecuredKafka, topics: Topics, way: str) -> None:
    kafka = ways(secured)[way]
    assert await ensure_topics(kafka, topics, partitions=1, replication=1) == 1

    producer = Producer(kafka)
    acked = await producer.send(topics.impressions, b"u", b"seen", 0)
    await producer.ping()
    await producer.stop()

    transactions = await TransactionalProducer.open(kafka, f"{topics.examples}-0")
    await transactions.write(
        [Record(topics.examples, b"u", b"learned", 0)],
        group=f"{topics.examples}-group",
        offsets={(topics.impressions, 0): (acked.offset + 1, "")},
    )
    await transactions.close()

    source = KafkaSource(kafka, topics.impressions, f"{topics.examples}-group", client_id="test")
    assigned: asyncio.Future[frozenset[int]] = asyncio.get_running_loop().create_future()

    async def nothing() -> None:
        pass

    await source.start(assigned.set_result, nothing)
    assert await assigned == {0}
    assert await source.committed(0) == acked.offset + 1
    source.seek(0, acked.offset)
    source.resume(0)
    async with asyncio.timeout(20):
        while not (fetched := await source.fetch(0.2)):
            pass
    assert [record.value for record in fetched[0]] == [b"seen"]
    await source.stop()

    async with KafkaReader(kafka, topics.examples, f"{topics.examples}-reader", {}) as reader, asyncio.timeout(20):
        while not (read := await reader.read([0], 0.2)):
            pass
        assert [record.value for record in read[0]] == [b"learned"]


async def test_a_wrong_password_is_said_in_the_brokers_own_words(secured: SecuredKafka, topics: Topics) -> None:
    wrong = secured.address("PLAIN", password="guessed")
    with pytest.raises(Unavailable, match="Invalid username or password") as refused:
        await ensure_topics(wrong, topics, partitions=1, replication=1)
    assert "guessed" not in str(refused.value)
    producer = Producer(wrong)
    with pytest.raises(Unavailable, match=r"does not let us in: .*Invalid username or password"):
        await producer.start()
    await producer.stop()


async def test_an_authority_that_is_not_trusted_is_named(secured: SecuredKafka) -> None:
    unknown = replace(secured.mutual_tls, access=KafkaAccess("SSL"))
    assert "its certificate is not trusted: unable to get local issuer" in await why_not(unknown)


async def test_a_port_that_wants_tls_or_a_login_is_recognised(secured: SecuredKafka) -> None:
    assert "does it want TLS?" in await why_not(KafkaAddress(secured.address("PLAIN").servers))
    no_login = KafkaAddress(secured.address("PLAIN").servers, KafkaAccess("SSL", ca_file=secured.ca_file))
    assert "does it want a login or a certificate of ours?" in await why_not(no_login)


async def test_a_certificate_that_cannot_be_read_is_a_wrong_setting(secured: SecuredKafka, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    address = replace(secured.mutual_tls, access=KafkaAccess("SSL", ca_file=broken))
    with pytest.raises(ConfigurationError, match="BANDITMESH_KAFKA_CA_FILE"):
        await ensure_topics(address, Topics.named(), partitions=1, replication=1)


def permissions(user: str, prefix: str) -> Iterator[Permission]:
    """Of the table in docs/operations.md."""
    for line in OPERATIONS.read_text().splitlines():
        row = re.fullmatch(
            rf"\| {user} \| (topic|group|transactional-id) \| `<prefix>([^`]+)` \| ([A-Za-z, ]+) \|", line
        )
        if row is not None:
            for operation in row[3].split(", "):
                yield Permission(row[1], prefix + row[2], operation)


@pytest_asyncio.fixture
async def narrow(secured: SecuredKafka, fresh_topic_prefix: str) -> AsyncIterator[str]:
    """A prefix for which tracker, joiner and learner may do what the documentation says, and the topics exist."""
    for user in ("tracker", "joiner", "learner"):
        needed = list(permissions(user, fresh_topic_prefix))
        assert needed, f"docs/operations.md has no permissions of {user}"
        await permit(secured.bootstrap, user, needed)
    await ensure_topics(secured.bootstrap, Topics.named(fresh_topic_prefix), partitions=2, replication=1)
    yield fresh_topic_prefix


async def test_the_documented_permissions_are_enough_from_impression_to_learner(
    secured: SecuredKafka, narrow: str, valkey: Valkey, fresh_redis: str, tmp_path: Path
) -> None:
    shown = decision(1)
    topics = Topics.named(narrow)
    async with world(secured.bootstrap, fresh_redis, narrow, tmp_path) as here:
        tracker = Producer(secured.address("PLAIN", "tracker"))
        await ensure_topics(secured.address("PLAIN", "tracker"), topics, partitions=2, replication=1)
        settings = here.settings().model_copy(update={"kafka": secured.address("PLAIN", "joiner")})
        async with joiner(settings):
            impression = events_pb2.Impression(schema_version=1, decision=shown)
            reaction = events_pb2.Reaction(schema_version=1, decision=shown, click=events_pb2.Click())
            await tracker.send(topics.impressions, shown.user_id.encode(), impression.SerializeToString())
            await tracker.send(topics.reactions, shown.user_id.encode(), reaction.SerializeToString())
            await here.examples(1)
        await tracker.stop()
    learner = secured.address("PLAIN", "learner")
    async with KafkaReader(learner, topics.examples, f"{narrow}learner-0", {}) as reader, asyncio.timeout(20):
        while not any((await reader.read([0, 1], 0.2)).values()):
            pass
    letters = Producer(secured.address("PLAIN", "learner"))
    await letters.send(topics.dead_letters, b"", b"a letter")
    await letters.stop()


async def test_a_topic_that_may_not_be_written_any_more_is_named_and_the_others_are_taken(
    secured: SecuredKafka, narrow: str
) -> None:
    topics = Topics.named(narrow)
    right = Permission("topic", topics.reactions, "Write")
    tracker = Producer(secured.address("PLAIN", "tracker"))
    await tracker.send(topics.reactions, b"u", b"before")
    refusals: list[str] = []
    await forbid(secured.bootstrap, "tracker", right)

    async def is_taken() -> bool:
        try:
            await tracker.send(topics.reactions, b"u", b"click")
        except Unavailable as error:
            refusals.append(str(error))
            return False
        return True

    async def is_refused() -> bool:
        return not await is_taken()

    with capture_logs() as logs:
        await eventually(is_refused)  # a broker hears of it a moment later
        for _ in range(20):
            assert not await is_taken()
            await tracker.send(topics.impressions, b"u", b"seen")
        await permit(secured.bootstrap, "tracker", [right])
        await eventually(is_taken)
    await tracker.stop()
    assert all(f"lacks the right Write of topic {topics.reactions}" in each for each in refusals)
    said = [line for line in logs if line["event"] in ("dependency down", "dependency up")]
    assert [(line["event"], line["dependency"]) for line in said] == [
        ("dependency down", f"topic {topics.reactions}"),
        ("dependency up", f"topic {topics.reactions}"),
    ]


@pytest.mark.parametrize(
    ("resource", "name", "operation", "stream"),
    [
        ("topic", "impressions", "Read", "impressions"),
        ("topic", "reactions", "Read", "reactions"),
        ("topic", "reactions", "Write", "reactions"),
        ("topic", "examples", "Write", "impressions"),
        ("group", "joiner-*", "Read", "reactions"),
        ("transactional-id", "joiner-impressions-*", "Write", "impressions"),
    ],
)
async def test_a_joiner_whose_right_is_taken_away_names_it_and_goes_on_when_it_is_back(
    secured: SecuredKafka,
    narrow: str,
    fresh_redis: str,
    tmp_path: Path,
    resource: str,
    name: str,
    operation: str,
    stream: str,
) -> None:
    right = Permission(resource, narrow + name, operation)
    async with world(secured.bootstrap, fresh_redis, narrow, tmp_path) as here:
        settings = here.settings().model_copy(update={"kafka": secured.address("PLAIN", "joiner")})
        async with joiner(settings) as server:
            await here.show(decision(0))
            await here.examples(1)
            with capture_logs() as logs:
                await forbid(secured.bootstrap, "joiner", right)
                shown = [decision(number) for number in range(1, 21)]
                await here.show(*shown)
                await here.react(*map(click, shown))

                async def is_named() -> bool:
                    words = rf"lacks the right {operation} of {resource.replace('-', ' ')} {narrow}{name.rstrip('*')}"
                    return any(re.search(words, str(line.get("reason"))) for line in logs)

                # A transaction that is under way may have to be given up first: 30 s.
                await eventually(is_named, within_s=90.0)
                await eventually(lambda: _answer(f"{stream} stream" in server.health.obstacles()))
                await permit(secured.bootstrap, "joiner", [right])
                assert by_impression(await here.examples(21)).keys() == set(range(21))
                await eventually(lambda: _answer(not server.health.obstacles()))


async def _answer(value: bool) -> bool:
    return value


async def test_a_user_that_may_not_describe_settings_goes_on_with_a_word(secured: SecuredKafka, narrow: str) -> None:
    with capture_logs() as logs:
        kafka = secured.address("PLAIN", "joiner")
        assert await ensure_topics(kafka, Topics.named(narrow), partitions=2, replication=1) == 2
    said = [line for line in logs if "may not describe the topic" in line["event"]]
    # The joiner has no rights to the sampled decisions, so it does not look at that topic.
    assert {line["topic"] for line in said} == set(Topics.named(narrow)) - {Topics.named(narrow).decisions}
    assert "LogAppendTime" in said[0]["hint"]


async def test_a_user_that_may_not_create_is_told_what_to_create_and_finds_it_later(
    secured: SecuredKafka, topics: Topics, fresh_topic_prefix: str
) -> None:
    await permit(secured.bootstrap, "narrow", [Permission("topic", f"{fresh_topic_prefix}*", "Describe")])
    kafka = secured.address("SCRAM-SHA-512", "narrow")
    with pytest.raises(Unavailable, match=f"may not create them: .*{topics.impressions}") as refused:
        await ensure_topics(kafka, topics, partitions=3, replication=1)
    assert "3 partitions and message.timestamp.type=LogAppendTime" in (refused.value.hint or "")
    await ensure_topics(secured.bootstrap, topics, partitions=3, replication=1)
    assert await ensure_topics(kafka, topics, partitions=3, replication=1) == 3


async def test_a_user_that_may_nothing_is_told_what_it_needs(secured: SecuredKafka, topics: Topics) -> None:
    with pytest.raises(Unavailable, match="may not describe topic"):
        await ensure_topics(secured.address("PLAIN", "reader"), topics, partitions=1, replication=1)


async def test_a_token_is_kept_until_shortly_before_it_expires() -> None:
    asked = []

    def hook() -> tuple[str, float]:
        asked.append(1)
        return f"token {len(asked)}", 4e9 if len(asked) > 1 else 0.0

    tokens = HookedTokens("test", hook)
    assert [await tokens.token() for _ in range(3)] == ["token 1", "token 2", "token 2"]


def own_tokens() -> str:
    """A hook as an operator would write it."""
    return unsecured_token("mesh")


async def test_a_hook_of_ones_own_gets_in(secured: SecuredKafka, topics: Topics) -> None:
    own = secured.address("OAUTHBEARER")
    own = replace(own, access=replace(own.access, token=f"{__name__}:own_tokens"))
    assert await ensure_topics(own, topics, partitions=1, replication=1) == 1


async def test_a_hook_that_fails_is_unavailable_with_its_reason(secured: SecuredKafka, tmp_path: Path) -> None:
    address = secured.address("OAUTHBEARER")
    address = replace(address, access=replace(address.access, token=(tmp_path / "none").as_uri()))
    assert "no token from file:" in await why_not(address)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("aws-msk-iam", "AWS_REGION is not set"),
        ("nowhere", "expected aws-msk-iam"),
        ("no.such.module:f", "No module named"),
        ("json:nothing", "has no attribute"),
    ],
)
def test_a_hook_that_is_none_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch, name: str, reason: str) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    with pytest.raises(ConfigurationError, match=reason):
        token_provider(name)


async def test_msk_iam_signs_with_the_usual_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    token = await token_provider("aws-msk-iam").token()
    url = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
    assert url.startswith("https://kafka.eu-west-1.amazonaws.com/?Action=kafka-cluster%3AConnect")
    assert "X-Amz-Credential=AKIDEXAMPLE" in url
