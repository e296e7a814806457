"""The playground: its gradients and its training agree with PyTorch's, and the page does what it says, in Chromium."""
import base64
import json
import re
import shutil
import subprocess
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from test_explorer import ESLINT, RULES
from torch import nn

import vae_nb as v
from vae_nb.data.built_in import bundled_digits
from vae_nb.explore import playground

FLOOR = 0.03
GLOBALS = ("document,atob,ImageData,matchMedia,getComputedStyle,devicePixelRatio,requestAnimationFrame,performance,location,history,innerWidth,Option,"
           "URLSearchParams,URL,Blob,Worker,Response,DecompressionStream,ResizeObserver,MessageChannel,postMessage,onmessage,addEventListener,"
           "clearTimeout,setTimeout")


def node(script, given, seconds=120):
    "What a script prints that runs behind the trainer, in Node; `given` is on its standard input."
    if not shutil.which("node"): pytest.skip("Node is not installed")
    text = playground.trainer_script() + "const app = makeTrainer();\nconst given = JSON.parse(require('fs').readFileSync(0));" + script
    done = subprocess.run(["node", "-e", text], input=json.dumps(given), capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def arrays(model, of):
    "The trainer's arrays of a model with one hidden layer; `of` gives a parameter's tensor."
    e1, e2, d1, d2 = [m for m in model.modules() if isinstance(m, nn.Linear)]
    V, c = of(d2.weight), of(d2.bias)
    if isinstance(model.decoder.head, v.ImagewiseGaussian):  # the map's 784 rows are one row, their mean
        V, c = torch.cat([V[:784], V[784:].mean(0, keepdim=True)]), torch.cat([c[:784], c[784:].mean(0, keepdim=True)])
    found = dict(W1=of(e1.weight).T, b1=of(e1.bias), W2=of(e2.weight), b2=of(e2.bias), V1=of(d1.weight), c1=of(d1.bias), V2=V, c2=c)
    if isinstance(model.decoder.head, v.HomoscedasticGaussian): found["s"] = of(model.decoder.head.raw_sigma)
    return {name: a.detach().flatten().tolist() for name, a in found.items()}


def make(likelihood, posterior="mean_field", latents=2, activation="relu", hidden=64):
    options = dict(likelihood="bernoulli") if likelihood == "bernoulli" else dict(noise=likelihood, sigma_floor=FLOOR)
    return v.create_vae((1, 28, 28), latents, encoder="mlp", decoder="mlp", hidden=(hidden,), posterior=posterior, activation=activation, **options)


def settings(likelihood, posterior="mean_field", latents=2, activation="relu", hidden=64, **more):
    return dict(likelihood=likelihood, posterior=posterior, latents=latents, hidden=hidden, activation=activation, floor=FLOOR, beta=0, klWeight=1,
                rate=0.001, seed=0) | more


def one_step(likelihood, posterior, beta, activation, latents, hidden, weight, n=13):
    "What the trainer is given, and what PyTorch finds: the gradient of each array, log p(x|z) and KL."
    torch.manual_seed(0)
    model = make(likelihood, posterior, latents, activation, hidden).double()
    x = torch.rand(n, 1, 28, 28) * (torch.rand(n, 1, 28, 28) < 0.3)
    x, noise = (x > 0.3).double() if likelihood == "bernoulli" else x.double(), torch.randn(n, latents)
    q = model.encode(x)
    T = torch.diag_embed(q.base_dist.scale) if posterior == "mean_field" else q.scale_tril
    z = (q.mean + (T @ noise.double()[..., None]).squeeze(-1))[None]
    score = partial(v.beta_nll_score, beta=beta) if beta else None
    terms = v.Terms(x, q, z, model.decoder(z), model.prior(), score)
    (-v.elbo(terms, weight).mean()).backward()
    given = dict(options=settings(likelihood, posterior, latents, activation, hidden, beta=beta), weights=arrays(model, lambda p: p),
                 x=x.flatten(1).tolist(), noise=noise.flatten().tolist(), weight=weight)
    return given, dict(g=arrays(model, lambda p: p.grad), logp=terms.log_px[0].tolist(), kl=terms.kl.tolist())


GRADIENTS = """
console.log(JSON.stringify(given.map(({options, weights, x, noise, weight}) => {
  const model = app.makeModel(options), batch = app.makeBatch();
  for (const name in weights) model.w[name].set(weights[name]);
  let at = 0;
  x.forEach((image, b) => {
    image.forEach((value, i) => { if (value) { batch.place[at] = i; batch.value[at++] = value; } });
    batch.start[b + 1] = at;
  });
  model.noise.set(noise);
  app.gradients(model, batch, x.length, weight);
  const n = x.length;
  return {g: Object.fromEntries(Object.entries(model.g).map(([name, g]) => [name, [...g]])), logp: [...model.logp.slice(0, n)], kl: [...model.kl.slice(0, n)]};
})));"""
BETAS = {"bernoulli": [0], "homoscedastic": [0, 0.5], "imagewise": [0, 0.3, 0.5], "pixelwise": [0, 0.5, 1]}


def test_gradients_are_those_of_the_library():
    cases = [(kind, posterior, beta, *more) for kind, betas in BETAS.items() for beta, posterior in product(betas, ("mean_field", "full_covariance"))
             for more in (("relu", 2, 20 if beta else 64, 1.0), ("silu", 3, 18, 0.3))]
    given, expected = zip(*(one_step(*case) for case in cases))
    worst = 0
    for case, found, right in zip(cases, node(GRADIENTS, given), expected):
        for name in ("logp", "kl"): torch.testing.assert_close(torch.tensor(found[name]), torch.tensor(right[name]), rtol=1e-5, atol=1e-4)
        for name, g in right["g"].items():
            g, of = torch.tensor(g), torch.tensor(found["g"][name])
            worst = max(worst, error := ((of - g).abs().max() / g.abs().max()).item())
            assert error < 1e-4, (case, name, error)
    print(f"{len(cases)} settings, largest difference {worst:.0e}")


TRAIN = """
const bytes = Buffer.from(given.bytes, "base64"), [n, m] = given.counts, half = 392;
const train = app.unpack(bytes, n), test = app.unpack(bytes.subarray(n * half), m), labels = bytes.subarray((n + m) * half);
const training = app.makeTraining(given.options, train, labels.subarray(0, n));
for (const name in given.weights) training.model.w[name].set(given.weights[name]);
const begun = performance.now();
while (training.images < given.epochs * n) app.trainStep(training);
const seconds = (performance.now() - begun) / 1000;
const elbos = [1, 2, 3].map(seed => { const {logp, kl} = app.measure(training.model, test, m, seed); return app.mean(logp) - app.mean(kl); });
console.log(JSON.stringify({elbo: app.mean(elbos), speed: training.images / seconds}));"""


STEPS = """
const model = app.makeModel(given.options), batch = app.makeBatch(), bytes = Buffer.from(given.bytes, "base64"), data = app.unpack(bytes, given.count);
for (const name in given.weights) model.w[name].set(given.weights[name]);
const losses = given.steps.map(({which, noise}) => {
  app.fillBatch(batch, data, which, false, null);
  model.noise.set(noise);
  app.gradients(model, batch, which.length, 1);
  app.adam(model, 0.002);
  return which.reduce((sum, _, b) => sum + model.kl[b] - model.logp[b], 0) / which.length;
});
console.log(JSON.stringify(losses));"""


@pytest.mark.parametrize("likelihood", ["homoscedastic", "imagewise"])
def test_steps_with_the_same_noise_are_those_of_adam(likelihood):
    "Sixty steps of PyTorch's Adam and of the page's, with the same images and noise: the same loss at every step."
    torch.manual_seed(0)
    grey, model = np.rint(bundled_digits()["train_images"][:1000] / 17) / 15, make(likelihood, "full_covariance")
    images, weights, steps, losses = torch.from_numpy(grey).float()[:, None], arrays(model, lambda p: p), [], []
    adam = torch.optim.Adam(model.parameters(), lr=0.002)
    for _ in range(60):
        which, noise = torch.randint(1000, (100,)), torch.randn(100, 2)
        q = model.encode(images[which])
        z = (q.mean + (q.scale_tril @ noise[..., None]).squeeze(-1))[None]
        loss = -v.elbo(v.Terms(images[which], q, z, model.decoder(z), model.prior())).mean()
        adam.zero_grad(); loss.backward(); adam.step()
        steps.append(dict(which=which.tolist(), noise=noise.flatten().tolist())); losses.append(loss.item())
    found = node(STEPS, dict(options=settings(likelihood, "full_covariance"), weights=weights, steps=steps, count=1000,
                             bytes=base64.b64encode(playground.digits_of(1000, 0)).decode()))
    worst = max(abs(a - b) for a, b in zip(found, losses))
    print(f"{likelihood}: loss {losses[0]:.1f} to {losses[-1]:.1f} nats, largest difference {worst:.1e}")
    assert worst < 0.05 and losses[-1] < losses[0] - 100


def both_train(likelihood, seed, epochs, counts=(6000, 1000)):
    "The test ELBO after training from the same weights, of `fit` and of the page's trainer."
    digits = bundled_digits()
    train, test = (torch.from_numpy((np.rint(digits[f"{s}_images"][:n] / 17) * 17).astype(np.uint8))[:, None] for s, n in zip(("train", "test"), counts))
    data = v.load_data(train, valid=0, test=test, binarize="dynamic" if likelihood == "bernoulli" else None, progress=False)
    torch.manual_seed(seed)
    model = make(likelihood)
    start = arrays(model, lambda p: p)
    v.fit(model, data, epochs=epochs, batch_size=128, lr=0.001, schedule="constant", seed=seed, progress=False)
    found = node(TRAIN, dict(bytes=base64.b64encode(playground.digits_of(*counts)).decode(), counts=counts, weights=start, epochs=epochs,
                             options=settings(likelihood, seed=seed)))
    ours = v.evaluate(model, data)["elbo"]
    print(f"{likelihood}, seed {seed}: fit {ours:.1f}, page {found['elbo']:.1f} nats; {found['speed']:.0f} images/s")
    return ours, found["elbo"]


def test_training_reaches_the_elbo_of_fit():
    "The same weights at the start, images and noise in another order; three seeds are in the slow test below."
    ours, page = both_train("bernoulli", 1, 10, (3000, 1000))
    assert abs(ours - page) < 2


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["bernoulli", "homoscedastic"])
def test_training_reaches_the_elbo_of_fit_over_seeds(likelihood):
    "Three seeds: their means differ by less than 2 nats, or than three standard errors where the order of the images matters more."
    found = torch.tensor([both_train(likelihood, seed, 10) for seed in range(3)])
    ours, page = found.mean(0).tolist()
    error = (found.var(0).sum() / 3).sqrt().item()
    print(f"{likelihood}: {ours:.1f} and {page:.1f} nats, standard error of the difference {error:.1f}")
    assert abs(ours - page) < (2 if likelihood == "bernoulli" else max(2, 3 * error)), found


@pytest.mark.slow
def test_experiments_come_as_the_lessons_say():
    found = node("""
const bytes = Buffer.from(given.bytes, "base64"), [n, m] = given.counts, half = 392, labels = bytes.subarray((n + m) * half);
const train = app.unpack(bytes, n), test = app.unpack(bytes.subarray(n * half), m);
(async () => {
  const out = [];
  for (const {name, run} of app.EXPERIMENTS) {
    let training = null;
    const {happened, says} = await run({
      start: options => { training = app.makeTraining(options, train, labels.subarray(0, n)); },
      set: more => { Object.assign(training.options, more); Object.assign(training.model, more); },
      train: images => {
        const end = training.images + images;
        while (training.images < end) app.trainStep(training);
        const report = app.fullReport(training.model, test, labels.subarray(n));
        return {...report, logp: [...report.logp], kl: [...report.kl]};
      },
      show: () => {}});
    out.push([name, happened, says]);
  }
  console.log(JSON.stringify(out));
})();""", dict(bytes=base64.b64encode(playground.digits_of(6000, 1000)).decode(), counts=[6000, 1000]), seconds=600)
    for line in found: print(*line)
    assert [happened for _, happened, _ in found] == [1, 1, 0, 1, 1, 0]


@pytest.mark.slow
def test_a_one_is_not_noticed():
    "The notebook's limit: taught without 1, the model gives ones a higher ELBO than the digits that it knows."
    one, others = node("""
const bytes = Buffer.from(given.bytes, "base64"), [n, m] = given.counts, half = 392, labels = bytes.subarray((n + m) * half);
const train = app.unpack(bytes, n), test = app.unpack(bytes.subarray(n * half), m);
const training = app.makeTraining({...app.PLAIN, without: [1]}, train, labels.subarray(0, n));
while (training.images < 60000) app.trainStep(training);
const {logp, kl} = app.measure(training.model, test, m), elbo = [...logp].map((v, i) => v - kl[i]);
console.log(JSON.stringify([true, false].map(one => app.quantile(elbo.filter((_, i) => (labels[n + i] === 1) === one), 0.5))));
""", dict(bytes=base64.b64encode(playground.digits_of(6000, 1000)).decode(), counts=[6000, 1000]))
    print(f"median ELBO of ones {one:.0f}, of the others {others:.0f} nats")
    assert one > others + 30


def test_each_script_parses_and_the_whole_passes_eslint(root, tmp_path):
    if not shutil.which("npx"): pytest.skip("npx, which fetches ESLint, is not installed")
    scripts = sorted((root / "vae_nb" / "explore" / "assets" / "playground").glob("*.js"))
    assert {s.stem for s in scripts} == {*playground._TRAINER, *playground._PAGE}
    (tmp_path / "page.js").write_text(playground.page_script(128, 100, ""))
    words = ["npx", "--yes", ESLINT, "--no-config-lookup", "--no-inline-config", "--parser-options", "sourceType:script", "--global", GLOBALS,
             "--rule", json.dumps(dict.fromkeys(RULES, "error")), "page.js"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    if "npm error" in done.stderr: pytest.skip(f"ESLint can't be fetched: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "playground.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(playground, "plane_picture", lambda train: b"picture")
        written = v.export_playground(path, train=1024, test=200, site="..")
    assert written["bytes"] == path.stat().st_size
    return path.as_uri()


class Tab:
    "A page that is open; what went wrong in it is an error at the end."
    def __init__(self, chromium, address, **context):
        self.context = chromium.new_context(**context)
        self.tab, self.faults, self.asked = self.context.new_page(), [], []
        self.tab.on("pageerror", lambda error: self.faults.append(str(error)))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(address)

    def __enter__(self):
        self.tab.wait_for_function("document.getElementById('elbo').textContent !== '–'", timeout=20000)
        return self.tab

    def __exit__(self, *error):
        self.context.close()
        assert not self.faults
        assert all(url.startswith(("file:", "blob:")) for url in self.asked), self.asked


def number(tab, name): return float(re.sub("[^0-9.-]", "", tab.inner_text(f"#{name}").replace("−", "-")))


def test_trains_pauses_steps_and_starts_again(chromium, page):
    with Tab(chromium, page) as tab:
        before = number(tab, "elbo")
        tab.click("#step")
        tab.wait_for_function("document.getElementById('images').textContent === '128'")
        tab.click("#play")
        tab.wait_for_function("Number(document.getElementById('images').textContent.replace(',', '')) > 4000", timeout=20000)
        longest = tab.evaluate("""() => new Promise(done => { let last = performance.now(), worst = 0, n = 0;
            const next = () => { const now = performance.now(); worst = Math.max(worst, now - last); last = now; ++n < 40 ? requestAnimationFrame(next) : done(worst); };
            requestAnimationFrame(next); })""")
        assert longest < 1000  # the page answers while it trains
        tab.click("#play")
        tab.wait_for_function(f"parseFloat(document.getElementById('elbo').textContent.replace('−', '-')) > {before} + 100")
        assert "Paused" in tab.inner_text("#status")
        for words in ("ELBO", "reconstruction", "KL"): assert words in tab.inner_text("#curves-text")
        tab.click("#reset")
        tab.wait_for_function("document.getElementById('images').textContent === '0'")


def test_a_link_restores_settings_and_only_those_on_offer(chromium, page):
    link = "#likelihood=pixelwise&posterior=full_covariance&latents=3&hidden=32&beta=0.5&klWeight=0.1&without=3.7&seed=5"
    with Tab(chromium, page + link) as tab:
        form = tab.evaluate("() => Object.fromEntries(['likelihood', 'posterior', 'latents', 'hidden', 'seed'].map(n => [n, form_(n)]));"
                            .replace("form_(n)", "document.getElementById('form')[n].value"))
        assert form == dict(likelihood="pixelwise", posterior="full_covariance", latents="3", hidden="32", seed="5")
        assert tab.locator("input[name=without]:checked").count() == 2 and "correlation" in tab.inner_text("#plane-text")
        assert set(tab.evaluate("location.hash")[1:].split("&")) == set(link[1:].split("&"))
        tab.select_option("select[name=likelihood]", "bernoulli")
        tab.wait_for_function("!location.hash.includes('likelihood')")
        assert tab.is_disabled("input[name=beta]")
    with Tab(chromium, page + "#likelihood=%3Cb%3E&hidden=1e9&latents=99&klWeight=-1&seed=x&without=0.1.2.3.4.5.6.7.8.9") as tab:
        assert tab.evaluate("location.hash") == "#without=0.1.2.3.4.5.6.7.8"


def test_hands(chromium, page):
    with Tab(chromium, page) as tab:
        pad = tab.locator("#pad").bounding_box()
        tab.locator("#pad").scroll_into_view_if_needed()
        pad = tab.locator("#pad").bounding_box()
        tab.mouse.move(pad["x"] + 80, pad["y"] + 40)
        tab.mouse.down()
        tab.mouse.move(pad["x"] + 80, pad["y"] + 120, steps=8)
        tab.mouse.up()
        tab.wait_for_function("document.getElementById('image-text').textContent.startsWith('Your drawing: ELBO')")
        assert re.search("known held-out digits", tab.inner_text("#image-text"))
        ink = "n => { const c = document.getElementById(n), d = c.getContext('2d').getImageData(0, 0, 28, 28).data; return [...d].filter((_, i) => i % 4 === 0 && d[i] > 100).length; }"
        assert 20 < tab.evaluate(ink, "seen") < 120  # a stroke, 20 pixels high
        tab.click("#add")
        assert "Added" in tab.inner_text("#status")
        tab.click("#plane", position={"x": 30, "y": 30})
        tab.wait_for_function("document.getElementById('image-text').textContent.startsWith('Decoded from z')")
        before = tab.inner_text("#image-text")
        tab.press("#plane", "ArrowRight")
        assert tab.inner_text("#image-text") != before
        tab.click("#clear")
        for key in ["ArrowDown", " ", *["ArrowDown"] * 8, " "]: tab.press("#pad", key)
        assert "Your drawing" in tab.inner_text("#image-text")
        tab.click("#another")
        assert "A held-out" in tab.inner_text("#image-text")
        tab.click("#walk-from"); tab.click("#another"); tab.fill("#walk", "50")
        assert "Decoded from z" in tab.inner_text("#image-text")


def test_an_experiment_asks_first_and_can_be_stopped(chromium, page):
    with Tab(chromium, page) as tab:
        card = tab.locator(".experiment").nth(3)
        assert card.locator("button").is_disabled()  # no prediction yet
        card.locator("input").nth(1).check()
        card.locator("button").click()
        tab.wait_for_function("location.hash.includes('klWeight=0')")
        tab.click("#play")
        card.get_by_text("Stopped.").wait_for(timeout=5000)


@pytest.mark.slow
def test_an_experiment_says_what_came(chromium, page):
    with Tab(chromium, page) as tab:
        card = tab.locator(".experiment").nth(3)
        card.locator("input").nth(1).check()
        card.locator("button").click()
        card.locator(".verdict").wait_for(timeout=120000)
        assert card.locator("a").get_attribute("href") == "../tutorials/02_elbo.html"


@pytest.mark.parametrize("width, scheme", [(390, "light"), (390, "dark"), (1280, "dark"), (1920, "light")])
def test_page_is_accessible_and_fits(chromium, page, width, scheme, artefacts):
    from axe_playwright_python.sync_playwright import Axe
    with Tab(chromium, page, viewport={"width": width, "height": 900}, color_scheme=scheme) as tab:
        if width == 390: tab.click("summary")
        found = Axe().run(tab).response["violations"]
        assert not [f for f in found if f["impact"] in ("serious", "critical")], [(f["id"], f["nodes"][0]["html"]) for f in found]
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        tab.screenshot(path=artefacts / f"playground_{width}_{scheme}.png", full_page=True)


def test_without_javascript(chromium, page):
    context = chromium.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(page)
    assert tab.locator("noscript img").is_visible() and not tab.locator("main").is_visible()
    assert "With JavaScript" in tab.inner_text("noscript")
    context.close()
