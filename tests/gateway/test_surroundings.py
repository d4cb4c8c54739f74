"""What a row of the catalog takes from the environment."""

import pytest
from msgspec import structs

from freehold.catalog import catalog
from freehold.core.errors import BadRequest, NotFound
from freehold.gateway.surroundings import addressed, credential
from freehold.governance.secrets import Secrets
from tests.gateway.conftest import open_house

ROW = catalog.providers()["bedrock"]
PAIR = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}


def resolve_in(environment: dict[str, str]):
    def resolve(reference: str) -> str:
        name = reference.removeprefix("env:")
        if name not in environment:
            raise NotFound(f"{name} is not set")
        return environment[name]

    return resolve


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"AWS_ACCESS_KEY_ID": "id"}, None),
        (PAIR, "id:secret"),
        ({**PAIR, "AWS_SESSION_TOKEN": "token"}, "id:secret:token"),
        ({**PAIR, "AWS_BEARER_TOKEN_BEDROCK": "key"}, "key"),
    ],
)
def test_a_credential_may_be_one_variable_or_several(environment, expected):
    assert credential(ROW, resolve_in(environment)) == expected


@pytest.mark.parametrize(
    ("environment", "region"),
    [
        ({}, "us-east-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, "eu-west-1"),
        ({"AWS_REGION": "eu-north-1", "AWS_DEFAULT_REGION": "eu-west-1"}, "eu-north-1"),
        ({"AWS_REGION": ""}, "us-east-1"),
    ],
)
def test_a_region_comes_from_the_environment(environment, region):
    address = addressed(ROW, resolve_in(environment)).base_url
    assert address == f"https://bedrock-runtime.{region}.amazonaws.com"


@pytest.mark.parametrize("value", ["evil.example/", "a.b", "A", "x" * 64, "a@b"])
def test_what_would_lead_elsewhere_is_refused(value):
    with pytest.raises(BadRequest, match="AWS_REGION or AWS_DEFAULT_REGION"):
        addressed(ROW, resolve_in({"AWS_REGION": value}))


def test_an_address_without_gaps_stays_the_same():
    row = structs.replace(ROW, base_url="https://example.com")
    assert addressed(row, resolve_in({})) is row


ARN = "arn:aws:bedrock:eu-west-1:111122223333:application-inference-profile/a1b2c3"


async def test_an_arn_is_bedrocks_without_saying_so():
    async with open_house(environment=PAIR) as house:
        target = await house.models.resolve("acme", ARN)
        assert (target.provider.name, target.name, target.resource) == (
            "bedrock",
            ARN,
            f"model/bedrock/{ARN}",
        )
    async with open_house() as house:
        with pytest.raises(NotFound, match=r"it would be at bedrock .*AWS_BEARER_TOKEN_BEDROCK"):
            await house.models.resolve("acme", ARN)


VERTEX = catalog.providers()["vertex"]


@pytest.mark.parametrize(
    ("path", "expected"), [("key.json", '{"type":"service_account"}'), ("none.json", None)]
)
def test_a_variable_may_name_the_file_in_which_a_credential_stands(tmp_path, path, expected):
    (tmp_path / "key.json").write_text('{"type":"service_account"}')
    secrets = Secrets({"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / path)})
    assert credential(VERTEX, secrets.resolve) == expected


def test_a_file_that_holds_no_text_is_no_credential(tmp_path):
    (tmp_path / "key.json").write_bytes(b"\xff")
    secrets = Secrets({"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json")})
    assert credential(VERTEX, secrets.resolve) is None
