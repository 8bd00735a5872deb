"""mesh.yaml: the published example is valid; whatever is wrong is named with its path, its value and what is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from banditmesh.bandits.registry import DEFAULT, exploration_of
from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.mesh import Mesh, load_mesh, parse_mesh

EXAMPLE = """
services:
  weather: {logics: [today, tomorrow], provider: "dns:///weather:50051", refresh_every: 10m}
  comics:  {logics: [new-volume, similar], provider: "dns:///comics:50051", refresh_every: 6h}
placements:
  talk-head-jp:
    sources: [weather/today, weather/tomorrow, comics/new-volume, comics/similar]
    eligible: used_services            # only services that the user has used; or: all
    features: {profile: [gender, age_band], content: [service, category], context: [hour, weekday], \
crosses: [[age_band, service]]}
    rewards: {click: 1.0, none: 0.5, mute: 0.0, targets: {purchase: 3.0}, precedence: [mute, target, click]}
    join_window: 10m
    mute: {slot_for: 1h, content_for: 30d, service_for: 7d}
    fallback: popularity
    experiment:
      salt: spring
      variants:
        logics:   {weight: 90, policy: {linucb: {arm: logic}},   explore: {thompson: {floor: 0.01}}}
        contents: {weight: 10, policy: {linucb: {arm: content}}, explore: {ucb: {alpha: 0.5, floor: 0.01}}}
"""
MINIMAL = """
services: {weather: {logics: [today]}}
placements: {head: {sources: [weather/today]}}
"""
PLACEMENT = "placements.talk-head-jp"
VARIANTS = f"{PLACEMENT}.experiment.variants"
WEIGHT = f"{VARIANTS}.logics.weight: Input should be a valid number"


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as refused:
        parse_mesh(text)
    return refused.value.problems


def changed(old: str, new: str) -> str:
    assert EXAMPLE.count(old) == 1
    return EXAMPLE.replace(old, new)


def test_the_example_of_the_design_is_valid() -> None:
    mesh = parse_mesh(EXAMPLE)
    placement = mesh.placements["talk-head-jp"]
    assert placement.join_window == 600.0
    assert placement.mute.content_for == 30 * 86400.0
    assert placement.experiment.variants["contents"].policy_params == {"arm": "content"}
    assert placement.experiment.variants["contents"].explore_name == "ucb"
    assert mesh.services["comics"].refresh_every == 6 * 3600.0


def test_a_placement_needs_nothing_but_its_sources() -> None:
    placement = parse_mesh(MINIMAL).placements["head"]
    (variant,) = placement.experiment.variants.values()
    assert (variant.policy_name, variant.explore_name, variant.explore_params) == (DEFAULT, *exploration_of(DEFAULT))
    assert (placement.rewards.click, placement.rewards.none, placement.rewards.mute) == (1.0, 0.5, 0.0)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("eligible: used", "eligibel: used", f"{PLACEMENT}.eligibel: unknown key; did you mean 'eligible'?"),
        (
            "eligible: used_services",
            "eligible: used",
            f"{PLACEMENT}.eligible: Input should be 'used_services' or 'all' (is 'used')",
        ),
        (
            "services:\n",
            "banana: 1\nservices:\n",
            "banana: unknown key; there is: access, archive, engine, importing, join, ",
        ),
        ("slot_for: 1h", "slot_four: 1h", f"{PLACEMENT}.mute.slot_four: unknown key; did you mean 'slot_for'?"),
        ("slot_for: 1h", "slot_for: 1 fortnight", f"{PLACEMENT}.mute.slot_for: '1 fortnight' is not a duration"),
        ("slot_for: 1h", "slot_for: 60", f"{PLACEMENT}.mute.slot_for: 60 has no unit; write it like 250ms, 30s"),
        ("slot_for: 1h", "slot_for: -1h", f"{PLACEMENT}.mute.slot_for: '-1h' is not a duration"),
        ("slot_for: 1h", "slot_for: yes", f"{PLACEMENT}.mute.slot_for: True is not a duration"),
        ("join_window: 10m", "join_window: 0", f"{PLACEMENT}.join_window: Input should be greater than 0"),
        ("join_window: 10m", "join_window: 20m", f"{PLACEMENT}.join_window: 1200s is longer than join.window, 600s"),
        (
            "comics/similar]",
            "comics/simlar]",
            f"{PLACEMENT}.sources.3: 'comics/simlar' is no service/logic; did you mean 'comics/similar'?",
        ),
        ("comics/similar]", "weather/today]", f"{PLACEMENT}.sources.3: 'weather/today' stands twice"),
        ("talk-head-jp:", '"talk head":', "placements.talk head: the key: 'talk head' is not a name: 1 to 64 of"),
        ("click: 1.0", "click: .nan", f"{PLACEMENT}.rewards.click: Input should be a finite number (is nan)"),
        ("purchase: 3.0", '"": 3.0', f"{PLACEMENT}.rewards.targets: '': a target action's name has 1 to 64"),
        (
            "[mute, target, click]",
            "[mute, mute]",
            f"{PLACEMENT}.rewards.precedence: must hold each of mute, target, click",
        ),
        ("hour, weekday", "hour, 5", f"{PLACEMENT}.features.context.1: Input should be a valid string (is 5)"),
        (
            "context: [hour, weekday]",
            "state: [feedbcak]",
            f"{PLACEMENT}.features.state: 'feedbcak' is not kept of users; did you mean 'feedback'?",
        ),
        ("[[age_band, service]]", "[[age, service]]", f"{PLACEMENT}.features: crosses: field 'age' is none of gender"),
        ("weight: 90", "weight: -1", f"{VARIANTS}.logics.weight: Input should be greater than or equal to 0 (is -1)"),
        ("weight: 90", "weight: .inf", f"{VARIANTS}.logics.weight: Input should be a finite number (is inf)"),
        ("weight: 90", 'weight: "90"', f"{WEIGHT} (is '90', a text: write it without quotes)"),
        ("weight: 90", "weight: 1e300", f"{WEIGHT} (is '1e300', a text to YAML: write 1.0e+300)"),
        ("weight: 90", "weight: -2.5E5", f"{WEIGHT} (is '-2.5E5', a text to YAML: write -2.5e+5)"),
        ("weight: 90", "weight: many", f"{WEIGHT} (is 'many')"),
        ("[new-volume, similar]", "[similar, similar]", "services.comics.logics: 'similar' stands twice"),
        ("services:\n", '"a\\n\\e[31mb": 1\nservices:\n', "a\\n\\x1b[31mb: unknown key"),
        ("services:\n", 'profiles: {"a\\rb": text2}\nservices:\n', "profiles.a\\rb: Input should be"),
        ("weight: 90, ", "", f"{VARIANTS}.logics.weight: is missing"),
        (
            "{linucb: {arm: logic}}",
            "{gbdt: {trees: 16}}",
            f"{VARIANTS}.logics.policy.gbdt: does not exist; there is: ",
        ),
        (
            "{linucb: {arm: logic}}",
            "{lin_ucb: {}}",
            f"{VARIANTS}.logics.policy.lin_ucb: does not exist; did you mean 'linucb'?",
        ),
        (
            "{linucb: {arm: logic}}",
            "{linucb: {}, random: {}}",
            f"{VARIANTS}.logics.policy: names 2 of them (linucb, random); exactly one is needed",
        ),
        ("arm: logic", "arm: planet", f"{VARIANTS}.logics.policy.linucb.arm: Input should be 'content', 'logic' or"),
        (
            "alpha: 0.5",
            "alhpa: 0.5",
            f"{VARIANTS}.contents.explore.ucb.alhpa: ucb has no parameter 'alhpa', did you mean",
        ),
        (
            "thompson: {floor: 0.01}",
            "greedily: {}",
            f"{VARIANTS}.logics.explore.greedily: does not exist; did you mean",
        ),
        (
            "fallback: pop",
            "retrieve: {from: [wether], newest: {share: 5}}\n    fallback: pop",
            f"{PLACEMENT}.retrieve.from.0: 'wether' is no service; did you mean 'weather'?",
        ),
        (
            "fallback: pop",
            "retrieve: {newset: {share: 5}}\n    fallback: pop",
            f"{PLACEMENT}.retrieve.newset: unknown key; did you mean 'newest'?",
        ),
        (
            "fallback: pop",
            "retrieve: {newest: {share: 0}}\n    fallback: pop",
            f"{PLACEMENT}.retrieve.newest.share: Input should be greater than or equal to 1 (is 0)",
        ),
        (
            "fallback: pop",
            "retrieve: {from: [weather]}\n    fallback: pop",
            f"{PLACEMENT}.retrieve: names no model; there is: density, als, popularity, newest",
        ),
        (
            "comics/similar]",
            "newest]\n    retrieve: {newest: {share: 5}}",
            f"{PLACEMENT}.retrieve.newest: 'newest' stands in sources too; leave it out there",
        ),
        (
            "sources: [weather/today, weather/tomorrow, comics/new-volume, comics/similar]",
            "sources: []",
            f"{PLACEMENT}: neither sources nor retrieve propose anything to variant 'logics'; name a service/logic",
        ),
        (
            "weight: 10, policy: {linucb: {arm: content}}",
            "weight: 10, policy: {linucb: {arm: content}}, retrieve: {from: [news], newest: {share: 9}}",
            f"{VARIANTS}.contents.retrieve.from.0: 'news' is no service; there is: comics, weather",
        ),
        ("services:\n", "kafka: {partitions: yes}\nservices:\n", "kafka.partitions: Input should be a valid integer"),
        ("services:\n", "kafka: {partitions: 0}\nservices:\n", "kafka.partitions: Input should be greater than or"),
    ],
)
def test_a_wrong_key_or_value_is_named(old: str, new: str, problem: str) -> None:
    (found,) = problems(changed(old, new))
    assert found.startswith(problem)


def test_all_problems_are_named_at_once() -> None:
    text = changed("eligible: used_services", "eligible: some").replace("weight: 10", "weight: ten")
    assert [problem.split(":")[0] for problem in problems(text)] == [
        f"{PLACEMENT}.eligible",
        f"{VARIANTS}.contents.weight",
    ]


def test_all_wrong_references_are_named_at_once() -> None:
    text = changed("weather/today,", "weather/yesterday,").replace("join_window: 10m", "join_window: 1h")
    assert [problem.split(":")[0] for problem in problems(text)] == [
        f"{PLACEMENT}.sources.0",
        f"{PLACEMENT}.join_window",
    ]


def test_a_key_that_stands_twice_is_an_error_and_not_the_last_one() -> None:
    with pytest.raises(ConfigurationError, match=r"key 'fallback' stands twice\n.*line \d+"):
        parse_mesh(changed("    fallback: popularity\n", "    fallback: popularity\n    fallback: none\n"))


@pytest.mark.parametrize(
    ("old", "new", "key", "said"),
    [
        ("[gender, age_band]", "['gender ', age_band]", "features.profile.0", "white space around it"),
        ("[hour, weekday]", '[hour, "week\\nday"]', "features.context.1", "cannot be seen"),
        ("[service, category]", "[service, '']", "features.content.1", "1 to 64 bytes"),
        ("{click: 1.0,", "{click: yes,", "rewards.click", "must be a number: YAML reads yes"),
        ("{purchase: 3.0}", "{purchase: on}", "rewards.targets", "must be a number: YAML reads yes"),
        ("weight: 90", "weight: 1.0e+308", "experiment.variants.logics.weight", "less than or equal to 1000000000"),
        ("fallback: popularity", "rules: [{spread: {attribute: ' '}}]", "rules.0.spread.attribute", "white space"),
    ],
)
def test_what_yaml_lets_through_and_nobody_can_mean_is_refused(old: str, new: str, key: str, said: str) -> None:
    (problem,) = problems(changed(old, new))
    assert problem.startswith(f"{PLACEMENT}.{key}: ")
    assert said in problem


def test_a_folder_for_rejects_has_a_scheme() -> None:
    (problem,) = problems(f"{MINIMAL}importing: {{rejects_uri: rejects}}\n")
    assert "write it like hdfs://" in problem


def test_an_experiment_in_which_nobody_takes_part_is_refused() -> None:
    (problem,) = problems(changed("weight: 90", "weight: 0").replace("weight: 10", "weight: 0"))
    assert problem.startswith(f"{PLACEMENT}.experiment: variants: all weights are 0")


@pytest.mark.parametrize("text", ["", "[]", "services", "services: [", "a: &x [*x]", "\x00"])
def test_a_text_that_is_no_mesh_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_mesh(text)


def test_a_policy_may_be_written_by_its_bare_name() -> None:
    text = changed("{linucb: {arm: logic}}", "random").replace("{linucb: {arm: content}}", "{random: }")
    variants = parse_mesh(text).placements["talk-head-jp"].experiment.variants
    assert variants["logics"].policy == variants["contents"].policy == {"random": {}}


def test_variants_of_the_same_policy_and_parameters_share_a_model() -> None:
    alike = changed("{linucb: {arm: logic}}", "{linucb: {arm: content}}").replace(": popularity", ": none")
    assert [model.variants for model in parse_mesh(alike).models().values()] == [("logics", "contents")]
    assert len(parse_mesh(EXAMPLE.replace("fallback: popularity", "fallback: none")).models()) == 2


@pytest.mark.parametrize(
    ("sources", "fallback"),
    [
        ("[weather/today]", "popularity"),
        ("[weather/today]", "[newest, popularity]"),
        ("[popularity, weather/today]", "none"),
    ],
)
def test_popularity_is_a_model_where_it_proposes(sources: str, fallback: str) -> None:
    text = f"""
services: {{weather: {{logics: [today]}}}}
placements: {{head: {{sources: {sources}, fallback: {fallback},
  experiment: {{variants: {{one: {{weight: 1, policy: random}}}}}}}}}}
"""
    models = {model.policy: model.variants for model in parse_mesh(text).models().values()}
    assert models == {"random": ("one",), "popularity": ()}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("popularity", ["popularity"]),
        ("none", []),
        ("newest", ["newest"]),
        ("[popularity, newest]", ["popularity", "newest"]),
    ],
)
def test_a_fallback_is_one_or_none_or_a_chain(written: str, read: list[str]) -> None:
    mesh = parse_mesh(changed("fallback: popularity", f"fallback: {written}"))
    assert mesh.placements["talk-head-jp"].fallback == read


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("populraity", r"placements\.talk-head-jp\.fallback\.0: .*'popularity' or 'newest'.*populraity"),
        ("[popularity, none]", r"placements\.talk-head-jp\.fallback\.1: .*'popularity' or 'newest'.*none"),
        ("[newest, newest]", r"placements\.talk-head-jp\.fallback: 'newest' stands twice"),
    ],
)
def test_a_fallback_that_cannot_be_is_an_error_that_says_what_can(written: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_mesh(changed("fallback: popularity", f"fallback: {written}"))


def test_the_join_window_of_a_placement_that_is_gone_is_the_default_one() -> None:
    mesh = parse_mesh(changed("join_window: 10m", "join_window: 5m"))
    assert mesh.join_window_s("talk-head-jp") == 300.0
    assert mesh.join_window_s("gone") == 600.0


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_text(EXAMPLE)
    assert isinstance(load_mesh(path), Mesh)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml: cannot be read: .*No such file"):
        load_mesh(tmp_path / "nowhere.yaml")


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match=r"mesh\.yaml: cannot be read"):
        load_mesh(path)


@pytest.mark.parametrize(
    ("rewards", "reachable"),
    [
        ("{targets: {purchase: 1.0}}", "0 to 10"),
        ("{targets: {purchase: 0.5}, cap: 1.5}", "0 to 1.5"),
        ("{click: 1.5}", "0 to 1.5"),
        ("{mute: -0.5}", "-0.5 to 1"),
        ("{dwell: 0.001}", "0 to 10"),
    ],
)
def test_link_logit_is_refused_where_rewards_can_leave_0_to_1(rewards: str, reachable: str) -> None:
    text = LOGIT.replace("REWARDS", rewards)
    (found,) = problems(text)
    assert found.startswith("placements.home.experiment.variants.only.policy.fm: learns from rewards from 0 to 1, and")
    assert f"go from {reachable} (" in found


@pytest.mark.parametrize(
    ("policy", "advice"), [("fm: {link: logit}", "link: identity"), ("beta_bernoulli: {}", "another policy")]
)
def test_what_learns_from_chances_alone_is_told_what_it_can_do(policy: str, advice: str) -> None:
    (found,) = problems(LOGIT.replace("REWARDS", "{click: 5}").replace("fm: {link: logit}", policy))
    assert found.endswith(f"or {advice}")


@pytest.mark.parametrize(
    "rewards", ["{}", "{targets: {purchase: 1.0}, cap: 1.0}", "{click: 0.9, targets: {share: 0.0}, cap: 1}"]
)
def test_link_logit_is_taken_where_rewards_stay(rewards: str) -> None:
    assert parse_mesh(LOGIT.replace("REWARDS", rewards))


LOGIT = """
services: {films: {logics: [similar]}}
placements:
  home:
    sources: [films/similar]
    rewards: REWARDS
    experiment: {variants: {only: {weight: 1, policy: {fm: {link: logit}}}}}
"""


@pytest.mark.parametrize("moment", ["2027-01-31T12:00:00", "soon", "5"])
def test_the_end_of_a_rollout_is_a_moment_with_a_time_zone(moment: str) -> None:
    (found,) = problems(LOGIT.replace("REWARDS", "{}") + f"join: {{rollout_until: {moment}}}\n")
    assert found.startswith("join.rollout_until: ")


def test_a_rollout_can_be_declared() -> None:
    mesh = parse_mesh(LOGIT.replace("REWARDS", "{}") + "join: {rollout_until: 2027-01-31T12:00:00Z}\n")
    assert mesh.join.rollout_until_s == 1_801_396_800.0
