"""The demo: where its parts are, and the server's settings for them (`freehold.d/retail-demo.toml` in the data folder).

The supply-chain service gets a free port once, which stays: the template that is applied names it.
"""

import importlib.util
import json
import socket
import sys
import tomllib
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click
from msgspec import Struct

from freehold.config import DROP_INS_NAME

DATABASE: Final = "retail"
COMPANION: Final = "supply-chain"
DROP_IN_NAME: Final = "retail-demo.toml"
STAGE_NAME: Final = "retail-demo"
HOST: Final = "127.0.0.1"
_NEEDED: Final = ("numpy", "statsmodels")


class Place(Struct, frozen=True):
    """`examples` is the folder with the template and the programs; `stage` holds the made data, in the data folder."""

    examples: Path
    data_folder: Path

    @property
    def template(self) -> Path:
        return self.examples / "retail.yaml"

    @property
    def stage(self) -> Path:
        return self.data_folder / STAGE_NAME

    @property
    def drop_in(self) -> Path:
        return self.data_folder / DROP_INS_NAME / DROP_IN_NAME

    def dataset_version(self) -> str:
        """Read from the generator's package, whose first file has constants only."""
        path = self.examples / "retail_world" / "__init__.py"
        spec = importlib.util.spec_from_file_location("_retail_world_constants", path)
        if spec is None or spec.loader is None:
            raise click.ClickException(f"{path} cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return str(module.DATASET_VERSION)


def find_place(data_folder: Path) -> Place:
    """Raises ClickException where the examples, or what they need, are not installed."""
    examples = Path(__file__).resolve().parents[3] / "examples" / "retail"
    if not (examples / "retail.yaml").is_file():
        raise click.ClickException(
            "the demo's files (examples/retail) do not come with the installed package. Get them with the source: clone "
            "Freehold's repository and run scripts/demo in it"
        )
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"the demo's forecast needs {' and '.join(missing)}: pip install 'freehold[examples]', or run scripts/demo"
        )
    return Place(examples, data_folder)


def remembered_port(place: Place) -> int | None:
    """The supply-chain service's port of an earlier run."""
    try:
        told = tomllib.loads(place.drop_in.read_text())
        url: str = told["companions"][0]["ready_url"]
        return urlsplit(url).port
    except (OSError, tomllib.TOMLDecodeError, LookupError, ValueError, TypeError):
        return None


def choose_port(place: Place) -> int:
    """The remembered port where it is still free, else another free one."""
    kept = remembered_port(place)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, kept or 0))
        except OSError:
            probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def service_url(port: int) -> str:
    return f"http://{HOST}:{port}"


def write_settings(place: Place, port: int) -> None:
    """Left alone where it says the same already."""
    text = _settings(place, port)
    path = place.drop_in
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.new")
    staged.write_text(text)
    staged.replace(path)


def _settings(place: Place, port: int) -> str:
    command = [
        sys.executable,
        str(place.examples / "supply_chain.py"),
        "--port",
        str(port),
        "--data",
        str(place.stage),
    ]
    return f"""\
# Written by `freehold demo`, and written anew by it. Delete this file to take the demo's parts out of the server.
databases = [{_quoted(DATABASE)}]

[tools]
function_folders = [{_quoted(str(place.examples / "functions"))}]

[[companions]]
name = {_quoted(COMPANION)}
command = [{", ".join(_quoted(word) for word in command)}]
ready_url = {_quoted(f"{service_url(port)}/openapi.json")}
"""


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are among TOML's."""
    return json.dumps(text, ensure_ascii=False)
