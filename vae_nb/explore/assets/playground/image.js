// One image: drawn by hand, held out, decoded from a point of the plane, or on the way between two.
let shown = {kind: "test", index: 0},
  strokes = [],
  pen = null,
  walkEnds = null,
  lastReport = null;
const PAD = 280,
  padContext = () => $("pad").getContext("2d");
const strokeInto = (context, width, map) => {
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = context.fillStyle = "#fff";
  context.lineWidth = width;
  for (const points of strokes) {
    context.beginPath();
    points.forEach((p, i) => (i ? context.lineTo(...map(p)) : context.moveTo(...map(p))));
    if (points.length === 1) context.lineTo(map(points[0])[0] + 0.01, map(points[0])[1]);
    context.stroke();
  }
};
const drawing = () => {
  // 784 greys, 0 to 15: as in MNIST, 20 pixels high or wide, the centre of mass in the middle
  const all = strokes.flat(),
    low = k => Math.min(...all.map(p => p[k])),
    high = k => Math.max(...all.map(p => p[k]));
  const scale = 18 / Math.max(high(0) - low(0), high(1) - low(1), 60),
    middle = [0, 1].map(k => (low(k) + high(k)) / 2);
  const canvas = Object.assign(document.createElement("canvas"), {width: 28, height: 28}),
    context = canvas.getContext("2d", {willReadFrequently: true});
  let shift = [0, 0],
    pixels = null;
  for (let turn = 0; turn < 2; turn++) {
    // draw, look where the centre of mass is, and draw again
    context.fillStyle = "#000";
    context.fillRect(0, 0, 28, 28);
    strokeInto(context, 2.4, p => [
      14 + shift[0] + scale * (p[0] - middle[0]),
      14 + shift[1] + scale * (p[1] - middle[1])
    ]);
    pixels = context.getImageData(0, 0, 28, 28).data;
    let mass = 0,
      x = 0,
      y = 0;
    for (let i = 0; i < 784; i++) {
      const v = pixels[4 * i];
      mass += v;
      x += v * ((i % 28) + 0.5);
      y += v * (Math.floor(i / 28) + 0.5);
    }
    if (mass) shift = [14 - x / mass, 14 - y / mass].map(v => Math.max(-4, Math.min(4, v)));
  }
  return Uint8Array.from({length: 784}, (_, i) => Math.round(pixels[4 * i] / 17));
};
const drawPad = () => {
  const context = padContext();
  context.fillStyle = "#000";
  context.fillRect(0, 0, PAD, PAD);
  if (shown.kind === "draw") strokeInto(context, 18, p => p);
  else if (shown.kind === "test") {
    const small = Object.assign(document.createElement("canvas"), {width: 28, height: 28});
    paint(small.getContext("2d"), app.dense(DATA.test, shown.index), v => grey(v / 15));
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, PAD, PAD);
  }
  if (document.activeElement === $("pad") && pen) {
    context.strokeStyle = "#f0a04b";
    context.lineWidth = 3;
    context.beginPath();
    context.arc(...pen.at, 7, 0, 7);
    context.stroke();
  }
};
const greyShown = () =>
  shown.kind === "draw"
    ? strokes.length
      ? drawing()
      : null
    : shown.kind === "test"
      ? app.dense(DATA.test, shown.index)
      : null;
const encodeOne = pixels => {
  // x, q, and the mean ELBO over 16 samples of z
  const random = app.makeRandom(7),
    batch = app.makeBatch(),
    normal = app.makeRandom(5);
  app.fillBatch(batch, app.sparse(pixels), [0], model.likelihood === "bernoulli", random);
  const one = {place: batch.place.slice(0, batch.start[1]), value: batch.value.slice(0, batch.start[1])},
    x = new Float32Array(784);
  one.place.forEach((p, j) => {
    x[p] = one.value[j];
  });
  let logp = 0;
  for (let k = 0; k < 16; k++) {
    for (let i = 0; i < model.latents; i++) model.noise[i] = normal.normal();
    app.forward(model, batch, 1, 0);
    logp += model.logp[0] / 16;
  }
  return {x, q: app.posteriorOf(model, model.q), logp, kl: model.kl[0]};
};
const showImage = () => {
  const pixels = greyShown(),
    blank = new Float32Array(784);
  let words = "";
  view.drawn = null;
  if (pixels) {
    const {x, q, logp, kl} = encodeOne(pixels),
      elbo = logp - kl;
    paint($("seen").getContext("2d"), x, grey);
    view.drawn = q;
    view.z = Float32Array.from(q.mean);
    const who = shown.kind === "draw" ? "Your drawing" : `A held-out ${DATA.testLabels[shown.index]}`;
    words =
      `${who}: ELBO ${say(elbo, 0)} nats = log p(x|z) ${say(logp, 0)} − KL ${say(kl)}. Posterior: ` +
      q.mean
        .map(
          (m, i) =>
            `z${"₁₂₃₄₅₆₇₈"[i]} = ${say(m, 2)} ± ` +
            `${say(Math.hypot(...q.factor.subarray(i * q.mean.length, (i + 1) * q.mean.length)), 2)}`
        )
        .join(", ") +
      ". " +
      novelty(elbo);
  } else {
    paint($("seen").getContext("2d"), blank, grey);
    words =
      shown.kind === "draw"
        ? "Draw with mouse, pen or finger. With the keyboard: arrow keys and space."
        : `Decoded from z = (${Array.from(view.z, v => say(v, 2)).join(", ")}).`;
  }
  const [{mean, sigma}] = app.decodeAt(model, [view.z]),
    top = sigma.reduce((a, b) => Math.max(a, b));
  paint($("mean").getContext("2d"), mean, grey);
  paint($("sigma").getContext("2d"), sigma, v => ramp(v / top));
  $("top").textContent = top.toPrecision(2);
  $("image-text").textContent = `${words} σ runs from ${say(
    sigma.reduce((a, b) => Math.min(a, b)),
    3
  )} to ${say(top, 3)}, its mean is ${say(app.mean(sigma), 3)}.`;
  drawPad();
};
const novelty = elbo => {
  // where the ELBO lies among those of the held-out digits that are taught
  if (!lastReport) return "";
  const known = Array.from(lastReport.logp, (v, i) => v - lastReport.kl[i]).filter(
    (_, i) => !options.without.includes(lastReport.labels[i])
  );
  const below = known.filter(v => v < elbo).length / known.length;
  if (below < 0.01) return "Unlike anything I know: its ELBO is lower than that of 99 in 100 known held-out digits.";
  if (below < 0.05) return `Unusual: of the known held-out digits, ${say(100 * below, 0)} in 100 have a lower ELBO.`;
  return `Like what I know: ${say(100 * below, 0)} in 100 known held-out digits have a lower ELBO.`;
};
const go = (x, y) => {
  view.z = Float32Array.from(view.z);
  view.z[view.across] = x;
  view.z[view.up] = y;
  shown = {kind: "point"};
  showImage();
  drawPlane();
};
const at = event => {
  const {left, top, width, height} = $("pad").getBoundingClientRect();
  return [((event.clientX - left) / width) * PAD, ((event.clientY - top) / height) * PAD];
};
const beginDrawing = () => {
  if (walkEnds) walkEnds.to = null; // a walk ends at the image that is shown when its slider is moved
  if (shown.kind !== "draw") {
    shown = {kind: "draw"};
    strokes = [];
  }
};
$("pad").addEventListener("pointerdown", event => {
  $("pad").setPointerCapture(event.pointerId);
  pen = null;
  beginDrawing();
  strokes.push([at(event)]);
  showImage();
  drawPlane();
});
$("pad").addEventListener("pointermove", event => {
  if (!$("pad").hasPointerCapture(event.pointerId) || !strokes.length) return;
  for (const e of event.getCoalescedEvents?.() ?? [event]) strokes.at(-1).push(at(e));
  later(() => {
    showImage();
    drawPlane();
  });
});
$("pad").addEventListener("keydown", event => {
  if (event.key !== " " && !ARROWS[event.key]) return;
  event.preventDefault();
  beginDrawing();
  pen ??= {at: [140, 60], down: false};
  if (event.key === " ") {
    pen.down = !pen.down;
    if (pen.down) strokes.push([[...pen.at]]);
  } else {
    const [dx, dy] = ARROWS[event.key];
    pen.at = [Math.max(8, Math.min(272, pen.at[0] + 10 * dx)), Math.max(8, Math.min(272, pen.at[1] - 10 * dy))];
    if (pen.down) strokes.at(-1).push([...pen.at]);
  }
  announce(`Pen ${pen.down ? "down" : "up"}`, false);
  showImage();
  drawPlane();
});
for (const kind of ["focus", "blur"])
  $("pad").addEventListener(kind, () => {
    if (model) drawPad();
  });
$("clear").onclick = () => {
  shown = {kind: "draw"};
  strokes = [];
  pen = null;
  view.drawn = null;
  showImage();
  drawPlane();
};
const showTest = index => {
  shown = {kind: "test", index};
  strokes = [];
  if (walkEnds) walkEnds.to = null;
  showImage();
  drawPlane();
};
$("another").onclick = () => showTest(((shown.index ?? 0) + 1) % Math.min(500, DATA.testLabels.length));
$("walk-from").onclick = () => {
  walkEnds = {from: Float32Array.from(view.z)};
  $("walk").value = 0;
  announce("The walk begins here. Choose or draw another image, then move the slider.");
};
$("walk").addEventListener("input", () => {
  if (!walkEnds) walkEnds = {from: Float32Array.from(view.z)};
  if (!walkEnds.to) {
    const same = view.z.every((v, i) => v === walkEnds.from[i]);
    walkEnds.to = same
      ? Float32Array.from(encoded.subarray(model.E, model.E + model.latents))
      : Float32Array.from(view.z);
  }
  const t = $("walk").valueAsNumber / 100;
  view.z = walkEnds.from.map((a, i) => a + t * (walkEnds.to[i] - a));
  view.path = [walkEnds.from, walkEnds.to];
  shown = {kind: "point"};
  showImage();
  drawPlane();
});
$("add").onclick = () => {
  const pixels = greyShown();
  if (!pixels) {
    announce("Draw a digit first.");
    return;
  }
  worker.postMessage({kind: "add", image: pixels, copies: 100});
  announce("Added 100 copies. Train on, and see its ELBO rise.");
};
