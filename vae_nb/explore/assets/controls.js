const host = document.createElement("div"), root = host.attachShadow({mode: "open"});
const make = (tag, to, set = {}, say = {}) => {
  const element = Object.assign(document.createElement(tag), set);
  for (const [name, value] of Object.entries(say)) element.setAttribute(name, value);
  return to.appendChild(element);
};
make("style", root, {textContent: STYLE});
const box = make("div", root, {}, {role: "group", "aria-label": SPEC.title});
const pictures = make("div", box, {className: "pictures"});
const framed = (caption, cls = "") => {
  const figure = make("figure", pictures, {className: cls});
  make("figcaption", figure, {innerHTML: caption});
  return figure;
};
const picture = (caption, what) =>
  make("canvas", framed(caption), {width: W, height: H}, {role: "img", "aria-label": what});
const meanCanvas = picture("mean of <i>p</i>(<i>x</i>|<i>z</i>)", "decoded mean");
const sigmaCanvas = picture("σ of each pixel", "standard deviation");
const bar = make("div", sigmaCanvas.parentNode, {className: "bar"});
const stops = SPEC.viridis.map(c => `rgb(${c})`).join();
const z = new Float32Array(SPEC.latent_dim), presets = SPEC.presets.map(({z}) => read(z));
const show = (moved = null) => {
  const {mean, sigma} = decode(z), top = largest(sigma), at = spread(sigma);
  paint(meanCanvas, pixel(mean));
  const tile = Array(3).fill(255 * 0.9 * Math.min(top / SPEC.top, 1));
  paint(sigmaCanvas, one ? () => tile : i => mapped(at(i) / (top || 1)));
  bar.innerHTML = one ? `σ = ${short(top)}`
    : `0 <i style="background:linear-gradient(90deg,${stops})"></i> ${short(top)}`;
  sigmaCanvas.setAttribute("aria-label", `standard deviation of each pixel, at most ${short(top)}`);
  sliders.forEach(([slider, value], d) => {
    if (slider !== moved) slider.value = z[d];
    value.textContent = z[d].toFixed(2).replace("-", "−");
  });
  buttons.forEach((button, i) => button.setAttribute("aria-pressed",
    presets[i].every((v, d) => Math.abs(v - z[d]) < 1e-6)));
};
const go = to => { z.set(to); show(); };
