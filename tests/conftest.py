"""What every test may use: loopback as the only network, models made on the spot, and the running application."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from gradio_client import Client

from app import create_app
from core.settings import ROOT, Settings
from tests.engine_watch import EngineWatch
from tests.tiny_models import make_chat_model, make_plain_model, make_slow_model

BUNDLED = ROOT / "models"


def pytest_configure() -> None:
    """Where several processes test, let each compute on one core: threads that wait for others' cores spin in vain."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch

        torch.set_num_threads(1)


class NetworkReached(OSError):
    """A test reached for a host that is not this machine."""


@pytest.fixture(scope="session", autouse=True)
def hosts_reached_for() -> Iterator[list[str]]:
    """Refuse every connection and every look-up that leaves this machine, and list them."""
    reached: list[str] = []

    def guarded(real: Callable[..., Any], host_of: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            host = host_of(*args, **kwargs)
            if isinstance(host, bytes):
                host = host.decode()
            if isinstance(host, str) and not _is_this_machine(host):
                reached.append(f"{host}, from\n{''.join(traceback.format_stack(limit=25))}")
                raise NetworkReached(f"tests may not reach {host}")
            return real(*args, **kwargs)

        return call

    def address_host(_: socket.socket, address: Any, *__: Any) -> Any:
        return address[0] if isinstance(address, tuple) else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded(socket.socket.connect, address_host))
        patch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex, address_host))
        patch.setattr(socket, "getaddrinfo", guarded(socket.getaddrinfo, lambda host, *_, **__: host))
        yield reached


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, hosts_reached_for: list[str]) -> Iterator[None]:
    """Fail a test that reached for another host, unless it is marked as one that tries to."""
    hosts_reached_for.clear()
    yield
    if "tries_network" not in request.fixturenames:
        assert hosts_reached_for == [], "this test reached for the internet"


@pytest.fixture
def tries_network() -> None:
    """Mark a test in which the product tries to reach the internet, in vain."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a server of one's own, with the bundled model and an empty data folder."""
    return Settings(data_dir=tmp_path / "data", bundled_dir=BUNDLED, device="cpu")


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: `tiny`, `other`, `slow`, `plain`, `dialogue`, and some that must be refused."""
    folder = tmp_path_factory.mktemp("data") / "models"
    make_chat_model(folder / "tiny", seed=0)
    make_chat_model(folder / "other", seed=1)
    make_slow_model(folder / "slow")
    make_plain_model(folder / "plain")
    make_plain_model(folder / "dialogue", dialogue=True)
    (folder / "empty").mkdir()
    shutil.copytree(folder / "tiny", folder / "pickled")
    (folder / "pickled" / "model.safetensors").rename(folder / "pickled" / "pytorch_model.bin")
    shutil.copytree(folder / "tiny", folder / "corrupt")
    (folder / "corrupt" / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{broken}")
    return folder


@pytest.fixture(autouse=True)
def nothing_chosen_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    """Forget what a test made the default or how it loaded: the folder of models is shared by many."""
    yield
    if "models_dir" in request.fixturenames:
        (request.getfixturevalue("models_dir").parent / "config.json").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def app_settings(models_dir: Path) -> Settings:
    """The settings of the running application."""
    return Settings(data_dir=models_dir.parent, bundled_dir=BUNDLED, device="cpu")


@pytest.fixture(scope="session")
def app_url(app_settings: Settings, hosts_reached_for: list[str]) -> Iterator[str]:
    """The address of an application where one local user may do everything."""
    with serving(app_settings) as url:
        yield url


@pytest.fixture(scope="session")
def guest_url(models_dir: Path, hosts_reached_for: list[str]) -> Iterator[str]:
    """The address of an application for visitors."""
    with serving(Settings(data_dir=models_dir.parent, bundled_dir=BUNDLED, device="cpu", auth="guest")) as url:
        yield url


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """Open clients of the generated API; they are closed after the test."""
    clients: list[Client] = []

    def open_client(url: str, **headers: str) -> Client:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        clients.append(Client(url, verbose=False, analytics_enabled=False, headers=named or None))
        return clients[-1]

    yield open_client
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(Client.close, clients))


@pytest.fixture(scope="session")
def only_client(app_url: str) -> Iterator[Client]:
    """The client that tests share: opening and closing one takes over a second."""
    client = Client(app_url, verbose=False, analytics_enabled=False)
    yield client
    client.close()


@pytest.fixture
def client(only_client: Client) -> Client:
    """A client of the application, in a session of its own."""
    only_client.reset_session()
    return only_client


@pytest.fixture
def http(app_url: str) -> Iterator[httpx.Client]:
    """Plain HTTP to the application."""
    with httpx.Client(base_url=app_url, timeout=60) as client:
        yield client


@pytest.fixture
def engine() -> Iterator[EngineWatch]:
    """Count the layers that models of this process compute."""
    with EngineWatch() as watch:
        yield watch


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """Run the application on a free loopback port, in a thread."""
    # Named as TCP, or asyncio leaves Nagle's delay on: 40 ms in which Gradio's page loses the next event.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # The first to connect waits for the server then, instead of being refused.
        # Not even errors are logged: in Python 3.11, formatting a traceback while pytest formats one breaks both.
        config = uvicorn.Config(create_app(settings), log_level="critical", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="server")
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive(), "the server did not stop"


@contextlib.contextmanager
def serving_in_child(port: int, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run `python app.py` in a process of its own; it is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=os.environ | {"GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1", "DEVICE": "cpu"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def free_port() -> int:
    """Return a port that nobody listens on now."""
    # Named as TCP, or asyncio leaves Nagle's delay on: 40 ms in which Gradio's page loses the next event.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for_page(url: str, process: subprocess.Popen[str], seconds: float = 60) -> httpx.Response:
    """Return the page as soon as the process serves it; fails when the process ends before."""
    with httpx.Client(transport=httpx.HTTPTransport(retries=0), timeout=seconds) as client:
        while process.poll() is None:
            with contextlib.suppress(httpx.ConnectError):
                return client.get(url)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
    pytest.fail(f"the server ended: {process.communicate()[0]}")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback or host in ("0.0.0.0", "::")
    except ValueError:
        return host in ("localhost", "")
