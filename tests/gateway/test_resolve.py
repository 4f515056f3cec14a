"""From names to versions, and the errors that say what there is."""

import dataclasses

import pytest

from motet_api.errors import ErrorCode
from motet_gateway.errors import RequestRefusedError, UnavailableError
from motet_gateway.fleet import Fleet
from motet_gateway.resolve import Asked, Route, resolve_adapter, resolve_model
from motet_gateway.table import ObjectKey, Table
from tests.gateway.factories import adapter, fleet, model, pod, table, view

TWO_VERSIONS = adapter(versions=("v1", "v2"), traffic={"v1": 90, "v2": 10})
ONE_MODEL = table([model()], [TWO_VERSIONS, adapter("topic")])
TEAMS = table(
    [model(namespace="red"), model(namespace="blue"), model("other", namespace="blue")],
    [
        adapter(namespace="red"),
        adapter(namespace="blue"),
        adapter("topic", namespace="blue"),
        adapter("other", namespace="blue", of="other"),
    ],
)
EMPTY = Fleet()


def lorax(
    name: str, where: Table = ONE_MODEL, header: str | None = None, user: str = "u", state: Fleet = EMPTY
) -> Route:
    return resolve_adapter(Asked(name, header, user), where, state)


def openai(
    name: str, where: Table = ONE_MODEL, header: str | None = None, user: str = "u", state: Fleet = EMPTY
) -> Route:
    return resolve_model(Asked(name, header, user), where, state)


def named(route: Route) -> tuple[str, str | None]:
    """The model in full and the runtime id."""
    return str(route.model.key), route.runtime_id


@pytest.mark.parametrize("resolve", [lorax, openai])
@pytest.mark.parametrize(
    ("name", "header", "where", "found"),
    [
        ("", None, ONE_MODEL, ("default/tiny", None)),
        ("__base_model__", None, ONE_MODEL, ("default/tiny", None)),
        ("__base_model__", "red/tiny", TEAMS, ("red/tiny", None)),
        ("", "other", TEAMS, ("blue/other", None)),
        ("churn@v2", None, ONE_MODEL, ("default/tiny", "churn@v2")),
        ("default/churn@v1", None, ONE_MODEL, ("default/tiny", "churn@v1")),
        ("topic", None, ONE_MODEL, ("default/tiny", "topic@v1")),
        ("topic", None, TEAMS, ("blue/tiny", "topic@v1")),
        ("red/churn", None, TEAMS, ("red/tiny", "churn@v1")),
        ("churn", "blue/tiny", TEAMS, ("blue/tiny", "churn@v1")),
    ],
)
def test_names(resolve, name: str, header: str | None, where: Table, found: tuple[str, str | None]) -> None:  # type: ignore[no-untyped-def]
    assert named(resolve(name, where, header)) == found


def test_openai_takes_a_model_name_for_the_base() -> None:
    assert named(openai("tiny")) == ("default/tiny", None)
    assert named(openai("red/tiny", TEAMS)) == ("red/tiny", None)


@pytest.mark.parametrize("resolve", [lorax, openai])
@pytest.mark.parametrize(
    ("name", "header", "where", "code", "said"),
    [
        ("chrun", None, ONE_MODEL, ErrorCode.ADAPTER_NOT_FOUND, ["chrun", "churn", "topic"]),
        ("Not A Name", None, ONE_MODEL, ErrorCode.ADAPTER_NOT_FOUND, ["Not A Name", "churn"]),
        ("other/churn", None, ONE_MODEL, ErrorCode.ADAPTER_NOT_FOUND, ["other/churn"]),
        ("churn@v3", None, ONE_MODEL, ErrorCode.VERSION_NOT_FOUND, ["v3", "v1, v2"]),
        ("tiny@v1", None, ONE_MODEL, ErrorCode.ADAPTER_NOT_FOUND, ["tiny@v1"]),
        ("churn", None, TEAMS, ErrorCode.MODEL_AMBIGUOUS, ["blue/churn", "red/churn"]),
        ("topic", "red/tiny", TEAMS, ErrorCode.ADAPTER_NOT_FOUND, ["topic", "red/tiny"]),
        ("", None, TEAMS, ErrorCode.MODEL_AMBIGUOUS, ["blue/other", "blue/tiny", "red/tiny", "x-motet-model"]),
        ("", "tiny", TEAMS, ErrorCode.MODEL_AMBIGUOUS, ["blue/tiny", "red/tiny"]),
        ("", "huge", ONE_MODEL, ErrorCode.MODEL_NOT_FOUND, ["huge", "tiny"]),
        ("", "not a name", ONE_MODEL, ErrorCode.MODEL_NOT_FOUND, ["not a name"]),
        ("churn", None, table([]), ErrorCode.ADAPTER_NOT_FOUND, ["churn", "there are none"]),
        ("", None, table([]), ErrorCode.MODEL_NOT_FOUND, []),
        ("churn", None, table([], [adapter()]), ErrorCode.MODEL_NOT_FOUND, ["default/tiny"]),
    ],
)
def test_refusals_say_what_there_is(  # type: ignore[no-untyped-def]
    resolve, name: str, header: str | None, where: Table, code: ErrorCode, said: list[str]
) -> None:
    with pytest.raises(RequestRefusedError) as caught:
        resolve(name, where, header)
    assert caught.value.code == code
    assert [part for part in said if part not in caught.value.message] == []


def test_a_name_of_a_model_and_an_adapter_is_ambiguous_and_the_remedy_works() -> None:
    with pytest.raises(RequestRefusedError) as caught:
        openai("other", TEAMS)
    assert caught.value.code == ErrorCode.MODEL_AMBIGUOUS
    assert "blue/other@v1" in caught.value.message
    assert named(openai("blue/other@v1", TEAMS)) == ("blue/other", "other@v1")
    assert named(openai("__base_model__", TEAMS, header="blue/other")) == ("blue/other", None)
    with pytest.raises(RequestRefusedError, match="red/tiny"):
        openai("tiny", TEAMS)


def test_of_many_names_only_near_ones_are_listed() -> None:
    many = table([model()], [adapter(f"indicator-{number:03}") for number in range(500)] + [adapter("churn-risk")])
    with pytest.raises(RequestRefusedError) as caught:
        lorax("churn-rsik", many)
    assert "churn-risk" in caught.value.message
    assert "indicator" not in caught.value.message
    with pytest.raises(RequestRefusedError) as caught:
        lorax("zebra", many)
    assert "did you mean" not in caught.value.message


@pytest.mark.parametrize("traffic", [{}, {"v1": 0}, {"gone": 5}])
def test_an_adapter_without_traffic_is_not_ready(traffic: dict[str, int]) -> None:
    with pytest.raises(UnavailableError) as caught:
        lorax("churn", table([model()], [adapter(traffic=traffic)]))
    assert caught.value.code == ErrorCode.ADAPTER_NOT_READY
    assert caught.value.retry_after is not None


def chosen(state: Fleet) -> dict[str, str | None]:
    return {user: lorax("churn", user=user, state=state).version for user in map(str, range(200))}


def test_a_version_that_no_pod_holds_is_left_out_while_another_is_held() -> None:
    both = chosen(fleet({pod(): view("churn@v1", "churn@v2")}))
    assert set(both.values()) == {"v1", "v2"}
    one = chosen(fleet({pod(): view("churn@v2")}))
    assert set(one.values()) == {"v2"}
    assert chosen(EMPTY) == both, "with nothing known the weights decide, and the request waits"
    spread = chosen(fleet({pod("a"): view("churn@v1"), pod("b"): view("churn@v2")}))
    assert spread == both


NEXT = ObjectKey("default", "next")
TWO_BASES = dataclasses.replace(TWO_VERSIONS, models={"v2": NEXT})
BASES = table([model(), model("next")], [TWO_BASES])


def test_versions_of_one_adapter_on_two_models() -> None:
    assert named(lorax("churn@v1", BASES)) == ("default/tiny", "churn@v1")
    assert named(lorax("churn@v2", BASES)) == ("default/next", "churn@v2")
    assert {named(lorax("churn", BASES, user=f"u{n}")) for n in range(100)} == {
        ("default/tiny", "churn@v1"),
        ("default/next", "churn@v2"),
    }
    assert {named(lorax("churn", BASES, header="next", user=f"u{n}"))[0] for n in range(20)} == {"default/next"}
    with pytest.raises(RequestRefusedError, match="no version 'v1' on model default/next; it has v2"):
        lorax("churn@v1", BASES, header="next")


def test_a_version_whose_model_is_gone_leaves_its_share_to_the_others() -> None:
    where = table([model("next")], [TWO_BASES])
    assert {named(lorax("churn", where, user=f"u{n}"))[1] for n in range(20)} == {"churn@v2"}
    with pytest.raises(RequestRefusedError, match="default/tiny, which is gone"):
        lorax("churn@v1", where)


def test_an_adapter_on_a_model_of_another_namespace() -> None:
    guest = dataclasses.replace(adapter(namespace="team"), model=ObjectKey("models", "tiny"))
    where = table([model(namespace="models")], [guest, adapter(namespace="models")])
    route = lorax("team/churn@v1", where)
    assert (named(route), route.adapter_name) == (("models/tiny", "team/churn@v1"), "team/churn")
    own = lorax("models/churn@v1", where)
    assert (named(own), own.adapter_name) == (("models/tiny", "churn@v1"), "churn")


def test_only_the_splits_choice_can_be_made_again() -> None:
    assert lorax("churn").by_split
    assert not lorax("churn@v1").by_split
    assert not lorax("").by_split


def test_a_version_that_a_request_would_load_keeps_its_users() -> None:
    state = fleet({pod(): view("churn@v1", standby=["churn@v2"])})
    users = [f"u{n}" for n in range(100)]
    assert {lorax("churn", user=user, state=state).version for user in users} == {"v1", "v2"}


UNTAKEN = dataclasses.replace(adapter(namespace="evil"), served=())
OF_NO_MODEL = adapter(namespace="evil", of="none")


@pytest.mark.parametrize("resolve", [lorax, openai])
@pytest.mark.parametrize("evil", [UNTAKEN, OF_NO_MODEL])
def test_an_adapter_that_no_model_has_taken_makes_no_name_ambiguous(resolve, evil) -> None:  # type: ignore[no-untyped-def]
    where = table([model()], [adapter(), evil])
    assert named(resolve("churn", where)) == ("default/tiny", "churn@v1")
    assert [where.public_name(one) for one in where.adapters.values()] == ["churn", "evil/churn"]
    served = table([model(), model(namespace="evil")], [adapter(), adapter(namespace="evil")])
    with pytest.raises(RequestRefusedError, match="default/churn, evil/churn"):
        resolve("churn", served)


def test_nor_does_it_take_the_name_of_a_base() -> None:
    evil = dataclasses.replace(adapter("tiny", namespace="evil", of="tiny"), served=())
    where = table([model()], [evil])
    assert named(openai("tiny", where)) == ("default/tiny", None)
    assert where.public_name(evil) == "evil/tiny"
    with pytest.raises(RequestRefusedError, match="evil/tiny"):
        openai("tiny", table([model(), model(namespace="evil")], [dataclasses.replace(evil, served=None)]))


def test_an_untaken_adapter_alone_is_said_to_be_not_ready() -> None:
    fresh = dataclasses.replace(adapter(traffic={}), served=())
    with pytest.raises(UnavailableError, match="default/churn"):
        lorax("churn", table([model()], [fresh]))


@pytest.mark.parametrize(("default", "first"), [("red", "red"), ("blue", "blue"), ("green", None), ("", None)])
def test_the_default_namespace_is_first_among_several(default: str, first: str | None) -> None:
    where = dataclasses.replace(TEAMS, default_namespace=default)
    attempts = (
        lambda: lorax("churn", where),
        lambda: openai("tiny", where),
        lambda: lorax("", where, header="tiny"),
    )
    for attempt in attempts:
        if first is None:
            with pytest.raises(RequestRefusedError) as caught:
                attempt()
            assert caught.value.code == ErrorCode.MODEL_AMBIGUOUS
        else:
            assert attempt().model.key == ObjectKey(first, "tiny")
    assert named(lorax("topic", where)) == ("blue/tiny", "topic@v1"), "what exists once is found anywhere"


def test_the_base_of_the_default_namespace_needs_no_header() -> None:
    models = [model(namespace="red"), model(namespace="blue")]
    where = table(models)
    with pytest.raises(RequestRefusedError, match="several ModelDeployments"):
        lorax("", where)
    assert named(lorax("", dataclasses.replace(where, default_namespace="red"))) == ("red/tiny", None)
