const row = make("div", box, {className: "row"}, {role: "group", "aria-label": "images to start from"});
const buttons = SPEC.presets.map(({image, name}, i) => {
  const button = make("button", row, {className: "preset", type: "button", onclick: () => go(presets[i])},
    {"aria-label": name});
  paint(make("canvas", button, {width: W, height: H}, {"aria-hidden": true}), pixel(read(image), 1));
  return button;
});
const draws = read(SPEC.draws), L = SPEC.latent_dim, count = draws.length / L;
const press = (textContent, onclick, to = row) => make("button", to, {type: "button", textContent, onclick});
let next = 0;
press("random", () => go(draws.subarray(L * next, L * (next = next % count + 1))));
press("zero", () => go(new Float32Array(L)));
let turn = 0;
const below = make("div", sheet, {className: "bar"});
press("other corners", () => {
  turn++;
  corners = [0, 1, 2, 3].map(i => presets[(i + 4 * turn + Math.floor(4 * turn / presets.length)) % presets.length]);
  drawPad();
  move(...place);
  go(between(place));
}, below);
const panel = make("div", box, {className: "sliders"}), sliders = [];
for (const d of SPEC.order) {
  const line = make("label", panel, {innerHTML: `<span><i>z</i><sub>${d + 1}</sub></span>`});
  const slider = make("input", line, {type: "range", min: -SPEC.reach, max: SPEC.reach, step: 0.01, value: 0,
    oninput: () => { z[d] = slider.valueAsNumber; show(slider); }}, {"aria-label": `latent ${d + 1} of ${L}`});
  sliders[d] = [slider, make("output", line)];
}
drawPad();
move(...place);
go(presets[0]);
host.explorer = {decode, go, latent: z};
here.replaceWith(host);
