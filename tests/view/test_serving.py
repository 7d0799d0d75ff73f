"""The server: this machine only, a port that is taken, and nothing but the page and its thumbnails."""

import builtins
import json
import socket
import threading
import urllib.error
import urllib.request

import pytest

from heatproof import cli
from heatproof.errors import InvalidInput, MissingExtra
from heatproof.live.study_images import StudyImages
from heatproof.view import serving
from heatproof.view.study_collection import StudyCollection
from heatproof.view.viewer import Viewer
from heatproof.view.warming import warmed

from .serve import served
from .stores import write_study


@pytest.fixture(scope="module")
def url(study):
    with served(Viewer(StudyCollection(study, StudyImages(study)))) as found:
        yield found


def asked(url: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes, dict]:
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


def test_the_page_and_its_thumbnails(url):
    assert url.startswith("http://127.0.0.1:")
    status, page, headers = asked(url)
    assert status == 200 and b"heatproof view" in page
    assert "default-src 'self'" in headers["content-security-policy"]
    status, small, headers = asked(f"{url}thumb/3")
    assert status == 200 and headers["content-type"] == "image/jpeg" and small[:2] == b"\xff\xd8"
    assert asked(f"{url}thumb/30")[0] == 404 and asked(f"{url}thumb/-1")[0] == 404
    assert asked(f"{url}thumb/..%2f..%2fetc%2fpasswd")[0] in (404, 422)


def test_no_other_file_and_no_other_host(url, study):
    for path in ("/etc/passwd", str(study / "study.json"), "../../pyproject.toml"):
        for route in ("gradio_api/file=", "file=", "gradio_api/file/", "gradio_api//file=", "gradio_api/proxy="):
            status, body, _ = asked(f"{url}{route}{path}")
            assert status in (403, 404) and b"root:" not in body and b"metric_facts" not in body
    assert asked(f"{url}gradio_api/upload", b"x", **{"Content-Type": "multipart/form-data"})[0] == 404
    assert asked(url, Host="evil.example")[0] == 400
    assert asked(f"{url}docs")[0] == 404 and asked(f"{url}openapi.json")[0] == 404


def test_the_first_requests_are_made_beforehand(url):
    assert "hp-over" in warmed(url)  # an answer of the slider, as a browser gets it


def test_nothing_of_another_address_is_in_the_page(url):
    config = json.loads(asked(f"{url}config")[1])
    assert config["analytics_enabled"] is False and not config.get("is_space")
    assert "fonts.googleapis" not in json.dumps(config)
    assert b"fonts.googleapis" not in asked(f"{url}theme.css")[1]


def test_a_port_that_is_taken():
    with socket.socket() as other:
        other.bind((serving.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InvalidInput, match=rf"Port {port} is taken. Try --port \d+, or --port 0"):
            serving.listening(port)
    for port in (-1, 70000):
        with pytest.raises(InvalidInput, match="must lie in 0"):
            serving.listening(port)


def test_without_gradio(study, monkeypatch, capsys):
    real = builtins.__import__

    def without(name, *rest):
        if name.partition(".")[0] == "gradio":
            raise ImportError("no gradio")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r'pip install "heatproof\[view\]"'):
        serving.Server(Viewer(StudyCollection(study)), 0)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["view", str(study), "--no-open", "--port", "0"])
    assert stopped.value.code == 1 and 'pip install "heatproof[view]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["view"], "Name a folder of results, or a network and images"),
        (["view", "--model", "shapes"], "--images must be given with --model"),
        (["view", "nowhere"], "There is no folder nowhere"),
    ],
)
def test_the_command_says_what_is_missing(words, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code in (1, 2) and said in capsys.readouterr().err


def test_the_command_serves_until_it_is_stopped(tmp_path, monkeypatch, capsys):
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")

    class Quick(serving.Server):
        def run(self, ready=lambda url: None):
            threading.Timer(0.5, self.stop).start()
            super().run(ready)

    monkeypatch.setattr(serving, "Server", Quick)
    folder = write_study(tmp_path / "some", [f"{i}.png" for i in range(3)])
    for words in ([], ["--no-open"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["view", str(folder), "--port", "0", *words])
        assert not stopped.value.code
        assert "Viewer: http://127.0.0.1:" in capsys.readouterr().out
    assert len(opened) == 1 and opened[0].startswith("http://127.0.0.1:")
