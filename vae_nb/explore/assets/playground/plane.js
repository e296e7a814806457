// The latent plane: dots, ellipses of q at two standard deviations, and the point that is decoded; and the sheet of
// decoded images.
const view = {across: 0, up: 1, reach: 4, z: new Float32Array(2), path: null, drawn: null};
let model = null,
  encoded = null; // the page's copy of the model; q's raw numbers of the first held-out images
const ellipseOf = ({mean, factor: F}) => {
  // of the two latents that are shown: mean, and the Cholesky factor of their covariance
  const L = mean.length,
    dot = (a, b) => {
      let s = 0;
      for (let k = 0; k < L; k++) s += F[a * L + k] * F[b * L + k];
      return s;
    };
  const {across: i, up: j} = view,
    a = Math.sqrt(dot(i, i)),
    b = dot(i, j) / a;
  return {x: mean[i], y: mean[j], a, b, c: Math.sqrt(Math.max(dot(j, j) - b * b, 1e-12))};
};
const drawEllipse = (context, P, {x, y, a, b, c}, colour, width) => {
  const points = Array.from({length: 33}, (_, k) => {
    const s = 2 * Math.cos((k * Math.PI) / 16),
      t = 2 * Math.sin((k * Math.PI) / 16);
    return P(x + a * s, y + b * s + c * t);
  });
  line(context, points, colour, width);
};
const drawPlane = () => {
  const canvas = $("plane"),
    {context, width, height} = sharp(canvas),
    {reach, across, up} = view,
    L = model.latents,
    E = model.E;
  const P = (x, y) => [(width * (x + reach)) / (2 * reach), (height * (reach - y)) / (2 * reach)],
    hue = colours();
  context.strokeStyle = css("--line");
  context.fillStyle = css("--soft");
  context.textBaseline = "bottom";
  context.textAlign = "center";
  for (const v of nice(-reach, reach, 6)) {
    const [x, y] = P(v, v);
    context.beginPath();
    context.moveTo(x, 0);
    context.lineTo(x, height);
    context.moveTo(0, y);
    context.lineTo(width, y);
    context.stroke();
    if (Math.abs(v) < 0.97 * reach) {
      context.fillText(shortNumber(v), x, height - 2);
      if (v) {
        context.textAlign = "left";
        context.fillText(shortNumber(v), 3, y - 1);
        context.textAlign = "center";
      }
    }
  }
  context.setLineDash([4, 4]); // the prior at two standard deviations
  drawEllipse(context, P, {x: 0, y: 0, a: 1, b: 0, c: 1}, css("--soft"), 1);
  context.setLineDash([]);
  const places = digits.map(() => []);
  for (let b = 0; b < encoded.length / E; b++) {
    const [x, y] = P(encoded[b * E + across], encoded[b * E + up]),
      d = DATA.testLabels[b];
    places[d].push([x, y]);
    context.fillStyle = hue[d];
    context.beginPath();
    context.arc(x, y, 2.4, 0, 7);
    context.fill();
  }
  for (let b = 0; b < 40; b++)
    drawEllipse(context, P, ellipseOf(app.posteriorOf(model, encoded, b * E)), hue[DATA.testLabels[b]], 1);
  context.font = "bold 15px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.lineWidth = 4;
  context.strokeStyle = css("--panel");
  places.forEach((points, d) => {
    // each class's number, at the median of its dots
    if (!points.length) return;
    const middle = k => points.map(p => p[k]).sort((a, b) => a - b)[points.length >> 1];
    context.strokeText(d, middle(0), middle(1));
    context.fillStyle = hue[d];
    context.fillText(d, middle(0), middle(1));
  });
  if (view.path)
    line(
      context,
      view.path.map(z => P(z[across], z[up])),
      css("--ink"),
      1.5
    );
  if (view.drawn) drawEllipse(context, P, ellipseOf(view.drawn), css("--ink"), 3);
  const [x, y] = P(view.z[across], view.z[up]);
  context.strokeStyle = css("--panel");
  context.lineWidth = 5;
  cross(context, x, y);
  context.strokeStyle = css("--ink");
  context.lineWidth = 2;
  cross(context, x, y);
  const ellipses = Array.from({length: encoded.length / E}, (_, b) =>
    ellipseOf(app.posteriorOf(model, encoded, b * E))
  );
  const average = f => app.mean(ellipses.map(f)),
    tilt = average(({b, c}) => Math.abs(b) / Math.hypot(b, c));
  $("plane-text").textContent =
    `${ellipses.length} held-out digits; ellipses of q(z|x) at two σ for 40 of them; dashed: the prior. The mean ` +
    `σ is ${say(
      average(e => e.a),
      2
    )} across and ` +
    `${say(
      average(e => Math.hypot(e.b, e.c)),
      2
    )} up${model.posterior === "full_covariance" ? `, the mean size of the correlation ${say(tilt, 2)}` : ""}. ` +
    `The cross is at (${say(view.z[across], 2)}, ${say(view.z[up], 2)}).`;
  return L;
};
const cross = (context, x, y) => {
  context.beginPath();
  context.moveTo(x - 9, y);
  context.lineTo(x + 9, y);
  context.moveTo(x, y - 9);
  context.lineTo(x, y + 9);
  context.stroke();
};
const SHEET = 15;
const drawSheet = () => {
  const canvas = $("sheet"),
    side = 28 * SHEET,
    {reach, across, up} = view;
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  for (let row = 0; row < SHEET; row++) {
    const zs = Array.from({length: SHEET}, (_, column) => {
      const z = Float32Array.from(view.z);
      z[across] = reach * ((2 * (column + 0.5)) / SHEET - 1);
      z[up] = reach * (1 - (2 * (row + 0.5)) / SHEET);
      return z;
    });
    app.decodeAt(model, zs).forEach(({mean}, column) => paint(context, mean, grey, 28 * column, 28 * row));
  }
  const others = model.latents > 2 ? " The other latents are those of the cross." : "";
  $("sheet-text").textContent =
    `The mean of p(x|z) at ${SHEET} × ${SHEET} points, from −${say(reach, 0)} to ${say(reach, 0)} both ` +
    `ways.${others} Click into either plane to decode a point.`;
};
const encodeHeldOut = () => {
  // q's raw numbers of 500 digits, and the reach of the plane
  const count = Math.min(500, DATA.testLabels.length),
    E = model.E,
    random = app.makeRandom(7),
    batch = app.makeBatch();
  encoded = new Float32Array(count * E);
  for (let from = 0; from < count; from += 128) {
    const n = Math.min(128, count - from);
    app.fillBatch(
      batch,
      DATA.test,
      Array.from({length: n}, (_, i) => from + i),
      model.likelihood === "bernoulli",
      random
    );
    app.encode(model, batch, n);
    encoded.set(model.q.subarray(0, n * E), from * E);
  }
  const far = [];
  for (let b = 0; b < count; b++) far.push(Math.abs(encoded[b * E + view.across]), Math.abs(encoded[b * E + view.up]));
  const wanted = Math.max(3.6, app.quantile(far, 0.98) * 1.15);
  view.reach = [4, 6, 8, 10, 15, 20, 30, 50, 100, 200, 500].find(r => r >= wanted) ?? 1000;
};
const legend = () => {
  $("legend").innerHTML = digits.map(d => `<span><i style="background:${colours()[d]}"></i>${d}</span>`).join("");
};
const choosePlane = () => {
  const many = options.latents > 2;
  document.querySelector(".axes").hidden = !many;
  for (const [id, at] of [
    ["across", view.across],
    ["up", view.up]
  ]) {
    $(id).replaceChildren(...Array.from({length: options.latents}, (_, i) => new Option(`z${"₁₂₃₄₅₆₇₈"[i]}`, i)));
    $(id).value = at;
  }
};
for (const id of ["plane", "sheet"]) {
  const canvas = $(id),
    to = event => {
      const {left, top, width, height} = canvas.getBoundingClientRect();
      go(
        ((2 * (event.clientX - left)) / width - 1) * view.reach,
        (1 - (2 * (event.clientY - top)) / height) * view.reach
      );
    };
  canvas.addEventListener("pointerdown", event => {
    canvas.setPointerCapture(event.pointerId);
    to(event);
  });
  canvas.addEventListener("pointermove", event => {
    if (canvas.hasPointerCapture(event.pointerId)) to(event);
  });
}
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]};
$("plane").addEventListener("keydown", event => {
  if (!ARROWS[event.key]) return;
  event.preventDefault();
  const step = view.reach / (event.shiftKey ? 5 : 40),
    [dx, dy] = ARROWS[event.key],
    clip = v => Math.max(-view.reach, Math.min(view.reach, v));
  go(clip(view.z[view.across] + step * dx), clip(view.z[view.up] + step * dy));
});
for (const id of ["across", "up"])
  $(id).addEventListener("change", () => {
    const other = id === "up" ? "across" : "up",
      value = Number($(id).value);
    if (view[other] === value) view[other] = view[id];
    view[id] = value;
    choosePlane();
    redraw();
  });
