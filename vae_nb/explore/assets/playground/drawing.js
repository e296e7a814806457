// Colours and pictures. The ten colours differ in lightness too; every class also has its number on the plane.
const COLOURS = {
  light: ["#332288", "#0077bb", "#2a9d8f", "#117733", "#8a8a1f", "#c8841a", "#cc6677", "#882255", "#aa4499", "#555555"],
  dark: ["#9d8df1", "#66b8ee", "#5fd6c4", "#62c27f", "#d6d66b", "#f2b65a", "#f0929f", "#d9709f", "#df8fd0", "#c4c9cf"]
};
const darkness = matchMedia("(prefers-color-scheme: dark)");
const colours = () => COLOURS[darkness.matches ? "dark" : "light"];
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
// VIRIDIS, the colours of every σ map, is a constant of the page.
const ramp = v => {
  const at = Math.min(Math.max(v, 0), 1) * (VIRIDIS.length - 1),
    i = Math.min(Math.floor(at), VIRIDIS.length - 2);
  return VIRIDIS[i].map((a, c) => a + (at - i) * (VIRIDIS[i + 1][c] - a));
};
const paint = (context, values, colour, left = 0, top = 0) => {
  const image = new ImageData(28, 28);
  for (let i = 0; i < 784; i++) {
    const [r, g, b] = colour(values[i]);
    image.data.set([r, g, b, 255], 4 * i);
  }
  context.putImageData(image, left, top);
};
const grey = v => {
  const byte = 255 * Math.min(Math.max(v, 0), 1);
  return [byte, byte, byte];
};
const sharp = canvas => {
  // as many pixels as the screen has; drawing is in CSS pixels
  const {width, height} = canvas.getBoundingClientRect(),
    ratio = devicePixelRatio || 1;
  const w = Math.max(1, Math.round(width * ratio)),
    h = Math.max(1, Math.round(height * ratio));
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, {width: w, height: h});
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "11px system-ui, sans-serif";
  return {context, width, height};
};
const nice = (low, high, count) => {
  // round numbers between
  const rough = (high - low) / count,
    power = 10 ** Math.floor(Math.log10(rough)),
    step = power * [1, 2, 5, 10].find(s => s * power >= rough);
  const out = [];
  for (let v = Math.ceil(low / step) * step; v <= high + 1e-9; v += step) out.push(Math.abs(v) < step / 1e6 ? 0 : v);
  return out;
};
const shortNumber = v =>
  Math.abs(v) >= 1e6
    ? `${+(v / 1e6).toFixed(1)}M`
    : Math.abs(v) >= 1e3
      ? `${+(v / 1e3).toFixed(1)}k`
      : `${+v.toPrecision(3)}`.replace("-", "−");
const frame = (canvas, xs, ys, xLog = false) => {
  // axes with numbers; returns where a point is drawn
  const {context, width, height} = sharp(canvas),
    left = 42,
    bottom = 20,
    right = 8,
    above = 8;
  const f = xLog ? Math.log10 : v => v,
    [x0, x1] = xs.map(f),
    [y0, y1] = ys.map(f);
  const X = v => left + ((f(v) - x0) / (x1 - x0 || 1)) * (width - left - right),
    Y = v => height - bottom - ((f(v) - y0) / (y1 - y0 || 1)) * (height - bottom - above);
  context.strokeStyle = css("--line");
  context.fillStyle = css("--soft");
  context.lineWidth = 1;
  const ticks = (low, high, n) =>
    xLog ? [0.001, 0.01, 0.1, 1].filter(v => v >= low && v <= high) : nice(low, high, n);
  context.textAlign = "center";
  context.textBaseline = "top";
  for (const v of ticks(...xs, Math.max(2, width / 90)))
    context.fillText(shortNumber(v), Math.min(X(v), width - 14), height - bottom + 5);
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const v of ticks(...ys, 4)) {
    context.fillText(shortNumber(v), left - 5, Y(v));
    context.beginPath();
    context.moveTo(left, Y(v));
    context.lineTo(width - right, Y(v));
    context.stroke();
  }
  return {context, X, Y, width, height};
};
const line = (context, points, colour, width = 2) => {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.lineJoin = "round";
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
  if (points.length === 1) {
    context.fillStyle = colour;
    context.beginPath();
    context.arc(...points[0], 2.5, 0, 7);
    context.fill();
  }
};
const say = (v, digits = 1) => (Number.isFinite(v) ? v.toFixed(digits).replace("-", "−") : "–");
