"""The widgets as their users meet them: in JupyterLab, Notebook and Voilà, by mouse and keyboard, in a browser."""
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
from PIL import Image

from vae_nb.cli import explore_notebook, main

pytestmark = pytest.mark.timeout(900)
TOKEN = "a-token-of-the-test"
WAIT = 240_000  # milliseconds: how long the slowest of machines may take for one step
SETTINGS = {"notebook-extension/tracker": {"windowingMode": "none"},  # else cells out of sight are no part of the page
            "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "A trained run."
    out = tmp_path_factory.mktemp("run") / "digits"
    main(shlex.split(f"train --encoder mlp --decoder mlp --hidden 32 --latent-dim 4 --sigma-floor 0.05 --batch-size 50 "
                     f"--epochs 2 --no-progress --limit 300 --out {out}"))
    return out


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def serving(words, port, folder):
    "A server in a process of its own; it must end by itself when it is told to."
    env = os.environ | {f"JUPYTER_{name}_DIR": str(folder / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    env |= dict(JUPYTERLAB_SETTINGS_DIR=str(folder / "settings"), OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    with open(folder / "server.log", "w+") as log:
        process = subprocess.Popen([sys.executable, *map(str, words)], cwd=folder, env=env, stdin=subprocess.DEVNULL,
                                   stdout=log, stderr=log, start_new_session=True)
        try:
            end = time.monotonic() + WAIT / 1000
            while True:
                try: socket.create_connection(("127.0.0.1", port)).close(); break
                except OSError:
                    assert process.poll() is None and time.monotonic() < end, (folder / "server.log").read_text()
                    time.sleep(0.2)
            yield process
        finally:
            if process.poll() is None: process.send_signal(signal.SIGINT if "explore" in words else signal.SIGTERM)
            try: process.wait(30)
            except subprocess.TimeoutExpired: os.killpg(process.pid, signal.SIGKILL); process.wait()


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory, root, run):
    "The address of a JupyterLab (and Notebook) whose folder has the lesson on exploring, and a short notebook."
    folder = tmp_path_factory.mktemp("jupyter")
    for name, values in SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    (folder / "lesson.ipynb").write_bytes((root / "nbs/tutorials/10_explore.ipynb").read_bytes())
    (folder / "short.ipynb").write_text(explore_notebook(run, {}))
    port = free_port()
    words = ["-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", f"--IdentityProvider.token={TOKEN}",
             "--LabApp.extension_manager=readonly", "--ServerApp.terminals_enabled=False", "--ServerApp.port_retries=0"]
    with serving(words, port, folder): yield f"http://127.0.0.1:{port}"


# Of Notebook and Voilà themselves: they miss parts of JupyterLab that they have left out, as extensions of it do.
NOT_OURS = ("reading 'schema'", "'filebrowser:open-path' not registered", "403 (Forbidden)",
            "shared module is not a function")


@contextmanager
def opened(chromium, address):
    "A page that remembers its errors, and must have none in the end; what other hosts don't give is not ours."
    context = chromium.new_context(viewport=dict(width=1280, height=900))
    context.set_default_timeout(WAIT)
    page, errors = context.new_page(), []
    def note(message):
        elsewhere = message.text.startswith("Failed to load") and not message.location["url"].startswith(address)
        if message.type == "error" and not elsewhere: errors.append(f"{message.text} {message.location['url']}")
    page.on("console", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    try: yield page
    finally: context.close()
    errors = [error for error in errors if not any(known in error for known in NOT_OURS)]
    assert not errors, errors


def run_all(page, widgets):
    "Run all cells; wait until so many widgets are there and the kernel is idle; no cell may have failed."
    page.add_locator_handler(page.locator(".jp-Dialog"),  # "Select Kernel", where the server was slow to name one
                             lambda: page.locator(".jp-Dialog .jp-mod-accept").click())
    prompts = "[...document.querySelectorAll('.jp-InputArea-prompt')].map(e => e.innerText).join(' ')"
    end = time.monotonic() + WAIT / 1000
    while not any(c.isdigit() for c in page.evaluate(prompts)):  # what is run before the kernel listens is forgotten
        assert time.monotonic() < end, "the kernel does not answer"
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        page.wait_for_timeout(1000)
        page.wait_for_function(f"/\\d/.test({prompts}) || !{prompts}.includes('*')")
    page.wait_for_function("n => document.querySelectorAll('.vae-nb .noUi-handle').length && "
                           "document.querySelectorAll('.vae-nb').length == n", arg=widgets)
    page.wait_for_function(f"!{prompts}.includes('*')")
    failed = page.locator("[data-mime-type*='error'], [data-mime-type*='stderr']")
    assert failed.count() == 0, failed.all_inner_texts()


def pixels(image):
    "The PNG behind an image widget, and its pixels."
    code = "async e => { const b = await (await fetch(e.src)).arrayBuffer(); return Array.from(new Uint8Array(b)) }"
    with Image.open(io.BytesIO(bytes(image.evaluate(code)))) as png: return png.size, png.tobytes()


def changed(page, image, act):
    "Do something, wait for new pixels, and return them."
    before, source = pixels(image), image.get_attribute("src")
    act()
    page.wait_for_function("([e, old]) => e.src != old && e.complete", arg=[image.element_handle(), source])
    after = pixels(image)
    assert after[0] == before[0] and after[1] != before[1]
    return after[1]


def picture(widget, title): return widget.locator(f"img[title='{title}']")


def use_latent_explorer(page, widget):
    "Keyboard, mouse, numbers, buttons."
    mean, sigma = picture(widget, "mean of p(x|z)"), picture(widget, "σ, pixel units")
    handle = widget.locator(".noUi-handle").first
    start = float(handle.get_attribute("aria-valuenow"))
    handle.focus()
    changed(page, sigma, lambda: [handle.press("PageUp") for _ in range(3)])  # its value is told to one decimal
    assert float(handle.get_attribute("aria-valuenow")) > start
    box = handle.bounding_box()
    def drag():
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y); page.mouse.down(); page.mouse.move(x - 60, y, steps=3); page.mouse.up()
    changed(page, mean, drag)
    assert float(handle.get_attribute("aria-valuenow")) < start
    first = pixels(picture(widget, "x, encoded"))[1]
    field = widget.get_by_label("Image number")
    def lookup(): field.fill("7"); field.press("Enter")
    assert changed(page, picture(widget, "x, encoded"), lookup) != first
    for name in ("Random: prior", "Random: fitted", "Reset"):
        changed(page, mean, widget.get_by_role("button", name=name).click)


def measure_latency(page, widget, presses=25):
    "Milliseconds from a key press to the new image, decoded by the browser."
    return sorted(widget.evaluate("""async (root, presses) => {
        const handle = root.querySelector('.noUi-handle'), image = root.querySelector("img[title^='mean']"), took = [];
        handle.focus();
        for (let i = 0; i < presses; i++) {
            const start = performance.now();
            const arrived = new Promise(done => new MutationObserver((_, o) => { o.disconnect(); done(); })
                .observe(image, {attributes: true, attributeFilter: ['src']}));
            handle.dispatchEvent(new KeyboardEvent('keydown',
                                                   {key: i % 2 ? 'ArrowLeft' : 'ArrowRight', bubbles: true}));
            await arrived; await image.decode();
            took.push(performance.now() - start);
            await new Promise(rest => setTimeout(rest, 50));
        }
        return took; }""", presses))


def photograph(page, artefacts, name):
    "Each widget in a wide and in a narrow window; nothing may stick out."
    for width in (1280, 800):
        page.set_viewport_size(dict(width=width, height=900))
        page.wait_for_function("[...document.querySelectorAll('.vae-nb')]"
                               ".every(e => e.scrollWidth <= e.clientWidth + 1)")
        for i, widget in enumerate(page.locator(".vae-nb").all()):
            widget.screenshot(path=artefacts / f"{name}-{i + 1}-{width}.png")
    page.set_viewport_size(dict(width=1280, height=900))


def test_lesson_in_jupyterlab(jupyter, chromium, artefacts, tmp_path):
    with opened(chromium, jupyter) as page: use_lesson(page, jupyter, artefacts, tmp_path)


def use_lesson(page, jupyter, artefacts, tmp_path):
    page.goto(f"{jupyter}/lab/tree/lesson.ipynb?token={TOKEN}")
    page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()
    run_all(page, widgets=5)
    monitor, explorer, again, walk, film = page.locator(".vae-nb").all()
    assert "epoch 8" in monitor.locator("[role='status']").inner_text()
    use_latent_explorer(page, explorer)

    Image.new("L", (40, 60), 90).save(tmp_path / "grey.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    def upload(name):
        with page.expect_file_chooser() as chooser: explorer.get_by_role("button", name="Upload").click()
        chooser.value.set_files(tmp_path / name)
    changed(page, picture(explorer, "x, encoded"), lambda: upload("grey.png"))
    upload("broken.png")
    explorer.locator("[role='alert']", has_text="broken.png can't be read").wait_for()

    mean = picture(walk, "mean of p(x|z)")
    changed(page, mean, walk.locator("button[title='row 1, column 7']").click)
    across, down = walk.locator(".noUi-handle").all()
    assert [float(handle.get_attribute("aria-valuenow")) for handle in (across, down)] == [1, 0]
    changed(page, mean, lambda: down.press("PageUp"))

    mean = picture(film, "mean of p(x|z)")
    frames, (play, *_) = film.locator(".noUi-handle"), film.locator(".widget-play button").all()
    changed(page, mean, play.click)
    page.wait_for_function("e => Number(e.getAttribute('aria-valuenow')) > 3", arg=frames.element_handle())
    play.click()

    took = measure_latency(page, explorer)
    numbers = dict(fastest=took[0], median=took[len(took) // 2], slowest=took[-1])
    numbers |= dict(load=os.getloadavg()[0], cores=os.cpu_count())
    (artefacts / "latency.json").write_text(json.dumps(numbers, indent=2))
    assert took[0] < 500, numbers  # of a machine that may be busy with other tests
    photograph(page, artefacts, "jupyterlab")


def test_notebook_7(jupyter, chromium, artefacts):
    if find_spec("notebook") is None: pytest.skip("the package notebook is not installed")
    with opened(chromium, jupyter) as page:
        page.goto(f"{jupyter}/notebooks/short.ipynb?token={TOKEN}")
        page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()
        run_all(page, widgets=3)
        widget = page.locator(".vae-nb").first
        handle = widget.locator(".noUi-handle").first
        changed(page, picture(widget, "mean of p(x|z)"), lambda: handle.press("PageUp"))
        photograph(page, artefacts, "notebook")


def address_with_token(folder, port):
    "What `explore` has printed."
    end = time.monotonic() + WAIT / 1000
    while not (found := re.search(rf"http://\S+:{port}/\?token=(\w{{16,}})", (folder / "server.log").read_text())):
        assert time.monotonic() < end, (folder / "server.log").read_text()
        time.sleep(0.1)
    return f"http://127.0.0.1:{port}/?token={found[1]}"


def answer(address, **headers):
    "Status and text that the server gives, after redirections."
    try:
        with urlopen(Request(address, headers=headers), timeout=WAIT / 1000) as reply: return reply.status, reply.read().decode()
    except HTTPError as error: return error.code, ""


def test_a_page_of_ones_own(run, tmp_path):
    "Without the token of the printed address, or under the name of another host, nothing of a run is shown."
    if find_spec("voila") is None: pytest.skip("the package voila is not installed")
    Image.new("L", (4, 4)).save(tmp_path / "private.png")
    port = free_port()
    with serving(["-m", "vae_nb.cli", "explore", run, "--no-browser", "--port", port], port, tmp_path):
        address = address_with_token(tmp_path, port)
        with_token = answer(address)
        assert with_token[0] == 200 and "<title>Login" not in with_token[1]
        base = f"http://127.0.0.1:{port}"
        for wrong in ("/", "/?token=wrong", f"/api/kernels/{uuid4()}", "/voila/files/private.png"):
            status, text = answer(base + wrong)
            assert status in (401, 403) or "password_input" in text and "vae-nb" not in text, wrong
        assert answer(address, Host="evil.example")[0] == 403
        assert answer(address, Host=f"localhost:{port}")[0] == 200


def test_voila(run, chromium, artefacts, tmp_path, monkeypatch):
    if find_spec("voila") is None: pytest.skip("the package voila is not installed")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    port = free_port()
    with serving(["-m", "vae_nb.cli", "explore", run, "--no-browser", "--port", port], port, tmp_path) as process:
        with opened(chromium, f"http://127.0.0.1:{port}") as page:
            page.goto(address_with_token(tmp_path, port))
            page.wait_for_function("document.querySelectorAll('.vae-nb .noUi-handle').length > 4")
            use_latent_explorer(page, page.locator(".vae-nb").first)
            photograph(page, artefacts, "voila")
    log = (tmp_path / "server.log").read_text()
    assert process.returncode == 0 and "Traceback" not in log, log
    assert not list((tmp_path / "temporary").glob("vae_nb-*"))  # its notebook is gone


def test_stored_outputs_hold_no_widgets(root):
    "A widget needs a kernel; on a page it would be a dead frame."
    for path in sorted((root / "nbs").rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts: continue
        text = path.read_text(encoding="utf-8")
        assert "widget-view+json" not in text and "widget-state+json" not in text, f"{path.name}: run it with exec_nb"
