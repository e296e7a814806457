const sheet = framed("between four presets", "wide"), side = 5;  // the small images on the map
const pad = make("div", sheet, {className: "pad", tabIndex: 0}, {role: "slider",
  "aria-label": "place between four presets", "aria-valuemin": 0, "aria-valuemax": 100});
const map = make("canvas", pad, {width: side * W, height: side * H}, {"aria-hidden": true});
const dot = make("div", pad, {className: "dot"});
let corners = [0, 1, 2, 3].map(i => presets[i % presets.length]), place = [0.5, 0.5];
const between = ([x, y]) => corners[0].map((_, d) => (1 - y) * ((1 - x) * corners[0][d] + x * corners[1][d])
  + y * ((1 - x) * corners[2][d] + x * corners[3][d]));
const drawPad = () => {
  for (let i = 0; i < side; i++) for (let j = 0; j < side; j++)
    paint(map, pixel(decode(between([j / (side - 1), i / (side - 1)])).mean), j * W, i * H);
};
const move = (x, y) => {
  place = [x, y].map(v => Math.min(Math.max(v, 0), 1));
  const [across, down] = place.map(v => Math.round(100 * v));
  Object.assign(dot.style, {left: `${across}%`, top: `${down}%`});
  pad.setAttribute("aria-valuenow", across);
  pad.setAttribute("aria-valuetext", `${across} % across, ${down} % down`);
};
const follow = event => {
  const {left, top, width, height} = pad.getBoundingClientRect();
  move((event.clientX - left) / width, (event.clientY - top) / height);
  go(between(place));
};
pad.onpointerdown = event => { pad.setPointerCapture(event.pointerId); follow(event); };
pad.onpointermove = event => { if (event.buttons) follow(event); };
pad.onkeydown = event => {
  const by = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
  if (!by) return;
  event.preventDefault();
  move(place[0] + by[0] / 20, place[1] + by[1] / 20);
  go(between(place));
};
